//! The vocabulary: plain data that every room may name.
//!
//! Called by everyone. Must never do anything: no IO, no clock, no async, no decisions beyond
//! keeping its own invariants (an id that parses, a time that does not overflow).

pub mod agent;
pub mod hook;
pub mod ids;
pub mod request;
pub mod task;
pub mod time;
pub mod view;

pub use agent::{CredentialKind, Role};
pub use hook::{HookAnswer, HookFact, HookReport, Screen, SessionNote};
pub use ids::{
    AgentId, CallbackId, CommitId, CredentialId, Incarnation, ProjectId, SessionId, TaskId,
};
pub use request::{Ending, Reply, Request};
pub use task::{Claim, Task, TaskContext, TaskSource, TaskStatus};
pub use time::Timestamp;
