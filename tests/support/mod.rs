//! A fleet for a test: the real binary, real containers, tmux, git and Claude Code, against a
//! scripted model. Everything is made in one temporary directory and taken away at the end, also
//! when the test fails. Tests that use containers take turns.

mod clean;
pub mod engine;
mod run;
mod script;
pub mod stage;

pub use run::{Ran, eventually};
pub use script::worker_script;
pub use stage::{Setup, Stage};

use std::time::Duration;

/// Nothing here takes so long unless it never happens.
pub const LONG: Duration = Duration::from_secs(90);
