//! What the outside sees: one snapshot of the fleet, made by the driver after each decision and
//! served as it is by the API, `status --json` and the tables.

use serde::{Deserialize, Serialize};

use super::train::TrainView;
use super::{
    AgentId, CommitId, CredentialId, CredentialView, Incarnation, KeptView, Missing, ProjectId,
    Role, RunningGate, SessionId, TaskId, Timestamp,
};

/// The whole fleet at one moment. `generation` grows with each published change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FleetView {
    pub generation: u64,
    pub at: Timestamp,
    pub project: ProjectId,
    pub version: String,
    /// `starting`, `running`, `draining`, `stopping`.
    pub phase: String,
    pub branch: String,
    /// Tip of `branch` in the supervisor's store.
    pub branch_head: Option<CommitId>,
    /// False while merged commits wait for the remote; `push_problem` says why.
    pub pushed: bool,
    pub push_problem: Option<String>,
    pub tmux_socket: String,
    /// Where people edit: the manager's checkout, which holds the task lists.
    pub task_list_directory: String,
    pub agents: Vec<AgentView>,
    #[serde(default)]
    pub credentials: Vec<CredentialView>,
    pub tasks: TaskCounts,
    pub merges: MergeCounts,
    /// The way into the branch, in full.
    #[serde(default)]
    pub train: TrainView,
    pub planning: PlanningView,
    /// Hook events of kinds this version does not know, with how often each came.
    pub unknown_hooks: Vec<(String, u64)>,
    /// Set while the disk of the state directory has little room.
    #[serde(default)]
    pub disk: Option<DiskView>,
    /// The gate that runs now.
    #[serde(default)]
    pub gate: Option<RunningGate>,
    /// Things a person should look at, newest last; bounded.
    pub notices: Vec<Notice>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    pub id: AgentId,
    pub role: Role,
    pub incarnation: Incarnation,
    /// One word: `preparing`, `starting`, `idle`, `working`, `delivering`, `waiting`, `limited`,
    /// `backoff`, `stopped`, `failed`.
    pub state: String,
    /// One sentence: why the state is what it is.
    pub reason: String,
    pub since: Timestamp,
    /// When `limited`, `waiting` or `backoff` ends by itself, or is looked at again.
    #[serde(default)]
    pub until: Option<Timestamp>,
    pub session: Option<SessionId>,
    pub container: Option<String>,
    pub credential: Option<CredentialId>,
    pub model: Option<String>,
    pub task: Option<TaskView>,
    /// Tasks it says are done, and which are not proven yet.
    #[serde(default)]
    pub unproven: Vec<UnprovenView>,
    /// Tasks that wait for this agent.
    pub queued: u32,
    pub tasks_done: u32,
    pub branch: String,
    pub head: Option<CommitId>,
    /// Commits on its branch that are not in the target branch, and the other way round.
    pub ahead: Option<u32>,
    pub behind: Option<u32>,
    pub turns: u64,
    pub restarts: u32,
    pub usage: UsageView,
    /// The list that drives this agent; `None` for the manager.
    pub task_list: Option<String>,
    pub last_hook: Option<String>,
    pub last_hook_at: Option<Timestamp>,
    #[serde(default)]
    pub signals: SignalsView,
    #[serde(default)]
    pub kept: KeptView,
}

/// What the start of an agent's present life showed of its Claude Code. Each signal is `unknown`,
/// `good`, or `doubted`: missing or of another form than is known, so that others are used instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalsView {
    /// As its session file names it.
    pub claude_version: Option<String>,
    pub hooks: String,
    pub screen: String,
    pub session_file: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    pub id: TaskId,
    pub title: String,
    pub status: String,
    pub attempts: u32,
    pub since: Timestamp,
}

/// A task that is said to be done. What is missing is empty while nobody has found anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnprovenView {
    pub id: TaskId,
    pub title: String,
    /// When it was said.
    pub since: Timestamp,
    /// One line: what is waited for, or what it lacks.
    pub waits_for: String,
    pub missing: Vec<Missing>,
    /// How often it was asked to be mended.
    pub sent_back: u32,
}

/// What the agent has used so far. Tokens are summed from its transcripts at the end of each turn,
/// everything else is from Claude Code's status line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageView {
    /// Everything sent, what was read from the cache included, by all its conversations.
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Claude Code's own estimate, since the supervisor was started or, if longer, since the
    /// agent's process was.
    pub cost_usd: f64,
    /// Per cent of the context window.
    pub context_used_percent: Option<f64>,
    /// Per cent of the 5-hour and the weekly window; subscription logins only.
    pub five_hour_percent: Option<f64>,
    pub five_hour_resets_at: Option<Timestamp>,
    pub seven_day_percent: Option<f64>,
    pub seven_day_resets_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    pub available: u32,
    pub claimed: u32,
    pub done: u32,
    pub failed: u32,
    pub cancelled: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeCounts {
    /// On their way: being taken out of a checkout, waiting, or being merged.
    pub waiting: u32,
    pub merged: u32,
    pub conflicts: u32,
    /// Conflicts that were resolved since.
    pub resolved: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanningView {
    pub rounds: u32,
    /// Rounds in a row that brought no new task.
    pub empty_rounds: u32,
    pub next_round_at: Option<Timestamp>,
    /// Set when the bound is reached: nobody is asked to plan until something changes.
    pub resting: bool,
}

/// Room on a disk that has little room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// Rounded down to 16 MiB.
    pub free_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub at: Timestamp,
    pub agent: Option<AgentId>,
    pub text: String,
    pub hint: Option<String>,
}
