//! Making an agent's checkout, once. Afterwards it is the agent's, and the host never runs git
//! in it again.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::Repository;
use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};

use super::Identity;
use super::command::Git;
use super::making::{self, failed};
use super::store::{GitStore, broken, check_name, head_name, oid, remote_name};
use crate::model::{AgentId, CommitId};
use crate::ports::{ErrorKind, PortError, PortResult};

/// Where an agent's `origin` points. Git prints it when the agent tries to push, and the agent
/// reads it.
const PUSHING: &str = "/the-supervisor-fetches-and-pushes--just-commit-on-your-branch";

/// What to make.
#[derive(Clone, Debug)]
pub struct CheckoutSpec {
    pub agent: AgentId,
    /// `<state>/agents/<agent>/checkout`; only the supervisor may write its parent.
    pub directory: PathBuf,
    /// The agent's own branch, for example `worker-1`.
    pub branch: String,
    pub base: CommitId,
    /// The container's user and group; `None`: as the supervisor.
    pub owner: Option<(u32, u32)>,
    /// The agent commits as `<name> (<agent>)`.
    pub identity: Identity,
}

/// The checkout is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// False: it was there before and was not touched.
    pub created: bool,
}

impl GitStore {
    /// Makes the checkout if the directory does not exist (or is empty): objects borrowed from
    /// the store, which has to be mounted at [`GitStore::objects_inside`] where the agent runs.
    /// It is made beside its place, given to `owner`, and renamed: there is no half-made one. A
    /// directory that is there is left alone, whatever it holds.
    ///
    /// Large-file pointers stay pointers and submodules stay empty: their contents are not in the
    /// store.
    pub fn ensure_checkout(&self, spec: &CheckoutSpec) -> PortResult<Checkout> {
        let branch = head_name(&spec.branch);
        check_name(&branch, "branch", &spec.branch)?;
        if making::is_taken(&spec.directory) {
            return Ok(Checkout { created: false });
        }
        if !self.contains(&spec.base)? {
            return Err(PortError::new(
                ErrorKind::NotFound,
                format!(
                    "commit {} to start {} from is not in the store",
                    spec.base, spec.agent
                ),
            ));
        }
        let making = making::start(&spec.directory)?;
        if making::is_taken(making.target()) {
            making.abandon();
            return Ok(Checkout { created: false });
        }
        let filled = self
            .fill(&making.path, spec, &spec.base)
            .and_then(|()| match spec.owner {
                Some(owner) => give(&making.path, owner),
                None => Ok(()),
            });
        if let Err(error) = filled {
            making.abandon();
            return Err(error);
        }
        making.finish()?;
        Ok(Checkout { created: true })
    }

    /// Makes a checkout of exactly this commit at `directory`, which must not exist, for a command
    /// that is run on it once: on the branch, with `origin`'s where the branch is now, so that the two
    /// can be compared. What goes wrong may leave a part of it behind.
    ///
    /// Filters are not run, links stay links, large-file pointers stay pointers, submodules are empty.
    pub fn checkout_once(
        &self,
        directory: &Path,
        commit: &CommitId,
        owner: Option<(u32, u32)>,
    ) -> PortResult<()> {
        self.share_objects(oid(commit)?)?;
        let spec = CheckoutSpec {
            agent: AgentId::new("gate"),
            directory: directory.to_owned(),
            branch: self.branch.clone(),
            base: commit.clone(),
            owner,
            identity: self.identity.clone(),
        };
        self.fill(directory, &spec, &self.branch_head()?)?;
        owner.map_or(Ok(()), |owner| give(directory, owner))
    }

    /// `upstream`: where `origin`'s branch is.
    fn fill(&self, tree: &Path, spec: &CheckoutSpec, upstream: &CommitId) -> PortResult<()> {
        Git::bare_of_repository()
            .args(["init", "--quiet", "--template=", "--object-format=sha1"])
            .arg(format!("--initial-branch={}", spec.branch))
            .arg("--")
            .arg(tree)
            .run("git init of a checkout")?;
        let git = tree.join(".git");
        let info = git.join("objects/info");
        let borrow_from = |objects: &Path| {
            let mut line = objects.as_os_str().as_bytes().to_vec();
            line.push(b'\n');
            fs::write(info.join("alternates"), line)
        };
        fs::create_dir_all(&info)
            .and_then(|()| borrow_from(&self.objects_directory()))
            .map_err(|cause| failed("write", &info, cause))?;
        self.configure(&git, spec)?;
        self.point(&git, spec, upstream)
            .map_err(|cause| broken("could not set up a checkout's branches", cause))?;
        Git::local(&git)
            .work_tree(tree)
            .args(["reset", "--quiet", "--hard", "--no-recurse-submodules"])
            .run(&format!("checking out the files for {}", spec.agent))?;
        // From here on only the container uses it.
        borrow_from(&self.objects_inside()).map_err(|cause| failed("write", &info, cause))
    }

    /// Its branch, and where the shared one is. By libgit2, which is no process for each: nobody else
    /// has been here yet.
    fn point(
        &self,
        git: &Path,
        spec: &CheckoutSpec,
        upstream: &CommitId,
    ) -> Result<(), git2::Error> {
        let repository = Repository::open_bare(git)?;
        let remote = remote_name(&self.branch);
        for (name, commit) in [(&head_name(&spec.branch), &spec.base), (&remote, upstream)] {
            let id = git2::Oid::from_str(commit.as_str())?;
            repository.reference(name, id, true, "start")?;
        }
        let origin = "refs/remotes/origin/HEAD";
        repository.reference_symbolic(origin, &remote, true, "start")?;
        Ok(())
    }

    fn configure(&self, git: &Path, spec: &CheckoutSpec) -> PortResult<()> {
        let name = format!("{} ({})", spec.identity.name, spec.agent);
        let own = |key: &str| format!("branch.{}.{key}", spec.branch);
        let (remote, merge) = (own("remote"), own("merge"));
        let upstream = head_name(&self.branch);
        let settings = [
            ("user.name", name.as_str()),
            ("user.email", &spec.identity.email),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("core.logAllRefUpdates", "true"),
            ("remote.origin.url", PUSHING),
            ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
            (&remote, "origin"),
            (&merge, &upstream),
        ];
        let mut config = git2::Config::open(&git.join("config"))
            .map_err(|cause| broken("could not open a new checkout's configuration", cause))?;
        for (key, value) in settings {
            config
                .set_str(key, value)
                .map_err(|cause| broken(&format!("could not set {key} in a checkout"), cause))?;
        }
        Ok(())
    }
}

/// Gives a tree to a user without following symbolic links. Nobody else can reach it yet.
fn give(path: &Path, owner: (u32, u32)) -> PortResult<()> {
    let (user, group) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    chownat(
        CWD,
        path,
        Some(user),
        Some(group),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(|cause| failed("change the owner of", path, cause.into()))?;
    let kind = path
        .symlink_metadata()
        .map_err(|cause| failed("look at", path, cause))?;
    if kind.is_dir() {
        let entries = fs::read_dir(path).map_err(|cause| failed("list", path, cause))?;
        for entry in entries {
            give(
                &entry.map_err(|cause| failed("list", path, cause))?.path(),
                owner,
            )?;
        }
    }
    Ok(())
}
