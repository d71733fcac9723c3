//! What in the checkout is not as its `HEAD` has it. Reads; changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::git::{Git, is_id, path_of};
use super::nested;

/// Files of one snapshot. What is beyond is left out, and told.
pub(super) const MAX_FILES: usize = 50_000;
/// Files git was told not to look at are compared by content; beyond this they are just taken.
const MAX_COMPARED: usize = 2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// In the index as in the working tree, and not in `HEAD`.
    Staged,
    Changed,
    Untracked,
    /// In a repository inside the checkout.
    Nested,
    Ignored,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Changed => "changed",
            Self::Untracked => "untracked",
            Self::Nested => "nested",
            Self::Ignored => "ignored",
        }
    }
}

/// A path of the working tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
}

/// An entry of an index that differs from its `HEAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) path: Vec<u8>,
    /// `000000`: staged for deletion.
    pub(super) mode: String,
    /// 0, or 1 to 3 in a conflict: base, ours, theirs.
    pub(super) stage: u8,
    pub(super) id: String,
    /// The repository that has its content, below the checkout; empty: the checkout's own.
    pub(super) repository: Vec<u8>,
}

/// Something that is kept under a name of its own: state of an operation, commits of a nested
/// repository, a damaged index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) name: Vec<u8>,
    pub(super) content: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Seen {
    /// `HEAD`; none before the first commit.
    pub(super) head: Option<String>,
    pub(super) items: Vec<Item>,
    pub(super) staged: Vec<Staged>,
    pub(super) extras: Vec<Extra>,
    /// Repositories inside the checkout, and what their references say.
    pub(super) nested: Vec<Vec<u8>>,
    pub(super) nested_refs: Vec<Vec<u8>>,
    pub(super) left_out: Vec<(Vec<u8>, String)>,
}

impl Seen {
    pub(super) fn leave_out(&mut self, path: &[u8], why: impl Into<String>) {
        self.left_out.push((path.to_vec(), why.into()));
    }
}

/// Looks at the checkout in `workspace`, whose git directory is `git_directory`.
pub(super) fn look(
    git: &Git,
    workspace: &Path,
    git_directory: &Path,
    ignored: bool,
) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut nested = BTreeSet::new();
    let scratch = super::Scratch::new(git_directory, "index")?;
    let other;
    let mut git = git;
    let said = match status(git, ignored) {
        Ok(said) => said,
        Err(error) => {
            other = replacement(git, git_directory, &scratch.0, &mut seen, error)?;
            git = &other;
            status(git, ignored)?
        }
    };
    take_status(&said, &mut seen, &mut nested)?;
    let listed = git.run(&["ls-files", "-s", "-v", "-z"])?;
    take_index(git, workspace, &listed, &mut seen, &mut nested);
    for path in nested {
        nested::look(workspace, &path, 0, ignored, &mut seen);
    }
    state_of_operation(git_directory, &mut seen);
    seen.items.sort();
    seen.items.dedup_by(|a, b| a.path == b.path);
    seen.nested.sort();
    Ok(seen)
}

struct Status {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn status(git: &Git, ignored: bool) -> io::Result<Status> {
    let mut arguments = vec![
        "status",
        "--porcelain=v2",
        "-z",
        "--branch",
        "--untracked-files=all",
        "--ignore-submodules=none",
        "--no-renames",
        "--no-ahead-behind",
    ];
    if ignored {
        arguments.push("--ignored=traditional");
    }
    let output = git.output(&arguments)?;
    Ok(Status {
        stdout: output.stdout,
        stderr: output.stderr,
    })
}

/// An index that cannot be read is kept as it is, and an empty one or `HEAD`'s takes its place for
/// this look.
fn replacement(
    git: &Git,
    git_directory: &Path,
    file: &Path,
    seen: &mut Seen,
    error: io::Error,
) -> io::Result<Git> {
    let Ok(raw) = fs::read(git_directory.join("index")) else {
        return Err(error);
    };
    let other = git.with_index(file.to_owned());
    if other.run(&["read-tree", "HEAD"]).is_err() {
        other.run(&["read-tree", "--empty"]).map_err(|_| error)?;
    }
    seen.extras.push(Extra {
        name: b"index".to_vec(),
        content: raw,
    });
    Ok(other)
}

fn take_status(status: &Status, seen: &mut Seen, nested: &mut BTreeSet<Vec<u8>>) -> io::Result<()> {
    for entry in status.stdout.split(|&byte| byte == 0) {
        if !entry.is_empty() && take_entry(entry, seen, nested).is_none() {
            let text = String::from_utf8_lossy(entry);
            return Err(io::Error::other(format!("git status said {text:?}")));
        }
    }
    for line in status.stderr.split(|&byte| byte == b'\n') {
        // "warning: could not open directory 'x/': Permission denied"
        let Some(rest) = line.strip_prefix(b"warning: could not open directory '") else {
            continue;
        };
        if let Some(end) = rest.iter().rposition(|&byte| byte == b'\'') {
            seen.leave_out(&rest[..end], "the directory cannot be read");
        }
    }
    Ok(())
}

/// Field counts as in git-status(1), "Porcelain Format Version 2".
fn take_entry(entry: &[u8], seen: &mut Seen, nested: &mut BTreeSet<Vec<u8>>) -> Option<()> {
    match entry.first()? {
        b'#' => {
            let head = entry.strip_prefix(b"# branch.oid ");
            if let Some(id) = head.filter(|id| is_id(id)) {
                seen.head = Some(String::from_utf8_lossy(id).into_owned());
            }
        }
        b'1' => {
            let fields: Vec<&[u8]> = entry.splitn(9, |&byte| byte == b' ').collect();
            let &[_, xy, sub, _, mode, _, _, id, path] = fields.as_slice() else {
                return None;
            };
            let staged = *xy.first()? != b'.';
            if staged {
                seen.staged.push(staged_entry(path, mode, 0, id));
            }
            if *sub.first()? == b'S' {
                nested.insert(path.to_vec());
                return Some(());
            }
            let kind = if staged && *xy.get(1)? == b'.' {
                Kind::Staged
            } else {
                Kind::Changed
            };
            seen.items.push(item(path, kind));
        }
        b'u' => {
            let fields: Vec<&[u8]> = entry.splitn(11, |&byte| byte == b' ').collect();
            let &[_, _, sub, m1, m2, m3, _, h1, h2, h3, path] = fields.as_slice() else {
                return None;
            };
            for (stage, (mode, id)) in (1..).zip([(m1, h1), (m2, h2), (m3, h3)]) {
                if mode != b"000000" {
                    seen.staged.push(staged_entry(path, mode, stage, id));
                }
            }
            if *sub.first()? == b'S' {
                nested.insert(path.to_vec());
            } else {
                seen.items.push(item(path, Kind::Changed));
            }
        }
        b'?' | b'!' => {
            let path = entry.get(2..)?;
            match path.strip_suffix(b"/") {
                Some(directory) => {
                    nested.insert(directory.to_vec());
                }
                None if entry[0] == b'?' => seen.items.push(item(path, Kind::Untracked)),
                None => seen.items.push(item(path, Kind::Ignored)),
            }
        }
        _ => return None,
    }
    Some(())
}

fn item(path: &[u8], kind: Kind) -> Item {
    Item {
        path: path.to_vec(),
        kind,
    }
}

pub(super) fn staged_entry(path: &[u8], mode: &[u8], stage: u8, id: &[u8]) -> Staged {
    Staged {
        path: path.to_vec(),
        mode: String::from_utf8_lossy(mode).into_owned(),
        stage,
        id: String::from_utf8_lossy(id).into_owned(),
        repository: Vec::new(),
    }
}

/// `git ls-files -s -v -z`: submodules, also clean ones, and files git was told not to look at.
fn take_index(
    git: &Git,
    workspace: &Path,
    listed: &[u8],
    seen: &mut Seen,
    nested: &mut BTreeSet<Vec<u8>>,
) {
    let mut unseen: Vec<(&[u8], &[u8], bool)> = Vec::new();
    for entry in listed.split(|&byte| byte == 0) {
        let Some(tab) = entry.iter().position(|&byte| byte == b'\t') else {
            continue;
        };
        let (about, path) = (&entry[..tab], &entry[tab + 1..]);
        let Some(&tag) = about.first() else { continue };
        if about.get(2..8) == Some(b"160000") {
            nested.insert(path.to_vec());
        } else if tag != b'H' && tag != b'M' {
            let id = about.get(9..49).unwrap_or_default();
            unseen.push((path, id, tag.eq_ignore_ascii_case(&b's')));
        }
    }
    let compare = unseen.len() <= MAX_COMPARED;
    for (path, id, sparse) in unseen {
        let there = workspace.join(path_of(path)).symlink_metadata().is_ok();
        // Outside a sparse checkout a file is absent, which is no deletion.
        if (sparse && !there) || (there && compare && raw_id(git, path).as_deref() == Some(id)) {
            continue;
        }
        seen.items.push(item(path, Kind::Changed));
    }
}

fn raw_id(git: &Git, path: &[u8]) -> Option<Vec<u8>> {
    let path = path_of(path);
    let arguments = [
        "hash-object".as_ref(),
        "--no-filters".as_ref(),
        "--".as_ref(),
        path.as_os_str(),
    ];
    let id = git.run(&arguments).ok()?;
    Some(id.trim_ascii().to_vec())
}

/// The files of a rebase, merge, ... in progress: what is still to do, messages, patches.
fn state_of_operation(git_directory: &Path, seen: &mut Seen) {
    const SINGLE: [&str; 10] = [
        "MERGE_HEAD",
        "MERGE_MSG",
        "MERGE_MODE",
        "MERGE_AUTOSTASH",
        "SQUASH_MSG",
        "CHERRY_PICK_HEAD",
        "REVERT_HEAD",
        "BISECT_LOG",
        "BISECT_START",
        "BISECT_TERMS",
    ];
    const DIRECTORIES: [&str; 3] = ["rebase-merge", "rebase-apply", "sequencer"];
    let busy = |name: &&str| git_directory.join(name).exists();
    let one = [
        "MERGE_HEAD",
        "CHERRY_PICK_HEAD",
        "REVERT_HEAD",
        "BISECT_LOG",
        "SQUASH_MSG",
    ];
    if !one.iter().chain(&DIRECTORIES).any(busy) {
        return;
    }
    let mut files: Vec<PathBuf> = SINGLE.iter().map(PathBuf::from).collect();
    for directory in DIRECTORIES {
        let entries = fs::read_dir(git_directory.join(directory));
        for entry in entries.into_iter().flatten().flatten().take(MAX_COMPARED) {
            files.push(Path::new(directory).join(entry.file_name()));
        }
    }
    files.sort();
    for file in files {
        let path = git_directory.join(&file);
        if path.symlink_metadata().is_ok_and(|about| about.is_file())
            && let Ok(content) = fs::read(&path)
        {
            seen.extras.push(Extra {
                name: file.into_os_string().into_encoded_bytes(),
                content,
            });
        }
    }
}
