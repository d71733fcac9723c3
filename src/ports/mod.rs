//! What the daemon needs from outside, as small traits.
//!
//! Implemented by `runtime`, `store` and the fakes in `testing`; used by `daemon` and
//! `coordination`. Must never hold logic: a trait exists here only if a second real
//! implementation exists or the real one cannot run in every test.

pub mod clock;
pub mod error;
pub mod panes;
pub mod runtime;
pub mod store;
pub mod tls;

pub use clock::{Clock, Entropy};
pub use error::{ErrorKind, PortError, PortResult};
pub use panes::{ObservedPane, Panes};
pub use runtime::{
    AttachedTerminal, ContainerSpec, ExecOutput, ExecSpec, ImageSpec, Job, JobEnd, JobOutput,
    Mount, NO_NETWORK, NetworkInfo, ObservedContainer, ProgressLine, Runtime, RuntimeEvent,
    RuntimeEventKind, RuntimeInfo, Vitals,
};
pub use store::{Append, Appended, Listing, Record, Store};
