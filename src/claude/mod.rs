//! Everything that knows Claude Code's formats: managed settings, start-up seeding, the command
//! and environment of the process, hook payloads and answers, the status line, prompts and screens.
//!
//! Called by `hooks` (payloads, answers, status line) and `daemon` (everything else). Pure text in,
//! data out, and the other way round. Must never do IO, read a clock, decide what happens next, or
//! panic on what Claude Code or an agent sends. Built on what was observed on version 2.1.197;
//! `samples/` holds recordings of that version, one file each, so that a newer one can be compared.

pub mod answer;
pub mod launch;
pub mod limits;
pub mod payload;
pub mod prompt;
pub mod screen;
pub mod seed;
pub mod session_file;
pub mod settings;
pub mod status_line;
pub mod transcript;

pub use answer::render;
pub use launch::{Conversation, Launch};
pub use payload::{ParsedHook, parse};
pub use prompt::{same_prompt, wrap};
pub use screen::classify;
pub use seed::Seed;
pub use session_file::SessionFile;
pub use settings::{ManagedSettings, managed_settings};
pub use status_line::StatusLine;

/// What a text from Claude Code lacks. Names the key, never the content: it may be anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: &'static str, limit: usize },
    #[error("{what} is not JSON: {problem}")]
    NotJson { what: &'static str, problem: String },
    #[error("{what}: key `{key}` is not {wanted}")]
    WrongType {
        what: &'static str,
        key: String,
        wanted: &'static str,
    },
    #[error("{what}: key `{key}` is missing")]
    Missing { what: &'static str, key: String },
}

/// The first `limit` bytes, or a few less: never through a character.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
