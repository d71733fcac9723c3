//! Why an agent is in its state: signals with what they said, when, and how far they are trusted.

use serde::{Deserialize, Serialize};

use super::view::{Notice, TaskView};
use super::{AgentId, CredentialId, Incarnation, KeptView, SessionId, Timestamp};

/// How far a signal is trusted. A weak one never stops an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    Weak,
    Medium,
    Strong,
}

impl Grade {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weak => "weak",
            Self::Medium => "medium",
            Self::Strong => "strong",
        }
    }
}

/// Where facts about an agent come from, in the order of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// A callback of Claude Code.
    Hook,
    /// What the engine says of its container.
    Container,
    /// Claude Code runs its status line every few seconds, also when idle.
    StatusLine,
    /// The size of its conversations on disk.
    Transcript,
    /// `sessions/<pid>.json`, in which Claude Code notes what it does.
    SessionFile,
    /// The text in its pane.
    Screen,
    /// CPU time that everything in its container has used.
    Cpu,
}

impl Signal {
    pub const ALL: [Self; 7] = [
        Self::Hook,
        Self::Container,
        Self::StatusLine,
        Self::Transcript,
        Self::SessionFile,
        Self::Screen,
        Self::Cpu,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Container => "container",
            Self::StatusLine => "status line",
            Self::Transcript => "transcript",
            Self::SessionFile => "session file",
            Self::Screen => "screen",
            Self::Cpu => "cpu",
        }
    }

    /// Of a fact that has none of its own: a container that runs proves little, its end all.
    pub fn grade(self) -> Grade {
        match self {
            Self::Hook => Grade::Strong,
            Self::Container | Self::StatusLine | Self::Transcript | Self::SessionFile => {
                Grade::Medium
            }
            Self::Screen | Self::Cpu => Grade::Weak,
        }
    }
}

/// What a signal said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    pub said: String,
    pub grade: Grade,
    /// Since when it says so; of a hook, when it came.
    pub at: Timestamp,
    /// When it was looked at last.
    pub seen: Timestamp,
}

/// A signal in an explanation; `fact` is missing while nobody has looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalView {
    pub signal: Signal,
    pub grade: Grade,
    pub fact: Option<Fact>,
}

/// Something that may come, with its time if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    pub at: Option<Timestamp>,
    pub what: String,
}

/// What brought a change about: an event, a deadline or a request, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    pub text: String,
    /// The evidence, where it was evidence.
    pub signal: Option<Signal>,
    pub grade: Option<Grade>,
}

/// One change of an agent's state, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub at: Timestamp,
    pub from: String,
    pub to: String,
    pub reason: String,
    pub incarnation: Incarnation,
    pub cause: Cause,
}

/// The answer to "why is this agent in its state?".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub agent: AgentId,
    pub at: Timestamp,
    pub state: String,
    /// One sentence.
    pub reason: String,
    pub since: Timestamp,
    pub incarnation: Incarnation,
    pub container: Option<String>,
    pub session: Option<SessionId>,
    pub credential: Option<CredentialId>,
    pub task: Option<TaskView>,
    /// Limited, waiting to be restarted, or a start that must be done by then.
    pub until: Option<Timestamp>,
    /// While it is watched: since when nothing of it has moved.
    pub still_since: Option<Timestamp>,
    /// All signals, the most trusted first.
    pub signals: Vec<SignalView>,
    /// What would change the state, and what comes by itself; the latter in the order of time.
    pub ahead: Vec<Ahead>,
    pub restarts: u32,
    /// Crashes that count towards giving it up, and after how many that is.
    pub crashes: u32,
    pub crashes_allowed: u32,
    /// How far its uncommitted work is kept.
    #[serde(default)]
    pub kept: KeptView,
    /// What people were told about it.
    pub notices: Vec<Notice>,
    /// Oldest first; as many as were asked for.
    #[serde(default)]
    pub history: Vec<Change>,
}
