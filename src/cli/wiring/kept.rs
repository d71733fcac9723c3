//! What is kept lies in the state directory: snapshots in the git store, checkouts in the trash. It
//! is read there, whether a supervisor runs or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{connect, daemon_error, port_error, prerequisite};
use crate::cli::context::Context;
use crate::cli::error::Result;
use crate::cli::{Error, Exit, output};
use crate::control::{CleanUp, KeepingPort as _, Refusal};
use crate::daemon::{self, FleetPaths, Keeper, SystemClock};
use crate::model::{
    AgentId, CleanedUp, RescueCause, RescueContent, RescueView, Restored, Timestamp, WorktreeView,
};
pub(in crate::cli) use crate::worktree::TrashEntry;
use crate::worktree::{GitStore, Trash};

/// A longer comparison is cut.
const MAX_DIFF: usize = 8 * 1024 * 1024;

/// The kept things of one fleet.
pub(in crate::cli) struct Kept {
    state: PathBuf,
}

impl Kept {
    /// Of the fleet that is meant, running or not.
    pub(in crate::cli) fn of(context: &Context) -> Result<Self> {
        let state = context.state_directory()?;
        if !FleetPaths::new(&state).store().is_dir() {
            return Err(Error::new(
                Exit::NotFound,
                format!("{} holds no fleet yet", state.display()),
            )
            .hint("it is made by the first `orchestrator up`"));
        }
        Ok(Self { state })
    }

    /// For reading what is named by its own references; neither remote nor branch is asked for.
    async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&GitStore) -> crate::ports::PortResult<T> + Send + 'static,
    ) -> Result<T> {
        let path = FleetPaths::new(&self.state).store();
        blocking(move || work(&GitStore::open_for_reading(&path)?)).await
    }

    /// Newest first.
    pub(in crate::cli) async fn rescues(&self, agent: Option<&AgentId>) -> Result<Vec<RescueView>> {
        let mut all = self.store(GitStore::rescues).await?;
        all.retain(|rescue| agent.is_none_or(|id| rescue.agent == *id));
        Ok(all)
    }

    pub(in crate::cli) async fn rescue(&self, id: &str) -> Result<RescueContent> {
        let id = id.to_owned();
        self.store(move |git| {
            Ok(RescueContent {
                rescue: git.rescue(&id)?,
                files: git.rescue_files(&id)?,
            })
        })
        .await
    }

    pub(in crate::cli) async fn diff(&self, id: &str) -> Result<String> {
        let id = id.to_owned();
        self.store(move |git| git.rescue_diff(&id, MAX_DIFF)).await
    }

    pub(in crate::cli) async fn restore(&self, id: &str, into: &Path) -> Result<Restored> {
        let (id, into) = (id.to_owned(), into.to_owned());
        self.store(move |git| {
            let written = git.restore_rescue(&id, &into)?;
            Ok(daemon::restored(written, &into))
        })
        .await
    }

    /// Everybody who has a checkout or had one, for messages.
    pub(in crate::cli) fn agents(&self) -> Vec<AgentId> {
        FleetPaths::new(&self.state).agents_on_disk()
    }

    pub(in crate::cli) async fn trash(&self) -> Result<Vec<TrashEntry>> {
        let state = self.state.clone();
        blocking(move || Trash::open(&state)?.list()).await
    }

    /// Back to where it was, or to `into`.
    pub(in crate::cli) async fn put_back(&self, id: &str, into: Option<&Path>) -> Result<PathBuf> {
        let (state, id, into) = (self.state.clone(), id.to_owned(), into.map(Path::to_owned));
        blocking(move || Trash::open(&state)?.restore(&id, into.as_deref())).await
    }

    /// Deletes everything that may be deleted at `at`.
    pub(in crate::cli) async fn empty(&self, at: Timestamp) -> Result<Vec<TrashEntry>> {
        let state = self.state.clone();
        blocking(move || Trash::open(&state)?.expire(at)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> crate::ports::PortResult<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(port_error),
        Err(error) => Err(Error::new(Exit::Failure, "a blocking task ended early").because(&error)),
    }
}

/// Every checkout of the fleet that is configured, while no supervisor runs.
pub(in crate::cli) async fn worktrees(context: &Context) -> Result<Vec<WorktreeView>> {
    let settings = context.settings()?;
    let all = daemon::worktrees(&settings.loaded.config).await;
    all.map_err(daemon_error)
}

/// What is done in containers, while no supervisor runs. None is started on this state meanwhile.
pub(in crate::cli) struct Alone(Keeper);

impl Alone {
    pub(in crate::cli) async fn new(context: &Context) -> Result<Self> {
        let settings = context.settings()?;
        let runtime = connect().await.map_err(prerequisite)?;
        let keeper = Keeper::alone(
            &settings.loaded.config,
            Arc::new(runtime),
            Arc::new(SystemClock::new()),
            &output::say,
        );
        keeper.await.map(Self).map_err(daemon_error)
    }

    pub(in crate::cli) async fn clean_up(
        &self,
        agent: &AgentId,
        force: bool,
        dry_run: bool,
    ) -> Result<CleanedUp> {
        let how = match (dry_run, force) {
            (true, _) => CleanUp::Try,
            (false, true) => CleanUp::Force,
            (false, false) => CleanUp::IfKept,
        };
        self.0.clean_up(agent.clone(), how).await.map_err(refused)
    }

    /// `None`: it has nothing that is not kept.
    pub(in crate::cli) async fn rescue(&self, agent: &AgentId) -> Result<Option<RescueView>> {
        let taken = self.0.rescue_now(agent, RescueCause::Asked).await;
        taken.map_err(port_error)
    }
}

/// A refusal, with the exit code for what the user can do about it.
fn refused(refusal: Refusal) -> Error {
    let exit = match refusal.code {
        code if code.starts_with("UNKNOWN_") => Exit::NotFound,
        "FAILED" | "TRY_AGAIN" => Exit::Failure,
        _ => Exit::Refused,
    };
    let error = Error::new(exit, refusal.reason);
    match refusal.hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
