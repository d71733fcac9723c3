//! The panes: the same suite on the fake and on a real tmux server of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

mod view;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orchestrator::model::{AgentId, ProjectId};
use orchestrator::ports::{ErrorKind, Panes};
use orchestrator::runtime::tmux::TmuxPanes;
use orchestrator::testing::fake_panes::FakePanes;

/// How long a condition may take on a busy machine before a test fails.
const LIMIT: Duration = Duration::from_secs(30);

/// A pane server under test and what a person could do to it from outside.
#[async_trait(?Send)]
trait Stage: Send + Sync {
    fn panes(&self) -> &dyn Panes;

    /// A command that shows `READY`, asks for bracketed paste, and shows and records what it reads.
    fn recorder(&self, agent: &AgentId) -> Vec<String>;

    /// Waits until the recorder shows `READY`.
    async fn ready(&self, agent: &AgentId);

    /// What the recorder has read since the pane exists.
    fn received(&self, agent: &AgentId) -> Vec<u8>;

    /// How often the recorder was started.
    fn starts(&self, agent: &AgentId) -> usize;

    async fn end_command(&self, agent: &AgentId);

    fn kill_server(&self);
}

struct FakeStage(FakePanes);

#[async_trait(?Send)]
impl Stage for FakeStage {
    fn panes(&self) -> &dyn Panes {
        &self.0
    }

    fn recorder(&self, agent: &AgentId) -> Vec<String> {
        vec!["recorder".into(), agent.to_string()]
    }

    async fn ready(&self, agent: &AgentId) {
        self.0.set_screen(agent, "READY");
    }

    fn received(&self, agent: &AgentId) -> Vec<u8> {
        self.0
            .pane(agent)
            .map(|pane| pane.input)
            .unwrap_or_default()
    }

    fn starts(&self, agent: &AgentId) -> usize {
        self.0.pane(agent).map_or(0, |pane| pane.starts)
    }

    async fn end_command(&self, agent: &AgentId) {
        self.0.end_command(agent);
    }

    fn kill_server(&self) {
        self.0.kill_server();
    }
}

/// A real tmux server, ended when this is dropped, also by a panic.
struct RealStage {
    socket: String,
    panes: TmuxPanes,
    directory: tempfile::TempDir,
}

impl RealStage {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let socket = format!("orchestrator-test-{}-{number}", std::process::id());
        Self {
            panes: TmuxPanes::new(socket.clone(), ProjectId::new("contract")),
            socket,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, agent: &AgentId, kind: &str) -> PathBuf {
        self.directory.path().join(format!("{agent}.{kind}"))
    }

    /// Runs tmux on this stage's socket, as a person would.
    fn tmux(&self, arguments: &[&str]) -> bool {
        Command::new("tmux")
            .args(["-L", &self.socket, "-f", "/dev/null"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    fn tmux_prints(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.socket])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for RealStage {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
        // tmux leaves its socket behind, in `$TMUX_TMPDIR/tmux-UID`.
        let parent = std::env::var_os("TMUX_TMPDIR").unwrap_or_else(|| "/tmp".into());
        let uid = fs::metadata(self.directory.path()).map_or(0, |made| made.uid());
        let path = PathBuf::from(parent)
            .join(format!("tmux-{uid}"))
            .join(&self.socket);
        let _ = fs::remove_file(path);
    }
}

#[async_trait(?Send)]
impl Stage for RealStage {
    fn panes(&self) -> &dyn Panes {
        &self.panes
    }

    fn recorder(&self, agent: &AgentId) -> Vec<String> {
        let script =
            "stty raw -echo; echo $$ >>\"$2\"; printf '\\033[?2004hREADY'; exec tee -a \"$1\"";
        let path = |kind| self.file(agent, kind).display().to_string();
        [
            "sh",
            "-c",
            script,
            "recorder",
            &path("input"),
            &path("starts"),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    async fn ready(&self, agent: &AgentId) {
        let count = self.starts(agent);
        eventually("the recorder is ready", async || {
            self.starts(agent) >= count.max(1)
                && self
                    .panes
                    .capture(agent)
                    .await
                    .is_ok_and(|screen| screen.contains("READY"))
        })
        .await;
    }

    fn received(&self, agent: &AgentId) -> Vec<u8> {
        fs::read(self.file(agent, "input")).unwrap_or_default()
    }

    fn starts(&self, agent: &AgentId) -> usize {
        fs::read_to_string(self.file(agent, "starts")).map_or(0, |text| text.lines().count())
    }

    async fn end_command(&self, agent: &AgentId) {
        let pids = fs::read_to_string(self.file(agent, "starts")).unwrap();
        let pid = pids.lines().last().unwrap();
        assert!(
            Command::new("kill")
                .args(["-9", pid])
                .status()
                .unwrap()
                .success()
        );
        eventually("the pane is seen dead", async || {
            is_dead(self, agent).await == Some(true)
        })
        .await;
    }

    fn kill_server(&self) {
        assert!(self.tmux(&["kill-server"]));
    }
}

async fn is_dead(stage: &dyn Stage, agent: &AgentId) -> Option<bool> {
    is_dead_in(stage.panes(), agent).await
}

async fn is_dead_in(panes: &dyn Panes, agent: &AgentId) -> Option<bool> {
    let seen = panes.list().await.unwrap();
    seen.into_iter()
        .find(|pane| &pane.agent == agent)
        .map(|pane| pane.dead)
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn receives(stage: &dyn Stage, agent: &AgentId, wanted: &[u8]) {
    let start = Instant::now();
    loop {
        let got = stage.received(agent);
        if got == wanted {
            return;
        }
        let shown = String::from_utf8_lossy(&got[got.len().saturating_sub(300)..]).into_owned();
        assert!(
            start.elapsed() < LIMIT,
            "{agent} received {} bytes, not {}; they end in {shown:?}",
            got.len(),
            wanted.len()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn open(stage: &dyn Stage, agent: &AgentId) {
    stage
        .panes()
        .ensure(agent, &stage.recorder(agent))
        .await
        .unwrap();
    stage.ready(agent).await;
}

fn pasted(text: &str) -> Vec<u8> {
    format!("\x1b[200~{text}\x1b[201~\r").into_bytes()
}

// --- The suite -------------------------------------------------------------------------------

async fn nothing_is_there_before_the_first_ensure(stage: &dyn Stage) {
    let agent = AgentId::worker(1);
    assert_eq!(stage.panes().list().await.unwrap(), []);
    let error = stage.panes().capture(&agent).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    let error = stage.panes().paste(&agent, "text").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    stage.panes().remove(&agent).await.unwrap();
    stage.panes().shut_down().await.unwrap();
}

async fn ensure_is_idempotent_and_shows_the_screen(stage: &dyn Stage) {
    let agent = AgentId::manager();
    open(stage, &agent).await;
    stage
        .panes()
        .ensure(&agent, &["other".into()])
        .await
        .unwrap();
    open(stage, &agent).await;
    assert_eq!(stage.starts(&agent), 1, "a live pane is left alone");
    assert_eq!(is_dead(stage, &agent).await, Some(false));
    assert!(
        stage
            .panes()
            .capture(&agent)
            .await
            .unwrap()
            .contains("READY")
    );
}

async fn names_and_commands_that_cannot_be_are_refused(stage: &dyn Stage) {
    for name in ["", "a.b", "a:b", "a b"] {
        let error = stage
            .panes()
            .ensure(&name.into(), &["cat".into()])
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{name}");
    }
    let error = stage
        .panes()
        .ensure(&AgentId::worker(1), &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(stage.panes().list().await.unwrap(), []);
}

async fn text_arrives_exactly(stage: &dyn Stage) {
    let agent = AgentId::worker(1);
    open(stage, &agent).await;
    let mut long = String::new();
    for line in 0..600 {
        writeln!(
            long,
            "line {line:04}: the quick brown fox jumps over the dog; "
        )
        .unwrap();
    }
    assert!(long.len() > 30_000);
    let texts = [
        "hello",
        "two\nlines\n\nand a blank one\n",
        "'single' \"double\" `backtick` $HOME ${x} $(id) \\ ; # %d #{pane_id} !! ~ * ? [a] {b} &&",
        "ends in a semicolon;",
        "-leading dash",
        "unicode: Grüße, 日本語, 🚀, e\u{301}, العربية",
        "tab\there, carriage\r\nreturn",
        " ",
        long.as_str(),
    ];
    let mut wanted = Vec::new();
    for text in texts {
        stage.panes().paste(&agent, text).await.unwrap();
        wanted.extend(pasted(text));
        receives(stage, &agent, &wanted).await;
    }
}

async fn a_megabyte_arrives_and_more_is_refused(stage: &dyn Stage) {
    let agent = AgentId::worker(1);
    open(stage, &agent).await;
    let text = "0123456789abcdef".repeat(64 * 1024);
    stage.panes().paste(&agent, &text).await.unwrap();
    receives(stage, &agent, &pasted(&text)).await;
    let error = stage
        .panes()
        .paste(&agent, &format!("{text}x"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(stage.received(&agent), pasted(&text));
}

async fn text_that_would_press_keys_is_refused(stage: &dyn Stage) {
    let agent = AgentId::worker(1);
    open(stage, &agent).await;
    for text in ["a\x1b[201~\rb", "\x03", "\u{9b}A"] {
        let error = stage.panes().paste(&agent, text).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{text:?}");
    }
    stage.panes().paste(&agent, "after").await.unwrap();
    receives(stage, &agent, &pasted("after")).await;
}

async fn keys_are_pressed_by_name(stage: &dyn Stage) {
    let agent = AgentId::worker(1);
    open(stage, &agent).await;
    stage.panes().keys(&agent, &["Escape"]).await.unwrap();
    receives(stage, &agent, b"\x1b").await;
    stage
        .panes()
        .keys(&agent, &["C-u", "a", ";", "C-c", "Enter"])
        .await
        .unwrap();
    receives(stage, &agent, b"\x1b\x15a;\x03\r").await;
    stage.panes().keys(&agent, &[]).await.unwrap();
    let error = stage
        .panes()
        .keys(&AgentId::worker(2), &["a"])
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

async fn a_dead_pane_takes_nothing_and_comes_back(stage: &dyn Stage) {
    let agent = AgentId::worker(1);
    open(stage, &agent).await;
    stage.end_command(&agent).await;
    assert_eq!(is_dead(stage, &agent).await, Some(true));
    let error = stage.panes().paste(&agent, "lost").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    stage.panes().keys(&agent, &["Enter"]).await.unwrap_err();
    assert!(
        stage.panes().capture(&agent).await.is_ok(),
        "its last words can be read"
    );
    let before = stage.starts(&agent);
    open(stage, &agent).await;
    assert_eq!(is_dead(stage, &agent).await, Some(false));
    let started_again = async || stage.starts(&agent) == before + 1;
    eventually("it was started again", started_again).await;
    stage.ready(&agent).await;
    stage.panes().paste(&agent, "found").await.unwrap();
    receives(stage, &agent, &pasted("found")).await;
}

async fn a_killed_server_is_an_empty_one(stage: &dyn Stage) {
    let agent = AgentId::worker(1);
    open(stage, &agent).await;
    stage.kill_server();
    assert_eq!(stage.panes().list().await.unwrap(), []);
    let error = stage.panes().paste(&agent, "text").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    open(stage, &agent).await;
    assert_eq!(is_dead(stage, &agent).await, Some(false));
}

async fn names_are_matched_exactly(stage: &dyn Stage) {
    let (one, eleven) = (AgentId::worker(1), AgentId::worker(11));
    open(stage, &eleven).await;
    let error = stage.panes().paste(&one, "text").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    stage.panes().remove(&one).await.unwrap();
    assert_eq!(is_dead(stage, &eleven).await, Some(false));
    open(stage, &one).await;
    stage.panes().paste(&one, "for one").await.unwrap();
    receives(stage, &one, &pasted("for one")).await;
    stage.panes().remove(&one).await.unwrap();
    assert_eq!(is_dead(stage, &one).await, None);
    assert_eq!(stage.received(&eleven), b"");
}

async fn eight_at_once_and_each_twice(stage: &dyn Stage) {
    let agents: Vec<AgentId> = (1..=8).map(AgentId::worker).collect();
    let commands: Vec<Vec<String>> = agents.iter().map(|agent| stage.recorder(agent)).collect();
    let twice = agents
        .iter()
        .zip(&commands)
        .chain(agents.iter().zip(&commands));
    let opening = twice.map(|(agent, command)| stage.panes().ensure(agent, command));
    for result in futures_util::future::join_all(opening).await {
        result.unwrap();
    }
    let pasting = agents.iter().map(async |agent| {
        stage.ready(agent).await;
        stage.panes().paste(agent, agent.as_str()).await.unwrap();
        receives(stage, agent, &pasted(agent.as_str())).await;
    });
    futures_util::future::join_all(pasting).await;
    let seen = stage.panes().list().await.unwrap();
    assert_eq!(
        seen.iter().map(|pane| &pane.agent).collect::<Vec<_>>(),
        agents.iter().collect::<Vec<_>>()
    );
    assert!(agents.iter().all(|agent| stage.starts(agent) == 1));
    stage.panes().shut_down().await.unwrap();
    assert_eq!(stage.panes().list().await.unwrap(), []);
}

macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod fake {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::FakeStage(super::FakePanes::new())).await;
            })+
        }
        mod real_tmux {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::RealStage::new()).await;
            })+
        }
    };
}

suite!(
    nothing_is_there_before_the_first_ensure,
    ensure_is_idempotent_and_shows_the_screen,
    names_and_commands_that_cannot_be_are_refused,
    text_arrives_exactly,
    a_megabyte_arrives_and_more_is_refused,
    text_that_would_press_keys_is_refused,
    keys_are_pressed_by_name,
    a_dead_pane_takes_nothing_and_comes_back,
    a_killed_server_is_an_empty_one,
    names_are_matched_exactly,
    eight_at_once_and_each_twice,
);

// --- What only the real one can show ----------------------------------------------------------

#[tokio::test]
async fn a_session_of_someone_else_is_neither_listed_nor_touched() {
    let stage = RealStage::new();
    assert!(stage.tmux(&["new-session", "-d", "-s", "worker-1", "cat"]));
    let agent = AgentId::worker(1);
    assert_eq!(stage.panes.list().await.unwrap(), []);
    let error = stage
        .panes
        .ensure(&agent, &stage.recorder(&agent))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    let error = stage.panes.remove(&agent).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(stage.tmux(&["has-session", "-t", "=worker-1"]));
    let other = TmuxPanes::new(stage.socket.clone(), ProjectId::new("other"));
    other
        .ensure(&AgentId::worker(2), &["cat".into()])
        .await
        .unwrap();
    assert_eq!(is_dead_in(&other, &AgentId::worker(2)).await, Some(false));
    assert_eq!(stage.panes.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_persons_windows_and_copy_mode_do_not_come_between() {
    let stage = RealStage::new();
    let agent = AgentId::worker(1);
    open(&stage, &agent).await;
    assert!(stage.tmux(&["copy-mode", "-t", "=worker-1:"]));
    assert!(stage.tmux(&["split-window", "-t", "=worker-1:", "cat"]));
    assert!(stage.tmux(&["new-window", "-t", "=worker-1:", "cat"]));
    stage
        .panes
        .paste(&agent, "past the copy mode")
        .await
        .unwrap();
    receives(&stage, &agent, &pasted("past the copy mode")).await;
    assert!(stage.tmux(&["copy-mode", "-t", "=worker-1:0.0"]));
    stage.panes.keys(&agent, &["Up"]).await.unwrap();
    let mut wanted = pasted("past the copy mode");
    wanted.extend(b"\x1b[A");
    receives(&stage, &agent, &wanted).await;
}

#[tokio::test]
async fn a_pane_closed_beside_a_persons_window_is_opened_again() {
    let stage = RealStage::new();
    let agent = AgentId::worker(1);
    open(&stage, &agent).await;
    assert!(stage.tmux(&["new-window", "-d", "-t", "=worker-1:", "cat"]));
    assert!(stage.tmux(&["kill-pane", "-t", "=worker-1:0.0"]));
    assert_eq!(is_dead(&stage, &agent).await, Some(true));
    open(&stage, &agent).await;
    eventually("a second start", async || stage.starts(&agent) == 2).await;
    assert_eq!(is_dead(&stage, &agent).await, Some(false));
    stage.ready(&agent).await;
    stage.panes.paste(&agent, "back").await.unwrap();
    receives(&stage, &agent, &pasted("back")).await;
}

#[tokio::test]
async fn the_server_is_set_up_for_watching() {
    let stage = RealStage::new();
    let agent = AgentId::worker(1);
    open(&stage, &agent).await;
    let shows =
        |format: &str| stage.tmux_prints(&["display-message", "-p", "-t", "=worker-1:", format]);
    assert_eq!(shows("#{pane_width}x#{window_height}"), "200x50");
    assert_eq!(shows("#{history_limit}"), "50000");
    for (name, value) in [
        ("mouse", "on"),
        ("set-titles", "on"),
        ("default-size", "200x50"),
    ] {
        assert_eq!(
            stage.tmux_prints(&["show-options", "-gv", name]),
            value,
            "{name}"
        );
    }
    assert_eq!(
        stage.tmux_prints(&["show-options", "-gwv", "remain-on-exit"]),
        "on"
    );
    assert!(shows("#{T:status-left}").contains("worker-1"));
    assert!(shows("#{T:status-right}").contains("detach: Ctrl-b then d"));
    let environment = stage.tmux_prints(&["show-environment", "-g"]);
    assert!(
        !environment.contains("CARGO"),
        "only what a view needs: {environment}"
    );
    assert!(environment.contains("UTF-8"), "{environment}");
    let version = stage.panes.probe().await.unwrap();
    assert!(version.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_lowercase()));
    let attach = stage.panes.attach_command(&agent);
    assert_eq!(
        attach.join(" "),
        format!("tmux -L {} attach -t worker-1", stage.socket)
    );
}

#[tokio::test]
async fn the_command_is_run_as_it_is() {
    let stage = RealStage::new();
    let odd = [
        "sh",
        "-c",
        "printf '<%s>' \"$@\"; exec cat",
        "sh",
        "a b",
        "$HOME",
        "semi;",
        ";",
        "'q'",
        "\"d\"",
        "#{pane_id}",
        "--",
    ];
    let agent = AgentId::worker(1);
    stage
        .panes
        .ensure(&agent, &odd.map(str::to_owned))
        .await
        .unwrap();
    let wanted = "<a b><$HOME><semi;><;><'q'><\"d\"><#{pane_id}><-->";
    eventually("the words are shown", async || {
        stage
            .panes
            .capture(&agent)
            .await
            .unwrap()
            .starts_with(wanted)
    })
    .await;
}
