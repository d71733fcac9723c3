//! What an agent does, as far as the supervisor knows.

use serde::{Deserialize, Serialize};

use super::action::ClaimFor;
use crate::model::{TaskId, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Never launched, or ended on purpose.
    Absent,
    Launching,
    /// The container runs; the SessionStart hook and the first screen are awaited.
    Starting {
        until: Timestamp,
        greeted: bool,
        looks: u32,
        /// The screen is looked at then.
        #[serde(default)]
        look_at: Timestamp,
    },
    /// At the prompt, nothing to do.
    Idle,
    /// A claim is on its way to the queue.
    Claiming {
        task: TaskId,
        purpose: ClaimFor,
    },
    /// Pasted or about to be; the receipt is awaited until then.
    Delivering {
        until: Timestamp,
        attempt: u32,
        /// A look at the screen was asked for: only then may a free prompt lead to another paste.
        #[serde(default)]
        looking: bool,
    },
    Working,
    /// A turn failed, or could only fail; goes on by itself at `until`, or as soon as what it waits
    /// for is there.
    Limited {
        until: Timestamp,
        #[serde(default)]
        waits: Waits,
    },
    /// Something only a person can solve, looked at again at `until`.
    Waiting {
        until: Timestamp,
    },
    Stopping {
        then: AfterStop,
    },
    Backoff {
        until: Timestamp,
        /// Its launch failed without proof that no container runs: the same life is tried again.
        #[serde(default)]
        same_life: bool,
    },
    /// Given up; a person restarts it.
    Failed,
}

/// What a limited agent waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waits {
    /// The time alone: the provider is busy, whatever the credential.
    #[default]
    ForTime,
    /// A credential it can work with.
    ForCredential,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterStop {
    Launch,
    /// As a crash would: counted, with backoff.
    Crash,
    /// The same, and nothing of it moved any more.
    Hung,
    Stay,
}

impl Phase {
    /// When this phase needs a look again, and why.
    pub fn deadline(&self) -> Option<(Timestamp, &'static str)> {
        match self {
            Self::Starting { until, look_at, .. } if look_at < until => Some((*look_at, "looks")),
            Self::Starting { until, .. } => Some((*until, "start deadline")),
            Self::Delivering { until, .. } => Some((*until, "receipt deadline")),
            Self::Limited { until, .. } => Some((*until, "goes on")),
            Self::Waiting { until } => Some((*until, "looks again")),
            Self::Backoff { until, .. } => Some((*until, "restart")),
            Self::Absent
            | Self::Launching
            | Self::Idle
            | Self::Claiming { .. }
            | Self::Working
            | Self::Stopping { .. }
            | Self::Failed => None,
        }
    }

    /// The public word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent => "stopped",
            Self::Launching => "preparing",
            Self::Starting { .. } => "starting",
            Self::Idle => "idle",
            Self::Claiming { .. } | Self::Delivering { .. } => "delivering",
            Self::Working => "working",
            Self::Limited { .. } => "limited",
            Self::Waiting { .. } => "waiting",
            Self::Stopping { .. } => "stopping",
            Self::Backoff { .. } => "backoff",
            Self::Failed => "failed",
        }
    }

    /// It is on its way to its prompt, where it can be told what it holds.
    pub fn comes_back(&self) -> bool {
        matches!(
            self,
            Self::Launching
                | Self::Starting { .. }
                | Self::Backoff { .. }
                | Self::Stopping {
                    then: AfterStop::Launch | AfterStop::Crash | AfterStop::Hung
                }
        )
    }

    /// Its process has ended or is being ended; what still arrives are its last words.
    pub fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Absent | Self::Stopping { .. } | Self::Backoff { .. } | Self::Failed
        )
    }

    /// Nothing in its checkout changes by a turn of its own.
    pub(super) fn is_at_rest(&self) -> bool {
        *self == Self::Idle || self.is_over()
    }

    /// It has, or is about to have, a session that a credential can be lent to.
    pub(super) fn has_session(&self) -> bool {
        self.wants_container() && !matches!(self, Self::Stopping { .. })
    }

    /// It is limited until a credential is there.
    pub(super) fn wants_credential(&self) -> bool {
        matches!(
            self,
            Self::Limited {
                waits: Waits::ForCredential,
                ..
            }
        )
    }

    /// A container of the current incarnation should be running.
    pub fn wants_container(&self) -> bool {
        !matches!(
            self,
            Self::Absent | Self::Launching | Self::Backoff { .. } | Self::Failed
        )
    }
}
