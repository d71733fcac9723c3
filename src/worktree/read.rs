//! Reading the store: heads, ancestry, files of commits.

use std::path::Path;

use git2::{Commit, ObjectType, Oid, Repository, Tree};

use super::store::{GitStore, agent_prefix, broken, commit_id, find, head_name, oid, remote_name};
use crate::model::{AgentId, CommitId};
use crate::ports::{ErrorKind, PortError, PortResult};

/// Names `list_files` returns at most.
const MAX_FILES: usize = 10_000;

/// As git itself takes them.
const SHORTEST_ID: usize = 4;

impl GitStore {
    /// Our tip of the branch: everything the supervisor has merged.
    pub fn branch_head(&self) -> PortResult<CommitId> {
        self.required(&head_name(&self.branch))
    }

    /// The remote's tip as last fetched or pushed.
    pub fn remote_head(&self) -> PortResult<CommitId> {
        self.required(&remote_name(&self.branch))
    }

    /// The agent's newest imported commit.
    pub fn worker_head(&self, agent: &AgentId) -> PortResult<Option<CommitId>> {
        let repository = self.repository()?;
        let name = format!("{}/head", agent_prefix(agent)?);
        Ok(find(&repository, &name)?.map(commit_id))
    }

    /// The hash of a commit's tree: the same for the same files.
    pub fn tree_id(&self, commit: &CommitId) -> PortResult<String> {
        let repository = self.repository()?;
        Ok(tree(&repository, oid(commit)?)?.id().to_string())
    }

    /// The commit a person means: the branch or another one of the remote's that was fetched, an
    /// agent (its newest imported commit), or an id, which may be cut short to 4 digits.
    pub fn resolve(&self, text: &str) -> PortResult<CommitId> {
        let repository = self.repository()?;
        let names = [
            head_name(text),
            format!("refs/workers/{text}/head"),
            remote_name(text),
        ];
        for name in names
            .iter()
            .filter(|name| git2::Reference::is_valid_name(name))
        {
            if let Some(id) = find(&repository, name)? {
                return Ok(commit_id(id));
            }
        }
        let digits = text.len() >= SHORTEST_ID && text.bytes().all(|b| b.is_ascii_hexdigit());
        let found = digits
            .then(|| repository.find_commit_by_prefix(text))
            .and_then(Result::ok);
        found.map(|commit| commit_id(commit.id())).ok_or_else(|| {
            PortError::new(
                ErrorKind::NotFound,
                format!("the store has no branch, agent or commit {text:?}"),
            )
            .hint(format!(
                "name `{}`, an agent that has committed, or the beginning of a commit's id",
                self.branch
            ))
        })
    }

    fn required(&self, name: &str) -> PortResult<CommitId> {
        let repository = self.repository()?;
        find(&repository, name)?
            .map(commit_id)
            .ok_or_else(|| PortError::new(ErrorKind::NotFound, format!("the store has no {name}")))
    }

    /// The file's bytes in that commit; `None` if there is no regular file of that path.
    /// A file larger than `max_bytes` is `Refused`.
    pub fn read_file(
        &self,
        commit: &CommitId,
        path: &str,
        max_bytes: usize,
    ) -> PortResult<Option<Vec<u8>>> {
        let repository = self.repository()?;
        let tree = tree(&repository, oid(commit)?)?;
        let Some((id, _)) = regular_file(&tree, path) else {
            return Ok(None);
        };
        let (size, _) = repository
            .odb()
            .and_then(|odb| odb.read_header(id))
            .map_err(|cause| broken(&format!("could not read {path}"), cause))?;
        if size > max_bytes {
            return Err(PortError::new(
                ErrorKind::Refused,
                format!(
                    "{path} in {} has {size} bytes, more than {max_bytes}",
                    commit.short()
                ),
            ));
        }
        let blob = repository
            .find_blob(id)
            .map_err(|cause| broken(&format!("could not read {path}"), cause))?;
        Ok(Some(blob.content().to_vec()))
    }

    /// Names of the regular files directly in `directory` (`""`: the root), sorted, at most
    /// 10,000; names that are not UTF-8 are left out. Empty if there is no such directory.
    pub fn list_files(&self, commit: &CommitId, directory: &str) -> PortResult<Vec<String>> {
        let repository = self.repository()?;
        let root = tree(&repository, oid(commit)?)?;
        let tree = if directory.is_empty() {
            root
        } else {
            let found = root
                .get_path(Path::new(directory))
                .ok()
                .and_then(|entry| repository.find_tree(entry.id()).ok());
            match found {
                Some(tree) => tree,
                None => return Ok(Vec::new()),
            }
        };
        let mut names: Vec<String> = tree
            .iter()
            .filter(|entry| entry.kind() == Some(ObjectType::Blob) && is_regular(entry.filemode()))
            .filter_map(|entry| entry.name().ok().map(str::to_owned))
            .take(MAX_FILES)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Commits that `a` has and `b` has not, and the other way round.
    pub fn ahead_behind(&self, a: &CommitId, b: &CommitId) -> PortResult<(usize, usize)> {
        self.repository()?
            .graph_ahead_behind(oid(a)?, oid(b)?)
            .map_err(|cause| broken("could not compare commits", cause))
    }

    /// Whether `descendant` contains `ancestor`; a commit contains itself.
    pub fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> PortResult<bool> {
        let (ancestor, descendant) = (oid(ancestor)?, oid(descendant)?);
        let repository = self.repository()?;
        Ok(ancestor == descendant || descends(&repository, descendant, ancestor)?)
    }

    /// Whether the store has the commit. Everything in it came through a checked fetch or import.
    pub fn contains(&self, commit: &CommitId) -> PortResult<bool> {
        Ok(self.repository()?.find_commit(oid(commit)?).is_ok())
    }
}

pub(super) fn descends(
    repository: &Repository,
    descendant: Oid,
    ancestor: Oid,
) -> PortResult<bool> {
    repository
        .graph_descendant_of(descendant, ancestor)
        .map_err(|cause| broken("could not compare commits", cause))
}

pub(super) fn commit(repository: &Repository, id: Oid) -> PortResult<Commit<'_>> {
    repository
        .find_commit(id)
        .map_err(|cause| broken(&format!("the store has no commit {id}"), cause))
}

fn tree(repository: &Repository, id: Oid) -> PortResult<Tree<'_>> {
    commit(repository, id)?
        .tree()
        .map_err(|cause| broken(&format!("commit {id} has no readable tree"), cause))
}

/// Neither a symbolic link nor a submodule.
pub(super) fn is_regular(mode: i32) -> bool {
    matches!(mode, 0o100_644 | 0o100_755 | 0o100_664)
}

/// Id and mode of the regular file at `path`.
pub(super) fn regular_file(tree: &Tree<'_>, path: &str) -> Option<(Oid, i32)> {
    let entry = tree.get_path(Path::new(path)).ok()?;
    (entry.kind() == Some(ObjectType::Blob) && is_regular(entry.filemode()))
        .then(|| (entry.id(), entry.filemode()))
}
