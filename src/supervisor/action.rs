//! What may go out: what the supervisor wants done. Every action is idempotent; its result comes
//! back as an event.

use std::time::Duration;

use crate::model::{
    AgentId, AttemptNote, CallbackId, CommitId, CredentialId, Ending, HookAnswer, Incarnation,
    Receipt, RescueCause, SessionId, Span, TaskId, TaskSource,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Checkout, directories, seeding, credential, hook socket, container. → `Launched`, `LaunchFailed`
    Launch {
        agent: AgentId,
        incarnation: Incarnation,
        session: SessionId,
        resume: bool,
        /// The turn its last life lost goes on by itself. Only with the task it holds and has begun: a
        /// former turn could be taken for the turn of a task it was never told, or that is not its own
        /// any more.
        go_on: bool,
    },
    /// Open the hook door of an agent that is already running. → nothing
    Adopt {
        agent: AgentId,
        incarnation: Incarnation,
    },
    /// → nothing; a view that dies is repaired by the next `EnsurePane`.
    EnsurePane { agent: AgentId },
    /// → `ScreenSeen`
    CheckScreen {
        agent: AgentId,
        incarnation: Incarnation,
        after: Duration,
    },
    /// Look at everything about it that may move. → `Examined`
    Examine {
        agent: AgentId,
        incarnation: Incarnation,
    },
    /// Read what its Claude Code notes about itself. → `SessionChecked`
    CheckSession {
        agent: AgentId,
        incarnation: Incarnation,
        after: Duration,
    },
    /// Copy its uncommitted work into the store: in its container, or in a throwaway one where that
    /// is of no use. Before a launch it is done first. → `Rescued`
    Rescue {
        agent: AgentId,
        incarnation: Incarnation,
        cause: RescueCause,
    },
    /// Its uncommitted work is copied first, as far as that is possible in bounded time. → `Rescued`;
    /// `Exited`, from the engine or from the effect, whichever comes first.
    StopContainer {
        agent: AgentId,
        incarnation: Incarnation,
        grace: Duration,
    },
    /// → `InventoryTaken`
    TakeInventory { after: Duration },
    /// → `Claimed`, `ClaimLost`
    Claim {
        agent: AgentId,
        incarnation: Incarnation,
        task: TaskId,
        purpose: ClaimFor,
    },
    /// Put this credential into a running instance in place of the one it has; its next request
    /// uses it, a running one is not touched. → `Lent`, `LendFailed`
    Lend {
        agent: AgentId,
        incarnation: Incarnation,
        credential: CredentialId,
    },
    /// Renew the access token of a login; one at a time per credential. → `Refreshed`,
    /// `RefreshFailed`
    Refresh { credential: CredentialId },
    /// One Escape, if and only if the screen shows the dialog of this name. → `ScreenSeen`
    CloseDialog {
        agent: AgentId,
        incarnation: Incarnation,
        name: String,
    },
    /// Answer a hook callback that waits. → nothing
    Answer {
        callback: CallbackId,
        answer: HookAnswer,
    },
    /// Bring the checkout up to date, make sure the prompt is free, paste. → `Pasted`, `PasteFailed`, `ScreenSeen`
    Paste {
        agent: AgentId,
        incarnation: Incarnation,
        text: String,
        bring_up_to: Option<CommitId>,
        /// Clear an unsubmitted draft first.
        clear: bool,
    },
    /// → `TaskFinished`
    Complete {
        agent: AgentId,
        task: TaskId,
        fence: u64,
        result: String,
        /// `None` only where an older version decided it.
        receipt: Option<Box<Receipt>>,
        past: Vec<AttemptNote>,
    },
    /// Give up a claim: back into the queue, which counts for nothing, or failed for good. →
    /// `TaskFinished`
    Release {
        agent: AgentId,
        task: TaskId,
        fence: u64,
        reason: String,
        retry: bool,
        past: Vec<AttemptNote>,
    },
    /// Keep with the task how its attempts ended and which life goes on with it. → nothing; what is
    /// lost on the way is told again with the next word about that claim.
    NoteAttempts {
        task: TaskId,
        fence: u64,
        incarnation: Incarnation,
        past: Vec<AttemptNote>,
    },
    /// A failed or cancelled task is to be done after all; what was tried before counts no more. →
    /// `TaskSettled`
    RetryTask { task: TaskId },
    /// Nobody shall do it any more, whoever has it now. → `TaskSettled`
    CancelTask { task: TaskId },
    /// → `QueueChanged`, `TaskCreated`
    CreateTask(NewTask),
    /// Read all task lists again, from the manager's checkout and from the branch. → `QueueChanged`
    ReadTaskLists,
    /// Take an agent's commits into the store, `after` a while if it goes on meanwhile; what is not
    /// committed is copied before. → `Rescued`, `Imported`
    Import {
        agent: AgentId,
        incarnation: Incarnation,
        head: Option<CommitId>,
        /// Claims whose commits are looked for in it.
        claims: Vec<WorkAsked>,
        after: Duration,
    },
    /// Merge these onto the tip of the branch, one on the other, without moving anything: what
    /// comes out is kept under the stack's number. → `StackBuilt`
    BuildStack {
        stack: u64,
        candidates: Vec<StackCandidate>,
    },
    /// Run the gates on a commit of the store, in their order, up to the first that does not pass;
    /// `all`: the others as well. → `GatesFinished`
    RunGates {
        stack: u64,
        commit: CommitId,
        all: bool,
    },
    /// Move the branch to `to` if it still is at `from`. → `Landed`
    Land {
        stack: u64,
        from: CommitId,
        to: CommitId,
    },
    /// → `PushFinished`
    Push { after: Duration },
    /// → `RemoteFetched`
    FetchRemote,
    /// The fleet has ended this way; the daemon may go.
    Finish { ending: Ending },
}

/// Where the work on a claimed task lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkAsked {
    pub task: TaskId,
    pub fence: u64,
    pub spans: Vec<Span>,
    /// Globs of the paths it may change; empty: any.
    pub scope: Vec<String>,
}

/// A commit that is to be merged into a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackCandidate {
    pub agent: AgentId,
    pub commit: CommitId,
    /// Of the merge commit.
    pub message: String,
    /// What is claimed done with it: the merge commit ticks it.
    pub tasks: Vec<TaskId>,
    /// Somebody was to merge it before: it is only looked for in what lies below it.
    pub by_hand: bool,
}

/// What a claim is for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum ClaimFor {
    /// The answer to this Stop callback.
    Answer { callback: CallbackId },
    /// A paste into an idle prompt.
    Paste,
}

/// A task the supervisor itself asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Fixed, so that creating it twice is one task.
    pub id: TaskId,
    pub owner: AgentId,
    pub description: String,
    pub priority: i64,
    pub source: TaskSource,
}
