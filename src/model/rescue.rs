//! Rescue snapshots: uncommitted work, kept.

use serde::{Deserialize, Serialize};

use super::{AgentId, CommitId, Timestamp};

/// One snapshot of a checkout that was not clean, in the supervisor's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescueView {
    /// What `orchestrator rescue show` takes: the first digits of the snapshot's commit.
    pub id: String,
    pub agent: AgentId,
    pub at: Timestamp,
    /// Why it was taken: `before a stop`, `at an interval`, ...
    pub cause: String,
    /// The snapshot's commit, and the reference that keeps it.
    pub commit: CommitId,
    pub reference: String,
    /// `HEAD` of the checkout then; `None` before the first commit.
    pub head: Option<CommitId>,
    /// Files that differ from `HEAD`: staged, changed, untracked.
    pub files: u32,
    /// What could not be taken, with the reason; bounded.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub path: String,
    pub why: String,
}
