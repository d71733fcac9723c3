//! The coordination store: one totally ordered log with one conditional append.
//!
//! Rules every adapter keeps (conformance suite in `tests/contract`):
//!
//! - `seq` grows over all subjects, may skip, is opaque, starts above 0; one record per append.
//! - `last` reads its own writes; a record is at most [`MAX_RECORD_BYTES`], and may be empty.
//! - A subject is any text of 1 to [`MAX_SUBJECT_BYTES`] bytes; no character in it means anything
//!   to the engine.
//! - The log is bounded: a record that a later one of its subject has superseded may be gone from
//!   `read` and `watch` some time after. The last record of a subject never is, so `list` and then
//!   `watch` from [`Listing::at`] give the whole state, and a position however old is taken. An
//!   engine that refuses one (etcd: compacted) reads the newer last records in its place.

use std::path::Path;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;

use super::PortResult;

/// 256 KB: the size all engines that were tried accept.
pub const MAX_RECORD_BYTES: usize = 256 * 1024;

/// Longest subject, in bytes. Engines for several machines allow at least as much.
pub const MAX_SUBJECT_BYTES: usize = 512;

/// One record. `subject` is `/`-separated, for example `task/w1-3fa9`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub seq: u64,
    pub subject: String,
    pub data: Vec<u8>,
}

/// What `append_if` is told, for a transaction that holds more than the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub subject: String,
    /// The sequence number of the subject's last record (0: it has none).
    pub expected: u64,
    pub data: Vec<u8>,
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    Ok(u64),
    /// The subject's last record is not the expected one.
    Conflict,
    /// The engine did not say. Read `last` until it answers; never retry blindly.
    Unknown(String),
}

/// The last record of each subject that was asked for.
pub struct Listing {
    /// A position in the log: what was written up to it is in the listing, what was written after
    /// it is in `watch(at)`.
    pub at: u64,
    /// In no promised order. A subject that is written meanwhile may come with its older record,
    /// its newer one or both: the greatest number counts. A stream, because a million of them
    /// are no answer but a flow.
    pub records: BoxStream<'static, PortResult<Record>>,
}

impl Listing {
    /// All of it, by subject.
    pub async fn collect(self) -> PortResult<Vec<Record>> {
        let mut records: Vec<Record> = self.records.try_collect().await?;
        records.sort_by(|a, b| a.subject.cmp(&b.subject));
        Ok(records)
    }
}

#[async_trait]
pub trait Store: Send + Sync {
    /// Appends if `expected` is the sequence number of the subject's last record (0: it has none).
    async fn append_if(&self, subject: &str, expected: u64, data: &[u8]) -> PortResult<Appended>;

    /// The subject's last record, linearizable.
    async fn last(&self, subject: &str) -> PortResult<Option<Record>>;

    /// Records after `after`, all subjects, in order, at most `limit`.
    async fn read(&self, after: u64, limit: usize) -> PortResult<Vec<Record>>;

    /// `read`, then live, without a gap. Ends with an error when the store goes away.
    async fn watch(&self, after: u64) -> PortResult<BoxStream<'static, PortResult<Record>>>;

    /// The last record of each subject that starts with `prefix`.
    async fn list(&self, prefix: &str) -> PortResult<Listing>;

    /// Are its records in this database file, so that a transaction there can append them as well?
    /// A store for several machines says no: then its appends and the rows of that file are written
    /// one after the other.
    fn is_in(&self, _database: &Path) -> bool {
        false
    }
}
