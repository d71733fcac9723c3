//! Why an agent is in its state, and what would change it.

use super::Supervisor;
use super::state::{AfterStop, AgentState, Phase};
use super::texts::spell;
use crate::model::explain::{Ahead, SignalView};
use crate::model::{AgentId, Explanation, Role, Signal, Timestamp};

impl Supervisor {
    /// `None`: there is no agent of that name. The history is the store's.
    pub fn explain(&self, now: Timestamp, id: &AgentId) -> Option<Explanation> {
        let agent = self.fleet.agents.get(id)?;
        let view = self.agent_view(agent);
        let fact = |signal| agent.evidence.fact(signal).cloned();
        let signals = Signal::ALL.map(|signal| SignalView {
            signal,
            grade: fact(signal).map_or(signal.grade(), |fact| fact.grade),
            fact: fact(signal),
        });
        let crashes = agent
            .crashes
            .iter()
            .filter(|at| now.since(**at) <= self.policy.restart_window)
            .count();
        let about = |notice: &&crate::model::view::Notice| notice.agent.as_ref() == Some(id);
        Some(Explanation {
            agent: id.clone(),
            at: now,
            state: view.state,
            reason: view.reason,
            since: view.since,
            incarnation: view.incarnation,
            container: view.container,
            session: view.session,
            credential: view.credential,
            task: view.task,
            until: until(&agent.phase),
            still_since: agent
                .evidence
                .still_since()
                .filter(|_| agent.evidence.examine_at.is_some()),
            signals: signals.to_vec(),
            ahead: self.ahead(agent),
            restarts: view.restarts,
            crashes: u32::try_from(crashes).unwrap_or(u32::MAX),
            crashes_allowed: self.policy.restart_burst,
            kept: view.kept,
            notices: self.fleet.notices.iter().filter(about).cloned().collect(),
            history: Vec::new(),
        })
    }

    /// First what may come at any time, then what comes by itself.
    fn ahead(&self, agent: &AgentState) -> Vec<Ahead> {
        let mut ahead: Vec<Ahead> = self
            .may_come(agent)
            .into_iter()
            .map(|what| Ahead { at: None, what })
            .collect();
        let mut timed = self.comes_by_itself(agent);
        timed.sort_by_key(|(at, _)| *at);
        ahead.extend(
            timed
                .into_iter()
                .map(|(at, what)| Ahead { at: Some(at), what }),
        );
        ahead
    }

    fn may_come(&self, agent: &AgentState) -> Vec<String> {
        let id = &agent.id;
        let attach = format!("`orchestrator attach {id}`");
        let one = |text: &str| vec![text.to_owned()];
        let restart = format!("`orchestrator restart {id}` restarts it");
        match &agent.phase {
            Phase::Absent => one("the next start of the supervisor launches it"),
            Phase::Launching => one("the result of its launch"),
            Phase::Starting { greeted: false, .. } => {
                one("its SessionStart hook: Claude Code is up then")
            }
            Phase::Starting { greeted: true, .. } => one("a free prompt on its first screen"),
            Phase::Idle if self.fleet.ending().is_some() => one("nothing: the fleet is ending"),
            Phase::Idle => self.idle_for(agent),
            Phase::Claiming { .. } => one("the answer of the task queue"),
            Phase::Delivering { .. } => {
                one("its UserPromptSubmit hook with the same text: it has the task for sure then")
            }
            Phase::Working if agent.in_background => vec![
                "the end of its background task(s) begins another turn, whose Stop hook ends it"
                    .to_owned(),
                "a prompt that a person types begins one as well".to_owned(),
            ],
            Phase::Working => vec![
                "a Stop hook ends the turn; its answer carries the next task, if there is one"
                    .to_owned(),
                "a StopFailure hook: the turn failed, and is tried again later".to_owned(),
                format!(
                    "no sign of life for {} (hook, status line, screen, transcript and CPU all \
                     still): it counts as hung and is restarted",
                    spell(self.policy.hung_after)
                ),
            ],
            Phase::Limited { .. } => one("a prompt that a person types"),
            Phase::Waiting { .. } => vec![format!(
                "a person, in {attach} (Ctrl-b d leaves it): it goes on by itself then"
            )],
            Phase::Stopping { then } => one(match then {
                AfterStop::Launch | AfterStop::Crash | AfterStop::Hung => {
                    "the end of its container: it is started again then"
                }
                AfterStop::Stay => "the end of its container",
            }),
            Phase::Backoff { .. } => vec![format!("{restart} now")],
            Phase::Failed => vec![restart],
        }
    }

    fn idle_for(&self, agent: &AgentState) -> Vec<String> {
        let waiting = self.queue.waiting.get(&agent.id).copied().unwrap_or(0);
        let tasks = match agent.id.worker_number() {
            _ if waiting > 0 => {
                format!("{waiting} task(s) of its queue are about to be given to it")
            }
            Some(number) => {
                format!("a task for it: a new line in WORKER_{number}_TASK_LIST.md")
            }
            None => "a task for it: a conflict to resolve, or a round of planning".to_owned(),
        };
        let mut all = vec![tasks, "a prompt that a person types".to_owned()];
        if agent.role == Role::Manager && self.fleet.planning.resting {
            all.push("planning rests: `orchestrator plan`, or new work, wakes it".to_owned());
        }
        all
    }

    fn comes_by_itself(&self, agent: &AgentState) -> Vec<(Timestamp, String)> {
        let mut all = Vec::new();
        if let Some((at, what)) = agent.phase.deadline() {
            let what = match &agent.phase {
                Phase::Delivering { attempt, .. } => format!(
                    "its screen is looked at, and its task pasted again (try {attempt} of {})",
                    self.policy.delivery_attempts
                ),
                Phase::Starting { .. } if what == "looks" => "its screen is looked at".to_owned(),
                Phase::Starting { .. } => "without that hook it is stopped, as a crash".to_owned(),
                Phase::Waiting { .. } => "its screen is looked at again".to_owned(),
                Phase::Limited { .. } => "it goes on by itself".to_owned(),
                Phase::Backoff { .. } => "it is started again".to_owned(),
                _ => what.to_owned(),
            };
            all.push((at, what));
        }
        if let Some(at) = agent.look_at {
            all.push((at, "quiet until then: its screen is looked at".to_owned()));
        }
        if let Some(at) = agent.evidence.examine_at {
            all.push((
                at,
                "quiet until then: everything that may move is compared".to_owned(),
            ));
        }
        if let Some(since) = agent.evidence.still_since()
            && agent.evidence.examine_at.is_some()
        {
            let what = "nothing moved until then either: it counts as hung";
            all.push((since + self.policy.hung_after, what.to_owned()));
        }
        if let Some(at) = agent.rescuing.due() {
            let what = "what it has not committed is copied, if anything moved";
            all.push((at, what.to_owned()));
        }
        if agent.role == Role::Manager
            && let Some((at, _)) = self.planning_deadline()
        {
            all.push((at, "the next round of planning".to_owned()));
        }
        all
    }
}

fn until(phase: &Phase) -> Option<Timestamp> {
    match phase {
        Phase::Limited { until, .. }
        | Phase::Backoff { until, .. }
        | Phase::Starting { until, .. } => Some(*until),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::world::World;

    fn explain(world: &World, agent: &AgentId) -> Explanation {
        let supervisor = world.supervisor().unwrap();
        supervisor.explain(world.now, agent).unwrap()
    }

    /// At every moment of a life something is said, and nothing that is due lies far behind.
    #[test]
    fn every_state_says_what_would_change_it() {
        let mut world = World::started(1);
        let worker = AgentId::worker(1);
        let mut seen = std::collections::BTreeSet::new();
        let mut look = |world: &World| {
            let why = explain(world, &worker);
            assert!(!why.ahead.is_empty(), "{why:?}");
            assert!(!why.reason.is_empty());
            for at in why.ahead.iter().filter_map(|ahead| ahead.at) {
                assert!(at >= world.now, "{why:?}");
            }
            seen.insert(why.state);
        };
        look(&world);
        world.run_outbox();
        look(&world);
        world.boot(&worker);
        look(&world);
        world.advance(Duration::from_secs(1));
        look(&world);
        world.add_task(&worker, "write a");
        look(&world);
        world.run_outbox();
        look(&world);
        world.turn_fails(&worker, "rate_limit");
        look(&world);
        world.exits(&worker, 137, false);
        look(&world);
        world.advance(Duration::from_secs(5));
        world.opens_dialog(&worker, "trust");
        world.advance(Duration::from_secs(10));
        look(&world);
        let all = [
            "backoff",
            "delivering",
            "idle",
            "limited",
            "preparing",
            "starting",
            "waiting",
            "working",
        ];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
    }

    #[test]
    fn signals_come_in_the_order_of_trust_and_say_what_was_seen() {
        let mut world = World::started(1);
        let worker = AgentId::worker(1);
        world.run_outbox();
        world.boot(&worker);
        world.advance(Duration::from_secs(1));
        let why = explain(&world, &worker);
        let said: Vec<_> = why
            .signals
            .iter()
            .filter_map(|view| Some((view.signal.as_str(), view.fact.as_ref()?.said.as_str())))
            .collect();
        assert_eq!(
            said,
            [
                ("hook", "SessionStart (startup)"),
                ("container", "worker-1-1 runs"),
                ("screen", "a free prompt")
            ]
        );
        world.exits(&worker, 137, false);
        let why = explain(&world, &worker);
        let container = &why.signals[1];
        assert_eq!(
            container.grade,
            crate::model::Grade::Strong,
            "a death is proof"
        );
        assert_eq!(why.crashes, 1);
    }

    #[test]
    fn nobody_is_nobody() {
        let world = World::started(1);
        let supervisor = world.supervisor().unwrap();
        assert_eq!(supervisor.explain(world.now, &AgentId::worker(9)), None);
    }
}
