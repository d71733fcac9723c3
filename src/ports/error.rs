//! One error shape for all ports: decisions depend on its kind, people on its text and hint.

use std::error::Error;

/// What an error means for the decision that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// May work when tried again: the engine restarts, a lock is held, the network is away.
    Transient,
    NotFound,
    AlreadyExists,
    /// The other side said no, and will again: permissions, a bad request, a protected branch.
    Refused,
    /// Something is damaged or not what it claims to be.
    Broken,
}

/// `message` names what failed, on what and why; `hint` the next step.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    pub kind: ErrorKind,
    pub message: String,
    pub hint: Option<String>,
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

pub type PortResult<T> = Result<T, PortError>;

impl PortError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the cause for the chain; do not repeat its text in `message`.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The message and every cause behind it, joined by `: `.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next: Option<&dyn Error> = self.source.as_deref().map(|s| s as &dyn Error);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}
