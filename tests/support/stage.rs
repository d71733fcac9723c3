//! The stage: directory, remote repository, model, configuration, and the binary itself.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;

use orchestrator::model::ProjectId;
use orchestrator::model::view::{AgentView, FleetView};
use orchestrator::ports::Runtime as _;
use orchestrator::runtime::docker::DockerRuntime;
use orchestrator::testing::scripted_model::{RequestKind, RequestRecord, Scenario, ScriptedModel};
use serde_json::{Value, json};

use super::LONG;
use super::run::{Ran, eventually};
use super::script::{Heard, Listening, Provider, worker_script};

/// One test at a time starts containers.
static TURN: Mutex<()> = Mutex::new(());

/// Shown by nothing; looked for in everything.
pub const SECRET: &str = "sk-ant-e2e-0000000000000000-very-secret";

/// What a test wants to be different.
pub struct Setup {
    pub workers: u32,
    pub scenario: Scenario,
    /// Files of the first commit, beside a README and a `.gitignore`.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Keys put over those of the usual `orchestrator.json`.
    pub config: Value,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            workers: 1,
            scenario: worker_script(),
            files: Vec::new(),
            config: json!({}),
        }
    }
}

pub struct Stage {
    pub project: String,
    root: tempfile::TempDir,
    tokio: tokio::runtime::Runtime,
    model: Option<ScriptedModel>,
    pub heard: Heard,
    pub provider: Provider,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_what_happened();
        }
        self.clean_up();
        if let Some(model) = self.model.take() {
            self.tokio.block_on(model.stop());
        }
    }
}

impl Stage {
    pub fn set(setup: Setup) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let root = tempfile::Builder::new()
            .prefix("orc-e2e-")
            .tempdir()
            .unwrap();
        let name = root.path().file_name().unwrap().to_str().unwrap();
        let project = format!("e2e-{}", name.trim_start_matches("orc-e2e-").to_lowercase());
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        for directory in ["home", "run", "tmux", "config/credentials"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(root.path().join("run"), closed).unwrap();
        let mut stage = Self {
            project,
            root,
            tokio,
            model: None,
            heard: Heard::default(),
            provider: Provider::default(),
            _turn: turn,
        };
        stage.make_remote(&setup.files);
        let address = stage.start_model(setup.scenario);
        stage.write_config(&setup.config, setup.workers, &address);
        stage
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    pub fn config(&self) -> PathBuf {
        self.root().join("config")
    }

    pub fn remote(&self) -> PathBuf {
        self.root().join("remote.git")
    }

    pub fn checkout(&self, agent: &str) -> PathBuf {
        self.state().join("agents").join(agent).join("checkout")
    }

    pub fn model(&self) -> &ScriptedModel {
        self.model.as_ref().unwrap()
    }

    /// On a network of its own, whose address outlives the fleet's.
    fn start_model(&mut self, scenario: Scenario) -> String {
        let project = ProjectId::new(format!("{}-model", self.project));
        let heard = self.heard.clone();
        let provider = self.provider.clone();
        let script = Arc::new(Listening {
            scenario,
            provider,
            heard,
        });
        let model = self.tokio.block_on(async move {
            let docker = DockerRuntime::connect(None).await.unwrap();
            let network = docker.ensure_network(&project).await.unwrap();
            let listener = tokio::net::TcpListener::bind((network.gateway.as_str(), 0)).await;
            ScriptedModel::start(listener.unwrap(), script).unwrap()
        });
        let address = model.address.to_string();
        self.model = Some(model);
        address
    }

    fn write_config(&self, over: &Value, workers: u32, model: &str) {
        let mut config = json!({
            "repositoryUrl": self.remote(),
            "workerCount": workers,
            "claudeConfigs": "credentials/*.json",
            "project": self.project,
            "stateDirectory": self.state(),
            "planning": {"coolDown": "5s"},
            "container": {"memory": "2GiB"},
            "stopGrace": "10s",
        });
        for (key, value) in over.as_object().unwrap() {
            config[key] = value.clone();
        }
        let path = self.config().join("orchestrator.json");
        std::fs::write(path, format!("{config:#}\n")).unwrap();
        self.write_credential(
            "first",
            &json!({"env": {
                "ANTHROPIC_BASE_URL": format!("http://{model}"),
                "ANTHROPIC_API_KEY": format!("{SECRET}-first"),
            }}),
        );
    }

    /// Sets a key of the configuration; before the fleet is started.
    pub fn configure(&self, key: &str, value: Value) {
        let path = self.config().join("orchestrator.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(path, format!("{config:#}\n")).unwrap();
    }

    pub fn remove_credential(&self, name: &str) {
        let path = self.config().join(format!("credentials/{name}.json"));
        std::fs::remove_file(path).unwrap();
    }

    pub fn write_credential(&self, name: &str, value: &Value) {
        let path = self.config().join(format!("credentials/{name}.json"));
        std::fs::write(&path, value.to_string()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn make_remote(&self, files: &[(&str, Vec<u8>)]) {
        let remote = self.remote();
        let bare = [
            "init",
            "-q",
            "--bare",
            "-b",
            "main",
            remote.to_str().unwrap(),
        ];
        self.git(self.root(), &bare).ok();
        let seed = self.root().join("seed");
        std::fs::create_dir(&seed).unwrap();
        self.git(&seed, &["init", "-q", "-b", "main"]).ok();
        std::fs::write(seed.join("README.md"), "# Sample\n").unwrap();
        std::fs::write(seed.join(".gitignore"), ".gate-*\n").unwrap();
        for (name, bytes) in files {
            std::fs::write(seed.join(name), bytes).unwrap();
        }
        self.commit_all(&seed, "First");
        self.git(&seed, &["push", "-q", remote.to_str().unwrap(), "main"])
            .ok();
    }

    /// A clone of the remote, as another person has it.
    pub fn clone_of_remote(&self, name: &str) -> PathBuf {
        let path = self.root().join(name);
        let (from, to) = (self.remote(), path.to_str().unwrap());
        self.git(self.root(), &["clone", "-q", from.to_str().unwrap(), to])
            .ok();
        path
    }

    pub fn commit_all(&self, directory: &Path, message: &str) {
        self.git(directory, &["add", "-A"]).ok();
        self.git(directory, &["commit", "-q", "-m", message]).ok();
    }

    pub fn git(&self, directory: &Path, args: &[&str]) -> Ran {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=Test", "-c", "user.email=test@localhost"])
            .args(["-c", "core.autocrlf=false", "-c", "safe.directory=*"])
            .args(args)
            .current_dir(directory)
            .env("HOME", self.root().join("home"))
            .env("GIT_CONFIG_NOSYSTEM", "1");
        Ran::of(&mut command)
    }

    /// A file at the tip of the remote's branch.
    pub fn on_remote(&self, file: &str) -> Option<String> {
        let shown = self.git(&self.remote(), &["show", &format!("main:{file}")]);
        (shown.code == 0).then_some(shown.stdout)
    }

    /// The binary, with this test's own home and nothing of the machine's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("orchestrator"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root().join("home"))
            .env("XDG_RUNTIME_DIR", self.root().join("run"))
            .env("TMUX_TMPDIR", self.root().join("tmux"))
            .env("ORCHESTRATOR_CONFIG", self.config())
            .current_dir(self.root());
        for name in ["DOCKER_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    #[track_caller]
    pub fn up(&self) {
        self.run(&["up", "-d"]).ok();
    }

    /// Up, and every agent at its prompt or at work.
    #[track_caller]
    pub fn up_and_ready(&self) -> FleetView {
        self.up();
        self.until("every agent is ready", |view| {
            let ready = |agent: &AgentView| matches!(agent.state.as_str(), "idle" | "working");
            view.agents.iter().all(ready)
        })
    }

    #[track_caller]
    pub fn down(&self) {
        self.run(&["down"]).ok();
    }

    #[track_caller]
    pub fn view(&self) -> FleetView {
        serde_json::from_str(&self.run(&["status", "--json"]).ok()).unwrap()
    }

    /// Follows `status --watch --json` until a snapshot is as wanted.
    #[track_caller]
    pub fn until(&self, what: &str, wanted: impl Fn(&FleetView) -> bool) -> FleetView {
        let mut child = self
            .command(&["status", "--watch", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, received) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + LONG;
        let mut last = None;
        let found = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = received.recv_timeout(left) else {
                break None;
            };
            let view: FleetView = serde_json::from_str(&line).unwrap();
            if wanted(&view) {
                break Some(view);
            }
            last = Some(view);
        };
        child.kill().unwrap();
        child.wait().unwrap();
        found.unwrap_or_else(|| panic!("never happened: {what}; the last snapshot: {last:#?}"))
    }

    /// Until so many tasks are done, all merged and pushed, and everybody rests.
    #[track_caller]
    pub fn until_done(&self, tasks: u32) -> FleetView {
        self.until(
            &format!("{tasks} tasks are done and at the remote"),
            |view| {
                view.tasks.done >= tasks
                    && view.tasks.available + view.tasks.claimed == 0
                    && view.merges.waiting == 0
                    && view.pushed
                    && view
                        .agents
                        .iter()
                        .all(|agent| agent.state == "idle" && agent.ahead.unwrap_or(0) == 0)
            },
        )
    }

    /// The agent is in the middle of a turn, at this gate.
    #[track_caller]
    pub fn until_at_gate(&self, agent: &str, gate: &str) {
        let waiting = self.checkout(agent).join(format!(".gate-{gate}.waiting"));
        eventually(&format!("{agent} waits at gate {gate}"), || {
            waiting.exists().then_some(())
        });
    }

    pub fn open_gate(&self, agent: &str, gate: &str) {
        let open = self.checkout(agent).join(format!(".gate-{gate}.open"));
        std::fs::write(open, "").unwrap();
    }

    /// How often a task was worked on, by what it left on the remote.
    pub fn runs_of(&self, task: &str) -> usize {
        let text = self.on_remote(&format!("work/{task}.txt"));
        text.map_or(0, |text| text.lines().count())
    }

    /// First requests of turns whose instruction holds this text; retries are not counted.
    pub fn turns_about(&self, text: &str) -> Vec<RequestRecord> {
        let about = |record: &RequestRecord| {
            record.step == 0
                && record.attempt == 0
                && record.kind == RequestKind::Turn
                && record
                    .instruction
                    .as_deref()
                    .is_some_and(|i| i.contains(text))
        };
        self.model().requests().into_iter().filter(about).collect()
    }

    pub fn tmux(&self, args: &[&str]) -> Ran {
        let mut command = Command::new("tmux");
        command
            .args(["-L", &format!("orchestrator-{}", self.project)])
            .args(args)
            .env("TMUX_TMPDIR", self.root().join("tmux"));
        Ran::of(&mut command)
    }

    pub fn docker(&self, args: &[&str]) -> Ran {
        Ran::of(Command::new("docker").args(args))
    }

    /// Where loopback HTTP listens.
    pub fn address(&self) -> String {
        self.entry()["api_address"].as_str().unwrap().to_owned()
    }

    /// The process id of the supervisor.
    pub fn pid(&self) -> String {
        self.entry()["pid"].to_string()
    }

    fn entry(&self) -> Value {
        let entry = self
            .root()
            .join(format!("run/orchestrator/running/{}.json", self.project));
        serde_json::from_slice(&std::fs::read(entry).unwrap()).unwrap()
    }

    pub fn signal(&self, signal: &str, pid: &str) {
        Ran::of(Command::new("kill").args([signal, pid])).ok();
    }

    /// Until a process is gone with all its threads, reaped or not.
    pub fn until_gone(&self, pid: &str) {
        eventually("the process ends", || {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
                return Some(());
            };
            let zombie = stat
                .rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('Z'));
            let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
            let threads = threads.map_or(0, Iterator::count);
            (zombie && threads <= 1).then_some(())
        });
    }
}

/// The agent of this name.
#[track_caller]
pub fn agent<'a>(view: &'a FleetView, name: &str) -> &'a AgentView {
    view.agents
        .iter()
        .find(|agent| agent.id.as_str() == name)
        .unwrap()
}
