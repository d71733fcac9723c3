//! The task queue of one process: a view fed by the store's `watch`, and changes that are one
//! conditional append each.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::rules::{self, Changed, Claimant, NewTask, Retry, TaskError};
use super::view::View;
use super::write::{self, Written};
use crate::model::listing::{FoundTask, TaskFilter, TaskPage};
use crate::model::view::TaskCounts;
use crate::model::{AgentId, AttemptNote, Incarnation, Receipt, Task, TaskId, Timestamp};
use crate::ports::{Append, Listing, PortResult, Record, Store};

/// Tasks are the subjects `task/<id>`.
pub const PREFIX: &str = "task/";

/// Most tasks `candidates` and `expired` give at once.
pub const MAX_CANDIDATES: usize = 64;

/// Lost races before a change gives up; each means that somebody else got on.
const MAX_RACES: u32 = 64;

/// Records of a list taken in without a pause.
const LISTED: usize = 256;

/// Between two tries to get the store back.
const RETRY: Duration = Duration::from_millis(500);

/// A task as a record: the task, and the operation that wrote it (`facts/platform.md` D.2, rule 2).
#[derive(Serialize)]
struct Stored<'a> {
    #[serde(flatten)]
    task: &'a Task,
    operation: &'a str,
}

/// A claim that is decided and not written: its record goes into a transaction that holds more.
#[derive(Clone, Debug)]
pub struct PreparedClaim {
    /// The task as it will be.
    pub task: Task,
    pub append: Append,
}

/// Cheap to clone. The informer ends with the last clone.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
    _informer: Arc<Informer>,
}

struct Shared {
    store: Arc<dyn Store>,
    view: RwLock<View>,
    changes: watch::Sender<u64>,
}

struct Informer(JoinHandle<()>);

impl Drop for Informer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Queue {
    /// Lists all tasks and follows the store from there on a task of the current runtime.
    pub async fn open(store: Arc<dyn Store>) -> PortResult<Self> {
        let shared = Arc::new(Shared {
            store,
            view: RwLock::default(),
            changes: watch::Sender::new(0),
        });
        let listed = shared.relist().await?;
        let informer = tokio::spawn(Arc::clone(&shared).follow(listed));
        Ok(Self {
            shared,
            _informer: Arc::new(Informer(informer)),
        })
    }

    /// Creates one task. Its dependencies must exist.
    pub async fn create(&self, new: NewTask, now: Timestamp) -> Result<Task, TaskError> {
        let mut created = self.create_all(vec![new], now).await?;
        created.pop().ok_or_else(|| TaskError::Invalid {
            task: TaskId::new(""),
            problem: "nothing was created".to_owned(),
        })
    }

    /// Creates several tasks that may depend on each other, dependencies first. Everything is
    /// checked before the first one is written; a task written by somebody else meanwhile ends it
    /// with [`TaskError::AlreadyExists`], and those before it stay.
    pub async fn create_all(
        &self,
        new: Vec<NewTask>,
        now: Timestamp,
    ) -> Result<Vec<Task>, TaskError> {
        let together: BTreeSet<&TaskId> = new.iter().map(|task| &task.id).collect();
        let needed: BTreeSet<&TaskId> = new.iter().flat_map(|task| &task.dependencies).collect();
        for dependency in needed.difference(&together) {
            // Another process may have created one that this view has not seen yet.
            if self.get(dependency).is_none() {
                self.refresh(dependency).await?;
            }
        }
        let order = rules::order(&new, &|id| self.get(id).is_some())?;
        let mut tasks = Vec::with_capacity(new.len());
        for at in order {
            let task = rules::create(&new[at], now)?;
            if self.get(&task.id).is_some() {
                return Err(TaskError::AlreadyExists(task.id));
            }
            tasks.push(task);
        }
        for task in &tasks {
            if !self.write(0, task).await? {
                self.refresh(&task.id).await?;
                return Err(TaskError::AlreadyExists(task.id.clone()));
            }
        }
        Ok(tasks)
    }

    /// Exactly one of all who try gets the task. The fence is in the task's claim; show it at
    /// renew, complete, fail, release, push and merge.
    pub async fn claim(
        &self,
        id: &TaskId,
        agent: &AgentId,
        incarnation: Incarnation,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Task, TaskError> {
        let who = Claimant {
            agent,
            incarnation,
            lease,
        };
        let decide = |task: &Task| rules::claim(task, who, self.view().unmet(task), now);
        self.change(id, &decide).await
    }

    /// [`Self::claim`] up to its append, by what this view knows. `None` where only `claim` can
    /// tell what becomes of it.
    pub fn prepare_claim(
        &self,
        id: &TaskId,
        agent: &AgentId,
        incarnation: Incarnation,
        now: Timestamp,
        lease: Duration,
    ) -> Option<PreparedClaim> {
        let who = Claimant {
            agent,
            incarnation,
            lease,
        };
        let view = self.view();
        let entry = view.get(id)?;
        let claimed = rules::claim(&entry.task, who, view.unmet(&entry.task), now);
        let task = claimed.ok().flatten()?;
        let append = Append {
            subject: subject(id),
            expected: entry.seq,
            data: record_of(&task, &write::operation()).ok()?,
        };
        Some(PreparedClaim { task, append })
    }

    /// The record of a prepared claim was appended with this number: the view contains it.
    pub fn note_claim(&self, claim: PreparedClaim, seq: u64) {
        self.shared.put(seq, claim.task);
    }

    /// Whether its records can be appended in a transaction of this database file.
    pub fn is_in(&self, database: &Path) -> bool {
        self.shared.store.is_in(database)
    }

    pub async fn renew(
        &self,
        id: &TaskId,
        fence: u64,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Task, TaskError> {
        self.change(id, &|task| rules::renew(task, fence, lease, now))
            .await
    }

    pub async fn complete(
        &self,
        id: &TaskId,
        fence: u64,
        result: &str,
        receipt: Option<&Receipt>,
        now: Timestamp,
    ) -> Result<Task, TaskError> {
        self.change(id, &|task| {
            rules::complete(task, fence, result, receipt, now)
        })
        .await
    }

    pub async fn fail(
        &self,
        id: &TaskId,
        fence: u64,
        reason: &str,
        retry: Retry,
        now: Timestamp,
    ) -> Result<Task, TaskError> {
        self.change(id, &|task| rules::fail(task, fence, reason, retry, now))
            .await
    }

    pub async fn release(
        &self,
        id: &TaskId,
        fence: u64,
        cause: &str,
        now: Timestamp,
    ) -> Result<Task, TaskError> {
        self.change(id, &|task| rules::release(task, fence, cause, now))
            .await
    }

    /// The holder tried and failed, by a cause of the task's own: available again while fewer than
    /// `limit` attempts have failed, failed after that.
    pub async fn give_up(
        &self,
        id: &TaskId,
        fence: u64,
        cause: &str,
        limit: u32,
        now: Timestamp,
    ) -> Result<Task, TaskError> {
        self.change(id, &|task| rules::give_up(task, fence, cause, limit, now))
            .await
    }

    /// Keeps what is told of attempts under a claim that goes on. Costs nothing where all is known.
    pub async fn note(
        &self,
        id: &TaskId,
        fence: u64,
        incarnation: Incarnation,
        past: &[AttemptNote],
        now: Timestamp,
    ) -> Result<(), TaskError> {
        let decide = |task: &Task| rules::note(task, fence, incarnation, past, now);
        let known = self
            .get(id)
            .is_some_and(|task| matches!(decide(&task), Ok(None)));
        if !known {
            self.change(id, &decide).await?;
        }
        Ok(())
    }

    /// Asks for a finished task again.
    pub async fn reopen(&self, id: &TaskId, now: Timestamp) -> Result<Task, TaskError> {
        self.change(id, &|task| rules::reopen(task, task.priority, now))
            .await
    }

    /// To be asked before a push or a merge: refuses a claim that was overtaken, by what the store
    /// says now.
    pub async fn check(&self, id: &TaskId, fence: u64) -> Result<Task, TaskError> {
        self.refresh(id).await?;
        let task = self
            .get(id)
            .ok_or_else(|| TaskError::NotFound(id.clone()))?;
        rules::check(&task, fence)?;
        Ok(task)
    }

    /// Ends a task that is not finished, claimed or not.
    pub async fn cancel(
        &self,
        id: &TaskId,
        reason: &str,
        now: Timestamp,
    ) -> Result<Task, TaskError> {
        self.change(id, &|task| rules::cancel(task, reason, now))
            .await
    }

    /// What the agent may claim now, best first; at most [`MAX_CANDIDATES`].
    pub fn candidates(&self, agent: &AgentId) -> Vec<Task> {
        self.view().candidates(agent, MAX_CANDIDATES)
    }

    /// Their ids alone, at most `limit`.
    pub fn candidate_ids(&self, agent: &AgentId, limit: usize) -> Vec<TaskId> {
        self.view().candidate_ids(agent, limit)
    }

    /// How many tasks wait for the agent, without a bound.
    pub fn ready_count(&self, agent: &AgentId) -> usize {
        self.view().ready_count(agent)
    }

    /// Claimed tasks whose lease has run out; at most [`MAX_CANDIDATES`].
    pub fn expired(&self, now: Timestamp) -> Vec<Task> {
        self.view().expired(now, MAX_CANDIDATES)
    }

    /// Every claimed task, by the end of its lease: as many as there are agents at work.
    pub fn claimed(&self) -> Vec<Task> {
        self.view()
            .claimed()
            .map(|task| Task::clone(task))
            .collect()
    }

    /// When the next lease runs out.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.view().next_expiry()
    }

    pub fn get(&self, id: &TaskId) -> Option<Task> {
        self.view().get(id).map(|entry| Task::clone(&entry.task))
    }

    /// Open tasks that cannot begin before this one is done, directly or by others between them.
    pub fn dependents(&self, id: &TaskId) -> Vec<TaskId> {
        self.view().dependents(id)
    }

    /// Tasks as people and scripts are shown them.
    pub fn page(&self, filter: &TaskFilter) -> TaskPage {
        self.view().page(filter)
    }

    /// Everything about one task, or the ids most like the one that is not there.
    pub fn find(&self, id: &TaskId) -> FoundTask {
        let view = self.view();
        match view.report(id) {
            Some(report) => FoundTask::Known(Box::new(report)),
            None => FoundTask::Unknown {
                nearest: view.nearest(id),
            },
        }
    }

    /// Every known task, by id. As long as the queue: for tests and small fleets.
    pub fn all(&self) -> Vec<Task> {
        self.view().tasks().map(|task| Task::clone(task)).collect()
    }

    /// The finished tasks that came from task lists, by id.
    pub fn done_items(&self) -> Vec<Arc<Task>> {
        self.view().done_items().cloned().collect()
    }

    pub fn by_status(&self) -> TaskCounts {
        self.view().counts()
    }

    /// As [`Self::by_status`], without the manager's own tasks.
    pub fn worker_counts(&self) -> TaskCounts {
        self.view().worker_counts()
    }

    /// Moves with each change of the view, whoever made it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Reads the task, decides, appends; again after a lost race. A refusal is given only on what
    /// the store says now, never on an old view.
    pub(super) async fn change(
        &self,
        id: &TaskId,
        decide: &(dyn Fn(&Task) -> Changed + Sync),
    ) -> Result<Task, TaskError> {
        let mut fresh = false;
        for _ in 0..MAX_RACES {
            let entry = self.view().get(id).cloned();
            let decided = entry.as_ref().map(|entry| decide(&entry.task));
            match (entry, decided) {
                (Some(entry), Some(Ok(Some(next)))) => {
                    if self.write(entry.seq, &next).await? {
                        return Ok(next);
                    }
                    self.refresh(id).await?;
                    fresh = true;
                }
                (Some(entry), Some(Ok(None))) if fresh => return Ok(Task::clone(&entry.task)),
                (_, Some(Err(refused))) if fresh => return Err(refused),
                (None, _) if fresh => return Err(TaskError::NotFound(id.clone())),
                _ => {
                    self.refresh(id).await?;
                    fresh = true;
                }
            }
        }
        Err(TaskError::Unknown {
            task: id.clone(),
            text: format!("{MAX_RACES} other changes came first; try again"),
        })
    }

    /// True if written, false if somebody else was first. The view contains what was written.
    async fn write(&self, expected: u64, task: &Task) -> Result<bool, TaskError> {
        let operation = write::operation();
        let data = record_of(task, &operation)?;
        let subject = subject(&task.id);
        let written =
            write::append(&*self.shared.store, &subject, expected, &data, &operation).await?;
        match written {
            Written::At(seq) => {
                self.shared.put(seq, task.clone());
                Ok(true)
            }
            Written::Superseded => {
                self.refresh(&task.id).await?;
                Ok(true)
            }
            Written::Conflict => Ok(false),
            Written::Unknown(text) => Err(TaskError::Unknown {
                task: task.id.clone(),
                text,
            }),
        }
    }

    /// The view has what the store says of the task now.
    pub async fn refresh(&self, id: &TaskId) -> PortResult<()> {
        if let Some(record) = self.shared.store.last(&subject(id)).await? {
            self.shared.take(record);
        }
        Ok(())
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.shared
            .view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Takes in the newest state of every task. Returns where a watch goes on: the position of the
    /// list, not of the view, which our own later writes may have moved past others.
    async fn relist(&self) -> PortResult<u64> {
        let Listing { at, records } = self.store.list(PREFIX).await?;
        let mut batches = records.ready_chunks(LISTED);
        while let Some(batch) = batches.next().await {
            for record in batch {
                self.take(record?);
            }
            // Thousands of tasks are some work: others get their turn.
            tokio::task::yield_now().await;
        }
        Ok(at)
    }

    /// Follows the log for ever; when the store goes away, waits for it and lists anew.
    async fn follow(self: Arc<Self>, mut after: u64) {
        loop {
            if let Err(error) = self.follow_from(after).await {
                tracing::warn!(error = %error.chain(), "the task queue lost the store; trying again");
            }
            tokio::time::sleep(RETRY).await;
            match self.relist().await {
                Ok(listed) => after = listed,
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "the store is still away");
                }
            }
        }
    }

    async fn follow_from(&self, after: u64) -> PortResult<()> {
        let mut records = self.store.watch(after).await?;
        while let Some(record) = records.next().await {
            let record = record?;
            if record.subject.starts_with(PREFIX) {
                self.take(record);
            }
        }
        Ok(())
    }

    fn take(&self, record: Record) {
        match serde_json::from_slice::<Task>(&record.data) {
            Ok(task) if subject(&task.id) == record.subject => self.put(record.seq, task),
            Ok(task) => {
                tracing::error!(subject = %record.subject, id = %task.id, "a task record under another task's subject was ignored");
            }
            Err(error) => {
                tracing::error!(subject = %record.subject, seq = record.seq, %error, "a task record cannot be read and was ignored");
            }
        }
    }

    fn put(&self, seq: u64, task: Task) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let changed = view.put(seq, task);
        drop(view);
        if changed {
            self.changes.send_modify(|generation| *generation += 1);
        }
    }
}

fn record_of(task: &Task, operation: &str) -> Result<Vec<u8>, TaskError> {
    serde_json::to_vec(&Stored { task, operation }).map_err(|error| TaskError::Invalid {
        task: task.id.clone(),
        problem: format!("it cannot be written as JSON: {error}"),
    })
}

fn subject(id: &TaskId) -> String {
    format!("{PREFIX}{id}")
}
