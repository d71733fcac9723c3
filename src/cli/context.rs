//! Which supervisor a command talks to.

use std::path::{Path, PathBuf};

use super::args::TargetArgs;
use super::error::Result;
use super::wiring::{self, Settings};
use super::{Error, Exit};
use crate::client::registry::{self, Entry};
use crate::client::{self, Client, Target};
use crate::model::ProjectId;
use crate::model::view::{AgentView, FleetView};

/// What every command is given.
pub(super) struct Context {
    pub(super) config: Option<PathBuf>,
    project: Option<String>,
    registry: Option<PathBuf>,
    pub(super) overrides: Vec<(String, String)>,
}

/// A running supervisor.
pub(super) struct Running {
    pub(super) client: Client,
    /// `None` when it was found by its socket alone.
    pub(super) entry: Option<Entry>,
}

impl Context {
    pub(super) fn new(target: TargetArgs) -> Self {
        Self {
            config: target.config,
            project: target.project,
            registry: registry::directory(|name| std::env::var(name).ok()),
            overrides: target.set,
        }
    }

    /// The config directory, which this command cannot do without.
    pub(super) fn config_directory(&self) -> Result<&Path> {
        self.config.as_deref().ok_or_else(|| {
            Error::new(Exit::Usage, "no config directory is given")
                .hint("add `--config DIR`; `orchestrator init DIR` makes one")
        })
    }

    /// Where running supervisors are announced.
    pub(super) fn registry(&self) -> Option<&Path> {
        self.registry.as_deref()
    }

    /// The project that was named with `--project`.
    pub(super) fn project(&self) -> Result<ProjectId> {
        self.project.as_deref().map(ProjectId::from).ok_or_else(|| {
            Error::new(Exit::Usage, "no project is given").hint("add `--project NAME`")
        })
    }

    /// The configuration that was named, without problems.
    pub(super) fn settings(&self) -> Result<Settings> {
        wiring::load(self.config_directory()?, &self.overrides)
    }

    fn target(&self) -> Target {
        match (&self.project, &self.config) {
            (Some(project), _) => Target::Project(project.as_str().into()),
            (None, Some(config)) => Target::Config(config.clone()),
            (None, None) => Target::Only,
        }
    }

    /// The supervisor that is meant, if it runs.
    pub(super) fn running(&self) -> Result<Running> {
        let target = self.target();
        let found = match &self.registry {
            Some(directory) => client::discover(directory, &target).map_err(Error::from),
            None => Err(Error::new(
                Exit::Failure,
                "neither `XDG_RUNTIME_DIR`, `XDG_STATE_HOME` nor `HOME` is set",
            )
            .hint("set `HOME`, or say which supervisor with `--config DIR`")),
        };
        match found {
            Ok(entry) => Ok(Running {
                client: Client::unix(&entry.control_socket)?,
                entry: Some(entry),
            }),
            // Its entry may be gone while it lives, for example after a clean-up of /run.
            Err(error) => match self.socket_of_config(&target) {
                Some(socket) => Ok(Running {
                    client: Client::unix(&socket)?,
                    entry: None,
                }),
                None => Err(error),
            },
        }
    }

    /// The control socket that the configuration names, if somebody listens there.
    fn socket_of_config(&self, target: &Target) -> Option<PathBuf> {
        let Target::Config(directory) = target else {
            return None;
        };
        let socket = wiring::load(directory, &self.overrides)
            .ok()?
            .control_socket;
        std::os::unix::net::UnixStream::connect(&socket).ok()?;
        Some(socket)
    }

    /// The state directory, also of a supervisor that has ended: for reading what it left.
    pub(super) fn state_directory(&self) -> Result<PathBuf> {
        let running = match self.running() {
            Ok(Running {
                entry: Some(entry), ..
            }) => return Ok(entry.state_directory),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if let Some(project) = &self.project {
            let entries = self.registry.as_deref().map(registry::list);
            let left = entries.and_then(std::io::Result::ok).and_then(|entries| {
                entries
                    .into_iter()
                    .find(|entry| entry.project.as_str() == project)
            });
            if let Some(entry) = left {
                return Ok(entry.state_directory);
            }
        }
        if let Some(config) = &self.config {
            let settings = wiring::load(config, &self.overrides)?;
            return Ok(settings.loaded.config.state_directory);
        }
        Err(match running {
            Some(error) => error,
            None => Error::new(Exit::NotRunning, "no supervisor is running"),
        })
    }
}

/// The agent of this name, or an error that names those there are.
pub(super) fn agent<'a>(view: &'a FleetView, name: &str) -> Result<&'a AgentView> {
    view.agents
        .iter()
        .find(|agent| agent.id.as_str() == name)
        .ok_or_else(|| {
            let names: Vec<&str> = view.agents.iter().map(|a| a.id.as_str()).collect();
            Error::new(Exit::NotFound, format!("there is no agent `{name}`"))
                .hint(format!("there are: {}", names.join(", ")))
        })
}
