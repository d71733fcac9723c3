//! Fetching from the remote, and what its failures mean.

use std::fs;
use std::path::Path;
use std::time::Duration;

use git2::Repository;

use super::command::{Git, Output, last_lines};
use super::store::{GitStore, broken, commit_id, find, head_name, remote_name};
use crate::model::CommitId;
use crate::ports::{ErrorKind, PortError, PortResult};

/// Fetches after the first move little.
pub(super) const EXCHANGE_DEADLINE: Duration = Duration::from_secs(600);
/// Branch names offered when the wanted one is missing.
const SUGGESTIONS: usize = 5;

/// What a fetch found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub remote_head: CommitId,
    /// Whether it differs from what was known before.
    pub moved: bool,
}

/// From then on a lock of a reference counts as left behind.
const LOCK_IS_LEFT: Duration = Duration::from_secs(10);

impl GitStore {
    /// Brings `refs/remotes/origin/<branch>` up to the remote. A forced push there is followed,
    /// and the commits it took away stay reachable under `refs/orchestrator/replaced/`.
    pub fn fetch(&self) -> PortResult<Fetched> {
        let _turn = self.network_turn();
        self.fetch_in_turn(&|_| {}, EXCHANGE_DEADLINE)
    }

    pub(super) fn fetch_first(&self, progress: &dyn Fn(&str)) -> PortResult<CommitId> {
        let _turn = self.network_turn();
        self.check_remote()?;
        let first = Duration::from_secs(3600);
        Ok(self.fetch_in_turn(progress, first)?.remote_head)
    }

    /// Removes locks of references that nobody holds any more: a supervisor that was killed while one
    /// moved leaves its lock, and no push or merge would go through again. A living one is held for
    /// milliseconds.
    fn break_left_locks(&self) {
        let mut places = vec![self.path.join("refs")];
        let mut locks = vec![self.path.join("packed-refs.lock")];
        while let Some(place) = places.pop() {
            for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    places.push(path);
                } else if path.extension().is_some_and(|end| end == "lock") {
                    locks.push(path);
                }
            }
        }
        for lock in locks {
            let made = fs::symlink_metadata(&lock).and_then(|found| found.modified());
            let left = made.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LOCK_IS_LEFT));
            if left && fs::remove_file(&lock).is_ok() {
                tracing::warn!(lock = %lock.display(), "a lock that a killed process left was removed");
            }
        }
    }

    /// The caller holds the network turn.
    pub(super) fn fetch_in_turn(
        &self,
        progress: &dyn Fn(&str),
        deadline: Duration,
    ) -> PortResult<Fetched> {
        self.break_left_locks();
        let incoming = format!("refs/orchestrator/incoming/{}", self.branch);
        let output = Git::network(&self.path)
            .deadline(deadline)
            .args(["fetch", "--progress", "--no-tags", "--no-write-fetch-head"])
            .args(["--no-recurse-submodules", "--no-auto-maintenance", "--"])
            .arg(&self.remote_url)
            .arg(format!("+{}:{incoming}", head_name(&self.branch)))
            .output_with(progress)?;
        if !output.status.success() {
            return Err(self.network_error("fetch from", &output));
        }
        self.take_incoming(&self.repository()?, &incoming)
    }

    fn take_incoming(&self, repository: &Repository, incoming: &str) -> PortResult<Fetched> {
        let new = repository
            .refname_to_id(incoming)
            .map_err(|cause| broken("git fetched nothing", cause))?;
        let name = remote_name(&self.branch);
        let old = find(repository, &name)?;
        if let Some(old) = old.filter(|old| *old != new) {
            let kept = repository
                .graph_descendant_of(new, old)
                .map_err(|cause| broken("could not compare the fetched commits", cause))?;
            if !kept {
                repository
                    .reference(
                        &format!("refs/orchestrator/replaced/{old}"),
                        old,
                        true,
                        "the remote was rewritten",
                    )
                    .map_err(|cause| broken("could not keep a replaced commit", cause))?;
            }
        }
        repository
            .reference(&name, new, true, "fetch")
            .map_err(|cause| broken("could not move the remote's branch in the store", cause))?;
        Ok(Fetched {
            remote_head: commit_id(new),
            moved: old != Some(new),
        })
    }

    /// Asks the remote what it has, to say clearly what is wrong before anything is fetched.
    fn check_remote(&self) -> PortResult<()> {
        let output = Git::network(&self.path)
            .deadline(EXCHANGE_DEADLINE)
            .args(["ls-remote", "--heads", "--"])
            .arg(&self.remote_url)
            .output()?;
        if !output.status.success() {
            return Err(self.network_error("clone", &output));
        }
        let listing = String::from_utf8_lossy(&output.stdout);
        let branches: Vec<&str> = listing
            .lines()
            .filter_map(|line| line.split_once('\t')?.1.strip_prefix("refs/heads/"))
            .collect();
        if branches.contains(&self.branch.as_str()) {
            return Ok(());
        }
        if branches.is_empty() {
            return Err(PortError::new(
                ErrorKind::Refused,
                format!("{} has no commits yet", self.shown_url()),
            )
            .hint(format!(
                "push a first commit to its branch {:?}, for example a README",
                self.branch
            )));
        }
        Err(self.no_such_branch(&branches))
    }

    fn no_such_branch(&self, branches: &[&str]) -> PortError {
        let nearest = nearest(&self.branch, branches);
        PortError::new(
            ErrorKind::NotFound,
            format!("{} has no branch {:?}", self.shown_url(), self.branch),
        )
        .hint(format!(
            "its {} of {} branches: {}",
            if nearest.len() == branches.len() {
                "names"
            } else {
                "nearest names"
            },
            branches.len(),
            nearest.join(", ")
        ))
    }

    /// What a failed conversation means. Git has one exit status for all of it, so its words
    /// (`LC_ALL=C`) have to be read; what is not recognised is taken as temporary and shown.
    pub(super) fn network_error(&self, doing: &str, output: &Output) -> PortError {
        let said = self.redact(&output.stderr);
        let (kind, hint) = classify(&said);
        PortError::new(
            kind,
            format!(
                "could not {doing} {}: {}",
                self.shown_url(),
                last_lines(&said)
            ),
        )
        .hint(hint)
    }

    /// The URL without what may be a secret.
    pub(super) fn shown_url(&self) -> String {
        without_userinfo(&self.remote_url)
    }

    pub(super) fn redact(&self, text: &str) -> String {
        let Some(user) = userinfo(&self.remote_url) else {
            return text.to_owned();
        };
        // A token may stand in place of the name, too.
        let mut clean = text.replace(&format!("{user}@"), "");
        for secret in user.split(':').skip(1).chain([user]) {
            if !secret.is_empty() {
                clean = clean.replace(secret, "***");
            }
        }
        clean
    }
}

fn userinfo(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split('/').next()?;
    authority.rsplit_once('@').map(|(user, _)| user)
}

fn without_userinfo(url: &str) -> String {
    match userinfo(url) {
        Some(user) => url.replacen(&format!("{user}@"), "", 1),
        None => url.to_owned(),
    }
}

/// A path that exists here is made absolute, because git runs elsewhere; URLs stay as they are.
pub(super) fn absolute(url: &str) -> PortResult<String> {
    if url.is_empty() || url.starts_with('-') || url.contains(['\n', '\0']) {
        return Err(PortError::new(
            ErrorKind::Refused,
            format!("{url:?} is not a repository URL or path"),
        ));
    }
    let path = Path::new(url);
    if !url.contains("://") && path.exists() {
        let whole = path
            .canonicalize()
            .map_err(|cause| super::making::failed("open", path, cause))?;
        if let Some(text) = whole.to_str() {
            return Ok(text.to_owned());
        }
    }
    Ok(url.to_owned())
}

fn nearest<'a>(wanted: &str, branches: &[&'a str]) -> Vec<&'a str> {
    let mut scored: Vec<_> = branches
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), *name))
        .collect();
    scored.sort_unstable();
    scored
        .into_iter()
        .take(SUGGESTIONS)
        .map(|(_, name)| name)
        .collect()
}

/// Pieces of what git 2.30 to 2.50, curl and OpenSSH say in the C locale.
const AUTHENTICATION: [&str; 10] = [
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "terminal prompts disabled",
    "Permission denied",
    "Host key verification failed",
    "returned error: 401",
    "returned error: 403",
    "Invalid username or",
    "Access denied",
];
const NETWORK: [&str; 11] = [
    "Could not resolve host",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Operation timed out",
    "Failed to connect",
    "Network is unreachable",
    "No route to host",
    "early EOF",
    "unexpected disconnect",
    "returned error: 5",
];
const MISSING: [&str; 6] = [
    "does not appear to be a git repository",
    "Repository not found",
    "not found",
    "does not exist",
    "No such file or directory",
    "returned error: 404",
];

fn classify(said: &str) -> (ErrorKind, &'static str) {
    let says = |pieces: &[&str]| pieces.iter().any(|piece| said.contains(piece));
    if said.contains("dubious ownership") {
        (
            ErrorKind::Refused,
            "the repository belongs to another user; allow it with \
             `git config --global --add safe.directory <path>`",
        )
    } else if said.contains("couldn't find remote ref") {
        (
            ErrorKind::NotFound,
            "the branch is gone from the remote; push it again or change `branch` in the configuration",
        )
    } else if says(&AUTHENTICATION) {
        (
            ErrorKind::Refused,
            "check that `git ls-remote <url>` works without a prompt as the user who runs this: \
             a credential helper, an ssh key in the agent, the host in known_hosts",
        )
    } else if says(&NETWORK) {
        (ErrorKind::Transient, "check the network; it is tried again")
    } else if says(&MISSING) {
        (
            ErrorKind::NotFound,
            "check the repository URL; a private repository may also answer so without credentials",
        )
    } else {
        (
            ErrorKind::Transient,
            "it is tried again; if it stays, try `git ls-remote <url>` by hand",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        let table = [
            (
                "fatal: '/nope' does not appear to be a git repository",
                ErrorKind::NotFound,
            ),
            (
                "remote: Repository not found.\nfatal: repository 'https://x/y/' not found",
                ErrorKind::NotFound,
            ),
            (
                "fatal: could not read Username for 'https://x': terminal prompts disabled",
                ErrorKind::Refused,
            ),
            (
                "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                ErrorKind::Refused,
            ),
            (
                "fatal: unable to access 'https://x/': Could not resolve host: x",
                ErrorKind::Transient,
            ),
            (
                "fatal: unable to access 'https://x/': The requested URL returned error: 503",
                ErrorKind::Transient,
            ),
            (
                "fatal: couldn't find remote ref refs/heads/gone",
                ErrorKind::NotFound,
            ),
            ("fatal: something nobody has seen", ErrorKind::Transient),
        ];
        for (said, kind) in table {
            assert_eq!(classify(said).0, kind, "{said}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_never_shown() {
        assert_eq!(
            without_userinfo("https://me:secret@host/x.git"),
            "https://host/x.git"
        );
        assert_eq!(without_userinfo("git@host:x.git"), "git@host:x.git");
        assert_eq!(without_userinfo("https://host/a@b"), "https://host/a@b");
    }

    #[test]
    fn the_nearest_names_come_first_and_are_five() {
        let names = ["trunk", "maim", "release/1", "main2", "dev", "mani", "x"];
        let near = nearest("main", &names);
        assert_eq!(near.len(), 5);
        assert_eq!(&near[..3], ["maim", "main2", "mani"]);
    }

    #[test]
    fn options_do_not_pass_for_urls() {
        assert!(absolute("--upload-pack=evil").is_err());
        assert!(absolute("").is_err());
    }
}
