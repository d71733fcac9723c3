//! The validated configuration: plain data that cannot be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::gate::Gate;
use super::show;
use crate::model::ProjectId;

/// Everything the fleet is told. Made only by `load`. Its `Debug` hides what may be secret.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// The config directory, absolute, links followed.
    pub directory: PathBuf,
    /// May hold a password or token: show it only through `redact_url`. Local paths are absolute.
    pub repository_url: String,
    pub branch: String,
    /// 1 to 64.
    pub worker_count: u32,
    /// An absolute glob pattern for the `glob` crate.
    pub claude_configs: String,
    pub credentials: Credentials,
    pub project: ProjectId,
    /// Absolute; may not exist yet.
    pub state_directory: PathBuf,
    pub model: String,
    pub claude_version: String,
    pub image: ImageChoice,
    pub container: Container,
    /// For every agent; values may be secret.
    pub environment: BTreeMap<String, String>,
    /// In the order they run.
    pub gates: Vec<Gate>,
    pub merge_by: MergeBy,
    /// Candidates that are merged and tested together; at least 1.
    pub merge_batch: u32,
    /// 0: choose a free port.
    pub api_port: u16,
    pub planning: Planning,
    pub fetch_interval: Duration,
    pub push: bool,
    pub tasks: Tasks,
    pub git: GitIdentity,
    pub restart: Restart,
    pub rescue: Rescue,
    pub stop_grace: Duration,
    pub logs: Logs,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entry(&"directory", &self.directory)
            .entries(show::values(self))
            .finish()
    }
}

/// What image agents run in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageChoice {
    /// The agent image that comes with this program.
    Bundled,
    /// A user's own image reference.
    Named(String),
    /// A user's own Dockerfile, absolute; a regular file when it was loaded.
    Dockerfile(PathBuf),
}

/// Limits of one agent's container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Never 0.
    pub uid: u32,
    /// Bytes.
    pub memory: u64,
    /// Cores; may be a fraction.
    pub cpus: f64,
    pub pids: u32,
    /// Bytes.
    pub tmp_size: u64,
}

impl Container {
    /// The CPU limit in thousandths of a core, as containers are given it.
    pub fn milli_cpus(&self) -> i64 {
        (self.cpus * 1000.0).round() as i64
    }
}

/// How the pool of credentials is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Per cent of a window, 1 to 100.
    pub switch_at: u32,
    /// Renewed logins are written into the user's own files too.
    pub write_back: bool,
    /// https, or http on this machine.
    pub token_url: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planning {
    pub empty_rounds: u32,
    pub cool_down: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tasks {
    pub attempts: u32,
    pub lease: Duration,
    pub proof: TaskProof,
    pub send_back: u32,
}

/// What makes a worker's task done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskProof {
    Commit,
    None,
}

impl TaskProof {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::None => "none",
        }
    }

    /// From one of the words of the key `tasks.proof`.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Commit, Self::None]
            .into_iter()
            .find(|proof| proof.as_str() == word)
    }
}

/// Who merges the work of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeBy {
    Train,
    Manager,
}

impl MergeBy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Manager => "manager",
        }
    }

    /// From one of the words of the key `mergeBy`.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Train, Self::Manager]
            .into_iter()
            .find(|by| by.as_str() == word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitIdentity {
    pub name: String,
    pub email: String,
}

/// `backoff` is at most `maximum_backoff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    pub burst: u32,
    pub window: Duration,
    pub per_day: u32,
    pub backoff: Duration,
    pub maximum_backoff: Duration,
    /// How long nothing of a working agent may move before it counts as hung.
    pub hung_after: Duration,
}

/// Copies of uncommitted work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescue {
    /// Between two while an agent works.
    pub interval: Duration,
    /// Files that git ignores are copied too.
    pub ignored: bool,
    /// How long copies, and checkouts in the trash, are kept.
    pub keep: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    pub level: LogLevel,
    /// Bytes.
    pub size: u64,
    pub files: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// From one of the words of the key `logs.level`.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        [
            Self::Error,
            Self::Warn,
            Self::Info,
            Self::Debug,
            Self::Trace,
        ]
        .into_iter()
        .find(|level| level.as_str() == word)
    }
}
