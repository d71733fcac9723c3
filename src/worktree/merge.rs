//! Merging in memory. No working tree, no hooks, no filters; a reference moves only by
//! compare-and-set, and a lost race is tried again on the new tip.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use git2::{
    ErrorCode, Index, IndexEntry, IndexTime, MergeOptions, ObjectType, Oid, Repository, Signature,
    Tree,
};

use super::conflict::{self, ConflictFile};
use super::read::{commit, descends, regular_file};
use super::store::{GitStore, broken, commit_id, find, head_name, oid, remote_name};
use crate::model::CommitId;
use crate::ports::{ErrorKind, PortError, PortResult};

/// Lost races in a row before the caller is told to come back.
pub(super) const MAX_TRIES: u32 = 100;

/// What became of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeOutcome {
    /// `commit` is the new tip of the branch, `old` the one before.
    Merged {
        commit: CommitId,
        old: CommitId,
    },
    FastForwarded {
        commit: CommitId,
    },
    UpToDate,
    /// Nothing moved.
    Conflict {
        files: Vec<ConflictFile>,
    },
}

type Rewrite<'a> = dyn Fn(Option<&[u8]>) -> Option<Vec<u8>> + Send + Sync + 'a;

/// A change to one file that goes into the same commit as the merge, for example ticking a task.
///
/// It is a function of the content, because that is only known during the merge and changes when a
/// race is lost. It is applied to the base and to both sides before they are merged (to the result,
/// where there is no single base), so what it changes never conflicts with itself; it should give
/// the same for content it has been applied to already.
pub struct FileEdit<'a> {
    path: String,
    rewrite: Arc<Rewrite<'a>>,
}

impl Clone for FileEdit<'_> {
    fn clone(&self) -> Self {
        Self {
            path: self.path.clone(),
            rewrite: Arc::clone(&self.rewrite),
        }
    }
}

impl<'a> FileEdit<'a> {
    /// `rewrite` gets the file's bytes (`None`: no regular file there) and returns the new ones,
    /// or `None` to leave it.
    pub fn new(
        path: impl Into<String>,
        rewrite: impl Fn(Option<&[u8]>) -> Option<Vec<u8>> + Send + Sync + 'a,
    ) -> Self {
        Self {
            path: path.into(),
            rewrite: Arc::new(rewrite),
        }
    }

    /// These bytes, whatever the merge left there.
    pub fn replace(path: impl Into<String>, content: Vec<u8>) -> Self {
        Self::new(path, move |_| Some(content.clone()))
    }
}

/// One try on one tip.
pub(super) enum Attempt {
    Done(MergeOutcome),
    Move { to: Oid, outcome: MergeOutcome },
}

impl GitStore {
    /// Merges `commit` into our branch with `message`, and applies `edits` to the result.
    ///
    /// Always a real merge commit, also where a fast-forward would do, so that history shows what
    /// came from whom; never a fast-forward. A commit the branch already has gives `UpToDate`, or
    /// an ordinary commit (`Merged`) if `edits` still change something.
    ///
    /// Errors: `NotFound` (no such commit in the store), `Refused` (unrelated histories, a path
    /// git does not accept), `Transient` (too many lost races).
    pub fn merge(
        &self,
        commit: &CommitId,
        message: &str,
        edits: &[FileEdit<'_>],
    ) -> PortResult<MergeOutcome> {
        let theirs = oid(commit)?;
        self.move_branch(message, |repository, tip| {
            if tip == theirs || descends(repository, tip, theirs)? {
                return self.edit_only(repository, tip, message, edits);
            }
            self.combine(repository, tip, theirs, message, edits)
        })
    }

    /// Brings the remote's commits, as last fetched, into our branch: a fast-forward if we have
    /// none of our own, a merge commit if both moved.
    pub fn integrate_remote(&self) -> PortResult<MergeOutcome> {
        let message = format!("Merge branch '{}' of the remote", self.branch);
        self.move_branch(&message, |repository, tip| {
            let remote = find(repository, &remote_name(&self.branch))?
                .ok_or_else(|| PortError::new(ErrorKind::NotFound, "nothing was fetched yet"))?;
            if tip == remote || descends(repository, tip, remote)? {
                return Ok(Attempt::Done(MergeOutcome::UpToDate));
            }
            if descends(repository, remote, tip)? {
                let outcome = MergeOutcome::FastForwarded {
                    commit: commit_id(remote),
                };
                return Ok(Attempt::Move {
                    to: remote,
                    outcome,
                });
            }
            self.combine(repository, tip, remote, &message, &[])
        })
    }

    /// Runs `attempt` on the current tip until its result could be put in place.
    fn move_branch(
        &self,
        why: &str,
        attempt: impl Fn(&Repository, Oid) -> PortResult<Attempt>,
    ) -> PortResult<MergeOutcome> {
        let repository = self.repository()?;
        let head = head_name(&self.branch);
        for tried in 0..MAX_TRIES {
            let tip = find(&repository, &head)?.ok_or_else(|| {
                PortError::new(
                    ErrorKind::Broken,
                    format!("the store has no branch {:?}", self.branch),
                )
            })?;
            let (to, outcome) = match attempt(&repository, tip)? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Move { to, outcome } => (to, outcome),
            };
            self.share_objects(to)?;
            let log = why.lines().next().unwrap_or_default();
            match repository.reference_matching(&head, to, true, tip, log) {
                Ok(_) => return Ok(outcome),
                Err(cause) if lost_race(&cause) => {
                    // A lock is held for microseconds; a moved tip needs no waiting at all.
                    thread::sleep(Duration::from_millis(u64::from(tried.min(20))));
                }
                Err(cause) => return Err(broken("could not move the branch", cause)),
            }
        }
        Err(PortError::new(
            ErrorKind::Transient,
            format!("branch {:?} kept moving during the merge", self.branch),
        ))
    }

    pub(super) fn edit_only(
        &self,
        repository: &Repository,
        tip: Oid,
        message: &str,
        edits: &[FileEdit<'_>],
    ) -> PortResult<Attempt> {
        let parent = commit(repository, tip)?;
        let tree = parent
            .tree()
            .map_err(|cause| broken("the branch's tip has no readable tree", cause))?;
        let edited = edit(repository, &tree, edits)?;
        if edited.id() == tree.id() {
            return Ok(Attempt::Done(MergeOutcome::UpToDate));
        }
        self.write(repository, message, &edited, &[tip])
    }

    pub(super) fn combine(
        &self,
        repository: &Repository,
        ours: Oid,
        theirs: Oid,
        message: &str,
        edits: &[FileEdit<'_>],
    ) -> PortResult<Attempt> {
        let (our, their) = (commit(repository, ours)?, commit(repository, theirs)?);
        if let Err(cause) = repository.merge_base(ours, theirs) {
            if cause.code() != ErrorCode::NotFound {
                return Err(broken("could not find where the branches parted", cause));
            }
            return Err(PortError::new(
                ErrorKind::Refused,
                format!("{ours} and {theirs} share no history"),
            )
            .hint("was the repository replaced, or its history rewritten from the start?")
            .because(cause));
        }
        let mut options = MergeOptions::new();
        options.find_renames(true);
        let failed = |cause| broken(&format!("could not merge {theirs}"), cause);
        let sides = Self::edited_sides(repository, &our, &their, edits)?;
        let left = if sides.is_some() { &[] } else { edits };
        let mut index = match sides {
            Some([base, our, their]) => repository
                .merge_trees(&base, &our, &their, Some(&options))
                .map_err(failed)?,
            None => repository
                .merge_commits(&our, &their, Some(&options))
                .map_err(failed)?,
        };
        if index.has_conflicts() {
            let files = conflict::describe(repository, &index)?;
            return Ok(Attempt::Done(MergeOutcome::Conflict { files }));
        }
        let tree = write_tree(repository, &mut index)?;
        let tree = edit(repository, &tree, left)?;
        self.write(repository, message, &tree, &[ours, theirs])
    }

    /// Base and both sides with the edits already in them, so that what an edit changes (a ticked
    /// box beside another) never conflicts with itself. `None` where there is nothing to edit, or
    /// where the bases are so many, or so far apart, that git has to make one out of them.
    fn edited_sides<'r>(
        repository: &'r Repository,
        our: &git2::Commit<'r>,
        their: &git2::Commit<'r>,
        edits: &[FileEdit<'_>],
    ) -> PortResult<Option<[Tree<'r>; 3]>> {
        if edits.is_empty() {
            return Ok(None);
        }
        let bases = repository
            .merge_bases(our.id(), their.id())
            .map_err(|cause| broken("could not find where the branches parted", cause))?;
        let edited = |commit: &git2::Commit<'r>| {
            let tree = commit
                .tree()
                .map_err(|cause| broken("a commit has no readable tree", cause))?;
            edit(repository, &tree, edits)
        };
        let base = match bases[..] {
            [base] => Some(edited(&commit(repository, base)?)?),
            [one, other] => Self::base_of_two(repository, one, other, &edited)?,
            _ => None,
        };
        let Some(base) = base else {
            return Ok(None);
        };
        Ok(Some([base, edited(our)?, edited(their)?]))
    }

    /// Two branches that took each other in have two bases: what both have in common is their merge.
    fn base_of_two<'r>(
        repository: &'r Repository,
        one: Oid,
        other: Oid,
        edited: &dyn Fn(&git2::Commit<'r>) -> PortResult<Tree<'r>>,
    ) -> PortResult<Option<Tree<'r>>> {
        let before = repository
            .merge_bases(one, other)
            .map_err(|cause| broken("could not find where the branches parted", cause))?;
        let [before] = before[..] else {
            return Ok(None);
        };
        let tree = |id| edited(&commit(repository, id)?);
        let (before, one, other) = (tree(before)?, tree(one)?, tree(other)?);
        let mut options = MergeOptions::new();
        options.find_renames(true);
        let failed = |cause| broken("could not merge what the branches have in common", cause);
        let mut index = repository
            .merge_trees(&before, &one, &other, Some(&options))
            .map_err(failed)?;
        if index.has_conflicts() {
            return Ok(None);
        }
        write_tree(repository, &mut index).map(Some)
    }

    fn write(
        &self,
        repository: &Repository,
        message: &str,
        tree: &Tree<'_>,
        parents: &[Oid],
    ) -> PortResult<Attempt> {
        let by = Signature::now(&self.identity.name, &self.identity.email).map_err(|cause| {
            PortError::new(
                ErrorKind::Refused,
                "the configured git identity is not usable",
            )
            .hint("set a name and an e-mail address without `<`, `>` or line breaks")
            .because(cause)
        })?;
        let parents: Vec<_> = parents
            .iter()
            .map(|id| commit(repository, *id))
            .collect::<PortResult<_>>()?;
        let borrowed: Vec<_> = parents.iter().collect();
        let new = repository
            .commit(None, &by, &by, message, tree, &borrowed)
            .map_err(|cause| broken("could not write the merge commit", cause))?;
        let old = parents
            .first()
            .map_or_else(|| Oid::ZERO_SHA1, git2::Commit::id);
        let outcome = MergeOutcome::Merged {
            commit: commit_id(new),
            old: commit_id(old),
        };
        Ok(Attempt::Move { to: new, outcome })
    }
}

pub(super) fn lost_race(cause: &git2::Error) -> bool {
    matches!(
        cause.code(),
        ErrorCode::Modified | ErrorCode::Locked | ErrorCode::NotFound
    )
}

fn write_tree<'r>(repository: &'r Repository, index: &mut Index) -> PortResult<Tree<'r>> {
    index
        .write_tree_to(repository)
        .and_then(|id| repository.find_tree(id))
        .map_err(|cause| broken("could not write the merged tree", cause))
}

fn edit<'r>(
    repository: &'r Repository,
    tree: &Tree<'r>,
    edits: &[FileEdit<'_>],
) -> PortResult<Tree<'r>> {
    let mut tree = tree.clone();
    for edit in edits {
        let present = regular_file(&tree, &edit.path);
        let content = match present {
            Some((id, _)) => Some(
                repository
                    .find_blob(id)
                    .map_err(|cause| broken(&format!("could not read {}", edit.path), cause))?,
            ),
            None => None,
        };
        let Some(new) = (edit.rewrite)(content.as_ref().map(git2::Blob::content)) else {
            continue;
        };
        let mode = present.map_or(0o100_644, |(_, mode)| mode);
        tree = with_file(repository, &tree, &edit.path, &new, mode)?;
    }
    Ok(tree)
}

fn with_file<'r>(
    repository: &'r Repository,
    tree: &Tree<'r>,
    path: &str,
    content: &[u8],
    mode: i32,
) -> PortResult<Tree<'r>> {
    if !is_plain(path) {
        return Err(PortError::new(
            ErrorKind::Refused,
            format!("{path:?} is not a path of a file in the repository"),
        ));
    }
    if blocked(tree, path) {
        return Err(PortError::new(
            ErrorKind::Refused,
            format!("{path:?} cannot be written: a file or directory is in its place"),
        ));
    }
    let id = repository
        .blob(content)
        .map_err(|cause| broken(&format!("could not store {path}"), cause))?;
    let mut index = Index::new().map_err(|cause| broken("could not make an index", cause))?;
    let zero = IndexTime::new(0, 0);
    let entry = IndexEntry {
        ctime: zero,
        mtime: zero,
        dev: 0,
        ino: 0,
        mode: mode as u32,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_bytes().to_vec(),
    };
    index
        .read_tree(tree)
        .map_err(|cause| broken("could not read the merged tree", cause))?;
    index
        .add(&entry)
        .map_err(|cause| broken(&format!("could not put {path} into the tree"), cause))?;
    write_tree(repository, &mut index)
}

/// Relative, without empty, `.`, `..` and git's own names. libgit2 checks this only for an index
/// that belongs to a repository.
fn is_plain(path: &str) -> bool {
    let own = |name: &str| name.eq_ignore_ascii_case(".git") || name.eq_ignore_ascii_case("git~1");
    !path.contains(['\0', '\\'])
        && path
            .split('/')
            .all(|name| !matches!(name, "" | "." | "..") && !own(name))
}

/// Whether `path` is a directory in the tree, or lies below something that is none. libgit2 would
/// make room by removing that.
fn blocked(tree: &Tree<'_>, path: &str) -> bool {
    let is_tree = |path: &Path| {
        tree.get_path(path)
            .ok()
            .map(|entry| entry.kind() == Some(ObjectType::Tree))
    };
    let path = Path::new(path);
    is_tree(path) == Some(true)
        || path
            .ancestors()
            .skip(1)
            .filter(|above| !above.as_os_str().is_empty())
            .any(|above| is_tree(above) == Some(false))
}
