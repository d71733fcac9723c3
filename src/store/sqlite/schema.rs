//! Opening a file: what is damaged, foreign or newer is refused and left as it is; a new file
//! appears complete or not at all.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{damaged_hint, port_error};
use crate::ports::{ErrorKind, PortError, PortResult};

/// "orch" in the SQLite header, so that a foreign database is told from an old one.
const APPLICATION_ID: i32 = 0x6f72_6368;

/// The numbered migrations: entry `n` brings a file from version `n` to `n + 1`. Only ever append.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE records(
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        subject TEXT NOT NULL,
        data BLOB NOT NULL
    );
    -- The last record of each subject: makes the conditional append and `list` independent of the
    -- length of the log.
    CREATE TABLE heads(subject TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE) WITHOUT ROWID;

    CREATE TABLE agent_state(id TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE callbacks(
        id TEXT PRIMARY KEY, agent TEXT NOT NULL, at INTEGER NOT NULL, answer TEXT NOT NULL
    );
    CREATE INDEX callbacks_by_age ON callbacks(at);
    CREATE TABLE journal(
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL, agent TEXT, kind TEXT NOT NULL, json TEXT NOT NULL
    );
    CREATE INDEX journal_by_agent ON journal(agent, seq);
",
    "
    -- The records that are the last of no subject any more: what retention may drop, and what a
    -- listing passes over.
    CREATE TABLE superseded(seq INTEGER PRIMARY KEY);
    INSERT INTO superseded(seq) SELECT seq FROM records WHERE seq NOT IN (SELECT seq FROM heads);
",
];

/// The version this program writes (`PRAGMA user_version`).
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// Waits for locks of other processes at most this long.
const BUSY: Duration = Duration::from_secs(5);

/// Checks an existing file, or makes a new one beside it and renames it into place.
pub(super) fn prepare(path: &Path) -> PortResult<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.len() == 0 => Err(damaged(path, "it is empty (0 bytes)")),
        Ok(_) => check_and_migrate(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(error) => Err(io_error("look at", path, error)),
    }
}

/// A connection for one thread, on a file that [`prepare`] accepted.
pub(super) fn connect(path: &Path, max_pages: Option<u32>) -> PortResult<Connection> {
    let open = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Pages. The writer checkpoints earlier, when nobody waits; this is for a writer without rest.
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        // Back to this size after a checkpoint, so that one burst does not keep the disk.
        connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        if let Some(pages) = max_pages {
            connection.pragma_update(None, "max_page_count", pages)?;
        }
        Ok(connection)
    };
    open().map_err(|error| port_error("open the store", path, error))
}

/// Moves a file that cannot be used, with its `-wal` and `-shm`, to `<name>.damaged-<n>`. Only on
/// a person's explicit wish; nothing calls it by itself. Returns the new name.
pub fn set_aside(path: &Path) -> PortResult<PathBuf> {
    move_aside(path, "damaged")
}

/// To `<name>.<why>-<n>`.
pub(super) fn move_aside(path: &Path, why: &str) -> PortResult<PathBuf> {
    let target = (1..1000)
        .map(|n| with_suffix(path, &format!(".{why}-{n}")))
        .find(|candidate| {
            let free = |suffix| fs::symlink_metadata(with_suffix(candidate, suffix)).is_err();
            ["", "-wal", "-shm"].into_iter().all(free)
        })
        .ok_or_else(|| {
            PortError::new(
                ErrorKind::Refused,
                format!("999 {why} copies of {} lie there already", path.display()),
            )
            .hint("move them away first")
        })?;
    // The file first: one that has lost its log would look whole.
    for suffix in ["", "-wal", "-shm"] {
        let from = with_suffix(path, suffix);
        match fs::rename(&from, with_suffix(&target, suffix)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("move aside", &from, error)),
        }
    }
    Ok(target)
}

/// Where a backup waits to be put in the place of `path`.
pub(super) fn being_restored(path: &Path) -> PathBuf {
    with_suffix(path, ".restoring")
}

fn create(path: &Path) -> PortResult<()> {
    let wal = with_suffix(path, "-wal");
    if fs::symlink_metadata(&wal).is_ok_and(|found| found.len() > 0) {
        return Err(PortError::new(
            ErrorKind::Broken,
            format!(
                "the store {} is gone but its write-ahead log {} is still there",
                path.display(),
                wal.display()
            ),
        )
        .hint(damaged_hint(path)));
    }
    if fs::symlink_metadata(being_restored(path)).is_ok() {
        return Err(PortError::new(
            ErrorKind::Broken,
            format!(
                "the store {} is gone: a backup was being put in its place",
                path.display()
            ),
        )
        .hint("run `orchestrator state restore` again; the old file lies beside it"));
    }
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(|e| io_error("create", directory, e))?;
    }
    let fresh = with_suffix(path, &format!(".new-{}", std::process::id()));
    for suffix in ["", "-wal", "-shm", "-journal"] {
        match fs::remove_file(with_suffix(&fresh, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &fresh, error));
            }
            _ => {}
        }
    }
    let build = || -> rusqlite::Result<()> {
        let connection = Connection::open(&fresh)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        migrate(&connection, 0)?;
        connection.close().map_err(|(_, error)| error)
    };
    build().map_err(|error| port_error("create the store", path, error))?;
    // `hard_link` refuses to replace a file that appeared meanwhile.
    let placed = fs::hard_link(&fresh, path);
    let removed = fs::remove_file(&fresh);
    match placed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return check_and_migrate(path);
        }
        Err(error) => return Err(io_error("create", path, error)),
    }
    removed.map_err(|error| io_error("remove", &fresh, error))?;
    sync_directory(path)
}

/// Makes the file's name durable.
pub(super) fn sync_directory(path: &Path) -> PortResult<()> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| io_error("make durable", directory, error))
}

fn check_and_migrate(path: &Path) -> PortResult<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|error| port_error("open the store", path, error))?;
    let look = || -> rusqlite::Result<(i32, i64, Option<String>)> {
        connection.busy_timeout(BUSY)?;
        // A refused file stays byte for byte what it was: closing must not fold the log into it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let application: i32 =
            connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let verdict: String =
            connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        let problem = (verdict != "ok").then_some(verdict);
        Ok((application, version, problem))
    };
    let (application, version, problem) = match look() {
        Ok(found) => found,
        Err(error) => return Err(port_error("check the store", path, error)),
    };
    if let Some(problem) = problem {
        return Err(damaged(path, &problem));
    }
    ours(path, application, version)?;
    if version < SCHEMA_VERSION {
        migrate(&connection, version)
            .map_err(|error| port_error("migrate the store", path, error))?;
    }
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map_err(|error| port_error("open the store", path, error))?;
    Ok(())
}

/// A connection that only reads, on a file that may be in use. `None` when there is none.
pub(super) fn peek(path: &Path) -> PortResult<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    let look = || -> rusqlite::Result<(Connection, i32, i64)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        let application = connection.pragma_query_value(None, "application_id", |r| r.get(0))?;
        let version = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
        Ok((connection, application, version))
    };
    let (connection, application, version) =
        look().map_err(|error| port_error("check the store", path, error))?;
    ours(path, application, version)?;
    Ok(Some(connection))
}

/// Is it a file of this program, and not one of a newer version of it?
fn ours(path: &Path, application: i32, version: i64) -> PortResult<()> {
    if application != APPLICATION_ID {
        return Err(PortError::new(
            ErrorKind::Refused,
            format!("{} is a database of another program", path.display()),
        )
        .hint("name another file for the store"));
    }
    if version > SCHEMA_VERSION {
        return Err(PortError::new(
            ErrorKind::Refused,
            format!(
                "the store {} has schema version {version}; this program knows versions up to \
                 {SCHEMA_VERSION}",
                path.display()
            ),
        )
        .hint("start the newer version of the program that wrote it; nothing was changed"));
    }
    Ok(())
}

/// Every step and its number in one transaction: a crash leaves the old version.
fn migrate(connection: &Connection, from: i64) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    for step in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

pub(super) fn damaged(path: &Path, problem: &str) -> PortError {
    PortError::new(
        ErrorKind::Broken,
        format!("the store {} is damaged: {problem}", path.display()),
    )
    .hint(damaged_hint(path))
}

pub(super) fn io_error(what: &str, path: &Path, error: io::Error) -> PortError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Transient,
        _ => ErrorKind::Refused,
    };
    PortError::new(kind, format!("could not {what} {}", path.display()))
        .hint("check the directory's owner, mode and free space")
        .because(error)
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
