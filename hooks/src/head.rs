//! The commit at `HEAD` of the agent's worktree, read from git's files without running git.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// A `HEAD`, a loose ref, a `.git` file: one short line each.
const MAX_LINE_FILE_BYTES: u64 = 4096;
/// `packed-refs` of a very large repository.
const MAX_PACKED_BYTES: u64 = 32 * 1024 * 1024;
/// Symbolic refs that point to symbolic refs; git allows five.
const MAX_HOPS: usize = 5;

/// The commit, or `None` when it cannot be told: no repository, an unborn branch, a damaged file.
pub(crate) fn commit_at_head(workspace: &Path) -> Option<String> {
    let git = git_directory(workspace)?;
    let common = common_directory(&git);
    let mut name = "HEAD".to_owned();
    for _ in 0..MAX_HOPS {
        let line = read_line(&git.join(&name))
            .or_else(|| read_line(&common.join(&name)))
            .or_else(|| packed(&common, &name))?;
        match line.strip_prefix("ref:") {
            None => return is_commit(&line).then_some(line),
            Some(target) => {
                target.trim().clone_into(&mut name);
                if !is_plain(&name) {
                    return None;
                }
            }
        }
    }
    None
}

/// `.git` is a directory, or a file that names one (`gitdir: ...`).
pub(crate) fn git_directory(workspace: &Path) -> Option<PathBuf> {
    let git = workspace.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let line = read_line(&git)?;
    Some(workspace.join(line.strip_prefix("gitdir:")?.trim()))
}

/// Where the branches of a linked worktree are kept; else the directory itself.
fn common_directory(git: &Path) -> PathBuf {
    match read_line(&git.join("commondir")) {
        Some(path) => git.join(path),
        None => git.to_owned(),
    }
}

fn packed(common: &Path, name: &str) -> Option<String> {
    let file = File::open(common.join("packed-refs")).ok()?;
    BufReader::new(file.take(MAX_PACKED_BYTES))
        .lines()
        .map_while(Result::ok)
        .find_map(|line| {
            let (commit, reference) = line.split_once(' ')?;
            (reference == name).then(|| commit.to_owned())
        })
}

fn read_line(path: &Path) -> Option<String> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(MAX_LINE_FILE_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    Some(text.lines().next()?.trim().to_owned())
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A ref name that stays below the git directory.
fn is_plain(name: &str) -> bool {
    name.starts_with("refs/") && !name.split('/').any(|part| part == ".." || part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A directory that goes away with the test; std has none.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir()
                .join(format!("orchestrator-hook-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join(".git/refs/heads/agent")).expect("directory");
            Self(path)
        }

        fn write(&self, path: &str, text: &str) -> &Self {
            fs::write(self.0.join(path), text).expect("write");
            self
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_loose_branch() {
        let d = Directory::new("loose");
        d.write(".git/HEAD", "ref: refs/heads/agent/worker-1\n")
            .write(".git/refs/heads/agent/worker-1", &format!("{COMMIT}\n"));
        assert_eq!(commit_at_head(&d.0).as_deref(), Some(COMMIT));
    }

    #[test]
    fn a_packed_branch() {
        let d = Directory::new("packed");
        d.write(".git/HEAD", "ref: refs/heads/main\n").write(
            ".git/packed-refs",
            &format!("# pack-refs with: peeled fully-peeled sorted\n{COMMIT} refs/heads/main\n"),
        );
        assert_eq!(commit_at_head(&d.0).as_deref(), Some(COMMIT));
    }

    #[test]
    fn a_detached_head() {
        let d = Directory::new("detached");
        d.write(".git/HEAD", COMMIT);
        assert_eq!(commit_at_head(&d.0).as_deref(), Some(COMMIT));
    }

    #[test]
    fn an_unborn_branch_a_loop_and_a_way_out_give_nothing() {
        let d = Directory::new("bad");
        d.write(".git/HEAD", "ref: refs/heads/main\n");
        assert_eq!(commit_at_head(&d.0), None);
        d.write(".git/refs/heads/main", "ref: refs/heads/main\n");
        assert_eq!(commit_at_head(&d.0), None);
        d.write("secret", COMMIT)
            .write(".git/HEAD", "ref: refs/../../secret\n");
        assert_eq!(commit_at_head(&d.0), None);
        assert_eq!(commit_at_head(Path::new("/nonexistent")), None);
    }
}
