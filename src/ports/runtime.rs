//! Where agents live: containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;

use super::PortResult;
use crate::model::{AgentId, Incarnation, ProjectId, Timestamp};

/// The exit code of a main process that was killed, for lack of memory or by somebody.
pub const KILLED: i64 = 137;

/// What the engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeInfo {
    pub name: String,
    pub version: String,
    pub api_version: String,
}

/// The fleet's own bridge network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInfo {
    pub name: String,
    /// The host's address on it, for example `172.18.0.1`.
    pub gateway: String,
}

/// What image an agent runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// Tag to look for and to build.
    pub tag: String,
    pub build: ImageBuild,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageBuild {
    /// A user's own image: must exist, or be pulled; never built.
    Named,
    /// The agent image of `docker/`, with this Claude Code version and this uid for its user.
    Bundled { claude_version: String, uid: u32 },
    /// A user's own Dockerfile, given the same build arguments.
    Dockerfile {
        path: PathBuf,
        claude_version: String,
        uid: u32,
    },
}

/// A line for people who wait.
pub type ProgressLine<'a> = &'a (dyn Fn(&str) + Send + Sync);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    pub host: PathBuf,
    pub container: String,
    pub read_only: bool,
}

/// One container, wanted. Its name derives from project, agent and incarnation, so that a second
/// create collides instead of duplicating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    pub project: ProjectId,
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub image: String,
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
    pub working_directory: String,
    pub uid: u32,
    pub gid: u32,
    pub network: String,
    /// Bytes; `None`: no limit.
    pub memory_bytes: Option<i64>,
    /// Thousandths of a core; `None`: no limit.
    pub milli_cpus: Option<i64>,
    pub pids: i64,
    /// Size of the writable `/tmp`, in bytes.
    pub tmp_bytes: i64,
    /// Kept in labels: state directory of the fleet, so that tools find their way back.
    pub state_directory: PathBuf,
    /// Kept in labels: stands for all of the above that is the same in each life of the agent, so
    /// that a running container can be compared with what would be made now.
    pub settings_hash: String,
}

impl ContainerSpec {
    /// `orchestrator-PROJECT-AGENT-INCARNATION`.
    pub fn name(&self) -> String {
        container_name(&self.project, &self.agent, self.incarnation)
    }
}

/// The container name of one life of an agent.
pub fn container_name(project: &ProjectId, agent: &AgentId, incarnation: Incarnation) -> String {
    format!("orchestrator-{project}-{agent}-{incarnation}")
}

/// A container of ours, seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedContainer {
    pub name: String,
    pub id: String,
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub running: bool,
    /// Set once it has ended.
    pub exit_code: Option<i64>,
    /// Something in it was killed for lack of memory, at any time of its life.
    pub oom_killed: bool,
    /// The hash of the specification it was made from.
    pub spec_hash: String,
    /// [`ContainerSpec::settings_hash`]; empty on containers of earlier versions.
    pub settings_hash: String,
}

impl ObservedContainer {
    /// Its main process ended for lack of memory: a child's end alone leaves another exit code.
    pub fn starved(&self) -> bool {
        self.oom_killed && self.exit_code == Some(KILLED)
    }
}

/// Signs of life of a running container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// CPU time used by everything in it since it was started.
    pub cpu: Duration,
    /// Somebody froze it; it neither runs nor ends until it is let go on.
    pub paused: bool,
}

/// Something the engine told us about a container of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    pub name: String,
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub at: Timestamp,
    pub kind: RuntimeEventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEventKind {
    Started,
    Died {
        exit_code: i64,
    },
    /// Something in the container was killed for lack of memory; the container may live on.
    OutOfMemory,
}

/// A command to run inside a running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSpec {
    pub command: Vec<String>,
    pub working_directory: Option<String>,
    pub environment: BTreeMap<String, String>,
    pub stdin: Vec<u8>,
    /// Output beyond this is an error, not a truncation.
    pub max_output_bytes: usize,
    pub deadline: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    pub exit_code: i64,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A command with a container of its own, run to its end.
#[derive(Clone, Debug)]
pub struct Job {
    /// Made from this, its command included; agent and incarnation only name it. The network may be
    /// [`NO_NETWORK`].
    pub spec: ContainerSpec,
    /// Of the command, from its start; then the container is killed.
    pub deadline: Duration,
    /// Cancelled: the container is killed at once.
    pub stop: CancellationToken,
}

/// As [`ContainerSpec::network`] of a [`Job`]: none at all.
pub const NO_NETWORK: &str = "none";

/// How a [`Job`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    Exited {
        exit_code: i64,
        /// Something in it was killed for lack of memory.
        out_of_memory: bool,
    },
    TimedOut,
    Stopped,
}

/// Takes what a job prints, as it comes.
pub type JobOutput<'a> = &'a (dyn Fn(&[u8]) + Send + Sync);

/// The terminal of a container's main process.
pub struct AttachedTerminal {
    pub output: BoxStream<'static, PortResult<Bytes>>,
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

#[async_trait]
pub trait Runtime: Send + Sync {
    /// Is the engine there, and which one? Negotiates the API version.
    async fn probe(&self) -> PortResult<RuntimeInfo>;

    async fn ensure_network(&self, project: &ProjectId) -> PortResult<NetworkInfo>;

    /// `Ok` when there is no such network.
    async fn remove_network(&self, project: &ProjectId) -> PortResult<()>;

    /// Makes sure the image exists, building it if it may. Returns its id.
    async fn ensure_image(
        &self,
        image: &ImageSpec,
        progress: ProgressLine<'_>,
    ) -> PortResult<String>;

    /// The id of an image that is there; `None` when it is not. Fetches and builds nothing.
    async fn image_id(&self, tag: &str) -> PortResult<Option<String>>;

    /// Makes sure the container exists and runs. Adopts one of the same name.
    async fn start(&self, spec: &ContainerSpec) -> PortResult<ObservedContainer>;

    /// Asks (SIGTERM), waits `grace`, kills. `Ok` when it is not running or not there.
    async fn stop(&self, name: &str, grace: Duration) -> PortResult<()>;

    /// Removes a container that has ended. `Ok` when it is not there.
    async fn remove(&self, name: &str) -> PortResult<()>;

    /// Removes throwaway containers of [`Runtime::run_once`] and [`Runtime::run_job`] that a crash
    /// left behind; returns how many. For the start, when none can be in use.
    async fn remove_leftovers(&self, project: &ProjectId) -> PortResult<usize>;

    /// All containers of the project, running or not.
    async fn list(&self, project: &ProjectId) -> PortResult<Vec<ObservedContainer>>;

    /// The container of the agent's newest life, if that runs. As [`Runtime::list`] would say, where
    /// an engine has no cheaper way to ask.
    async fn newest_running(
        &self,
        project: &ProjectId,
        agent: &AgentId,
    ) -> PortResult<Option<ObservedContainer>> {
        let all = self.list(project).await?;
        Ok(all
            .into_iter()
            .filter(|container| container.running && container.agent == *agent)
            .max_by_key(|container| container.incarnation))
    }

    /// Measures a running container without running anything in it. `NotFound` when there is none
    /// of this name, or it has ended.
    async fn vitals(&self, name: &str) -> PortResult<Vitals>;

    /// Runs a command in a running container, as the agent's user.
    async fn exec(&self, name: &str, command: &ExecSpec) -> PortResult<ExecOutput>;

    /// Runs `command` in a throwaway container made from `spec` (its own command, name and
    /// incarnation are not used), for work on a checkout whose agent is not running.
    async fn run_once(&self, spec: &ContainerSpec, command: &ExecSpec) -> PortResult<ExecOutput>;

    /// Runs a job to its end; both its outputs go to `output`, in the order they come. The container
    /// is removed before this returns, and also when it is dropped half-way.
    ///
    /// An error says that the job could not be run or followed; it says nothing about the command.
    async fn run_job(&self, job: &Job, output: JobOutput<'_>) -> PortResult<JobEnd>;

    /// Events of the project's containers after `since`. Ends with an error when the engine goes
    /// away; a death that was the engine's own doing on its way out is not told before that.
    async fn events(
        &self,
        project: &ProjectId,
        since: Option<Timestamp>,
    ) -> PortResult<BoxStream<'static, PortResult<RuntimeEvent>>>;

    /// The engine's own log of the container's terminal: the last `tail` lines, then live if `follow`.
    async fn logs(
        &self,
        name: &str,
        tail: Option<usize>,
        follow: bool,
    ) -> PortResult<BoxStream<'static, PortResult<Bytes>>>;

    async fn attach(&self, name: &str) -> PortResult<AttachedTerminal>;

    async fn resize(&self, name: &str, columns: u16, rows: u16) -> PortResult<()>;
}
