//! Where agents live: containers of the Docker engine, and what marks them as ours.
//!
//! Called by `daemon` through the port `ports::Runtime`, and by the view client for `attach`.
//! Must never decide: it does what it is told, reads back what it is unsure of, and says what it
//! saw. Must never put a secret into a label, an argument or an error text.

pub mod docker;
pub mod labels;
pub mod tmux;
pub mod view;
