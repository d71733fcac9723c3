//! Adapters of the port `ports::Store`: one totally ordered log with a conditional append.
//!
//! Opened by `daemon`; used through the port by `coordination`, and directly by the driver for its
//! own rows ([`sqlite::FleetState`]). Must never decide: no task rules, no meaning of a record.
//!
//! [`files`] is the directory of sessions without a supervisor, and no log. [`sqlite`] is the embedded
//! default. Adapters for several machines join the same conformance
//! suite, `tests/contract/store.rs`.

pub mod files;
pub mod sqlite;
