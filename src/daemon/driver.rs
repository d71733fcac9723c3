//! The single owner of the supervisor: one input, or the next deadline, at a time.
//!
//! decide → persist → answer → hand the actions on → publish. What could not be persisted did not
//! happen: the supervisor is put back and the sender is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::effects::Effects;
use super::handle::Input;
use super::house::House;
use super::logbook::Logbook;
use super::queue_actions::QueueActions;
use crate::claude::prompt;
use crate::control::{ControlError, StatusReport};
use crate::model::view::{FleetView, UsageView};
use crate::model::{
    AgentId, CallbackId, Ending, HookAnswer, HookFact, HookReport, Reply, Request, Timestamp,
};
use crate::ports::PortResult;
use crate::store::sqlite::{Changes, FleetState, JournalEntry};
use crate::supervisor::{Action, Event, Fleet, HookInput, Supervisor};

/// Never sleeps less than this for a deadline, so that a deadline in the past cannot spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
/// After a failed write, before the input is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    supervisor: Supervisor,
    house: Arc<House>,
    state: FleetState,
    queue: QueueActions,
    effects: Effects,
    logbook: Logbook,
    /// Hook callbacks whose caller waits.
    waiting: BTreeMap<CallbackId, oneshot::Sender<Result<HookAnswer, ControlError>>>,
    /// What status lines told; not persisted, it comes again within seconds.
    usage: BTreeMap<AgentId, (UsageView, Option<String>)>,
    distances: BTreeMap<AgentId, (u32, u32)>,
    inbox: VecDeque<Event>,
    publisher: watch::Sender<Arc<FleetView>>,
    generation: u64,
    finished: Option<Ending>,
}

impl Driver {
    pub(super) fn new(
        supervisor: Supervisor,
        house: Arc<House>,
        state: FleetState,
        queue: QueueActions,
        effects: Effects,
        publisher: watch::Sender<Arc<FleetView>>,
    ) -> Self {
        let logbook = Logbook::new(&house);
        Self {
            supervisor,
            house,
            state,
            queue,
            effects,
            logbook,
            waiting: BTreeMap::new(),
            usage: BTreeMap::new(),
            distances: BTreeMap::new(),
            inbox: VecDeque::new(),
            publisher,
            generation: 0,
            finished: None,
        }
    }

    /// Runs until an ending has finished. `first` are the facts found at start.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        first: Vec<Event>,
    ) -> Ending {
        let queue = self.queue.view();
        self.inbox.push_back(Event::QueueChanged(queue));
        self.drain_inbox().await;
        self.inbox.extend(first);
        let resumed = self.supervisor.resume_merging();
        self.carry_out(resumed).await;
        self.drain_inbox().await;
        loop {
            if let Some(ending) = self.finished {
                return ending;
            }
            self.publish();
            let wait = self.wait_for_deadline();
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.take(input).await,
                    None => return Ending::Detach,
                },
                () = tokio::time::sleep(wait) => self.expire().await,
            }
            self.drain_inbox().await;
        }
    }

    fn now(&self) -> Timestamp {
        self.house.clock.now()
    }

    fn wait_for_deadline(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(3600);
        self.supervisor
            .next_deadline()
            .map_or(LONGEST, |(at, why)| {
                let wait = at.since(self.now()).max(SHORTEST_WAIT);
                tracing::trace!(?wait, why, "next deadline");
                wait
            })
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.inbox.push_back(event),
            Input::Hook {
                report,
                raw,
                answer,
            } => self.take_hook(report, raw, answer).await,
            Input::Request { request, reply } => self.take_request(request, reply).await,
            Input::Status { report, line } => self.take_status(report, line),
            Input::ListsTouched => self.read_lists().await,
            Input::QueueMoved => {
                let view = self.queue.view();
                self.inbox.push_back(Event::QueueChanged(view));
            }
            Input::Distances(distances) => {
                self.distances = distances
                    .into_iter()
                    .map(|(id, a, b)| (id, (a, b)))
                    .collect();
            }
        }
    }

    async fn drain_inbox(&mut self) {
        while let Some(event) = self.inbox.pop_front() {
            self.logbook.event(self.house.clock.now(), &event);
            let now = self.now();
            let kept = event.clone();
            let decided = self
                .decide(Vec::new(), |supervisor| supervisor.observe(now, event))
                .await;
            if let Err(error) = decided {
                tracing::error!(
                    error = error.chain(),
                    "a decision could not be stored; trying again"
                );
                self.inbox.push_front(kept);
                tokio::time::sleep(WRITE_AGAIN).await;
            }
        }
    }

    async fn expire(&mut self) {
        let now = self.now();
        if let Err(error) = self
            .decide(Vec::new(), |supervisor| supervisor.expire(now))
            .await
        {
            tracing::error!(
                error = error.chain(),
                "a deadline's decision could not be stored"
            );
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }

    /// One decision. On `Err` nothing has changed, here or on disk.
    async fn decide(
        &mut self,
        journal: Vec<JournalEntry>,
        decision: impl FnOnce(&mut Supervisor) -> Vec<Action>,
    ) -> PortResult<()> {
        let before = self.supervisor.clone();
        let actions = decision(&mut self.supervisor);
        let changes = self.changes(before.fleet(), journal, &actions);
        if let Some(changes) = changes
            && let Err(error) = self.state.commit(changes).await
        {
            self.supervisor = before;
            return Err(error);
        }
        if let Err(broken) = self.supervisor.fleet().check() {
            tracing::error!(broken, "an invariant of the fleet does not hold");
        }
        self.carry_out(actions).await;
        Ok(())
    }

    /// What differs from before; `None` when nothing does.
    fn changes(
        &self,
        before: &Fleet,
        journal: Vec<JournalEntry>,
        actions: &[Action],
    ) -> Option<Changes> {
        let after = self.supervisor.fleet();
        let mut changes = Changes {
            at: self.now(),
            journal,
            ..Changes::default()
        };
        for (id, agent) in &after.agents {
            if before.agents.get(id) != Some(agent) {
                let row = serde_json::to_string(agent).ok()?;
                changes.agents.push((id.clone(), row));
            }
        }
        let whole = fleet_row(after);
        if fleet_row(before) != whole {
            changes.meta.push(("fleet".into(), whole));
        }
        for action in actions {
            if let Action::Answer { callback, answer } = action
                && let Ok(json) = serde_json::to_string(answer)
            {
                let agent = AgentId::new("");
                changes.callbacks.push((callback.clone(), agent, json));
            }
        }
        let empty = changes.agents.is_empty()
            && changes.meta.is_empty()
            && changes.journal.is_empty()
            && changes.callbacks.is_empty();
        (!empty).then_some(changes)
    }

    async fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            tracing::debug!(?action, "action");
            match action {
                Action::Answer { callback, answer } => {
                    if let Some(sender) = self.waiting.remove(&callback) {
                        let _gone = sender.send(Ok(answer));
                    }
                }
                Action::ReadTaskLists => self.read_lists().await,
                Action::Finish { ending } => self.finished = Some(ending),
                Action::Claim { .. }
                | Action::Complete { .. }
                | Action::Release { .. }
                | Action::CreateTask(_) => {
                    let now = self.now();
                    let events = self.queue.carry_out(now, action).await;
                    self.inbox.extend(events);
                }
                Action::Launch { .. }
                | Action::Adopt { .. }
                | Action::EnsurePane { .. }
                | Action::CheckScreen { .. }
                | Action::StopContainer { .. }
                | Action::TakeInventory { .. }
                | Action::Paste { .. }
                | Action::Import { .. }
                | Action::Merge { .. }
                | Action::Push { .. }
                | Action::FetchRemote => {
                    if let Action::Paste { agent, text, .. } = &action {
                        self.logbook.delivery(self.house.clock.now(), agent, text);
                    }
                    let credential = self.credential_for(&action);
                    self.effects.start(action, credential);
                }
            }
        }
    }

    fn credential_for(&self, action: &Action) -> Option<crate::model::CredentialId> {
        let Action::Launch { agent, .. } = action else {
            return None;
        };
        self.supervisor
            .fleet()
            .agents
            .get(agent)?
            .credential
            .clone()
    }

    async fn take_hook(
        &mut self,
        report: HookReport,
        raw: serde_json::Value,
        answer: oneshot::Sender<Result<HookAnswer, ControlError>>,
    ) {
        match self.state.callback(&report.callback).await {
            Ok(Some(known)) => {
                let again = serde_json::from_str(&known).unwrap_or(HookAnswer::LetGo);
                self.notice_lost_answer(&report, &again);
                let _gone = answer.send(Ok(again));
                return;
            }
            Ok(None) => {}
            Err(error) => {
                let _gone = answer.send(Err(ControlError::NotStored(error.chain())));
                return;
            }
        }
        let now = self.now();
        self.logbook.hook(now, &report);
        let receipt = self.is_receipt(&report);
        let jitter = (self.house.entropy.fraction() * 999.0) as u16;
        let journal = vec![JournalEntry {
            seq: 0,
            at: now,
            agent: Some(report.agent.clone()),
            kind: "hook".into(),
            json: raw.to_string(),
        }];
        let callback = report.callback.clone();
        let spooled = report.spooled;
        // Of a spooled one the drain waits, to delete its file.
        self.waiting.insert(callback.clone(), answer);
        let input = HookInput {
            report: report.clone(),
            receipt,
            jitter,
        };
        let decided = self
            .decide(journal, |supervisor| {
                supervisor.observe(now, Event::Hook(input))
            })
            .await;
        match decided {
            Err(error) => {
                if let Some(sender) = self.waiting.remove(&callback) {
                    let _gone = sender.send(Err(ControlError::NotStored(error.chain())));
                }
            }
            Ok(()) if spooled => {
                self.remember_spooled(now, &report).await;
                if let Some(sender) = self.waiting.remove(&callback) {
                    let _gone = sender.send(Ok(HookAnswer::LetGo));
                }
            }
            Ok(()) => {}
        }
    }

    /// A callback we answered that comes again from the spool: its caller never got the answer.
    fn notice_lost_answer(&mut self, report: &HookReport, answer: &HookAnswer) {
        if let (true, HookAnswer::Continue { text, .. }) = (report.spooled, answer) {
            let agent = report.agent.clone();
            let incarnation = report.incarnation.unwrap_or_default();
            let text = text.clone();
            self.inbox.push_back(Event::AnswerLost {
                agent,
                incarnation,
                text,
            });
        }
    }

    /// A spooled callback has no answer; remember it all the same, so that a crash between here
    /// and the deletion of its file does not count it twice.
    async fn remember_spooled(&self, now: Timestamp, report: &HookReport) {
        let json = serde_json::to_string(&HookAnswer::LetGo).unwrap_or_default();
        let changes = Changes {
            at: now,
            callbacks: vec![(report.callback.clone(), report.agent.clone(), json)],
            ..Changes::default()
        };
        if let Err(error) = self.state.commit(changes).await {
            tracing::error!(
                error = error.chain(),
                "a spooled callback could not be remembered"
            );
        }
    }

    fn is_receipt(&self, report: &HookReport) -> bool {
        let HookFact::PromptSubmitted {
            text,
            machine: false,
        } = &report.fact
        else {
            return false;
        };
        self.supervisor
            .awaited_text(&report.agent)
            .is_some_and(|sent| prompt::same_prompt(sent, text))
    }

    async fn take_request(&mut self, request: Request, reply: oneshot::Sender<Reply>) {
        let now = self.now();
        let journal = vec![JournalEntry {
            seq: 0,
            at: now,
            agent: None,
            kind: "request".into(),
            json: serde_json::to_string(&request).unwrap_or_default(),
        }];
        tracing::info!(?request, "request");
        let mut answer = Reply::Denied {
            code: "NOT_STORED".into(),
            reason: "the request could not be stored".into(),
            hint: Some("is the disk full? see `orchestrator logs supervisor`".into()),
        };
        let decided = self
            .decide(journal, |supervisor| {
                let (given, actions) = supervisor.request(now, request);
                answer = given;
                actions
            })
            .await;
        if let Err(error) = decided {
            tracing::error!(error = error.chain(), "a request could not be stored");
        }
        let _gone = reply.send(answer);
    }

    fn take_status(&mut self, report: StatusReport, line: oneshot::Sender<String>) {
        let text = self.status_text(&report.agent);
        if let Some(version) = &report.claude_version {
            tracing::trace!(agent = %report.agent, version, "status line");
        }
        self.usage
            .insert(report.agent, (report.usage, report.model));
        let _gone = line.send(text);
    }

    /// The line under an agent's prompt.
    fn status_text(&self, id: &AgentId) -> String {
        let Some(agent) = self.supervisor.fleet().agents.get(id) else {
            return format!("orchestrator · {id}");
        };
        match &agent.held {
            Some(held) => format!("orchestrator · {id} · {} · {}", held.task, held.title),
            None => format!("orchestrator · {id} · {}", agent.reason),
        }
    }

    async fn read_lists(&mut self) {
        let now = self.now();
        let events = self.queue.read_lists(now).await;
        self.inbox.extend(events);
    }

    fn publish(&mut self) {
        let mut view = self.supervisor.view(self.now());
        view.tmux_socket.clone_from(&self.house.tmux_socket);
        let lists = self.house.paths.agent(&AgentId::manager()).checkout();
        view.task_list_directory = lists.display().to_string();
        for agent in &mut view.agents {
            if let Some((usage, model)) = self.usage.get(&agent.id) {
                agent.usage = usage.clone();
                agent.model.clone_from(model);
            }
            if let Some((ahead, behind)) = self.distances.get(&agent.id) {
                agent.ahead = Some(*ahead);
                agent.behind = Some(*behind);
            }
        }
        self.publisher.send_if_modified(|current| {
            view.generation = current.generation;
            let moment = view.at;
            view.at = current.at;
            if **current == view {
                return false;
            }
            view.generation = self.generation + 1;
            view.at = moment;
            *current = Arc::new(view);
            true
        });
        self.generation = self.publisher.borrow().generation;
    }
}

/// The fleet without its agents, which have rows of their own.
fn fleet_row(fleet: &Fleet) -> String {
    let bare = Fleet {
        agents: BTreeMap::new(),
        ..fleet.clone()
    };
    serde_json::to_string(&bare).unwrap_or_default()
}
