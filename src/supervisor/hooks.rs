//! Hook callbacks: the strongest evidence there is. Each one that waits gets exactly one answer.

use std::time::Duration;

use super::Supervisor;
use super::action::{Action, ClaimFor};
use super::input::HookInput;
use super::state::{Phase, QUIET};
use crate::model::{
    AgentId, CallbackId, CommitId, Ending, HookAnswer, HookFact, HookReport, Incarnation,
    SessionId, TaskSource, Timestamp,
};

/// A moment for the first screen to be drawn after the SessionStart hook.
const FIRST_LOOK: Duration = Duration::from_millis(300);
/// An agent that gets its next task begins it at once; git in its container can wait so long.
const IMPORT_LATER: Duration = Duration::from_secs(1);

impl Supervisor {
    pub(super) fn on_hook(&mut self, now: Timestamp, input: HookInput) {
        let HookInput {
            report,
            receipt,
            fault,
            jitter,
        } = input;
        self.jitter = jitter;
        let callback = (!report.spooled).then(|| report.callback.clone());
        if !self.concerns_a_present_life(&report) {
            self.answer(callback, HookAnswer::LetGo);
            return;
        }
        self.remember(now, &report);
        let id = report.agent.clone();
        if let HookFact::Stopped {
            background_tasks: 0,
            ..
        } = report.fact
            && let Some(agent) = self.fleet.agents.get_mut(&id)
        {
            agent.turn_stopped(callback.as_ref());
        }
        if self.fleet.agents[&id].phase.is_over() {
            self.last_words(now, &id, &report.fact);
            self.answer(callback, HookAnswer::LetGo);
            return;
        }
        match report.fact {
            HookFact::SessionStarted { source } => {
                self.on_session_started(now, &id, &source, report.session);
                self.answer(callback, HookAnswer::LetGo);
            }
            HookFact::PromptSubmitted { machine, .. } => {
                self.on_prompt(now, &id, receipt, machine);
                self.answer(callback, HookAnswer::LetGo);
            }
            HookFact::Stopped {
                background_tasks,
                last_message,
            } => {
                self.on_stopped(now, &id, callback, background_tasks, last_message);
            }
            HookFact::TurnFailed { error, message } => {
                let text = format!("its turn failed ({error}): {message}");
                self.on_turn_failed(now, &id, fault, &text);
                self.answer(callback, HookAnswer::LetGo);
            }
            HookFact::Notified {
                notification,
                message,
            } => {
                if notification == "permission_prompt" {
                    self.wait_for_person(
                        now,
                        &id,
                        &format!("a permission dialog waits: {message}"),
                    );
                }
                if notification == "idle_prompt" {
                    self.doubt(&id);
                }
                self.answer(callback, HookAnswer::LetGo);
            }
            HookFact::PermissionAsked { tool } => {
                let message = format!(
                    "{tool} needs a person, and none is watching. Decide yourself and go on; say in your summary what you decided."
                );
                self.answer(callback, HookAnswer::Deny { message });
            }
            HookFact::SessionEnded { reason } => {
                if reason != "clear"
                    && let Some(agent) = self.fleet.agents.get_mut(&id)
                {
                    agent.reason = format!("its session ended ({reason})");
                    agent.leaving = Some(now);
                }
                self.answer(callback, HookAnswer::LetGo);
            }
            HookFact::Activity { .. } => self.answer(callback, HookAnswer::LetGo),
            HookFact::Unknown { event } => {
                *self.fleet.unknown_hooks.entry(event).or_default() += 1;
                self.answer(callback, HookAnswer::LetGo);
            }
        }
    }

    fn concerns_a_present_life(&mut self, report: &HookReport) -> bool {
        match report.incarnation {
            Some(incarnation) => self.is_current(&report.agent, incarnation),
            None => self.fleet.agents.contains_key(&report.agent),
        }
    }

    fn remember(&mut self, now: Timestamp, report: &HookReport) {
        let Some(agent) = self.fleet.agents.get_mut(&report.agent) else {
            return;
        };
        agent.last_hook = Some(fact_word(&report.fact).to_owned());
        agent.last_hook_at = Some(now);
        agent.evidence.hook(now, &report.fact);
        // A spooled one may be older than what the agent has by now.
        agent.lease.in_use |= !report.spooled && begins_a_turn(&report.fact);
        agent.rescuing.hook(now, &report.fact);
        if works_on(&report.fact)
            && let Some(held) = agent.held.as_mut().filter(|held| held.delivered)
        {
            held.begun = true;
        }
        if !matches!(report.fact, HookFact::Notified { .. }) {
            agent.doubted = false;
            agent.free_looks = 0;
            agent.look_at = agent.look_at.map(|_| now + QUIET);
        }
        if report.head.is_some() {
            agent.head.clone_from(&report.head);
        }
    }

    fn answer(&mut self, callback: Option<CallbackId>, answer: HookAnswer) {
        if let Some(callback) = callback {
            self.act(Action::Answer { callback, answer });
        }
    }

    fn on_session_started(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        source: &str,
        session: Option<SessionId>,
    ) {
        let start_deadline = self.policy.start_deadline;
        if source == "compact" {
            return;
        }
        self.check_first_hook(now, id, source, session.as_ref());
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.conversed = true;
        agent.leaving = None;
        if let Some(session) = session {
            agent.session = session;
        }
        match agent.phase {
            // The hook may be faster than the engine's answer to `start`.
            Phase::Launching | Phase::Starting { .. } => {
                let until = now + start_deadline;
                agent.enter(
                    now,
                    Phase::Starting {
                        until,
                        greeted: true,
                        looks: 0,
                        look_at: now + FIRST_LOOK,
                    },
                    "Claude Code is up; verifying its first screen",
                );
            }
            Phase::Idle | Phase::Working | Phase::Waiting { .. } | Phase::Limited { .. }
                if source == "clear" =>
            {
                if let Some(held) = &mut agent.held {
                    held.tell_in_full();
                }
                self.at_prompt(now, id);
            }
            _ => {}
        }
    }

    fn on_prompt(&mut self, now: Timestamp, id: &AgentId, receipt: bool, machine: bool) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if matches!(agent.phase, Phase::Claiming { .. }) {
            return;
        }
        match &mut agent.held {
            Some(held) if receipt => {
                held.delivered = true;
                held.begun = true;
                held.cut_off = None;
                let reason = "its prompt hook confirmed the paste";
                agent.enter(now, Phase::Working, reason);
            }
            _ => {
                let who = if machine {
                    "a background task's end"
                } else {
                    "a prompt of a person"
                };
                agent.enter(now, Phase::Working, format!("on {who}"));
            }
        }
    }

    fn on_stopped(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        callback: Option<CallbackId>,
        background_tasks: u32,
        last_message: String,
    ) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.turns += 1;
        self.turn_went_well(id);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if matches!(agent.phase, Phase::Claiming { .. }) {
            self.answer(callback, HookAnswer::LetGo);
            return;
        }
        if background_tasks > 0 {
            let reason =
                format!("its turn ended, but {background_tasks} background task(s) run on");
            agent.in_background = true;
            agent.enter(now, Phase::Working, reason);
            self.answer(callback, HookAnswer::LetGo);
            return;
        }
        agent.in_background = false;
        agent.enter(now, Phase::Idle, "its turn ended");
        if !self.finish_delivered(now, id, last_message) {
            if self.fleet.agents[id].held.is_some() {
                self.answer_with_held(now, id, callback);
                return;
            }
            if !self.dropped_turn_ended(id) {
                self.import(id, None);
            }
        }
        self.next_or_let_go(now, id, callback);
    }

    /// Its turn ended, so it says that what it was given is done. False if it was given nothing.
    fn finish_delivered(&mut self, now: Timestamp, id: &AgentId, text: String) -> bool {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return false;
        };
        let Some(held) = agent.held.take_if(|held| held.delivered) else {
            return false;
        };
        let source = held.source.clone();
        let title = self.title_of_work(id, &held);
        self.turn_ended_on(now, id, held, text);
        self.work_ended(now, id, &title, &source);
        true
    }

    /// From a process that has ended or is being ended: work it finished counts, nothing else does.
    fn last_words(&mut self, now: Timestamp, id: &AgentId, fact: &HookFact) {
        if let HookFact::Stopped {
            background_tasks: 0,
            last_message,
        } = fact
        {
            if let Some(agent) = self.fleet.agents.get_mut(id) {
                agent.turns += 1;
            }
            if !self.finish_delivered(now, id, last_message.clone()) && !self.dropped_turn_ended(id)
            {
                self.import_if_new(id);
            }
        }
    }

    /// A turn of somebody else ended while our text waited: hand it over now.
    fn answer_with_held(&mut self, now: Timestamp, id: &AgentId, callback: Option<CallbackId>) {
        if let Some(agent) = self.fleet.agents.get_mut(id)
            && agent.leaves(now)
        {
            let reason = "its session ends; it is told its task when it is back";
            agent.enter(now, Phase::Working, reason);
            self.answer(callback, HookAnswer::LetGo);
            return;
        }
        let may_work = self.fleet.agents[id].may_work(&self.fleet.pool);
        let Some(callback) = callback.filter(|_| may_work) else {
            self.at_prompt(now, id);
            return;
        };
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Some(held) = &mut agent.held else { return };
        held.tell_in_full();
        held.delivered = true;
        let text = held.text.clone();
        let reason = "the answer to its Stop hook carried the task";
        agent.enter(now, Phase::Working, reason);
        self.hand_over(id, callback, text);
    }

    pub(super) fn hand_over(&mut self, id: &AgentId, callback: CallbackId, text: String) {
        let bring_up_to = self.news_for(id);
        if let Some(agent) = self.fleet.agents.get_mut(id)
            && let Some(held) = &mut agent.held
        {
            held.begins(agent.head.as_ref(), bring_up_to.as_ref());
        }
        self.act(Action::Answer {
            callback,
            answer: HookAnswer::Continue { text, bring_up_to },
        });
    }

    /// We thought it was working on this; it was let go instead.
    pub(super) fn on_answer_lost(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        text: &str,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let same = agent
            .held
            .as_ref()
            .is_some_and(|held| held.delivered && held.text == text);
        if same && agent.phase == Phase::Working {
            if let Some(held) = &mut agent.held {
                held.delivered = false;
            }
            self.at_prompt(now, id);
        }
    }

    fn work_ended(&mut self, now: Timestamp, id: &AgentId, title: &str, source: &TaskSource) {
        if let TaskSource::Plan { .. } = source {
            self.round_ended(now);
        }
        if id.worker_number().is_none() {
            self.act(Action::ReadTaskLists);
        }
        self.import(id, Some(title));
    }

    /// At rest with commits nobody has taken, for whatever reason.
    pub(super) fn import_if_new(&mut self, id: &AgentId) {
        let agent = self.fleet.agents.get(id);
        if agent.is_some_and(|agent| agent.head.is_some() && !agent.importing) {
            self.import(id, None);
        }
    }

    /// Takes the agent's commits, unless its `HEAD` is one we have taken already.
    pub(super) fn import(&mut self, id: &AgentId, title: Option<&str>) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let known = agent.head.is_some() && agent.head == agent.imported;
        if title.is_none() && known && !agent.has_unseen_work() {
            return;
        }
        if agent.importing {
            // One at a time: the one on its way has the title of the work it takes.
            let later = title.map_or_else(|| agent.last_title.clone(), str::to_owned);
            agent.import_next = Some(later);
            return;
        }
        if let Some(title) = title {
            title.clone_into(&mut agent.last_title);
        }
        agent.importing = true;
        agent.import_at = None;
        let (incarnation, head) = (agent.incarnation, agent.head.clone());
        let claims = agent.work_asked();
        let goes_on = self.fleet.ending().is_none() && self.next_task(id).is_some();
        let after = if goes_on {
            IMPORT_LATER
        } else {
            Duration::ZERO
        };
        self.act(Action::Import {
            agent: id.clone(),
            incarnation,
            head,
            claims,
            after,
        });
    }

    /// Zero idle time: the answer to the Stop hook carries the next task, if there is one.
    pub(super) fn next_or_let_go(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        callback: Option<CallbackId>,
    ) {
        let Some(callback) = callback else { return };
        let agent = self.fleet.agents.get(id);
        // The Stop of a turn and the end of its process may overtake each other.
        let may_work =
            agent.is_some_and(|agent| agent.may_work(&self.fleet.pool) && !agent.leaves(now));
        let next = self.next_task(id).filter(|_| may_work);
        let (Some(task), None) = (next, self.fleet.ending()) else {
            self.answer(Some(callback), HookAnswer::LetGo);
            return;
        };
        self.claim(now, id, task, ClaimFor::Answer { callback });
    }

    /// An ending that waits for turns treats a limited or waiting agent as done.
    pub(super) fn drained(&self) -> bool {
        self.fleet.ending() == Some(Ending::Drain)
            && self.fleet.agents.values().all(|agent| {
                !matches!(
                    agent.phase,
                    Phase::Working | Phase::Claiming { .. } | Phase::Delivering { .. }
                ) && agent.finishing.is_empty()
                    && !agent.importing
            })
    }

    /// What its checkout is brought up to before it is told its next task; nothing where its last
    /// hook said that it is there. Not the tip of the branch: its own merges hold nothing that it
    /// does not have, and git takes its time.
    pub(super) fn news_for(&self, id: &AgentId) -> Option<CommitId> {
        let agent = self.fleet.agents.get(id)?;
        let tip = self.fleet.branch_head.as_ref();
        let wanted = agent.news.as_ref().or(tip)?;
        let there = agent.head.as_ref();
        (there != Some(wanted) && there != tip).then(|| wanted.clone())
    }
}

/// The next request comes after it.
fn begins_a_turn(fact: &HookFact) -> bool {
    matches!(
        fact,
        HookFact::PromptSubmitted { .. }
            | HookFact::Stopped {
                background_tasks: 0,
                ..
            }
    )
}

/// Only the model's answer to what it was told leads there. What its Stop says may come from before.
fn works_on(fact: &HookFact) -> bool {
    match fact {
        HookFact::Activity { what } => what.starts_with("PostToolUse"),
        HookFact::PermissionAsked { .. } | HookFact::TurnFailed { .. } => true,
        _ => false,
    }
}

fn fact_word(fact: &HookFact) -> &str {
    match fact {
        HookFact::SessionStarted { .. } => "SessionStart",
        HookFact::PromptSubmitted { .. } => "UserPromptSubmit",
        HookFact::Stopped { .. } => "Stop",
        HookFact::TurnFailed { .. } => "StopFailure",
        HookFact::Notified { .. } => "Notification",
        HookFact::PermissionAsked { .. } => "PermissionRequest",
        HookFact::SessionEnded { .. } => "SessionEnd",
        HookFact::Activity { what } => what,
        HookFact::Unknown { event } => event,
    }
}
