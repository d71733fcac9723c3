//! The embedded store: one SQLite file, WAL, `synchronous=FULL`, one writer thread with group
//! commit, readers on connections of their own.
//!
//! `facts/platform.md` A.3 and D.3 measured this shape: thousands of durable appends a second, no
//! acknowledged record lost in 20 kills of the writer.

mod answered;
mod copies;
mod error;
mod fleet;
mod listing;
mod readers;
mod retention;
mod schema;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rusqlite::{OptionalExtension, Row, params};

use crate::ports::store::{MAX_RECORD_BYTES, MAX_SUBJECT_BYTES};
use crate::ports::{Appended, ErrorKind, Listing, PortError, PortResult, Record, Store};

pub use copies::{Checked, CopyInfo, backup_file, check_file, restore_file};
pub use fleet::{Changes, Committed, FleetState, JournalEntry, LoadedState, STATE};
pub use schema::{SCHEMA_VERSION, set_aside};

use answered::Answered;
use readers::Readers;
use writer::{Job, Writer};

/// Most records one `read` returns, whatever the caller asks for.
pub const MAX_READ: usize = 10_000;

/// How a database file is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Upper bound of the file, in pages of 4,096 bytes (`PRAGMA max_page_count`). `None`: the disk.
    pub max_pages: Option<u32>,
    /// Jobs that may wait for the writer thread; more callers wait their turn.
    pub queue: usize,
    /// How far behind the newest record a superseded one is kept, in numbers; so at most as many
    /// are. The last record of a subject always stays.
    pub keep_records: u64,
    /// Journal rows kept.
    pub keep_journal: u64,
    /// Hook answers kept.
    pub keep_callbacks: u64,
    /// Hook answers older than this are dropped, in milliseconds.
    pub callback_age_ms: i64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            max_pages: None,
            queue: 1024,
            keep_records: 200_000,
            keep_journal: 100_000,
            keep_callbacks: 20_000,
            callback_age_ms: 7 * 24 * 60 * 60 * 1000,
        }
    }
}

/// A handle to the database; cheap to clone. The writer thread ends with the last clone, after it
/// has committed what was queued.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writer: Writer,
    readers: Arc<Readers>,
    answered: Arc<Answered>,
}

impl SqliteStore {
    /// Opens or creates the file with default options. See [`SqliteStore::open_with`].
    pub fn open(path: &Path) -> PortResult<Self> {
        Self::open_with(path, SqliteOptions::default())
    }

    /// Opens or creates the file, checks it and brings its tables up to date. Blocks for the check
    /// (`PRAGMA quick_check`, about a second per gigabyte).
    ///
    /// Refused, and left untouched: a damaged or empty file (`Broken`), a file of a newer version
    /// or of another program (`Refused`). [`set_aside`] moves such a file out of the way.
    pub fn open_with(path: &Path, options: SqliteOptions) -> PortResult<Self> {
        schema::prepare(path)?;
        let connection = schema::connect(path, options.max_pages)?;
        let answered = Answered::read(&connection, options.keep_callbacks)
            .map(Arc::new)
            .map_err(|error| error::port_error("read the callbacks", path, error))?;
        let writer = Writer::start(connection, path, &options, Arc::clone(&answered))?;
        let readers = Arc::new(Readers::new(path));
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                writer,
                readers,
                answered,
            }),
        })
    }

    /// What the supervisor had written, read beside a program that may be writing it; nothing is
    /// checked but whose file it is and its version, and nothing is changed. `None` when there is
    /// no file.
    pub fn peek(path: &Path) -> PortResult<Option<LoadedState>> {
        let Some(connection) = schema::peek(path)? else {
            return Ok(None);
        };
        fleet::load(&connection)
            .map(Some)
            .map_err(|error| error::port_error("read the store", path, error))
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The supervisor's own rows in the same file, through the same writer.
    pub fn fleet_state(&self) -> FleetState {
        FleetState::new(self.clone())
    }

    /// Drops superseded records beyond the retention now; the writer also does it by itself from
    /// time to time. Returns how many went.
    pub async fn compact(&self, keep_records: u64) -> PortResult<u64> {
        self.inner
            .writer
            .run(|reply| Job::Compact {
                keep: keep_records,
                reply,
            })
            .await
    }

    /// Writes a consistent copy of the whole database to `target`, which must not exist, while
    /// everything goes on. See [`backup_file`].
    pub async fn backup(&self, target: &Path) -> PortResult<CopyInfo> {
        let (source, target) = (self.path().to_owned(), target.to_owned());
        let copied = tokio::task::spawn_blocking(move || backup_file(&source, &target)).await;
        copied.unwrap_or_else(|error| Err(error::closed(self.path()).because(error)))
    }

    async fn read_with<T, F>(&self, what: &'static str, f: F) -> PortResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        Readers::run(Arc::clone(&self.inner.readers), what, f).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn append_if(&self, subject: &str, expected: u64, data: &[u8]) -> PortResult<Appended> {
        check_size(subject, data)?;
        let (subject, data) = (subject.to_owned(), data.to_vec());
        self.inner
            .writer
            .run(move |reply| Job::Append {
                subject,
                expected,
                data,
                reply,
            })
            .await
    }

    async fn last(&self, subject: &str) -> PortResult<Option<Record>> {
        let subject = subject.to_owned();
        self.read_with("read a record", move |connection| {
            connection
                .prepare_cached(
                    "SELECT r.seq, r.subject, r.data FROM heads h JOIN records r ON r.seq = h.seq \
                     WHERE h.subject = ?1",
                )?
                .query_row([subject], record)
                .optional()
        })
        .await
    }

    async fn read(&self, after: u64, limit: usize) -> PortResult<Vec<Record>> {
        let limit = limit.min(MAX_READ);
        self.read_with("read the log", move |connection| {
            connection
                .prepare_cached(
                    "SELECT seq, subject, data FROM records WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                )?
                .query_map(params![sql_seq(after), limit as i64], record)?
                .collect()
        })
        .await
    }

    async fn watch(&self, after: u64) -> PortResult<BoxStream<'static, PortResult<Record>>> {
        Ok(watch::stream(
            Arc::clone(&self.inner.readers),
            self.inner.writer.head(),
            after,
        ))
    }

    async fn list(&self, prefix: &str) -> PortResult<Listing> {
        listing::list(Arc::clone(&self.inner.readers), prefix).await
    }

    fn is_in(&self, database: &Path) -> bool {
        self.path() == database
    }
}

/// Refuses what another engine could not store.
pub(crate) fn check_size(subject: &str, data: &[u8]) -> PortResult<()> {
    if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
        return Err(PortError::new(
            ErrorKind::Refused,
            format!(
                "a subject of {} bytes was refused: 1 to {MAX_SUBJECT_BYTES} are allowed",
                subject.len()
            ),
        ));
    }
    if data.len() > MAX_RECORD_BYTES {
        return Err(PortError::new(
            ErrorKind::Refused,
            format!(
                "the record for `{subject}` has {} bytes; at most {MAX_RECORD_BYTES} are allowed",
                data.len()
            ),
        )
        .hint("put large content into a file or a commit and store its name"));
    }
    Ok(())
}

/// SQLite counts in `i64`; a larger expectation can match nothing.
fn sql_seq(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let seq: i64 = row.get(0)?;
    Ok(Record {
        seq: u64::try_from(seq).unwrap_or(0),
        subject: row.get(1)?,
        data: row.get(2)?,
    })
}

/// The smallest text above every text with this prefix; `None` when there is none.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}
