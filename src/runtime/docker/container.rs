//! The life of an agent's container: start or adopt, stop, remove, list. What the engine did not
//! say is read back by name, never assumed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};

use super::REQUEST_DEADLINE;
use super::error::{classify, is_status, outcome_is_unknown};
use super::spec::engine_body;
use crate::model::{AgentId, ProjectId};
use crate::ports::{ContainerSpec, ErrorKind, ObservedContainer, PortError, PortResult};
use crate::runtime::labels;

/// Inspections under way at once while listing.
const PARALLEL_INSPECTIONS: usize = 8;
/// Waiting for a removal the engine says is under way.
const REMOVAL_POLLS: u32 = 50;
const REMOVAL_POLL: Duration = Duration::from_millis(100);

/// A container of ours as the engine shows it.
struct Seen {
    observed: ObservedContainer,
    /// Made, and never started.
    fresh: bool,
}

/// `Runtime::start`. A container of this name that has already ended is returned as it is: its
/// next life has another name.
pub(super) async fn start(docker: &Docker, spec: &ContainerSpec) -> PortResult<ObservedContainer> {
    let name = spec.name();
    let mut seen = ensure_created(docker, spec, &name).await?;
    if seen.fresh && seen.observed.spec_hash != labels::spec_hash(spec) {
        // Nothing has ever run in it: make it again from what is wanted now.
        remove(docker, &name).await?;
        seen = ensure_created(docker, spec, &name).await?;
    }
    if !seen.fresh {
        return Ok(seen.observed);
    }
    let attempt = format!("starting container {name}");
    let started = docker
        .start_container(&name, None::<StartContainerOptions>)
        .await;
    let Some(seen) = inspect(docker, &name).await? else {
        return Err(PortError::new(
            ErrorKind::Transient,
            format!("{attempt}: it was removed meanwhile"),
        ));
    };
    match started {
        // The engine may say no, or nothing, after it has started it.
        Err(error) if seen.fresh => Err(classify(&attempt, error)),
        _ => Ok(seen.observed),
    }
}

/// Made at once: nearly always there is none yet, and where there is, the name says so.
async fn ensure_created(docker: &Docker, spec: &ContainerSpec, name: &str) -> PortResult<Seen> {
    let attempt = format!("creating container {name}");
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let created = docker
        .create_container(Some(options), engine_body(spec))
        .await;
    if let Err(error) = created {
        // It was there already, or the engine made it and could not say so.
        return match inspect_ours(docker, spec, name).await? {
            Some(seen) => Ok(seen),
            None => Err(classify(&attempt, error)),
        };
    }
    inspect_ours(docker, spec, name).await?.ok_or_else(|| {
        PortError::new(
            ErrorKind::Transient,
            format!("{attempt}: it was removed meanwhile"),
        )
    })
}

/// The container of this name, if it exists and carries this specification's marks.
async fn inspect_ours(
    docker: &Docker,
    spec: &ContainerSpec,
    name: &str,
) -> PortResult<Option<Seen>> {
    let Some(found) = inspect_any(docker, name).await? else {
        return Ok(None);
    };
    let ours = mark_of(&found).is_some_and(|mark| {
        mark.project == spec.project
            && mark.agent == spec.agent
            && mark.incarnation == spec.incarnation
    });
    match seen(found).filter(|_| ours) {
        Some(seen) => Ok(Some(seen)),
        None => Err(PortError::new(
            ErrorKind::AlreadyExists,
            format!("container {name} exists, but its labels are not this fleet's"),
        )
        .hint(format!(
            "look at it with `docker inspect {name}`; if it is not needed, `docker rm -f {name}`"
        ))),
    }
}

/// `Runtime::stop`.
pub(super) async fn stop(docker: &Docker, name: &str, grace: Duration) -> PortResult<()> {
    let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
    let options = StopContainerOptionsBuilder::new().t(seconds).build();
    // The engine answers when the container has ended, so it needs the grace on top.
    let patient = docker
        .clone()
        .with_timeout(grace.saturating_add(REQUEST_DEADLINE));
    match patient.stop_container(name, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => {
            let attempt = format!("stopping container {name}");
            if !outcome_is_unknown(&error) {
                return Err(classify(&attempt, error));
            }
            match inspect_any(docker, name).await {
                Ok(None) => Ok(()),
                Ok(Some(found)) if !is_running(&found) => Ok(()),
                _ => Err(classify(&attempt, error)),
            }
        }
    }
}

/// `Runtime::remove`. Anonymous volumes go with it; there are none unless a user's image has some.
pub(super) async fn remove(docker: &Docker, name: &str) -> PortResult<()> {
    let attempt = format!("removing container {name}");
    let options = RemoveContainerOptionsBuilder::new().v(true).build();
    match docker.remove_container(name, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => {
            let underway =
                is_status(&error, 409) && error.to_string().contains("already in progress");
            if !underway && !outcome_is_unknown(&error) {
                return Err(running_hint(classify(&attempt, error), name));
            }
            for _ in 0..REMOVAL_POLLS {
                if inspect_any(docker, name).await?.is_none() {
                    return Ok(());
                }
                tokio::time::sleep(REMOVAL_POLL).await;
            }
            Err(classify(&attempt, error))
        }
    }
}

fn running_hint(error: PortError, name: &str) -> PortError {
    if error.message.contains("running container") {
        return error.hint(format!("stop {name} first"));
    }
    error
}

/// `Runtime::list`. Only a full look tells why a container has ended, so each of those is inspected;
/// of one that runs the list says enough.
pub(super) async fn list(
    docker: &Docker,
    project: &ProjectId,
) -> PortResult<Vec<ObservedContainer>> {
    let filters = HashMap::from([(
        "label",
        vec![
            format!("{}={project}", labels::PROJECT),
            labels::AGENT.to_owned(),
        ],
    )]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let found = docker
        .list_containers(Some(options))
        .await
        .map_err(|error| classify(&format!("listing the containers of {project}"), error))?;
    let (running, others): (Vec<_>, Vec<_>) = found.into_iter().partition(runs);
    let ids = others.into_iter().filter_map(|summary| summary.id);
    let mut containers: Vec<ObservedContainer> = futures_util::stream::iter(ids)
        .map(|id| async move { inspect(docker, &id).await })
        .buffer_unordered(PARALLEL_INSPECTIONS)
        .try_filter_map(|seen| async move { Ok(seen.map(|seen| seen.observed)) })
        .try_collect()
        .await?;
    containers.extend(running.into_iter().filter_map(running_one));
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(containers)
}

fn runs(found: &ContainerSummary) -> bool {
    found.state == Some(ContainerSummaryStateEnum::RUNNING)
}

/// `Runtime::newest_running`. What runs needs no look at how it ended, so this is one request however
/// many instances there are; a view asks it whenever its agent's terminal ends.
pub(super) async fn newest_running(
    docker: &Docker,
    project: &ProjectId,
    agent: &AgentId,
) -> PortResult<Option<ObservedContainer>> {
    let labels = vec![
        format!("{}={project}", labels::PROJECT),
        format!("{}={agent}", labels::AGENT),
    ];
    let filters = HashMap::from([("label", labels)]);
    // Without `all` only those that run.
    let options = ListContainersOptionsBuilder::new()
        .filters(&filters)
        .build();
    let found = docker
        .list_containers(Some(options))
        .await
        .map_err(|error| classify(&format!("looking for the container of {agent}"), error))?;
    Ok(found
        .into_iter()
        .filter(runs)
        .filter_map(running_one)
        .max_by_key(|container| container.incarnation))
}

fn running_one(found: ContainerSummary) -> Option<ObservedContainer> {
    let mark = labels::read_mark(found.labels.as_ref()?)?;
    Some(ObservedContainer {
        name: found.names?.first()?.trim_start_matches('/').to_owned(),
        id: found.id?,
        agent: mark.agent,
        incarnation: mark.incarnation,
        running: true,
        exit_code: None,
        oom_killed: false,
        spec_hash: mark.spec_hash,
        settings_hash: mark.settings_hash,
    })
}

/// Attaching to a container that has ended would wait for a start that never comes.
pub(super) async fn refuse_ended(docker: &Docker, name: &str) -> PortResult<()> {
    let attempt = format!("attaching to container {name}");
    match inspect_any(docker, name).await? {
        None => Err(PortError::new(
            ErrorKind::NotFound,
            format!("{attempt}: there is no such container"),
        )),
        Some(found) if is_running(&found) || is_fresh(&found) => Ok(()),
        Some(_) => Err(PortError::new(
            ErrorKind::Refused,
            format!("{attempt}: it has ended"),
        )),
    }
}

/// `Runtime::resize`.
pub(super) async fn resize(docker: &Docker, name: &str, columns: u16, rows: u16) -> PortResult<()> {
    let options = ResizeContainerTTYOptionsBuilder::new()
        .w(columns.into())
        .h(rows.into())
        .build();
    docker
        .resize_container_tty(name, options)
        .await
        .map_err(|error| classify(&format!("resizing the terminal of {name}"), error))
}

/// The container by name or id; `None` when there is none, or when it is not ours.
async fn inspect(docker: &Docker, name: &str) -> PortResult<Option<Seen>> {
    Ok(inspect_any(docker, name).await?.and_then(seen))
}

pub(super) async fn inspect_any(
    docker: &Docker,
    name: &str,
) -> PortResult<Option<ContainerInspectResponse>> {
    match docker
        .inspect_container(name, None::<InspectContainerOptions>)
        .await
    {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_status(&error, 404) => Ok(None),
        Err(error @ Error::JsonDataError { .. }) => {
            Err(classify(&format!("reading container {name}"), error))
        }
        Err(error) => Err(classify(&format!("looking at container {name}"), error)),
    }
}

pub(super) fn is_running(found: &ContainerInspectResponse) -> bool {
    found
        .state
        .as_ref()
        .and_then(|state| state.running)
        .unwrap_or(false)
}

fn is_fresh(found: &ContainerInspectResponse) -> bool {
    let status = found.state.as_ref().and_then(|state| state.status);
    status == Some(ContainerStateStatusEnum::CREATED)
}

fn mark_of(found: &ContainerInspectResponse) -> Option<labels::Mark> {
    labels::read_mark(found.config.as_ref()?.labels.as_ref()?)
}

fn seen(found: ContainerInspectResponse) -> Option<Seen> {
    let mark = mark_of(&found)?;
    let fresh = is_fresh(&found);
    let running = is_running(&found);
    let state = found.state.unwrap_or_default();
    Some(Seen {
        observed: ObservedContainer {
            name: found.name?.trim_start_matches('/').to_owned(),
            id: found.id?,
            agent: mark.agent,
            incarnation: mark.incarnation,
            running,
            exit_code: state.exit_code.filter(|_| !running && !fresh),
            oom_killed: state.oom_killed.unwrap_or(false),
            spec_hash: mark.spec_hash,
            settings_hash: mark.settings_hash,
        },
        fresh,
    })
}
