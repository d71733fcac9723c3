//! SQLite's errors in the words of the port.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::ports::{ErrorKind, PortError};

/// `what` completes "could not ...".
pub(super) fn port_error(what: &str, path: &Path, error: rusqlite::Error) -> PortError {
    let shown = path.display();
    let (kind, cause, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (
            ErrorKind::Transient,
            "the disk is full",
            format!("free space on the disk that holds {shown}; nothing was changed"),
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Transient,
            "the database is locked by another process",
            format!("close other programs that have {shown} open"),
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::Broken, "the file is damaged", damaged_hint(path))
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => (
            ErrorKind::Refused,
            "the file cannot be opened for writing",
            format!("check the owner and mode of {shown} and of its directory"),
        ),
        Some(ErrorCode::SystemIoFailure) => (
            ErrorKind::Transient,
            "the disk reported an error",
            format!("check the disk that holds {shown} and the kernel's log"),
        ),
        _ => (
            ErrorKind::Broken,
            "SQLite refused",
            format!("please report this with the version of the file {shown}"),
        ),
    };
    PortError::new(kind, format!("could not {what} in {shown}: {cause}"))
        .hint(hint)
        .because(error)
}

/// The next step for a file that cannot be used.
pub(super) fn damaged_hint(path: &Path) -> String {
    let shown = path.display();
    format!(
        "the file was left as it is; `orchestrator state restore BACKUP` puts a backup in its place \
         and keeps it beside that; without a backup move {shown}, {shown}-wal and {shown}-shm aside \
         to begin with an empty store"
    )
}

/// The writer thread has ended.
pub(super) fn closed(path: &Path) -> PortError {
    PortError::new(
        ErrorKind::Transient,
        format!("the store {} is closed", path.display()),
    )
    .hint("it is closing with the daemon, or its writer thread died: see the log")
}
