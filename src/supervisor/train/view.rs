//! The train as people see it.

use super::order::{Setbacks, order};
use super::state::{Built, Run, Step};
use crate::model::train::{
    CandidateView, EndedView, StackView, StallKind, StallView, TrainState, TrainView,
    WithManagerView,
};
use crate::model::{AgentId, Timestamp};
use crate::supervisor::Supervisor;
use crate::supervisor::proof::remote;
use crate::supervisor::state::{Candidate, Conflict, Phase};

/// Moves of the branch under one stack from which on they are told.
const MOVES_TOLD: u32 = 2;

impl Supervisor {
    pub(in crate::supervisor) fn train_view(&self) -> TrainView {
        let merging = &self.fleet.merging;
        let train = &merging.train;
        let run = train.run.as_ref();
        let view = |candidate: &Candidate| candidate_view(candidate, &train.setbacks);
        let later = run.into_iter().flat_map(|run| run.segments.iter().skip(1));
        let line = order(&merging.waiting, &train.setbacks);
        let ended = train.recent.iter().map(|ended| EndedView {
            at: ended.at,
            agent: ended.agent.clone(),
            commit: ended.commit.clone(),
            title: ended.title.clone(),
            outcome: ended.outcome.clone(),
            detail: ended.detail.clone(),
        });
        let (state, since) = state(run);
        TrainView {
            merge_by: self.policy.merge_by.as_str().to_owned(),
            batch: self.policy.merge_batch,
            gates: self.policy.gates.clone(),
            state,
            since,
            bisecting: run.is_some_and(|run| run.halved),
            stack: run.map(|run| stack_view(run, &train.setbacks)),
            after: later.map(|part| part.iter().map(view).collect()).collect(),
            waiting: line.iter().map(|at| view(&merging.waiting[*at])).collect(),
            with_manager: merging.hand_over.as_ref().map(|open| WithManagerView {
                task: open.task.clone(),
                since: open.since,
                candidates: open.candidates.iter().map(view).collect(),
            }),
            stalls: self.train_stalls(),
            recent: ended.collect(),
        }
    }

    /// First what holds up everything, then single candidates.
    fn train_stalls(&self) -> Vec<StallView> {
        let merging = &self.fleet.merging;
        let train = &merging.train;
        let mut stalls = Vec::new();
        if let Some(run) = &train.run {
            self.stalls_of_run(run, &mut stalls);
        }
        if let Some(red) = &train.branch_red {
            let (branch, gates) = (&self.policy.branch, red.gates.join(", "));
            let text = format!(
                "branch `{branch}` itself is red: {gates}; work that makes nothing worse lands"
            );
            stalls.push(stall(StallKind::BranchRed, text, Some(red.since)));
        }
        let manager = self.fleet.agents.get(&AgentId::manager());
        let gone = manager.filter(|manager| manager.phase == Phase::Failed);
        if let (Some(open), Some(manager)) = (&merging.hand_over, gone) {
            let text = format!(
                "the manager, who is to merge ({}), was given up: {}; `orchestrator restart manager`",
                open.task, manager.reason
            );
            stalls.push(stall(StallKind::WithTheManager, text, Some(manager.since)));
        }
        for candidate in merging.waiting.iter().filter(|c| train.is_put_off(c)) {
            let held = &train.put_off[&candidate.agent];
            let (agent, commit) = (&candidate.agent, held.commit.short());
            let text = format!(
                "{agent}'s {commit} could not be tried{}: {}",
                times(held.tries),
                held.reason
            );
            stalls.push(StallView {
                again_at: Some(held.until),
                ..stall(StallKind::Candidate, text, Some(held.since))
            });
        }
        let asked = merging.conflicts.iter();
        stalls.extend(asked.map(|(agent, conflict)| with_the_manager(agent, conflict)));
        stalls
    }

    fn stalls_of_run(&self, run: &Run, stalls: &mut Vec<StallView>) {
        if let Some(held) = &run.stall {
            let text = format!("{}{}", held.reason, times(held.tries));
            stalls.push(StallView {
                again_at: held.again_at,
                ..stall(StallKind::Step, text, Some(held.since))
            });
        }
        let tests = matches!(run.step, Step::Testing { .. } | Step::TestingBase { .. });
        if let Some(since) = self.fleet.engine_away.filter(|_| tests) {
            let text = "the container engine is away, in which gates run".to_owned();
            stalls.push(stall(StallKind::EngineAway, text, Some(since)));
        }
        if run.moved >= MOVES_TOLD {
            let text = format!("the branch has moved {} times under this stack", run.moved);
            stalls.push(stall(StallKind::BranchMoves, text, Some(run.began)));
        }
    }
}

fn stall(kind: StallKind, reason: String, since: Option<Timestamp>) -> StallView {
    StallView {
        kind,
        reason,
        since,
        again_at: None,
    }
}

fn times(tries: u32) -> String {
    match tries {
        0 | 1 => String::new(),
        tries => format!(" ({tries} times)"),
    }
}

fn with_the_manager(agent: &AgentId, conflict: &Conflict) -> StallView {
    let whose = if *agent == remote() {
        "the remote's".to_owned()
    } else {
        format!("{agent}'s")
    };
    let text = format!(
        "{whose} {} was not accepted ({}); the manager is asked to mend it: {}",
        conflict.commit.short(),
        conflict.paths.join(", "),
        conflict.task
    );
    stall(StallKind::WithTheManager, text, conflict.since)
}

fn state(run: Option<&Run>) -> (TrainState, Option<Timestamp>) {
    let Some(run) = run else {
        return (TrainState::Idle, None);
    };
    if let Some(stall) = run.stall.as_ref().filter(|_| run.rests()) {
        return (TrainState::Stalled, Some(stall.since));
    }
    let state = match run.step {
        Step::Building => TrainState::Building,
        Step::Testing { .. } => TrainState::Testing,
        Step::TestingBase { .. } => TrainState::TestingBranch,
        Step::Landing { .. } => TrainState::Landing,
    };
    (state, Some(run.since))
}

fn stack_view(run: &Run, setbacks: &Setbacks) -> StackView {
    let built: Option<&Built> = match &run.step {
        Step::Building => None,
        Step::Testing { built, .. }
        | Step::TestingBase { built, .. }
        | Step::Landing { built, .. } => Some(built),
    };
    let members = run.segments.front().into_iter().flatten();
    StackView {
        number: run.stack,
        base: built.map(|built| built.base.clone()),
        top: built.map(|built| built.top.clone()),
        members: members.map(|c| candidate_view(c, setbacks)).collect(),
    }
}

fn candidate_view(candidate: &Candidate, setbacks: &Setbacks) -> CandidateView {
    CandidateView {
        agent: candidate.agent.clone(),
        commit: candidate.commit.clone(),
        title: candidate.title.clone(),
        since: candidate.since,
        tasks: candidate.tasks.clone(),
        setbacks: setbacks.get(&candidate.agent).copied().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use super::super::by_manager::HandOver;
    use super::super::state::{BranchRed, PutOff, Stall};
    use super::*;
    use crate::model::{CommitId, SessionId, TaskId};
    use crate::supervisor::{Fleet, Policy};

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    fn candidate(worker: u32, since: i64) -> Candidate {
        Candidate {
            agent: AgentId::worker(worker),
            commit: CommitId::new(format!("c{worker}")),
            title: format!("work {worker}"),
            since: at(since),
            tasks: vec![TaskId::new(format!("w{worker}-1"))],
            by_hand: false,
            asked: 0,
        }
    }

    fn supervisor() -> Supervisor {
        let policy = Policy {
            workers: 4,
            gates: vec!["lint".into(), "test".into()],
            merge_batch: 3,
            ..Policy::default()
        };
        let sessions = (0..9).map(|n| SessionId::new(format!("session-{n}")));
        let fleet = Fleet::new(&policy.agents(), sessions);
        Supervisor::new(policy, fleet)
    }

    fn run(step: Step) -> Run {
        Run {
            stack: 7,
            segments: VecDeque::from([vec![candidate(1, 10)], vec![candidate(2, 20)]]),
            step,
            since: at(50),
            began: at(40),
            moved: 0,
            halved: true,
            stall: None,
        }
    }

    fn built() -> Built {
        Built {
            base: CommitId::new("base"),
            top: CommitId::new("top"),
            up_to_date: BTreeSet::new(),
        }
    }

    fn kinds(view: &TrainView) -> Vec<StallKind> {
        view.stalls.iter().map(|stall| stall.kind).collect()
    }

    #[test]
    fn nothing_on_the_way_is_idle_and_the_line_is_in_its_order() {
        let mut supervisor = supervisor();
        let merging = &mut supervisor.fleet.merging;
        merging.waiting = vec![candidate(1, 100), candidate(2, 90), candidate(3, 80)];
        merging.train.setbacks.insert(AgentId::worker(3), 2);
        let view = supervisor.train_view();
        assert_eq!((view.state, view.since), (TrainState::Idle, None));
        assert_eq!((view.batch, view.gates.len()), (3, 2));
        let line: Vec<(&str, u32)> = view
            .waiting
            .iter()
            .map(|c| (c.agent.as_str(), c.setbacks))
            .collect();
        assert_eq!(line, [("worker-2", 0), ("worker-1", 0), ("worker-3", 2)]);
        assert_eq!(kinds(&view), []);
    }

    #[test]
    fn what_the_manager_is_to_merge_is_beside_the_line() {
        let mut supervisor = supervisor();
        let merging = &mut supervisor.fleet.merging;
        merging.waiting = vec![candidate(2, 20)];
        merging.hand_over = Some(HandOver {
            task: TaskId::new("merge-1"),
            since: at(30),
            candidates: vec![candidate(1, 10)],
            seen: true,
        });
        let view = supervisor.train_view();
        let asked = view.with_manager.unwrap();
        assert_eq!((asked.task.as_str(), asked.since), ("merge-1", at(30)));
        assert_eq!(asked.candidates[0].agent, AgentId::worker(1));
        assert_eq!((view.waiting.len(), view.stalls.len()), (1, 0));
        let manager = supervisor.fleet.agents.get_mut(&AgentId::manager());
        manager.unwrap().phase = Phase::Failed;
        let view = supervisor.train_view();
        assert_eq!(kinds(&view), [StallKind::WithTheManager]);
        assert_eq!(supervisor.fleet.merge_counts().waiting, 2);
    }

    #[test]
    fn each_step_says_what_it_is_and_what_comes_after() {
        let steps = [
            (Step::Building, TrainState::Building),
            (
                Step::Testing {
                    built: built(),
                    all: false,
                },
                TrainState::Testing,
            ),
            (
                Step::TestingBase {
                    built: built(),
                    gates: Vec::new(),
                },
                TrainState::TestingBranch,
            ),
            (
                Step::Landing {
                    built: built(),
                    gates: Vec::new(),
                },
                TrainState::Landing,
            ),
        ];
        for (step, state) in steps {
            let is_built = step != Step::Building;
            let mut supervisor = supervisor();
            supervisor.fleet.merging.train.run = Some(run(step));
            let view = supervisor.train_view();
            assert_eq!((view.state, view.since), (state, Some(at(50))));
            assert!(view.bisecting);
            let stack = view.stack.as_ref().unwrap();
            assert_eq!((stack.number, stack.top.is_some()), (7, is_built));
            assert_eq!(stack.members[0].tasks, [TaskId::new("w1-1")]);
            assert_eq!(view.after[0][0].agent, AgentId::worker(2));
        }
    }

    #[test]
    fn every_stall_has_its_reason_its_beginning_and_its_next_try() {
        let mut supervisor = supervisor();
        let mut stalled = run(Step::Testing {
            built: built(),
            all: false,
        });
        stalled.moved = MOVES_TOLD;
        stalled.stall = Some(Stall {
            reason: "the gates could not be run: no image".into(),
            since: at(45),
            tries: 3,
            again_at: Some(at(90)),
        });
        supervisor.fleet.engine_away = Some(at(46));
        let merging = &mut supervisor.fleet.merging;
        merging.train.run = Some(stalled);
        merging.train.branch_red = Some(BranchRed {
            since: at(5),
            commit: CommitId::new("base"),
            gates: vec!["lint".into()],
        });
        merging.waiting = vec![candidate(3, 10)];
        let held = PutOff {
            commit: CommitId::new("c3"),
            reason: "disk full".into(),
            since: at(6),
            tries: 1,
            until: at(99),
        };
        merging.train.put_off.insert(AgentId::worker(3), held);
        let conflict = Conflict {
            commit: CommitId::new("c4"),
            task: TaskId::new("merge-worker-4-c4-1"),
            paths: vec!["a.txt".into()],
            later: None,
            tasks: Vec::new(),
            seen: true,
            since: Some(at(7)),
        };
        merging.conflicts.insert(AgentId::worker(4), conflict);

        let view = supervisor.train_view();
        assert_eq!(
            (view.state, view.since),
            (TrainState::Stalled, Some(at(45)))
        );
        assert_eq!(
            kinds(&view),
            [
                StallKind::Step,
                StallKind::EngineAway,
                StallKind::BranchMoves,
                StallKind::BranchRed,
                StallKind::Candidate,
                StallKind::WithTheManager,
            ]
        );
        let times: Vec<_> = view.stalls.iter().map(|s| (s.since, s.again_at)).collect();
        let since = |seconds| (Some(at(seconds)), None);
        assert_eq!(times[0], (Some(at(45)), Some(at(90))));
        assert_eq!(times[1..4], [since(46), since(40), since(5)]);
        assert_eq!(times[4..], [(Some(at(6)), Some(at(99))), since(7)]);
        assert!(view.stalls[0].reason.ends_with("no image (3 times)"));
        assert!(view.stalls[5].reason.contains("merge-worker-4-c4-1"));

        // While it is being tried again it is no rest, and the reason is still there.
        let train = &mut supervisor.fleet.merging.train;
        let stall = train.run.as_mut().and_then(|run| run.stall.as_mut());
        stall.unwrap().again_at = None;
        let view = supervisor.train_view();
        assert_eq!(view.state, TrainState::Testing);
        assert_eq!(view.stalls[0].again_at, None);
    }
}
