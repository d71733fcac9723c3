//! What can go wrong when asking the supervisor.

use std::error::Error as StdError;

use crate::ports::ErrorKind;

pub type Result<T> = std::result::Result<T, Error>;

/// `kind` is what decisions depend on; `code` is the API's stable code when it answered one.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    pub code: Option<String>,
    pub message: String,
    pub hint: Option<String>,
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: None,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Nobody answers at `place`.
    pub(super) fn not_running(place: &str) -> Self {
        let mut error = Self::new(
            ErrorKind::NotFound,
            format!("no supervisor answers at {place}"),
        )
        .hint("start it: `orchestrator up -d --config DIR`");
        error.code = Some(NOT_RUNNING.to_owned());
        error
    }

    /// True when there is no supervisor to ask, as opposed to one that knows no such thing.
    pub fn is_not_running(&self) -> bool {
        self.code.as_deref() == Some(NOT_RUNNING)
    }
}

/// The code of this side for "there is nobody".
const NOT_RUNNING: &str = "NOT_RUNNING";
