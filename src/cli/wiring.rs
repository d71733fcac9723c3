//! The one place where the command line touches the rooms that run in its own process:
//! configuration, credentials, runtime, store of git objects, daemon, demo.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::doctor::Check;
use super::error::Result;
use super::output;
use super::{Error, Exit};
use crate::config::{self, Config, Inputs};
use crate::credentials::{self, Pool};
use crate::daemon::{
    self, DaemonError, RunOptions, Signals, SystemClock, SystemEntropy, task_list_file,
};
use crate::model::{AgentId, Ending, ProjectId};
use crate::ports::{Clock as _, PortError, Runtime as _};
use crate::runtime::docker::DockerRuntime;
use crate::runtime::tmux::TmuxPanes;
use crate::runtime::view::{self, ViewOptions};
use crate::telemetry::{self, Output, Redactor, Rotation, Verbosity};
use crate::worktree::{GitStore, Identity, read_beneath};

/// What the commands use of a valid configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config_directory: PathBuf,
    pub project: ProjectId,
    pub state_directory: PathBuf,
    pub control_socket: PathBuf,
    /// With any password in it: never printed, handed to git through its environment.
    pub repository_url: String,
    pub branch: String,
    /// 0: any free port.
    pub api_port: u16,
    /// The whole configuration as JSON, without secrets.
    pub shown: Value,
    /// Dotted key → where its value comes from, in words.
    pub origins: BTreeMap<String, String>,
    /// Complete lines for stderr.
    pub warnings: Vec<String>,
    /// The configuration itself; `None` only in tests of single checks.
    pub config: Option<Box<Config>>,
}

/// How the supervisor was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In a terminal: short log lines on stderr, Ctrl-C asks for stop.
    Foreground,
    /// By `up -d`: log lines as JSON into the state directory.
    Background,
}

/// Loads and checks the configuration; all problems at once, ready to print.
pub fn load(directory: &Path, overrides: &[(String, String)]) -> Result<Settings> {
    let uid = rustix::process::geteuid().as_raw();
    let inputs = Inputs::new(std::env::vars_os(), overrides.to_vec(), uid);
    let loaded = config::load(directory, &inputs)
        .map_err(|problems| Error::rendered(Exit::Usage, problems.to_string()))?;
    let rows = config::rows(&loaded);
    let config = loaded.config.clone();
    let paths = daemon::FleetPaths::new(&config.state_directory);
    Ok(Settings {
        config_directory: config.directory.clone(),
        project: config.project.clone(),
        state_directory: config.state_directory.clone(),
        control_socket: paths.control_socket(),
        repository_url: config.repository_url.clone(),
        branch: config.branch.clone(),
        api_port: config.api_port,
        shown: nested(
            rows.iter()
                .map(|row| (row.key.to_owned(), row.value.clone())),
        ),
        origins: rows
            .iter()
            .map(|row| (row.key.to_owned(), row.origin.to_string()))
            .collect(),
        warnings: loaded
            .warnings
            .iter()
            .map(config::Problem::as_warning)
            .collect(),
        config: Some(Box::new(config)),
    })
}

/// Dotted keys as nested objects.
fn nested(rows: impl Iterator<Item = (String, Value)>) -> Value {
    let mut root = serde_json::Map::new();
    for (key, value) in rows {
        match key.split_once('.') {
            None => {
                root.insert(key, value);
            }
            Some((section, name)) => {
                let inner = root
                    .entry(section.to_owned())
                    .or_insert_with(|| Value::Object(serde_json::Map::new()));
                if let Value::Object(inner) = inner {
                    inner.insert(name.to_owned(), value);
                }
            }
        }
    }
    Value::Object(root)
}

/// The JSON Schema of `orchestrator.json`.
pub fn schema() -> Value {
    config::schema()
}

/// Runs the supervisor until its end.
pub async fn run_supervisor(
    settings: Settings,
    mode: Mode,
    registry: Option<&Path>,
) -> Result<Exit> {
    let Some(config) = settings.config else {
        return Err(Error::new(
            Exit::Failure,
            "the configuration was not loaded",
        ));
    };
    let redactor = Redactor::new([]);
    set_up_logging(&config, mode, &redactor)?;
    let signals =
        Signals::install().map_err(|error| Error::io("cannot install signal handlers", &error))?;
    let pool = load_pool(&config);
    let runtime = DockerRuntime::connect(docker_host().as_deref())
        .await
        .map_err(|error| {
            port_error(
                Exit::Prerequisite,
                "the container engine cannot be reached",
                &error,
            )
        })?;
    let project = config.project.clone();
    let options = options(
        &config,
        Arc::new(runtime),
        registry,
        redactor,
        Some(signals),
    )?;
    if mode == Mode::Foreground {
        let socket = daemon::tmux_socket_name(&config);
        output::say(&format!(
            "watch an agent: orchestrator attach worker-1   (or tmux -L {socket} attach)"
        ));
    }
    let ended = daemon::run(*config, pool, options)
        .await
        .map_err(daemon_error)?;
    match ended.ending {
        Ending::Stop => output::say(&format!(
            "`{project}` is stopped; its work and conversations are kept"
        )),
        Ending::Detach | Ending::Drain => {
            output::say(&format!(
                "detached; the agents of `{project}` go on, and the next start adopts them"
            ));
        }
    }
    Ok(Exit::Done)
}

/// The ports of a real run. The panes run this program's own `view`.
pub(super) fn options(
    config: &Config,
    runtime: Arc<DockerRuntime>,
    registry: Option<&Path>,
    redactor: Redactor,
    signals: Option<Signals>,
) -> Result<RunOptions> {
    let socket = daemon::tmux_socket_name(config);
    let program = std::env::current_exe()
        .map_err(|error| Error::io("cannot find this program's own file", &error))?;
    Ok(RunOptions {
        runtime,
        panes: Arc::new(TmuxPanes::new(socket.clone(), config.project.clone())),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        tmux_socket: socket,
        view_command: vec![
            program.display().to_string(),
            "--project".to_owned(),
            config.project.to_string(),
            "view".to_owned(),
        ],
        registry: registry.map(Path::to_owned),
        redactor,
        signals,
        progress: Arc::new(output::say),
    })
}

fn set_up_logging(config: &Config, mode: Mode, redactor: &Redactor) -> Result<()> {
    let rotation = Rotation {
        max_bytes: config.logs.size,
        keep: config.logs.files,
    };
    let target = match mode {
        // People get the progress lines; the log file gets everything.
        Mode::Foreground | Mode::Background => Output::File {
            path: telemetry::supervisor_log_path(&config.state_directory),
            rotation,
        },
    };
    let verbosity = Verbosity::Filter(format!("warn,orchestrator={}", config.logs.level));
    telemetry::init(&target, &verbosity, redactor)
        .map_err(|error| Error::new(Exit::Failure, "logging cannot be set up").because(&error))
}

pub(super) fn load_pool(config: &Config) -> Pool {
    credentials::load_pool(&config.claude_configs, SystemClock::new().now())
}

/// As the Docker CLI takes it.
pub(super) fn docker_host() -> Option<String> {
    std::env::var("DOCKER_HOST")
        .ok()
        .filter(|host| !host.is_empty())
}

pub(super) fn daemon_error(error: DaemonError) -> Error {
    let exit = match &error {
        DaemonError::AlreadyRunning(_) => Exit::AlreadyRunning,
        DaemonError::NoCredential { .. } => Exit::Usage,
        DaemonError::Prerequisite { .. } if error.is_prerequisite() => Exit::Prerequisite,
        DaemonError::Door { .. } => Exit::Prerequisite,
        DaemonError::Prerequisite { .. } | DaemonError::Io { .. } | DaemonError::State { .. } => {
            Exit::Failure
        }
    };
    let shown = Error::new(exit, error.to_string());
    let shown = match std::error::Error::source(&error) {
        Some(cause) => shown.because(cause),
        None => shown,
    };
    match error.hint() {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

fn port_error(exit: Exit, what: &str, error: &PortError) -> Error {
    let shown = Error::new(exit, what).because(error);
    match &error.hint {
        Some(hint) => shown.hint(hint.clone()),
        None => shown,
    }
}

/// Shows an agent's terminal in this one, until the pane is closed.
pub async fn view(project: &ProjectId, agent: &AgentId) -> Result<Exit> {
    let runtime = DockerRuntime::connect(docker_host().as_deref())
        .await
        .map_err(|error| {
            port_error(
                Exit::Prerequisite,
                "the container engine cannot be reached",
                &error,
            )
        })?;
    let options = ViewOptions::new(project.clone(), agent.clone());
    view::run(Arc::new(runtime), options)
        .await
        .map_err(|error| port_error(Exit::Failure, "the view ended", &error))?;
    Ok(Exit::Done)
}

/// Can every credential file be read, and what is it?
pub fn check_credentials(settings: &Settings) -> Vec<Check> {
    let Some(config) = &settings.config else {
        return Vec::new();
    };
    let pool = load_pool(config);
    let mut checks: Vec<Check> = pool
        .credentials
        .iter()
        .map(|credential| {
            let name = format!("credential {}", credential.id);
            let notes = credential.notes.join("; ");
            let detail = if notes.is_empty() {
                credential.kind.as_str().to_owned()
            } else {
                format!("{}; {notes}", credential.kind.as_str())
            };
            Check::ok(&name, detail)
        })
        .collect();
    checks.extend(
        pool.problems
            .iter()
            .map(|problem| Check::fail("credential", problem.to_string(), problem.hint.clone())),
    );
    if pool.credentials.is_empty() && pool.problems.is_empty() {
        checks.push(Check::fail(
            "credentials",
            format!("no file matches {}", config.claude_configs),
            "put Claude Code settings.json or .credentials.json files there, with mode 600",
        ));
    }
    checks
}

/// The task lists as (file name, bytes): in the manager's checkout, else on the branch in the
/// store; `None` while there is neither.
pub fn task_lists(settings: &Settings) -> Option<Vec<(String, Vec<u8>)>> {
    const LIMIT: usize = 1024 * 1024;
    let config = settings.config.as_ref()?;
    let paths = daemon::FleetPaths::new(&config.state_directory);
    let checkout = paths.agent(&AgentId::manager()).checkout();
    let names = (1..=config.worker_count).map(task_list_file);
    if checkout.is_dir() {
        let found = names.filter_map(|name| {
            let bytes = read_beneath(&checkout, Path::new(&name), LIMIT).ok()?;
            Some((name, bytes))
        });
        return Some(found.collect());
    }
    if !paths.store().is_dir() {
        return None;
    }
    let identity = Identity {
        name: config.git.name.clone(),
        email: config.git.email.clone(),
    };
    let store = GitStore::open_or_clone(
        &paths.store(),
        &config.repository_url,
        &config.branch,
        identity,
        &|_| {},
    )
    .ok()?;
    let head = store.branch_head().ok()?;
    let found = names.filter_map(|name| {
        let bytes = store.read_file(&head, &name, LIMIT).ok()??;
        Some((name, bytes))
    });
    Some(found.collect())
}

/// The container engine's name and version, or why it does not answer.
pub async fn probe_engine() -> std::result::Result<String, String> {
    let runtime = DockerRuntime::connect(docker_host().as_deref())
        .await
        .map_err(|error| error.chain())?;
    let info = runtime.probe().await.map_err(|error| error.chain())?;
    Ok(format!(
        "{} {} (API {})",
        info.name, info.version, info.api_version
    ))
}
