//! What a demo needs: a sample repository, the scripted model, a config directory, a supervisor.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::error::Result;
use super::super::{Error, Exit, output, wiring};
use super::engine::Engine;
use super::interruption::Interruption;
use super::process::SupervisorProcess;
use crate::client::Client;
use crate::daemon::{self, FleetPaths};
use crate::model::{AgentId, CommitId, Ending, ProjectId};
use crate::ports::Runtime as _;
use crate::runtime::docker::DockerRuntime;
use crate::telemetry;
use crate::testing::sample::{self, SampleError};
use crate::testing::scripted_model::{Limits, Script, ScriptedModel};

/// What the scripted model streams between two pieces of an answer, in milliseconds.
pub(in crate::cli) const CHUNK_MS: u64 = 20;

/// The first start builds the image, which may take minutes on a slow network.
const FIRST_START: Duration = Duration::from_secs(3600);

/// To stop the agents and to end.
const END: Duration = Duration::from_secs(120);

type MakeRepository = Box<dyn FnOnce(&Path) -> std::result::Result<CommitId, SampleError>>;

/// What is put on a stage.
pub(in crate::cli) struct Setting {
    /// Everything of the stage lies in it: `sample.git`, `config`, `state`.
    pub(in crate::cli) directory: TempDir,
    pub(in crate::cli) project: ProjectId,
    /// Makes the repository at a path.
    pub(in crate::cli) repository: MakeRepository,
    pub(in crate::cli) script: Arc<dyn Script>,
    /// Logins that only the scripted model takes: the last six characters of each one's token.
    pub(in crate::cli) credentials: Vec<String>,
    /// Keys put over those of the usual `orchestrator.json`.
    pub(in crate::cli) config: Value,
    /// Arguments for the supervisor's process.
    pub(in crate::cli) arguments: Vec<String>,
}

impl Setting {
    /// A directory of its own, and a project named after it: `demo-` and six letters.
    pub(in crate::cli) fn new(name: &str, script: Arc<dyn Script>) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix(&format!("orchestrator-{name}-"))
            .tempdir()
            .map_err(|error| {
                Error::io(format!("cannot create a directory for the {name}"), &error)
            })?;
        Ok(Self {
            project: project_name(name, directory.path()),
            directory,
            repository: Box::new(sample::create),
            script,
            credentials: vec![credential_end(1), credential_end(2)],
            config: json!({}),
            arguments: Vec::new(),
        })
    }

    pub(in crate::cli) fn state(&self) -> PathBuf {
        state_directory(self.directory.path())
    }
}

pub(in crate::cli) struct Stage {
    pub(in crate::cli) directory: TempDir,
    pub(in crate::cli) config: Box<crate::config::Config>,
    pub(in crate::cli) runtime: DockerRuntime,
    pub(in crate::cli) engine: Engine,
    pub(in crate::cli) client: Client,
    pub(in crate::cli) model: ScriptedModel,
    /// Reaches the limits of credentials.
    pub(in crate::cli) limits: Limits,
    pub(in crate::cli) supervisor: SupervisorProcess,
}

/// The last six characters of a credential's token: all that is kept of it anywhere.
pub(in crate::cli) fn credential_end(number: usize) -> String {
    format!("login{number}")
}

impl Stage {
    /// Sets everything up and starts the supervisor.
    pub(in crate::cli) async fn set(setting: Setting) -> Result<Self> {
        let runtime = wiring::connect().await.map_err(wiring::prerequisite)?;
        let project = setting.project.clone();
        let set = Self::set_on(runtime.clone(), setting).await;
        if set.is_err() {
            // What went wrong is worth more than what may go wrong now.
            let _ = runtime.remove_network(&project).await;
        }
        set
    }

    async fn set_on(runtime: DockerRuntime, setting: Setting) -> Result<Self> {
        let engine = Engine::of_environment()?;
        let (directory, project) = (setting.directory, setting.project);
        (setting.repository)(&repository(directory.path()))
            .map_err(|error| Error::new(Exit::Failure, "the sample repository").because(&error))?;
        // The model must be reachable from the containers: on their own bridge's address.
        let network = runtime
            .ensure_network(&project)
            .await
            .map_err(wiring::prerequisite)?;
        let limits = Limits::over(setting.script);
        let model = start_model(&network.gateway, Arc::new(limits.clone())).await?;
        let url = format!("http://{}", model.address);
        write_config(directory.path(), &project, &url, &setting.config)?;
        write_credentials(directory.path(), &setting.credentials)?;
        let config_directory = config_directory(directory.path());
        let settings = wiring::load(&config_directory, &[])?;
        let config = Box::new(settings.loaded.config);
        let state = &config.state_directory;
        let client = Client::unix(&FleetPaths::new(state).control_socket())?;
        let supervisor = SupervisorProcess::of(&config_directory, state, setting.arguments)?;
        let mut stage = Self {
            directory,
            config,
            runtime,
            engine,
            client,
            model,
            limits,
            supervisor,
        };
        stage.supervisor.start(FIRST_START).await?;
        Ok(stage)
    }

    pub(in crate::cli) fn repository(&self) -> PathBuf {
        repository(self.directory.path())
    }

    pub(in crate::cli) fn socket(&self) -> String {
        daemon::tmux_socket_name(&self.config)
    }

    pub(in crate::cli) fn invitation(&self) -> String {
        let (project, socket) = (&self.config.project, self.socket());
        format!(
            "`{project}` is up. Watch it from another terminal:\n  \
             orchestrator attach worker-1 --project {project}     (or: tmux -L {socket} attach)\n  \
             orchestrator status --watch --project {project}"
        )
    }

    pub(in crate::cli) fn kept(&self) -> String {
        format!(
            "everything is kept in {} and the fleet runs on; Ctrl-C stops it",
            self.directory.path().display()
        )
    }

    /// With `--keep`: until a person ends it, here or with `down`. The files stay.
    pub(in crate::cli) async fn wait_for_the_end(
        mut self,
        interruption: &mut Interruption,
    ) -> Result<()> {
        let ended = tokio::select! {
            ended = self.supervisor.until_ended(None) => ended,
            () = interruption.came() => self.end().await,
        };
        self.model.stop().await;
        let kept = self.directory.keep();
        output::say(&format!("the files are in {}", kept.display()));
        ended
    }

    /// Stops the agents and the supervisor: containers, network, tmux server. The files stay.
    pub(in crate::cli) async fn end(&mut self) -> Result<()> {
        self.client.end(Ending::Stop).await?;
        self.supervisor.until_ended(Some(END)).await
    }

    /// Ends the fleet and removes what the demo made: containers, network, tmux server, files.
    pub(in crate::cli) async fn strike(mut self) -> Result<()> {
        output::say("cleaning up");
        let ended = self.end().await;
        self.model.stop().await;
        ended?;
        let path = self.directory.path().to_owned();
        self.directory
            .close()
            .map_err(|error| Error::io(format!("cannot remove {}", path.display()), &error))
    }

    /// An agent's log, for people who look for what went wrong.
    pub(in crate::cli) fn log_of(&self, agent: &AgentId) -> PathBuf {
        telemetry::agent_log_path(&self.config.state_directory, agent)
    }
}

fn repository(directory: &Path) -> PathBuf {
    directory.join("sample.git")
}

fn config_directory(directory: &Path) -> PathBuf {
    directory.join("config")
}

fn state_directory(directory: &Path) -> PathBuf {
    directory.join("state")
}

/// The name, and the random end of the directory's name.
fn project_name(name: &str, directory: &Path) -> ProjectId {
    let last = directory
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or(name);
    let tail: String = last
        .chars()
        .rev()
        .take(6)
        .collect::<String>()
        .to_lowercase();
    ProjectId::new(format!("{name}-{tail}"))
}

async fn start_model(gateway: &str, script: Arc<dyn Script>) -> Result<ScriptedModel> {
    let address: SocketAddr = format!("{gateway}:0").parse().map_err(|error| {
        Error::new(Exit::Failure, "the network's gateway is no address").because(&error)
    })?;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| {
            Error::io(
                format!("cannot listen on {address} for the scripted model"),
                &error,
            )
        })?;
    ScriptedModel::start(listener, script)
        .map_err(|error| Error::io("cannot start the scripted model", &error))
}

/// A config directory as a user would write it.
fn write_config(directory: &Path, project: &ProjectId, model: &str, over: &Value) -> Result<()> {
    let config = config_directory(directory);
    let failed = |error| Error::io(format!("cannot write {}", config.display()), &error);
    fs::create_dir_all(&config).map_err(failed)?;
    let mut orchestrator = json!({
        "repositoryUrl": repository(directory),
        "branch": sample::BRANCH,
        "workerCount": sample::WORKERS,
        "claudeConfigs": "credentials/*.json",
        "environment": {"ANTHROPIC_BASE_URL": model},
        "project": project,
        "stateDirectory": state_directory(directory),
        "planning": {"coolDown": "5s"},
        "container": {"memory": "2GiB"},
        "stopGrace": "10s",
        "logs": {"level": "debug"},
    });
    for (key, value) in over.as_object().into_iter().flatten() {
        orchestrator[key] = value.clone();
    }
    write_private(&config.join("orchestrator.json"), &orchestrator).map_err(failed)
}

/// Logins of a plan with a 5-hour and a weekly window, without a refresh token: the scripted model
/// is all that ever sees them.
fn write_credentials(directory: &Path, ends: &[String]) -> Result<()> {
    let credentials = config_directory(directory).join("credentials");
    let failed = |error| Error::io(format!("cannot write {}", credentials.display()), &error);
    fs::create_dir_all(&credentials).map_err(failed)?;
    for end in ends {
        let login = json!({"claudeAiOauth": {
            "accessToken": format!("sk-ant-demo-0000000000000000000000-{end}"),
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
            "rateLimitTier": "default_claude_max_20x",
        }});
        write_private(&credentials.join(format!("{end}.json")), &login).map_err(failed)?;
    }
    Ok(())
}

fn write_private(path: &Path, value: &Value) -> std::io::Result<()> {
    fs::write(path, format!("{value:#}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}
