//! The Docker engine behind `ports::Runtime`, spoken to over its Unix socket.
//!
//! Called by `daemon` and the view client. Must never start an engine, never pin an API version
//! (it is negotiated at every connect), and never act on a container it cannot prove to be ours.

mod base;
pub mod compose;
mod container;
pub mod context;
mod error;
mod events;
mod exec;
pub mod host;
pub mod image;
mod job;
mod network;
mod once;
mod raw;
pub mod spec;
mod vitals;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use base::BASE_IMAGE;

use crate::model::{AgentId, ProjectId, Timestamp};
use crate::ports::{
    AttachedTerminal, ContainerSpec, ErrorKind, ExecOutput, ExecSpec, ImageSpec, Job, JobEnd,
    JobOutput, NetworkInfo, ObservedContainer, PortError, PortResult, ProgressLine, Runtime,
    RuntimeEvent, RuntimeInfo, Vitals,
};

/// Where the engine listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// How long the engine may take to begin its answer to an ordinary request. Creating on a busy
/// disk took seconds; a minute is an engine that hangs.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);

/// The engine. Cheap to clone; keeps no connection open, so it survives an engine's restart.
#[derive(Clone)]
pub struct DockerRuntime {
    docker: Docker,
    socket: PathBuf,
    /// One network creation at a time: engines before 25 make two of the same name.
    networks: Arc<tokio::sync::Mutex<()>>,
}

impl DockerRuntime {
    /// Connects to the engine at `socket`: a path or `unix://PATH`, as in `DOCKER_HOST`; `None`
    /// for [`DEFAULT_SOCKET`]. Negotiates the API version.
    ///
    /// # Errors
    /// `Transient` when no engine answers, `Refused` without permission for the socket and for
    /// addresses that are not Unix sockets: an engine elsewhere could not mount our directories.
    pub async fn connect(socket: Option<&str>) -> PortResult<Self> {
        let socket = socket
            .filter(|text| !text.is_empty())
            .unwrap_or(DEFAULT_SOCKET);
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        if !path.starts_with('/') {
            return Err(PortError::new(
                ErrorKind::Refused,
                format!("the Docker engine at {socket} cannot be used"),
            )
            .hint("agents need directories of this machine: unset DOCKER_HOST or make it `unix:///path`"));
        }
        let attempt = format!("connecting to the Docker engine at {path}");
        let docker =
            Docker::connect_with_unix(path, REQUEST_DEADLINE.as_secs(), API_DEFAULT_VERSION)
                .map_err(|error| error::classify(&attempt, error))?;
        let docker = docker
            .negotiate_version()
            .await
            .map_err(|error| error::classify(&attempt, error))?;
        Ok(Self {
            docker,
            socket: Path::new(path).to_owned(),
            networks: Arc::default(),
        })
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    async fn remove_leftovers(&self, project: &ProjectId) -> PortResult<usize> {
        once::remove_leftovers(&self.docker, project).await
    }

    async fn probe(&self) -> PortResult<RuntimeInfo> {
        let attempt = "asking the Docker engine for its version";
        let docker = self
            .docker
            .clone()
            .negotiate_version()
            .await
            .map_err(|error| error::classify(attempt, error))?;
        let version = docker
            .version()
            .await
            .map_err(|error| error::classify(attempt, error))?;
        Ok(RuntimeInfo {
            name: "docker".to_owned(),
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
        })
    }

    async fn ensure_network(&self, project: &ProjectId) -> PortResult<NetworkInfo> {
        let _one_at_a_time = self.networks.lock().await;
        network::ensure(&self.docker, project).await
    }

    async fn remove_network(&self, project: &ProjectId) -> PortResult<()> {
        network::remove(&self.docker, project).await
    }

    async fn ensure_image(
        &self,
        image: &ImageSpec,
        progress: ProgressLine<'_>,
    ) -> PortResult<String> {
        image::ensure(&self.docker, image, progress).await
    }

    async fn image_id(&self, tag: &str) -> PortResult<Option<String>> {
        image::id_of(&self.docker, tag).await
    }

    async fn start(&self, spec: &ContainerSpec) -> PortResult<ObservedContainer> {
        container::start(&self.docker, spec).await
    }

    async fn stop(&self, name: &str, grace: Duration) -> PortResult<()> {
        container::stop(&self.docker, name, grace).await
    }

    async fn remove(&self, name: &str) -> PortResult<()> {
        container::remove(&self.docker, name).await
    }

    async fn list(&self, project: &ProjectId) -> PortResult<Vec<ObservedContainer>> {
        container::list(&self.docker, project).await
    }

    async fn newest_running(
        &self,
        project: &ProjectId,
        agent: &AgentId,
    ) -> PortResult<Option<ObservedContainer>> {
        container::newest_running(&self.docker, project, agent).await
    }

    async fn vitals(&self, name: &str) -> PortResult<Vitals> {
        vitals::measure(&self.docker, name).await
    }

    async fn exec(&self, name: &str, command: &ExecSpec) -> PortResult<ExecOutput> {
        exec::exec(&self.docker, name, command).await
    }

    async fn run_once(&self, spec: &ContainerSpec, command: &ExecSpec) -> PortResult<ExecOutput> {
        once::run(&self.docker, spec, command).await
    }

    async fn run_job(&self, job: &Job, output: JobOutput<'_>) -> PortResult<JobEnd> {
        job::run(&self.docker, job, output).await
    }

    async fn events(
        &self,
        project: &ProjectId,
        since: Option<Timestamp>,
    ) -> PortResult<BoxStream<'static, PortResult<RuntimeEvent>>> {
        events::events(&self.docker, project, since).await
    }

    async fn logs(
        &self,
        name: &str,
        tail: Option<usize>,
        follow: bool,
    ) -> PortResult<BoxStream<'static, PortResult<Bytes>>> {
        raw::logs(&self.socket, name, tail, follow).await
    }

    async fn attach(&self, name: &str) -> PortResult<AttachedTerminal> {
        container::refuse_ended(&self.docker, name).await?;
        raw::attach(&self.socket, name).await
    }

    async fn resize(&self, name: &str, columns: u16, rows: u16) -> PortResult<()> {
        container::resize(&self.docker, name, columns, rows).await
    }
}
