//! One real Claude Code in a container, made from the same parts as an agent of a fleet: seed,
//! managed settings, login file, helper, pane. What differs is who listens.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::door::{Door, LOOK};
use super::notes::Halt;
use super::stage::Stage;
use crate::claude::launch::{Conversation, Launch, SOCKET_DIRECTORY, SPOOL_DIRECTORY, WORKSPACE};
use crate::claude::seed::approval_suffix;
use crate::claude::settings::{MANAGED_DIRECTORY, MANAGED_FILE};
use crate::claude::{self, ManagedSettings, Seed, managed_settings, session_file, transcript};
use crate::credentials::{self, Material, Secret};
use crate::daemon::AgentPaths;
use crate::model::{AgentId, Incarnation, Role, Screen, SessionId};
use crate::ports::runtime::container_name;
use crate::ports::{ContainerSpec, ExecSpec, Mount, Panes as _, Runtime as _};
use crate::testing::scripted_model::{RequestKind, RequestRecord};
use crate::worktree::read_beneath;

/// For a screen, a hook or a request that comes within a second or two on a machine at rest.
pub(super) const SOON: Duration = Duration::from_secs(45);
/// To be sure that something does not come.
pub(super) const A_WHILE: Duration = Duration::from_secs(2);
/// As the supervisor's own.
const RECEIPT: Duration = Duration::from_secs(8);
const PASTES: u32 = 4;
const DRAFT_LOOKS: u32 = 2;
const TYPABLE_LOOKS: u32 = 10;
const CREDENTIALS_INSIDE: &str = "/run/orchestrator/credentials";
const MEMORY: i64 = 2 << 30;
const TMP: i64 = 64 << 20;
const PIDS: i64 = 512;
const MODEL: &str = "opus";

/// What it is logged in with. None of these is a secret: only the scripted model takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// A subscription whose plan is known to be the largest: no menu at a limit.
    Max(&'static str),
    /// A subscription with a menu at a limit.
    Pro(&'static str),
    Key(&'static str),
    None,
}

/// What makes one instance different from the next.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) login: Login,
    /// Keys taken out of the seed again, to see what it is good for.
    pub(super) unseeded: &'static [&'static str],
    pub(super) retries: u32,
}

impl Wish {
    pub(super) fn of(login: Login) -> Self {
        Self {
            login,
            unseeded: &[],
            retries: 1,
        }
    }
}

pub(super) struct Instance<'s> {
    stage: &'s Stage,
    agent: AgentId,
    paths: AgentPaths,
    wish: Wish,
    incarnation: Incarnation,
    pub(super) session: SessionId,
    pub(super) door: Door,
}

impl<'s> Instance<'s> {
    /// Prepares everything; nothing runs yet. `number`: of its own, for its names.
    pub(super) fn prepare(stage: &'s Stage, number: u32, wish: Wish) -> Result<Self, Halt> {
        let agent = AgentId::worker(number);
        let paths = stage.paths().agent(&agent);
        let made = || -> io::Result<()> {
            for shown in [paths.managed(), paths.credentials(), paths.socket()] {
                directory(&shown, 0o755, None)?;
            }
            for owned in [
                paths.home(),
                paths.spool(),
                paths.checkout(),
                paths.home().join(".claude"),
            ] {
                directory(&owned, 0o700, stage.owner())?;
            }
            symlink(
                format!("{CREDENTIALS_INSIDE}/{}", credentials::CREDENTIALS_FILE),
                paths
                    .home()
                    .join(".claude")
                    .join(credentials::CREDENTIALS_FILE),
            )
        };
        made().map_err(|error| Halt::new(format!("cannot prepare {agent}: {error}")))?;
        let door = Door::open(&paths.socket())?;
        let instance = Self {
            stage,
            session: SessionId::new(uuid::Uuid::new_v4().to_string()),
            agent,
            paths,
            incarnation: Incarnation(1),
            door,
            wish,
        };
        instance.seed()?;
        instance.log_in(instance.wish.login)?;
        Ok(instance)
    }

    fn seed(&self) -> Result<(), Halt> {
        let seed = Seed {
            approved_keys: KEYS.iter().map(|key| approval_suffix(key)).collect(),
            ..Seed::default()
        };
        let text = seed
            .merge(None)
            .map_err(|error| Halt::new(error.to_string()))?;
        let mut value: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.retain(|key, _| !self.wish.unseeded.contains(&key.as_str()));
        }
        let directory = self.paths.home().join(".claude");
        self.put(&directory, ".claude.json", &value.to_string())
    }

    /// Credential and managed settings, by rename, as a lease is swapped while it runs.
    pub(super) fn log_in(&self, login: Login) -> Result<(), Halt> {
        let (material, mut environment) = material(login);
        environment.push((
            "ANTHROPIC_BASE_URL".into(),
            format!("http://{}", self.stage.model.address),
        ));
        let retries = self.wish.retries.to_string();
        environment.push(("CLAUDE_CODE_MAX_RETRIES".into(), retries));
        let settings = managed_settings(&ManagedSettings {
            environment: environment.into_iter().collect(),
            status_refresh_seconds: 1,
            ..ManagedSettings::default()
        });
        credentials::write(&self.paths.credentials(), &material, self.stage.owner())
            .map_err(|error| Halt::new(error.to_string()))?;
        self.put(&self.paths.managed(), MANAGED_FILE, &settings.to_string())
    }

    fn put(&self, directory: &Path, name: &str, text: &str) -> Result<(), Halt> {
        replace(directory, name, text, self.stage.owner())
            .map_err(|error| Halt::new(format!("cannot write {name} of {}: {error}", self.agent)))
    }

    /// Starts its container, with a pane on it.
    pub(super) async fn start(&self, conversation: Conversation) -> Result<(), Halt> {
        let seen = self.stage.runtime.start(&self.spec(conversation)).await?;
        if !seen.running {
            return Err(self.ended().await);
        }
        let mut view = self.stage.view_command.clone();
        view.push(self.agent.to_string());
        self.stage.panes.ensure(&self.agent, &view).await?;
        Ok(())
    }

    pub(super) async fn start_new(&self) -> Result<(), Halt> {
        self.start(Conversation::New(self.session.clone())).await
    }

    /// Kills it, as a crash would, and starts its next life.
    pub(super) async fn kill_and_resume(&mut self) -> Result<(), Halt> {
        let kill = ExecSpec {
            command: ["sh", "-c", "kill -9 -1"].map(str::to_owned).to_vec(),
            working_directory: None,
            environment: std::collections::BTreeMap::new(),
            stdin: Vec::new(),
            max_output_bytes: 1024,
            deadline: RECEIPT,
        };
        // It ends the container it runs in, so how it ended itself says nothing.
        let _ = self.stage.runtime.exec(&self.name(), &kill).await;
        if self.until_exited().await? != Some(137) {
            return Err(Halt::new("it could not be killed"));
        }
        self.stage.runtime.remove(&self.name()).await?;
        self.incarnation = self.incarnation.next();
        self.start(Conversation::GoOn(self.session.clone())).await
    }

    /// SIGTERM; the exit code.
    pub(super) async fn terminate(&self) -> Result<Option<i64>, Halt> {
        let grace = Duration::from_secs(10);
        self.stage.runtime.stop(&self.name(), grace).await?;
        self.exit_code().await
    }

    /// `None` while it runs.
    pub(super) async fn exit_code(&self) -> Result<Option<i64>, Halt> {
        let all = self.stage.runtime.list(&self.stage.project).await?;
        let name = self.name();
        Ok(all
            .into_iter()
            .find(|container| container.name == name && !container.running)
            .and_then(|container| container.exit_code))
    }

    pub(super) async fn until_exited(&self) -> Result<Option<i64>, Halt> {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let code = self.exit_code().await?;
            if code.is_some() || std::time::Instant::now() > deadline {
                return Ok(code);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ended(&self) -> Halt {
        let code = self.exit_code().await.ok().flatten();
        Halt::new(format!(
            "Claude Code ended at once (exit {}); its screen: {}",
            code.map_or_else(|| "unknown".into(), |code| code.to_string()),
            self.shown().await
        ))
    }

    fn name(&self) -> String {
        container_name(&self.stage.project, &self.agent, self.incarnation)
    }

    fn spec(&self, conversation: Conversation) -> ContainerSpec {
        let launch = Launch {
            agent: self.agent.clone(),
            incarnation: self.incarnation,
            role: Role::Worker,
            total_workers: 1,
            branch: self.agent.to_string(),
            model: MODEL.to_owned(),
            conversation,
            environment: std::collections::BTreeMap::new(),
        };
        let mount = |host: PathBuf, container: &str, read_only| Mount {
            host,
            container: container.to_owned(),
            read_only,
        };
        ContainerSpec {
            settings_hash: String::new(),
            project: self.stage.project.clone(),
            agent: self.agent.clone(),
            incarnation: self.incarnation,
            image: self.stage.image.clone(),
            command: launch.command(),
            environment: launch.environment(),
            mounts: vec![
                mount(self.paths.checkout(), WORKSPACE, false),
                mount(self.paths.home(), "/home/agent", false),
                mount(self.paths.managed(), MANAGED_DIRECTORY, true),
                mount(self.paths.credentials(), CREDENTIALS_INSIDE, true),
                mount(self.paths.socket(), SOCKET_DIRECTORY, true),
                mount(self.paths.spool(), SPOOL_DIRECTORY, false),
                mount(self.stage.paths().tools(), "/opt/orchestrator", true),
            ],
            working_directory: WORKSPACE.to_owned(),
            uid: self.stage.uid,
            gid: self.stage.uid,
            network: self.stage.network.name.clone(),
            memory_bytes: Some(MEMORY),
            milli_cpus: None,
            pids: PIDS,
            tmp_bytes: TMP,
            state_directory: self.stage.directory.path().to_owned(),
        }
    }

    /// The text on its screen; empty when it cannot be read.
    pub(super) async fn text(&self) -> String {
        let text = self.stage.panes.capture(&self.agent).await;
        text.unwrap_or_default()
    }

    pub(super) async fn screen(&self) -> Screen {
        claude::classify(&self.text().await)
    }

    /// What stands on the screen, for people: the last lines in one.
    pub(super) async fn shown(&self) -> String {
        last_lines(&self.text().await)
    }

    /// The first screen that is as wanted; else the last one that was not.
    pub(super) async fn until_screen(
        &self,
        limit: Duration,
        wanted: impl Fn(&Screen) -> bool,
    ) -> Result<Screen, Screen> {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let screen = self.screen().await;
            if wanted(&screen) {
                return Ok(screen);
            }
            if std::time::Instant::now() >= deadline {
                return Err(screen);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Until something can be typed.
    pub(super) async fn until_ready(&self) -> Result<(), Halt> {
        // Before its session has started it shows a prompt that loses what is typed.
        self.door.until(0, "SessionStart", SOON, |_| true).await;
        match self.until_screen(SOON, |s| *s == Screen::Ready).await {
            Ok(_) => Ok(()),
            Err(_) if self.exit_code().await?.is_some() => Err(self.ended().await),
            Err(screen) => Err(Halt::new(format!(
                "the prompt never was free: {screen:?}: {}",
                self.shown().await
            ))),
        }
    }

    /// As [`Self::until_ready`]; but a dialog is closed, and a draft that C-u does not clear may be a
    /// greyed suggestion and is typed over, so that what comes after them can still be tried.
    async fn until_typable(&self) -> Result<(), Halt> {
        self.door.until(0, "SessionStart", SOON, |_| true).await;
        let mut drafts = 0;
        for _ in 0..TYPABLE_LOOKS {
            match self.until_screen(A_WHILE, |s| *s == Screen::Ready).await {
                Ok(_) => return Ok(()),
                Err(Screen::Draft) if drafts == DRAFT_LOOKS => return Ok(()),
                Err(Screen::Draft) => {
                    drafts += 1;
                    self.keys(&["C-u"]).await?;
                }
                Err(Screen::Dialog { .. }) => self.keys(&["Escape"]).await?,
                Err(_) => {}
            }
        }
        self.until_ready().await
    }

    /// Pastes a prompt as a task is delivered: into a free prompt, until its receipt comes; a paste
    /// whose Enter was lost (at the start, or on a busy machine) is cleared and made again. Returns
    /// the mark before it.
    pub(super) async fn prompt(&self, text: &str) -> Result<usize, Halt> {
        for _ in 0..PASTES {
            self.until_typable().await?;
            let mark = self.door.mark();
            self.stage
                .panes
                .paste(&self.agent, &claude::wrap(text))
                .await?;
            let receipt = self
                .door
                .until(mark, "UserPromptSubmit", RECEIPT, |_| true)
                .await;
            if receipt.is_some() {
                return Ok(mark);
            }
            if self.screen().await == Screen::Draft {
                self.keys(&["C-u"]).await?;
            }
        }
        Err(Halt::new(format!(
            "a prompt was pasted {PASTES} times, and no UserPromptSubmit came; the screen: {}",
            self.shown().await
        )))
    }

    /// A prompt, and the hook that ends its turn: Stop or StopFailure.
    pub(super) async fn turn(&self, text: &str) -> Result<Value, Halt> {
        let mark = self.prompt(text).await?;
        self.end_of_turn(mark).await.ok_or_else(|| {
            Halt::new(format!(
                "the turn on `{text}` did not end; see its hooks: {}",
                self.heard(mark)
            ))
        })
    }

    pub(super) async fn end_of_turn(&self, mark: usize) -> Option<Value> {
        let ends = |event: &str| event == "Stop" || event == "StopFailure";
        super::door::until(SOON, || {
            self.door.since(mark).into_iter().find(|hook| {
                hook["hook_event_name"].as_str().is_some_and(ends) && hook.get("agent_id").is_none()
            })
        })
        .await
    }

    /// The names of the hooks since a mark.
    pub(super) fn heard(&self, mark: usize) -> String {
        let all = self.door.since(mark);
        let names: Vec<&str> = all
            .iter()
            .filter_map(|hook| hook["hook_event_name"].as_str())
            .collect();
        if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        }
    }

    /// A slash command, until this hook comes of it; typed again where its Enter was lost.
    pub(super) async fn command(&self, text: &str, event: &str) -> Result<Option<Value>, Halt> {
        for _ in 0..PASTES {
            self.until_ready().await?;
            let mark = self.door.mark();
            self.stage.panes.paste(&self.agent, text).await?;
            let hook = self.door.until(mark, event, RECEIPT, |_| true).await;
            if hook.is_some() {
                return Ok(hook);
            }
            if self.screen().await == Screen::Draft {
                self.keys(&["C-u"]).await?;
            }
        }
        Ok(None)
    }

    pub(super) async fn keys(&self, keys: &[&str]) -> Result<(), Halt> {
        Ok(self.stage.panes.keys(&self.agent, keys).await?)
    }

    /// The session file of its present process, as JSON: the newest by `startedAt`.
    pub(super) fn session_file(&self) -> Option<Value> {
        let home = self.paths.home();
        let directory = Path::new(session_file::DIRECTORY);
        let names = fs::read_dir(home.join(directory)).ok()?;
        names
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| session_file::is_name(name))
            .filter_map(|name| {
                let bytes =
                    read_beneath(&home, &directory.join(name), session_file::MAX_BYTES).ok()?;
                serde_json::from_slice::<Value>(&bytes).ok()
            })
            .max_by_key(|file| file["startedAt"].as_i64())
    }

    /// Until the session file has this status; else what it says instead.
    pub(super) async fn until_status(&self, status: &str) -> Result<Value, String> {
        let found = super::door::until(SOON, || {
            self.session_file().filter(|file| file["status"] == status)
        });
        found.await.ok_or_else(|| match self.session_file() {
            None => "there is no session file".into(),
            Some(file) => format!("its status is {}", file["status"]),
        })
    }

    /// Until its transcript, which is written a moment later, holds this.
    pub(super) async fn until_written(&self, text: &str) -> Result<(), Halt> {
        let path = self.transcript();
        let holds = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(text);
        let found = super::door::until(SOON, || self.read(&path).is_ok_and(holds).then_some(()));
        let missing = || Halt::new(format!("{path} never held `{text}`"));
        found.await.ok_or_else(missing)
    }

    /// Below its home.
    pub(super) fn transcript(&self) -> String {
        let slug = transcript::slug(WORKSPACE);
        format!(".claude/projects/{slug}/{}.jsonl", self.session)
    }

    pub(super) async fn until_at_gate(&self, gate: &str) -> Result<(), Halt> {
        let waiting = self.paths.checkout().join(format!(".gate-{gate}.waiting"));
        let found = super::door::until(SOON, || waiting.exists().then_some(())).await;
        found.ok_or_else(|| Halt::new("the model's Bash command was never run"))
    }

    pub(super) fn open_gate(&self, gate: &str) -> Result<(), Halt> {
        let open = self.paths.checkout().join(format!(".gate-{gate}.open"));
        fs::write(open, "").map_err(|error| Halt::new(format!("cannot open the gate: {error}")))
    }

    /// A file below its home, read as the supervisor reads it.
    pub(super) fn read(&self, relative: &str) -> io::Result<Vec<u8>> {
        const MOST: usize = 16 * 1024 * 1024;
        read_beneath(&self.paths.home(), Path::new(relative), MOST)
    }

    /// The requests of its conversations that were turns, oldest first.
    pub(super) fn requests(&self, session: &SessionId) -> Vec<RequestRecord> {
        let all = self.stage.model.requests();
        all.into_iter()
            .filter(|r| r.kind == RequestKind::Turn && r.session.as_ref() == Some(session))
            .collect()
    }

    pub(super) fn version_asked_for(&self) -> Option<&str> {
        self.stage.version.as_deref()
    }

    pub(super) fn tools_offered(&self) -> std::collections::BTreeSet<String> {
        self.stage.tools.all()
    }
}

/// Every key that an instance may be given, so that each is approved from the start.
pub(super) const KEYS: &[&str] = &[
    "sk-ant-drift-0000000000000000000000-first",
    "sk-ant-drift-0000000000000000000000-other",
];

fn material(login: Login) -> (Material, Vec<(String, String)>) {
    let oauth = |token: &str, plan: &str, tier: &str| {
        let file = json!({"claudeAiOauth": {
            "accessToken": token,
            "scopes": ["user:inference"],
            "subscriptionType": plan,
            "rateLimitTier": tier,
        }});
        Material {
            oauth_file: Some(Secret::new(file.to_string())),
            ..Material::default()
        }
    };
    match login {
        Login::Max(token) => (oauth(token, "max", "default_claude_max_20x"), Vec::new()),
        Login::Pro(token) => (oauth(token, "pro", "default_claude_ai"), Vec::new()),
        Login::Key(key) => (
            Material::default(),
            vec![("ANTHROPIC_API_KEY".into(), key.into())],
        ),
        Login::None => (Material::default(), Vec::new()),
    }
}

fn directory(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    match owner {
        Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn replace(directory: &Path, name: &str, text: &str, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(file.as_file(), Some(uid), Some(gid))?;
    }
    file.persist(directory.join(name))?;
    Ok(())
}

fn last_lines(text: &str) -> String {
    const LINES: usize = 6;
    let full: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| line.chars().any(char::is_alphanumeric))
        .collect();
    full[full.len().saturating_sub(LINES)..].join(" / ")
}
