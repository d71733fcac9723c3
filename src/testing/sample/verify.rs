//! Is everything there that the direction asks for? Read from a commit, never from a checkout.

use std::path::Path;

use git2::{ObjectType, Oid, Repository, TreeWalkMode, TreeWalkResult};
use serde::Serialize;

use super::features::{FEATURES, Feature};
use super::{SampleError, file_in};
use crate::model::CommitId;

/// More commits than this are not counted.
const MOST_COMMITS: usize = 10_000;

/// What a finished demo holds. That its tests are green is for the caller to see, in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Names of the features, in the order of [`FEATURES`]: all of them.
    pub features: Vec<String>,
    /// Commits reachable from the one verified.
    pub commits: usize,
    /// How many of those have more than one parent.
    pub merges: usize,
}

/// Checks the tree of a commit in the bare repository: every new file as written, every edited line
/// there, and no conflict marker anywhere.
///
/// # Errors
/// [`SampleError::Incomplete`] with all that is missing; `Git` when the commit cannot be read.
pub fn verify(repository: &Path, commit: &CommitId) -> Result<Verified, SampleError> {
    let (missing, verified) = inspect(repository, commit).map_err(|source| SampleError::Git {
        path: repository.to_owned(),
        source,
    })?;
    if missing.is_empty() {
        Ok(verified)
    } else {
        Err(SampleError::Incomplete(missing))
    }
}

fn inspect(path: &Path, commit: &CommitId) -> Result<(Vec<String>, Verified), git2::Error> {
    let repository = Repository::open_bare(path)?;
    let id = Oid::from_str(commit.as_str())?;
    let tree = repository.find_commit(id)?.tree()?;
    let mut missing = markers(&repository, &tree)?;
    let mut features = Vec::new();
    for feature in FEATURES {
        let lacks = lacking(&repository, &tree, feature)?;
        if lacks.is_empty() {
            features.push(feature.name.to_owned());
        }
        missing.extend(lacks);
    }
    let (commits, merges) = history(&repository, id)?;
    let verified = Verified {
        features,
        commits,
        merges,
    };
    Ok((missing, verified))
}

fn lacking(
    repository: &Repository,
    tree: &git2::Tree<'_>,
    feature: &Feature,
) -> Result<Vec<String>, git2::Error> {
    let mut lacks = Vec::new();
    for (path, text) in feature.files() {
        match file_in(repository, tree, path)? {
            None => lacks.push(format!("{path} is missing")),
            Some(found) if found != text => lacks.push(format!("{path} is not as written")),
            Some(_) => {}
        }
    }
    for (path, line) in feature.new_lines() {
        let found = file_in(repository, tree, path)?.unwrap_or_default();
        if !found.lines().any(|other| other == line) {
            lacks.push(format!("{path} lacks the line {line:?}"));
        }
    }
    Ok(lacks)
}

fn markers(repository: &Repository, tree: &git2::Tree<'_>) -> Result<Vec<String>, git2::Error> {
    let mut blobs = Vec::new();
    tree.walk(TreeWalkMode::PreOrder, |dir, entry| {
        if entry.kind() == Some(ObjectType::Blob) {
            let name = String::from_utf8_lossy(entry.name_bytes());
            blobs.push((format!("{dir}{name}"), entry.id()));
        }
        TreeWalkResult::Ok
    })?;
    let mut found = Vec::new();
    for (path, id) in blobs {
        let blob = repository.find_blob(id)?;
        let text = String::from_utf8_lossy(blob.content());
        let is_marker = |line: &str| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ");
        if text.lines().any(is_marker) {
            found.push(format!("{path} has conflict markers"));
        }
    }
    Ok(found)
}

fn history(repository: &Repository, from: Oid) -> Result<(usize, usize), git2::Error> {
    let mut walk = repository.revwalk()?;
    walk.push(from)?;
    let (mut commits, mut merges) = (0, 0);
    for id in walk.take(MOST_COMMITS) {
        commits += 1;
        if repository.find_commit(id?)?.parent_count() > 1 {
            merges += 1;
        }
    }
    Ok((commits, merges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_sample_lacks_every_feature() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.git");
        let commit = super::super::create(&path).unwrap();
        let error = verify(&path, &commit).unwrap_err().to_string();
        for feature in FEATURES {
            let module = format!("textstats/{}.py is missing", feature.name);
            assert!(error.contains(&module), "{error}");
        }
        assert!(
            error.contains("textstats/report.py lacks the line"),
            "{error}"
        );
    }
}
