//! What the stage does to containers behind the supervisor's back, as a person with `docker` could.

use bollard::models::{NetworkConnectRequest, NetworkDisconnectRequest};
use bollard::query_parameters::KillContainerOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};

use super::super::error::Result;
use super::super::{Error, Exit};
use crate::runtime::docker::DEFAULT_SOCKET;

/// Seconds for one request.
const DEADLINE: u64 = 60;

/// The engine that the stage's supervisor talks to.
pub(in crate::cli) struct Engine {
    docker: Docker,
}

impl Engine {
    /// At the same socket as the supervisor: `DOCKER_HOST`, if that is set.
    pub(in crate::cli) fn of_environment() -> Result<Self> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        let socket = if host.is_empty() {
            DEFAULT_SOCKET
        } else {
            host.as_str()
        };
        Self::at(socket)
    }

    pub(in crate::cli) fn at(socket: &str) -> Result<Self> {
        let path = socket.trim_start_matches("unix://");
        let docker = Docker::connect_with_unix(path, DEADLINE, API_DEFAULT_VERSION)
            .map_err(|error| failed("connecting to the engine", &error))?;
        Ok(Self { docker })
    }

    /// `docker kill`.
    pub(in crate::cli) async fn kill(&self, container: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        self.docker
            .kill_container(container, Some(options))
            .await
            .map_err(|error| failed("killing a container", &error))
    }

    /// `docker network disconnect`.
    pub(in crate::cli) async fn disconnect(&self, network: &str, container: &str) -> Result<()> {
        let request = NetworkDisconnectRequest {
            container: container.to_owned(),
            force: Some(true),
        };
        self.docker
            .disconnect_network(network, request)
            .await
            .map_err(|error| failed("taking a container off its network", &error))
    }

    /// `docker network connect`.
    pub(in crate::cli) async fn connect(&self, network: &str, container: &str) -> Result<()> {
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: None,
        };
        self.docker
            .connect_network(network, request)
            .await
            .map_err(|error| failed("putting a container on its network", &error))
    }
}

fn failed(attempt: &str, error: &bollard::errors::Error) -> Error {
    Error::new(Exit::Failure, attempt).because(error)
}
