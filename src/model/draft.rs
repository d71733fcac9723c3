//! Tasks as people and scripts ask for them, and what a claimant outside of the fleet may do to one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AgentId, TaskId};

/// Most tasks created at once.
pub const MOST_DRAFTS: usize = 1_000;
/// Longest lease a claimant may ask for.
pub const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// A task to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskDraft {
    /// `[A-Za-z0-9._-]`; one is made up where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// What the agent is told; may have several lines.
    pub description: String,
    /// Smaller is sooner.
    #[serde(default)]
    pub priority: i64,
    /// Only this agent of the fleet may do it; `None`: any worker, and claimants outside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<AgentId>,
    /// It begins when these are done. They exist, or are created with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<TaskId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    #[serde(default)]
    pub context: DraftContext,
    /// Globs of the paths it may change; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<String>,
}

/// Files and hints that go with the description.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftContext {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<String>,
}

/// What a claimant outside of the fleet does. `fence` is the number of its claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskChange {
    /// Takes it, for as long as `lease` says; the fleet's own lease if it says nothing.
    Claim {
        agent: AgentId,
        lease: Option<Duration>,
    },
    /// It goes on, for that long from now.
    Renew {
        agent: AgentId,
        fence: u64,
        lease: Option<Duration>,
    },
    Complete {
        agent: AgentId,
        fence: u64,
        result: String,
    },
    /// Gives it back undone; that counts for nothing.
    Release {
        agent: AgentId,
        fence: u64,
        cause: String,
    },
    /// It tried and failed: available again while it has attempts left, failed after that.
    Fail {
        agent: AgentId,
        fence: u64,
        cause: String,
    },
}

impl TaskChange {
    pub fn agent(&self) -> &AgentId {
        match self {
            Self::Claim { agent, .. }
            | Self::Renew { agent, .. }
            | Self::Complete { agent, .. }
            | Self::Release { agent, .. }
            | Self::Fail { agent, .. } => agent,
        }
    }

    /// The claim it is about; `None` where there is none yet.
    pub fn fence(&self) -> Option<u64> {
        match self {
            Self::Claim { .. } => None,
            Self::Renew { fence, .. }
            | Self::Complete { fence, .. }
            | Self::Release { fence, .. }
            | Self::Fail { fence, .. } => Some(*fence),
        }
    }

    pub fn lease(&self) -> Option<Duration> {
        match self {
            Self::Claim { lease, .. } | Self::Renew { lease, .. } => *lease,
            Self::Complete { .. } | Self::Release { .. } | Self::Fail { .. } => None,
        }
    }
}
