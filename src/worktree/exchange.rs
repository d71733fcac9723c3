//! Changes a file that an agent and a person may be editing, without losing what they write.
//!
//! The new content is written beside, in a scratch directory outside the checkout, and swapped with
//! the file by `renameat2(EXCHANGE)`. What came out is compared with what was read: if somebody
//! saved in between, it is swapped back. An editor that had the file open before the swap may still
//! write into the old inode, so that is held in scratch; [`settle`] looks at it later and brings
//! what was written there back. A sidecar beside each held inode makes this survive a crash.
//!
//! The checkout is never followed through a symbolic link (`openat2` with `BENEATH` and
//! `NO_SYMLINKS`). Owner and mode are kept; extended attributes and hard links are not.
//!
//! Where the file system knows no exchange (NFS, 9p and other network file systems answer `EINVAL`)
//! there is no lossless way, so nothing is written and the error says so ([`io::ErrorKind::Unsupported`]).
//! ext4, xfs, btrfs, tmpfs and overlayfs know it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Largest file that is changed.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// How long an old inode should be held before [`settle`] drops it: an editor that writes in place
/// opens, truncates and writes within milliseconds; this leaves room for a loaded machine.
pub const HOLD: Duration = Duration::from_secs(30);

/// What became of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticked {
    Done,
    /// The plan changed nothing.
    AlreadyDone,
    /// There is no such file, or the plan did not find its item.
    NotFound,
    /// Somebody saved at the same moment; their content is in place. Try again.
    Raced,
}

/// What [`settle`] found at an inode it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Somebody wrote the old inode anew: that content is in place again. Tick again.
    PutBack,
    /// Somebody appended to the old inode: that was appended to the file.
    Appended,
    /// Two saves crossed: the newer one is in place, the other one is in this file. Tell a person.
    Kept(PathBuf),
}

/// One file that [`settle`] had to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    pub root: PathBuf,
    pub relative: PathBuf,
    pub key: String,
    pub outcome: Settled,
}

/// What [`settle`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    pub mended: Vec<Mended>,
    /// Inodes still held; call again later.
    pub pending: usize,
}

/// Replaces the text of `root/relative` by what `plan` makes of it.
///
/// `plan` gives `None` if it does not find its place and the same text if there is nothing to do.
/// `scratch` is a directory on the same file system as `root` and outside of it, which only this
/// program writes. `key` names the item, for the report of [`settle`].
///
/// Errors: not UTF-8 (`InvalidData`, names the byte), too large, not a regular file, the owner
/// cannot be kept (`PermissionDenied`), no exchange on this file system (`Unsupported`). The file is
/// unchanged then.
pub fn tick_file(
    root: &Path,
    relative: &Path,
    scratch: &Path,
    key: &str,
    plan: &dyn Fn(&str) -> Option<String>,
) -> io::Result<Ticked> {
    let Some((target, file)) = found(Target::open(root, relative))? else {
        return Ok(Ticked::NotFound);
    };
    let before = read(file)?;
    let text = std::str::from_utf8(&before.bytes).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} is not UTF-8: byte {} is wrong",
                relative.display(),
                error.valid_up_to()
            ),
        )
    })?;
    let Some(after) = plan(text) else {
        return Ok(Ticked::NotFound);
    };
    if after == text {
        return Ok(Ticked::AlreadyDone);
    }
    let mut held = Held::create(scratch, root, relative, key, &before, after.as_bytes())?;
    match held.exchange(&target) {
        Ok(()) => {}
        Err(error) => {
            held.forget()?;
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(Ticked::NotFound),
                _ => Err(error),
            };
        }
    }
    let out = held.read();
    if out.as_ref().is_ok_and(|out| out.bytes == before.bytes) {
        target.sync()?;
        return Ok(Ticked::Done);
    }
    held.undo(&target, out.ok().as_ref(), after.as_bytes())?;
    target.sync()?;
    Ok(Ticked::Raced)
}

/// Looks at every held inode that was swapped out at least `older_than` ago, mends what was written
/// into it since, and drops those nobody touched. Call it every few seconds and once at start-up;
/// [`HOLD`] is a good age.
pub fn settle(scratch: &Path, older_than: Duration) -> io::Result<Settlement> {
    let mut all = Held::all(scratch)?;
    let mut settlement = Settlement::default();
    for at in 0..all.len() {
        if all[at].age() < older_than {
            settlement.pending += 1;
            continue;
        }
        let ours = ours(&all, at);
        let held = &mut all[at];
        let outcome = match held.settle(&ours) {
            Ok(outcome) => outcome,
            // The next ones are not held up by this one.
            Err(error) => {
                tracing::warn!(path = %held.file().display(), %error, "a held file could not be settled; trying again later");
                settlement.pending += 1;
                continue;
            }
        };
        if let Some(outcome) = outcome {
            settlement.pending += usize::from(held.file().exists());
            settlement.mended.push(Mended {
                root: held.side.root.clone(),
                relative: held.side.relative.clone(),
                key: held.side.key.clone(),
                outcome,
            });
        }
    }
    Ok(settlement)
}

/// The contents that came from the one this entry put in place by our own changes alone.
fn ours(all: &[Held], at: usize) -> BTreeSet<Print> {
    let start = &all[at].side;
    let mut ours = BTreeSet::from([start.placed.clone()]);
    // Entries are in the order of time, so one pass follows the chain.
    for held in all.iter().skip(at + 1) {
        let same = held.side.root == start.root && held.side.relative == start.relative;
        if same && ours.contains(&held.side.before) && held.side.placed == held.side.after {
            ours.insert(held.side.after.clone());
        }
    }
    ours
}

/// Length and SHA-256 of a content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Print {
    length: usize,
    sha256: [u8; 32],
}

impl Print {
    fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len(),
            sha256: Sha256::digest(bytes).into(),
        }
    }

    fn begins(&self, bytes: &[u8]) -> bool {
        bytes
            .get(..self.length)
            .is_some_and(|start| Self::of(start) == *self)
    }
}

/// What is known about a held inode; lies beside it as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Side {
    root: PathBuf,
    relative: PathBuf,
    key: String,
    /// What was read, and what was made of it.
    before: Print,
    after: Print,
    /// What is in the checkout because of this entry.
    placed: Print,
    /// Contents the held inode may have with nobody having written to it, or whose appended part
    /// was brought over already.
    known: Vec<Print>,
    /// Two saves crossed, and the held one is the older: kept for a person.
    #[serde(default)]
    superseded: bool,
}

struct Held {
    scratch: PathBuf,
    id: String,
    side: Side,
}

struct Content {
    bytes: Vec<u8>,
    modified: SystemTime,
    mode: u32,
    owner: (u32, u32),
}

impl Held {
    /// Writes the sidecar and the new content, both durable.
    fn create(
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
    fn all(scratch: &Path) -> io::Result<Vec<Self>> {
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

    fn file(&self) -> PathBuf {
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
    fn age(&self) -> Duration {
        let modified = fs::metadata(self.side_file()).and_then(|side| side.modified());
        modified
            .ok()
            .and_then(|modified| modified.elapsed().ok())
            .unwrap_or_default()
    }

    fn read(&self) -> io::Result<Content> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, self.file(), flags, Mode::empty())?;
        read(File::from(file))
    }

    fn exchange(&self, target: &Target) -> io::Result<()> {
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

    fn forget(&self) -> io::Result<()> {
        for path in [self.file(), self.side_file()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Somebody saved between our read and our swap: `theirs` came out. Puts it back.
    fn undo(&mut self, target: &Target, theirs: Option<&Content>, ours: &[u8]) -> io::Result<()> {
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
    fn settle(&mut self, ours: &BTreeSet<Print>) -> io::Result<Option<Settled>> {
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

/// A file in a checkout, by the directory it is in.
struct Target {
    directory: OwnedFd,
    name: OsString,
}

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

impl Target {
    fn open(root: &Path, relative: &Path) -> io::Result<(Self, File)> {
        let name = relative
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, directory, Mode::empty())?;
        let parent = match relative.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let target = Self {
            directory: rustix::fs::openat2(root, parent, directory, Mode::empty(), RESOLVE)?,
            name: name.to_owned(),
        };
        let file = target.file(OFlags::RDONLY)?;
        Ok((target, file))
    }

    fn file(&self, access: OFlags) -> io::Result<File> {
        // NONBLOCK: a pipe in the file's place must not hang us.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(
            &self.directory,
            self.name.as_os_str(),
            flags,
            Mode::empty(),
            RESOLVE,
        )?;
        Ok(File::from(file))
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file(OFlags::WRONLY | OFlags::APPEND)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        rustix::fs::fsync(&self.directory).map_err(io::Error::from)
    }
}

/// Not being there is an answer.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(mut file: File) -> io::Result<Content> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    let read = (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {MAX_BYTES} bytes"),
        ));
    }
    Ok(Content {
        bytes,
        modified: file.metadata()?.modified()?,
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::Barrier;

    use super::*;

    const LIST: &str = "WORKER_1_TASK_LIST.md";

    struct Place {
        _directory: tempfile::TempDir,
        root: PathBuf,
        scratch: PathBuf,
    }

    impl Place {
        fn new(content: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let (root, scratch) = (
                directory.path().join("checkout"),
                directory.path().join("scratch"),
            );
            fs::create_dir(&root).unwrap();
            fs::write(root.join(LIST), content).unwrap();
            Self {
                _directory: directory,
                root,
                scratch,
            }
        }

        fn file(&self) -> PathBuf {
            self.root.join(LIST)
        }

        fn text(&self) -> String {
            fs::read_to_string(self.file()).unwrap()
        }

        fn tick(&self, item: &str) -> Ticked {
            self.tick_with(&|text| plan(text, item))
        }

        fn tick_with(&self, plan: &dyn Fn(&str) -> Option<String>) -> Ticked {
            tick_file(&self.root, Path::new(LIST), &self.scratch, "key", plan).unwrap()
        }

        fn settle(&self) -> Vec<Settled> {
            let settlement = settle(&self.scratch, Duration::ZERO).unwrap();
            settlement
                .mended
                .into_iter()
                .map(|mended| mended.outcome)
                .collect()
        }

        /// As the daemon does it: tick and settle until both have nothing to do.
        fn quiesce(&self, item: &str) {
            for _ in 0..50 {
                let ticked = self.tick(item);
                let settlement = settle(&self.scratch, Duration::ZERO).unwrap();
                for mended in &settlement.mended {
                    assert!(!matches!(mended.outcome, Settled::Kept(_)), "{mended:?}");
                }
                if ticked == Ticked::AlreadyDone && settlement == Settlement::default() {
                    return;
                }
            }
            panic!("never came to rest: {}", self.text());
        }
    }

    fn plan(text: &str, item: &str) -> Option<String> {
        let (open, done) = (format!("- [ ] {item}\n"), format!("- [x] {item}\n"));
        if text.contains(&done) {
            return Some(text.to_owned());
        }
        text.contains(&open).then(|| text.replace(&open, &done))
    }

    #[test]
    fn ticks_and_says_what_it_found() {
        let place = Place::new("- [ ] a\n- [ ] b\n");
        fs::set_permissions(place.file(), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(place.tick("a"), Ticked::Done);
        assert_eq!(place.text(), "- [x] a\n- [ ] b\n");
        assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(place.tick("a"), Ticked::AlreadyDone);
        assert_eq!(place.tick("c"), Ticked::NotFound);
        assert_eq!(
            settle(&place.scratch, HOLD).unwrap().pending,
            1,
            "held for a while"
        );
        assert_eq!(place.settle(), []);
        assert_eq!(
            fs::read_dir(&place.scratch).unwrap().count(),
            0,
            "nothing is left behind"
        );
        fs::remove_file(place.file()).unwrap();
        assert_eq!(place.tick("b"), Ticked::NotFound);
        assert!(!place.file().exists(), "a deleted file does not come back");
    }

    #[test]
    fn keeps_the_owner() {
        let place = Place::new("- [ ] a\n");
        // Giving a file away needs privileges; without them the test keeps the owner it has.
        let privileged = rustix::process::geteuid().is_root();
        let owner = if privileged {
            (12_345, 23_456)
        } else {
            ids(&place.file())
        };
        std::os::unix::fs::chown(place.file(), Some(owner.0), Some(owner.1)).unwrap();
        assert_eq!(place.tick("a"), Ticked::Done);
        assert_eq!(ids(&place.file()), owner);
    }

    fn ids(path: &Path) -> (u32, u32) {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    }

    #[test]
    fn follows_no_link_and_reads_no_pipe() {
        let place = Place::new("- [ ] a\n");
        let outside = place.root.join("../outside.md");
        fs::write(&outside, "- [ ] a\n").unwrap();
        fs::remove_file(place.file()).unwrap();
        symlink(&outside, place.file()).unwrap();
        let plan = |text: &str| plan(text, "a");
        let tick = |relative: &str| {
            tick_file(&place.root, Path::new(relative), &place.scratch, "k", &plan)
        };
        assert!(tick(LIST).is_err());
        assert!(tick("../outside.md").is_err());
        symlink("..", place.root.join("up")).unwrap();
        assert!(tick("up/outside.md").is_err());
        rustix::fs::mknodat(
            CWD,
            place.root.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(tick("pipe").is_err());
        assert_eq!(fs::read_to_string(outside).unwrap(), "- [ ] a\n");
    }

    #[test]
    fn not_utf8_names_the_byte() {
        let place = Place::new("");
        fs::write(place.file(), b"- [ ] a\n\xff").unwrap();
        let error = tick_file(&place.root, Path::new(LIST), &place.scratch, "k", &|_| None);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("byte 8"), "{error}");
    }

    /// The plan runs between our read and our swap: the place for a save in between.
    #[test]
    fn a_save_in_between_wins_and_the_tick_follows() {
        type Save = fn(&Path);
        let saves: [(&str, Save); 4] = [
            ("in place", |file| {
                fs::write(file, "- [ ] a\n- [ ] mine\n").unwrap();
            }),
            ("rename", |file| {
                let other = file.with_extension("tmp");
                fs::write(&other, "- [ ] a\n- [ ] mine\n").unwrap();
                fs::rename(other, file).unwrap();
            }),
            ("append", |file| append(file, "- [ ] mine\n")),
            ("truncated", |file| fs::write(file, "").unwrap()),
        ];
        for (what, save) in saves {
            let place = Place::new("- [ ] a\n");
            let raced = place.tick_with(&|text| {
                save(&place.file());
                plan(text, "a")
            });
            assert_eq!(raced, Ticked::Raced, "{what}");
            if what == "truncated" {
                assert_eq!(place.text(), "");
                fs::write(place.file(), "- [ ] a\n- [ ] mine\n").unwrap();
            }
            assert_eq!(place.text(), "- [ ] a\n- [ ] mine\n", "{what}");
            place.quiesce("a");
            assert_eq!(place.text(), "- [x] a\n- [ ] mine\n", "{what}");
        }
    }

    fn append(file: &Path, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_file_deleted_in_between_stays_deleted() {
        let place = Place::new("- [ ] a\n");
        let ticked = place.tick_with(&|text| {
            fs::remove_file(place.file()).unwrap();
            plan(text, "a")
        });
        assert_eq!(ticked, Ticked::NotFound);
        assert!(!place.file().exists());
    }

    #[test]
    fn what_an_editor_writes_into_the_old_inode_comes_back() {
        let place = Place::new("- [ ] a\n");
        let mut editor = fs::OpenOptions::new()
            .write(true)
            .open(place.file())
            .unwrap();
        assert_eq!(place.tick("a"), Ticked::Done);
        editor.set_len(0).unwrap();
        editor.write_all(b"# Title\n- [ ] a\n- [ ] half").unwrap();
        assert_eq!(place.settle(), [Settled::PutBack]);
        // Its inode is in place again: what it goes on writing is not lost either.
        editor.write_all(b" and half\n").unwrap();
        assert_eq!(place.text(), "# Title\n- [ ] a\n- [ ] half and half\n");
        place.quiesce("a");
        assert_eq!(place.text(), "# Title\n- [x] a\n- [ ] half and half\n");
    }

    #[test]
    fn what_is_appended_to_the_old_inode_is_appended_once() {
        let place = Place::new("- [ ] a\n");
        let mut log = fs::OpenOptions::new()
            .append(true)
            .open(place.file())
            .unwrap();
        assert_eq!(place.tick("a"), Ticked::Done);
        log.write_all(b"- [ ] one\n").unwrap();
        assert_eq!(place.settle(), [Settled::Appended]);
        log.write_all(b"- [ ] two\n").unwrap();
        assert_eq!(place.settle(), [Settled::Appended]);
        place.quiesce("a");
        assert_eq!(place.text(), "- [x] a\n- [ ] one\n- [ ] two\n");
    }

    #[test]
    fn an_old_inode_written_after_two_ticks_comes_back() {
        let place = Place::new("- [ ] a\n- [ ] b\n");
        let editor = fs::OpenOptions::new()
            .write(true)
            .open(place.file())
            .unwrap();
        assert_eq!(place.tick("a"), Ticked::Done);
        assert_eq!(place.tick("b"), Ticked::Done);
        editor.set_len(0).unwrap();
        (&editor).write_all(b"- [ ] c\n- [ ] a\n- [ ] b\n").unwrap();
        assert_eq!(place.settle(), [Settled::PutBack]);
        place.quiesce("a");
        place.quiesce("b");
        assert_eq!(place.text(), "- [ ] c\n- [x] a\n- [x] b\n");
    }

    #[test]
    fn of_two_crossing_saves_the_newer_is_in_place_and_the_older_is_kept() {
        let place = Place::new("- [ ] a\n");
        let editor = fs::OpenOptions::new()
            .write(true)
            .open(place.file())
            .unwrap();
        assert_eq!(place.tick("a"), Ticked::Done);
        editor.set_len(0).unwrap();
        (&editor).write_all(b"from the old editor\n").unwrap();
        let now = SystemTime::now();
        editor.set_modified(now).unwrap();
        fs::write(place.file(), "- [x] a\nfrom another\n").unwrap();
        let file = File::options().write(true).open(place.file()).unwrap();
        file.set_modified(now + Duration::from_secs(5)).unwrap();
        let [Settled::Kept(kept)] = &place.settle()[..] else {
            panic!("one file must be kept");
        };
        assert_eq!(place.text(), "- [x] a\nfrom another\n");
        assert_eq!(fs::read_to_string(kept).unwrap(), "from the old editor\n");
        assert_eq!(place.settle(), [], "and nothing touches it again");
        assert!(kept.exists());
    }

    #[test]
    fn a_crash_before_the_swap_leaves_nothing() {
        let place = Place::new("- [ ] a\n");
        let before = read(File::open(place.file()).unwrap()).unwrap();
        let list = Path::new(LIST);
        Held::create(
            &place.scratch,
            &place.root,
            list,
            "k",
            &before,
            b"- [x] a\n",
        )
        .unwrap();
        assert_eq!(place.settle(), []);
        assert_eq!(fs::read_dir(&place.scratch).unwrap().count(), 0);
        assert_eq!(place.text(), "- [ ] a\n");
    }

    #[test]
    fn an_edit_whose_file_is_gone_is_kept() {
        let place = Place::new("- [ ] a\n");
        let editor = fs::OpenOptions::new()
            .append(true)
            .open(place.file())
            .unwrap();
        assert_eq!(place.tick("a"), Ticked::Done);
        (&editor).write_all(b"late\n").unwrap();
        fs::remove_file(place.file()).unwrap();
        symlink("/etc/hostname", place.file()).unwrap();
        let [Settled::Kept(kept)] = &place.settle()[..] else {
            panic!("one file must be kept");
        };
        assert_eq!(fs::read_to_string(kept).unwrap(), "- [ ] a\nlate\n");
        assert_eq!(place.settle(), []);
    }

    /// One edit races with one tick, many times, in every way editors save.
    #[test]
    fn no_edit_is_ever_lost() {
        type Edit = fn(&Path, &str, &Barrier);
        let edits: [(&str, Edit); 4] = [
            ("in place", |file, line, start| {
                start.wait();
                let text = fs::read_to_string(file).unwrap() + line;
                fs::write(file, text).unwrap();
            }),
            ("rename", |file, line, start| {
                start.wait();
                let text = fs::read_to_string(file).unwrap() + line;
                let other = file.with_extension("tmp");
                fs::write(&other, text).unwrap();
                fs::rename(other, file).unwrap();
            }),
            ("append", |file, line, start| {
                start.wait();
                append(file, line);
            }),
            ("opened before", |file, line, start| {
                let text = fs::read_to_string(file).unwrap() + line;
                let mut open = fs::OpenOptions::new().write(true).open(file).unwrap();
                start.wait();
                open.set_len(0).unwrap();
                open.write_all(text.as_bytes()).unwrap();
            }),
        ];
        let place = Place::new("");
        let mut expected = String::new();
        for round in 0..160 {
            let (what, edit) = edits[round % edits.len()];
            let item = format!("item {round}");
            append(&place.file(), &format!("- [ ] {item}\n"));
            let (line, start) = (format!("{what} {round}\n"), Barrier::new(2));
            std::thread::scope(|scope| {
                scope.spawn(|| edit(&place.file(), &line, &start));
                start.wait();
                place.tick(&item);
            });
            place.quiesce(&item);
            expected.push_str(&["- [x] ", &item, "\n", &line].concat());
            assert_eq!(place.text(), expected, "{what}");
        }
    }
}
