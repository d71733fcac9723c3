//! What was taken out of a checkout against what its agent claims: is there work, and all of it?

use std::time::Duration;

use super::super::Supervisor;
use super::super::action::{Action, NewTask, WorkAsked};
use super::super::input::{ImportOutcome, WorkFound};
use super::super::state::{AgentState, Candidate, Phase};
use super::super::texts;
use super::claim::Claimed;
use crate::model::{AgentId, Missing, TaskId, TaskSource, Timestamp};

/// An import or a merge that failed is tried again.
pub(in crate::supervisor) const TAKE_AGAIN: Duration = Duration::from_secs(60);
/// Uncommitted paths named to an agent.
const NAMED_PATHS: usize = 10;

impl Supervisor {
    pub(in crate::supervisor) fn on_imported(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        outcome: ImportOutcome,
    ) {
        let next = self.fleet.agents.get_mut(id);
        let next = next.and_then(|agent| agent.import_next.take());
        self.take_imported(now, id, outcome, next.is_some());
        if let Some(title) = next {
            self.import(id, Some(&title));
        }
    }

    fn take_imported(&mut self, now: Timestamp, id: &AgentId, outcome: ImportOutcome, more: bool) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.importing = false;
        match outcome {
            ImportOutcome::Failed { reason } => {
                let text = format!("its commits could not be taken: {reason}");
                agent.import_at = Some(now + TAKE_AGAIN);
                let hint = "they stay in its checkout and are taken again soon";
                self.notice(now, Some(id), &text, Some(hint.into()));
            }
            ImportOutcome::Taken { head, dirty, work } => {
                agent.imported = Some(head.clone());
                if agent.head.is_none() {
                    agent.head = Some(head);
                }
                note_work(agent, work);
                let left: Vec<String> = dirty
                    .into_iter()
                    .filter(|path| !texts::is_task_list(path))
                    .collect();
                // It works on: what is uncommitted now may belong to its next task.
                let at_rest = !more && agent.held.is_none() && agent.phase.is_at_rest();
                if at_rest {
                    agent.is_left_with(&left);
                    self.ask_manager_to_commit(now, id, &left);
                }
                self.examine(id, &left, at_rest);
                self.mend(now, id);
                if self.offer(now, id) {
                    return;
                }
            }
        }
        // Nothing of the manager's is on its way to the branch: what it was asked is judged now.
        if !more {
            self.judge_conflicts(now, id);
        }
    }

    /// What each claim lacks. `uncommitted`: paths in the checkout now, in the middle of its next turn
    /// if it is not at rest.
    fn examine(&mut self, id: &AgentId, uncommitted: &[String], at_rest: bool) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let repair = agent.repair.as_ref();
        let copy = agent.rescuing.copy_of_now().cloned();
        for claim in agent.claims.iter_mut().filter(|claim| !claim.offered) {
            let Some(work) = &claim.work else { continue };
            // What the train or the tree showed stays until its repair is over.
            let asked = repair.is_some_and(|repair| repair.claims.contains(&claim.task));
            let mut missing: Vec<Missing> = Vec::new();
            if work.commit_count == 0 && claim.no_change.is_none() {
                missing.push(Missing::Commit);
            }
            let left = claim.own_leftovers(uncommitted, at_rest);
            if let Some(left) = &left {
                claim.left = Some(left.clone());
                claim.kept = copy.clone().filter(|_| !left.is_empty());
                claim.tolerated.clear();
            }
            if let Some(left) = left.as_ref().filter(|left| !left.is_empty()) {
                let paths = left.iter().take(NAMED_PATHS).cloned().collect();
                missing.push(Missing::CleanTree { paths });
            }
            if !work.outside.is_empty() {
                let paths = work.outside.clone();
                missing.push(Missing::Scope { paths });
            }
            missing.extend(claim.missing.drain(..).filter(|lack| match lack {
                Missing::Merge { .. } | Missing::Gate { .. } => asked,
                Missing::CleanTree { .. } => asked && left.is_none(),
                Missing::Commit | Missing::Scope { .. } => false,
            }));
            claim.missing = missing;
        }
    }

    /// Hands the agent's newest commit to the train, with what is claimed done with it. False if
    /// there is nothing to hand over, or if something has to be mended first.
    pub(super) fn offer(&mut self, now: Timestamp, id: &AgentId) -> bool {
        self.prove_without_change(now, id);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return false;
        };
        let Some(head) = agent.imported.clone() else {
            return false;
        };
        if agent.claims.iter().any(Claimed::holds_back) {
            return false;
        }
        let mut tasks: Vec<TaskId> = Vec::new();
        for claim in &mut agent.claims {
            if !claim.offered && claim.work.is_some() && claim.missing.is_empty() {
                claim.offered = true;
                tasks.push(claim.task.clone());
            }
        }
        let known = agent.offered.as_ref() == Some(&head);
        let there = self.fleet.branch_head.as_ref() == Some(&head);
        if tasks.is_empty() && (known || there) {
            agent.offered = Some(head);
            return false;
        }
        agent.offered = Some(head.clone());
        let title = agent.last_title.clone();
        self.enqueue(Candidate {
            agent: id.clone(),
            commit: head,
            title,
            since: now,
            tasks,
            by_hand: false,
            asked: 0,
        });
        true
    }

    /// Nothing was changed, and its agent says why: there is nothing to merge and to try.
    fn prove_without_change(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let unchanged = |claim: &Claimed| {
            !claim.offered
                && claim.missing.is_empty()
                && claim
                    .work
                    .as_ref()
                    .is_some_and(|work| work.commit_count == 0)
        };
        let claims = std::mem::take(&mut agent.claims);
        let (proven, open): (Vec<Claimed>, Vec<Claimed>) = claims.into_iter().partition(unchanged);
        agent.claims = open;
        for claim in proven {
            self.proven(now, id, &claim, None, &[]);
        }
    }

    /// The manager has no claims; what it left uncommitted is nowhere. Asked once per unclean end
    /// in a row.
    fn ask_manager_to_commit(&mut self, now: Timestamp, id: &AgentId, left: &[String]) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if id.worker_number().is_some() {
            return;
        }
        let again = std::mem::replace(&mut agent.asked_to_commit, !left.is_empty());
        if left.is_empty() {
            return;
        }
        let turns = agent.turns;
        let named: Vec<String> = left.iter().take(NAMED_PATHS).cloned().collect();
        let paths = named.join(", ");
        let text = format!("ended its turn with uncommitted changes: {paths}");
        let hint = "they stay in its checkout";
        self.notice(now, Some(id), &text, Some(hint.into()));
        if !again {
            self.act(Action::CreateTask(NewTask {
                id: TaskId::new(format!("commit-{id}-{turns}")),
                owner: id.clone(),
                description: texts::commit_what_is_left(&paths),
                priority: super::mend::SOONEST,
                source: TaskSource::Direct,
            }));
        }
    }

    /// Commits that could not be taken or merged, of agents at rest.
    pub(in crate::supervisor) fn expire_imports(&mut self, now: Timestamp) {
        let due: Vec<AgentId> = self
            .imports_waiting()
            .filter(|(_, at)| *at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            if let Some(agent) = self.fleet.agents.get_mut(&id) {
                agent.import_at = None;
            }
            self.import(&id, None);
        }
    }

    pub(in crate::supervisor) fn imports_waiting(
        &self,
    ) -> impl Iterator<Item = (&AgentId, Timestamp)> {
        let all = self.fleet.agents.values();
        all.filter(|agent| self.ready && matches!(agent.phase, Phase::Idle | Phase::Failed))
            .filter_map(|agent| Some((&agent.id, agent.import_at?)))
    }
}

impl AgentState {
    /// Whose commits the next import is asked about.
    pub(in crate::supervisor) fn work_asked(&self) -> Vec<WorkAsked> {
        let open = self.claims.iter().filter(|claim| !claim.offered);
        open.map(|claim| WorkAsked {
            task: claim.task.clone(),
            fence: claim.fence,
            spans: claim.spans.clone(),
            scope: claim.scope.clone(),
        })
        .collect()
    }

    /// A claim waits for an import.
    pub(in crate::supervisor) fn has_unseen_work(&self) -> bool {
        self.claims.iter().any(|claim| claim.work.is_none())
    }
}

/// An answer to an older question, from before a repair, says too little.
fn note_work(agent: &mut AgentState, found: Vec<WorkFound>) {
    for found in found {
        let same = |claim: &&mut Claimed| {
            claim.task == found.task
                && claim.fence == found.fence
                && claim.spans.len() == found.spans
                && !claim.offered
        };
        if let Some(claim) = agent.claims.iter_mut().find(same) {
            claim.work = Some(found.work);
        }
    }
}
