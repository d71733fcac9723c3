//! What is known about an agent's uncommitted work, and about checkouts: kept or not.

use serde::{Deserialize, Serialize};

use super::{AgentId, CommitId, LeftOut, RescueFile, RescueView, Timestamp};

/// Why a snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RescueCause {
    Interval,
    TurnEnd,
    BringUp,
    Stop,
    Death,
    CleanUp,
    Asked,
}

impl RescueCause {
    /// As people read it, and as the snapshot keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interval => "at an interval",
            Self::TurnEnd => "at the end of a turn",
            Self::BringUp => "before its checkout was brought up",
            Self::Stop => "before a stop",
            Self::Death => "after its container ended",
            Self::CleanUp => "before a clean-up",
            Self::Asked => "asked for",
        }
    }

    /// What follows may put work at risk, or a person wanted it: it is kept for its whole time. After
    /// an unclean end of a turn its agent is told to clean up, and a receipt may name the copy.
    pub fn comes_before_a_risk(self) -> bool {
        self != Self::Interval
    }
}

/// A snapshot in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescueNote {
    /// What `orchestrator rescue show` takes.
    pub id: String,
    pub at: Timestamp,
    pub cause: String,
    pub files: u32,
    pub reference: String,
    /// Paths it could not take; `rescue show` names them.
    #[serde(default)]
    pub left_out: u32,
}

impl From<&RescueView> for RescueNote {
    fn from(view: &RescueView) -> Self {
        Self {
            id: view.id.clone(),
            at: view.at,
            cause: view.cause.clone(),
            files: view.files,
            reference: view.reference.clone(),
            left_out: u32::try_from(view.left_out.len()).unwrap_or(u32::MAX),
        }
    }
}

/// How far an agent's uncommitted work is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptView {
    /// The newest snapshot that held anything.
    pub last: Option<RescueNote>,
    /// All its work was kept then: committed, or in a snapshot.
    pub kept_at: Option<Timestamp>,
    /// When a snapshot was tried last, and why that failed.
    pub tried_at: Option<Timestamp>,
    pub problem: Option<String>,
}

/// A checkout below the state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorktreeView {
    pub agent: AgentId,
    /// Whether the present configuration has this agent.
    pub configured: bool,
    pub directory: String,
    pub branch: String,
    /// Newest commit of it that the store has.
    pub head: Option<CommitId>,
    /// Commits on it that are not in the target branch, and the other way round.
    pub ahead: Option<u32>,
    pub behind: Option<u32>,
    /// Files of its newest snapshot, which may be committed or gone since; `None`: there is none.
    pub snapshot: Option<RescueNote>,
    /// Bytes on the disk, without what it borrows from the store.
    pub bytes: u64,
}

/// What became of a checkout that was to be put away, or would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanedUp {
    pub agent: AgentId,
    /// Where it lies now; `None`: it was left where it is.
    pub trash: Option<String>,
    /// When it may be deleted for good.
    pub until: Option<Timestamp>,
    /// Uncommitted work, kept in the store for as long as the trash and longer.
    pub rescue: Option<RescueView>,
    /// What only this checkout has: commits, files that no snapshot takes.
    #[serde(default)]
    pub only_here: Vec<String>,
}

/// A snapshot with what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescueContent {
    #[serde(flatten)]
    pub rescue: RescueView,
    /// By path.
    pub files: Vec<RescueFile>,
}

/// A snapshot was written out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    pub rescue: RescueView,
    /// New: `worktree/` in it is as the checkout was, `index/` what was staged.
    pub directory: String,
    /// Files and links below `worktree/`, below `index/`, and below `extra/`.
    pub files: usize,
    pub staged: usize,
    pub extras: usize,
    /// Paths of `HEAD` that were not in the checkout.
    pub deleted: Vec<String>,
    /// What the snapshot does not have, or could not be written.
    pub left_out: Vec<LeftOut>,
}
