//! Programs of the machine that chaos runs, with what they say when they fail.

use std::process::Command;

use super::super::error::Result;
use super::super::{Error, Exit};

pub(super) fn ran(command: &mut Command, attempt: &str) -> Result<()> {
    let output = command
        .output()
        .map_err(|error| Error::io(attempt, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(
        Exit::Failure,
        format!("{attempt}: {}", said.trim()),
    ))
}
