//! The front door for Claude Code's hooks and status line.
//!
//! Called by the helper inside each instance over a Unix socket of that instance's own, and by
//! sessions outside our containers over loopback with a token. Hands each callback to `control`
//! and renders the answer. Must never decide, never answer before `control` has stored the event,
//! and never trust what an agent can write: bodies, headers, its spool directory.
//!
//! # With curl, without the helper
//!
//! A shell script as a command hook of a session on the host needs no more than this; its stdout
//! is the answer, and nothing is printed when there is nothing to say:
//!
//! ```sh
//! #!/bin/sh
//! exec curl --silent --fail --max-time 20 --data-binary @- \
//!   --header "authorization: Bearer $ORCHESTRATOR_TOKEN" \
//!   --header "content-type: application/json" \
//!   --header "x-callback-id: $(cat /proc/sys/kernel/random/uuid)" \
//!   "http://127.0.0.1:$ORCHESTRATOR_PORT/hooks/v1/agents/$ORCHESTRATOR_AGENT/callback"
//! ```
//!
//! Headers, all optional:
//!
//! - `x-callback-id`: 1 to 64 of `[A-Za-z0-9._-]`. The same id again gets the same answer and
//!   changes nothing, so `--retry 3` is safe. Without it the id is derived from `x-callback-at` and
//!   the body; without both, each call is a new event.
//! - `x-callback-at`: when the hook ran, any text up to 64 bytes (`date +%s%N`).
//! - `x-incarnation`: a number; which life of the agent it comes from.
//! - `x-head`: the commit at `HEAD` of the worktree, in full.
//!
//! The status line posts to `.../status` in the same way and prints the line it gets.
//!
//! # Answers
//!
//! 200 with the hook's JSON, 204 for nothing to say, else `application/problem+json` with a stable
//! `code`: see [`problem`]. 503 means that the event was *not* stored: keep it and send it again.

mod identity;
pub mod install;
mod intake;
pub mod problem;
mod router;
pub mod socket;
pub mod spool;

pub use identity::{Identity, TokenLookup};
pub use install::HELPER;
pub use router::router;
pub use socket::{ListenError, serve_socket};
pub use spool::{Drained, Spool};
