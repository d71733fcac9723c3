//! The way into the branch: who is next, and what became of it.
//!
//! Plain for now: first come, first merged, one at a time. What an outcome means for the work that
//! was claimed done is judged in [`super::proof`]; this file only says it ([`Verdict`]).

use std::time::Duration;

use super::Supervisor;
use super::action::Action;
use super::input::MergeOutcome;
use super::state::Candidate;
use crate::model::{AgentId, CommitId, Role, TaskId, Timestamp};

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in the branch, which now is at `head`.
    Landed { head: CommitId },
    /// The branch had it already.
    UpToDate,
    /// It does not merge with the branch. Path and conflict text per file, bounded.
    Conflict { files: Vec<(String, String)> },
    /// It could not be tried.
    Failed { reason: String },
}

impl Supervisor {
    /// A newer commit of the same agent replaces the one that waits: it contains it.
    pub(super) fn enqueue(&mut self, candidate: Candidate) {
        let merging = &mut self.fleet.merging;
        if let Some(conflict) = merging.conflicts.get_mut(&candidate.agent) {
            conflict.later = Some(candidate.commit);
            unite(&mut conflict.tasks, candidate.tasks);
            return;
        }
        match merging
            .waiting
            .iter_mut()
            .find(|c| c.agent == candidate.agent)
        {
            Some(waiting) => {
                let since = waiting.since;
                let mut tasks = std::mem::take(&mut waiting.tasks);
                unite(&mut tasks, candidate.tasks);
                *waiting = Candidate {
                    since,
                    tasks,
                    ..candidate
                };
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
        let merging = &mut self.fleet.merging;
        if merging.current.is_none() && !merging.waiting.is_empty() {
            let next = merging.waiting.remove(0);
            merging.current = Some(next.clone());
            let message = if next.title.is_empty() {
                format!("Merge {}", next.agent)
            } else {
                format!("Merge {}: {}", next.agent, next.title)
            };
            self.act(Action::Merge {
                agent: next.agent,
                commit: next.commit,
                message,
                tasks: next.tasks,
            });
        }
    }

    /// After a restart: what was in flight is asked for again.
    pub fn resume_merging(&mut self) -> Vec<Action> {
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
        let merging = &mut self.fleet.merging;
        if let Some(current) = merging.current.take() {
            merging.waiting.insert(0, current);
        }
        self.continue_merging(Timestamp(0));
        if self.fleet.branch_head != self.fleet.merging.pushed {
            self.want_push(Duration::ZERO);
        }
        std::mem::take(&mut self.actions)
    }

    pub(super) fn on_merge_finished(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        commit: &CommitId,
        outcome: MergeOutcome,
    ) {
        let candidate = match &self.fleet.merging.current {
            Some(current) if current.agent == *id && current.commit == *commit => current.clone(),
            _ => return,
        };
        self.fleet.merging.current = None;
        let verdict = match outcome {
            MergeOutcome::Merged { head } => {
                self.fleet.merging.merged += 1;
                self.branch_moved(head.clone(), Some(id));
                self.want_push(Duration::ZERO);
                Verdict::Landed { head }
            }
            MergeOutcome::UpToDate => Verdict::UpToDate,
            MergeOutcome::Conflict { files } => Verdict::Conflict { files },
            MergeOutcome::Failed { reason } => Verdict::Failed { reason },
        };
        self.judge(now, &candidate, verdict);
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
        let imports = self.imports_waiting();
        let imports = imports.map(|(id, at)| (at, format!("{id}: take its commits again")));
        fetch.into_iter().chain(push).chain(imports)
    }

    pub(super) fn merging_is_quiet(&self) -> bool {
        let merging = &self.fleet.merging;
        merging.current.is_none()
            && merging.waiting.is_empty()
            && merging.conflicts.is_empty()
            && self.fleet.agents.values().all(|agent| !agent.importing)
    }
}

fn unite(tasks: &mut Vec<TaskId>, more: Vec<TaskId>) {
    for task in more {
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionId;
    use crate::supervisor::{Fleet, Policy};

    #[test]
    fn its_own_merges_are_no_news_to_a_worker_and_those_of_others_are() {
        let policy = Policy {
            workers: 2,
            ..Policy::default()
        };
        let (manager, one, two) = (AgentId::manager(), AgentId::worker(1), AgentId::worker(2));
        let agents = policy.agents();
        let sessions = agents.iter().map(|id| SessionId::new(id.as_str()));
        let mut supervisor = Supervisor::new(policy, Fleet::new(&agents, sessions));
        supervisor.set_branch_head(CommitId::new("start"));
        for agent in supervisor.fleet.agents.values_mut() {
            agent.head = Some(CommitId::new("start"));
        }
        for id in &agents {
            assert_eq!(supervisor.news_for(id), None, "{id}");
        }
        let of_one = CommitId::new("merged-one");
        supervisor.new_tip(of_one.clone(), Some(&one));
        assert_eq!(supervisor.news_for(&one), None);
        assert_eq!(supervisor.news_for(&two), Some(of_one.clone()));
        assert_eq!(supervisor.news_for(&manager), Some(of_one));
        let of_two = CommitId::new("merged-two");
        supervisor.new_tip(of_two.clone(), Some(&two));
        assert_eq!(supervisor.news_for(&one), Some(of_two));
        let ours = CommitId::new("merged-manager");
        supervisor.new_tip(ours.clone(), Some(&manager));
        assert_eq!(supervisor.news_for(&manager), Some(ours));
    }
}
