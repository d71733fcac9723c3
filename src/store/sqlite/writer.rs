//! The one thread that writes. It takes what waits, up to [`GROUP`] jobs, and commits it in one
//! transaction; every caller is answered after the commit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::answered::Answered;
use super::error::{closed, port_error};
use super::fleet::{self, Changes, Committed};
use super::{SqliteOptions, retention, sql_seq};
use crate::ports::{Append, Appended, ErrorKind, PortError, PortResult};

/// Jobs per transaction: 64 was measured (`facts/platform.md` D.3, "group ≤ 64").
const GROUP: usize = 64;

/// Transactions between two checkpoints, each of some ten pages: what SQLite does by itself after a
/// thousand, but then within a commit that somebody waits for.
const CHECKPOINT_EVERY: u32 = 100;

/// Appends between two looks at what may go: fewer than one look drops, so it keeps up.
const COMPACT_EVERY: u64 = 1_000;

type Reply<T> = oneshot::Sender<PortResult<T>>;

pub(super) enum Job {
    Append {
        subject: String,
        expected: u64,
        data: Vec<u8>,
        reply: Reply<Appended>,
    },
    Commit {
        changes: Changes,
        appends: Vec<Append>,
        reply: Reply<Committed>,
    },
    Compact {
        keep: u64,
        reply: Reply<u64>,
    },
}

/// What a job did inside the transaction that is not committed yet.
enum Done {
    Appended(Appended),
    Committed(Committed),
    Compacted(u64),
}

pub(super) struct Writer {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    head: watch::Receiver<u64>,
}

struct Thread {
    path: PathBuf,
    connection: Connection,
    options: SqliteOptions,
    jobs: mpsc::Receiver<Job>,
    head: watch::Sender<u64>,
    answered: Arc<Answered>,
    appends: u64,
    transactions: u32,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        path: &Path,
        options: &SqliteOptions,
        answered: Arc<Answered>,
    ) -> PortResult<Self> {
        let newest: i64 = connection
            .query_row("SELECT coalesce(max(seq), 0) FROM records", [], |row| {
                row.get(0)
            })
            .map_err(|error| port_error("read the log", path, error))?;
        let (jobs, queue) = mpsc::channel(options.queue.max(1));
        let (announce, head) = watch::channel(u64::try_from(newest).unwrap_or(0));
        let thread = Thread {
            path: path.to_owned(),
            connection,
            options: options.clone(),
            jobs: queue,
            head: announce,
            answered,
            appends: 0,
            transactions: 0,
        };
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| {
                PortError::new(
                    ErrorKind::Transient,
                    "could not start the store's writer thread",
                )
                .hint("the machine is out of threads or memory")
                .because(error)
            })?;
        Ok(Self {
            path: path.to_owned(),
            jobs,
            head,
        })
    }

    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// Queues a job and waits for its commit. A caller that stops waiting does not undo the job.
    pub(super) async fn run<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> PortResult<T> {
        let (reply, answer) = oneshot::channel();
        self.jobs
            .send(job(reply))
            .await
            .map_err(|_| closed(&self.path))?;
        answer.await.map_err(|_| closed(&self.path))?
    }
}

impl Thread {
    fn run(mut self) {
        let mut group = Vec::with_capacity(GROUP);
        while self.jobs.blocking_recv_many(&mut group, GROUP) > 0 {
            match self.transaction(&group) {
                Ok(done) => self.answer(group.drain(..), done),
                // After a failed commit nobody knows about any of them; running them again could
                // append twice.
                Err(failure) if failure.uncertain => {
                    let text = failure.error.to_string();
                    for job in group.drain(..) {
                        self.note_callbacks(&job);
                        lose(job, &self.path, &text);
                    }
                }
                // One bad job must not take its neighbours along: each on its own.
                Err(_) => {
                    for job in group.drain(..) {
                        match self.transaction(std::slice::from_ref(&job)) {
                            Ok(done) => self.answer(std::iter::once(job), done),
                            Err(failure) => {
                                self.note_callbacks(&job);
                                refuse(job, &self.path, failure);
                            }
                        }
                    }
                }
            }
            self.compact_now_and_then();
            self.checkpoint_now_and_then();
        }
    }

    fn transaction(&mut self, jobs: &[Job]) -> Result<Vec<Done>, Failure> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(Failure::before)?;
        let mut done = Vec::with_capacity(jobs.len());
        for job in jobs {
            let result = match job {
                Job::Append {
                    subject,
                    expected,
                    data,
                    ..
                } => append(&transaction, subject, *expected, data).map(Done::Appended),
                Job::Commit {
                    changes, appends, ..
                } => commit(&transaction, changes, appends, &self.options).map(Done::Committed),
                Job::Compact { keep, .. } => {
                    retention::compact(&transaction, *keep).map(Done::Compacted)
                }
            };
            done.push(result.map_err(Failure::before)?);
        }
        transaction.commit().map_err(Failure::at_commit)?;
        self.transactions += 1;
        Ok(done)
    }

    fn answer(&mut self, jobs: impl Iterator<Item = Job>, done: Vec<Done>) {
        let newest = done.iter().filter_map(|done| match done {
            Done::Appended(Appended::Ok(seq)) => Some(*seq),
            Done::Committed(Committed::All(appended)) => appended.last().copied(),
            _ => None,
        });
        if let Some(newest) = newest.max() {
            self.appends += done.len() as u64;
            self.head.send_replace(newest);
        }
        for (job, done) in jobs.zip(done) {
            self.note_callbacks(&job);
            // A caller that went away is no error: the change is committed all the same.
            let _gone = match (job, done) {
                (Job::Append { reply, .. }, Done::Appended(what)) => reply.send(Ok(what)).is_err(),
                (Job::Commit { reply, .. }, Done::Committed(what)) => reply.send(Ok(what)).is_err(),
                (Job::Compact { reply, .. }, Done::Compacted(n)) => reply.send(Ok(n)).is_err(),
                _ => false,
            };
        }
    }

    /// Before anybody is told: what is or may be in the file is looked up from now on.
    fn note_callbacks(&self, job: &Job) {
        if let Job::Commit { changes, .. } = job {
            for (id, ..) in &changes.callbacks {
                self.answered.add(id.as_str());
            }
        }
    }

    fn checkpoint_now_and_then(&mut self) {
        // Where the next job waits already, SQLite's own limit is the last word.
        if self.transactions < CHECKPOINT_EVERY || !self.jobs.is_empty() {
            return;
        }
        self.transactions = 0;
        let done = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::warn!(path = %self.path.display(), %error, "the store's log could not be checkpointed");
        }
    }

    fn compact_now_and_then(&mut self) {
        // Where the next job waits already, some time later.
        if self.appends < COMPACT_EVERY
            || (self.appends < 2 * COMPACT_EVERY && !self.jobs.is_empty())
        {
            return;
        }
        self.appends = 0;
        let keep = self.options.keep_records;
        let done = self.connection.transaction().and_then(|transaction| {
            retention::compact_some(&transaction, keep)?;
            transaction.commit()
        });
        if let Err(error) = done {
            tracing::warn!(path = %self.path.display(), %error, "the store's log could not be compacted");
        }
    }
}

/// A transaction that did not become durable.
struct Failure {
    error: rusqlite::Error,
    /// The commit itself failed with an I/O error: the log may or may not hold it after a crash.
    uncertain: bool,
}

impl Failure {
    fn before(error: rusqlite::Error) -> Self {
        Self {
            error,
            uncertain: false,
        }
    }

    fn at_commit(error: rusqlite::Error) -> Self {
        let uncertain = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
        Self { error, uncertain }
    }
}

fn refuse(job: Job, path: &Path, failure: Failure) {
    if failure.uncertain {
        return lose(job, path, &failure.error.to_string());
    }
    // A caller that went away is no error.
    let _gone = match job {
        Job::Append { reply, .. } => reply
            .send(Err(port_error("append a record", path, failure.error)))
            .is_err(),
        Job::Commit { reply, .. } => reply
            .send(Err(port_error(
                "save the fleet's state",
                path,
                failure.error,
            )))
            .is_err(),
        Job::Compact { reply, .. } => reply
            .send(Err(port_error("compact the log", path, failure.error)))
            .is_err(),
    };
}

/// The commit failed in a way that leaves its outcome open until the file is read again.
fn lose(job: Job, path: &Path, text: &str) {
    let unsure = |what: &str| {
        PortError::new(
            ErrorKind::Transient,
            format!(
                "could not {what} in {}: the disk reported an error: {text}",
                path.display()
            ),
        )
        .hint("check the disk and the kernel's log; the change may or may not be there")
    };
    let _gone = match job {
        Job::Append { reply, .. } => {
            let text = format!("the commit failed: {text}");
            reply.send(Ok(Appended::Unknown(text))).is_err()
        }
        Job::Commit { reply, .. } => reply.send(Err(unsure("save the fleet's state"))).is_err(),
        Job::Compact { reply, .. } => reply.send(Err(unsure("compact the log"))).is_err(),
    };
}

/// All of it or nothing: every expectation is looked at before anything is written.
fn commit(
    connection: &Connection,
    changes: &Changes,
    appends: &[Append],
    options: &SqliteOptions,
) -> rusqlite::Result<Committed> {
    for append in appends {
        if head(connection, &append.subject)? != sql_seq(append.expected) {
            return Ok(Committed::Nothing);
        }
    }
    let mut appended = Vec::with_capacity(appends.len());
    for append in appends {
        let previous = sql_seq(append.expected);
        appended.push(insert(connection, &append.subject, previous, &append.data)?);
    }
    fleet::write(connection, changes, options)?;
    Ok(Committed::All(appended))
}

fn append(
    connection: &Connection,
    subject: &str,
    expected: u64,
    data: &[u8],
) -> rusqlite::Result<Appended> {
    let previous = head(connection, subject)?;
    if previous != sql_seq(expected) {
        return Ok(Appended::Conflict);
    }
    insert(connection, subject, previous, data).map(Appended::Ok)
}

/// The number of the subject's last record; 0 if it has none.
fn head(connection: &Connection, subject: &str) -> rusqlite::Result<i64> {
    let head = connection
        .prepare_cached("SELECT seq FROM heads WHERE subject = ?1")?
        .query_row([subject], |row| row.get(0))
        .optional()?;
    Ok(head.unwrap_or(0))
}

/// `previous`: the number of the record it replaces.
fn insert(
    connection: &Connection,
    subject: &str,
    previous: i64,
    data: &[u8],
) -> rusqlite::Result<u64> {
    let seq = connection
        .prepare_cached("INSERT INTO records(subject, data) VALUES (?1, ?2)")?
        .insert(params![subject, data])?;
    connection
        .prepare_cached(
            "INSERT INTO heads(subject, seq) VALUES (?1, ?2) \
             ON CONFLICT(subject) DO UPDATE SET seq = excluded.seq",
        )?
        .execute(params![subject, seq])?;
    retention::supersede(connection, previous)?;
    Ok(u64::try_from(seq).unwrap_or(0))
}
