//! Where everything of one fleet lies on disk. The one place that knows the layout.

use std::path::{Path, PathBuf};

use crate::model::AgentId;

/// ```text
/// STATE/                     0700
///   lock                     held while a supervisor runs
///   state.db                 tasks, agents, journal (SQLite)
///   store.git                the bare repository, the supervisor's alone
///   control.sock  token      how the CLI and scripts reach the supervisor
///   compose.json             the containers, as Compose would write them
///   log/supervisor.log       log/agents/NAME.log
///   opt/                     helper and scripts, mounted read-only into every instance
///   gates/                   log/, results/, cache/, and runs/ while one is run
///   scratch/                 temporary files that must be on the same filesystem
///   agents/NAME/
///     checkout/              the agent's clone, /workspace (read-write)
///     home/                  /home/agent (read-write): conversations
///     managed/               /etc/claude-code (read-only)
///     credentials/           /run/orchestrator/credentials (read-only)
///     socket/                /run/orchestrator/socket (read-only): hooks.sock
///     spool/                 /var/spool/orchestrator (read-write)
///     quarantine/            spool files that could not be read
///   trash/                   checkouts that were put away, for a while
/// ```
#[derive(Clone, Debug)]
pub struct FleetPaths {
    root: PathBuf,
}

impl FleetPaths {
    pub fn new(state_directory: &Path) -> Self {
        Self {
            root: state_directory.to_owned(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub fn database(&self) -> PathBuf {
        self.root.join("state.db")
    }

    pub fn store(&self) -> PathBuf {
        self.root.join("store.git")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    pub fn token(&self) -> PathBuf {
        self.root.join("token")
    }

    pub fn compose_file(&self) -> PathBuf {
        self.root.join("compose.json")
    }

    pub fn tools(&self) -> PathBuf {
        self.root.join("opt")
    }

    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Everybody who has a directory here, configured or not, in the order of their names.
    pub fn agents_on_disk(&self) -> Vec<AgentId> {
        let entries = std::fs::read_dir(self.root.join("agents"));
        let mut agents: Vec<AgentId> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(AgentId::new)
            .filter(|agent| *agent == AgentId::manager() || agent.worker_number().is_some())
            .collect();
        agents.sort_by_key(AgentId::worker_number);
        agents
    }

    /// Everything of gates; `daemon/gates` knows what lies in it.
    pub fn gates(&self) -> PathBuf {
        self.root.join("gates")
    }

    pub fn agent(&self, agent: &AgentId) -> AgentPaths {
        AgentPaths {
            root: self.root.join("agents").join(agent.as_str()),
        }
    }
}

/// One agent's part.
#[derive(Clone, Debug)]
pub struct AgentPaths {
    root: PathBuf,
}

impl AgentPaths {
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn checkout(&self) -> PathBuf {
        self.root.join("checkout")
    }

    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub fn managed(&self) -> PathBuf {
        self.root.join("managed")
    }

    pub fn credentials(&self) -> PathBuf {
        self.root.join("credentials")
    }

    pub fn socket(&self) -> PathBuf {
        self.root.join("socket")
    }

    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }
}
