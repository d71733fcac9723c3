//! End to end: the binary as a person uses it, with real containers, tmux, git and Claude Code.
//! Only the model is played.

#![expect(
    clippy::unwrap_used,
    clippy::unused_self,
    clippy::format_collect,
    reason = "tests; a step reads as one of the stage"
)]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod chaos;
mod credentials;
mod demo;
mod drift;
mod endings;
mod engine;
mod fleet;
mod full_disk;
mod hung;
mod killed;
mod lists;
mod memory;
mod outside;
mod queue;
mod receipts;
mod repair;
mod rescue;
mod texts;
mod train;
mod typed;
mod upgrade;
