//! The tasks as one process sees them: ordered and indexed, so that the next task of an agent is
//! found in logarithmic time however long the queue is. Pure; [`super::queue`] feeds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::view::TaskCounts;
use crate::model::{AgentId, Task, TaskId, TaskSource, TaskStatus, Timestamp};

/// Sooner first: priority, then age, then id.
type Place = (i64, Timestamp, TaskId);

/// A task and the number of the record it came from.
#[derive(Clone, Debug)]
pub struct Entry {
    pub seq: u64,
    pub task: Arc<Task>,
}

/// The newest known state of every task.
#[derive(Debug, Default)]
pub struct View {
    tasks: BTreeMap<TaskId, Entry>,
    /// Available tasks whose dependencies are done, per owner (`None`: any worker).
    ready: BTreeMap<Option<AgentId>, BTreeSet<Place>>,
    /// Who waits for whom, in any status.
    dependents: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// Claimed tasks by the end of their lease.
    leases: BTreeSet<(Timestamp, TaskId)>,
    /// Finished tasks that came from task lists: their boxes are ticked.
    done_items: BTreeSet<TaskId>,
    counts: TaskCounts,
    /// Of these, the tasks that are not the manager's own.
    worker_counts: TaskCounts,
}

impl View {
    /// Takes a record in; an older one than is known changes nothing. True if something changed.
    pub fn put(&mut self, seq: u64, task: Task) -> bool {
        let id = task.id.clone();
        let old = self.tasks.get(&id).cloned();
        if old.as_ref().is_some_and(|old| old.seq >= seq) {
            return false;
        }
        let was_done = old.as_ref().is_some_and(|old| is_done(&old.task));
        if let Some(old) = old {
            self.unindex(&old.task);
        }
        let is_done = is_done(&task);
        let task = Arc::new(task);
        let entry = Entry {
            seq,
            task: Arc::clone(&task),
        };
        self.tasks.insert(id.clone(), entry);
        self.index(&task);
        if was_done != is_done {
            let waiting: Vec<TaskId> = self
                .dependents
                .get(&id)
                .into_iter()
                .flatten()
                .cloned()
                .collect();
            for waiting in waiting {
                if let Some(entry) = self.tasks.get(&waiting).cloned() {
                    self.unready(&entry.task);
                    self.make_ready(&entry.task);
                }
            }
        }
        true
    }

    pub fn get(&self, id: &TaskId) -> Option<&Entry> {
        self.tasks.get(id)
    }

    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values().map(|entry| &entry.task)
    }

    pub fn counts(&self) -> TaskCounts {
        self.counts
    }

    /// Counts of the tasks that are not the manager's own.
    pub fn worker_counts(&self) -> TaskCounts {
        self.worker_counts
    }

    /// What this agent may claim now, best first, at most `limit`: its own tasks, and for a worker
    /// those of nobody.
    pub fn candidates(&self, agent: &AgentId, limit: usize) -> Vec<Task> {
        let ids = self.candidate_ids(agent, limit);
        let found = ids.iter().filter_map(|id| self.tasks.get(id));
        found.map(|entry| Task::clone(&entry.task)).collect()
    }

    /// Their ids.
    pub fn candidate_ids(&self, agent: &AgentId, limit: usize) -> Vec<TaskId> {
        let mut own = self.places(Some(agent.clone())).peekable();
        let shared = agent.worker_number().map(|_| self.places(None));
        let mut shared = shared.into_iter().flatten().peekable();
        let mut found = Vec::new();
        while found.len() < limit {
            let take_own = match (own.peek(), shared.peek()) {
                (Some(a), Some(b)) => a <= b,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            let place = if take_own { own.next() } else { shared.next() };
            found.extend(place.map(|(_, _, id)| id.clone()));
        }
        found
    }

    /// How many tasks `candidates` would give without a limit.
    pub fn ready_count(&self, agent: &AgentId) -> usize {
        let of = |owner: Option<AgentId>| self.ready.get(&owner).map_or(0, BTreeSet::len);
        of(Some(agent.clone())) + agent.worker_number().map_or(0, |_| of(None))
    }

    /// Every claimed task, by the end of its lease.
    pub fn claimed(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.leases
            .iter()
            .filter_map(|(_, id)| self.tasks.get(id))
            .map(|entry| &entry.task)
    }

    /// Claimed tasks whose lease has run out, longest ago first, at most `limit`.
    pub fn expired(&self, now: Timestamp, limit: usize) -> Vec<Task> {
        self.leases
            .iter()
            .take_while(|(until, _)| *until <= now)
            .take(limit)
            .filter_map(|(_, id)| self.tasks.get(id))
            .map(|entry| Task::clone(&entry.task))
            .collect()
    }

    /// When the next lease runs out.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.leases.first().map(|(until, _)| *until)
    }

    /// The finished tasks that came from task lists.
    pub fn done_items(&self) -> impl Iterator<Item = &Arc<Task>> {
        let found = self.done_items.iter().filter_map(|id| self.tasks.get(id));
        found.map(|entry| &entry.task)
    }

    /// The task's dependencies that are not done.
    pub fn unmet(&self, task: &Task) -> Vec<TaskId> {
        let unmet = |id: &&TaskId| !self.tasks.get(*id).is_some_and(|dep| is_done(&dep.task));
        task.dependencies.iter().filter(unmet).cloned().collect()
    }

    /// Open tasks that wait for this one, directly or by others between them.
    pub fn dependents(&self, id: &TaskId) -> Vec<TaskId> {
        let mut found: BTreeSet<TaskId> = BTreeSet::new();
        let mut ahead = vec![id.clone()];
        while let Some(next) = ahead.pop() {
            for waiting in self.dependents.get(&next).into_iter().flatten() {
                let open = self.tasks.get(waiting);
                let open = open.is_some_and(|entry| !entry.task.status.is_final());
                if open && found.insert(waiting.clone()) {
                    ahead.push(waiting.clone());
                }
            }
        }
        found.into_iter().collect()
    }

    /// Failed or cancelled tasks without which this one cannot begin, directly or by others between
    /// them: it is blocked until a person does something.
    pub fn blockers(&self, task: &Task) -> Vec<TaskId> {
        let mut seen: BTreeSet<TaskId> = BTreeSet::new();
        let mut found = Vec::new();
        let mut ahead: Vec<TaskId> = task.dependencies.clone();
        while let Some(next) = ahead.pop() {
            if !seen.insert(next.clone()) {
                continue;
            }
            match self.tasks.get(&next).map(|entry| &entry.task) {
                Some(other)
                    if matches!(other.status, TaskStatus::Failed | TaskStatus::Cancelled) =>
                {
                    found.push(next);
                }
                Some(other) if other.status != TaskStatus::Done => {
                    ahead.extend(other.dependencies.iter().cloned());
                }
                _ => {}
            }
        }
        found.sort();
        found
    }

    fn places(&self, owner: Option<AgentId>) -> impl Iterator<Item = &Place> {
        self.ready.get(&owner).into_iter().flatten()
    }

    fn index(&mut self, task: &Task) {
        for count in self.counts_of(task) {
            *count += 1;
        }
        if let (TaskStatus::Claimed, Some(claim)) = (task.status, &task.claim) {
            self.leases.insert((claim.lease_until, task.id.clone()));
        }
        if is_done_item(task) {
            self.done_items.insert(task.id.clone());
        }
        for dependency in &task.dependencies {
            let waiting = self.dependents.entry(dependency.clone()).or_default();
            waiting.insert(task.id.clone());
        }
        self.make_ready(task);
    }

    fn unindex(&mut self, task: &Task) {
        for count in self.counts_of(task) {
            *count = count.saturating_sub(1);
        }
        if let Some(claim) = &task.claim {
            self.leases.remove(&(claim.lease_until, task.id.clone()));
        }
        if is_done_item(task) {
            self.done_items.remove(&task.id);
        }
        for dependency in &task.dependencies {
            if let Some(waiting) = self.dependents.get_mut(dependency) {
                waiting.remove(&task.id);
            }
        }
        self.unready(task);
    }

    fn make_ready(&mut self, task: &Task) {
        if task.status == TaskStatus::Available && self.unmet(task).is_empty() {
            let places = self.ready.entry(task.owner.clone()).or_default();
            places.insert(place(task));
        }
    }

    fn unready(&mut self, task: &Task) {
        if let Some(places) = self.ready.get_mut(&task.owner) {
            places.remove(&place(task));
        }
    }

    /// The numbers a task is part of.
    fn counts_of(&mut self, task: &Task) -> impl Iterator<Item = &mut u32> {
        let managers = task.owner == Some(AgentId::manager());
        let workers = (!managers).then(|| count(&mut self.worker_counts, task.status));
        std::iter::once(count(&mut self.counts, task.status)).chain(workers)
    }
}

fn count(counts: &mut TaskCounts, status: TaskStatus) -> &mut u32 {
    match status {
        TaskStatus::Available => &mut counts.available,
        TaskStatus::Claimed => &mut counts.claimed,
        TaskStatus::Done => &mut counts.done,
        TaskStatus::Failed => &mut counts.failed,
        TaskStatus::Cancelled => &mut counts.cancelled,
    }
}

fn is_done(task: &Task) -> bool {
    task.status == TaskStatus::Done
}

fn is_done_item(task: &Task) -> bool {
    is_done(task) && matches!(task.source, TaskSource::TaskList { .. })
}

fn place(task: &Task) -> Place {
    (task.priority, task.created_at, task.id.clone())
}
