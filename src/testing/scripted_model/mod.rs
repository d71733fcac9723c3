//! A Messages API server of our own that plays a model by a script: streaming, tool use, errors.
//!
//! Called by `demo` and by every test that runs the real Claude Code. The script is a pure function
//! of the conversation, so restarts, resumes and rotations of credentials need no state here.
//! Must never reach out to anything, never keep a credential (its last six characters at most), and
//! never hold more than a bounded log.

mod answer;
mod limits;
mod pattern;
mod record;
mod request;
mod scenario;
mod server;
mod wire;

pub use answer::{Answer, Block, Failure, Pacing, Turn};
pub use limits::Limits;
pub use pattern::{Captures, Pattern, PatternError};
pub use record::{Answered, Counters, RequestKind, RequestRecord};
pub use request::{Conversation, ModelRequest, ToolResult};
pub use scenario::{Condition, ResultCheck, Rule, Scenario, ScenarioError, Step};
pub use server::{Script, ScriptedModel};
