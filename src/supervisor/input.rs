//! What may come in: facts from the world.

use std::collections::BTreeMap;

use super::evidence::Examination;
use crate::model::view::TaskCounts;
use crate::model::{
    AgentId, CallbackId, CommitId, CredentialId, CredentialInfo, Fault, GateRecord, HookReport,
    Incarnation, RescueNote, Screen, SessionNote, Task, TaskId, Timestamp, Windows, Work,
};

/// A fact. Never denied; one of an earlier incarnation changes nothing but a counter.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    InventoryTaken(Inventory),
    /// The engine's event stream broke, or it stops its containers before it goes. Told until
    /// [`Event::EngineBack`], as often as one likes.
    EngineAway {
        reason: String,
    },
    /// Its events are followed again; the inventory was taken after that.
    EngineBack(Inventory),
    Launched {
        agent: AgentId,
        incarnation: Incarnation,
        container: String,
    },
    LaunchFailed {
        agent: AgentId,
        incarnation: Incarnation,
        reason: String,
        hint: Option<String>,
        again: Again,
    },
    Exited {
        agent: AgentId,
        incarnation: Incarnation,
        exit_code: Option<i64>,
        out_of_memory: bool,
    },
    /// Something in its container was killed for lack of memory, perhaps its main process: then
    /// its end follows.
    Starved {
        agent: AgentId,
        incarnation: Incarnation,
    },
    Hook(HookInput),
    /// The answer to a Stop hook did not reach the agent: its helper spooled the callback.
    AnswerLost {
        agent: AgentId,
        incarnation: Incarnation,
        text: String,
    },
    ScreenSeen {
        agent: AgentId,
        incarnation: Incarnation,
        screen: Screen,
    },
    /// Everything about it that may move was looked at.
    Examined {
        agent: AgentId,
        incarnation: Incarnation,
        seen: Box<Examination>,
    },
    /// What Claude Code notes about itself was read.
    SessionChecked {
        agent: AgentId,
        incarnation: Incarnation,
        note: SessionNote,
    },
    /// The text is in the pane and Enter was pressed. Not a receipt.
    Pasted {
        agent: AgentId,
        incarnation: Incarnation,
    },
    PasteFailed {
        agent: AgentId,
        incarnation: Incarnation,
        reason: String,
    },
    /// The files of the pool were read: at start, and whenever one has changed.
    PoolRead {
        credentials: Vec<CredentialInfo>,
    },
    /// What an agent's status line told of its credential's windows; only when it changed.
    WindowsTold {
        agent: AgentId,
        incarnation: Incarnation,
        windows: Windows,
    },
    /// The agent's next request will use this credential.
    Lent {
        agent: AgentId,
        incarnation: Incarnation,
        credential: CredentialId,
    },
    LendFailed {
        agent: AgentId,
        incarnation: Incarnation,
        credential: CredentialId,
        reason: String,
        /// From its next start on it can be had: an API key that its Claude Code has not been told to
        /// accept.
        restart: bool,
    },
    /// The access token of a login was renewed; its files are not written into instances yet.
    Refreshed {
        credential: CredentialId,
        expires_at: Option<Timestamp>,
    },
    /// `dead`: the login is not accepted any more, trying again cannot help.
    RefreshFailed {
        credential: CredentialId,
        reason: String,
        dead: bool,
    },
    QueueChanged(QueueView),
    Claimed {
        agent: AgentId,
        task: Box<Task>,
    },
    ClaimLost {
        agent: AgentId,
        task: TaskId,
        reason: String,
    },
    /// The queue has a task that was asked for, new or from before; `open`: it is not finished.
    TaskCreated {
        owner: AgentId,
        task: TaskId,
        open: bool,
    },
    /// A claim that the agent has is over by what the queue says, and not by its own doing: somebody
    /// else has the task, or nobody has. Told again as long as the agent has it.
    Overtaken {
        agent: AgentId,
        task: TaskId,
        fence: u64,
        reason: String,
    },
    /// The queue has taken a wish about this task, or will never take it.
    TaskSettled {
        task: TaskId,
    },
    /// The queue has taken a completion, a failure or a release.
    TaskFinished {
        agent: AgentId,
        task: TaskId,
    },
    /// What was uncommitted at the Stop with this callback: tracked or untracked paths, bounded. It may
    /// come late, or not at all.
    TreeSeen {
        agent: AgentId,
        callback: CallbackId,
        uncommitted: Vec<String>,
    },
    /// A look at its uncommitted work that began then.
    Rescued {
        agent: AgentId,
        began: Timestamp,
        outcome: RescueOutcome,
    },
    Imported {
        agent: AgentId,
        outcome: ImportOutcome,
    },
    StackBuilt {
        stack: u64,
        outcome: StackOutcome,
    },
    GatesFinished {
        stack: u64,
        commit: CommitId,
        outcome: GatesOutcome,
    },
    Landed {
        stack: u64,
        outcome: LandOutcome,
    },
    /// What was refused for a while (a full disk) is stored again. Hooks of that time may be lost:
    /// the spool of an agent lies on the same disk.
    StoreRecovered,
    /// The branch got a commit of our own: finished tasks were ticked on it.
    BranchMoved {
        head: CommitId,
    },
    PushFinished(PushOutcome),
    RemoteFetched(RemoteOutcome),
    /// Whether `PROJECT_DIRECTION.md` is on the branch.
    DirectionSeen {
        present: bool,
    },
    /// Something a person should know that changes no state: a task list that is not UTF-8, a
    /// quarantined spool file.
    Noticed {
        agent: Option<AgentId>,
        text: String,
        hint: Option<String>,
    },
}

/// What may become of a launch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It would fail again.
    Never,
    /// It may work; its failures are counted.
    Counted,
    /// There was no engine to ask.
    WithTheEngine,
}

/// A hook callback with what the driver knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookInput {
    pub report: HookReport,
    /// The prompt is the text we pasted last (same after Claude Code's own changes to it).
    pub receipt: bool,
    /// Of a failed turn: why, with its reset time as a point in time.
    pub fault: Option<Fault>,
    /// Uniform in `0..1000`; jitter for what this callback may start.
    pub jitter: u16,
}

/// Everything seen at one moment, or that nothing could be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inventory {
    Seen(Vec<SeenContainer>),
    /// Not proof that anything is gone.
    Unreachable {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenContainer {
    pub name: String,
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub running: bool,
    pub exit_code: Option<i64>,
    pub out_of_memory: bool,
}

/// What the queue holds, as far as decisions need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueView {
    /// Claimable tasks per agent, next first; bounded by the caller.
    pub candidates: BTreeMap<AgentId, Vec<TaskId>>,
    /// How many wait per agent, also beyond the bound.
    pub waiting: BTreeMap<AgentId, u32>,
    pub counts: TaskCounts,
    /// Open (available or claimed) tasks that are not the manager's.
    pub open_worker_tasks: u32,
    /// Tasks ever created for workers; grows.
    pub created_worker_tasks: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RescueOutcome {
    Taken {
        rescue: RescueNote,
    },
    /// Everything was committed, or as in the newest snapshot.
    Nothing,
    /// It stays in the checkout.
    Failed {
        reason: String,
        hint: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportOutcome {
    /// The store has `head`. `dirty`: tracked or untracked paths that are not committed, bounded;
    /// ignored ones are not among them.
    Taken {
        head: CommitId,
        dirty: Vec<String>,
        work: Vec<WorkFound>,
    },
    Failed {
        reason: String,
    },
}

/// The work on one of the claims an import was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkFound {
    pub task: TaskId,
    pub fence: u64,
    /// Of how many spans.
    pub spans: usize,
    pub work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackOutcome {
    /// On `base`, the branch's tip. `top` is the newest commit, `base` if nothing was added.
    Built {
        base: CommitId,
        top: CommitId,
        members: Vec<StackMember>,
    },
    Failed {
        reason: String,
    },
}

/// One of those that were to be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackMember {
    pub agent: AgentId,
    pub commit: CommitId,
    pub outcome: MergeOutcome,
}

/// What became of one candidate in a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeOutcome {
    /// The stack has it; `head` is its merge commit.
    Merged { head: CommitId },
    /// What it was to be merged into had it already.
    UpToDate,
    /// It was to be there already, and is not. Left out.
    Absent,
    /// Left out. Path and conflict text per file, bounded.
    Conflict { files: Vec<(String, String)> },
    /// Left out.
    Failed { reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatesOutcome {
    Ran {
        gates: Vec<GateRecord>,
    },
    /// None of them could be run.
    Failed {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LandOutcome {
    /// The branch has it, perhaps for a while; its tip is `head`.
    Landed {
        head: CommitId,
    },
    /// The branch is not any more where the stack was built. Nothing moved.
    Moved {
        head: CommitId,
    },
    Failed {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    Pushed {
        head: CommitId,
    },
    /// The remote has commits we do not have: fetch, integrate, push again.
    Moved,
    Denied {
        reason: String,
    },
    /// The network or the server is away.
    Away {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteOutcome {
    /// Fetched; the branch now is `head`, changed or not.
    Integrated {
        head: CommitId,
        moved: bool,
    },
    /// Remote and branch have both moved and do not merge cleanly.
    Conflict {
        remote: CommitId,
        files: Vec<(String, String)>,
    },
    Away {
        reason: String,
    },
}
