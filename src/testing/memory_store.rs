//! A store in memory that keeps the port's rules and fails when told to.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use crate::ports::{Appended, ErrorKind, Listing, PortError, PortResult, Record, Store};
use crate::store::sqlite::check_size;

/// What the next append does instead of working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refuses as if another writer had been first.
    Conflict,
    /// Appends, but the answer is lost.
    UnknownApplied,
    /// Does not append, and the answer is lost.
    UnknownLost,
    /// Fails before anything happened.
    Error(ErrorKind),
}

/// Cheap to clone; clones share the log.
#[derive(Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    log: Mutex<Log>,
    head: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    records: BTreeMap<u64, Record>,
    heads: BTreeMap<String, u64>,
    newest: u64,
    append_faults: VecDeque<Fault>,
    read_faults: VecDeque<ErrorKind>,
    closed: bool,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            log: Mutex::default(),
            head: watch::Sender::new(0),
        }
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a fault for an append to come.
    pub fn fail_append(&self, fault: Fault) {
        self.log().append_faults.push_back(fault);
    }

    /// Queues a fault for a `last`, `read` or `list` to come.
    pub fn fail_read(&self, kind: ErrorKind) {
        self.log().read_faults.push_back(kind);
    }

    /// Every later call fails and watches end with an error, as when a store goes away.
    pub fn set_closed(&self, closed: bool) {
        self.log().closed = closed;
        self.inner.head.send_modify(|_| {});
    }

    /// Drops every superseded record.
    pub fn compact(&self) {
        let mut log = self.log();
        let Log { records, heads, .. } = &mut *log;
        records.retain(|seq, record| heads.get(&record.subject) == Some(seq));
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.inner
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn reading(&self) -> PortResult<MutexGuard<'_, Log>> {
        let mut log = self.log();
        if let Some(kind) = log.read_faults.pop_front() {
            return Err(PortError::new(
                kind,
                "the memory store was told to fail a read",
            ));
        }
        log.open()?;
        Ok(log)
    }
}

impl Log {
    fn open(&self) -> PortResult<()> {
        if self.closed {
            return Err(PortError::new(
                ErrorKind::Transient,
                "the memory store is closed",
            ));
        }
        Ok(())
    }

    fn append(&mut self, subject: &str, expected: u64, data: &[u8]) -> Appended {
        let head = self.heads.get(subject).copied().unwrap_or(0);
        if head != expected {
            return Appended::Conflict;
        }
        self.newest += 1;
        let seq = self.newest;
        self.heads.insert(subject.to_owned(), seq);
        let record = Record {
            seq,
            subject: subject.to_owned(),
            data: data.to_vec(),
        };
        self.records.insert(seq, record);
        Appended::Ok(seq)
    }

    fn after(&self, after: u64, limit: usize) -> Vec<Record> {
        let later = (Bound::Excluded(after), Bound::Unbounded);
        let later = self.records.range(later);
        later
            .take(limit)
            .map(|(_, record)| record.clone())
            .collect()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn append_if(&self, subject: &str, expected: u64, data: &[u8]) -> PortResult<Appended> {
        check_size(subject, data)?;
        let mut log = self.log();
        log.open()?;
        let answer = match log.append_faults.pop_front() {
            None => log.append(subject, expected, data),
            Some(Fault::Conflict) => Appended::Conflict,
            Some(Fault::UnknownApplied) => {
                log.append(subject, expected, data);
                Appended::Unknown("told to lose the answer".to_owned())
            }
            Some(Fault::UnknownLost) => Appended::Unknown("told to lose the request".to_owned()),
            Some(Fault::Error(kind)) => {
                return Err(PortError::new(kind, "the memory store was told to fail"));
            }
        };
        let newest = log.newest;
        drop(log);
        self.inner.head.send_replace(newest);
        Ok(answer)
    }

    async fn last(&self, subject: &str) -> PortResult<Option<Record>> {
        let log = self.reading()?;
        let head = log.heads.get(subject);
        Ok(head.and_then(|seq| log.records.get(seq)).cloned())
    }

    async fn read(&self, after: u64, limit: usize) -> PortResult<Vec<Record>> {
        Ok(self.reading()?.after(after, limit))
    }

    async fn watch(&self, after: u64) -> PortResult<BoxStream<'static, PortResult<Record>>> {
        self.log().open()?;
        let state = (self.clone(), self.inner.head.subscribe(), after, false);
        Ok(
            stream::unfold(state, |(store, mut head, after, ended)| async move {
                if ended {
                    return None;
                }
                loop {
                    head.mark_unchanged();
                    let next = {
                        let log = store.log();
                        log.open().map(|()| log.after(after, 1).pop())
                    };
                    match next {
                        Ok(Some(record)) => {
                            let seq = record.seq;
                            return Some((Ok(record), (store, head, seq, false)));
                        }
                        Ok(None) => {}
                        Err(error) => return Some((Err(error), (store, head, after, true))),
                    }
                    // The sender lives in the store this stream holds; it cannot be gone.
                    head.changed().await.ok()?;
                }
            })
            .boxed(),
        )
    }

    async fn list(&self, prefix: &str) -> PortResult<Listing> {
        let log = self.reading()?;
        let heads = log.heads.range(prefix.to_owned()..);
        let records: Vec<PortResult<Record>> = heads
            .take_while(|(subject, _)| subject.starts_with(prefix))
            .filter_map(|(_, seq)| log.records.get(seq).cloned())
            .map(Ok)
            .collect();
        Ok(Listing {
            at: log.newest,
            records: stream::iter(records).boxed(),
        })
    }
}
