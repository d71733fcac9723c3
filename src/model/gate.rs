//! Gates: commands that must pass on the merged state before it may become the branch.

use serde::{Deserialize, Serialize};

use super::CommitId;

/// What one gate said of one tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRecord {
    /// As the configuration names it.
    pub name: String,
    pub outcome: GateOutcome,
    /// It failed, and passed when it was tried again on the same tree.
    #[serde(default)]
    pub flaky: bool,
    /// Not run now: its outcome on the same tree was known.
    #[serde(default)]
    pub cached: bool,
    /// The commit it ran on, and the hash of that commit's tree.
    pub commit: CommitId,
    pub tree: String,
    /// Of the run that decided, in milliseconds.
    pub milliseconds: u64,
    /// Names the log that is kept.
    pub log: String,
    /// The end of that log, bounded.
    #[serde(default)]
    pub tail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateOutcome {
    Passed,
    /// It ended with another status than 0.
    Failed,
    TimedOut,
    /// It could not be run: says nothing about the tree.
    Broken,
}

impl GateRecord {
    pub fn passed(&self) -> bool {
        self.outcome == GateOutcome::Passed
    }
}
