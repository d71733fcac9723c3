//! Is what was claimed done really there: commits, a clean tree, in the branch? What is missing
//! goes back to somebody who can mend it.

use std::time::Duration;

use super::Supervisor;
use super::action::{Action, NewTask};
use super::input::ImportOutcome;
use super::state::{Candidate, Conflict, Phase};
use super::texts;
use super::train::{Verdict, names};
use crate::model::{AgentId, CommitId, TaskId, TaskSource, Timestamp};

/// An import or a merge that failed is tried again.
pub(super) const TAKE_AGAIN: Duration = Duration::from_secs(60);
/// Times the manager is asked to merge one commit before a person is told.
const ASKED_TO_MERGE: u32 = 2;
/// Uncommitted paths named to an agent.
const NAMED_PATHS: usize = 10;

/// Commits that came from the remote, in the conflict table.
pub(super) fn remote() -> AgentId {
    AgentId::new("remote")
}

impl Supervisor {
    /// What became of a candidate, and what follows for the work in it.
    pub(super) fn judge(&mut self, now: Timestamp, candidate: &Candidate, verdict: Verdict) {
        let (id, commit) = (&candidate.agent, &candidate.commit);
        match verdict {
            Verdict::Landed { .. } | Verdict::UpToDate { .. } => {
                self.count_resolved(id);
                self.judge_conflicts(now, id);
            }
            Verdict::Conflict { files } => {
                self.conflicted(now, id, commit, &candidate.title, &files);
            }
            Verdict::Red { gates } => {
                let text = format!(
                    "its commit {} is red once it is merged: {}",
                    commit.short(),
                    names(&gates)
                );
                let hint =
                    "the branch stays as it was; `orchestrator gates log` shows what they printed";
                self.notice(now, Some(id), &text, Some(hint.into()));
            }
            Verdict::Failed { reason } => {
                let text = format!(
                    "its commit {} could not be merged: {reason}",
                    commit.short()
                );
                let hint = "it is tried again soon";
                self.notice(now, Some(id), &text, Some(hint.into()));
                if let Some(agent) = self.fleet.agents.get_mut(id) {
                    agent.imported = None;
                    agent.import_at = Some(now + TAKE_AGAIN);
                }
            }
        }
    }

    pub(super) fn on_imported(&mut self, now: Timestamp, id: &AgentId, outcome: ImportOutcome) {
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
            ImportOutcome::Taken { head, dirty } => {
                let new = agent.imported.as_ref() != Some(&head);
                agent.imported = Some(head.clone());
                if agent.head.is_none() {
                    agent.head = Some(head.clone());
                }
                let title = agent.last_title.clone();
                self.ask_to_commit(now, id, &dirty);
                if new && self.fleet.branch_head.as_ref() != Some(&head) {
                    self.enqueue(Candidate {
                        agent: id.clone(),
                        commit: head,
                        title,
                        since: now,
                        tasks: Vec::new(),
                    });
                    return;
                }
            }
        }
        // Nothing of the manager's is on its way to the branch: what it was asked is judged now.
        if !more {
            self.judge_conflicts(now, id);
        }
    }

    /// Work that ended with an unclean tree is not all there. Asked once per unclean end in a row.
    fn ask_to_commit(&mut self, now: Timestamp, id: &AgentId, dirty: &[String]) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if dirty.is_empty() {
            agent.asked_to_commit = false;
            return;
        }
        // It works on: what is uncommitted now belongs to its next task.
        if agent.phase != Phase::Idle {
            return;
        }
        // The manager's task lists change under the person who edits them.
        let lists = |path: &String| texts::is_task_list(path);
        if id.worker_number().is_none() && dirty.iter().all(lists) {
            return;
        }
        let paths = dirty
            .iter()
            .take(NAMED_PATHS)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let text = format!("ended its turn with uncommitted changes: {paths}");
        let again = agent.asked_to_commit;
        agent.asked_to_commit = true;
        let turns = agent.turns;
        self.notice(
            now,
            Some(id),
            &text,
            Some("they stay in its checkout".into()),
        );
        if !again {
            self.act(Action::CreateTask(NewTask {
                id: TaskId::new(format!("commit-{id}-{turns}")),
                owner: id.clone(),
                description: texts::commit_what_is_left(&paths),
                priority: -100,
                source: TaskSource::Direct,
            }));
        }
    }

    /// A commit of `id` is in the branch, and with it its earlier ones that were in conflict.
    pub(super) fn count_resolved(&mut self, id: &AgentId) {
        let merging = &mut self.fleet.merging;
        if merging.conflicts.contains_key(id) {
            return;
        }
        let before = merging.conflicts_asked.len();
        merging
            .conflicts_asked
            .retain(|asked, _| asked.split(' ').next() != Some(id.as_str()));
        let resolved = before - merging.conflicts_asked.len();
        merging.resolved += u32::try_from(resolved).unwrap_or(u32::MAX);
    }

    /// The manager's work is in the branch: what it was asked to merge is merged again. Up to date
    /// if it did its work, a conflict again if not.
    pub(super) fn judge_conflicts(&mut self, now: Timestamp, id: &AgentId) {
        if *id != AgentId::manager() {
            return;
        }
        let open: Vec<AgentId> = self.fleet.merging.conflicts.keys().cloned().collect();
        for agent in open {
            let task = self.fleet.merging.conflicts[&agent].task.clone();
            if self.in_play(&task) || !self.fleet.merging.conflicts[&agent].seen {
                continue;
            }
            let Some(conflict) = self.fleet.merging.conflicts.remove(&agent) else {
                continue;
            };
            if agent == remote() {
                self.fleet.merging.fetch_at = Some(Timestamp(0));
                continue;
            }
            let title = self
                .fleet
                .agents
                .get(&agent)
                .map_or_else(String::new, |a| a.last_title.clone());
            for commit in [Some(conflict.commit), conflict.later]
                .into_iter()
                .flatten()
            {
                let (agent, title) = (agent.clone(), title.clone());
                self.fleet.merging.waiting.push(Candidate {
                    agent,
                    commit,
                    title,
                    since: now,
                    tasks: Vec::new(),
                });
            }
        }
    }

    /// Remembers which of the tasks we asked for have arrived.
    pub(super) fn note_arrivals(&mut self) {
        let arrived: Vec<AgentId> = self
            .fleet
            .merging
            .conflicts
            .iter()
            .filter(|(_, conflict)| self.in_play(&conflict.task))
            .map(|(agent, _)| agent.clone())
            .collect();
        for agent in arrived {
            if let Some(conflict) = self.fleet.merging.conflicts.get_mut(&agent) {
                conflict.seen = true;
            }
        }
        let open = self.fleet.planning.open.clone();
        if open.is_some_and(|task| self.in_play(&task)) {
            self.fleet.planning.open_seen = true;
        }
    }

    /// The task is in the manager's queue or hand.
    fn in_play(&self, task: &TaskId) -> bool {
        let id = AgentId::manager();
        let queued = self
            .queue
            .candidates
            .get(&id)
            .is_some_and(|tasks| tasks.contains(task));
        let in_hand = self.fleet.agents.get(&id).is_some_and(|manager| {
            let held = manager.held.as_ref();
            held.is_some_and(|held| held.task == *task)
                || matches!(&manager.phase, Phase::Claiming { task: t, .. } if t == task)
        });
        queued || in_hand
    }

    pub(super) fn conflicted(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        commit: &CommitId,
        title: &str,
        files: &[(String, String)],
    ) {
        let paths: Vec<String> = files.iter().map(|(path, _)| path.clone()).collect();
        let asked = self
            .fleet
            .merging
            .conflicts_asked
            .entry(format!("{id} {commit}"))
            .or_default();
        *asked += 1;
        let times = *asked;
        if times == 1 {
            self.fleet.merging.conflicts_seen += 1;
        }
        let task = TaskId::new(format!("merge-{id}-{}-{times}", commit.short()));
        let text = format!("{} conflicts in {}", commit.short(), paths.join(", "));
        if times > ASKED_TO_MERGE {
            let hint =
                format!("merge {commit} into the branch by hand and push; it is in the store");
            self.notice(
                now,
                Some(id),
                &format!("{text}, and the manager did not resolve it"),
                Some(hint),
            );
            return;
        }
        self.notice(
            now,
            Some(id),
            &text,
            Some("the manager is asked to merge it".into()),
        );
        let context = self.text_context(&AgentId::manager());
        // The manager's own work is not merged into itself: the branch is.
        let wanted = match &self.fleet.branch_head {
            Some(head) if *id == AgentId::manager() => head,
            _ => commit,
        };
        let description = texts::merge_conflict(&context, id, wanted, title, files);
        let conflict = Conflict {
            commit: commit.clone(),
            task: task.clone(),
            paths,
            later: None,
            seen: false,
        };
        self.fleet.merging.conflicts.insert(id.clone(), conflict);
        self.act(Action::CreateTask(NewTask {
            id: task,
            owner: AgentId::manager(),
            description,
            priority: 0,
            source: TaskSource::MergeConflict {
                agent: id.clone(),
                commit: commit.clone(),
            },
        }));
    }

    /// Commits that could not be taken or merged, of agents at rest.
    pub(super) fn expire_imports(&mut self, now: Timestamp) {
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

    pub(super) fn imports_waiting(&self) -> impl Iterator<Item = (&AgentId, Timestamp)> {
        let idle = self.fleet.agents.values();
        idle.filter(|agent| self.ready && agent.phase == Phase::Idle)
            .filter_map(|agent| Some((&agent.id, agent.import_at?)))
    }
}
