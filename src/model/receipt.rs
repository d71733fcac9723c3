//! The proof that a task is done, and what was missing on the way to it.

use serde::{Deserialize, Serialize};

use super::{AgentId, CommitId, GateRecord, RescueNote, TaskId, Timestamp};

/// Commits kept in a receipt; their number is kept beside them.
pub const COMMITS_KEPT: usize = 50;

/// Why a task counts as done, as the supervisor saw it itself. Kept with the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub task: TaskId,
    pub agent: AgentId,
    /// The fencing number of the claim that it ends.
    pub fence: u64,
    /// When the agent said that it is done.
    pub claimed_at: Timestamp,
    pub proven_at: Timestamp,
    /// New commits, oldest first; the newest [`COMMITS_KEPT`].
    #[serde(default)]
    pub commits: Vec<CommitNote>,
    #[serde(default)]
    pub commit_count: u32,
    /// In the agent's words: why nothing had to be changed. Only without commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_change: Option<String>,
    /// The commit of the target branch that has them, and the tree the gates passed on.
    #[serde(default)]
    pub landed: Option<CommitId>,
    #[serde(default)]
    pub gates: Vec<GateRecord>,
    /// Paths the task may change, if it says so, and those it did change.
    #[serde(default)]
    pub scope: Vec<String>,
    #[serde(default)]
    pub files: Vec<String>,
    /// What its agent left uncommitted to the end although it was asked to mend that, bounded, and
    /// the copy of it. Both or none: without a copy it is not done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncommitted: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<RescueNote>,
    /// Earlier claims of the same work that were not believed.
    #[serde(default)]
    pub sent_back: Vec<SentBack>,
}

/// One commit, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitNote {
    pub id: CommitId,
    pub subject: String,
}

/// A claim that was not believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentBack {
    pub at: Timestamp,
    /// Who was asked to mend it.
    pub to: AgentId,
    pub missing: Vec<Missing>,
    /// The copy of what was uncommitted then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<RescueNote>,
}

/// What a claim lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "missing", rename_all = "snake_case")]
pub enum Missing {
    /// Nothing new on the branch, and no reason given for that.
    Commit,
    /// Uncommitted paths, bounded.
    CleanTree { paths: Vec<String> },
    /// Changed paths outside what the task may change, bounded.
    Scope { paths: Vec<String> },
    /// Gates that did not pass on the merged state.
    Gate { gates: Vec<GateRecord> },
    /// It does not merge: the paths.
    Merge { paths: Vec<String> },
}

impl Missing {
    /// One line for people.
    pub fn in_words(&self) -> String {
        match self {
            Self::Commit => "no new commit".to_owned(),
            Self::CleanTree { paths } => format!("uncommitted: {}", paths.join(", ")),
            Self::Scope { paths } => format!("outside its scope: {}", paths.join(", ")),
            Self::Gate { gates } => {
                let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
                format!("gates that did not pass: {}", names.join(", "))
            }
            Self::Merge { paths } => format!("conflicts in {}", paths.join(", ")),
        }
    }
}

/// What one turn added to an agent's branch: the commits of `head` that are not in any of `after`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub after: Vec<CommitId>,
    /// `None`: its hook did not tell; the commit that was taken then.
    pub head: Option<CommitId>,
}

/// What the store has of an agent's work on one task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Oldest first; the newest [`COMMITS_KEPT`].
    pub commits: Vec<CommitNote>,
    pub commit_count: u32,
    /// Paths its commits changed, bounded.
    pub files: Vec<String>,
    /// Of these, the ones that the task may not change and that differ from the target branch;
    /// bounded.
    pub outside: Vec<String>,
}
