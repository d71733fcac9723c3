//! The directories a gate's container has mounted.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use super::House;
use crate::config::Gate;
use crate::ports::{ErrorKind, PortError, PortResult};

const RUNS: &str = "runs";

/// The directory of one try.
#[derive(Clone)]
pub(super) struct Place(PathBuf);

impl House {
    /// What a gate keeps between its runs. Written by what it runs: never opened on this side.
    pub(super) fn cache(&self, gate: &Gate) -> PathBuf {
        self.root.join("cache").join(&gate.name)
    }
}

impl Place {
    pub(super) fn new(root: &Path, id: &str, again: bool) -> Self {
        let number = if again { 2 } else { 1 };
        Self(root.join(RUNS).join(format!("{id}-{number}")))
    }

    /// Made by the checkout.
    pub(super) fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    /// Makes all but the tree.
    pub(super) fn make(&self, owner: Option<(u32, u32)>, cache: Option<&Path>) -> PortResult<()> {
        let home = self.home();
        let make = || {
            private(&self.0)?;
            owned(&home, owner)?;
            match cache {
                // Once there, it is its runs'.
                Some(cache) if !cache.is_dir() => owned(cache, owner),
                _ => Ok(()),
            }
        };
        make().map_err(|cause: io::Error| {
            let text = format!("could not make {}", self.0.display());
            PortError::new(ErrorKind::Transient, text).because(cause)
        })
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.0)
    }
}

fn private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn owned(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    private(path)?;
    match owner {
        Some((user, group)) => lchown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// Removes the directories of all tries; for when none is under way. The last error, if there was one.
pub(super) fn sweep(root: &Path) -> io::Result<()> {
    let runs = root.join(RUNS);
    private(&runs)?;
    let mut result = Ok(());
    for entry in fs::read_dir(&runs)? {
        if let Err(error) = remove(&entry?.path()) {
            result = Err(error);
        }
    }
    result
}

/// What ran in it has ended. It may have closed directories to itself, as module caches are.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_up(path: &Path) -> io::Result<()> {
    if !path.symlink_metadata()?.is_dir() {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        open_up(&entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_directories_are_removed_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let place = Place::new(root.path(), "id", false);
        place.make(None, None).unwrap();
        let closed = place.home().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::write(closed.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, place.home().join("link")).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o500)).unwrap();
        sweep(root.path()).unwrap();
        assert!(!place.home().exists());
        assert!(outside.join("kept").exists());
        place.remove().unwrap();
    }

    #[test]
    fn a_cache_that_is_there_is_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path().join("cache/test");
        let place = Place::new(root.path(), "id", true);
        place.make(None, Some(&cache)).unwrap();
        fs::write(cache.join("kept"), "x").unwrap();
        place.make(None, Some(&cache)).unwrap();
        sweep(root.path()).unwrap();
        assert!(cache.join("kept").exists());
    }
}
