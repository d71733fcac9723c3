//! What the engine's errors mean for the decision that follows.

use std::error::Error as StdError;
use std::io;

use bollard::errors::Error;

use crate::ports::{ErrorKind, PortError};

/// The engine's error with what was attempted, of the kind that decisions need.
pub(super) fn classify(attempt: &str, error: Error) -> PortError {
    match error {
        Error::DockerResponseServerError {
            status_code,
            message,
        } => from_status(attempt, status_code, &message),
        Error::DockerStreamError { error } => {
            PortError::new(ErrorKind::Refused, format!("{attempt}: {error}"))
        }
        Error::SocketNotFoundError(path) => away(attempt, &format!("there is no socket {path}")),
        Error::UnsupportedURISchemeError { uri } => {
            PortError::new(ErrorKind::Refused, format!("{attempt}: cannot use {uri}"))
        }
        error if is_unreachable(&error) => unreachable(attempt, &error),
        error => PortError::new(
            ErrorKind::Broken,
            format!("{attempt}: the Docker engine's answer could not be understood"),
        )
        .because(error),
    }
}

/// An HTTP status of the engine with its message.
pub(super) fn from_status(attempt: &str, status: u16, message: &str) -> PortError {
    let message = message.trim();
    let text = format!("{attempt}: {message}");
    let said = |words: &str| message.to_ascii_lowercase().contains(words);
    match status {
        404 if said("no such image") => PortError::new(ErrorKind::NotFound, text)
            .hint("build or pull the image: `orchestrator start` does both for its own image"),
        404 if said("network") => PortError::new(ErrorKind::NotFound, text)
            .hint("the fleet's network is made at start; start the fleet again"),
        404 => PortError::new(ErrorKind::NotFound, text),
        409 if said("is already in use") || said("already exists") => {
            PortError::new(ErrorKind::AlreadyExists, text)
        }
        // Some engines answer 500 to these, but a second attempt changes nothing.
        400 | 403 | 500 if said("address pool") || said("fully subnetted") => no_address_pool(text),
        500 | 507 if said("no space left") => PortError::new(ErrorKind::Transient, text)
            .hint("free disk space: `docker system df` shows what the engine keeps"),
        500..=599 => PortError::new(ErrorKind::Transient, text),
        _ => PortError::new(ErrorKind::Refused, text),
    }
}

/// The request may or may not have had its effect: read back what became of it.
pub(super) fn outcome_is_unknown(error: &Error) -> bool {
    match error {
        Error::DockerResponseServerError { status_code, .. } => *status_code >= 500,
        Error::SocketNotFoundError(_) => false,
        error => is_unreachable(error) || matches!(error, Error::JsonDataError { .. }),
    }
}

pub(super) fn is_status(error: &Error, status: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// The engine closed a stream that has no end of its own.
pub(super) fn stream_ended(attempt: &str) -> PortError {
    away(attempt, "the Docker engine closed the connection")
}

/// A connection problem below HTTP.
pub(super) fn from_io(attempt: &str, error: io::Error) -> PortError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return no_permission(attempt).because(error);
    }
    away(attempt, "the Docker engine does not answer").because(error)
}

pub(super) fn too_late(attempt: &str, seconds: u64) -> PortError {
    PortError::new(
        ErrorKind::Transient,
        format!("{attempt}: no result within {seconds} s"),
    )
}

fn unreachable(attempt: &str, error: &Error) -> PortError {
    if io_cause(error).is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied) {
        return no_permission(attempt);
    }
    let why = match (error, io_cause(error)) {
        (Error::RequestTimeoutError, _) => "the Docker engine did not answer in time".to_owned(),
        (_, Some(cause)) => format!("the Docker engine does not answer ({cause})"),
        (error, None) => format!("the Docker engine does not answer ({error})"),
    };
    away(attempt, &why)
}

fn away(attempt: &str, why: &str) -> PortError {
    PortError::new(ErrorKind::Transient, format!("{attempt}: {why}")).hint(
        "start Docker: `sudo systemctl start docker`, or `docker/engine.sh ensure` where there is no systemd",
    )
}

fn no_permission(attempt: &str) -> PortError {
    PortError::new(
        ErrorKind::Refused,
        format!("{attempt}: this user may not talk to the Docker engine"),
    )
    .hint("`sudo usermod -aG docker $USER`, then log in again")
}

fn no_address_pool(text: String) -> PortError {
    PortError::new(ErrorKind::Refused, text).hint(
        "the engine has no free subnet for another network: remove unused ones with `docker network \
         prune`, or add `default-address-pools` to /etc/docker/daemon.json",
    )
}

fn is_unreachable(error: &Error) -> bool {
    matches!(
        error,
        Error::RequestTimeoutError
            | Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
    )
}

fn io_cause(error: &Error) -> Option<&io::Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io);
        }
        // `transparent` errors hide themselves from `source`.
        next = match cause.downcast_ref::<Error>() {
            Some(Error::IOError { err }) => return Some(err),
            Some(Error::HyperLegacyError { err }) => Some(err),
            _ => cause.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_the_status_and_the_text() {
        let kind = |status, message| from_status("starting", status, message).kind;
        assert_eq!(kind(404, "No such image: x:1"), ErrorKind::NotFound);
        assert_eq!(kind(404, "No such container: x"), ErrorKind::NotFound);
        assert_eq!(
            kind(409, "Conflict. The container name \"/x\" is already in use"),
            ErrorKind::AlreadyExists
        );
        assert_eq!(kind(409, "container x is not running"), ErrorKind::Refused);
        assert_eq!(kind(400, "invalid mount config"), ErrorKind::Refused);
        assert_eq!(
            kind(500, "timeout waiting for containerd"),
            ErrorKind::Transient
        );
    }

    #[test]
    fn exhausted_addresses_tell_what_to_do() {
        let error = from_status(
            "creating network x",
            500,
            "could not find an available, non-overlapping IPv4 address pool among the defaults",
        );
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(
            error
                .hint
                .is_some_and(|hint| hint.contains("network prune"))
        );
    }

    #[test]
    fn no_permission_is_not_an_engine_that_is_away() {
        let denied = Error::IOError {
            err: io::Error::from(io::ErrorKind::PermissionDenied),
        };
        let error = classify("probing", denied);
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.hint.is_some_and(|hint| hint.contains("usermod")));
        let refused = Error::IOError {
            err: io::Error::from(io::ErrorKind::ConnectionRefused),
        };
        assert_eq!(classify("probing", refused).kind, ErrorKind::Transient);
    }
}
