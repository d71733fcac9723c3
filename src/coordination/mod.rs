//! The shared work of all agents and nodes: tasks and the lists they come from.
//!
//! Called by `daemon` (the driver claims, completes and applies lists) and by the API's task
//! routes. Every change is one conditional append on the store, so any number of processes may run
//! this room. The rules ([`rules`], [`tasklist`], [`view`], [`board`]) are pure functions; [`queue`] and
//! [`lists`] carry them out. Must never touch an agent, a file or a clock: time comes in.

pub mod board;
mod listing;
pub mod lists;
pub mod queue;
pub mod rules;
pub mod tasklist;
pub mod view;
mod write;

pub use lists::{Applied, ListSource};
pub use queue::{PreparedClaim, Queue};
pub use rules::{NewTask, Retry, TaskError};

#[cfg(test)]
mod tests;
