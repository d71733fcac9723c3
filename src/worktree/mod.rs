//! Git: the supervisor's bare store, one isolated checkout per agent, bundles, merges, pushes.
//!
//! Called by `daemon`, on blocking threads (every function here blocks). Layout, from experiments
//! with planted hooks, filters, configuration and git directories:
//!
//! ```text
//! <state>/store.git                  bare; the supervisor's only; never prunes
//!   refs/heads/<branch>              what the supervisor has merged
//!   refs/remotes/origin/<branch>     the remote, as last fetched
//!   refs/workers/<agent>/head        the agent's newest imported commit
//!   refs/workers/<agent>/previous/*  imported commits the agent has since rewritten
//!   refs/orchestrator/replaced/*     remote commits a forced push took away
//!   refs/orchestrator/train/*        the newest stacks of the merge train
//!   refs/orchestrator/rescue/<agent>/*   uncommitted work of that agent, snapshot by snapshot
//! <state>/agents/<agent>/checkout    `clone --shared` of the store; the agent's own
//! ```
//!
//! The threat model: an agent owns its checkout and may plant anything in it. Must never open,
//! with git or libgit2, a directory an agent can write: work comes back as a bundle made inside
//! the sandbox ([`sandbox`]) and imported through a quarantine, merges happen in memory, single
//! files are read with [`read_beneath`]. Must never delete a ref (but for old
//! stacks, which hold nothing of an agent's alone), a branch or a checkout, never
//! touch an agent's working tree, and never push with force.

mod beneath;
mod bundle;
mod checkout;
mod command;
mod conflict;
pub mod exchange;
mod making;
mod merge;
mod push;
mod reachable;
mod read;
mod remote;
mod rescue;
pub mod sandbox;
mod stack;
mod store;
mod trash;
mod work;

pub use beneath::{open_beneath, read_beneath, rename_beneath};
pub use bundle::BundleSource;
pub use checkout::{Checkout, CheckoutSpec};
pub use conflict::ConflictFile;
pub use merge::{FileEdit, MergeOutcome};
pub use push::PushOutcome;
pub use reachable::Reachability;
pub use remote::Fetched;
pub use rescue::{RescueReason, Restored, Retention, Thinned};
pub use stack::{Landing, STACKS_KEPT, Stack, StackPart, Stacked};
pub use store::{GitStore, Identity};
pub use trash::{Trash, TrashEntry};
