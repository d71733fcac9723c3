//! What the last snapshot saw, so that a checkout in which nothing changed costs no reading.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::git::path_of;
use super::heads::Heads;
use super::look::Seen;

/// In the git directory.
const FILE: &str = "orchestrator-rescue-last";
/// A file that changed so shortly before the look may change again within the same tick of its clock.
const RACY: Duration = Duration::from_secs(2);

/// Stands for everything that a snapshot would read. `None`: something changed just now, so it would
/// stand for nothing.
pub(super) fn signature(
    workspace: &Path,
    seen: &Seen,
    heads: &Heads,
    settings: &[String],
) -> Option<String> {
    let settled = SystemTime::now()
        .checked_sub(RACY)?
        .duration_since(UNIX_EPOCH)
        .ok()?;
    let mut one = DefaultHasher::new();
    let mut two = DefaultHasher::new();
    two.write_u8(1);
    let mut add = |part: &[u8]| {
        part.hash(&mut one);
        part.hash(&mut two);
    };
    add(seen.head.as_deref().unwrap_or("-").as_bytes());
    for setting in settings {
        add(setting.as_bytes());
    }
    for item in &seen.items {
        add(&item.path);
        add(item.kind.word().as_bytes());
        let Ok(about) = workspace.join(path_of(&item.path)).symlink_metadata() else {
            add(b"absent");
            continue;
        };
        if u64::try_from(about.ctime()).is_ok_and(|changed| changed >= settled.as_secs()) {
            return None;
        }
        let stamp = [
            about.dev(),
            about.ino(),
            about.len(),
            u64::from(about.mode()),
            about.mtime() as u64,
            about.mtime_nsec() as u64,
            about.ctime() as u64,
            about.ctime_nsec() as u64,
        ];
        for number in stamp {
            add(&number.to_le_bytes());
        }
    }
    for staged in &seen.staged {
        add(&staged.path);
        add(format!("{} {} {}", staged.mode, staged.stage, staged.id).as_bytes());
    }
    for extra in &seen.extras {
        add(&extra.name);
        add(&extra.content);
    }
    for refs in &seen.nested_refs {
        add(refs);
    }
    for (path, why) in &seen.left_out {
        add(path);
        add(why.as_bytes());
    }
    for candidate in &heads.candidates {
        add(&candidate.name);
        add(candidate.id.as_bytes());
    }
    Some(format!("{:016x}{:016x}", one.finish(), two.finish()))
}

/// Signature and outcome of the last look: a snapshot's commit, or `-` when there was nothing to keep.
pub(super) fn remembered(git_directory: &Path) -> Option<(String, String)> {
    let text = fs::read_to_string(git_directory.join(FILE)).ok()?;
    let (signature, outcome) = text.trim().split_once(' ')?;
    Some((signature.to_owned(), outcome.to_owned()))
}

pub(super) fn remember(git_directory: &Path, signature: &str, outcome: &str) -> io::Result<()> {
    let new: PathBuf = git_directory.join(format!("{FILE}.{}", std::process::id()));
    fs::write(&new, format!("{signature} {outcome}\n"))?;
    fs::rename(new, git_directory.join(FILE))
}
