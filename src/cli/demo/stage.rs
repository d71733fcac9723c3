//! What a demo needs: a sample repository, the scripted model, a config directory, a supervisor.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::super::error::Result;
use super::super::{Error, Exit, output, wiring};
use super::DemoArgs;
use crate::client::Client;
use crate::daemon::{self, DaemonError, Ended, FleetPaths, Signals};
use crate::model::{AgentId, Ending, ProjectId};
use crate::ports::Runtime as _;
use crate::runtime::docker::DockerRuntime;
use crate::telemetry::{self, Output, Redactor, Rotation, Verbosity};
use crate::testing::sample;
use crate::testing::scripted_model::{Pacing, ScriptedModel};

/// What the scripted model streams between two pieces of an answer, in milliseconds.
const CHUNK_MS: u64 = 20;

pub(super) struct Stage {
    pub(super) directory: TempDir,
    pub(super) config: Box<crate::config::Config>,
    pub(super) runtime: DockerRuntime,
    pub(super) client: Client,
    pub(super) model: ScriptedModel,
    supervisor: JoinHandle<std::result::Result<Ended, DaemonError>>,
}

impl Stage {
    /// Sets everything up and starts the supervisor in this process.
    pub(super) async fn set(args: &DemoArgs, registry: Option<&Path>) -> Result<Self> {
        let signals = Signals::install()
            .map_err(|error| Error::io("cannot install signal handlers", &error))?;
        let runtime = wiring::connect().await.map_err(wiring::prerequisite)?;
        let directory = tempfile::Builder::new()
            .prefix("orchestrator-demo-")
            .tempdir()
            .map_err(|error| Error::io("cannot create a directory for the demo", &error))?;
        let project = project_name(directory.path());
        sample::create(&repository(directory.path()))
            .map_err(|error| Error::new(Exit::Failure, "the sample repository").because(&error))?;
        // The model must be reachable from the containers: on their own bridge's address.
        let network = runtime
            .ensure_network(&project)
            .await
            .map_err(wiring::prerequisite)?;
        let model = start_model(&network.gateway, args).await?;
        write_config(
            directory.path(),
            &project,
            &format!("http://{}", model.address),
        )?;
        let settings = wiring::load(&config_directory(directory.path()), &[])?;
        let config = Box::new(settings.loaded.config);
        let redactor = Redactor::new([]);
        set_up_logging(&config, &redactor)?;
        let pool = wiring::load_pool(&config);
        let options = wiring::options(&config, runtime.clone(), registry, redactor, Some(signals))?;
        let client = Client::unix(&FleetPaths::new(&config.state_directory).control_socket())?;
        let supervisor = tokio::spawn(daemon::run((*config).clone(), pool, options));
        let mut stage = Self {
            directory,
            config,
            runtime,
            client,
            model,
            supervisor,
        };
        stage.wait_until_up().await?;
        Ok(stage)
    }

    /// Until the control socket answers. The first time, the image is built meanwhile.
    async fn wait_until_up(&mut self) -> Result<()> {
        const LOOK: std::time::Duration = std::time::Duration::from_millis(100);
        loop {
            if self.client.health().await.is_ok() {
                return Ok(());
            }
            tokio::select! {
                ended = &mut self.supervisor => return Err(ended_early(ended)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    pub(super) fn repository(&self) -> PathBuf {
        repository(self.directory.path())
    }

    pub(super) fn socket(&self) -> String {
        daemon::tmux_socket_name(&self.config)
    }

    pub(super) fn invitation(&self) -> String {
        let (project, socket) = (&self.config.project, self.socket());
        format!(
            "`{project}` is up. Watch it from another terminal:\n  \
             orchestrator attach worker-1 --project {project}     (or: tmux -L {socket} attach)\n  \
             orchestrator status --watch --project {project}"
        )
    }

    pub(super) fn kept(&self) -> String {
        format!(
            "everything is kept in {} and the fleet runs on; Ctrl-C stops it",
            self.directory.path().display()
        )
    }

    /// With `--keep`: until a person ends it. The files stay.
    pub(super) async fn wait_for_the_end(self) -> Result<()> {
        let ended = self.supervisor.await;
        self.model.stop().await;
        let kept = self.directory.keep();
        output::say(&format!("the files are in {}", kept.display()));
        match ended {
            Ok(Ok(_)) => Ok(()),
            other => Err(ended_early(other)),
        }
    }

    /// Ends the fleet and removes what the demo made: containers, network, tmux server, files.
    pub(super) async fn strike(self) -> Result<()> {
        output::say("cleaning up");
        self.client.end(Ending::Stop).await?;
        let ended = self.supervisor.await;
        self.model.stop().await;
        match ended {
            Ok(Ok(_)) => {}
            other => return Err(ended_early(other)),
        }
        let path = self.directory.path().to_owned();
        self.directory
            .close()
            .map_err(|error| Error::io(format!("cannot remove {}", path.display()), &error))
    }

    /// The manager's log, for people who look for what went wrong.
    pub(super) fn log_of(&self, agent: &AgentId) -> PathBuf {
        telemetry::agent_log_path(&self.config.state_directory, agent)
    }
}

fn repository(directory: &Path) -> PathBuf {
    directory.join("sample.git")
}

fn config_directory(directory: &Path) -> PathBuf {
    directory.join("config")
}

/// `demo-` and the random end of the directory's name.
fn project_name(directory: &Path) -> ProjectId {
    let name = directory
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("demo");
    let tail: String = name
        .chars()
        .rev()
        .take(6)
        .collect::<String>()
        .to_lowercase();
    ProjectId::new(format!("demo-{tail}"))
}

async fn start_model(gateway: &str, args: &DemoArgs) -> Result<ScriptedModel> {
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
    let think = u64::try_from(args.think.as_millis()).unwrap_or(u64::MAX);
    let script = sample::demo_script().paced(Pacing {
        first_ms: think,
        chunk_ms: CHUNK_MS,
    });
    ScriptedModel::start(listener, script.script())
        .map_err(|error| Error::io("cannot start the scripted model", &error))
}

/// A config directory as a user would write it, with two credentials that only the scripted model takes.
fn write_config(directory: &Path, project: &ProjectId, model: &str) -> Result<()> {
    let config = config_directory(directory);
    let credentials = config.join("credentials");
    let failed = |error| Error::io(format!("cannot write {}", config.display()), &error);
    fs::create_dir_all(&credentials).map_err(failed)?;
    let orchestrator = json!({
        "repositoryUrl": repository(directory),
        "branch": sample::BRANCH,
        "workerCount": sample::WORKERS,
        "claudeConfigs": "credentials/*.json",
        "project": project,
        "stateDirectory": directory.join("state"),
        "planning": {"coolDown": "5s"},
        "container": {"memory": "2GiB"},
        "stopGrace": "10s",
    });
    write_private(&config.join("orchestrator.json"), &orchestrator).map_err(failed)?;
    for name in ["first", "second"] {
        let settings = json!({"env": {
            "ANTHROPIC_BASE_URL": model,
            "ANTHROPIC_API_KEY": format!("sk-ant-demo-0000000000000000000000-{name}"),
        }});
        write_private(&credentials.join(format!("{name}.json")), &settings).map_err(failed)?;
    }
    Ok(())
}

fn write_private(path: &Path, value: &serde_json::Value) -> std::io::Result<()> {
    fs::write(path, format!("{value:#}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

fn set_up_logging(config: &crate::config::Config, redactor: &Redactor) -> Result<()> {
    let path = telemetry::supervisor_log_path(&config.state_directory);
    let output = Output::File {
        path,
        rotation: Rotation::default(),
    };
    telemetry::init(&output, &Verbosity::Debug, redactor)
        .map_err(|error| Error::new(Exit::Failure, "logging cannot be set up").because(&error))
}

fn ended_early(
    ended: std::result::Result<std::result::Result<Ended, DaemonError>, tokio::task::JoinError>,
) -> Error {
    match ended {
        Ok(Ok(_)) => Error::new(
            Exit::Failure,
            "the supervisor was ended before the demo was over",
        ),
        Ok(Err(error)) => wiring::daemon_error(error),
        Err(error) => Error::new(Exit::Failure, "the supervisor ended badly").because(&error),
    }
}
