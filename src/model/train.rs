//! What people see of the merge train.

use serde::{Deserialize, Serialize};

use super::{AgentId, CommitId, TaskId, Timestamp};

/// The way into the target branch at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainView {
    /// Who merges the work of workers: `train` or `manager`.
    pub merge_by: String,
    /// Candidates that are merged and tested together, at most.
    pub batch: u32,
    /// What a stack must pass before it becomes the branch, in their order.
    pub gates: Vec<String>,
    pub state: TrainState,
    /// Since when; `None` while it is idle.
    pub since: Option<Timestamp>,
    /// A batch was red, and parts of it are tried by themselves.
    pub bisecting: bool,
    /// What is in hand.
    pub stack: Option<StackView>,
    /// What of the same batch is tried after it, part by part.
    pub after: Vec<Vec<CandidateView>>,
    /// The line, first to last.
    pub waiting: Vec<CandidateView>,
    /// What the manager is asked to merge now, where it is the one who merges.
    pub with_manager: Option<WithManagerView>,
    /// What does not go on by itself now, and why.
    pub stalls: Vec<StallView>,
    /// What became of the last ones, newest last; bounded.
    pub recent: Vec<EndedView>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainState {
    #[default]
    Idle,
    /// The stack is being merged, in memory.
    Building,
    /// The gates run on its top.
    Testing,
    /// They were red there, and run on the branch without it, to see whose fault that is.
    TestingBranch,
    /// The branch is being moved to it.
    Landing,
    /// A step could not be done, and waits until it is tried again.
    Stalled,
}

impl TrainState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Building => "building",
            Self::Testing => "testing",
            Self::TestingBranch => "testing the branch",
            Self::Landing => "landing",
            Self::Stalled => "stalled",
        }
    }
}

/// What is being tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackView {
    /// It lies in the store as `refs/orchestrator/train/NUMBER`.
    pub number: u64,
    /// The branch's tip it was built on, and its newest commit; `None` until it is built.
    pub base: Option<CommitId>,
    pub top: Option<CommitId>,
    pub members: Vec<CandidateView>,
}

/// Work that the manager is to merge on its own branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithManagerView {
    pub task: TaskId,
    pub since: Timestamp,
    pub candidates: Vec<CandidateView>,
}

/// A commit of an agent on its way into the branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateView {
    pub agent: AgentId,
    pub commit: CommitId,
    pub title: String,
    pub since: Timestamp,
    /// What its agent claims done with it.
    pub tasks: Vec<TaskId>,
    /// Times in a row that work of this agent was red or in conflict; each puts it a little further
    /// behind, up to a bound.
    pub setbacks: u32,
}

/// Why something does not go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallView {
    pub kind: StallKind,
    /// One sentence.
    pub reason: String,
    /// `None`: an older version did not note it.
    pub since: Option<Timestamp>,
    /// When it is tried again by itself.
    pub again_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StallKind {
    /// The step in hand could not be done.
    Step,
    /// Gates run in containers, and the engine is away.
    EngineAway,
    /// The branch keeps moving under what is in hand.
    BranchMoves,
    /// The branch by itself does not pass its gates. Work that makes nothing worse lands.
    BranchRed,
    /// A candidate could not be tried; the others go on without it.
    Candidate,
    /// A candidate was not accepted, and the manager is asked to mend it; or it is to merge, and cannot.
    WithTheManager,
}

/// What became of one candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedView {
    pub at: Timestamp,
    pub agent: AgentId,
    pub commit: CommitId,
    pub title: String,
    /// `landed`, `up to date`, `red`, `conflict`, `not merged`, `failed`.
    pub outcome: String,
    /// The branch's tip, the gates, the paths or the reason.
    pub detail: String,
}
