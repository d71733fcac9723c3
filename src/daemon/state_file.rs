//! The state as one file: copied while it is in use, looked through, put back from a backup.
//!
//! For the command line, beside a supervisor or without one; putting back takes the lock that a
//! supervisor holds while it runs.

use std::path::Path;

use super::error::DaemonError;
use super::paths::FleetPaths;
use super::start::lock;
use crate::ports::PortResult;
use crate::store::sqlite::{self, Checked, CopyInfo};

/// A copy of the state in `directory`, written to `target`, which must not exist.
pub async fn back_up_state(directory: &Path, target: &Path) -> PortResult<CopyInfo> {
    let (database, target) = (FleetPaths::new(directory).database(), target.to_owned());
    super::join(move || sqlite::backup_file(&database, &target)).await
}

/// A look at every page of the state in `directory`, or of another `file`.
pub async fn check_state(directory: &Path, file: Option<&Path>) -> PortResult<Checked> {
    let database = FleetPaths::new(directory).database();
    let file = file.map_or(database, Path::to_owned);
    super::join(move || sqlite::check_file(&file)).await
}

/// Puts a copy of `backup` in the place of the state in `directory`; what is there is kept.
pub async fn restore_state(directory: &Path, backup: &Path) -> Result<CopyInfo, DaemonError> {
    let paths = FleetPaths::new(directory);
    let _lock = lock(&paths)?;
    let backup = backup.to_owned();
    super::join(move || sqlite::restore_file(&backup, &paths.database()))
        .await
        .map_err(DaemonError::prerequisite("restoring the state"))
}
