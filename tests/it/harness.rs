//! A fleet of one manager and one worker; the test plays the agents.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use orchestrator::client::Client;
use orchestrator::config::{self, Config, Inputs};
use orchestrator::credentials;
use orchestrator::daemon::{
    self, DaemonError, Ended, FleetPaths, RunOptions, SystemClock, SystemEntropy,
};
use orchestrator::model::view::{AgentView, FleetView};
use orchestrator::model::{AgentId, Ending, Timestamp};
use orchestrator::telemetry::Redactor;
use orchestrator::testing::fake_panes::FakePanes;
use orchestrator::testing::fake_runtime::FakeRuntime;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// The credential of the fleet.
pub const KEY: &str = "sk-ant-api03-a-key-for-tests-only";
/// Nothing here takes a second; a loaded machine may.
pub const LONG: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// A free prompt as Claude Code draws it.
pub fn ready_screen() -> String {
    let rule = "─".repeat(80);
    format!("{rule}\n❯ \n{rule}\n  ready\n")
}

/// What outlives a supervisor: the directories, the engine, the panes.
pub struct Place {
    root: TempDir,
    pub config: Config,
    pub runtime: FakeRuntime,
    pub panes: Arc<FakePanes>,
}

/// A supervisor that runs in this process.
pub struct Running {
    pub client: Client,
    task: JoinHandle<Result<Ended, DaemonError>>,
}

pub fn git(directory: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(["-c", "user.name=T", "-c", "user.email=t@localhost"])
        .args(["-c", "safe.directory=*", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(directory)
        .output()?;
    ensure!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

impl Place {
    /// A bare remote with these files on `main`, and a configuration for one worker.
    pub fn new(files: &[(&str, &str)]) -> Result<Self> {
        let root = tempfile::tempdir()?;
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("seed"))?;
        git(&at("seed"), &["init", "-q"])?;
        for (name, text) in files {
            fs::write(at("seed").join(name), text)?;
        }
        git(&at("seed"), &["add", "-A"])?;
        git(&at("seed"), &["commit", "-qm", "first"])?;
        git(
            root.path(),
            &["clone", "-q", "--bare", "seed", "remote.git"],
        )?;
        fs::create_dir(at("config"))?;
        fs::create_dir(at("keys"))?;
        let key = at("keys/one.json");
        let secret = json!({"env": {"ANTHROPIC_API_KEY": KEY}});
        fs::write(&key, secret.to_string())?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        let document = json!({
            "project": "it",
            "repositoryUrl": format!("file://{}", at("remote.git").display()),
            "branch": "main",
            "workerCount": 1,
            "claudeConfigs": at("keys/*.json"),
            "stateDirectory": at("state"),
        });
        fs::write(at("config/orchestrator.json"), document.to_string())?;
        let inputs = Inputs {
            home: Some(at("home")),
            uid: 1000,
            ..Inputs::default()
        };
        let loaded = config::load(&at("config"), &inputs).map_err(|p| anyhow::anyhow!("{p}"))?;
        Ok(Self {
            config: loaded.config,
            root,
            runtime: FakeRuntime::new(),
            panes: Arc::new(FakePanes::new()),
        })
    }

    pub fn paths(&self) -> FleetPaths {
        FleetPaths::new(&self.config.state_directory)
    }

    pub fn remote(&self) -> PathBuf {
        self.root.path().join("remote.git")
    }

    pub fn checkout(&self, agent: &AgentId) -> PathBuf {
        self.paths().agent(agent).checkout()
    }

    pub async fn start(&self) -> Result<Running> {
        let now = Timestamp(1_795_000_000_000);
        let pool = credentials::load_pool(
            &self.config.claude_configs,
            now,
            &credentials::Logins::new(&self.config.state_directory),
        );
        let options = RunOptions {
            runtime: Arc::new(self.runtime.clone()),
            panes: self.panes.clone(),
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy),
            tmux_socket: "it".into(),
            view_command: vec!["view".into()],
            registry: None,
            redactor: Redactor::new([]),
            signals: None,
            progress: Arc::new(|_| {}),
        };
        let task = tokio::spawn(daemon::run(self.config.clone(), pool, options));
        let client = Client::unix(&self.paths().control_socket())?;
        let mut running = Running { client, task };
        running.until_up().await?;
        Ok(running)
    }

    /// Plays the start of an agent: its SessionStart hook and a free prompt on its screen.
    pub async fn greet(&self, running: &Running, agent: &AgentId) -> Result<u64> {
        let view = running
            .until_agent(agent, "starting", |a| a.state == "starting")
            .await?;
        let life = view.incarnation.0;
        self.panes.set_screen(agent, ready_screen());
        let greeting = json!({"hook_event_name": "SessionStart", "source": "startup"});
        self.hook(agent, life, &new_id(), &greeting).await?;
        Ok(life)
    }

    /// One hook callback, as the helper makes it. Status and body.
    pub async fn hook(
        &self,
        agent: &AgentId,
        life: u64,
        callback: &str,
        payload: &Value,
    ) -> Result<(u16, String)> {
        let head = git(&self.checkout(agent), &["rev-parse", "HEAD"])?;
        let socket = self.paths().agent(agent).socket().join("hooks.sock");
        let mut stream = UnixStream::connect(&socket)
            .await
            .with_context(|| socket.display().to_string())?;
        let body = payload.to_string();
        let request = format!(
            "POST /hooks/v1/callback HTTP/1.1\r\nhost: o\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nx-callback-id: {callback}\r\n\
             x-incarnation: {life}\r\nx-head: {head}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await??;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .context("no status")?;
        let text = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, text.to_owned()))
    }

    /// The prompt arrived, as the hook of a paste tells it.
    pub async fn receive(&self, agent: &AgentId, life: u64, text: &str) -> Result<()> {
        let payload = json!({"hook_event_name": "UserPromptSubmit", "prompt": text});
        let (status, body) = self.hook(agent, life, &new_id(), &payload).await?;
        ensure!(status < 300, "{status}: {body}");
        Ok(())
    }

    /// A commit in the agent's own checkout.
    pub fn commit(&self, agent: &AgentId, file: &str, text: &str) -> Result<String> {
        let checkout = self.checkout(agent);
        fs::write(checkout.join(file), text)?;
        git(&checkout, &["add", "-A"])?;
        git(&checkout, &["commit", "-qm", &format!("Add {file}")])?;
        git(&checkout, &["rev-parse", "HEAD"])
    }

    /// Waits for something on disk, in the engine or in the panes.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        let found = async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(LONG, found)
            .await
            .context(what.to_owned())
    }
}

impl Running {
    async fn until_up(&mut self) -> Result<()> {
        let up = async {
            loop {
                if self.client.health().await.is_ok() {
                    return Ok(());
                }
                tokio::select! {
                    ended = &mut self.task => bail!("it ended early: {ended:?}"),
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        };
        tokio::time::timeout(LONG, up).await?
    }

    pub async fn until_view(
        &self,
        what: &str,
        wanted: impl Fn(&FleetView) -> bool,
    ) -> Result<FleetView> {
        let mut last = None;
        let seen = async {
            loop {
                let view = self.client.status().await?;
                if wanted(&view) {
                    return Ok(view);
                }
                last = Some(view);
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(LONG, seen).await {
            Ok(view) => view,
            Err(_) => bail!("never {what}: {last:#?}"),
        }
    }

    pub async fn until_agent(
        &self,
        agent: &AgentId,
        what: &str,
        wanted: impl Fn(&AgentView) -> bool,
    ) -> Result<AgentView> {
        let view = self
            .until_view(&format!("{agent} {what}"), |view| {
                view.agents.iter().any(|a| a.id == *agent && wanted(a))
            })
            .await?;
        let found = view.agents.into_iter().find(|a| a.id == *agent);
        found.context("it was there")
    }

    pub async fn end(self, ending: Ending) -> Result<()> {
        self.client.end(ending).await?;
        let ended = tokio::time::timeout(LONG, self.task).await???;
        ensure!(ended.ending == ending, "{ended:?}");
        Ok(())
    }
}

/// A callback id that was never used.
pub fn new_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("it-{}-{number}", std::process::id())
}
