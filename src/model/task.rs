//! Tasks as the queue keeps them.

use serde::{Deserialize, Serialize};

use super::{AgentId, AttemptNote, CommitId, Incarnation, Receipt, TaskId, Timestamp};

/// One unit of work. This is also its record in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    /// What the agent is told; may have several lines.
    pub description: String,
    pub status: TaskStatus,
    /// Smaller is sooner. Task list items get their place in the file.
    #[serde(default)]
    pub priority: i64,
    /// Only this agent may claim it; `None`: any worker.
    #[serde(default)]
    pub owner: Option<AgentId>,
    #[serde(default)]
    pub dependencies: Vec<TaskId>,
    #[serde(default)]
    pub labels: Vec<String>,
    #[serde(default)]
    pub context: TaskContext,
    /// Globs of the paths it may change; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<String>,
    pub source: TaskSource,
    #[serde(default)]
    pub claim: Option<Claim>,
    /// How many claims there were. The fencing number of a claim is the attempt it began.
    #[serde(default)]
    pub attempts: u32,
    /// Each try at it that has ended, oldest first; bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AttemptNote>,
    /// Attempts up to this number do not count any more: it was asked for again.
    #[serde(default)]
    pub forgiven: u32,
    /// What the agent said at the end, or why it failed.
    #[serde(default)]
    pub result: Option<String>,
    /// The proof that it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Task {
    /// Attempts that ended by a cause of its own, since it was last asked for.
    pub fn failures(&self) -> u32 {
        let counted = self.history.iter();
        let counted = counted.filter(|note| note.number > self.forgiven && note.end.counts());
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }
}

/// Files and hints that go with the description.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskContext {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    Available,
    Claimed,
    Done,
    Failed,
    Cancelled,
}

impl TaskStatus {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Claimed => "claimed",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Who holds a task, until when, and with which fencing number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub agent: AgentId,
    pub incarnation: Incarnation,
    /// Grows with each claim of the task; complete, push and merge must show it.
    pub fence: u64,
    pub claimed_at: Timestamp,
    pub lease_until: Timestamp,
}

/// Where a task came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskSource {
    /// An item of `WORKER_{worker}_TASK_LIST.md`.
    TaskList { worker: u32 },
    /// The supervisor asks the manager to plan; counted rounds.
    Plan { round: u32 },
    /// The supervisor asks the manager to merge `commit` of `agent`.
    MergeConflict { agent: AgentId, commit: CommitId },
    /// The supervisor asks the manager to merge what these agents have committed.
    Merge { agents: Vec<AgentId> },
    /// The supervisor asks an agent to mend what it claimed done.
    Repair { tasks: Vec<TaskId> },
    /// The supervisor tells the manager of a task that `agent` claimed done, without proof.
    Unproven { agent: AgentId, task: TaskId },
    /// Created by a person or a script.
    Direct,
}
