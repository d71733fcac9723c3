//! The fleet's own bridge network. Agents reach the outside and the host's address on the bridge,
//! not each other.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::InspectNetworkOptions;

use super::error::{classify, is_status, outcome_is_unknown};
use crate::model::ProjectId;
use crate::ports::{ErrorKind, NetworkInfo, PortError, PortResult};
use crate::runtime::labels;

/// `Runtime::ensure_network`.
pub(super) async fn ensure(docker: &Docker, project: &ProjectId) -> PortResult<NetworkInfo> {
    let name = labels::fleet_name(project);
    if let Some(found) = inspect(docker, &name).await? {
        return describe(project, name, found);
    }
    let request = NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".to_owned()),
        labels: Some(labels::network_labels(project).into_iter().collect()),
        options: Some(HashMap::from([(
            "com.docker.network.bridge.enable_icc".to_owned(),
            "false".to_owned(),
        )])),
        ..NetworkCreateRequest::default()
    };
    let attempt = format!("creating network {name}");
    let created = docker.create_network(request).await;
    match (inspect(docker, &name).await?, created) {
        (Some(found), _) => describe(project, name, found),
        (None, Err(error)) => Err(classify(&attempt, error)),
        (None, Ok(_)) => Err(PortError::new(
            ErrorKind::Transient,
            format!("{attempt}: it was removed meanwhile"),
        )),
    }
}

/// `Runtime::remove_network`.
pub(super) async fn remove(docker: &Docker, project: &ProjectId) -> PortResult<()> {
    let name = labels::fleet_name(project);
    let Some(found) = inspect(docker, &name).await? else {
        return Ok(());
    };
    check_ours(project, &name, &found)?;
    match docker.remove_network(&name).await {
        Ok(()) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => {
            if outcome_is_unknown(&error) && inspect(docker, &name).await?.is_none() {
                return Ok(());
            }
            Err(classify(&format!("removing network {name}"), error))
        }
    }
}

async fn inspect(docker: &Docker, name: &str) -> PortResult<Option<NetworkInspect>> {
    match docker
        .inspect_network(name, None::<InspectNetworkOptions>)
        .await
    {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_status(&error, 404) => Ok(None),
        Err(error) => Err(classify(&format!("looking at network {name}"), error)),
    }
}

fn check_ours(project: &ProjectId, name: &str, found: &NetworkInspect) -> PortResult<()> {
    let label = found
        .labels
        .as_ref()
        .and_then(|labels| labels.get(labels::PROJECT));
    if label.is_some_and(|label| label == project.as_str()) {
        return Ok(());
    }
    Err(PortError::new(
        ErrorKind::AlreadyExists,
        format!("network {name} exists, but its labels are not this fleet's"),
    )
    .hint(format!("if it is not needed, `docker network rm {name}`")))
}

fn describe(project: &ProjectId, name: String, found: NetworkInspect) -> PortResult<NetworkInfo> {
    check_ours(project, &name, &found)?;
    let gateway = found
        .ipam
        .and_then(|ipam| ipam.config)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|config| config.gateway)
        // An engine with IPv6 lists both; the sockets of ours are IPv4.
        .find(|address| address.parse::<std::net::Ipv4Addr>().is_ok());
    match gateway {
        Some(gateway) => Ok(NetworkInfo { name, gateway }),
        None => Err(PortError::new(
            ErrorKind::Broken,
            format!("network {name} has no IPv4 gateway"),
        )
        .hint(format!(
            "stop the fleet, then `docker network rm {name}`; it is made again at start"
        ))),
    }
}
