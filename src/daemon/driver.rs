//! The single owner of the supervisor: one input, or the next deadline, at a time.
//!
//! decide → persist → answer → hand the actions on → publish. What could not be persisted did not
//! happen: the supervisor is put back and the sender is told.

mod callbacks;
mod deciding;
mod explaining;
mod showing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::effects::Effects;
use super::handle::{Call, Input};
use super::house::House;
use super::logbook::Logbook;
use super::queue_actions::QueueActions;
use super::usage::{UsageBook, WindowBook};
use crate::control::ControlError;
use crate::model::view::{DiskView, FleetView};
use crate::model::{
    AgentId, CallbackId, Ending, HookAnswer, Reply, Request, RunningGate, Timestamp,
};
use crate::store::sqlite::{Changes, FleetState, JournalEntry};
use crate::supervisor::{Action, Event, Supervisor};

/// Never sleeps less than this for a deadline, so that a deadline in the past cannot spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
/// After a failed write, before the event is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// Between looks at claims and at changes of the queue that failed.
const TEND: Duration = Duration::from_secs(30);

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
    usage: UsageBook,
    windows: WindowBook,
    distances: BTreeMap<AgentId, (u32, u32)>,
    disk: Option<DiskView>,
    gate: Option<RunningGate>,
    inbox: VecDeque<Event>,
    /// What nobody waits for: done when nothing is left to be decided.
    later: VecDeque<Action>,
    publisher: watch::Sender<Arc<FleetView>>,
    generation: u64,
    finished: Option<Ending>,
    /// The store refused an event: until then nothing new is decided, so that the order holds.
    stalled_until: Option<Instant>,
    /// Something was refused since the last successful write.
    refused: bool,
    /// Lists were touched while nothing could be stored.
    lists_touched: bool,
    expired_at: Instant,
    tend_at: Instant,
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
            usage: UsageBook::default(),
            windows: WindowBook::default(),
            distances: BTreeMap::new(),
            disk: None,
            gate: None,
            inbox: VecDeque::new(),
            later: VecDeque::new(),
            publisher,
            generation: 0,
            finished: None,
            stalled_until: None,
            refused: false,
            lists_touched: false,
            expired_at: Instant::now(),
            tend_at: Instant::now() + TEND,
        }
    }

    /// Runs until an ending has finished. `first` are the facts found at start.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        first: Vec<Event>,
    ) -> Ending {
        // A claim that a crash left without a holder is open again before anybody is given work.
        self.tend().await;
        let queue = self.queue.view();
        self.inbox.push_back(Event::QueueChanged(queue));
        self.drain_inbox().await;
        self.inbox.extend(first);
        let resumed = self.supervisor.resume_merging(self.now());
        self.carry_out(resumed).await;
        self.drain_inbox().await;
        loop {
            if let Some(ending) = self.finished {
                return ending;
            }
            self.publish();
            let wait = self.wait();
            // Not by the select below: under a steady stream of inputs it need never choose the clock.
            if wait.is_zero() {
                self.timers().await;
                continue;
            }
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(Input::Hook(call)) if self.stalled_until.is_none() => {
                        let (calls, next) = callbacks::gather(call, &mut inputs);
                        self.take_hooks(calls).await;
                        self.drain_inbox().await;
                        if let Some(next) = next {
                            self.take(next).await;
                        }
                    }
                    Some(input) => self.take(input).await,
                    None => return Ending::Detach,
                },
                () = tokio::time::sleep(wait) => {}
            }
            self.drain_inbox().await;
        }
    }

    fn now(&self) -> Timestamp {
        self.house.clock.now()
    }

    /// Until something is to be done without an input; zero when it is due.
    fn wait(&self) -> Duration {
        if let Some(until) = self.stalled_until {
            return until.saturating_duration_since(Instant::now());
        }
        let tend = self.tend_at.saturating_duration_since(Instant::now());
        let Some((at, why)) = self.supervisor.next_deadline() else {
            return tend;
        };
        tracing::trace!(?at, why, "next deadline");
        let pause = SHORTEST_WAIT.saturating_sub(self.expired_at.elapsed());
        at.since(self.now()).max(pause).min(tend)
    }

    async fn timers(&mut self) {
        self.stalled_until = None;
        self.drain_inbox().await;
        if self.stalled_until.is_some() {
            return;
        }
        if std::mem::take(&mut self.lists_touched) {
            self.read_lists().await;
        }
        self.expire().await;
        self.expired_at = Instant::now();
        self.drain_inbox().await;
        if self.tend_at <= Instant::now() && self.stalled_until.is_none() {
            self.tend().await;
            self.tend_at = Instant::now() + TEND;
            self.drain_inbox().await;
        }
    }

    /// Claims that are worked on are renewed, those that nobody has are given back, and changes of
    /// the queue that failed are tried again.
    async fn tend(&mut self) {
        let now = self.now();
        let events = self.queue.tend(now, self.supervisor.fleet()).await;
        self.inbox.extend(events);
        self.inbox
            .extend(self.queue.overtaken(self.supervisor.fleet()));
    }

    async fn take(&mut self, input: Input) {
        if self.stalled_until.is_some() {
            self.take_stalled(input);
            return;
        }
        match input {
            Input::Event(event) => self.inbox.push_back(event),
            Input::Hook(call) => self.take_hooks(vec![call]).await,
            Input::Request { request, reply } => self.take_request(request, reply).await,
            Input::Status { report, line } => self.take_status(report, line),
            Input::ListsTouched => self.read_lists().await,
            Input::QueueMoved => {
                let view = self.queue.view();
                self.inbox.push_back(Event::QueueChanged(view));
                self.inbox
                    .extend(self.queue.overtaken(self.supervisor.fleet()));
            }
            Input::Tokens { agent, tokens } => self.usage.counted(agent, tokens),
            Input::Distances(distances) => self.take_distances(distances),
            Input::Explain(question) => self.take_question(question),
            Input::Disk(disk) => self.disk = disk,
            Input::Gate(gate) => self.gate = gate,
        }
    }

    /// While the store refuses: nothing is promised, nothing overtakes what waits, and one can
    /// still detach.
    fn take_stalled(&mut self, input: Input) {
        let reason = "the state cannot be written";
        match input {
            Input::Event(event) => self.inbox.push_back(event),
            Input::Hook(Call { answer, .. }) => {
                let _gone = answer.send(Err(ControlError::NotStored(reason.into())));
            }
            Input::Request {
                request:
                    Request::End {
                        ending: Ending::Detach,
                    },
                reply,
            } => {
                self.finished = Some(Ending::Detach);
                let _gone = reply.send(Reply::Accepted);
            }
            Input::Request { reply, .. } => {
                let _gone = reply.send(not_stored());
            }
            Input::Status { report, line } => self.take_status(report, line),
            Input::ListsTouched => self.lists_touched = true,
            Input::QueueMoved => {
                let view = Event::QueueChanged(self.queue.view());
                match self.inbox.back_mut() {
                    Some(last @ Event::QueueChanged(_)) => *last = view,
                    _ => self.inbox.push_back(view),
                }
            }
            Input::Tokens { agent, tokens } => self.usage.counted(agent, tokens),
            Input::Distances(distances) => self.take_distances(distances),
            Input::Explain(question) => self.take_question(question),
            Input::Disk(disk) => self.disk = disk,
            Input::Gate(gate) => self.gate = gate,
        }
    }

    async fn drain_inbox(&mut self) {
        loop {
            while self.stalled_until.is_none()
                && let Some(event) = self.inbox.pop_front()
            {
                self.take_event(event).await;
            }
            if self.stalled_until.is_some() {
                return;
            }
            match self.later.pop_front() {
                Some(Action::ReadTaskLists) => self.read_lists().await,
                Some(action) => {
                    let now = self.now();
                    let events = self.queue.carry_out(now, action).await;
                    self.inbox.extend(events);
                }
                None => return,
            }
        }
    }

    async fn take_event(&mut self, event: Event) {
        let now = self.now();
        let kept = event.clone();
        let decided = self
            .decide(Changes::default(), |supervisor| {
                supervisor.observe(now, event)
            })
            .await;
        match decided {
            Ok(()) => self.logbook.event(now, &kept),
            Err(error) => {
                self.inbox.push_front(kept);
                self.stall(&error);
            }
        }
    }

    fn stall(&mut self, error: &crate::ports::PortError) {
        tracing::error!(
            error = error.chain(),
            "a decision could not be stored; trying again"
        );
        self.stalled_until = Some(Instant::now() + WRITE_AGAIN);
    }

    async fn expire(&mut self) {
        let now = self.now();
        let decided = self
            .decide(Changes::default(), |supervisor| supervisor.expire(now))
            .await;
        if let Err(error) = decided {
            self.stall(&error);
        }
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
                Action::Finish { ending } => self.finished = Some(ending),
                // An agent may wait for its next task, which needs no more than the claim.
                Action::Complete { .. }
                | Action::Release { .. }
                | Action::NoteAttempts { .. }
                | Action::RetryTask { .. }
                | Action::CancelTask { .. }
                | Action::CreateTask(_)
                | Action::ReadTaskLists => self.later.push_back(action),
                Action::Claim { .. } => {
                    let now = self.now();
                    let events = self.queue.carry_out(now, action).await;
                    self.inbox.extend(events);
                }
                Action::Launch { .. }
                | Action::Adopt { .. }
                | Action::EnsurePane { .. }
                | Action::CheckScreen { .. }
                | Action::Examine { .. }
                | Action::CheckSession { .. }
                | Action::StopContainer { .. }
                | Action::Rescue { .. }
                | Action::Lend { .. }
                | Action::Refresh { .. }
                | Action::CloseDialog { .. }
                | Action::TakeInventory { .. }
                | Action::Paste { .. }
                | Action::Import { .. }
                | Action::BuildStack { .. }
                | Action::RunGates { .. }
                | Action::Land { .. }
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

    async fn take_request(&mut self, request: Request, reply: oneshot::Sender<Reply>) {
        let now = self.now();
        let also = Changes {
            journal: vec![JournalEntry {
                seq: 0,
                at: now,
                agent: None,
                kind: "request".into(),
                json: serde_json::to_string(&request).unwrap_or_default(),
            }],
            ..Changes::default()
        };
        tracing::info!(?request, "request");
        let detach = matches!(
            request,
            Request::End {
                ending: Ending::Detach
            }
        );
        let found = request.task().and_then(|id| self.queue.queue.get(id));
        let mut answer = not_stored();
        let decided = self
            .decide(also, |supervisor| {
                let (given, actions) = supervisor.request_about(now, request, found.as_ref());
                answer = given;
                actions
            })
            .await;
        if let Err(error) = decided {
            tracing::error!(error = error.chain(), "a request could not be stored");
            answer = not_stored();
            // It changes nothing that would have to be remembered.
            if detach {
                self.finished = Some(Ending::Detach);
                answer = Reply::Accepted;
            }
        }
        let _gone = reply.send(answer);
    }

    async fn read_lists(&mut self) {
        let now = self.now();
        let events = self.queue.read_lists(now).await;
        self.inbox.extend(events);
    }
}

fn not_stored() -> Reply {
    Reply::Denied {
        code: "NOT_STORED".into(),
        reason: "the request could not be stored".into(),
        hint: Some("is the disk full? see `orchestrator logs supervisor`".into()),
    }
}
