//! Which credential each agent is lent: rotation at a limit, and before it.
//!
//! Called by the rest of the supervisor; the facts come from the driver as events. What a failed
//! turn or a status line says is written down about its credential ([`limits`], [`windows`],
//! [`refresh`]); who is to have which then follows from the state alone ([`place`]), so that a
//! missed moment, a restart or a repeated event does not matter. Must never hold a secret.

mod choose;
mod limits;
mod near;
mod place;
mod read;
mod refresh;
mod standing;
#[cfg(test)]
mod tests;
mod view;
mod windows;

pub(super) use place::{LIMIT_DIALOG, NotLent};
pub use standing::{Lease, Lending, Pool, Standing};
