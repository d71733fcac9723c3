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

/// One path of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescueFile {
    /// Below the checkout; bytes that are not UTF-8 are shown as U+FFFD.
    pub path: String,
    pub kind: RescueKind,
    /// Bytes; of a link, of the path it leads to.
    pub size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RescueKind {
    /// In the index, and the file is as the index has it.
    Staged,
    Changed,
    Untracked,
    /// In `HEAD`, and not in the working tree.
    Deleted,
    /// In a submodule or another repository inside the checkout.
    Nested,
    Ignored,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub path: String,
    pub why: String,
}
