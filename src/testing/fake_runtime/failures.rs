//! What the fake says when something is not there, and its clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::Timestamp;
use crate::ports::{ErrorKind, PortError};

pub(super) fn missing(attempt: &str, name: &str) -> PortError {
    PortError::new(
        ErrorKind::NotFound,
        format!("{attempt}: there is no container {name}"),
    )
}

pub(super) fn away(attempt: &str) -> PortError {
    PortError::new(
        ErrorKind::Transient,
        format!("{attempt}: the engine does not answer"),
    )
    .hint("start the engine")
}

pub(super) fn system_time() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
