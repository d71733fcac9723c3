//! When uncommitted work is copied into the store, and what became of it.
//!
//! A stop and the end of a turn take a snapshot within their own effect, so that it cannot be
//! forgotten. Asked for here: at an interval while an agent works, before the next life of one that
//! has died, and when a person wants one. A snapshot that fails holds nothing up: the checkout stays
//! as it is, and it is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::action::Action;
use super::input::RescueOutcome;
use super::lifecycle::{denied, unknown_agent};
use super::state::{AgentState, Phase};
use super::texts::spell;
use crate::model::{
    AgentId, HookFact, Incarnation, KeptView, Reply, RescueCause, RescueNote, Timestamp,
};

/// One that was asked for and never answered is asked for again after this; the effect has a
/// deadline well below.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);

/// What is known about the uncommitted work of one agent; part of its row in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescuing {
    /// The newest snapshot that held anything.
    #[serde(default)]
    last: Option<RescueNote>,
    /// Its work was all kept then: committed, or in a snapshot.
    #[serde(default)]
    kept_at: Option<Timestamp>,
    /// When it may have written last. One that works may do so at any time.
    #[serde(default)]
    touched: Option<Timestamp>,
    /// One is on its way since then.
    #[serde(default)]
    asked: Option<Timestamp>,
    /// While it may hold work that is not kept: when that is looked at next.
    #[serde(default)]
    due: Option<Timestamp>,
    #[serde(default)]
    tried_at: Option<Timestamp>,
    /// Why the newest try failed.
    #[serde(default)]
    problem: Option<String>,
    /// The newest look found something, and `last` holds it.
    #[serde(default)]
    found: bool,
}

impl Rescuing {
    /// It may hold something that is neither committed nor in a snapshot.
    fn is_unkept(&self) -> bool {
        self.touched
            .is_some_and(|touched| self.kept_at.is_none_or(|kept| kept <= touched))
    }

    /// It has written, or may have, until now.
    pub(super) fn touch(&mut self, now: Timestamp) {
        self.touched = Some(now);
    }

    /// It leaves a phase: one that worked, or could without a word, has written until now.
    pub(super) fn leaves(&mut self, now: Timestamp, phase: &Phase, interrupted: bool) {
        match phase {
            Phase::Delivering { .. } | Phase::Working | Phase::Waiting { .. } => self.touch(now),
            // It may go on by itself with what it was told in an earlier life.
            Phase::Starting { .. } if interrupted => self.touch(now),
            Phase::Absent
            | Phase::Launching
            | Phase::Starting { .. }
            | Phase::Idle
            | Phase::Claiming { .. }
            | Phase::Limited { .. }
            | Phase::Stopping { .. }
            | Phase::Backoff { .. }
            | Phase::Failed => {}
        }
    }

    /// Most of what a hook tells comes with work; the rest touches no file.
    pub(super) fn hook(&mut self, now: Timestamp, fact: &HookFact) {
        match fact {
            HookFact::SessionStarted { .. }
            | HookFact::SessionEnded { .. }
            | HookFact::Notified { .. } => {}
            HookFact::PromptSubmitted { .. }
            | HookFact::Stopped { .. }
            | HookFact::TurnFailed { .. }
            | HookFact::PermissionAsked { .. }
            | HookFact::Activity { .. }
            | HookFact::Unknown { .. } => self.touch(now),
        }
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// The newest snapshot that held anything.
    pub fn last(&self) -> Option<&RescueNote> {
        self.last.as_ref()
    }

    /// The copy of what was uncommitted at the newest look; `None` if there was nothing, or it failed.
    pub(super) fn copy_of_now(&self) -> Option<&RescueNote> {
        self.last.as_ref().filter(|_| self.found)
    }

    pub(super) fn view(&self) -> KeptView {
        KeptView {
            last: self.last.clone(),
            kept_at: self.kept_at,
            tried_at: self.tried_at,
            problem: self.problem.clone(),
        }
    }

    /// The daemon has started: nothing of an earlier run is on its way any more, no time lies further
    /// ahead than it can, and an agent that had a container may have worked unheard.
    pub(super) fn bring_near(&mut self, now: Timestamp, interval: Duration, phase: &Phase) {
        if phase.wants_container() || *phase == Phase::Launching {
            self.touch(now);
        }
        self.asked = None;
        self.due = self.due.map(|at| at.min(now + interval));
        for at in [&mut self.kept_at, &mut self.touched, &mut self.tried_at] {
            *at = at.map(|at| at.min(now));
        }
    }
}

impl AgentState {
    /// Something may have been written since its work was kept last.
    fn has_moved(&self) -> bool {
        let rescuing = &self.rescuing;
        if self.phase != Phase::Working {
            return rescuing.is_unkept();
        }
        // A long tool writes without a hook; what stands still, its CPU time included, does not.
        rescuing
            .kept_at
            .is_none_or(|kept| rescuing.is_unkept() || !self.evidence.stood_still_since(kept))
    }

    /// It has a session, and works or may hold work that is not kept.
    fn may_hold_work(&self) -> bool {
        self.phase.has_session() && (self.phase == Phase::Working || self.rescuing.is_unkept())
    }
}

impl Supervisor {
    /// Whoever may hold work that is not kept has a next look at it; an idle agent without any costs
    /// nothing.
    pub(super) fn plan_rescues(&mut self, now: Timestamp) {
        let interval = self.policy.rescue_interval;
        for agent in self.fleet.agents.values_mut() {
            if !agent.may_hold_work() {
                agent.rescuing.due = None;
            } else if agent.rescuing.due.is_none() {
                agent.rescuing.due = Some(now + interval);
            }
        }
    }

    pub(super) fn rescue_at_interval(&mut self, now: Timestamp) {
        let interval = self.policy.rescue_interval;
        // Nothing could be run; what it wrote stays where it is.
        let away = self.engine_is_away();
        let mut wanted = Vec::new();
        for agent in self.fleet.agents.values_mut() {
            if agent.rescuing.due.is_none_or(|at| at > now) {
                continue;
            }
            agent.rescuing.due = Some(now + interval);
            let under_way = agent
                .rescuing
                .asked
                .is_some_and(|at| now.since(at) < ANSWERED_WITHIN);
            if !away && !under_way && agent.has_moved() {
                wanted.push((agent.id.clone(), agent.incarnation));
            }
        }
        for (id, incarnation) in wanted {
            self.rescue(now, &id, incarnation, RescueCause::Interval);
        }
    }

    pub(super) fn rescue_deadlines(&self) -> impl Iterator<Item = (Timestamp, String)> {
        let known = self.fleet.agents.values().filter(|_| self.ready);
        known.filter_map(|agent| {
            let at = agent.rescuing.due?;
            Some((at, format!("{}: its snapshot", agent.id)))
        })
    }

    /// Before the next life begins: what the last one wrote and nobody has. The launch waits for it,
    /// because the actions of one agent are done in order.
    pub(super) fn rescue_before_launch(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let earlier = agent.incarnation;
        if earlier > Incarnation(0) && agent.rescuing.is_unkept() {
            self.rescue(now, id, earlier, RescueCause::Death);
        }
    }

    pub(super) fn request_rescue(&mut self, now: Timestamp, id: Option<&AgentId>) -> Reply {
        if let Some(id) = id
            && !self.fleet.agents.contains_key(id)
        {
            return unknown_agent(&self.fleet, id);
        }
        if self.engine_is_away() {
            let reason = "the container engine is away, and a snapshot is taken in a container";
            let hint = "the work stays in the checkouts; try again when the engine is back";
            return denied("ENGINE_AWAY", reason.into(), Some(hint.into()));
        }
        let wanted: Vec<(AgentId, Incarnation)> = self
            .fleet
            .agents
            .values()
            .filter(|agent| id.is_none_or(|id| agent.id == *id))
            .filter(|agent| agent.incarnation > Incarnation(0))
            .map(|agent| (agent.id.clone(), agent.incarnation))
            .collect();
        if wanted.is_empty() {
            return Reply::AlreadySo;
        }
        for (id, incarnation) in wanted {
            self.rescue(now, &id, incarnation, RescueCause::Asked);
        }
        Reply::Accepted
    }

    fn rescue(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        cause: RescueCause,
    ) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.rescuing.asked = Some(now);
        }
        self.act(Action::Rescue {
            agent: id.clone(),
            incarnation,
            cause,
        });
    }

    /// `began`: what was written after that need not be in it. The checkout outlives lives, so it
    /// does not matter in which it was taken.
    pub(super) fn on_rescued(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        began: Timestamp,
        outcome: RescueOutcome,
    ) {
        let again = self.policy.rescue_interval;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return self.rescued_a_stranger(now, id, outcome);
        };
        let rescuing = &mut agent.rescuing;
        rescuing.asked = None;
        rescuing.tried_at = Some(now);
        rescuing.found = matches!(outcome, RescueOutcome::Taken { .. });
        let note = match outcome {
            RescueOutcome::Failed { reason, hint } => {
                rescuing.problem = Some(reason.clone());
                let text = format!("its uncommitted work could not be copied: {reason}");
                let hint = hint.unwrap_or_else(|| {
                    format!(
                        "it stays in its checkout, and is tried again within {}",
                        spell(again)
                    )
                });
                return self.notice(now, Some(id), &text, Some(hint));
            }
            RescueOutcome::Taken { rescue } => Some(rescue),
            RescueOutcome::Nothing => None,
        };
        rescuing.problem = None;
        rescuing.kept_at = rescuing.kept_at.max(Some(began));
        rescuing.due = None;
        if let Some(note) = note
            && rescuing.last.as_ref().is_none_or(|last| last.at <= note.at)
        {
            rescuing.last = Some(note);
        }
    }

    /// Of an agent that is not configured any more, whose container was stopped.
    fn rescued_a_stranger(&mut self, now: Timestamp, id: &AgentId, outcome: RescueOutcome) {
        let (text, hint) = match outcome {
            RescueOutcome::Nothing => return,
            RescueOutcome::Taken { rescue } => (
                format!(
                    "the uncommitted work of {id} is kept: {} files",
                    rescue.files
                ),
                format!("see `orchestrator rescue show {}`", rescue.id),
            ),
            RescueOutcome::Failed { reason, hint } => (
                format!("the uncommitted work of {id} could not be copied: {reason}"),
                hint.unwrap_or_else(|| "it stays in its checkout".into()),
            ),
        };
        self.notice(now, Some(id), &text, Some(hint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Request;
    use crate::supervisor::Policy;
    use crate::testing::world::{Turn, World};

    const MINUTE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    /// Worker 1 has a task in hand, and nobody else does anything.
    fn at_work() -> (World, AgentId) {
        let mut world = World::new(Policy::default());
        world.start_daemon(false);
        let worker = AgentId::worker(1);
        for agent in [&AgentId::manager(), &worker] {
            world.run_outbox();
            world.boot(agent);
            world.advance(SECOND);
        }
        world.add_task(&worker, "write a");
        world.run_outbox();
        (world, worker)
    }

    fn last(world: &World, agent: &AgentId) -> Option<RescueNote> {
        world.fleet().agents[agent].rescuing.last().cloned()
    }

    #[test]
    fn one_that_works_is_looked_at_every_interval() {
        let (mut world, worker) = at_work();
        world.advance(4 * MINUTE);
        assert_eq!(world.rescues, 0);
        world.advance(2 * MINUTE);
        assert_eq!(last(&world, &worker).unwrap().cause, "at an interval");
        let before = world.rescues;
        world.advance(20 * MINUTE);
        assert_eq!(world.rescues, before + 4);
    }

    #[test]
    fn one_at_rest_is_looked_at_once_more_and_then_costs_nothing() {
        let (mut world, worker) = at_work();
        world.turn_ends(&worker, &Turn::default());
        world.advance(10 * MINUTE);
        let before = world.rescues;
        world.advance(20 * 60 * MINUTE);
        assert_eq!(world.rescues, before);
        assert_eq!(world.fleet().agents[&worker].rescuing.due(), None);
    }

    #[test]
    fn one_of_which_nothing_moves_is_not_looked_at_again() {
        let mut world = at_work().0;
        let worker = AgentId::worker(1);
        // A dialog that a person does not answer: its turn goes on, and nothing is written.
        world.opens_dialog(&worker, "question");
        world.advance(12 * MINUTE);
        let before = world.rescues;
        world.advance(300 * MINUTE);
        assert_eq!(world.rescues, before);
    }

    #[test]
    fn what_one_that_died_has_written_is_kept_before_its_next_life() {
        let (mut world, worker) = at_work();
        world.exits(&worker, 137, false);
        world.advance(SECOND);
        let said = world.tail();
        let (rescue, launch) = (
            said.find("rescue worker-1 after its container ended"),
            said.find("launch worker-1 2"),
        );
        assert!(rescue.is_some() && rescue < launch, "{said}");
        assert_eq!(
            last(&world, &worker).unwrap().cause,
            "after its container ended"
        );
    }

    #[test]
    fn a_stop_takes_a_snapshot_by_itself() {
        let (mut world, worker) = at_work();
        world.request(Request::Restart {
            agent: worker.clone(),
        });
        world.step();
        assert_eq!(last(&world, &worker).unwrap().cause, "before a stop");
    }

    #[test]
    fn a_snapshot_that_fails_is_told_and_tried_again_and_holds_nothing_up() {
        let (mut world, worker) = at_work();
        world.rescue_faults = 2;
        world.exits(&worker, 137, false);
        world.advance(SECOND);
        let fleet = world.fleet();
        assert_eq!(fleet.agents[&worker].incarnation, Incarnation(2));
        let told = fleet.notices.iter().find(|n| n.text.contains("copied"));
        assert!(told.unwrap().hint.as_ref().unwrap().contains("5 min"));
        let view = world.supervisor().unwrap().view(world.now);
        let kept = &view.agents[1].kept;
        assert_eq!(kept.problem.as_deref(), Some("told to fail"));
        world.boot(&worker);
        world.advance(20 * MINUTE);
        assert_eq!(last(&world, &worker).unwrap().cause, "at an interval");
        let view = world.supervisor().unwrap().view(world.now);
        assert_eq!(view.agents[1].kept.problem, None);
    }

    #[test]
    fn a_person_asks_for_one_agent_or_all() {
        let mut world = World::started(1);
        let nobody = Some(AgentId::worker(9));
        let asked = world.request(Request::Rescue { agent: nobody }).unwrap();
        assert!(matches!(asked, Reply::Denied { code, .. } if code == "UNKNOWN_AGENT"));
        let (mut world, worker) = at_work();
        let agent = Some(worker.clone());
        let asked = world.request(Request::Rescue { agent });
        assert_eq!(asked, Some(Reply::Accepted));
        world.run_outbox();
        assert_eq!(last(&world, &worker).unwrap().cause, "asked for");
        let all = Request::Rescue { agent: None };
        assert_eq!(world.request(all.clone()), Some(Reply::Accepted));
        let before = world.rescues;
        world.run_outbox();
        assert_eq!(world.rescues, before + 2);
        world.engine(false);
        let refused = world.request(all).unwrap();
        assert!(matches!(refused, Reply::Denied { code, .. } if code == "ENGINE_AWAY"));
    }
}
