//! Gates: the commands that must pass on the merged tree before it becomes the branch.
//!
//! ```text
//! STATE/gates/
//!   runs/ID-TRY/tree, home     what a container has mounted while it runs; removed afterwards
//!   log/ID.log, ID.json        what it printed, and what came of it; the newest [`LOGS_KEPT`]
//!   results/KEY.json           outcomes by tree, gate and image; bounded
//!   cache/NAME/                mounted at `/cache` where a gate asks for it; written by what it runs
//!   counts.json                how often each ended how
//! ```
//!
//! Every try has a fresh checkout, made from the store alone, and a fresh container: what a gate runs was
//! written by agents. One run at a time; who asks meanwhile waits.
//!
//! What an outcome means: `Passed`, `Failed` and `TimedOut` are about the tree. `Broken` is not: the
//! engine was away, an image missing, the disk full. It is neither remembered nor held against anybody,
//! and whoever asked should ask again later. A failure is tried once more, a time-out is not: it
//! would double the wait of everybody behind, and what hangs once mostly hangs again.

mod attempt;
mod counts;
mod image;
mod log;
mod places;
mod progress;
mod results;
mod run;
mod stream;
mod tail;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::paths::FleetPaths;
use crate::config::Config;
use crate::model::CommitId;
use crate::model::gate::{GateEvent, GateRecord, GateView, RunningGate};
use crate::ports::{Clock, ErrorKind, PortError, PortResult, Runtime};
use crate::worktree::GitStore;
use counts::Counts;
use log::Logs;
use results::Results;

pub use log::{LOGS_KEPT, logged_runs, read_log};
pub(super) use progress::follow;

/// How long what runs may take to be taken down at the end.
const TAKE_DOWN: Duration = Duration::from_secs(4);

/// What gates need of the fleet.
pub struct GateSetup {
    pub config: Config,
    pub runtime: Arc<dyn Runtime>,
    pub git: Arc<GitStore>,
    pub clock: Arc<dyn Clock>,
    /// The network of those that may reach one.
    pub network: String,
    /// Who owns what a container may write; `None` when files cannot be given away.
    pub owner: Option<(u32, u32)>,
}

/// A cheap clone to talk to the gates of one fleet.
#[derive(Clone)]
pub struct Gates(Arc<House>);

struct House {
    setup: GateSetup,
    root: PathBuf,
    logs: Logs,
    results: Results,
    counts: Counts,
    /// Held by the run that is under way.
    turn: Mutex<()>,
    progress: watch::Sender<Option<RunningGate>>,
    end: CancellationToken,
    tracker: TaskTracker,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct GateOrder {
    pub commit: CommitId,
    /// This one alone.
    pub only: Option<String>,
    pub known: Known,
}

/// Whether an outcome that is known already is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Use,
    RunAnew,
}

/// Is told what happens in a run; must not block.
pub type Listener = Arc<dyn Fn(GateEvent) + Send + Sync>;

impl Gates {
    /// Makes the directories and removes what an earlier supervisor left of runs. Its containers are
    /// [`Runtime::remove_leftovers`]'s. Blocks.
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn open(setup: GateSetup) -> PortResult<Self> {
        let root = FleetPaths::new(&setup.config.state_directory).gates();
        let failed = |cause: std::io::Error| {
            let text = format!(
                "could not make the directories of gates in {}",
                root.display()
            );
            PortError::new(ErrorKind::Transient, text).because(cause)
        };
        let logs = Logs::open(root.join("log")).map_err(failed)?;
        let results = Results::open(root.join("results")).map_err(failed)?;
        let counts = Counts::open(root.join("counts.json"));
        places::sweep(&root).map_err(failed)?;
        Ok(Self(Arc::new(House {
            setup,
            root,
            logs,
            results,
            counts,
            turn: Mutex::default(),
            progress: watch::Sender::default(),
            end: CancellationToken::new(),
            tracker: TaskTracker::new(),
        })))
    }

    /// Without gates nothing is ever run.
    pub fn configured(&self) -> bool {
        !self.0.setup.config.gates.is_empty()
    }

    /// Runs all gates on the tree of this commit of the store, in their order, up to the first that
    /// does not pass; those behind it are not in the answer. Outcomes known for the same tree are taken.
    ///
    /// Dropping the future takes everything down that runs for it, and so does the end of the daemon.
    ///
    /// # Errors
    /// `NotFound` when the store does not have the commit; `Transient` when the run was stopped. What
    /// keeps a single gate from running is a record, with the outcome `Broken`.
    pub async fn run(&self, commit: &CommitId) -> PortResult<Vec<GateRecord>> {
        let order = GateOrder {
            commit: commit.clone(),
            only: None,
            known: Known::Use,
        };
        self.run_order(order, Arc::new(|_| {})).await
    }

    /// As [`Gates::run`], for somebody who listens.
    ///
    /// # Errors
    /// As [`Gates::run`], and `NotFound` when there is no gate of that name.
    pub async fn run_order(
        &self,
        order: GateOrder,
        listener: Listener,
    ) -> PortResult<Vec<GateRecord>> {
        let stop = self.0.end.child_token();
        // Dropped here, it goes on just long enough to take down what it has begun.
        let _stopped_with_me = stop.clone().drop_guard();
        let house = self.0.clone();
        let run = async move { run::run(&house, &order, &stop, &listener).await };
        match self.0.tracker.spawn(run).await {
            Ok(records) => records,
            Err(error) => {
                Err(PortError::new(ErrorKind::Broken, "a run of gates ended early").because(error))
            }
        }
    }

    /// The gate that runs now, and each that begins or ends later.
    pub fn progress(&self) -> watch::Receiver<Option<RunningGate>> {
        self.0.progress.subscribe()
    }

    /// All gates, in their order.
    pub fn views(&self) -> Vec<GateView> {
        let gates = self.0.setup.config.gates.iter();
        gates.map(|gate| self.0.counts.view(gate)).collect()
    }

    /// Stops what runs, and waits until its container and directory are gone; not longer than a few
    /// seconds. Nothing runs after this.
    pub async fn shut_down(&self) {
        self.0.end.cancel();
        self.0.tracker.close();
        if tokio::time::timeout(TAKE_DOWN, self.0.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("a gate is still being taken down; the next start removes the rest");
        }
    }
}
