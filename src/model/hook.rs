//! What a hook callback says, without Claude Code's formats: room `claude` makes these from the
//! payload, room `supervisor` decides on them.

use serde::{Deserialize, Serialize};

use super::{AgentId, CallbackId, CommitId, Incarnation, SessionId, Timestamp};

/// One hook callback, parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReport {
    pub callback: CallbackId,
    pub agent: AgentId,
    /// `None` for sessions outside our containers.
    pub incarnation: Option<Incarnation>,
    pub session: Option<SessionId>,
    /// The commit at `HEAD` of the agent's worktree when the hook ran, if the helper could tell.
    pub head: Option<CommitId>,
    /// True when it was written to the spool first: nobody waits for the answer any more.
    pub spooled: bool,
    /// When it happened, if it was spooled and the helper wrote it down.
    #[serde(default)]
    pub at: Option<Timestamp>,
    pub fact: HookFact,
}

/// The fact in a callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HookFact {
    /// `source`: startup, resume, clear or compact.
    SessionStarted {
        source: String,
    },
    /// The text as Claude Code took it. `machine` for task notifications, which are not ours.
    PromptSubmitted {
        text: String,
        machine: bool,
    },
    /// A turn ended. With `background_tasks > 0` the agent is not done.
    Stopped {
        background_tasks: u32,
        last_message: String,
    },
    /// A turn ended in an API error (`StopFailure` of the main session, not of a subagent).
    TurnFailed {
        error: String,
        message: String,
    },
    Notified {
        notification: String,
        message: String,
    },
    PermissionAsked {
        tool: String,
    },
    /// `reason`: clear, logout, prompt_input_exit, other.
    SessionEnded {
        reason: String,
    },
    /// A tool ran or another sign of life; evidence only.
    Activity {
        what: String,
    },
    /// An event this version does not know. Kept and counted, never fatal.
    Unknown {
        event: String,
    },
}

/// What the hook is told. The front door renders it in Claude Code's output format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HookAnswer {
    /// Nothing to say: the turn ends, or the action goes on.
    LetGo,
    /// Go on at once with this text (`decision: block` of a Stop hook). With `bring_up_to`, the
    /// helper first brings the worktree up to that commit, where that touches no uncommitted work.
    Continue {
        text: String,
        bring_up_to: Option<CommitId>,
    },
    /// Answer a permission request with no.
    Deny { message: String },
}

/// What the first screen, or any later one, shows. Made by room `claude` from the pane's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Screen {
    /// The prompt, free for input.
    Ready,
    /// The prompt with text in it that was not submitted.
    Draft,
    /// A turn is running.
    Busy,
    /// A dialog swallows input; its name.
    Dialog {
        name: String,
    },
    NotLoggedIn,
    /// Nothing drawn yet.
    Blank,
    /// Text we do not recognise; its last non-empty lines.
    Unrecognised {
        tail: String,
    },
}

/// What the session file says: the note that each Claude Code keeps about itself. Made by room
/// `claude`; an agent can write the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SessionNote {
    Found {
        session: SessionId,
        version: String,
        /// `idle`, `busy`, `waiting`, or a word we do not know.
        status: String,
        /// When its process started.
        started_at: Timestamp,
    },
    /// There is none.
    Missing,
    /// There is one of another form; what is wrong with it.
    Unreadable { problem: String },
}
