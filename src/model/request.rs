//! Requests from people and scripts, and what became of them.

use serde::{Deserialize, Serialize};

use super::{AgentId, CredentialId, TaskId};

/// What people and scripts may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Stop the agent's container and start its next incarnation, with its conversation.
    Restart { agent: AgentId },
    /// Copy the uncommitted work of this agent, or of all, into the store now.
    Rescue { agent: Option<AgentId> },
    /// Put a failed or cancelled task back into its owner's queue, with fresh attempts.
    RetryTask { task: TaskId },
    /// Nobody shall do this task any more. One that is being worked on is nobody's from now on; the
    /// turn on it ends by itself.
    CancelTask { task: TaskId },
    /// Ask the manager to plan now, whatever the cool-down says.
    Plan,
    /// Forget why a credential is not used (spent, refused, cooling): it may be tried again.
    RetryCredential { credential: CredentialId },
    /// Fetch the remote now, for example from a post-receive hook.
    Fetch,
    /// End the fleet.
    End { ending: Ending },
}

impl Request {
    /// The task it is about.
    pub fn task(&self) -> Option<&TaskId> {
        match self {
            Self::RetryTask { task } | Self::CancelTask { task } => Some(task),
            Self::Restart { .. }
            | Self::Rescue { .. }
            | Self::Plan
            | Self::RetryCredential { .. }
            | Self::Fetch
            | Self::End { .. } => None,
        }
    }
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
