//! Git as it really is: stores, checkouts, bundles, merges and pushes in temporary directories.
//! What runs in a container elsewhere runs here as a process in the checkout, marked `IN_SANDBOX`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bring_up_to;
mod canary;
mod exchange;
mod never_lost;
mod nothing_lost;
mod remote;
mod rescue;
mod train;
mod work;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use orchestrator::model::{AgentId, CommitId};
use orchestrator::ports::{ErrorKind, ExecOutput, ExecSpec, PortResult};
use orchestrator::worktree::sandbox::{self, BroughtUp, TreeState};
use orchestrator::worktree::{
    BundleSource, CheckoutSpec, FileEdit, GitStore, Identity, MergeOutcome, PushOutcome,
    read_beneath,
};
use tempfile::TempDir;

const LIMIT: u64 = 64 * 1024 * 1024;

/// A remote with one commit on `main`, and the supervisor's state directory beside it.
struct World {
    directory: TempDir,
    store: GitStore,
}

fn identity() -> Identity {
    Identity {
        name: "Ann".to_owned(),
        email: "ann@example.com".to_owned(),
    }
}

/// A git command of a person or an agent, in an environment of its own. Panics if it fails.
fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = command(directory, "git").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?} in {}: {}{}",
        directory.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn command(directory: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "A")
        .env("GIT_AUTHOR_EMAIL", "a@example.com")
        .env("GIT_COMMITTER_NAME", "A")
        .env("GIT_COMMITTER_EMAIL", "a@example.com")
        .env("IN_SANDBOX", "1");
    command
}

fn write(root: &Path, path: &str, content: &str) {
    let file = root.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

fn text(root: &Path, path: &str) -> String {
    std::fs::read_to_string(root.join(path)).unwrap()
}

fn commit(root: &Path, path: &str, content: &str) -> CommitId {
    write(root, path, content);
    git(root, &["add", "--all"]);
    git(
        root,
        &["commit", "--quiet", "-m", &format!("change {path}")],
    );
    head(root)
}

fn head(root: &Path) -> CommitId {
    CommitId::new(git(root, &["rev-parse", "HEAD"]))
}

/// Runs a sandbox command as the agent would.
fn execute(spec: &ExecSpec) -> ExecOutput {
    let directory = spec.working_directory.clone().unwrap();
    let program = if spec.command[0] == sandbox::HELPER {
        helper()
    } else {
        Path::new(&spec.command[0])
    };
    let output = command(Path::new(&directory), program.to_str().unwrap())
        .args(&spec.command[1..])
        .envs(&spec.environment)
        .output()
        .unwrap();
    ExecOutput {
        exit_code: output.status.code().unwrap().into(),
        stdout: output.stdout,
        stderr: output.stderr,
    }
}

/// The static helper, as instances have it, installed once.
fn helper() -> &'static Path {
    static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
        let place =
            std::env::temp_dir().join(format!("orchestrator-contract-{}", std::process::id()));
        orchestrator::hooks::install::install(&place, None, &[]).unwrap();
        place.join(orchestrator::hooks::install::HELPER_NAME)
    });
    &PLACE
}

fn inspect(checkout: &Path) -> TreeState {
    let output = execute(&sandbox::inspect(checkout.to_str().unwrap()));
    sandbox::parse_inspect(&sandbox::checked("inspect", output).unwrap()).unwrap()
}

fn bring_up(checkout: &Path, target: &CommitId) -> BroughtUp {
    let output = execute(&sandbox::bring_up_to(
        checkout.to_str().unwrap(),
        target,
        "main",
    ));
    let printed = sandbox::checked("bring-up-to", output).unwrap();
    let (outcome, told) = sandbox::parse_bring_up_to(&printed).unwrap();
    assert_eq!(told, Some(head(checkout)));
    outcome
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        seed_remote(
            directory.path(),
            &[("README.md", "hello\n"), ("shared.txt", "1\n2\n3\n4\n5\n")],
        );
        let store = open(directory.path(), "main").unwrap();
        Self { directory, store }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn remote(&self) -> PathBuf {
        self.path().join("remote.git")
    }

    /// A person's clone of the remote.
    fn person(&self) -> PathBuf {
        let clone = self.path().join("person");
        if !clone.exists() {
            git(self.path(), &["clone", "--quiet", "remote.git", "person"]);
        }
        git(&clone, &["pull", "--quiet", "--rebase"]);
        clone
    }

    fn person_pushes(&self, path: &str, content: &str) -> CommitId {
        let clone = self.person();
        let new = commit(&clone, path, content);
        git(&clone, &["push", "--quiet", "origin", "HEAD:main"]);
        new
    }

    fn spec(&self, agent: &str) -> CheckoutSpec {
        CheckoutSpec {
            agent: AgentId::new(agent),
            directory: self
                .path()
                .join("state/agents")
                .join(agent)
                .join("checkout"),
            branch: agent.to_owned(),
            base: self.store.branch_head().unwrap(),
            owner: None,
            identity: identity(),
        }
    }

    fn checkout(&self, agent: &str) -> PathBuf {
        let spec = self.spec(agent);
        self.store.ensure_checkout(&spec).unwrap();
        spec.directory
    }

    fn known(&self, agent: &str) -> Vec<CommitId> {
        let agent = AgentId::new(agent);
        [
            Some(self.store.branch_head().unwrap()),
            self.store.worker_head(&agent).unwrap(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn export(&self, agent: &str) -> Vec<u8> {
        let checkout = self.spec(agent).directory;
        let spec = sandbox::export(
            checkout.to_str().unwrap(),
            None,
            &self.known(agent),
            1 << 26,
        );
        sandbox::checked("export", execute(&spec)).unwrap()
    }

    fn import(&self, agent: &str) -> PortResult<CommitId> {
        let head = head(&self.spec(agent).directory);
        let bundle = self.export(agent);
        let agent = AgentId::new(agent);
        self.store
            .import_bundle(&agent, BundleSource::Bytes(&bundle), &head, LIMIT)?;
        Ok(head)
    }

    fn merge(&self, agent: &str) -> MergeOutcome {
        let head = self.import(agent).unwrap();
        self.store
            .merge(&head, &format!("Merge {agent}: a task"), &[])
            .unwrap()
    }

    fn read(&self, path: &str) -> Option<String> {
        let tip = self.store.branch_head().unwrap();
        let bytes = self.store.read_file(&tip, path, 1 << 20).unwrap()?;
        Some(String::from_utf8(bytes).unwrap())
    }
}

fn seed_remote(directory: &Path, files: &[(&str, &str)]) {
    git(
        directory,
        &[
            "init",
            "--quiet",
            "--bare",
            "--initial-branch=main",
            "remote.git",
        ],
    );
    git(
        directory,
        &["init", "--quiet", "--initial-branch=main", "seed"],
    );
    let seed = directory.join("seed");
    for (path, content) in files {
        write(&seed, path, content);
    }
    git(&seed, &["add", "--all"]);
    git(&seed, &["commit", "--quiet", "-m", "first"]);
    git(&seed, &["push", "--quiet", "../remote.git", "main"]);
}

fn open(directory: &Path, branch: &str) -> PortResult<GitStore> {
    let remote = directory.join("remote.git");
    let path = directory.join("state/store.git");
    GitStore::open_or_clone(&path, remote.to_str().unwrap(), branch, identity(), &|_| {})
}
