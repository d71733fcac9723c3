//! The plain form of merging: first come, first merged, one at a time, a conflict to the manager.
//! The train with gates and bisection will replace [`Supervisor::continue_merging`], nothing else.

use std::time::Duration;

use super::Supervisor;
use super::action::{Action, NewTask};
use super::input::{ImportOutcome, MergeOutcome, PushOutcome, RemoteOutcome};
use super::lifecycle::denied;
use super::state::{Candidate, Conflict, Phase};
use super::texts;
use crate::model::{AgentId, CommitId, Reply, Role, TaskId, TaskSource, Timestamp};

/// An import or a merge that failed is tried again.
pub(super) const TAKE_AGAIN: Duration = Duration::from_secs(60);
const PUSH_AGAIN: Duration = Duration::from_secs(30);
/// A remote that says no will say no again until somebody changes something there.
pub(super) const PUSH_AGAIN_DENIED: Duration = Duration::from_secs(300);
/// Times the manager is asked to merge one commit before a person is told.
const ASKED_TO_MERGE: u32 = 2;
/// Uncommitted paths named to an agent.
const NAMED_PATHS: usize = 10;

/// Commits that came from the remote, in the conflict table.
fn remote() -> AgentId {
    AgentId::new("remote")
}

impl Supervisor {
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
                    });
                    return;
                }
            }
        }
        // Nothing of the manager's is on its way to the branch: what it was asked is judged now.
        if !more {
            self.judge_conflicts(id);
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

    /// A newer commit of the same agent replaces the one that waits: it contains it.
    fn enqueue(&mut self, candidate: Candidate) {
        let merging = &mut self.fleet.merging;
        if let Some(conflict) = merging.conflicts.get_mut(&candidate.agent) {
            conflict.later = Some(candidate.commit);
            return;
        }
        match merging
            .waiting
            .iter_mut()
            .find(|c| c.agent == candidate.agent)
        {
            Some(waiting) => *waiting = candidate,
            None => merging.waiting.push(candidate),
        }
    }

    pub(super) fn continue_merging(&mut self, _now: Timestamp) {
        // A merge task that got lost, or ended without a turn: its conflict is judged all the same.
        let manager = AgentId::manager();
        if self.ready && self.manager_is_free() && !self.fleet.agents[&manager].importing {
            self.judge_conflicts(&manager);
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
        let title = match &self.fleet.merging.current {
            Some(current) if current.agent == *id && current.commit == *commit => {
                current.title.clone()
            }
            _ => return,
        };
        self.fleet.merging.current = None;
        match outcome {
            MergeOutcome::Merged { head } => {
                self.fleet.merging.merged += 1;
                self.branch_moved(head, Some(id));
                self.count_resolved(id);
                self.judge_conflicts(id);
                self.want_push(Duration::ZERO);
            }
            MergeOutcome::UpToDate => {
                self.count_resolved(id);
                self.judge_conflicts(id);
            }
            MergeOutcome::Conflict { files } => self.conflicted(now, id, commit, &title, &files),
            MergeOutcome::Failed { reason } => {
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

    fn branch_moved(&mut self, head: CommitId, by: Option<&AgentId>) {
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

    /// A commit of `id` is in the branch, and with it its earlier ones that were in conflict.
    fn count_resolved(&mut self, id: &AgentId) {
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
    fn judge_conflicts(&mut self, id: &AgentId) {
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

    fn conflicted(
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

    pub(super) fn want_push(&mut self, after: Duration) {
        if !self.policy.push {
            return;
        }
        let merging = &mut self.fleet.merging;
        if merging.push_in_flight {
            merging.push_wanted = true;
            return;
        }
        merging.push_in_flight = true;
        merging.push_wanted = false;
        merging.push_retry_at = None;
        self.act(Action::Push { after });
    }

    pub(super) fn on_push_finished(&mut self, now: Timestamp, outcome: PushOutcome) {
        self.fleet.merging.push_in_flight = false;
        match outcome {
            PushOutcome::Pushed { head } => {
                self.fleet.merging.pushed = Some(head);
                self.fleet.merging.push_problem = None;
            }
            PushOutcome::Moved => {
                self.fleet.merging.push_wanted = true;
                self.fetch_now();
                return;
            }
            PushOutcome::Denied { reason } => self.push_failed(now, reason, PUSH_AGAIN_DENIED),
            PushOutcome::Away { reason } => self.push_failed(now, reason, PUSH_AGAIN),
        }
        if self.fleet.merging.push_wanted {
            self.want_push(Duration::ZERO);
        }
    }

    fn push_failed(&mut self, now: Timestamp, reason: String, again: Duration) {
        let text = format!("the branch could not be pushed: {reason}");
        let hint = format!(
            "merged work is safe in the store; trying again in {} s",
            again.as_secs()
        );
        self.notice(now, None, &text, Some(hint));
        self.fleet.merging.push_problem = Some(reason);
        self.fleet.merging.push_wanted = false;
        self.fleet.merging.push_retry_at = Some(now + again);
    }

    pub(super) fn request_fetch(&mut self, _now: Timestamp) -> Reply {
        if self.fleet.ending().is_some() {
            return denied("ENDING", "the fleet is ending".into(), None);
        }
        if self.fleet.merging.fetch_in_flight {
            return Reply::AlreadySo;
        }
        self.fetch_now();
        Reply::Accepted
    }

    fn fetch_now(&mut self) {
        if !self.fleet.merging.fetch_in_flight {
            self.fleet.merging.fetch_in_flight = true;
            self.act(Action::FetchRemote);
        }
    }

    pub(super) fn on_remote_fetched(&mut self, now: Timestamp, outcome: RemoteOutcome) {
        self.fleet.merging.fetch_in_flight = false;
        self.fleet.merging.fetch_at = Some(now + self.policy.fetch_interval);
        match outcome {
            RemoteOutcome::Integrated { head, moved } => {
                if moved {
                    self.wake_planning();
                }
                if self.fleet.branch_head.as_ref() != Some(&head) {
                    self.branch_moved(head, None);
                }
                self.count_resolved(&remote());
                let merging = &self.fleet.merging;
                // A push that found the remote away is made up for as soon as it is back.
                let behind = merging.pushed != self.fleet.branch_head;
                if merging.push_wanted || (behind && merging.push_retry_at.is_none()) {
                    self.want_push(Duration::ZERO);
                }
            }
            RemoteOutcome::Conflict {
                remote: commit,
                files,
            } => {
                if !self.fleet.merging.conflicts.contains_key(&remote()) {
                    self.conflicted(
                        now,
                        &remote(),
                        &commit,
                        "commits pushed to the remote",
                        &files,
                    );
                }
            }
            RemoteOutcome::Away { reason } => {
                self.fleet.merging.push_wanted = false;
                let text = format!("the remote could not be fetched: {reason}");
                self.notice(now, None, &text, Some("trying again; work goes on".into()));
            }
        }
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

    fn imports_waiting(&self) -> impl Iterator<Item = (&AgentId, Timestamp)> {
        let idle = self.fleet.agents.values();
        idle.filter(|agent| self.ready && agent.phase == Phase::Idle)
            .filter_map(|agent| Some((&agent.id, agent.import_at?)))
    }

    pub(super) fn expire_remote(&mut self, now: Timestamp) {
        if self.fleet.merging.fetch_at.is_some_and(|at| at <= now) && self.fleet.ending().is_none()
        {
            self.fleet.merging.fetch_at = Some(now + self.policy.fetch_interval);
            self.fetch_now();
        }
        if self.fleet.merging.push_retry_at.is_some_and(|at| at <= now) {
            self.fleet.merging.push_retry_at = None;
            self.want_push(Duration::ZERO);
        }
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
