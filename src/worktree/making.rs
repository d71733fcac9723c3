//! Making a directory so that it exists whole or not at all.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::ports::{ErrorKind, PortError, PortResult};

/// A directory being made beside its final place, under a lock that ends with the process.
pub(super) struct Making {
    pub(super) path: PathBuf,
    target: PathBuf,
    _lock: File,
}

/// Starts making `target`; waits for another process that makes the same. What an interrupted
/// attempt left behind is removed: it was never visible under its name, and only the supervisor
/// can write the directory it lies in.
pub(super) fn start(target: &Path) -> PortResult<Making> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|cause| failed("create", parent, cause))?;
    let parent = parent
        .canonicalize()
        .map_err(|cause| failed("open", parent, cause))?;
    let name = target.file_name().ok_or_else(|| {
        PortError::new(
            ErrorKind::Refused,
            format!("{} has no name", target.display()),
        )
    })?;
    let target = parent.join(name);
    let beside = |end: &str| {
        let mut text = std::ffi::OsString::from(".");
        text.push(name);
        text.push(end);
        parent.join(text)
    };
    let lock_path = beside(".lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(|cause| failed("create", &lock_path, cause))?;
    lock.lock()
        .map_err(|cause| failed("lock", &lock_path, cause))?;
    let path = beside(".making");
    if path.symlink_metadata().is_ok() {
        fs::remove_dir_all(&path).map_err(|cause| failed("remove the rest of", &path, cause))?;
    }
    DirBuilder::new()
        .mode(0o755)
        .create(&path)
        .map_err(|cause| failed("create", &path, cause))?;
    Ok(Making {
        path,
        target,
        _lock: lock,
    })
}

impl Making {
    /// The final place, with the parent's symbolic links resolved.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the directory its name. An empty directory of that name is replaced.
    pub(super) fn finish(self) -> PortResult<PathBuf> {
        fs::rename(&self.path, &self.target)
            .map_err(|cause| failed("put in place", &self.target, cause))?;
        Ok(self.target)
    }

    /// Takes back what was made so far.
    pub(super) fn abandon(self) {
        // Failing is fine: the next attempt removes it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether something is there that must be left alone: anything but an empty directory.
pub(super) fn is_taken(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.symlink_metadata().is_ok(),
    }
}

pub(super) fn failed(what: &str, path: &Path, cause: std::io::Error) -> PortError {
    let kind = match cause.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Refused
        }
        std::io::ErrorKind::StorageFull => ErrorKind::Transient,
        _ => ErrorKind::Broken,
    };
    PortError::new(kind, format!("could not {what} {}", path.display())).because(cause)
}
