//! The vocabulary: plain data that every room may name.
//!
//! Called by everyone. Must never do anything: no IO, no clock, no async, no decisions beyond
//! keeping its own invariants (an id that parses, a time that does not overflow).

pub mod about;
pub mod agent;
pub mod attempt;
pub mod credential;
pub mod draft;
pub mod explain;
pub mod gate;
pub mod hook;
pub mod ids;
pub mod kept;
pub mod listing;
pub mod receipt;
pub mod request;
pub mod rescue;
pub mod task;
pub mod time;
pub mod train;
pub mod view;

pub use about::About;
pub use agent::{CredentialKind, Role};
pub use attempt::{AttemptEnd, AttemptNote};
pub use credential::{CredentialInfo, CredentialView, Fault, QuotaWindow, Window, Windows};
pub use explain::{Cause, Explanation, Grade, Signal};
pub use gate::{GateCounts, GateEvent, GateOutcome, GateRecord, GateView, LoggedGate, RunningGate};
pub use hook::{HookAnswer, HookFact, HookReport, Screen, SessionNote};
pub use ids::{
    AgentId, CallbackId, CommitId, CredentialId, Incarnation, ProjectId, SessionId, TaskId,
};
pub use kept::{
    CleanedUp, KeptView, RescueCause, RescueContent, RescueNote, Restored, WorktreeView,
};
pub use receipt::{CommitNote, Missing, Receipt, SentBack, Span, Work};
pub use request::{Ending, Reply, Request};
pub use rescue::{LeftOut, RescueFile, RescueKind, RescueView};
pub use task::{Claim, Task, TaskContext, TaskSource, TaskStatus};
pub use time::Timestamp;
