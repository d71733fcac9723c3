//! The one place where the command line touches the rooms that run in its own process:
//! configuration, credentials, runtime, git store, daemon.

pub(in crate::cli) mod board;
pub(in crate::cli) mod kept;
pub(in crate::cli) mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde_json::Value;

use super::credentials::PoolProblem;
use super::doctor::Check;
use super::error::Result;
use super::{Error, Exit, output};
use crate::config::{self, Config, GatePlace, Inputs, Loaded};
use crate::credentials::{self, Logins, Pool};
use crate::daemon::{
    self, DaemonError, FleetPaths, RunOptions, Signals, SystemClock, SystemEntropy,
};
use crate::model::{AgentId, CredentialView, Ending, LoggedGate, ProjectId, Timestamp, Windows};
use crate::ports::{ErrorKind, PortError, PortResult, Runtime as _};
use crate::runtime::docker::DockerRuntime;
use crate::runtime::tmux::TmuxPanes;
use crate::runtime::view;
use crate::telemetry::{self, Output, Redactor, Rotation, Verbosity};

/// A larger task list is not read.
const MAX_TASK_LIST_BYTES: usize = 1024 * 1024;

/// A configuration without problems, and what follows from it.
#[derive(Debug)]
pub struct Settings {
    pub loaded: Loaded,
    pub control_socket: PathBuf,
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
    Ok(Settings {
        control_socket: loaded.config.state_directory.join("control.sock"),
        loaded,
    })
}

/// The JSON Schema of `orchestrator.json`.
pub fn schema() -> Value {
    config::schema()
}

/// Runs the supervisor until its end. `clock_offset`: see [`SystemClock::with_offset_file`].
pub async fn run_supervisor(
    settings: Settings,
    mode: Mode,
    registry: Option<&Path>,
    clock_offset: Option<PathBuf>,
) -> Result<Exit> {
    let config = settings.loaded.config;
    let redactor = Redactor::new([]);
    set_up_logging(&config, &redactor)?;
    let signals =
        Signals::install().map_err(|error| Error::io("cannot install signal handlers", &error))?;
    let pool = load_pool(&config);
    let runtime = connect().await.map_err(prerequisite)?;
    let project = config.project.clone();
    let mut options = options(&config, runtime, registry, redactor, Some(signals))?;
    if let Some(file) = clock_offset {
        options.clock = Arc::new(SystemClock::with_offset_file(file));
    }
    if mode == Mode::Foreground {
        let socket = daemon::tmux_socket_name(&config);
        output::say(&format!(
            "watch an agent: orchestrator attach worker-1   (or: tmux -L {socket} attach)"
        ));
    }
    let ended = Box::pin(daemon::run(config, pool, options))
        .await
        .map_err(daemon_error)?;
    output::say(&match ended.ending {
        Ending::Stop => format!("`{project}` is stopped; its work and conversations are kept"),
        Ending::Detach | Ending::Drain => {
            format!("detached; the agents of `{project}` go on, and the next start adopts them")
        }
    });
    Ok(Exit::Done)
}

/// The ports of a real run. The panes run this program's own `view`.
pub(super) fn options(
    config: &Config,
    runtime: DockerRuntime,
    registry: Option<&Path>,
    redactor: Redactor,
    signals: Option<Signals>,
) -> Result<RunOptions> {
    let socket = daemon::tmux_socket_name(config);
    let program = std::env::current_exe()
        .map_err(|error| Error::io("cannot find this program's own file", &error))?;
    Ok(RunOptions {
        runtime: Arc::new(runtime),
        panes: Arc::new(TmuxPanes::new(socket.clone(), config.project.clone())),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        tmux_socket: socket,
        view_command: view_command(&program, &config.project),
        registry: registry.map(Path::to_owned),
        redactor,
        signals,
        progress: Arc::new(output::say),
    })
}

/// What a pane runs, without the agent's name: the small program beside this one, of which there is one
/// in memory for each agent. Where it is not installed, and for developers, whose `cargo run` builds this
/// one alone, this program itself.
fn view_command(program: &Path, project: &ProjectId) -> Vec<String> {
    let small = program.with_file_name("orchestrator-view");
    let project = project.to_string();
    if !cfg!(debug_assertions) && small.is_file() {
        return vec![small.display().to_string(), project];
    }
    let program = program.display().to_string();
    vec![program, "--project".into(), project, "view".into()]
}

/// People get progress lines; everything else goes to the supervisor's log, one JSON object a line.
fn set_up_logging(config: &Config, redactor: &Redactor) -> Result<()> {
    let target = Output::File {
        path: telemetry::supervisor_log_path(&config.state_directory),
        rotation: Rotation {
            max_bytes: config.logs.size,
            keep: config.logs.files,
        },
    };
    let level = config.logs.level.as_str();
    let verbosity = Verbosity::Filter(format!("warn,orchestrator={level}"));
    telemetry::init(&target, &verbosity, redactor)
        .map_err(|error| Error::new(Exit::Failure, "logging cannot be set up").because(&error))
}

/// Which build of the program this is; `None` where its own file cannot be read.
pub(super) async fn own_build() -> Result<Option<String>> {
    match tokio::task::spawn_blocking(daemon::own_build).await {
        Ok(build) => Ok(build.ok()),
        Err(error) => Err(Error::new(Exit::Failure, "a blocking task ended early").because(&error)),
    }
}

/// Could a supervisor of this program start on these settings? See [`daemon::preflight`].
pub(super) async fn preflight(settings: &Settings) -> Result<()> {
    let config = &settings.loaded.config;
    let pool = load_pool(config);
    let runtime = connect().await.map_err(prerequisite)?;
    daemon::preflight(config, &pool, &runtime, &output::say)
        .await
        .map_err(daemon_error)
}

pub(super) fn load_pool(config: &Config) -> Pool {
    let now = Timestamp(jiff::Timestamp::now().as_millisecond());
    let logins = Logins::new(&config.state_directory);
    credentials::load_pool(&config.claude_configs, now, &logins)
}

/// An error of the daemon, with the exit code for what the user can do about it.
pub(super) fn daemon_error(error: DaemonError) -> Error {
    let exit = match &error {
        DaemonError::AlreadyRunning(_) => Exit::AlreadyRunning,
        DaemonError::NoCredential { .. } => Exit::Usage,
        DaemonError::Prerequisite { .. } if error.is_prerequisite() => Exit::Prerequisite,
        DaemonError::Door { .. } | DaemonError::Newer { .. } => Exit::Prerequisite,
        DaemonError::Prerequisite { .. } | DaemonError::Io { .. } | DaemonError::State { .. } => {
            Exit::Failure
        }
    };
    let mut told = Error::new(exit, error.to_string());
    if let Some(cause) = std::error::Error::source(&error) {
        told = told.because(cause);
    }
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// The engine is not there, or not for us.
pub(super) fn prerequisite(error: PortError) -> Error {
    let mut told = port_error(error);
    told.exit = Exit::Prerequisite;
    told
}

/// Shows an agent's terminal in this one, until the pane is closed.
pub async fn view(project: &ProjectId, agent: &AgentId) -> Result<Exit> {
    let runtime = connect().await.map_err(port_error)?;
    let options = view::ViewOptions::new(project.clone(), agent.clone());
    view::run(Arc::new(runtime), options)
        .await
        .map_err(port_error)?;
    Ok(Exit::Done)
}

/// What a container's terminal showed: the last `tail` lines, then live with `follow`.
pub async fn terminal_log(
    container: &str,
    tail: usize,
    follow: bool,
) -> Result<BoxStream<'static, PortResult<Bytes>>> {
    let runtime = connect().await.map_err(port_error)?;
    runtime
        .logs(container, Some(tail), follow)
        .await
        .map_err(port_error)
}

/// The pool as its files are: what is known of each without a supervisor, and what is wrong.
pub fn pool_on_disk(settings: &Settings) -> (Vec<CredentialView>, Vec<PoolProblem>) {
    let pool = load_pool(&settings.loaded.config);
    let view = |credential: &credentials::Credential| CredentialView {
        id: credential.id.clone(),
        kind: credential.kind,
        plan: credential.plan.clone(),
        state: "unknown".to_owned(),
        reason: (!credential.notes.is_empty()).then(|| credential.notes.join("; ")),
        until: None,
        lent_to: Vec::new(),
        windows: Windows::default(),
        windows_at: None,
        expires_at: credential.expires_at,
        refreshed_at: None,
    };
    let problem = |problem: &credentials::CredentialProblem| PoolProblem {
        text: problem.to_string(),
        hint: Some(problem.hint.clone()),
    };
    (
        pool.credentials.iter().map(view).collect(),
        pool.problems.iter().map(problem).collect(),
    )
}

/// Can every credential file be read, and what is it?
pub fn check_credentials(settings: &Settings) -> Vec<Check> {
    let name = "credentials";
    let pool = load_pool(&settings.loaded.config);
    let usable = pool.credentials.len();
    let mut checks = Vec::new();
    for credential in &pool.credentials {
        let detail = format!("{} ({})", credential.id, credential.kind.as_str());
        checks.push(if credential.notes.is_empty() {
            Check::ok(name, detail)
        } else {
            let notes = credential.notes.join("; ");
            Check::warn(name, format!("{detail}: {notes}"), "look at the file")
        });
    }
    for problem in &pool.problems {
        let detail = problem.to_string();
        // With one that works the fleet runs.
        checks.push(if usable == 0 {
            Check::fail(name, detail, &problem.hint)
        } else {
            Check::warn(name, detail, &problem.hint)
        });
    }
    checks
}

/// The task lists on the branch in the git store, as (file name, bytes); `None` while there is no
/// store. Nothing is fetched and nothing written.
pub fn task_lists(settings: &Settings) -> Option<Vec<(String, Vec<u8>)>> {
    let config = &settings.loaded.config;
    let store = git2::Repository::open_bare(config.state_directory.join("store.git")).ok()?;
    let branch = format!("refs/heads/{}", config.branch);
    let tree = store.find_reference(&branch).ok()?.peel_to_tree().ok()?;
    let lists = (1..=config.worker_count).filter_map(|worker| {
        let name = format!("WORKER_{worker}_TASK_LIST.md");
        let blob = store.find_blob(tree.get_name(&name)?.id()).ok()?;
        (blob.size() <= MAX_TASK_LIST_BYTES).then(|| (name, blob.content().to_vec()))
    });
    Some(lists.collect())
}

/// The gates whose runs are kept in a state directory, newest first.
pub fn gate_runs(state: &Path) -> Result<Vec<LoggedGate>> {
    let gates = FleetPaths::new(state).gates();
    daemon::logged_runs(&gates)
        .map_err(|error| Error::io(format!("cannot read {}", gates.display()), &error))
}

/// What a gate printed; `None` when there is no such log.
pub fn gate_log(state: &Path, id: &str) -> Result<Option<Vec<u8>>> {
    let gates = FleetPaths::new(state).gates();
    daemon::read_log(&gates, id)
        .map_err(|error| Error::io(format!("cannot read the log {id}"), &error))
}

/// Are the images of gates on this machine?
pub async fn check_gate_images(settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    // The check of the engine says so.
    let Ok(runtime) = connect().await else {
        return checks;
    };
    for gate in &settings.loaded.config.gates {
        let GatePlace::Image(image) = &gate.place else {
            continue;
        };
        let name = format!("gate {}", gate.name);
        checks.push(match runtime.image_id(image).await {
            Ok(Some(_)) => Check::ok(&name, format!("its image {image} is on this machine")),
            Ok(None) => Check::warn(
                &name,
                format!("its image {image} is not on this machine; it is pulled when it is needed"),
                format!("docker pull {image}"),
            ),
            Err(error) => Check::warn(&name, error.chain(), "see the check of the engine"),
        });
    }
    checks
}

/// The container engine's name and version, or why it does not answer and what to do.
pub async fn probe_engine() -> std::result::Result<String, (String, Option<String>)> {
    let told = |error: PortError| (error.chain(), error.hint);
    let info = connect().await.map_err(told)?.probe().await.map_err(told)?;
    Ok(format!(
        "{} {} (API {})",
        info.name, info.version, info.api_version
    ))
}

pub(super) async fn connect() -> PortResult<DockerRuntime> {
    DockerRuntime::connect(std::env::var("DOCKER_HOST").ok().as_deref()).await
}

/// An error of a port, as the command line tells it.
pub fn port_error(error: PortError) -> Error {
    let exit = match error.kind {
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::AlreadyExists => Exit::AlreadyRunning,
        ErrorKind::Refused => Exit::Refused,
        ErrorKind::Transient | ErrorKind::Broken => Exit::Failure,
    };
    let mut told = Error::new(exit, &error.message);
    if let Some(source) = &error.source {
        told = told.because(source.as_ref());
    }
    match error.hint {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::doctor::Outcome;

    /// A real configuration, loaded from `root`.
    pub(in crate::cli) fn settings(root: &Path, branch: &str) -> Settings {
        let directory = root.join("config");
        std::fs::create_dir_all(&directory).unwrap();
        let document = serde_json::json!({
            "repositoryUrl": "https://example.com/r.git",
            "workerCount": 2,
            "claudeConfigs": root.join("credentials/*.json"),
            "branch": branch,
            "stateDirectory": root.join("state"),
        });
        std::fs::write(directory.join("orchestrator.json"), document.to_string()).unwrap();
        load(&directory, &[]).unwrap()
    }

    #[test]
    fn problems_of_a_configuration_come_all_at_once_with_code_two() {
        let root = tempfile::tempdir().unwrap();
        let text = "{ \"workerCount\": 0, \"brunch\": 1 }";
        std::fs::write(root.path().join("orchestrator.json"), text).unwrap();
        let error = load(root.path(), &[]).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        let said = error.render();
        for word in ["workerCount", "brunch", "repositoryUrl", "claudeConfigs"] {
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_pool_without_a_credential_is_a_failure_and_secrets_are_not_shown() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path(), "main");
        let none = check_credentials(&settings);
        assert!(!none.is_empty());
        assert!(none.iter().all(|check| check.outcome == Outcome::Fail));
        let directory = root.path().join("credentials");
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("team.json");
        let text = r#"{"env": {"ANTHROPIC_API_KEY": "sk-ant-api03-very-secret-indeed"}}"#;
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
        let one = check_credentials(&settings);
        assert_eq!(one.len(), 1, "{one:?}");
        assert!(one[0].detail.starts_with("team"), "{one:?}");
        assert_ne!(one[0].outcome, Outcome::Fail);
        assert!(!format!("{one:?}").contains("secret"));
    }

    #[test]
    fn task_lists_are_read_from_the_store_once_there_is_one() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path(), "main");
        assert_eq!(task_lists(&settings), None);
        let store = root.path().join("state/store.git");
        let repository = git2::Repository::init_bare(store).unwrap();
        let blob = repository.blob(b"- [ ] one\n").unwrap();
        let mut tree = repository.treebuilder(None).unwrap();
        tree.insert("WORKER_2_TASK_LIST.md", blob, 0o100_644)
            .unwrap();
        let tree = repository.find_tree(tree.write().unwrap()).unwrap();
        let who = git2::Signature::now("a", "a@localhost").unwrap();
        repository
            .commit(Some("refs/heads/main"), &who, &who, "first", &tree, &[])
            .unwrap();
        let lists = task_lists(&settings).unwrap();
        let expected = ("WORKER_2_TASK_LIST.md".to_owned(), b"- [ ] one\n".to_vec());
        assert_eq!(lists, [expected]);
    }
}
