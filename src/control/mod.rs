//! The one handle every front door uses: request, snapshot, subscribe, and the intake of hooks.
//!
//! Called by `api`, `hooks` and later `mcp` and `dashboard`; answered by the driver in `daemon`.
//! Must never decide anything and never touch an adapter.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::view::{FleetView, UsageView};
use crate::model::{AgentId, HookAnswer, HookReport, Incarnation, SessionId};

/// What people and scripts may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Stop the agent's container and start its next incarnation, with its conversation.
    Restart { agent: AgentId },
    /// Ask the manager to plan now, whatever the cool-down says.
    Plan,
    /// Fetch the remote now, for example from a post-receive hook.
    Fetch,
    /// End the fleet.
    End { ending: Ending },
}

/// The three endings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The daemon goes, the agents work on; the next start adopts them.
    Detach,
    /// No new tasks; when every turn has ended, detach.
    Drain,
    /// Ask each agent to stop, wait the grace, kill. Checkouts and conversations are kept.
    Stop,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Accepted,
    /// Nothing to do: it is so already.
    AlreadySo,
    /// `code` is stable and public (`UNKNOWN_AGENT`, `ENDING`, ...).
    Denied {
        code: String,
        reason: String,
        hint: Option<String>,
    },
}

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

    /// Takes what the status line told; returns the line to show. Not persisted.
    async fn status_line(&self, report: StatusReport) -> Result<String, ControlError>;

    /// The newest snapshot, and a way to wait for the next.
    fn view(&self) -> watch::Receiver<Arc<FleetView>>;
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
