//! Keeping what nobody has committed: snapshots of checkouts, what lies in them, the trash.
//!
//! Serves the front doors and the effects of a running supervisor, and the command line while none
//! runs. Work on a checkout is done in a container: the agent's own, or a throwaway one that has the
//! checkout, the helper and the store's objects, and neither a network nor a secret.

mod cleanup;
mod tidy;

pub(super) use tidy::keep_tidy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::error::DaemonError;
use super::house::House;
use super::paths::FleetPaths;
use super::prepare;
use crate::claude::launch::WORKSPACE;
use crate::config::{self, Config};
use crate::control::{CleanUp, KeepingPort, Refusal};
use crate::model::{
    AgentId, CleanedUp, Incarnation, ProjectId, RescueCause, RescueContent, RescueView, Restored,
    Timestamp, WorktreeView,
};
use crate::ports::{
    Clock, ContainerSpec, ErrorKind, ExecOutput, ExecSpec, Mount, PortError, PortResult, Runtime,
};
use crate::worktree::{GitStore, Identity, RescueReason, sandbox};

/// Bytes of one snapshot: what is new in it, packed. Larger content is left out and named.
const SNAPSHOT_LIMIT: usize = 256 * 1024 * 1024;
/// Of one try, in a container that runs or in one made for it; there are two at most.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(45);

/// Looks after the work of one fleet. Shared in an `Arc`.
pub struct Keeper {
    project: ProjectId,
    paths: FleetPaths,
    git: Arc<GitStore>,
    runtime: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
    image: String,
    container: config::Container,
    rescue: config::Rescue,
    /// Agents of the present configuration.
    fleet: BTreeSet<AgentId>,
    /// Nobody works: the checkouts of configured agents may be put away too.
    at_rest: bool,
    /// One snapshot of a checkout at a time.
    turns: Mutex<BTreeMap<AgentId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while no supervisor runs.
    _lock: Option<File>,
}

impl Keeper {
    /// Of a running supervisor.
    pub(super) fn of(house: &House) -> Self {
        Self {
            project: house.config.project.clone(),
            paths: house.paths.clone(),
            git: house.git.clone(),
            runtime: house.runtime.clone(),
            clock: house.clock.clone(),
            image: house.image.clone(),
            container: house.config.container.clone(),
            rescue: house.config.rescue.clone(),
            fleet: prepare::agents(&house.config).into_iter().collect(),
            at_rest: false,
            turns: Mutex::default(),
            _lock: None,
        }
    }

    /// While no supervisor runs: none is started on this state as long as this lives.
    ///
    /// Errors: a supervisor runs, or there is no state yet.
    pub async fn alone(
        config: &Config,
        runtime: Arc<dyn Runtime>,
        clock: Arc<dyn Clock>,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Self, DaemonError> {
        let git = open(config).await?;
        let paths = FleetPaths::new(&config.state_directory);
        let lock = super::start::lock(&paths)?;
        super::start::install_tools(&paths)?;
        let image = prepare::image_spec(config);
        runtime
            .ensure_image(&image, &progress)
            .await
            .map_err(DaemonError::prerequisite("preparing the agent image"))?;
        Ok(Self {
            project: config.project.clone(),
            git: Arc::new(git),
            runtime,
            clock,
            image: image.tag,
            container: config.container.clone(),
            rescue: config.rescue.clone(),
            fleet: prepare::agents(config).into_iter().collect(),
            at_rest: true,
            turns: Mutex::default(),
            _lock: Some(lock),
            paths,
        })
    }

    /// Copies what an agent has not committed, and commits the store does not have. `container`: its
    /// own, if it may run; where that is of no use (gone, frozen, out of memory) a throwaway one.
    /// `None`: there is nothing that is not kept.
    pub(super) async fn snapshot(
        &self,
        agent: &AgentId,
        container: Option<&str>,
        cause: RescueCause,
        began: Timestamp,
    ) -> PortResult<Option<RescueView>> {
        let turn = self.turn_of(agent);
        let _turn = turn.lock().await;
        if !self.paths.agent(agent).checkout().is_dir() {
            return Ok(None);
        }
        let id = agent.clone();
        let known = super::blocking(&self.git, move |git| git.rescue_known(&id)).await?;
        let mut command = sandbox::snapshot(WORKSPACE, &known, self.rescue.ignored, SNAPSHOT_LIMIT);
        command.deadline = SNAPSHOT_DEADLINE;
        let output = self.run(agent, container, &command).await?;
        let snapshot = sandbox::parse_snapshot(sandbox::checked("the snapshot", output)?)?;
        let id = agent.clone();
        super::blocking(&self.git, move |git| {
            let reason = RescueReason {
                cause: cause.as_str(),
                at: began,
                keep: cause.comes_before_a_risk(),
            };
            git.import_rescue(&id, &reason, &snapshot, SNAPSHOT_LIMIT as u64)
        })
        .await
    }

    /// As `Self::snapshot`, in a throwaway container: for a fleet whose supervisor does not run.
    pub async fn rescue_now(
        &self,
        agent: &AgentId,
        cause: RescueCause,
    ) -> PortResult<Option<RescueView>> {
        self.snapshot(agent, None, cause, self.clock.now()).await
    }

    fn turn_of(&self, agent: &AgentId) -> Arc<tokio::sync::Mutex<()>> {
        // A poisoned lock only means that another task panicked between two look-ups.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(agent.clone()).or_default().clone()
    }

    async fn run(
        &self,
        agent: &AgentId,
        container: Option<&str>,
        command: &ExecSpec,
    ) -> PortResult<ExecOutput> {
        if let Some(name) = container {
            match self.runtime.exec(name, command).await {
                Ok(output) if output.exit_code == 0 => return Ok(output),
                Ok(output) => tracing::info!(
                    %agent,
                    exit_code = output.exit_code,
                    "a command on its checkout failed in its container; trying a throwaway one"
                ),
                Err(error) => tracing::info!(
                    %agent,
                    error = error.chain(),
                    "its container is of no use; trying a throwaway one"
                ),
            }
        }
        self.runtime.run_once(&self.spec(agent), command).await
    }

    /// The checkout and what it borrows; no secret, no network.
    fn spec(&self, agent: &AgentId) -> ContainerSpec {
        let mount = |host, container: &str, read_only| Mount {
            host,
            container: container.to_owned(),
            read_only,
        };
        let objects = self.git.objects_inside().display().to_string();
        let limits = &self.container;
        ContainerSpec {
            project: self.project.clone(),
            agent: agent.clone(),
            incarnation: Incarnation(0),
            image: self.image.clone(),
            command: Vec::new(),
            environment: BTreeMap::from([("HOME".to_owned(), "/tmp".to_owned())]),
            mounts: vec![
                mount(self.paths.agent(agent).checkout(), WORKSPACE, false),
                mount(self.paths.tools(), "/opt/orchestrator", true),
                mount(self.git.objects_directory(), &objects, true),
            ],
            working_directory: WORKSPACE.to_owned(),
            uid: limits.uid,
            gid: limits.uid,
            network: "none".to_owned(),
            memory_bytes: i64::try_from(limits.memory).ok(),
            milli_cpus: Some(limits.milli_cpus()),
            pids: i64::from(limits.pids),
            tmp_bytes: i64::try_from(limits.tmp_size).unwrap_or(i64::MAX),
            state_directory: self.paths.root().to_owned(),
            settings_hash: String::new(),
        }
    }
}

#[async_trait]
impl KeepingPort for Keeper {
    async fn rescues(&self, agent: Option<AgentId>) -> Result<Vec<RescueView>, Refusal> {
        let all = super::blocking(&self.git, GitStore::rescues).await;
        let mut all = all.map_err(refusal)?;
        all.retain(|rescue| agent.as_ref().is_none_or(|id| rescue.agent == *id));
        Ok(all)
    }

    async fn rescue(&self, id: String) -> Result<RescueContent, Refusal> {
        let read = super::blocking(&self.git, move |git| {
            Ok(RescueContent {
                rescue: git.rescue(&id)?,
                files: git.rescue_files(&id)?,
            })
        });
        read.await.map_err(refusal)
    }

    async fn restore(&self, id: String, into: PathBuf) -> Result<Restored, Refusal> {
        let written = super::blocking(&self.git, move |git| {
            let written = git.restore_rescue(&id, &into)?;
            Ok(restored(written, &into))
        });
        written.await.map_err(refusal)
    }

    async fn worktrees(&self) -> Result<Vec<WorktreeView>, Refusal> {
        self.all_worktrees().await.map_err(refusal)
    }

    async fn clean_up(&self, agent: AgentId, how: CleanUp) -> Result<CleanedUp, Refusal> {
        self.put_away(&agent, how).await
    }
}

/// The git store of a fleet that has run, without the network.
async fn open(config: &Config) -> Result<GitStore, DaemonError> {
    let path = FleetPaths::new(&config.state_directory).store();
    if !path.is_dir() {
        let text = format!("{} holds no fleet", config.state_directory.display());
        return Err(DaemonError::Prerequisite {
            what: "looking for the fleet's state",
            cause: PortError::new(ErrorKind::NotFound, text)
                .hint("nothing has run with this configuration yet: there is nothing to keep"),
        });
    }
    let (url, branch) = (config.repository_url.clone(), config.branch.clone());
    let identity = Identity {
        name: config.git.name.clone(),
        email: config.git.email.clone(),
    };
    super::join(move || GitStore::open_or_clone(&path, &url, &branch, identity, &|_| {}))
        .await
        .map_err(DaemonError::prerequisite("reading the repository"))
}

/// Every checkout of a fleet, whether it runs or not; needs no container engine.
pub async fn worktrees(config: &Config) -> Result<Vec<WorktreeView>, DaemonError> {
    let git = Arc::new(open(config).await?);
    let paths = FleetPaths::new(&config.state_directory);
    let fleet = prepare::agents(config).into_iter().collect();
    super::blocking(&git, move |git| cleanup::worktrees(git, &paths, &fleet))
        .await
        .map_err(DaemonError::prerequisite("reading the checkouts"))
}

/// What was written, as the front doors tell it.
pub fn restored(written: crate::worktree::Restored, into: &Path) -> Restored {
    Restored {
        rescue: written.rescue,
        directory: into.display().to_string(),
        files: written.files,
        staged: written.staged,
        extras: written.extras,
        deleted: written.deleted,
        left_out: written.left_out,
    }
}

fn refusal(error: PortError) -> Refusal {
    Refusal {
        code: match error.kind {
            ErrorKind::NotFound => "UNKNOWN_RESCUE",
            ErrorKind::AlreadyExists => "ALREADY_EXISTS",
            ErrorKind::Refused => "REFUSED",
            ErrorKind::Transient => "TRY_AGAIN",
            ErrorKind::Broken => "FAILED",
        },
        reason: error.chain(),
        hint: error.hint,
    }
}
