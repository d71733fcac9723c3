//! Throwaway containers: a command on a checkout whose agent is not running. Removed afterwards,
//! also on an error, a deadline, and when nobody waits for the result any more.

use std::collections::HashMap;

use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::error::{classify, is_status, too_late};
use super::exec::{attempt, converse};
use super::spec::once_body;
use crate::model::ProjectId;
use crate::ports::{
    ContainerSpec, ErrorKind, ExecOutput, ExecSpec, NO_NETWORK, PortError, PortResult,
};
use crate::runtime::labels;

/// `Runtime::run_once`.
pub(super) async fn run(
    docker: &Docker,
    spec: &ContainerSpec,
    command: &ExecSpec,
) -> PortResult<ExecOutput> {
    let name = name(spec);
    let attempt = attempt(command, &name);
    // From here on: a create with an unknown outcome may have made it.
    let guard = Guard::new(docker, &name);
    let work = create_and_run(docker, spec, command, &name, &attempt);
    let result = match tokio::time::timeout(command.deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(too_late(&attempt, command.deadline.as_secs())),
    };
    guard.remove().await;
    result
}

pub(super) fn name(spec: &ContainerSpec) -> String {
    format!(
        "{}-once-{}",
        labels::fleet_name(&spec.project),
        uuid::Uuid::new_v4().simple()
    )
}

async fn create_and_run(
    docker: &Docker,
    spec: &ContainerSpec,
    command: &ExecSpec,
    name: &str,
    attempt: &str,
) -> PortResult<ExecOutput> {
    let with_input = !command.stdin.is_empty();
    let mut body = once_body(spec, &command.command, with_input, NO_NETWORK);
    if let Some(directory) = &command.working_directory {
        body.working_dir = Some(directory.clone());
    }
    body.env.get_or_insert_default().extend(
        command
            .environment
            .iter()
            .map(|(key, value)| format!("{key}={value}")),
    );
    let attached = start_attached(docker, name, body, attempt).await?;
    let (stdout, stderr) = converse(attached.input, attached.output, command, attempt).await?;
    let exit_code = exit_code(docker, name, attempt).await?;
    Ok(ExecOutput {
        exit_code,
        stdout,
        stderr,
    })
}

/// Makes and starts it with its outputs, and its input if it has one, attached before, so that no
/// output is lost.
pub(super) async fn start_attached(
    docker: &Docker,
    name: &str,
    body: ContainerCreateBody,
    attempt: &str,
) -> PortResult<AttachContainerResults> {
    let failed = |error| classify(attempt, error);
    let with_input = body.open_stdin.unwrap_or(false);
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    docker
        .create_container(Some(options), body)
        .await
        .map_err(failed)?;
    let options = AttachContainerOptionsBuilder::new()
        .stream(true)
        .stdin(with_input)
        .stdout(true)
        .stderr(true)
        .build();
    let attached = docker
        .attach_container(name, Some(options))
        .await
        .map_err(failed)?;
    docker
        .start_container(name, None::<StartContainerOptions>)
        .await
        .map_err(failed)?;
    Ok(attached)
}

pub(super) async fn exit_code(docker: &Docker, name: &str, attempt: &str) -> PortResult<i64> {
    let options = WaitContainerOptionsBuilder::new()
        .condition("not-running")
        .build();
    let mut waiting = std::pin::pin!(docker.wait_container(name, Some(options)));
    match waiting.next().await {
        Some(Ok(end)) => Ok(end.status_code),
        // bollard makes an error of every exit code but 0.
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
        Some(Err(error)) => Err(classify(attempt, error)),
        None => Err(PortError::new(
            ErrorKind::Transient,
            format!("{attempt}: the engine did not tell the exit code"),
        )),
    }
}

/// Removes the container on a task of its own when whoever runs it is dropped half-way.
pub(super) struct Guard(Option<(Docker, String)>);

impl Guard {
    pub(super) fn new(docker: &Docker, name: &str) -> Self {
        Self(Some((docker.clone(), name.to_owned())))
    }

    /// Removes it now; whoever waits may still be dropped meanwhile.
    pub(super) async fn remove(mut self) {
        if let Some((docker, name)) = &self.0
            && let Err(error) = remove(docker, name).await
        {
            tracing::warn!(container = name, error = %error.chain(), "a throwaway container stays behind");
        }
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some((docker, name)) = self.0.take() else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { remove(&docker, &name).await });
        }
    }
}

async fn remove(docker: &Docker, name: &str) -> PortResult<()> {
    let options = RemoveContainerOptionsBuilder::new()
        .v(true)
        .force(true)
        .build();
    match docker.remove_container(name, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(()),
        Err(error) => Err(classify(&format!("removing container {name}"), error)),
    }
}

pub(super) async fn remove_leftovers(docker: &Docker, project: &ProjectId) -> PortResult<usize> {
    let filters = HashMap::from([(
        "label",
        vec![
            format!("{}={project}", labels::PROJECT),
            labels::ONCE.to_owned(),
        ],
    )]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let found = docker
        .list_containers(Some(options))
        .await
        .map_err(|error| classify(&format!("listing what {project} left behind"), error))?;
    let mut removed = 0;
    for id in found.into_iter().filter_map(|summary| summary.id) {
        remove(docker, &id).await?;
        removed += 1;
    }
    Ok(removed)
}
