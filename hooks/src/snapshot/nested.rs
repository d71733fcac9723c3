//! Repositories inside the checkout: their files as plain files, what is staged in them, and their
//! commits that no remote of theirs has, as a bundle.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::git::{Git, path_of};
use super::look::{Extra, Item, Kind, MAX_FILES, Seen, staged_entry};

/// Repositories in repositories.
const MAX_DEPTH: usize = 8;
const MAX_REPOSITORIES: usize = 200;
/// Of the commits of one.
const MAX_BUNDLE: usize = 64 * 1024 * 1024;

/// Takes in what lies in `path`, a submodule or a directory that git does not look into.
pub(super) fn look(workspace: &Path, path: &[u8], depth: usize, ignored: bool, seen: &mut Seen) {
    let directory = workspace.join(path_of(path));
    if directory.join(".git").symlink_metadata().is_err() {
        return;
    }
    if depth > MAX_DEPTH || seen.nested.len() >= MAX_REPOSITORIES {
        seen.leave_out(path, "too many repositories inside each other");
        return;
    }
    if seen.nested.iter().any(|known| known == path) {
        return;
    }
    seen.nested.push(path.to_vec());
    let git = Git::nested(directory);
    let mut inner = BTreeSet::new();
    let listed = if ignored {
        Err(io::Error::other("everything is wanted"))
    } else {
        git.run(&[
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
    };
    match listed {
        Ok(listed) => {
            for name in listed
                .split(|&byte| byte == 0)
                .filter(|name| !name.is_empty())
            {
                take(workspace, &joined(path, name), seen, &mut inner);
            }
        }
        // Damaged, or wanted whole.
        Err(_) => walk(workspace, path, seen, &mut inner),
    }
    staged(&git, path, seen);
    let refs = git.run(&["for-each-ref", "--format=%(objectname) %(refname)"]);
    let head = git.run(&["rev-parse", "-q", "--verify", "HEAD"]);
    seen.nested_refs.extend([
        path.to_vec(),
        refs.unwrap_or_default(),
        head.unwrap_or_default(),
    ]);
    for path in inner {
        look(workspace, &path, depth + 1, ignored, seen);
    }
}

fn take(workspace: &Path, path: &[u8], seen: &mut Seen, inner: &mut BTreeSet<Vec<u8>>) {
    let plain = path.strip_suffix(b"/").unwrap_or(path);
    match workspace.join(path_of(plain)).symlink_metadata() {
        Ok(about) if about.is_dir() => {
            inner.insert(plain.to_vec());
        }
        Ok(_) if seen.items.len() < 2 * MAX_FILES => seen.items.push(Item {
            path: plain.to_vec(),
            kind: Kind::Nested,
        }),
        Ok(_) => seen.leave_out(plain, "too many files in repositories inside the checkout"),
        Err(_) => {}
    }
}

pub(super) fn walk(workspace: &Path, path: &[u8], seen: &mut Seen, inner: &mut BTreeSet<Vec<u8>>) {
    let entries = match fs::read_dir(workspace.join(path_of(path))) {
        Ok(entries) => entries,
        Err(error) => return seen.leave_out(path, format!("cannot be read: {error}")),
    };
    for entry in entries.flatten() {
        let name = entry.file_name().into_encoded_bytes();
        let full = joined(path, &name);
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if name == b".git" {
        } else if !is_directory {
            take(workspace, &full, seen, inner);
        } else if entry.path().join(".git").symlink_metadata().is_ok() {
            inner.insert(full);
        } else {
            walk(workspace, &full, seen, inner);
        }
    }
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    [directory, b"/", name].concat()
}

fn staged(git: &Git, path: &[u8], seen: &mut Seen) {
    let arguments = [
        "status",
        "--porcelain=v2",
        "-z",
        "--untracked-files=no",
        "--ignore-submodules=all",
        "--no-renames",
    ];
    let Ok(said) = git.run(&arguments) else {
        seen.leave_out(&joined(path, b".git/index"), "its index cannot be read");
        return;
    };
    for entry in said.split(|&byte| byte == 0) {
        let parts: Vec<&[u8]> = entry.splitn(9, |&byte| byte == b' ').collect();
        if let &[b"1", xy, _, _, mode, _, _, id, name] = parts.as_slice()
            && xy.first() != Some(&b'.')
        {
            let mut one = staged_entry(&joined(path, name), mode, 0, id);
            one.repository = path.to_vec();
            seen.staged.push(one);
        }
        let parts: Vec<&[u8]> = entry.splitn(11, |&byte| byte == b' ').collect();
        if let &[b"u", _, _, m1, m2, m3, _, h1, h2, h3, name] = parts.as_slice() {
            for (stage, (mode, id)) in (1..).zip([(m1, h1), (m2, h2), (m3, h3)]) {
                let mut one = staged_entry(&joined(path, name), mode, stage, id);
                one.repository = path.to_vec();
                if mode != b"000000" {
                    seen.staged.push(one);
                }
            }
        }
    }
}

/// Their commits, each as `nested/PATH.bundle`.
pub(super) fn bundles(workspace: &Path, seen: &mut Seen) {
    for path in seen.nested.clone() {
        commits(&Git::nested(workspace.join(path_of(&path))), &path, seen);
    }
}

/// All that no remote of it has. One thread packs the same every time.
fn commits(git: &Git, path: &[u8], seen: &mut Seen) {
    let name = [b"nested/", path, b".bundle"].concat();
    let tips = git.run(&[
        "rev-list",
        "--max-count=1",
        "--all",
        "HEAD",
        "--not",
        "--remotes",
    ]);
    // Before its first commit there is none.
    if tips.is_ok_and(|tips| tips.is_empty()) {
        return;
    }
    let arguments = [
        "-c",
        "pack.threads=1",
        "bundle",
        "create",
        "-q",
        "--version=2",
        "-",
        "--all",
        "HEAD",
        "--not",
        "--remotes",
    ];
    match git.run(&arguments) {
        Ok(content) if content.len() <= MAX_BUNDLE => seen.extras.push(Extra { name, content }),
        Ok(_) => seen.leave_out(path, "its commits have more than 64 MiB"),
        Err(_) => {
            if git.run(&["rev-parse", "-q", "--verify", "HEAD"]).is_ok() {
                seen.leave_out(path, "its commits could not be bundled");
            }
        }
    }
}
