//! Agents that should be doing something and are not heard of are examined. One of which nothing
//! moves any more is hung: it is restarted with its conversation. No weak signal does that alone.

use std::time::Duration;

use super::Supervisor;
use super::action::Action;
use super::evidence::{Examination, Verdict};
use super::screens::dialog_text;
use super::state::{AfterStop, AgentState, Phase};
use super::texts::spell;
use crate::model::{AgentId, Incarnation, Screen, Signal, Timestamp};

/// The first examination after the last hook, at most; hooks of a busy agent come faster.
pub(super) const FIRST_EXAMINATION: Duration = Duration::from_secs(120);
/// Between two examinations: a tenth of the time after which it counts as hung, within these. The
/// line of a running turn ticks every second.
const OFTEN: Duration = Duration::from_secs(2);
const SELDOM: Duration = Duration::from_secs(60);
/// What is hung does not react to being asked, but what only seems to be may still write.
const HUNG_GRACE: Duration = Duration::from_secs(3);

impl Supervisor {
    /// Whoever should be doing something has a next examination, everybody else has none.
    pub(super) fn plan_examinations(&mut self, now: Timestamp) {
        let first = (self.policy.hung_after / 5).clamp(OFTEN, FIRST_EXAMINATION);
        for agent in self.fleet.agents.values_mut() {
            if !is_watched(agent) {
                if agent.evidence.examine_at.is_some() {
                    agent.evidence.at_rest();
                }
            } else if agent.evidence.examine_at.is_none() {
                agent.evidence.examine_at = Some(now + first);
            }
        }
    }

    pub(super) fn examine_quiet_ones(&mut self, now: Timestamp) {
        let between = self.between_examinations();
        let mut due = Vec::new();
        for agent in self.fleet.agents.values_mut() {
            if agent.evidence.examine_at.is_some_and(|at| at <= now) {
                agent.evidence.examine_at = Some(now + between);
                due.push((agent.id.clone(), agent.incarnation));
            }
        }
        for (agent, incarnation) in due {
            self.act(Action::Examine { agent, incarnation });
        }
    }

    pub(super) fn examination_deadlines(&self) -> impl Iterator<Item = (Timestamp, String)> {
        let known = self.fleet.agents.values().filter(|_| self.ready);
        known.filter_map(|agent| {
            let at = agent.evidence.examine_at?;
            Some((at, format!("{}: its examination", agent.id)))
        })
    }

    fn between_examinations(&self) -> Duration {
        (self.policy.hung_after / 10).clamp(OFTEN, SELDOM)
    }

    pub(super) fn on_examined(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        seen: &Examination,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let gap = self.between_examinations() * 3;
        let hung_after = self.policy.hung_after;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let verdict = agent.evidence.examined(now, seen, gap);
        if !is_watched(agent) {
            return;
        }
        match &seen.screen {
            Some((Screen::Dialog { name }, _)) => {
                if agent.phase == Phase::Working {
                    self.wait_for_person(now, id, &dialog_text(name));
                }
                return;
            }
            Some((Screen::NotLoggedIn, _)) => return,
            _ => {}
        }
        if seen.vitals.is_some_and(|vitals| vitals.paused) {
            let hint = "`docker unpause` lets it go on; it is left alone until then";
            self.notice(
                now,
                Some(id),
                "it is paused in the container engine",
                Some(hint.into()),
            );
            return;
        }
        let busy = matches!(seen.screen, Some((Screen::Busy, _)));
        match verdict {
            Verdict::Still(time) if time >= hung_after => self.hung(now, id, time),
            // The line of a running turn ticks; everything else may stand still for hours.
            Verdict::OnlyCpu(time) if time >= hung_after && busy => self.looks_frozen(now, id),
            Verdict::Alive | Verdict::OnlyCpu(_) | Verdict::Still(_) => {}
        }
        self.background_is_long(now, id);
    }

    /// Everything stands still: it is stopped like one that crashed, and comes back.
    fn hung(&mut self, now: Timestamp, id: &AgentId, time: Duration) {
        let grace = self.policy.stop_grace.min(HUNG_GRACE);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let said = |signal| {
            let fact = agent.evidence.fact(signal);
            fact.map_or("nothing", |fact| fact.said.as_str())
        };
        let reason = format!(
            "hung: for {} no hook (the last: {}), no status line, no CPU used, and its screen ({}) \
             and transcript ({}) stand still",
            spell(time),
            said(Signal::Hook),
            said(Signal::Screen),
            said(Signal::Transcript),
        );
        let incarnation = agent.incarnation;
        let then = AfterStop::Hung;
        agent.enter(now, Phase::Stopping { then }, reason.clone());
        let hint = "it is restarted with its conversation and its task";
        self.notice(now, Some(id), &reason, Some(hint.into()));
        self.act(Action::StopContainer {
            agent: id.clone(),
            incarnation,
            grace,
        });
    }

    /// Claude Code shows no sign of life, but a tool of its may be at work: a person decides.
    fn looks_frozen(&mut self, now: Timestamp, id: &AgentId) {
        let text = format!(
            "no sign of life for {}, but something in its container computes: it is left alone",
            spell(self.policy.hung_after)
        );
        let hint = format!(
            "look with `orchestrator attach {id}`; `orchestrator restart {id}` restarts it"
        );
        self.notice(now, Some(id), &text, Some(hint));
    }

    /// Its turn has ended long ago, and what it left in the background goes on and on.
    fn background_is_long(&mut self, now: Timestamp, id: &AgentId) {
        let limit = self.policy.hung_after;
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let quiet = agent
            .last_hook_at
            .map_or(Duration::ZERO, |at| now.since(at));
        if !agent.in_background || quiet < limit {
            return;
        }
        let text = format!(
            "only its background tasks have been running for more than {}",
            spell(limit)
        );
        let hint = format!(
            "its task stays open until that ends: see `orchestrator explain {id}`; end it in `orchestrator attach {id}`, or `orchestrator restart {id}`"
        );
        self.notice(now, Some(id), &text, Some(hint));
    }
}

/// It should be doing something, and would be missed.
fn is_watched(agent: &AgentState) -> bool {
    matches!(
        agent.phase,
        Phase::Working | Phase::Delivering { .. } | Phase::Waiting { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Policy;
    use crate::testing::world::World;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Worker 1 has a task in hand, and nobody else does anything.
    fn at_work() -> (World, AgentId) {
        let mut world = World::new(Policy {
            restart_burst: 2,
            restart_window: 100 * MINUTE,
            ..Policy::default()
        });
        world.start_daemon(false);
        let worker = AgentId::worker(1);
        for agent in [&AgentId::manager(), &worker] {
            world.run_outbox();
            world.boot(agent);
            world.advance(Duration::from_secs(1));
        }
        world.add_task(&worker, "write a");
        world.run_outbox();
        assert_eq!(world.fleet().agents[&worker].phase, Phase::Working);
        (world, worker)
    }

    #[test]
    fn a_dialog_is_waited_for_however_long_it_takes() {
        let (mut world, worker) = at_work();
        world.opens_dialog(&worker, "question");
        world.advance(300 * MINUTE);
        let agent = &world.fleet().agents[&worker];
        assert_eq!(agent.phase.word(), "waiting");
        assert_eq!((agent.restarts, agent.crashes.len()), (0, 0));
    }

    #[test]
    fn one_that_hangs_again_and_again_is_given_up_and_its_reason_says_why() {
        let (mut world, worker) = at_work();
        for n in 0..3 {
            // The first fails after two hangs, and the next is begun.
            world.add_task(&worker, &format!("write part {n}"));
            world.run_outbox();
            world.stands_still(&worker);
            world.advance(13 * MINUTE);
            world.boot(&worker);
            world.advance(Duration::from_secs(1));
        }
        let agent = world.fleet().agents[&worker].clone();
        assert_eq!(agent.phase, Phase::Failed, "{}", agent.reason);
        assert!(
            agent.reason.contains("hung: for 10 min"),
            "{}",
            agent.reason
        );
        assert_eq!(agent.crashes.len(), 3);
    }

    #[test]
    fn a_short_stop_is_no_reason() {
        let (mut world, worker) = at_work();
        world.stands_still(&worker);
        world.advance(9 * MINUTE);
        if let Some(mind) = world.minds.get_mut(&worker) {
            mind.stopped = None;
        }
        world.advance(60 * MINUTE);
        assert_eq!(world.fleet().agents[&worker].restarts, 0);
    }

    #[test]
    fn a_supervisor_that_was_away_begins_to_compare_anew() {
        let (mut world, worker) = at_work();
        world.stands_still(&worker);
        world.advance(8 * MINUTE);
        world.crash_daemon();
        world.now = world.now + 60 * MINUTE;
        world.start_daemon(false);
        world.advance(5 * MINUTE);
        assert_eq!(world.fleet().agents[&worker].restarts, 0);
        world.advance(6 * MINUTE);
        assert_eq!(world.fleet().agents[&worker].restarts, 1);
    }

    #[test]
    fn an_idle_agent_is_not_examined() {
        let (world, _) = at_work();
        let manager = &world.fleet().agents[&AgentId::manager()];
        assert_eq!(manager.evidence.examine_at, None);
    }
}
