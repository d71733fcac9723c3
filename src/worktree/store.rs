//! The supervisor's bare repository: making it, opening it, and its references.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use git2::{ErrorCode, Oid, Repository, RepositoryOpenFlags};

use super::command::Git;
use super::{making, remote};
use crate::model::{AgentId, CommitId};
use crate::ports::{ErrorKind, PortError, PortResult};

/// Written into a new store. Nothing is ever pruned, every move of a reference is logged for ever,
/// and what is written is written through to the disk.
const STORE_CONFIG: [(&str, &str); 8] = [
    ("gc.auto", "0"),
    ("gc.pruneExpire", "never"),
    ("gc.reflogExpire", "never"),
    ("gc.reflogExpireUnreachable", "never"),
    ("maintenance.auto", "false"),
    ("core.logAllRefUpdates", "always"),
    ("core.fsync", "all"),
    // libgit2 (1.9) reads only this older name.
    ("core.fsyncObjectFiles", "true"),
];

/// Who the supervisor's own commits are by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub email: String,
}

/// The bare store of one fleet. Blocking; share it in an `Arc`.
pub struct GitStore {
    pub(super) path: PathBuf,
    pub(super) remote_url: String,
    pub(super) branch: String,
    pub(super) identity: Identity,
    /// One conversation with the remote at a time.
    network: Mutex<()>,
}

impl std::fmt::Debug for GitStore {
    /// The URL may carry a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitStore")
            .field("path", &self.path)
            .field("remote", &self.shown_url())
            .field("branch", &self.branch)
            .finish_non_exhaustive()
    }
}

impl GitStore {
    /// Opens the store at `path`, or clones `branch` of `remote_url` into it first. A store that
    /// already holds the branch is opened without the network. The clone is made beside `path`
    /// and renamed, so a crash leaves either no store or a whole one; `progress` gets git's lines.
    ///
    /// The URL is used for each fetch and push and not written into the store: what it may
    /// contain stays in the supervisor's configuration.
    ///
    /// Errors: `NotFound` (no such repository, no such branch, with the nearest names), `Refused`
    /// (authentication, a repository without commits, a bad branch name), `Transient` (network),
    /// `Broken` (`path` holds something else).
    pub fn open_or_clone(
        path: &Path,
        remote_url: &str,
        branch: &str,
        identity: Identity,
        progress: &dyn Fn(&str),
    ) -> PortResult<Self> {
        check_name(&head_name(branch), "branch", branch)?;
        let remote_url = remote::absolute(remote_url)?;
        let store = |path: PathBuf| Self {
            path,
            remote_url: remote_url.clone(),
            branch: branch.to_owned(),
            identity: identity.clone(),
            network: Mutex::new(()),
        };
        if making::is_taken(path) {
            let path = path
                .canonicalize()
                .map_err(|cause| making::failed("open", path, cause))?;
            let store = store(path);
            store.complete(progress)?;
            return Ok(store);
        }
        let making = making::start(path)?;
        if making::is_taken(making.target()) {
            let store = store(making.target().to_owned());
            making.abandon();
            store.complete(progress)?;
            return Ok(store);
        }
        let made = init(&making.path).and_then(|()| store(making.path.clone()).complete(progress));
        match made {
            Ok(()) => Ok(store(making.finish()?)),
            Err(error) => {
                making.abandon();
                Err(error)
            }
        }
    }

    /// Opens a store that is there, for reading what its own references name: it knows neither remote
    /// nor branch.
    ///
    /// Errors: `Broken` (`path` holds something else, or nothing).
    pub fn open_for_reading(path: &Path) -> PortResult<Self> {
        let store = Self {
            path: path.to_owned(),
            remote_url: String::new(),
            branch: String::new(),
            identity: Identity {
                name: String::new(),
                email: String::new(),
            },
            network: Mutex::new(()),
        };
        store.repository()?;
        Ok(store)
    }

    /// Fetches the branch if the store does not hold it yet (a new store, or a new `branch` in the
    /// configuration) and lets our own tip start where the remote is.
    fn complete(&self, progress: &dyn Fn(&str)) -> PortResult<()> {
        let repository = self.repository()?;
        if find(&repository, &head_name(&self.branch))?.is_some() {
            return Ok(());
        }
        let remote_head = self.fetch_first(progress)?;
        let head = head_name(&self.branch);
        repository
            .reference(
                &head,
                oid(&remote_head)?,
                false,
                "start where the remote is",
            )
            .map_err(|cause| broken("could not create the branch in the store", cause))?;
        repository
            .set_head(&head)
            .map_err(|cause| broken("could not set the store's HEAD", cause))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a container has to have [`GitStore::objects_directory`] mounted, read-only: at the same
    /// path, unless images keep their user out of what is above it (seen: `/root`, mode 700, where
    /// the state of a supervisor that is run by root lies).
    pub fn objects_inside(&self) -> PathBuf {
        inside(self.objects_directory())
    }

    /// The store's objects on the host, for containers to read at [`GitStore::objects_inside`].
    pub fn objects_directory(&self) -> PathBuf {
        self.path.join("objects")
    }

    pub fn branch(&self) -> &str {
        &self.branch
    }

    pub(super) fn network_turn(&self) -> MutexGuard<'_, ()> {
        // The guarded value is nothing, so a panic elsewhere cannot have left it half changed.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opened anew for each operation: cheap (0.1 ms), and libgit2's handle is not `Sync`.
    pub(super) fn repository(&self) -> PortResult<Repository> {
        let flags = RepositoryOpenFlags::NO_SEARCH | RepositoryOpenFlags::BARE;
        Repository::open_ext(&self.path, flags, std::iter::empty::<&Path>()).map_err(|cause| {
            PortError::new(
                ErrorKind::Broken,
                format!(
                    "{} is not a git store that can be opened",
                    self.path.display()
                ),
            )
            .hint("move it away and start again: it is cloned anew, and nothing in it is deleted")
            .because(cause)
        })
    }

    /// Makes loose objects that libgit2 wrote under a strict umask readable for the containers;
    /// git itself obeys `core.sharedRepository`. `newest` tells whether there is anything to do.
    pub(super) fn share_objects(&self, newest: Oid) -> PortResult<()> {
        use std::os::unix::fs::PermissionsExt;
        let objects = self.objects_directory();
        let text = newest.to_string();
        let file = objects.join(&text[..2]).join(&text[2..]);
        let mode = |path: &Path| {
            path.symlink_metadata()
                .map_or(0o555, |m| m.permissions().mode())
        };
        if mode(&file) & 0o004 != 0 && file.parent().is_none_or(|p| mode(p) & 0o001 != 0) {
            return Ok(());
        }
        let loosen = |path: &Path, bits: u32| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode(path) & 0o777 | bits))
                .map_err(|cause| making::failed("share", path, cause))
        };
        for fan in read_directory(&objects)? {
            if fan.file_name().is_some_and(|name| name.len() == 2) {
                loosen(&fan, 0o055)?;
                for object in read_directory(&fan)? {
                    loosen(&object, 0o044)?;
                }
            }
        }
        Ok(())
    }
}

fn read_directory(path: &Path) -> PortResult<Vec<PathBuf>> {
    std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(|cause| making::failed("list", path, cause))
}

fn init(path: &Path) -> PortResult<()> {
    Git::bare_of_repository()
        .args([
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--object-format=sha1",
        ])
        // Objects readable for the agents' containers whatever the umask.
        .args(["--shared=0644", "--"])
        .arg(path)
        .run("git init of the store")?;
    let mut config = git2::Config::open(&path.join("config"))
        .map_err(|cause| broken("could not open the store's configuration", cause))?;
    for (key, value) in STORE_CONFIG {
        config
            .set_str(key, value)
            .map_err(|cause| broken("could not configure the store", cause))?;
    }
    Ok(())
}

pub(super) fn find(repository: &Repository, name: &str) -> PortResult<Option<Oid>> {
    match repository.refname_to_id(name) {
        Ok(id) => Ok(Some(id)),
        Err(cause) if cause.code() == ErrorCode::NotFound => Ok(None),
        Err(cause) => Err(broken(&format!("could not read {name}"), cause)),
    }
}

pub(super) fn head_name(branch: &str) -> String {
    format!("refs/heads/{branch}")
}

pub(super) fn remote_name(branch: &str) -> String {
    format!("refs/remotes/origin/{branch}")
}

pub(super) fn agent_prefix(agent: &AgentId) -> PortResult<String> {
    let prefix = format!("refs/workers/{agent}");
    check_name(&prefix, "agent", agent.as_str())?;
    Ok(prefix)
}

pub(super) fn check_name(reference: &str, what: &str, name: &str) -> PortResult<()> {
    if git2::Reference::is_valid_name(reference) && !name.starts_with('-') {
        return Ok(());
    }
    Err(PortError::new(
        ErrorKind::Refused,
        format!("{name:?} is not a {what} name git accepts"),
    )
    .hint("see `git help check-ref-format`"))
}

/// A full object id; short ones and names are refused.
pub(super) fn oid(commit: &CommitId) -> PortResult<Oid> {
    let text = commit.as_str();
    if text.len() == 40
        && let Ok(id) = Oid::from_str(text)
    {
        return Ok(id);
    }
    Err(PortError::new(
        ErrorKind::Refused,
        format!("{text:?} is not a commit id of 40 hexadecimal digits"),
    ))
}

pub(super) fn commit_id(id: Oid) -> CommitId {
    CommitId::new(id.to_string())
}

pub(super) fn broken(what: &str, cause: git2::Error) -> PortError {
    let kind = match cause.code() {
        ErrorCode::NotFound => ErrorKind::NotFound,
        ErrorCode::Exists => ErrorKind::AlreadyExists,
        ErrorCode::Locked => ErrorKind::Transient,
        _ => ErrorKind::Broken,
    };
    PortError::new(kind, what).because(cause)
}

/// See [`GitStore::objects_inside`].
fn inside(objects: PathBuf) -> PathBuf {
    if objects.starts_with("/root") {
        PathBuf::from("/var/lib/orchestrator/objects")
    } else {
        objects
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn objects_below_roots_home_are_mounted_where_the_agent_can_go() {
        let open = PathBuf::from("/home/ann/.local/state/x/store.git/objects");
        assert_eq!(inside(open.clone()), open);
        let closed = PathBuf::from("/root/.local/state/x/store.git/objects");
        assert_eq!(inside(closed), Path::new("/var/lib/orchestrator/objects"));
    }

    #[test]
    fn objects_written_under_a_strict_umask_are_shared() {
        let place = tempfile::tempdir().unwrap();
        let remote = Repository::init_bare(place.path().join("remote.git")).unwrap();
        let by = git2::Signature::now("A", "a@example.com").unwrap();
        let tree = remote.treebuilder(None).unwrap().write().unwrap();
        let tree = remote.find_tree(tree).unwrap();
        let id = remote
            .commit(Some("refs/heads/main"), &by, &by, "first", &tree, &[])
            .unwrap();
        let identity = Identity {
            name: "A".to_owned(),
            email: "a@example.com".to_owned(),
        };
        let path = place.path().join("store.git");
        let url = remote.path().to_str().unwrap();
        let store = GitStore::open_or_clone(&path, url, "main", identity, &|_| {}).unwrap();
        assert_eq!(mode(&store.objects_directory()) & 0o055, 0o055);

        let text = id.to_string();
        let fan = store.objects_directory().join(&text[..2]);
        let file = fan.join(&text[2..]);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o400)).unwrap();
        std::fs::set_permissions(&fan, PermissionsExt::from_mode(0o700)).unwrap();
        store.share_objects(id).unwrap();
        assert_eq!((mode(&fan), mode(&file)), (0o755, 0o444));
    }
}
