//! Claims through the port: of all who try, exactly one has a task, and knows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use orchestrator::coordination::{NewTask, Queue, TaskError};
use orchestrator::model::{AgentId, Incarnation, TaskContext, TaskId, TaskSource, Timestamp};
use orchestrator::ports::{
    Append, Appended, ErrorKind, Listing, PortError, PortResult, Record, Store,
};
use orchestrator::store::sqlite::{Changes, Committed, SqliteStore};
use orchestrator::testing::memory_store::MemoryStore;

use super::LONG;
use super::conformance::append;

const CLAIMERS: u32 = 16;
const QUEUES: usize = 4;
const LEASE: Duration = Duration::from_secs(3600);
const NOW: Timestamp = Timestamp(1000);

fn new_task(id: &str) -> NewTask {
    NewTask {
        id: TaskId::new(id),
        description: format!("do {id}"),
        priority: 0,
        owner: None,
        dependencies: Vec::new(),
        labels: Vec::new(),
        context: TaskContext::default(),
        scope: Vec::new(),
        source: TaskSource::Direct,
    }
}

/// Task → who believes to have it, and its fence.
type Won = Vec<(TaskId, AgentId, u64)>;

/// Takes what is best until nothing is left, as an agent does; all run for the same task at once.
async fn claim_all(queue: Queue, agent: AgentId) -> Result<Won> {
    let mut won = Won::new();
    loop {
        let Some(next) = queue.candidate_ids(&agent, 1).pop() else {
            return Ok(won);
        };
        match queue.claim(&next, &agent, Incarnation(1), NOW, LEASE).await {
            Ok(task) => {
                let fence = task.claim.context("claimed")?.fence;
                won.push((task.id, agent.clone(), fence));
            }
            Err(TaskError::Claimed { holder, .. }) => ensure!(holder != agent, "its own"),
            Err(other) => bail!("{other}: {:?}", other.kind()),
        }
    }
}

/// What everybody believes, against what the store says.
async fn each_has_one_winner(store: &dyn Store, won: Won, tasks: usize) -> Result<()> {
    let mut holders: BTreeMap<TaskId, (AgentId, u64)> = BTreeMap::new();
    for (id, agent, fence) in won {
        let before = holders.insert(id.clone(), (agent.clone(), fence));
        ensure!(before.is_none(), "{id}: {before:?} and {agent}");
    }
    assert_eq!(holders.len(), tasks, "each task has a winner");
    let stored = store.list("task/").await?.collect().await?;
    assert_eq!(stored.len(), tasks);
    for record in stored {
        let task: orchestrator::model::Task = serde_json::from_slice(&record.data)?;
        let claim = task.claim.context("claimed")?;
        assert_eq!(holders[&task.id], (claim.agent, claim.fence), "{}", task.id);
        assert_eq!(claim.fence, 1, "{}: claimed once", task.id);
    }
    Ok(())
}

/// Queues of their own on one store are what several processes are; each has several claimers.
async fn race(store: &Arc<dyn Store>, tasks: usize) -> Result<()> {
    let queue = Queue::open(Arc::clone(store)).await?;
    let new = (0..tasks).map(|n| new_task(&format!("t{n:05}"))).collect();
    queue.create_all(new, NOW).await?;
    let mut queues = Vec::new();
    for _ in 0..QUEUES {
        queues.push(Queue::open(Arc::clone(store)).await?);
    }
    let claimers: Vec<_> = (1..=CLAIMERS)
        .zip(queues.iter().cycle())
        .map(|(number, queue)| tokio::spawn(claim_all(queue.clone(), AgentId::worker(number))))
        .collect();
    let mut won = Won::new();
    for claimer in claimers {
        won.extend(claimer.await??);
    }
    each_has_one_winner(&**store, won, tasks).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_claimers_over_ten_thousand_tasks() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(&directory.path().join("store.db"))?;
    let store: Arc<dyn Store> = Arc::new(store);
    tokio::time::timeout(3 * LONG, race(&store, 10_000)).await?
}

/// Every one of them tries every one: 160,000 attempts on the bare port, and the driver's way, a
/// claim in the transaction of the decision, runs with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_racers_over_ten_thousand_subjects() -> Result<()> {
    const TASKS: u64 = 10_000;
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(&directory.path().join("store.db"))?;
    let mut creating = Vec::new();
    for n in 0..TASKS {
        let store = store.clone();
        creating.push(tokio::spawn(async move {
            let seq = append(&store, &format!("task/{n}"), 0, b"open").await?;
            Ok::<_, anyhow::Error>((format!("task/{n}"), seq))
        }));
    }
    let mut subjects = Vec::new();
    for created in creating {
        subjects.push(created.await??);
    }
    let subjects = Arc::new(subjects);
    let mut racers = Vec::new();
    for racer in 0..CLAIMERS as usize {
        let (store, subjects) = (store.clone(), Arc::clone(&subjects));
        racers.push(tokio::spawn(async move {
            let fleet = store.fleet_state();
            let data = vec![racer as u8];
            let mut won = Vec::new();
            for at in 0..subjects.len() {
                // Each begins elsewhere, and they meet all the time.
                let (subject, open) = &subjects[(at + racer * 7) % subjects.len()];
                let seq = if racer % 4 == 3 {
                    let append = Append {
                        subject: subject.clone(),
                        expected: *open,
                        data: data.clone(),
                    };
                    match fleet.commit_with(Changes::default(), vec![append]).await? {
                        Committed::All(seqs) => seqs.first().copied(),
                        Committed::Nothing => None,
                    }
                } else {
                    match store.append_if(subject, *open, &data).await? {
                        Appended::Ok(seq) => Some(seq),
                        Appended::Conflict => None,
                        Appended::Unknown(text) => bail!("{text}"),
                    }
                };
                won.extend(seq.map(|seq| (subject.clone(), seq)));
            }
            Ok((data, won))
        }));
    }
    let mut claims = BTreeMap::new();
    for racer in racers {
        let (data, won) = tokio::time::timeout(LONG, racer).await???;
        for (subject, seq) in won {
            let before = claims.insert(subject.clone(), (seq, data.clone()));
            ensure!(before.is_none(), "{subject} was won twice");
        }
    }
    assert_eq!(claims.len() as u64, TASKS);
    for record in store.list("task/").await?.collect().await? {
        assert_eq!(claims[&record.subject], (record.seq, record.data));
    }
    Ok(())
}

/// Loses answers as a network does, by a fixed pattern: of appends that were written, of appends
/// that were not, and of questions.
struct Lossy<S> {
    inner: S,
    calls: AtomicU64,
    lost: AtomicU64,
}

impl<S: Store> Lossy<S> {
    fn new(inner: S) -> Self {
        Self {
            inner,
            calls: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    fn next(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    fn lose(&self, what: &str) -> String {
        let text = format!("the answer about {what} was lost");
        self.lost.fetch_add(1, Ordering::Relaxed);
        text
    }

    fn question(&self, what: &str) -> PortResult<()> {
        if self.next() % 11 == 5 {
            return Err(PortError::new(ErrorKind::Transient, self.lose(what)));
        }
        Ok(())
    }
}

#[async_trait]
impl<S: Store> Store for Lossy<S> {
    async fn append_if(&self, subject: &str, expected: u64, data: &[u8]) -> PortResult<Appended> {
        match self.next() % 7 {
            2 => Ok(Appended::Unknown(self.lose(subject))),
            4 => {
                self.inner.append_if(subject, expected, data).await?;
                Ok(Appended::Unknown(self.lose(subject)))
            }
            _ => self.inner.append_if(subject, expected, data).await,
        }
    }

    async fn last(&self, subject: &str) -> PortResult<Option<Record>> {
        // The caller of a plain `last` may be told; only after an unknown outcome it must go on.
        self.inner.last(subject).await
    }

    async fn read(&self, after: u64, limit: usize) -> PortResult<Vec<Record>> {
        self.question("read")?;
        self.inner.read(after, limit).await
    }

    async fn watch(&self, after: u64) -> PortResult<BoxStream<'static, PortResult<Record>>> {
        self.question("watch")?;
        self.inner.watch(after).await
    }

    async fn list(&self, prefix: &str) -> PortResult<Listing> {
        self.inner.list(prefix).await
    }
}

/// Giving up on an unknown outcome is how a client once owned a task without knowing it.
async fn nobody_owns_a_task_unknowingly(store: impl Store + 'static) -> Result<()> {
    let store = Arc::new(Lossy::new(store));
    let shared: Arc<dyn Store> = store.clone();
    tokio::time::timeout(LONG, race(&shared, 300)).await??;
    let lost = store.lost.load(Ordering::Relaxed);
    ensure!(lost > 100, "only {lost} answers were lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_owns_a_task_unknowingly_in_memory() -> Result<()> {
    nobody_owns_a_task_unknowingly(MemoryStore::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_owns_a_task_unknowingly_on_sqlite() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(&directory.path().join("store.db"))?;
    nobody_owns_a_task_unknowingly(store).await
}
