//! Reading what the helper kept while nobody answered.
//!
//! The directory is writable by the agent, so nothing in it is trusted: names, kinds, sizes and
//! contents are checked, links are never followed, and what is wrong is moved aside and reported.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::Deserialize;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::intake::{self, Told};
use crate::control::{Control, ControlError};
use crate::model::{AgentId, CommitId, HookReport, Incarnation, Timestamp};

/// A payload of 1 MiB, every byte of it escaped to six.
const MAX_FILE_BYTES: u64 = 7 * 1024 * 1024;
/// Above the helper's own bound; what is beyond waits for the next time.
const MAX_NAMES: usize = 10_000;
/// Files kept in quarantine for one agent; what is beyond is reported and deleted.
const MAX_QUARANTINED: usize = 100;

/// One agent's spool.
pub struct Spool {
    control: Control,
    agent: AgentId,
    directory: PathBuf,
    quarantine: PathBuf,
    /// One at a time, so that the order holds.
    turn: Mutex<()>,
}

/// What a drain did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Handed in, in order, and deleted.
    pub replayed: usize,
    /// Set aside, each with the reason; for a notice.
    pub set_aside: Vec<String>,
}

/// The helper's file.
#[derive(Debug, Deserialize)]
struct Kept {
    callback: String,
    /// Milliseconds since the epoch; anything else counts as unknown.
    #[serde(default)]
    at: serde_json::Value,
    incarnation: Option<u64>,
    head: Option<String>,
    payload: Payload,
}

/// The helper keeps the text as it came; a script may write the object itself.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Payload {
    Text(String),
    Object(serde_json::Map<String, serde_json::Value>),
}

impl Spool {
    /// `directory`: the agent's spool as the host sees it. `quarantine`: the daemon's own, for this
    /// agent; made when needed.
    pub fn new(control: Control, agent: AgentId, directory: PathBuf, quarantine: PathBuf) -> Self {
        Self {
            control,
            agent,
            directory,
            quarantine,
            turn: Mutex::new(()),
        }
    }

    /// Hands in what is there, oldest first. A file is deleted only when `control` has stored it,
    /// so a crash in between gives the event again, with the same callback id. Errors are
    /// `control`'s alone: then the rest stays for the next time.
    pub async fn drain(&self) -> Result<Drained, ControlError> {
        let _turn = self.turn.lock().await;
        let mut drained = Drained::default();
        let (fd, names) = match self.open().await {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(drained),
            Err(error) => {
                tracing::warn!(agent = %self.agent, %error, "the spool cannot be read");
                drained
                    .set_aside
                    .push(format!("{}: {error}", self.directory.display()));
                return Ok(drained);
            }
        };
        for name in names {
            match read(&fd, &name, &self.agent) {
                Ok((report, raw)) => {
                    self.control.hook(report, raw).await?;
                    drained.replayed += 1;
                    remove(&fd, &name);
                }
                Err(Unreadable::Gone) => {}
                Err(Unreadable::Bad(reason)) => {
                    self.set_aside(&fd, &name);
                    tracing::warn!(agent = %self.agent, name, reason, "a spooled event was set aside");
                    drained.set_aside.push(format!("{name}: {reason}"));
                }
            }
        }
        Ok(drained)
    }

    /// The directory and the names in it, in order; `None` when there is nothing.
    async fn open(&self) -> std::io::Result<Option<(OwnedFd, Vec<String>)>> {
        // Nearly always: one look costs less than to have a thread look.
        if is_empty(&self.directory) {
            return Ok(None);
        }
        let directory = self.directory.clone();
        tokio::task::spawn_blocking(move || open_blocking(&directory))
            .await
            .map_err(std::io::Error::other)?
    }

    fn set_aside(&self, from: &OwnedFd, name: &str) {
        let regular = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && u64::try_from(stat.st_size).is_ok_and(|size| size <= MAX_FILE_BYTES)
        });
        let moved = regular
            && std::fs::create_dir_all(&self.quarantine).is_ok()
            && std::fs::read_dir(&self.quarantine).is_ok_and(|d| d.count() < MAX_QUARANTINED)
            && {
                let target = self.quarantine.join(format!("{}-{name}", Uuid::now_v7()));
                rustix::fs::renameat(from, name, CWD, &target).is_ok()
                    || copy(from, name, &target).is_ok()
            };
        if !moved {
            // A link, a pipe, a giant, or one too many: nothing the helper writes.
            remove(from, name);
        }
    }
}

/// Across file systems.
fn copy(from: &OwnedFd, name: &str, target: &Path) -> std::io::Result<()> {
    let bytes = read_bounded(from, name).map_err(|_| std::io::ErrorKind::InvalidData)?;
    std::fs::write(target, bytes)?;
    remove(from, name);
    Ok(())
}

fn remove(directory: &OwnedFd, name: &str) {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::ISDIR) => {
            // Only an empty one: it is the agent's, and it is only in the way.
            if let Err(error) = rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                tracing::warn!(name, %error, "a directory in a spool cannot be removed");
            }
        }
        Err(error) => tracing::warn!(name, %error, "a spooled event cannot be removed"),
    }
}

/// Nothing in it that the helper could have written; `false` where only a closer look can tell.
fn is_empty(directory: &Path) -> bool {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(fd) => {
            let here = |name: &CStr| matches!(name.to_bytes(), b"." | b"..");
            Dir::new(fd).is_ok_and(|mut names| {
                names.all(|entry| entry.is_ok_and(|entry| here(entry.file_name())))
            })
        }
        Err(error) => error == Errno::NOENT,
    }
}

fn open_blocking(directory: &Path) -> std::io::Result<Option<(OwnedFd, Vec<String>)>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&fd)?.take(MAX_NAMES) {
        if let Some(name) = spool_name(entry?.file_name()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok((!names.is_empty()).then_some((fd, names)))
}

/// Names that do not begin with a dot and are plain text; the helper's temporary files do begin
/// with one. A name that is neither can only come from the agent, and is left to it.
fn spool_name(name: &CStr) -> Option<String> {
    let name = name.to_str().ok()?;
    let plain = name.len() <= 128
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    (plain && !name.starts_with('.')).then(|| name.to_owned())
}

enum Unreadable {
    /// Not there any more.
    Gone,
    Bad(String),
}

fn read(
    directory: &OwnedFd,
    name: &str,
    agent: &AgentId,
) -> Result<(HookReport, serde_json::Value), Unreadable> {
    let bytes = read_bounded(directory, name)?;
    let kept: Kept = serde_json::from_slice(&bytes)
        .map_err(|e| Unreadable::Bad(format!("not an event: {e}")))?;
    if !intake::is_callback_id(&kept.callback) {
        return Err(Unreadable::Bad("`callback` is not an id".to_owned()));
    }
    if kept
        .head
        .as_deref()
        .is_some_and(|head| !intake::is_commit(head))
    {
        return Err(Unreadable::Bad("`head` is not a commit".to_owned()));
    }
    let payload = match kept.payload {
        Payload::Text(text) => text,
        Payload::Object(map) => serde_json::Value::Object(map).to_string(),
    };
    let told = Told {
        callback: Some(kept.callback),
        at: None,
        incarnation: kept.incarnation.map(Incarnation),
        head: kept.head.map(CommitId::new),
    };
    let callback = intake::understand(agent, told, payload.as_bytes())
        .map_err(|problem| Unreadable::Bad(problem.to_string()))?;
    let report = HookReport {
        spooled: true,
        at: kept.at.as_i64().map(Timestamp),
        ..callback.report
    };
    Ok((report, callback.raw))
}

fn read_bounded(directory: &OwnedFd, name: &str) -> Result<Vec<u8>, Unreadable> {
    let bad = |text: String| Unreadable::Bad(text);
    let fd = match open_file(directory, name) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Err(Unreadable::Gone),
        Err(Errno::LOOP) => return Err(bad("a symbolic link".to_owned())),
        Err(error) => return Err(bad(format!("cannot be opened: {error}"))),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|e| bad(e.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(bad("not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::from(fd)
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| bad(e.to_string()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(bad(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Never through a link, never out of the directory, never waiting for a pipe's other end.
fn open_file(directory: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and engines that refuse what they do not know. A single name without
        // a slash is as safe with NOFOLLOW.
        Err(Errno::NOSYS | Errno::PERM) => {
            rustix::fs::openat(directory, name, flags, Mode::empty())
        }
        result => result,
    }
}
