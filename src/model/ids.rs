//! Typed identifiers. A task id cannot be passed where an agent id is wanted.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// One supervised Claude Code, with an id that outlives restarts: `manager` or `worker-N`.
    AgentId
);
text_id!(
    /// A unit of work.
    TaskId
);
text_id!(
    /// A credential by its name: the file's stem. Never the secret.
    CredentialId
);
text_id!(
    /// Claude Code's own conversation id (a UUID). Nothing else is called a session.
    SessionId
);
text_id!(
    /// One fleet on this machine; part of container and tmux names. `[a-z0-9-]`, at most 40.
    ProjectId
);
text_id!(
    /// A git commit, 40 hexadecimal digits.
    CommitId
);
text_id!(
    /// One hook callback; made by the helper, so that a repeat is recognised.
    CallbackId
);

impl AgentId {
    pub fn manager() -> Self {
        Self::new("manager")
    }

    /// Workers count from 1.
    pub fn worker(number: u32) -> Self {
        Self::new(format!("worker-{number}"))
    }

    /// The worker's number, or `None` for the manager.
    pub fn worker_number(&self) -> Option<u32> {
        self.0.strip_prefix("worker-")?.parse().ok()
    }
}

impl CommitId {
    /// The first ten digits, as people read them.
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

/// One life of an agent, counted up from 1. An event of an earlier life changes nothing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_knows_its_number_and_the_manager_has_none() {
        assert_eq!(AgentId::worker(7).worker_number(), Some(7));
        assert_eq!(AgentId::manager().worker_number(), None);
    }
}
