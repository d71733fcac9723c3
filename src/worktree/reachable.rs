//! What would be lost if a reference or a checkout went away. Asked before either does.

use git2::Repository;

use super::sandbox::TreeState;
use super::store::{GitStore, broken, commit_id, oid};
use crate::model::{CommitId, RescueView};
use crate::ports::{ErrorKind, PortError, PortResult};

/// Commits named in an answer.
const MAX_COMMITS: usize = 1000;

/// Whether everything is elsewhere too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reachability {
    Kept,
    WouldLose {
        /// Commits nothing else leads to, newest first, the first 1000.
        commits: Vec<CommitId>,
        /// Uncommitted paths of which there is no copy.
        files: Vec<String>,
    },
}

impl Reachability {
    fn of(commits: Vec<CommitId>, files: Vec<String>) -> Self {
        if commits.is_empty() && files.is_empty() {
            Self::Kept
        } else {
            Self::WouldLose { commits, files }
        }
    }
}

impl GitStore {
    /// Of a reference in the store: the commits that no other one leads to.
    pub fn loss_of_reference(&self, name: &str) -> PortResult<Reachability> {
        let repository = self.repository()?;
        let tip = repository
            .find_reference(name)
            .and_then(|reference| reference.peel_to_commit())
            .map_err(|cause| broken(&format!("could not read {name}"), cause))?;
        let commits = only_from(&repository, tip.id(), Some(name))?;
        Ok(Reachability::of(commits, Vec::new()))
    }

    /// Of a checkout, whose state its own git told (`tree`) after `rescue` was taken of it: its
    /// commits the store does not lead to, and files that neither a commit nor the snapshot has.
    /// `rescue`: `None` if the snapshot said that there was nothing to keep.
    ///
    /// Errors: `Refused` if the tree is not clean and there is no snapshot: then nothing is proven.
    pub fn loss_of_checkout(
        &self,
        tree: &TreeState,
        rescue: Option<&RescueView>,
    ) -> PortResult<Reachability> {
        let repository = self.repository()?;
        let mut commits = Vec::new();
        if let Some(head) = &tree.head {
            let id = oid(head)?;
            if repository.find_commit(id).is_err() {
                // Only there, so it cannot be followed from here.
                commits.push(head.clone());
            } else {
                commits = only_from(&repository, id, None)?;
            }
        }
        let Some(rescue) = rescue else {
            if !tree.is_clean() {
                return Err(PortError::new(
                    ErrorKind::Refused,
                    "the checkout is not clean and no snapshot of it was taken",
                )
                .hint("take one first"));
            }
            return Ok(Reachability::of(commits, Vec::new()));
        };
        let here = repository.refname_to_id(&rescue.reference);
        if !here.is_ok_and(|id| id.to_string() == rescue.commit.as_str()) {
            return Err(PortError::new(
                ErrorKind::NotFound,
                format!("the store does not have the snapshot {}", rescue.id),
            ));
        }
        let files = rescue.left_out.iter().map(|left| left.path.clone());
        Ok(Reachability::of(commits, files.collect()))
    }
}

/// Commits from `tip` that no reference but `except` leads to.
fn only_from(
    repository: &Repository,
    tip: git2::Oid,
    except: Option<&str>,
) -> PortResult<Vec<CommitId>> {
    let failed = |cause| broken("could not follow the references", cause);
    let mut walk = repository.revwalk().map_err(failed)?;
    walk.push(tip).map_err(failed)?;
    for reference in repository.references().map_err(failed)? {
        let reference = reference.map_err(failed)?;
        if except.is_some_and(|name| reference.name().is_ok_and(|other| other == name)) {
            continue;
        }
        if let Ok(commit) = reference.peel_to_commit() {
            walk.hide(commit.id()).map_err(failed)?;
        }
    }
    walk.take(MAX_COMMITS)
        .map(|id| id.map(commit_id).map_err(failed))
        .collect()
}
