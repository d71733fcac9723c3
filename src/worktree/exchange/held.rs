//! An inode that was swapped out, and what is known about it.
//!
//! Called by [`super::tick_file`] and [`super::settle`]. Never deletes a content that is nowhere else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Settled;
use super::target::{Content, Target, read};

/// Length and SHA-256 of a content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Print {
    length: usize,
    sha256: [u8; 32],
}

impl Print {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len(),
            sha256: Sha256::digest(bytes).into(),
        }
    }

    pub(super) fn begins(&self, bytes: &[u8]) -> bool {
        bytes
            .get(..self.length)
            .is_some_and(|start| Self::of(start) == *self)
    }
}

/// What is known about a held inode; lies beside it as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Side {
    pub(super) root: PathBuf,
    pub(super) relative: PathBuf,
    pub(super) key: String,
    /// What was read, and what was made of it.
    pub(super) before: Print,
    pub(super) after: Print,
    /// What is in the checkout because of this entry.
    pub(super) placed: Print,
    /// Contents the held inode may have with nobody having written to it, or whose appended part
    /// was brought over already.
    known: Vec<Print>,
    /// Two saves crossed, and the held one is the older: kept for a person.
    #[serde(default)]
    superseded: bool,
}

pub(super) struct Held {
    scratch: PathBuf,
    id: String,
    pub(super) side: Side,
}

impl Held {
    /// Writes the sidecar and the new content, both durable.
    pub(super) fn create(
        scratch: &Path,
        root: &Path,
        relative: &Path,
        key: &str,
        before: &Content,
        after: &[u8],
    ) -> io::Result<Self> {
        fs::create_dir_all(scratch)?;
        let (before_print, after_print) = (Print::of(&before.bytes), Print::of(after));
        let held = Self {
            scratch: scratch.to_owned(),
            id: uuid::Uuid::now_v7().simple().to_string(),
            side: Side {
                root: root.to_owned(),
                relative: relative.to_owned(),
                key: key.to_owned(),
                known: vec![before_print.clone(), after_print.clone()],
                placed: after_print.clone(),
                before: before_print,
                after: after_print,
                superseded: false,
            },
        };
        let written = held.save().and_then(|()| held.write_new(before, after));
        if let Err(error) = written {
            held.forget()?;
            return Err(error);
        }
        Ok(held)
    }

    fn write_new(&self, before: &Content, after: &[u8]) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.file())?;
        file.write_all(after)?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != before.owner {
            let (uid, gid) = before.owner;
            let given =
                rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            given.map_err(|errno| {
                let kind = io::Error::from(errno).kind();
                let text =
                    format!("the file belongs to {uid}:{gid}, which cannot be kept: {errno}");
                io::Error::new(kind, text)
            })?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(before.mode & 0o7777))?;
        file.sync_all()
    }

    /// Every entry of the directory, oldest first. What cannot be read is left alone.
    pub(super) fn all(scratch: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(scratch) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str());
            let (Some(id), Some("side")) = (id, path.extension().and_then(|e| e.to_str())) else {
                continue;
            };
            match serde_json::from_slice(&fs::read(&path)?) {
                Ok(side) => all.push(Self {
                    scratch: scratch.to_owned(),
                    id: id.to_owned(),
                    side,
                }),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a sidecar cannot be read; it and its file are kept");
                    fs::rename(&path, path.with_extension("side-unreadable"))?;
                }
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.scratch.join(format!("{}.held", self.id))
    }

    fn side_file(&self) -> PathBuf {
        self.scratch.join(format!("{}.side", self.id))
    }

    fn save(&self) -> io::Result<()> {
        let temporary = self.scratch.join(format!("{}.side-new", self.id));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.side)?)?;
        file.sync_all()?;
        fs::rename(&temporary, self.side_file())?;
        File::open(&self.scratch)?.sync_all()
    }

    /// Since the last exchange.
    pub(super) fn age(&self) -> Duration {
        let modified = fs::metadata(self.side_file()).and_then(|side| side.modified());
        modified
            .ok()
            .and_then(|modified| modified.elapsed().ok())
            .unwrap_or_default()
    }

    pub(super) fn read(&self) -> io::Result<Content> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, self.file(), flags, Mode::empty())?;
        read(File::from(file))
    }

    pub(super) fn exchange(&self, target: &Target) -> io::Result<()> {
        let swapped = rustix::fs::renameat_with(
            CWD,
            self.file(),
            target.directory.as_fd(),
            target.name.as_os_str(),
            RenameFlags::EXCHANGE,
        );
        swapped.map_err(|errno| match errno {
            Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => io::Error::new(
                io::ErrorKind::Unsupported,
                "this file system cannot exchange two files (renameat2 EXCHANGE), so the task list \
                 cannot be ticked without risking somebody's edit; keep the checkout on ext4, xfs, \
                 btrfs or tmpfs",
            ),
            Errno::XDEV => io::Error::new(
                io::ErrorKind::CrossesDevices,
                "the scratch directory must be on the same file system as the checkout",
            ),
            other => other.into(),
        })
    }

    pub(super) fn forget(&self) -> io::Result<()> {
        for path in [self.file(), self.side_file()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Somebody saved between our read and our swap: `theirs` came out. Puts it back.
    pub(super) fn undo(
        &mut self,
        target: &Target,
        theirs: Option<&Content>,
        ours: &[u8],
    ) -> io::Result<()> {
        match self.exchange(target) {
            Ok(()) => {}
            // They deleted the file meanwhile. What came out waits for `settle`, which keeps it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        if let Some(theirs) = theirs {
            self.side.placed = Print::of(&theirs.bytes);
        }
        self.save()?;
        let Ok(back) = self.read() else {
            return Ok(());
        };
        if back.bytes == ours {
            return Ok(());
        }
        // In the moment our content was in place, somebody wrote to it.
        if let Some(added) = back.bytes.strip_prefix(ours) {
            return self.bring_over(target, added, &back.bytes);
        }
        // A whole new save, later than the one just put back: the later one goes into place.
        self.exchange(target)?;
        self.side.placed = Print::of(&back.bytes);
        self.side.superseded = true;
        self.save()
    }

    /// Appends what was appended to the held inode, once.
    fn bring_over(&mut self, target: &Target, added: &[u8], whole: &[u8]) -> io::Result<()> {
        // After a crash in between it is appended again: twice is better than never.
        target.append(added)?;
        self.side.known.push(Print::of(whole));
        self.save()
    }

    /// `None`: nobody wrote to it, and it is gone now.
    pub(super) fn settle(&mut self, ours: &BTreeSet<Print>) -> io::Result<Option<Settled>> {
        let held = match self.read() {
            Ok(held) => held,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget()?;
                return Ok(None);
            }
            // Not a regular file, or grown too large: nothing to merge, nothing to throw away.
            Err(_) => return self.keep().map(Some),
        };
        if self.side.superseded {
            return self.keep().map(Some);
        }
        if self.side.known.contains(&Print::of(&held.bytes)) {
            self.forget()?;
            return Ok(None);
        }
        // Gone, or a link or a directory in its place: there is nothing to bring it back into.
        let Ok((target, file)) = Target::open(&self.side.root, &self.side.relative) else {
            return self.keep().map(Some);
        };
        let longest = self
            .side
            .known
            .iter()
            .filter(|known| known.length > 0 && known.begins(&held.bytes))
            .map(|known| known.length)
            .max();
        if let Some(added) = longest.and_then(|length| held.bytes.get(length..)) {
            self.bring_over(&target, added, &held.bytes)?;
            return Ok(Some(Settled::Appended));
        }
        let current = read(file)?;
        if ours.contains(&Print::of(&current.bytes)) {
            self.put_back(&target, &held, &current)
        } else {
            self.keep_older(&target, &held, &current)
        }
        .map(Some)
    }

    /// The file holds nothing but our own change: what they wrote replaces it.
    fn put_back(
        &mut self,
        target: &Target,
        held: &Content,
        current: &Content,
    ) -> io::Result<Settled> {
        self.exchange(target)?;
        self.side.placed = Print::of(&held.bytes);
        self.side.known = vec![Print::of(&current.bytes)];
        self.save()?;
        target.sync()?;
        let out = self.read()?;
        if out.bytes == current.bytes {
            return Ok(Settled::PutBack);
        }
        // Saved again while we looked: as in `undo`, the later one belongs into place.
        if let Some(added) = out.bytes.strip_prefix(current.bytes.as_slice()) {
            self.bring_over(target, added, &out.bytes)?;
            return Ok(Settled::PutBack);
        }
        self.exchange(target)?;
        self.keep()
    }

    /// Both the old inode and the file were written by others.
    fn keep_older(
        &mut self,
        target: &Target,
        held: &Content,
        current: &Content,
    ) -> io::Result<Settled> {
        if held.modified > current.modified {
            self.exchange(target)?;
            target.sync()?;
        }
        self.keep()
    }

    /// Moves the held inode to a name nothing here ever deletes.
    fn keep(&self) -> io::Result<Settled> {
        let kept = self.scratch.join(format!("{}.kept", self.id));
        fs::rename(self.file(), &kept)?;
        self.forget()?;
        Ok(Settled::Kept(kept))
    }
}
