//! Tasks as people and scripts are shown them: pages of lines, and one task with everything.

use serde::{Deserialize, Serialize};

use super::{AgentId, Task, TaskId, Timestamp};

/// Lines of a page when nobody says how many.
pub const PAGE: usize = 100;
/// Lines of a page at most.
pub const MOST_PER_PAGE: usize = 500;
/// Longest title, in characters.
const TITLE: usize = 100;

/// A task's status, and of an available one whether it can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    Available,
    /// For tasks that are not done yet.
    Waiting,
    /// By a task that has failed or was cancelled: it cannot begin by itself.
    Blocked,
    Claimed,
    Done,
    Failed,
    Cancelled,
}

impl TaskState {
    pub const ALL: [Self; 7] = [
        Self::Available,
        Self::Waiting,
        Self::Blocked,
        Self::Claimed,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Waiting => "waiting",
            Self::Blocked => "blocked",
            Self::Claimed => "claimed",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Which tasks are wanted: those of which everything said here is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFilter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskState>,
    /// Only it may do them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<AgentId>,
    /// It owns them, or claimed them last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The last one of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<TaskId>,
    /// Lines of the page; [`PAGE`] if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Newest first; those made at the same moment in the order of their list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPage {
    pub tasks: Vec<TaskLine>,
    /// All that are wanted, on whatever page.
    pub matching: usize,
    /// What `after` is to be for the next page; `None` on the last.
    pub next: Option<TaskId>,
}

/// One task in a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    pub id: TaskId,
    /// The first line of its description.
    pub title: String,
    pub status: TaskState,
    pub owner: Option<AgentId>,
    /// Who has it, or had it when it ended.
    pub agent: Option<AgentId>,
    pub labels: Vec<String>,
    /// Tries so far, the present one included.
    pub attempts: u32,
    /// Those that count against it.
    pub failures: u32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One task with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    pub title: String,
    pub state: TaskState,
    pub task: Task,
    /// Its dependencies that are not done.
    pub waits_for: Vec<TaskId>,
    /// Failed or cancelled tasks without which it cannot begin.
    pub blocked_by: Vec<TaskId>,
    /// Open tasks that wait for it.
    pub needed_by: Vec<TaskId>,
}

/// The answer to a question about one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundTask {
    Known(Box<TaskReport>),
    /// There is none of that id; the nearest there are.
    Unknown {
        nearest: Vec<TaskId>,
    },
}

/// The first line of a description, cut.
pub fn title(description: &str) -> String {
    let mut lines = description.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty());
    let first = first.unwrap_or("(no description)");
    let mut cut: String = first.chars().take(TITLE).collect();
    if cut.len() < first.len() {
        cut.push('…');
    }
    cut
}
