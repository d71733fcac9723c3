//! Fakes, the simulated world and the scripted model server.
//!
//! `scripted_model` and `sample` are always built, because `demo` runs on them; everything else is
//! behind the feature `testing`. A fake is trusted only because it passes the contract suite of the real thing.

#[cfg(feature = "testing")]
pub mod fake_panes;
#[cfg(feature = "testing")]
pub mod fake_runtime;
#[cfg(feature = "testing")]
pub mod memory_store;
pub mod sample;
pub mod scripted_model;
#[cfg(feature = "testing")]
pub mod tasks;
#[cfg(feature = "testing")]
pub mod world;
