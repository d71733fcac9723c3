//! What the program says about itself: the supervisor's log, the agents' logs, and the removal of
//! secrets from both.
//!
//! Called by `cli` (set-up, once per process) and `daemon` (agents' logs, new secrets). Must never
//! decide anything, never print data (that is stdout, and `cli`'s), and never write a secret it was
//! told about.

mod agent_log;
mod plain;
mod redact;
mod rotate;
mod subscriber;

pub use agent_log::{AgentLog, agent_log_path};
pub use plain::Plain;
pub use redact::Redactor;
pub use rotate::{RotatingFile, Rotation, rotated_path};
pub use subscriber::{Output, SetUpError, Verbosity, init, supervisor_log_path};
