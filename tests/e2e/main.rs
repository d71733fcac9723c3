//! End to end: the binary as a person uses it, with real containers, tmux, git and Claude Code.
//! Only the model is played.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod demo;
mod endings;
mod fleet;
mod full_disk;
mod lists;
mod outside;
mod repair;
mod texts;
