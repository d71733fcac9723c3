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

mod held;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::held::{Held, Print};
use self::target::{Target, found, read};

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
