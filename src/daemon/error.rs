//! Why a fleet could not be run, by what the user can do about it.

use crate::ports::{ErrorKind, PortError};

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another supervisor holds the state directory.
    #[error("a supervisor is already running on this state directory ({0})")]
    AlreadyRunning(String),
    #[error("no usable credential")]
    NoCredential { problems: Vec<String> },
    #[error("{what} failed")]
    Prerequisite {
        what: &'static str,
        #[source]
        cause: PortError,
    },
    #[error("{what} {path}")]
    Io {
        what: &'static str,
        path: String,
        #[source]
        cause: std::io::Error,
    },
    /// A socket or a port could not be listened on.
    #[error("{text}")]
    Door { text: String, hint: String },
    /// This program would lose what a newer one has written.
    #[error(
        "the state was written by version {version}, and {what}; this is version {}, which does not know that",
        env!("CARGO_PKG_VERSION")
    )]
    Newer { version: String, what: String },
    #[error("the saved state of {what} cannot be read; it was left as it is")]
    State {
        what: String,
        #[source]
        cause: serde_json::Error,
    },
}

impl DaemonError {
    pub(super) fn prerequisite(what: &'static str) -> impl FnOnce(PortError) -> Self {
        move |cause| Self::Prerequisite { what, cause }
    }

    pub(super) fn io(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |cause| Self::Io { what, path, cause }
    }

    /// The next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AlreadyRunning(_) => {
                Some("see `orchestrator status`, or end it with `orchestrator down`".into())
            }
            Self::NoCredential { problems } => Some(problems.join("\n")),
            Self::Prerequisite { cause, .. } => cause.hint.clone(),
            Self::Io { cause, .. } if cause.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some disk space; nothing was changed".into())
            }
            Self::Io { .. } => None,
            Self::Door { hint, .. } => Some(hint.clone()),
            Self::Newer { .. } => {
                Some("start the newer program again; nothing was changed".into())
            }
            Self::State { .. } => {
                Some("it was written by a newer version, or is damaged; restore a backup of state.db or move it aside".into())
            }
        }
    }

    /// Something outside is missing, and can be installed or started.
    pub fn is_prerequisite(&self) -> bool {
        matches!(self, Self::Prerequisite { cause, .. } if cause.kind != ErrorKind::Broken)
    }
}
