//! The one handle every front door uses: request, snapshot, subscribe, and the intake of hooks.
//!
//! Called by `api`, `hooks` and later `mcp` and `dashboard`; answered by the driver in `daemon`.
//! Must never decide anything and never touch an adapter.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::model::draft::{TaskChange, TaskDraft};
use crate::model::listing::{FoundTask, TaskFilter, TaskPage, TaskReport};
pub use crate::model::request::{Ending, Reply, Request};
use crate::model::view::{FleetView, UsageView};
use crate::model::{
    About, AgentId, CallbackId, CleanedUp, Explanation, GateEvent, GateView, HookAnswer,
    HookReport, Incarnation, RescueContent, RescueView, Restored, SessionId, TaskId, WorktreeView,
};

/// Why the driver could not answer at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("the supervisor is shutting down")]
    Gone,
    #[error("the supervisor did not answer in time")]
    Late,
    /// The event could not be persisted, so it must not be acknowledged: the helper spools it.
    #[error("the event could not be stored: {0}")]
    NotStored(String),
}

/// The driver's side of the handle. One real implementation in `daemon`; fakes in tests of front doors.
#[async_trait]
pub trait ControlPort: Send + Sync {
    async fn request(&self, request: Request) -> Result<Reply, ControlError>;

    /// Persists the event, decides, answers. A callback id seen before gets the same answer and
    /// changes nothing. `raw` is the payload as it came, for the journal.
    async fn hook(
        &self,
        report: HookReport,
        raw: serde_json::Value,
    ) -> Result<HookAnswer, ControlError>;

    /// Takes what was uncommitted at the end of a turn. Not persisted, and nobody waits for what comes
    /// of it.
    async fn tree(&self, report: TreeReport) -> Result<(), ControlError>;

    /// Takes what the status line told; returns the line to show. Not persisted.
    async fn status_line(&self, report: StatusReport) -> Result<String, ControlError>;

    /// Which program this is, and what it was told.
    async fn about(&self) -> Result<About, ControlError>;

    /// Why an agent is in its state, after a fresh look at it, with its newest changes of state;
    /// `None` when there is no such agent.
    async fn explain(
        &self,
        agent: AgentId,
        history: usize,
    ) -> Result<Option<Explanation>, ControlError>;

    /// All gates, in their order, and what came of them so far.
    async fn gates(&self) -> Result<Vec<GateView>, ControlError>;

    /// Runs gates now, whatever is known of the tree. Dropping the stream ends the run.
    async fn run_gates(
        &self,
        request: GateRequest,
    ) -> Result<Result<GateStream, Refusal>, ControlError>;

    /// A page of the tasks that are wanted.
    async fn tasks(&self, filter: TaskFilter) -> Result<TaskPage, ControlError>;

    /// One task with everything that is known of it.
    async fn task(&self, id: TaskId) -> Result<FoundTask, ControlError>;

    /// The newest snapshot, and a way to wait for the next.
    fn view(&self) -> watch::Receiver<Arc<FleetView>>;

    /// For creating tasks, and for claimants outside of the fleet. `None` from doubles without a queue.
    fn queue(&self) -> Option<Arc<dyn TaskPort>> {
        None
    }

    /// What is kept of uncommitted work. `None` from doubles without a git store.
    fn keeping(&self) -> Option<Arc<dyn KeepingPort>> {
        None
    }
}

/// Why something cannot be done; `code` is stable and public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub reason: String,
    pub hint: Option<String>,
}

/// The queue, for everybody but the fleet's own agents. One implementation, in `daemon`.
#[async_trait]
pub trait TaskPort: Send + Sync {
    /// Dependencies first, in whatever order they are told. All are checked before one is written.
    async fn create(
        &self,
        drafts: Vec<TaskDraft>,
    ) -> Result<Result<Vec<TaskReport>, Refusal>, ControlError>;

    /// May be repeated: what is so already is no error. The task as it is then.
    async fn change(
        &self,
        id: TaskId,
        change: TaskChange,
    ) -> Result<Result<TaskReport, Refusal>, ControlError>;
}

/// Snapshots of uncommitted work, and the checkouts themselves. One implementation, in `daemon`,
/// which also serves the command line while no supervisor runs.
#[async_trait]
pub trait KeepingPort: Send + Sync {
    /// Newest first; of one agent, or of all.
    async fn rescues(&self, agent: Option<AgentId>) -> Result<Vec<RescueView>, Refusal>;

    /// `id`: the first digits are enough where they mean one.
    async fn rescue(&self, id: String) -> Result<RescueContent, Refusal>;

    /// Writes a snapshot into a directory that does not exist yet; an absolute path on this machine.
    async fn restore(&self, id: String, into: PathBuf) -> Result<Restored, Refusal>;

    /// Every checkout below the state directory.
    async fn worktrees(&self) -> Result<Vec<WorktreeView>, Refusal>;

    /// Puts a checkout that nobody works in into the trash, its uncommitted work copied and its
    /// commits taken before. Refuses where that cannot be done for all of it, unless `force`d.
    async fn clean_up(&self, agent: AgentId, how: CleanUp) -> Result<CleanedUp, Refusal>;
}

/// How far a clean-up goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanUp {
    /// Only say what would be done; commits and uncommitted work are taken all the same.
    Try,
    /// If nothing is lost by it.
    IfKept,
    /// Also if something would be in the trash alone.
    Force,
}

/// Which gates to run, on what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateRequest {
    /// A branch, an agent or the beginning of a commit's id; `None`: the tip of the branch.
    pub commit: Option<String>,
    /// This one alone.
    pub gate: Option<String>,
}

/// What happens in a run of gates, as it happens.
pub type GateStream = BoxStream<'static, GateEvent>;

/// What was uncommitted when a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeReport {
    pub agent: AgentId,
    /// Of the Stop hook that ended it.
    pub callback: CallbackId,
    /// Tracked and untracked paths, bounded.
    pub uncommitted: Vec<String>,
}

/// What Claude Code's status line told about an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusReport {
    pub agent: AgentId,
    pub incarnation: Option<Incarnation>,
    pub session: Option<SessionId>,
    pub model: Option<String>,
    pub claude_version: Option<String>,
    pub usage: UsageView,
}

/// A cheap clone for each front door.
pub type Control = Arc<dyn ControlPort>;
