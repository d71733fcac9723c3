//! The floor of containers: the same image, command, environment and limits by plain `docker run`.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use orchestrator::claude::launch::{Conversation, Launch, SOCKET_DIRECTORY, WORKSPACE};
use orchestrator::claude::seed::approval_suffix;
use orchestrator::claude::settings::{MANAGED_DIRECTORY, MANAGED_FILE};
use orchestrator::claude::{ManagedSettings, Seed, managed_settings};
use orchestrator::config::keys::CLAUDE_VERSION;
use orchestrator::model::{AgentId, Incarnation, Role, SessionId};
use orchestrator::ports::Runtime as _;
use orchestrator::runtime::docker::image::bundled_image;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::fleet::{CPUS, KEY, MEMORY, MODEL, remove_containers};
use crate::hall::{Hall, path_text, ran};

/// The last six characters of the key that plain instances use.
pub const PLAIN: &str = "-plain";
pub const OTHER: &str = "-other";
/// As fleets of root use it; another user's containers run with that user's id.
const AGENT: u32 = 1000;

pub struct Plain<'h> {
    hall: &'h Hall,
    pub name: String,
    root: PathBuf,
    session: SessionId,
}

impl<'h> Plain<'h> {
    /// Directories, settings and checkout of an instance; nothing runs yet. With `hooks` its settings
    /// name the helper, and somebody has to serve [`Self::socket`].
    pub fn set(hall: &'h Hall, name: &str, remote: &Path, hooks: bool) -> Result<Self> {
        let root = hall.root.path().join(name);
        let plain = Self {
            hall,
            name: format!("{}-{name}", hall.name),
            root,
            session: SessionId::new(uuid::Uuid::new_v4().to_string()),
        };
        for directory in ["home/.claude", "managed", "socket", "spool"] {
            std::fs::create_dir_all(plain.root.join(directory))?;
        }
        let checkout = plain.checkout();
        let words = ["clone", "-q", path_text(remote)?, path_text(&checkout)?];
        hall.git(hall.root.path(), &words)?;
        for (key, value) in [("user.name", "Agent"), ("user.email", "agent@localhost")] {
            hall.git(&checkout, &["config", key, value])?;
        }
        plain.write_settings(PLAIN, hooks)?;
        let approved = |ending: &&str| approval_suffix(&format!("{KEY}{ending}"));
        let seed = Seed {
            approved_keys: [PLAIN, OTHER].iter().map(approved).collect(),
            ..Seed::default()
        };
        std::fs::write(
            plain.root.join("home/.claude/.claude.json"),
            seed.merge(None)?,
        )?;
        let scripts = [(
            "bring-up-to.sh",
            orchestrator::worktree::sandbox::BRING_UP_TO,
        )];
        orchestrator::hooks::install::install(&plain.root.join("opt"), None, &scripts)?;
        give_away(&plain.root)?;
        Ok(plain)
    }

    /// With the key of this ending; by rename, as Claude Code may be reading.
    pub fn write_settings(&self, ending: &str, hooks: bool) -> Result<()> {
        let mut wanted = ManagedSettings::default();
        wanted.environment.extend([
            ("ANTHROPIC_BASE_URL".into(), self.hall.model_url.clone()),
            ("ANTHROPIC_API_KEY".into(), format!("{KEY}{ending}")),
        ]);
        let mut settings = managed_settings(&wanted);
        if hooks {
            settings["hooks"]["ConfigChange"] = settings["hooks"]["StopFailure"].clone();
        } else if let Some(settings) = settings.as_object_mut() {
            settings.insert("hooks".into(), json!({}));
            settings.remove("statusLine");
        }
        let path = self.root.join("managed").join(MANAGED_FILE);
        let new = path.with_extension("new");
        std::fs::write(&new, settings.to_string())?;
        give_away(&new)?;
        std::fs::rename(&new, &path).context("the managed settings")
    }

    pub fn checkout(&self) -> PathBuf {
        self.root.join("checkout")
    }

    pub fn socket(&self) -> PathBuf {
        self.root.join("socket/hooks.sock")
    }

    /// Claude Code's own words, the first time.
    pub fn claude(&self, prompt: &str) -> Vec<String> {
        let mut words = launch(Conversation::New(self.session.clone())).command();
        words.push(prompt.to_owned());
        words
    }

    /// For `docker start`, which knows one command only: begins the conversation, or takes it up.
    pub fn claude_again(&self, prompt: &str) -> Vec<String> {
        let begin = launch(Conversation::New(self.session.clone())).command();
        let resume = launch(Conversation::Resume(self.session.clone())).command();
        let script = format!(
            "if ls \"$CLAUDE_CONFIG_DIR\"/projects/*/{}.jsonl >/dev/null 2>&1; then exec {}; \
             else exec {} \"$0\"; fi",
            self.session,
            resume.join(" "),
            begin.join(" ")
        );
        vec!["sh".into(), "-c".into(), script, prompt.to_owned()]
    }

    /// `docker run -d` with the limits and mounts that an agent of a fleet has.
    pub fn docker_run(&self, words: &[String]) -> Result<Command> {
        let mut command = Command::new("docker");
        command.args([
            "run",
            "-d",
            "-i",
            "-t",
            "--init",
            "--read-only",
            "--name",
            &self.name,
        ]);
        command.args(["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
        command.args([
            "--user",
            &format!("{AGENT}:{AGENT}"),
            "--workdir",
            WORKSPACE,
        ]);
        command.args([
            "--memory",
            MEMORY,
            "--memory-swap",
            MEMORY,
            "--pids-limit",
            "2048",
        ]);
        command.args(["--cpus", &CPUS.to_string(), "--ulimit", "nofile=16384"]);
        command.args(["--tmpfs", "/tmp:rw,exec,nosuid,nodev,size=1g,mode=1777"]);
        command.args(["--tmpfs", "/run:rw,noexec,nosuid,nodev,size=8m,mode=1777"]);
        command.args([
            "--label",
            &format!("dev.orchestrator.bench={}", self.hall.name),
        ]);
        command.args([
            "--network",
            &format!("orchestrator-{}-model", self.hall.name),
        ]);
        for (inside, of_ours, how) in [
            (WORKSPACE, "checkout", ""),
            ("/home/agent", "home", ""),
            (MANAGED_DIRECTORY, "managed", ":ro"),
            (SOCKET_DIRECTORY, "socket", ":ro"),
            ("/var/spool/orchestrator", "spool", ""),
            ("/opt/orchestrator", "opt", ":ro"),
        ] {
            let outside = self.root.join(of_ours);
            command.args(["-v", &format!("{}:{inside}{how}", path_text(&outside)?)]);
        }
        let launch = launch(Conversation::New(self.session.clone()));
        for (name, value) in launch.environment() {
            command.args(["-e", &format!("{name}={value}")]);
        }
        command.arg(bundled_image(CLAUDE_VERSION, AGENT).tag);
        command.args(words);
        Ok(command)
    }

    pub fn start(&self, words: &[String]) -> Result<()> {
        ran(&mut self.docker_run(words)?).map(drop)
    }

    /// Types a line into its terminal, as a person would.
    pub fn type_line(&self, text: &str) -> Result<()> {
        const BEFORE_ENTER: std::time::Duration = std::time::Duration::from_millis(100);
        let docker = self.hall.docker.clone();
        self.hall.tokio.block_on(async {
            let mut terminal = docker.attach(&self.name).await?;
            terminal.input.write_all(text.as_bytes()).await?;
            terminal.input.flush().await?;
            tokio::time::sleep(BEFORE_ENTER).await;
            terminal.input.write_all(b"\r").await?;
            terminal.input.flush().await?;
            // The engine closes its side when it has seen all.
            let _first = tokio::time::timeout(BEFORE_ENTER, terminal.output.next()).await;
            anyhow::Ok(())
        })
    }

    pub fn remove(&self) -> Result<()> {
        remove_containers(&format!("name=^{}$", self.name))
    }
}

impl Drop for Plain<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("warning: {} was not removed: {error}", self.name);
        }
    }
}

/// To the user of the containers, with all that is in it.
fn give_away(path: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    chown(path, Some(AGENT), Some(AGENT)).with_context(|| format!("{}", path.display()))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_away(&entry?.path())?;
        }
    }
    Ok(())
}

/// As a fleet launches its first worker.
fn launch(conversation: Conversation) -> Launch {
    Launch {
        agent: AgentId::worker(1),
        incarnation: Incarnation(1),
        role: Role::Worker,
        total_workers: 1,
        branch: "worker-1".to_owned(),
        model: MODEL.to_owned(),
        conversation,
        environment: std::collections::BTreeMap::new(),
    }
}
