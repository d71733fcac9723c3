//! Could a supervisor of this program start here? Asked before a running one is told to go.

use super::error::DaemonError;
use super::paths::FleetPaths;
use super::prepare::image_spec;
use super::saved;
use crate::config::Config;
use crate::credentials::Pool;
use crate::ports::Runtime;
use crate::store::sqlite::SqliteStore;

/// Looks for what a start needs and can lack for long: a credential, a state that this program can
/// read, the engine, the image, which is built if it is not there. Changes nothing else, and may run
/// beside a supervisor.
///
/// Errors are those that [`super::run`] would end with.
pub async fn preflight(
    config: &Config,
    pool: &Pool,
    runtime: &dyn Runtime,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), DaemonError> {
    if pool.credentials.is_empty() {
        let problems = pool.problems.iter().map(ToString::to_string).collect();
        return Err(DaemonError::NoCredential { problems });
    }
    let database = FleetPaths::new(&config.state_directory).database();
    let peek = move || SqliteStore::peek(&database);
    let state = super::join(peek)
        .await
        .map_err(DaemonError::prerequisite("opening the state"))?;
    if let Some(state) = state {
        saved::read(&state)?;
    }
    runtime
        .probe()
        .await
        .map_err(DaemonError::prerequisite("reaching the container engine"))?;
    let line = move |text: &str| progress(text);
    runtime
        .ensure_image(&image_spec(config), &line)
        .await
        .map_err(DaemonError::prerequisite("preparing the agent image"))?;
    Ok(())
}
