//! The coordination store: one totally ordered log with one conditional append.
//!
//! Rules every adapter keeps (conformance suite in `tests/contract`): `seq` grows over all
//! subjects, may skip, is opaque, starts above 0; one record per append; `last` reads its own
//! writes; a record is at most [`MAX_RECORD_BYTES`].

use std::path::Path;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::PortResult;

/// 256 KB: the size all engines that were tried accept.
pub const MAX_RECORD_BYTES: usize = 256 * 1024;

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

    /// The last record of each subject that starts with `prefix`, by subject.
    async fn list(&self, prefix: &str) -> PortResult<Vec<Record>>;

    /// Are its records in this database file, so that a transaction there can append them as well?
    /// A store for several machines says no: then its appends and the rows of that file are written
    /// one after the other.
    fn is_in(&self, _database: &Path) -> bool {
        false
    }
}
