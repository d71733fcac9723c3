//! The sample project of `demo`: a tiny Python library, the script that plays its agents, and the
//! check of what they made.
//!
//! Called by `demo` and by end-to-end tests. Everything is embedded, so the one binary needs no files
//! beside it. Must never touch a repository but the one it is told to, and never call the git command.

mod demo;
mod errands;
mod features;
mod verify;

use std::path::{Path, PathBuf};

use git2::{ErrorCode, FileMode, Oid, Repository, RepositoryInitOptions, Signature, Time};
use include_dir::{Dir, DirEntry, include_dir};

use crate::model::CommitId;

pub use demo::{demo_script, list_file};
pub use errands::{
    ERRANDS, IGNORED, NOTE_DIGITS, NOTED, NOTES, REGISTER, errand, errand_subject, errands_script,
};
pub use features::{AtFirst, FEATURES, Feature, WORKERS, item};
pub use verify::{Verified, verify};

/// The branch of the sample's one commit.
pub const BRANCH: &str = "main";

static REPO: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/src/testing/sample/repo");

const DIRECTION: &str = "PROJECT_DIRECTION.md";

/// 2026-01-01T00:00:00Z, so that the first commit has the same id everywhere.
const COMMITTED: i64 = 1_767_225_600;

#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("{} is there already; choose a path that is free", .0.display())]
    Exists(PathBuf),
    #[error("the sample repository {} failed: {source}", path.display())]
    Git {
        path: PathBuf,
        #[source]
        source: git2::Error,
    },
    #[error("the result is not what the direction asks for: {}", .0.join("; "))]
    Incomplete(Vec<String>),
}

/// Makes a bare repository at `path` (which must not exist) with one commit on `main`.
/// The commit is the same on every machine.
///
/// # Errors
/// When the path is taken or cannot be written.
pub fn create(path: &Path) -> Result<CommitId, SampleError> {
    create_from(path, |repository| write_tree(repository, &REPO))
}

/// The same without a direction, so that nobody plans, and with these files beside the sample's.
///
/// # Errors
/// When the path is taken or cannot be written.
pub fn create_without_direction(
    path: &Path,
    files: &[(String, String)],
) -> Result<CommitId, SampleError> {
    create_from(path, |repository| {
        let sample = repository.find_tree(write_tree(repository, &REPO)?)?;
        let mut builder = repository.treebuilder(Some(&sample))?;
        builder.remove(DIRECTION)?;
        for (name, text) in files {
            let blob = repository.blob(text.as_bytes())?;
            builder.insert(name, blob, FileMode::Blob.into())?;
        }
        builder.write()
    })
}

type MakeTree<'a> = &'a dyn Fn(&Repository) -> Result<Oid, git2::Error>;

fn create_from(
    path: &Path,
    tree: impl Fn(&Repository) -> Result<Oid, git2::Error>,
) -> Result<CommitId, SampleError> {
    if path.symlink_metadata().is_ok() {
        return Err(SampleError::Exists(path.to_owned()));
    }
    commit_sample(path, &tree)
        .map(|id| CommitId::new(id.to_string()))
        .map_err(|source| SampleError::Git {
            path: path.to_owned(),
            source,
        })
}

fn commit_sample(path: &Path, make_tree: MakeTree<'_>) -> Result<Oid, git2::Error> {
    let mut options = RepositoryInitOptions::new();
    // No template: a template directory of the machine must not put hooks into the sample.
    options
        .bare(true)
        .no_reinit(true)
        .external_template(false)
        .initial_head(BRANCH);
    let repository = Repository::init_opts(path, &options)?;
    let tree = repository.find_tree(make_tree(&repository)?)?;
    let author = Signature::new(
        "Orchestrator Demo",
        "demo@orchestrator.invalid",
        &Time::new(COMMITTED, 0),
    )?;
    let reference = format!("refs/heads/{BRANCH}");
    repository.commit(
        Some(&reference),
        &author,
        &author,
        "Count words and lines\n",
        &tree,
        &[],
    )
}

fn write_tree(repository: &Repository, dir: &Dir<'_>) -> Result<Oid, git2::Error> {
    let mut builder = repository.treebuilder(None)?;
    for entry in dir.entries() {
        let Some(name) = entry.path().file_name() else {
            continue;
        };
        let (id, mode) = match entry {
            DirEntry::Dir(dir) => (write_tree(repository, dir)?, FileMode::Tree),
            DirEntry::File(file) => (repository.blob(file.contents())?, FileMode::Blob),
        };
        builder.insert(name, id, mode.into())?;
    }
    builder.write()
}

/// The text of a file in a tree; `None` if it is not there.
fn file_in(
    repository: &Repository,
    tree: &git2::Tree<'_>,
    path: &str,
) -> Result<Option<String>, git2::Error> {
    match tree.get_path(Path::new(path)) {
        Ok(entry) => {
            let blob = repository.find_blob(entry.id())?;
            Ok(Some(String::from_utf8_lossy(blob.content()).into_owned()))
        }
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_one_commit_and_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = create(&dir.path().join("a.git")).unwrap();
        let second = create(&dir.path().join("b.git")).unwrap();
        assert_eq!(first, second);
        let repository = Repository::open_bare(dir.path().join("a.git")).unwrap();
        let head = repository.head().unwrap();
        assert_eq!(head.name().unwrap(), "refs/heads/main");
        let commit = head.peel_to_commit().unwrap();
        assert_eq!(commit.parent_count(), 0);
        let tree = commit.tree().unwrap();
        for path in [
            "PROJECT_DIRECTION.md",
            "Makefile",
            ".gitignore",
            "tests/__init__.py",
        ] {
            assert!(
                file_in(&repository, &tree, path).unwrap().is_some(),
                "{path}"
            );
        }
    }

    #[test]
    fn without_a_direction_there_are_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.git");
        create_without_direction(&path, &[("LIST.md".into(), "- [ ] x\n".into())]).unwrap();
        let repository = Repository::open_bare(&path).unwrap();
        let tree = repository.head().unwrap().peel_to_tree().unwrap();
        assert_eq!(file_in(&repository, &tree, DIRECTION).unwrap(), None);
        let list = file_in(&repository, &tree, "LIST.md").unwrap();
        assert_eq!(list.as_deref(), Some("- [ ] x\n"));
        assert!(file_in(&repository, &tree, "Makefile").unwrap().is_some());
    }

    #[test]
    fn a_path_that_is_taken_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = create(dir.path()).unwrap_err();
        assert!(matches!(error, SampleError::Exists(_)), "{error}");
    }
}
