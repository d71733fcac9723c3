//! Copies of a database file: made while it is in use, checked, and put back in its place.
//!
//! All of it works on files and needs no running store, so that the command line can do it beside
//! a supervisor, or without one. Blocks.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode};

use super::error::port_error;
use super::schema::{self, SCHEMA_VERSION, io_error, move_aside, sync_directory, with_suffix};
use crate::ports::{ErrorKind, PortError, PortResult};

/// How long a copy waits for a lock that another process holds.
const LOCKED: Duration = Duration::from_secs(30);
/// Between two tries to get it.
const AGAIN: Duration = Duration::from_millis(50);

/// Problems that are named; of more only these.
const MOST_PROBLEMS: usize = 20;

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyInfo {
    pub bytes: u64,
    pub schema: i64,
    /// Subjects with a record: tasks, and what was seen of task lists.
    pub subjects: u64,
    /// What was in its place and lies beside it now; of a restore alone.
    pub replaced: Option<PathBuf>,
}

/// What a look at every page of a file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub bytes: u64,
    /// The numbers are 0 where the damage hides them.
    pub schema: i64,
    pub subjects: u64,
    pub records: u64,
    pub journal: u64,
    /// Empty: nothing is wrong.
    pub problems: Vec<String>,
}

/// Writes a consistent copy to `target`, which must not exist, of a file that may be in use: what
/// was committed before it began is in it, and nobody waits for it. The copy appears whole, checked
/// and synced, or not at all; only its owner may read it.
pub fn backup_file(source: &Path, target: &Path) -> PortResult<CopyInfo> {
    if fs::symlink_metadata(target).is_ok() {
        return Err(exists(target));
    }
    let from = opened(source)?;
    let draft = Draft::new(target)?;
    copy(&from, source, &draft.0, target)?;
    let checked = check_file(&draft.0)?;
    if let Some(problem) = checked.problems.first() {
        return Err(schema::damaged(source, problem));
    }
    fs::File::open(&draft.0)
        .and_then(|file| file.sync_all())
        .map_err(|error| io_error("make durable", &draft.0, error))?;
    // Refuses to replace a file that appeared meanwhile.
    match fs::hard_link(&draft.0, target) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(target)),
        Err(error) => return Err(io_error("create", target, error)),
    }
    drop(draft);
    sync_directory(target)?;
    Ok(CopyInfo {
        bytes: checked.bytes,
        schema: checked.schema,
        subjects: checked.subjects,
        replaced: None,
    })
}

/// Looks at every page of a file that may be in use, and whether its tables agree. An error means
/// that it could not be looked at: it is no file of ours, a newer one, or unreadable from its first
/// page on.
pub fn check_file(path: &Path) -> PortResult<Checked> {
    let connection = opened(path)?;
    let look = || -> rusqlite::Result<Checked> {
        let snapshot = connection.unchecked_transaction()?;
        let count = |sql: &str| -> rusqlite::Result<u64> {
            let count: i64 = snapshot.query_row(sql, [], |row| row.get(0))?;
            Ok(u64::try_from(count).unwrap_or(0))
        };
        let schema = snapshot.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let mut problems = integrity(&snapshot)?;
        if problems.is_empty() {
            problems = disagreements(&count, schema)?;
        }
        let whole = problems.is_empty();
        let counted = |sql: &str| if whole { count(sql) } else { Ok(0) };
        Ok(Checked {
            bytes: count("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?,
            schema,
            subjects: counted("SELECT count(*) FROM heads")?,
            records: counted("SELECT count(*) FROM records")?,
            journal: counted("SELECT count(*) FROM journal")?,
            problems,
        })
    };
    match look() {
        Ok(checked) => Ok(checked),
        // The look itself came to where it could not go on.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            let found = fs::metadata(path).map_err(|error| io_error("look at", path, error))?;
            Ok(Checked {
                bytes: found.len(),
                schema: 0,
                subjects: 0,
                records: 0,
                journal: 0,
                problems: vec![error.to_string()],
            })
        }
        Err(error) => Err(port_error("check the store", path, error)),
    }
}

/// Puts a copy of `backup` in the place of `path`. What is there, whole or damaged, is kept beside
/// it under another name. Nobody may have the store open; the caller sees to that. A crash leaves
/// the old file, the new one, or neither and a start that is refused until this is done again.
pub fn restore_file(backup: &Path, path: &Path) -> PortResult<CopyInfo> {
    let checked = check_file(backup)?;
    if let Some(problem) = checked.problems.first() {
        return Err(PortError::new(
            ErrorKind::Broken,
            format!("the backup {} is damaged: {problem}", backup.display()),
        )
        .hint("take another one; nothing was changed"));
    }
    let fresh = schema::being_restored(path);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &fresh, error));
        }
        _ => {}
    }
    let copied = backup_file(backup, &fresh)?;
    let is_there = |suffix: &str| fs::symlink_metadata(with_suffix(path, suffix)).is_ok();
    let replaced = if ["", "-wal", "-shm"].into_iter().any(is_there) {
        Some(move_aside(path, "replaced")?)
    } else {
        None
    };
    fs::rename(&fresh, path).map_err(|error| io_error("put in place", path, error))?;
    sync_directory(path)?;
    Ok(CopyInfo { replaced, ..copied })
}

fn opened(path: &Path) -> PortResult<Connection> {
    schema::peek(path)?.ok_or_else(|| {
        PortError::new(
            ErrorKind::NotFound,
            format!("there is no file {}", path.display()),
        )
    })
}

/// In one step, and so within one read transaction: one that lets go between its steps begins anew
/// with each commit of another process, for ever beside a busy one.
fn copy(from: &Connection, source: &Path, draft: &Path, target: &Path) -> PortResult<()> {
    let run = || -> rusqlite::Result<StepResult> {
        let mut to = Connection::open(draft)?;
        let backup = Backup::new(from, &mut to)?;
        let deadline = Instant::now() + LOCKED;
        let mut done = backup.step(-1)?;
        while matches!(done, StepResult::Busy | StepResult::Locked) && Instant::now() < deadline {
            std::thread::sleep(AGAIN);
            done = backup.step(-1)?;
        }
        drop(backup);
        // One file, with nothing beside it.
        to.pragma_update(None, "journal_mode", "DELETE")?;
        to.close().map_err(|(_, error)| error)?;
        Ok(done)
    };
    match run() {
        Ok(StepResult::Done) => Ok(()),
        Ok(_) => Err(PortError::new(
            ErrorKind::Transient,
            format!("{} is locked by another process", source.display()),
        )
        .hint("close other programs that have it open")),
        Err(error) => Err(port_error("write a copy of the store", target, error)),
    }
}

fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut found: Vec<String> = connection
        .prepare(&format!("PRAGMA integrity_check({MOST_PROBLEMS})"))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    found.retain(|line| line != "ok");
    Ok(found)
}

/// What SQLite cannot know: the tables that tell the same thing twice must tell the same.
fn disagreements(
    count: &dyn Fn(&str) -> rusqlite::Result<u64>,
    schema: i64,
) -> rusqlite::Result<Vec<String>> {
    let mut problems = Vec::new();
    let lost = count(
        "SELECT count(*) FROM heads h LEFT JOIN records r ON r.seq = h.seq AND r.subject = h.subject \
         WHERE r.seq IS NULL",
    )?;
    if lost > 0 {
        problems.push(format!("{lost} subjects have lost their last record"));
    }
    if schema >= SCHEMA_VERSION {
        let astray = count(
            "SELECT count(*) FROM records r WHERE (r.seq IN (SELECT seq FROM heads)) \
             = (r.seq IN (SELECT seq FROM superseded))",
        )?;
        if astray > 0 {
            problems.push(format!(
                "{astray} records are both the last of their subject and superseded, or neither"
            ));
        }
    }
    Ok(problems)
}

fn exists(target: &Path) -> PortError {
    PortError::new(
        ErrorKind::AlreadyExists,
        format!("{} exists already", target.display()),
    )
    .hint("choose another name, or remove it first")
}

/// A file that goes with this value.
struct Draft(PathBuf);

impl Draft {
    /// Beside `target`, so that it can be given that name.
    fn new(target: &Path) -> PortResult<Self> {
        let draft = Self(with_suffix(
            target,
            &format!(".partial-{}", std::process::id()),
        ));
        draft.remove();
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft.0)
            .map_err(|error| io_error("create", &draft.0, error))?;
        Ok(draft)
    }

    fn remove(&self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let file = with_suffix(&self.0, suffix);
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %file.display(), %error, "a draft could not be removed");
                }
                _ => {}
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.remove();
    }
}
