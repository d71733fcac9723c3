//! DOES: owns the loop, the tasks and the order of life.
//!
//! Called by `cli`'s `up` and by tests, with the ports handed in. The only room that translates
//! between worlds. Must never decide: what follows from what is the supervisor's.

pub(crate) mod claims;
mod clock;
mod closing;
mod disk;
mod doors;
mod driver;
mod effects;
mod error;
mod gates;
mod handle;
mod house;
mod keeping;
mod lists;
mod logbook;
mod panes;
mod paths;
mod pool;
mod preflight;
mod prepare;
mod program;
mod queue_actions;
mod record;
mod saved;
mod signals;
mod start;
mod state_file;
mod task_door;
mod usage;
mod watch;

pub use clock::{SystemClock, SystemEntropy};
pub use error::DaemonError;
pub use gates::{GateOrder, GateSetup, Gates, Known, LOGS_KEPT, Listener, logged_runs, read_log};
pub use keeping::{Keeper, restored, worktrees};
pub use lists::file_name as task_list_file;
pub use paths::{AgentPaths, FleetPaths};
pub use preflight::preflight;
pub use program::{build_of, own_build};
pub use signals::Signals;
pub use start::{Ended, RunOptions, run, tmux_socket_name};
pub use state_file::{back_up_state, check_state, restore_state};
pub use task_door::TaskDoor;

use std::sync::Arc;

use crate::ports::{ErrorKind, PortError, PortResult};
use crate::worktree::GitStore;

/// Runs blocking git work on its own thread.
async fn blocking<T: Send + 'static>(
    git: &Arc<GitStore>,
    work: impl FnOnce(&GitStore) -> PortResult<T> + Send + 'static,
) -> PortResult<T> {
    let git = git.clone();
    join(move || work(&git)).await
}

async fn join<T: Send + 'static>(
    work: impl FnOnce() -> PortResult<T> + Send + 'static,
) -> PortResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(PortError::new(ErrorKind::Broken, "a blocking task ended early").because(error))
        }
    }
}
