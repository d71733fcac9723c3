//! What every effect needs: the configuration, the ports and the places on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::Config;
use crate::credentials::{Credential, Logins};
use crate::model::{AgentId, CredentialId, CredentialInfo, Role};
use crate::ports::{Clock, Entropy, Panes, Runtime};
use crate::telemetry::{Redactor, Rotation};
use crate::worktree::GitStore;

use super::gates::Gates;
use super::paths::FleetPaths;

/// Shared by the driver and all effects; fixed for one run, but for the pool.
pub(super) struct House {
    pub(super) config: Config,
    pub(super) paths: FleetPaths,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) panes: Arc<dyn Panes>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) git: Arc<GitStore>,
    pub(super) gates: Gates,
    pub(super) pool: PoolCell,
    /// Files that give no credential, with their hints; held while the pool is read.
    pub(super) pool_problems: tokio::sync::Mutex<BTreeSet<(String, String)>>,
    pub(super) logins: Logins,
    pub(super) redactor: Redactor,
    /// Image id or tag the agents run in.
    pub(super) image: String,
    /// Name of the fleet's bridge.
    pub(super) network: String,
    pub(super) tmux_socket: String,
    /// The command a pane runs; the agent's name is appended.
    pub(super) view_command: Vec<String>,
    /// Who owns what an agent may write; `None` when we cannot give files away.
    pub(super) owner: Option<(u32, u32)>,
    /// Moves when the driver is told that a container began or ended: a list of containers made
    /// before that is out of date.
    pub(super) lives: AtomicU64,
}

/// The credentials as their files are now. Read often, replaced when a file has changed.
#[derive(Default)]
pub(super) struct PoolCell {
    current: RwLock<Arc<BTreeMap<CredentialId, Credential>>>,
}

impl PoolCell {
    pub(super) fn new(credentials: Vec<Credential>) -> Self {
        let cell = Self::default();
        cell.replace(credentials);
        cell
    }

    pub(super) fn all(&self) -> Arc<BTreeMap<CredentialId, Credential>> {
        // A poisoned lock only means that another task panicked between two look-ups.
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn get(&self, id: &CredentialId) -> Option<Credential> {
        self.all().get(id).cloned()
    }

    pub(super) fn infos(&self) -> Vec<CredentialInfo> {
        self.all().values().map(Credential::info).collect()
    }

    pub(super) fn replace(&self, credentials: Vec<Credential>) {
        let by_id = credentials.into_iter().map(|c| (c.id.clone(), c)).collect();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(by_id);
    }
}

impl House {
    pub(super) fn uid(&self) -> u32 {
        self.config.container.uid
    }

    pub(super) fn role(agent: &AgentId) -> Role {
        if agent.worker_number().is_some() {
            Role::Worker
        } else {
            Role::Manager
        }
    }

    pub(super) fn rotation(&self) -> Rotation {
        Rotation {
            max_bytes: self.config.logs.size,
            keep: self.config.logs.files,
        }
    }

    /// The command of an agent's pane.
    pub(super) fn view_of(&self, agent: &AgentId) -> Vec<String> {
        let mut command = self.view_command.clone();
        command.push(agent.to_string());
        command
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.paths.scratch()
    }
}
