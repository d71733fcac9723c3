//! The state's file, read and written without asking a supervisor.

use std::path::Path;

use super::{daemon_error, port_error};
use crate::cli::Exit;
use crate::cli::error::Result;
use crate::daemon;
use crate::ports::ErrorKind;
pub(in crate::cli) use crate::store::sqlite::{Checked, CopyInfo};

pub(in crate::cli) async fn back_up(state: &Path, target: &Path) -> Result<CopyInfo> {
    let copied = daemon::back_up_state(state, target).await;
    copied.map_err(|error| {
        let exists = error.kind == ErrorKind::AlreadyExists;
        let mut told = port_error(error);
        if exists {
            told.exit = Exit::Refused;
        }
        told
    })
}

pub(in crate::cli) async fn check(state: &Path, file: Option<&Path>) -> Result<Checked> {
    let checked = daemon::check_state(state, file).await;
    checked.map_err(port_error)
}

pub(in crate::cli) async fn restore(state: &Path, backup: &Path) -> Result<CopyInfo> {
    let restored = daemon::restore_state(state, backup).await;
    restored.map_err(daemon_error)
}
