//! The merge train: the way into the branch.
//!
//! Called by the supervisor with what was imported ([`Supervisor::enqueue`]) and with results of
//! actions. Says what became of a candidate ([`Verdict`]); what that means for the work that was
//! claimed done is judged in [`super::proof`]. Must never touch the remote ([`super::remote`]).
//!
//! [`machine`] holds the rules, a value of its own that is driven by property tests; this file
//! turns what it says into actions, notices and verdicts.

mod by_manager;
mod ended;
mod machine;
mod order;
mod state;
#[cfg(test)]
mod tests;
mod verdict;
mod view;

pub use by_manager::HandOver;
pub use state::Train;
pub(super) use verdict::{Verdict, names};

use std::time::Duration;

use self::machine::{Rules, Said};
use super::Supervisor;
use super::action::{Action, NewTask, StackCandidate};
use super::input::{GatesOutcome, LandOutcome, StackOutcome};
use super::state::Candidate;
use super::texts;
use crate::model::{AgentId, CommitId, GateRecord, Role, TaskId, TaskSource, Timestamp};

impl Supervisor {
    /// A newer commit of the same agent replaces the one that waits: it contains it.
    pub(super) fn enqueue(&mut self, mut candidate: Candidate) {
        let merging = &mut self.fleet.merging;
        if let Some(conflict) = merging.conflicts.get_mut(&candidate.agent) {
            conflict.later = Some(candidate.commit);
            let new = |task: &TaskId| !conflict.tasks.contains(task);
            let tasks: Vec<TaskId> = candidate.tasks.into_iter().filter(new).collect();
            conflict.tasks.extend(tasks);
            return;
        }
        match merging
            .waiting
            .iter_mut()
            .find(|c| c.agent == candidate.agent && !c.by_hand)
        {
            Some(waiting) => {
                let since = waiting.since;
                let claimed = std::mem::take(&mut candidate.tasks);
                candidate.tasks = std::mem::take(&mut waiting.tasks);
                *waiting = Candidate { since, ..candidate };
                waiting.claim(claimed);
            }
            None => merging.waiting.push(candidate),
        }
    }

    pub(super) fn continue_merging(&mut self, now: Timestamp) {
        // A merge task that got lost, or ended without a turn: its conflict is judged all the same.
        let manager = AgentId::manager();
        if self.ready && self.manager_is_free() && !self.fleet.agents[&manager].importing {
            self.judge_conflicts(now, &manager);
        }
        if self.ready {
            self.merge_by_manager(now);
        }
        let may = self.may_depart();
        self.on_train(now, |train, rules, waiting| {
            train.depart(now, rules, waiting, may)
        });
    }

    /// After a restart: what was in flight is asked for again.
    pub fn resume_merging(&mut self, now: Timestamp) -> Vec<Action> {
        let merging = &mut self.fleet.merging;
        merging.push_in_flight = false;
        merging.fetch_in_flight = false;
        // What was pushed while we were away is looked at first.
        merging.fetch_at = Some(Timestamp(0));
        // Whether their tasks reached the queue shows there.
        for conflict in merging.conflicts.values_mut() {
            conflict.seen = true;
        }
        self.fleet.planning.open_seen = true;
        self.ask_to_merge();
        let merging = &mut self.fleet.merging;
        if let Some(current) = merging.current.take() {
            merging.waiting.insert(0, current);
        }
        self.on_train(now, |train, _, _| train.resume());
        self.continue_merging(now);
        if self.fleet.branch_head != self.fleet.merging.pushed {
            self.want_push(Duration::ZERO);
        }
        std::mem::take(&mut self.actions)
    }

    pub(super) fn on_stack_built(&mut self, now: Timestamp, stack: u64, outcome: StackOutcome) {
        self.on_train(now, |train, rules, waiting| {
            train.on_built(now, rules, waiting, stack, outcome)
        });
    }

    pub(super) fn on_gates_finished(
        &mut self,
        now: Timestamp,
        stack: u64,
        commit: &CommitId,
        outcome: GatesOutcome,
    ) {
        self.on_train(now, |train, rules, waiting| {
            train.on_gates(now, rules, waiting, stack, commit, outcome)
        });
    }

    pub(super) fn on_landed(&mut self, now: Timestamp, stack: u64, outcome: LandOutcome) {
        self.on_train(now, |train, _, _| train.on_landed(now, stack, outcome));
    }

    /// `at_once`: whatever could not be done may work now.
    pub(super) fn expire_train(&mut self, now: Timestamp, at_once: bool) {
        self.on_train(now, |train, _, _| train.expire(now, at_once));
    }

    /// One step of the train, and everything that follows from it.
    fn on_train(
        &mut self,
        now: Timestamp,
        step: impl FnOnce(&mut Train, Rules<'_>, &mut Vec<Candidate>) -> Vec<Said>,
    ) {
        let rules = Rules {
            batch: self.policy.merge_batch as usize,
            gates: &self.policy.gates,
        };
        let merging = &mut self.fleet.merging;
        let said = step(&mut merging.train, rules, &mut merging.waiting);
        let moved = said.iter().any(|said| matches!(said, Said::Landed { .. }));
        for said in said {
            self.hear(now, said);
        }
        // After the claims that came with it are judged: its ticks are ours.
        if moved {
            self.act(Action::ReadTaskLists);
        }
    }

    fn hear(&mut self, now: Timestamp, said: Said) {
        match said {
            Said::Build { stack, candidates } => {
                // Nothing is made, not even ticks, where there is nothing to be merged.
                let merges = candidates.iter().any(|c| !c.by_hand);
                let mut candidates: Vec<_> = candidates.into_iter().map(for_the_stack).collect();
                for candidate in candidates.iter_mut().filter(|_| !merges) {
                    candidate.tasks.clear();
                }
                self.act(Action::BuildStack { stack, candidates });
            }
            Said::RunGates { stack, commit, all } => {
                self.act(Action::RunGates { stack, commit, all });
            }
            Said::Land { stack, from, to } => self.act(Action::Land { stack, from, to }),
            Said::Landed { head, by, merged } => {
                self.fleet.merging.merged += merged;
                self.new_tip(head, by.as_ref());
                self.want_push(Duration::ZERO);
            }
            Said::Judged { candidate, verdict } => self.judge(now, &candidate, verdict),
            Said::BranchRed { commit, gates } => self.branch_is_red(now, &commit, &gates),
            Said::BranchGreen => {
                let text = format!("branch `{}` passes its gates again", self.policy.branch);
                self.notice(now, None, &text, None);
            }
            Said::Stalled { reason } => {
                let hint = "it is tried again by itself, at most ten minutes later each time";
                let text = format!("the merge train waits: {reason}");
                self.notice(now, None, &text, Some(hint.into()));
            }
        }
    }

    /// Nobody's candidate is at fault, so none is held back for it; the manager is asked once.
    fn branch_is_red(&mut self, now: Timestamp, commit: &CommitId, gates: &[GateRecord]) {
        let branch = &self.policy.branch;
        let text = format!("branch `{branch}` itself is red: {}", names(gates));
        let hint =
            "work that makes nothing worse lands all the same; the manager is asked to mend it";
        self.notice(now, None, &text, Some(hint.into()));
        let context = self.text_context(&AgentId::manager());
        self.act(Action::CreateTask(NewTask {
            id: TaskId::new(format!("mend-{}", commit.short())),
            owner: AgentId::manager(),
            description: texts::mend_branch(&context, commit, gates),
            priority: -50,
            source: TaskSource::Direct,
        }));
    }

    pub(super) fn branch_moved(&mut self, head: CommitId, by: Option<&AgentId>) {
        self.new_tip(head, by);
        self.act(Action::ReadTaskLists);
    }

    /// The branch is at `head` now, with work of `by`. To everybody else that is news; to the manager
    /// always, for the lists in its checkout are ticked on the branch.
    pub(super) fn new_tip(&mut self, head: CommitId, by: Option<&AgentId>) {
        for agent in self.fleet.agents.values_mut() {
            if by != Some(&agent.id) || agent.role == Role::Manager {
                agent.news = Some(head.clone());
            }
        }
        self.fleet.branch_head = Some(head);
    }

    pub(super) fn merging_deadlines(&self) -> impl Iterator<Item = (Timestamp, String)> {
        let merging = &self.fleet.merging;
        let fetch = merging.fetch_at.filter(|_| self.fleet.ending().is_none());
        let fetch = fetch.map(|at| (at, "fetch the remote".to_owned()));
        let push = merging
            .push_retry_at
            .map(|at| (at, "push again".to_owned()));
        // Before the first inventory nobody departs.
        let train = merging.train.deadline(&merging.waiting, self.may_depart());
        let train = train.filter(|_| self.ready);
        let imports = self.imports_waiting();
        let imports = imports.map(|(id, at)| (at, format!("{id}: take its commits again")));
        fetch.into_iter().chain(push).chain(train).chain(imports)
    }

    /// Nothing is on its way into the branch that is not held up for a reason of its own.
    pub(super) fn merging_is_quiet(&self) -> bool {
        let merging = &self.fleet.merging;
        merging.train.run.is_none()
            && merging.waiting.iter().all(|c| merging.train.is_put_off(c))
            && merging.conflicts.is_empty()
            && merging.hand_over.is_none()
            && self.fleet.agents.values().all(|agent| !agent.importing)
    }
}

fn for_the_stack(candidate: Candidate) -> StackCandidate {
    let message = if candidate.title.is_empty() {
        format!("Merge {}", candidate.agent)
    } else {
        format!("Merge {}: {}", candidate.agent, candidate.title)
    };
    StackCandidate {
        agent: candidate.agent,
        commit: candidate.commit,
        message,
        tasks: candidate.tasks,
        by_hand: candidate.by_hand,
    }
}
