//! The HTTP API for people's tools and scripts: a front door over [`crate::control`].
//!
//! Built and served by `daemon`, spoken to by `client`. Must never decide anything, never touch
//! an adapter or the store, and never answer with an error that has no stable code.
//!
//! The same routes lie under `/api/v1` and `/api`. On the Unix socket the file's permissions are
//! the access control; on TCP a bearer token is.

mod access;
mod bind;
mod codes;
mod gates;
mod handlers;
mod keeping;
mod limits;
mod queue;
mod router;
mod serve;
mod stream;
mod tasks;
#[cfg(test)]
pub(crate) mod tests;

pub use access::Access;
pub use bind::{BindError, UnixSocket, bind_tcp, bind_unix};
pub use codes::{Code, Problem};
pub use router::router;
pub use serve::{serve_tcp, serve_unix};
