//! The command line: arguments in, tables and messages out, one file per command.
//!
//! Called by `main`. Data goes to stdout, messages to stderr. Must never decide what the fleet
//! does: commands ask the running supervisor through `client`. What runs in this process (the
//! supervisor itself, `doctor`, `demo`, `chaos`, `view`) is reached through [`wiring`] alone.

mod args;
mod attach;
mod chaos;
mod completions;
mod config;
mod context;
mod credentials;
mod demo;
mod doctor;
mod down;
mod drift;
mod edit;
mod error;
mod exit;
mod explain;
mod fetch;
mod format;
mod gates;
mod init;
mod leader;
mod logs;
mod man;
mod output;
mod plan;
mod rescue;
mod restart;
mod run;
mod state;
mod status;
mod task;
mod train;
mod trash;
mod up;
mod view;
mod watch;
pub mod wiring;
mod worker;
mod worktree;

pub use args::{Cli, Command, command};
pub use chaos::ChaosArgs;
pub use demo::DemoArgs;
pub use error::Error;
pub use exit::Exit;
pub use run::main;
pub use view::main_of_view;
