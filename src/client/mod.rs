//! The typed client of the API, over the control socket or over HTTP with a token, and how the
//! running supervisor is found.
//!
//! Used by `cli` and offered as a library; `daemon` writes its entry with [`registry`]. Must never
//! start or end anything by itself: it asks, and says what the answer was.

mod discover;
mod error;
mod http;
mod keeping;
pub mod registry;
mod sse;
#[cfg(test)]
mod tests;

pub use discover::{Target, discover};
pub use error::{Error, Result};
pub use http::{Client, Done, GateStream, Health, StatusStream};

pub use crate::control::Ending;
