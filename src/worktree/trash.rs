//! The trash: a checkout or a state directory that is removed is moved here, and stays for a while.
//!
//! ```text
//! <state>/trash/<milliseconds>-<name>/meta.json   what, why, when, until
//! <state>/trash/<milliseconds>-<name>/content     what was moved
//! ```
//!
//! Moving is one rename, written down before: after a crash, an entry without content is one whose
//! original is still in its place, and it goes away at the next look. Only the supervisor may write
//! the state directory.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use super::making::failed;
use crate::model::Timestamp;
use crate::ports::{ErrorKind, PortError, PortResult};

const META: &str = "meta.json";
const CONTENT: &str = "content";
/// Begins the name of an entry that is being deleted for good.
const GOING: &str = ".going-";

/// One thing in the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashEntry {
    pub id: String,
    /// Where it was.
    pub path: PathBuf,
    pub why: String,
    pub at: Timestamp,
    /// From then on it may be deleted.
    pub until: Timestamp,
}

/// The trash of one fleet.
#[derive(Clone, Debug)]
pub struct Trash {
    directory: PathBuf,
}

impl Trash {
    /// How long things stay.
    pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

    /// The trash in `state`, made if it is missing; what a crash left half done is completed or undone.
    pub fn open(state: &Path) -> PortResult<Self> {
        let trash = Self {
            directory: state.join("trash"),
        };
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&trash.directory);
        made.map_err(|cause| failed("create", &trash.directory, cause))?;
        for name in trash.names()? {
            let entry = trash.directory.join(&name);
            if name.starts_with(GOING) {
                delete(&entry)?;
            } else if entry.join(CONTENT).symlink_metadata().is_err() {
                // Written down and not moved, or moved back: what it names is elsewhere.
                delete(&entry)?;
            }
        }
        Ok(trash)
    }

    /// Moves `path` into the trash. The caller has made sure that nobody uses it any more.
    ///
    /// Errors: `NotFound`; `Refused` (on another file system, no permission). It is where it was then.
    pub fn discard(
        &self,
        path: &Path,
        why: &str,
        now: Timestamp,
        retention: Duration,
    ) -> PortResult<TrashEntry> {
        if path.symlink_metadata().is_err() {
            return Err(PortError::new(
                ErrorKind::NotFound,
                format!("{} is not there", path.display()),
            ));
        }
        let name = path.file_name().map_or_else(
            || "root".to_owned(),
            |name| name.to_string_lossy().chars().take(100).collect(),
        );
        let (id, place) = self.place(now, &name)?;
        let entry = TrashEntry {
            id,
            path: path.to_owned(),
            why: why.to_owned(),
            at: now,
            until: now + retention,
        };
        let moved = write_down(&place, &entry)
            .and_then(|()| sync(&self.directory))
            .and_then(|()| fs::rename(path, place.join(CONTENT)));
        if let Err(cause) = moved {
            delete(&place)?;
            return Err(cannot_move(path, cause));
        }
        sync(&place)
            .and_then(|()| path.parent().map_or(Ok(()), sync))
            .map_err(|cause| failed("write through", &place, cause))?;
        Ok(entry)
    }

    /// A new directory for an entry.
    fn place(&self, now: Timestamp, name: &str) -> PortResult<(String, PathBuf)> {
        let base = format!("{:013}-{name}", now.0.max(0));
        for number in 1..1000 {
            let id = if number == 1 {
                base.clone()
            } else {
                format!("{base}-{number}")
            };
            let place = self.directory.join(&id);
            match DirBuilder::new().mode(0o700).create(&place) {
                Ok(()) => return Ok((id, place)),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
                Err(cause) => return Err(failed("create", &place, cause)),
            }
        }
        let text = format!("there is no name left in the trash for {name}");
        Err(PortError::new(ErrorKind::Refused, text))
    }

    /// What is in it, newest first. What cannot be read is left alone, and is not among them.
    pub fn list(&self) -> PortResult<Vec<TrashEntry>> {
        let mut entries = Vec::new();
        for name in self.names()? {
            let place = self.directory.join(&name);
            let read = fs::read(place.join(META)).ok();
            let entry: Option<TrashEntry> =
                read.and_then(|text| serde_json::from_slice(&text).ok());
            match entry {
                Some(entry) if entry.id == name => entries.push(entry),
                _ if name.starts_with(GOING) => {}
                _ => tracing::warn!(path = %place.display(), "in the trash, and not readable"),
            }
        }
        entries.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
        Ok(entries)
    }

    /// Moves an entry back to where it was, or to `to`; nothing is replaced.
    ///
    /// Errors: `NotFound`, `AlreadyExists`, `Refused` (another file system).
    pub fn restore(&self, id: &str, to: Option<&Path>) -> PortResult<PathBuf> {
        let entry = self.entry(id)?;
        let place = self.directory.join(&entry.id);
        let target = to.unwrap_or(&entry.path).to_owned();
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|cause| failed("create", parent, cause))?;
        }
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(CWD, place.join(CONTENT), CWD, &target, flags) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                return Err(PortError::new(
                    ErrorKind::AlreadyExists,
                    format!("{} is there already", target.display()),
                )
                .hint("name another place: nothing is replaced"));
            }
            Err(errno) => return Err(cannot_move(&target, errno.into())),
        }
        target
            .parent()
            .map_or(Ok(()), sync)
            .map_err(|cause| failed("write through", &target, cause))?;
        delete(&place)?;
        Ok(target)
    }

    /// Deletes for good what has been here long enough; returns it.
    pub fn expire(&self, now: Timestamp) -> PortResult<Vec<TrashEntry>> {
        let mut gone = Vec::new();
        for entry in self.list()?.into_iter().filter(|entry| entry.until <= now) {
            let place = self.directory.join(&entry.id);
            let going = self.directory.join(format!("{GOING}{}", entry.id));
            fs::rename(&place, &going).map_err(|cause| failed("delete", &place, cause))?;
            delete(&going)?;
            gone.push(entry);
        }
        Ok(gone)
    }

    fn entry(&self, id: &str) -> PortResult<TrashEntry> {
        let found = self.list()?.into_iter().find(|entry| entry.id == id);
        found.ok_or_else(|| {
            PortError::new(ErrorKind::NotFound, format!("the trash has no {id:?}"))
                .hint("list it; what has been there for its time is deleted")
        })
    }

    fn names(&self) -> PortResult<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(&self.directory)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|cause| failed("list", &self.directory, cause))?
            .into_iter()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }
}

fn write_down(place: &Path, entry: &TrashEntry) -> io::Result<()> {
    let mut file = File::create_new(place.join(META))?;
    file.write_all(&serde_json::to_vec_pretty(entry)?)?;
    file.sync_all()?;
    sync(place)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// An entry of ours, with all that is in it; links are not followed.
fn delete(place: &Path) -> PortResult<()> {
    match fs::remove_dir_all(place) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(failed("delete", place, cause))
        }
        _ => Ok(()),
    }
}

fn cannot_move(path: &Path, cause: io::Error) -> PortError {
    if cause.kind() == io::ErrorKind::CrossesDevices {
        return PortError::new(
            ErrorKind::Refused,
            format!(
                "{} and the trash are on different file systems",
                path.display()
            ),
        )
        .hint("the trash lies in the state directory; move it by hand")
        .because(cause);
    }
    failed("move", path, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_262_400_000);

    struct Place {
        directory: tempfile::TempDir,
        trash: Trash,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let trash = Trash::open(directory.path()).unwrap();
            fs::create_dir_all(directory.path().join("agents/w/checkout")).unwrap();
            fs::write(directory.path().join("agents/w/checkout/f"), "x").unwrap();
            Self { directory, trash }
        }

        fn checkout(&self) -> PathBuf {
            self.directory.path().join("agents/w/checkout")
        }

        fn discard(&self) -> TrashEntry {
            let retention = Trash::RETENTION;
            self.trash
                .discard(&self.checkout(), "worker removed", NOW, retention)
                .unwrap()
        }
    }

    #[test]
    fn what_is_discarded_is_listed_and_comes_back_whole() {
        let place = Place::new();
        let entry = place.discard();
        assert!(!place.checkout().exists());
        assert_eq!(place.trash.list().unwrap(), std::slice::from_ref(&entry));
        assert_eq!(entry.until, NOW + Trash::RETENTION);
        assert_eq!(
            place.trash.restore(&entry.id, None).unwrap(),
            place.checkout()
        );
        assert_eq!(fs::read(place.checkout().join("f")).unwrap(), b"x");
        assert_eq!(place.trash.list().unwrap(), []);
    }

    #[test]
    fn nothing_is_replaced_and_names_do_not_collide() {
        let place = Place::new();
        let first = place.discard();
        fs::create_dir_all(place.checkout()).unwrap();
        let error = place.trash.restore(&first.id, None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
        let second = place.discard();
        assert_ne!(first.id, second.id);
        let elsewhere = place.directory.path().join("elsewhere");
        place.trash.restore(&first.id, Some(&elsewhere)).unwrap();
        assert_eq!(fs::read(elsewhere.join("f")).unwrap(), b"x");
    }

    #[test]
    fn it_goes_when_its_time_is_over_and_not_before() {
        let place = Place::new();
        let entry = place.discard();
        let before = Timestamp(entry.until.0 - 1);
        assert_eq!(place.trash.expire(before).unwrap(), []);
        assert_eq!(
            place.trash.expire(entry.until).unwrap(),
            std::slice::from_ref(&entry)
        );
        assert_eq!(place.trash.list().unwrap(), []);
        let left = fs::read_dir(place.directory.path().join("trash")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_crash_at_any_point_leaves_it_in_one_place() {
        // Written down, and not moved.
        let place = Place::new();
        let half = place.directory.path().join("trash/0000000000001-checkout");
        fs::create_dir(&half).unwrap();
        Trash::open(place.directory.path()).unwrap();
        assert!(!half.exists() && place.checkout().join("f").exists());
        // Moved back, and the entry not yet gone.
        let entry = place.discard();
        let content = place
            .directory
            .path()
            .join("trash")
            .join(&entry.id)
            .join("content");
        fs::rename(&content, place.checkout()).unwrap();
        let trash = Trash::open(place.directory.path()).unwrap();
        assert_eq!(trash.list().unwrap(), []);
        // Half deleted, when its time was over.
        let entry = place.discard();
        let going = place
            .directory
            .path()
            .join(format!("trash/.going-{}", entry.id));
        fs::rename(place.directory.path().join("trash").join(&entry.id), &going).unwrap();
        Trash::open(place.directory.path()).unwrap();
        assert!(!going.exists());
    }
}
