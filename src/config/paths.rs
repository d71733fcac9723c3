//! Paths as people write them: home directories, relative ones, and which lies inside which.

use std::path::{Component, Path, PathBuf};

/// Why a path could not be worked out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PathError {
    /// `~` was used and no home directory is known.
    NoHome,
    /// `~name`: homes of others are not looked up.
    OtherHome,
}

/// Splits a leading `~` off: the directory to start at, and the rest.
fn split_home<'a>(
    text: &'a str,
    base: &Path,
    home: Option<&Path>,
) -> Result<(PathBuf, &'a str), PathError> {
    let Some(rest) = text.strip_prefix('~') else {
        return Ok((base.to_owned(), text));
    };
    if !rest.is_empty() && !rest.starts_with('/') {
        return Err(PathError::OtherHome);
    }
    let home = home.ok_or(PathError::NoHome)?;
    Ok((home.to_owned(), rest.trim_start_matches('/')))
}

/// An absolute path from what was written: `~` expanded, relative ones start at `base`.
pub(super) fn absolute(text: &str, base: &Path, home: Option<&Path>) -> Result<PathBuf, PathError> {
    let (start, rest) = split_home(text, base, home)?;
    Ok(normal(&start.join(rest)))
}

/// An absolute glob pattern. What is put in front is escaped: a `[` in the name of the home or
/// config directory is no pattern.
pub(super) fn absolute_glob(
    text: &str,
    base: &Path,
    home: Option<&Path>,
) -> Result<String, PathError> {
    let (start, rest) = split_home(text, base, home)?;
    if rest.starts_with('/') {
        return Ok(rest.to_owned());
    }
    let start = glob::Pattern::escape(&start.to_string_lossy());
    let rest = rest.strip_prefix("./").unwrap_or(rest);
    Ok(format!("{}/{rest}", start.trim_end_matches('/')))
}

/// Without `.` and `..`, by text alone.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                result.pop();
            }
            other => result.push(other),
        }
    }
    result
}

/// The path with symbolic links followed as far as it exists.
pub(super) fn real(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        if let Ok(real) = existing.canonicalize() {
            return normal(&missing.iter().rev().fold(real, |at, part| at.join(part)));
        }
        match (existing.parent(), existing.components().next_back()) {
            (Some(parent), Some(last)) => {
                missing.push(last.as_os_str().to_owned());
                existing = parent;
            }
            _ => return normal(path),
        }
    }
}

/// Whether one of two paths is, or contains, the other.
pub(super) fn nested(one: &Path, other: &Path) -> bool {
    let (one, other) = (real(one), real(other));
    one.starts_with(&other) || other.starts_with(&one)
}

/// A git work tree around a directory.
pub(super) struct WorkTree {
    pub toplevel: PathBuf,
    pub remotes: Vec<String>,
}

/// The innermost git work tree that `directory` lies in. Only git's configuration file is read;
/// no repository is opened.
pub(super) fn work_tree_around(directory: &Path) -> Option<WorkTree> {
    let directory = real(directory);
    let toplevel = directory
        .ancestors()
        .find(|ancestor| ancestor.join(".git").exists())?;
    Some(WorkTree {
        toplevel: toplevel.to_owned(),
        remotes: remotes(&toplevel.join(".git")).unwrap_or_default(),
    })
}

/// The addresses of all remotes; `None` when the configuration cannot be read.
fn remotes(dot_git: &Path) -> Option<Vec<String>> {
    let config = git2::Config::open(&git_directory(dot_git)?.join("config")).ok()?;
    let mut urls = Vec::new();
    let entries = config.entries(Some("^remote\\..*\\.url$")).ok()?;
    entries
        .for_each(|entry| urls.extend(entry.value().ok().map(str::to_owned)))
        .ok()?;
    Some(urls)
}

/// Follows the `.git` file of a linked work tree or submodule to the common directory.
fn git_directory(dot_git: &Path) -> Option<PathBuf> {
    if dot_git.is_dir() {
        return Some(dot_git.to_owned());
    }
    let parent = dot_git.parent()?;
    let text = std::fs::read_to_string(dot_git).ok()?;
    let directory = parent.join(text.strip_prefix("gitdir:")?.trim());
    match std::fs::read_to_string(directory.join("commondir")) {
        Ok(common) => Some(directory.join(common.trim())),
        Err(_) => Some(directory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "/home/[me]";

    #[test]
    fn tilde_and_relative_paths_become_absolute() {
        let (base, home) = (Path::new("/etc/fleet"), Some(Path::new(HOME)));
        let path = |text| absolute(text, base, home).unwrap().display().to_string();
        assert_eq!(path("~/x"), "/home/[me]/x");
        assert_eq!(path("~"), "/home/[me]");
        assert_eq!(path("../x/./y"), "/etc/x/y");
        assert_eq!(path("/x"), "/x");
        assert_eq!(absolute("~you/x", base, home), Err(PathError::OtherHome));
        assert_eq!(absolute("~/x", base, None), Err(PathError::NoHome));
    }

    #[test]
    fn only_what_was_written_is_a_pattern() {
        let home = Some(Path::new(HOME));
        let pattern = absolute_glob("~/c/*.json", Path::new("/e"), home).unwrap();
        let pattern = glob::Pattern::new(&pattern).unwrap();
        assert!(pattern.matches("/home/[me]/c/a.json"));
        assert!(!pattern.matches("/home/m/c/a.json"));
        let relative = absolute_glob("./c/*.json", Path::new("/e"), home).unwrap();
        assert_eq!(relative, "/e/c/*.json");
        assert_eq!(
            absolute_glob("/c/*", Path::new("/e"), home).unwrap(),
            "/c/*"
        );
    }

    #[test]
    fn nesting_is_seen_through_links_and_for_what_does_not_exist_yet() {
        let directory = tempfile::tempdir().unwrap();
        let real_one = directory.path().join("real");
        std::fs::create_dir(&real_one).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&real_one, &link).unwrap();
        assert!(nested(&real_one, &link.join("not/there")));
        assert!(nested(&link.join("not/there"), &real_one));
        assert!(!nested(&real_one, &directory.path().join("realm")));
    }

    #[test]
    fn the_remotes_of_a_work_tree_around_are_found_also_from_a_linked_one() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("main");
        let git = main.join(".git");
        std::fs::create_dir_all(git.join("worktrees/w")).unwrap();
        std::fs::write(
            git.join("config"),
            "[remote \"up\"]\n url = https://h/a/b\n",
        )
        .unwrap();
        std::fs::write(git.join("worktrees/w/commondir"), "../..\n").unwrap();
        let linked = directory.path().join("linked/deep");
        std::fs::create_dir_all(&linked).unwrap();
        let pointer = format!("gitdir: {}\n", git.join("worktrees/w").display());
        std::fs::write(directory.path().join("linked/.git"), pointer).unwrap();
        for inside in [&main, &linked] {
            let tree = work_tree_around(inside).unwrap();
            assert_eq!(tree.remotes, ["https://h/a/b"]);
            assert!(inside.starts_with(tree.toplevel));
        }
    }
}
