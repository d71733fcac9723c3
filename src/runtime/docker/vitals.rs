//! Signs of life of a container, as the engine counts them from outside.

use bollard::Docker;
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt as _;

use super::container::{inspect_any, is_running};
use super::error::classify;
use crate::ports::{ErrorKind, PortError, PortResult, Vitals};
use std::time::Duration;

/// `Runtime::vitals`. One sample: the engine would wait a second for a second one.
pub(super) async fn measure(docker: &Docker, name: &str) -> PortResult<Vitals> {
    let attempt = format!("measuring container {name}");
    let found = inspect_any(docker, name).await?;
    let Some(found) = found.filter(is_running) else {
        let text = format!("{attempt}: it is not running");
        return Err(PortError::new(ErrorKind::NotFound, text));
    };
    let paused = found.state.and_then(|state| state.paused).unwrap_or(false);
    let options = StatsOptionsBuilder::default()
        .stream(false)
        .one_shot(true)
        .build();
    let mut answers = Box::pin(docker.stats(name, Some(options)));
    let stats = answers
        .next()
        .await
        .ok_or_else(|| {
            let text = format!("{attempt}: the engine said nothing");
            PortError::new(ErrorKind::Broken, text)
        })?
        .map_err(|error| classify(&attempt, error))?;
    let nanos = stats
        .cpu_stats
        .and_then(|cpu| cpu.cpu_usage)
        .and_then(|usage| usage.total_usage)
        .ok_or_else(|| {
            let text = format!("{attempt}: the engine does not count CPU time");
            PortError::new(ErrorKind::Broken, text)
        })?;
    Ok(Vitals {
        cpu: Duration::from_nanos(nanos),
        paused,
    })
}
