//! The front door for hooks against the real helper binary, with a fake driver behind it.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use orchestrator::control::{
    Control, ControlError, ControlPort, GateRequest, GateStream, Refusal, Reply, Request,
    StatusReport, TreeReport,
};
use orchestrator::hooks::install::{HELPER_NAME, install};
use orchestrator::hooks::{Drained, Identity, Spool, router, serve_socket};
use orchestrator::model::listing::{FoundTask, TaskFilter, TaskPage};
use orchestrator::model::train::TrainView;
use orchestrator::model::view::{FleetView, MergeCounts, PlanningView, TaskCounts};
use orchestrator::model::{
    About, AgentId, CommitId, Explanation, GateView, HookAnswer, HookFact, HookReport, Incarnation,
    ProjectId, SessionId, TaskId, Timestamp,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Nothing here takes longer unless it hangs.
const LONG: Duration = Duration::from_secs(60);

/// Stores in memory, answers what it was told to, recognises repeats.
#[derive(Default)]
struct FakeDriver {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    broken: bool,
    answers: VecDeque<HookAnswer>,
    given: BTreeMap<String, HookAnswer>,
    reports: Vec<HookReport>,
    raw: Vec<Value>,
    status: Vec<StatusReport>,
    trees: Vec<TreeReport>,
}

impl FakeDriver {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(
            &mut self
                .state
                .lock()
                .expect("no test panics while it holds the lock"),
        )
    }

    fn answer(&self, answer: HookAnswer) {
        self.with(|state| state.answers.push_back(answer));
    }

    fn set_broken(&self, broken: bool) {
        self.with(|state| state.broken = broken);
    }

    /// Prompts and whether they were spooled, in the order of arrival.
    fn prompts(&self) -> Vec<(String, bool)> {
        self.with(|state| {
            state
                .reports
                .iter()
                .map(|report| match &report.fact {
                    HookFact::PromptSubmitted { text, .. } => (text.clone(), report.spooled),
                    fact => (format!("{fact:?}"), report.spooled),
                })
                .collect()
        })
    }
}

#[async_trait]
impl ControlPort for FakeDriver {
    async fn request(&self, _request: Request) -> Result<Reply, ControlError> {
        Ok(Reply::AlreadySo)
    }

    async fn hook(&self, report: HookReport, raw: Value) -> Result<HookAnswer, ControlError> {
        self.with(|state| {
            if state.broken {
                return Err(ControlError::NotStored("disk full".to_owned()));
            }
            if let Some(answer) = state.given.get(report.callback.as_str()) {
                return Ok(answer.clone());
            }
            let answer = state.answers.pop_front().unwrap_or(HookAnswer::LetGo);
            state
                .given
                .insert(report.callback.to_string(), answer.clone());
            state.reports.push(report);
            state.raw.push(raw);
            Ok(answer)
        })
    }

    async fn tree(&self, report: TreeReport) -> Result<(), ControlError> {
        self.with(|state| state.trees.push(report));
        Ok(())
    }

    async fn status_line(&self, report: StatusReport) -> Result<String, ControlError> {
        self.with(|state| state.status.push(report));
        Ok("worker-1 · working".to_owned())
    }

    async fn about(&self) -> Result<About, ControlError> {
        Err(ControlError::Gone)
    }

    async fn explain(
        &self,
        _agent: AgentId,
        _history: usize,
    ) -> Result<Option<Explanation>, ControlError> {
        Ok(None)
    }

    async fn gates(&self) -> Result<Vec<GateView>, ControlError> {
        Err(ControlError::Gone)
    }

    async fn run_gates(&self, _: GateRequest) -> Result<Result<GateStream, Refusal>, ControlError> {
        Err(ControlError::Gone)
    }

    async fn tasks(&self, _filter: TaskFilter) -> Result<TaskPage, ControlError> {
        Err(ControlError::Gone)
    }

    async fn task(&self, _id: TaskId) -> Result<FoundTask, ControlError> {
        Err(ControlError::Gone)
    }

    fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        watch::channel(Arc::new(empty_view())).1
    }
}

fn empty_view() -> FleetView {
    FleetView {
        generation: 0,
        at: Timestamp(0),
        project: ProjectId::from("test"),
        version: String::new(),
        phase: "running".to_owned(),
        branch: "main".to_owned(),
        branch_head: None,
        pushed: true,
        push_problem: None,
        tmux_socket: String::new(),
        task_list_directory: String::new(),
        credentials: Vec::new(),
        agents: Vec::new(),
        tasks: TaskCounts::default(),
        merges: MergeCounts::default(),
        train: TrainView::default(),
        planning: PlanningView::default(),
        unknown_hooks: Vec::new(),
        disk: None,
        gate: None,
        notices: Vec::new(),
    }
}

/// What every instance has mounted, installed once: a file that was just written cannot be run
/// while a process that another test started at that moment still holds it open.
fn installed() -> Result<&'static Path> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = DIRECTORY.get_or_init(|| {
        let record = "#!/bin/sh\necho noise\necho \"$1 $2 $(pwd)\" > ../brought-up\n";
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("opt-orchestrator");
        install(&directory, None, &[("bring-up-to.sh", record)]).map_err(|e| e.to_string())?;
        Ok(directory)
    });
    match made {
        Ok(directory) => Ok(directory),
        Err(error) => anyhow::bail!("install the helper: {error}"),
    }
}

/// One instance: its directories as host and agent see them, and the driver.
struct Instance {
    root: TempDir,
    driver: Arc<FakeDriver>,
    spool: Arc<Spool>,
}

/// A door that is open until it is closed.
struct OpenDoor {
    stop: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

impl OpenDoor {
    async fn close(self) -> Result<()> {
        self.stop.cancel();
        tokio::time::timeout(LONG, self.served).await???;
        Ok(())
    }
}

impl Instance {
    fn new() -> Result<Self> {
        let root = tempfile::tempdir()?;
        for directory in ["socket", "spool", "workspace/.git"] {
            fs::create_dir_all(root.path().join(directory))?;
        }
        fs::write(root.path().join("workspace/.git/HEAD"), COMMIT)?;
        let driver = Arc::new(FakeDriver::default());
        let spool = Arc::new(Spool::new(
            Arc::clone(&driver) as Control,
            AgentId::worker(1),
            root.path().join("spool"),
            root.path().join("quarantine"),
        ));
        Ok(Self {
            root,
            driver,
            spool,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn open(&self) -> Result<OpenDoor> {
        let stop = CancellationToken::new();
        let identity = Identity::Fixed {
            agent: AgentId::worker(1),
            branch: "agent/worker-1".to_owned(),
            spool: Some(Arc::clone(&self.spool)),
        };
        let routes = router(Arc::clone(&self.driver) as Control, identity);
        let served = serve_socket(&self.path("socket"), routes, stop.clone())?;
        Ok(OpenDoor { stop, served })
    }

    fn command(&self, arguments: &[&str]) -> Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(installed()?.join(HELPER_NAME));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("ORCHESTRATOR_INCARNATION", "4")
            .env("ORCHESTRATOR_SOCKET", self.path("socket/hooks.sock"))
            .env("ORCHESTRATOR_SPOOL", self.path("spool"))
            .env("ORCHESTRATOR_WORKSPACE", self.path("workspace"))
            .env("ORCHESTRATOR_BRING_UP", installed()?.join("bring-up-to.sh"));
        Ok(command)
    }

    /// Runs the real helper as Claude Code does.
    async fn helper(&self, arguments: &[&str], stdin: &[u8]) -> Result<Output> {
        feed(self.command(arguments)?, stdin).await
    }

    /// A UserPromptSubmit; the helper must never fail towards Claude Code.
    async fn prompt(&self, text: &str) -> Result<Output> {
        let payload = json!({"hook_event_name": "UserPromptSubmit", "prompt": text});
        let output = self
            .helper(&["hook"], payload.to_string().as_bytes())
            .await?;
        ensure!(output.status.success(), "{output:?}");
        Ok(output)
    }

    fn spooled(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path("spool"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

async fn feed(mut command: tokio::process::Command, stdin: &[u8]) -> Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = loop {
        match command.spawn() {
            // See `installed`.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                tokio::task::yield_now().await;
            }
            child => break child?,
        }
    };
    let mut pipe = child.stdin.take().context("stdin is piped")?;
    let stdin = stdin.to_vec();
    // A helper that refuses a giant stops reading.
    tokio::spawn(async move { pipe.write_all(&stdin).await });
    Ok(tokio::time::timeout(LONG, child.wait_with_output()).await??)
}

/// Speaks HTTP by hand; returns status and body.
async fn post(socket: &Path, headers: &str, body: &[u8]) -> Result<(u16, String)> {
    post_to(socket, "callback", headers, body).await
}

async fn post_to(socket: &Path, route: &str, headers: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket).await?;
    let head = format!(
        "POST /hooks/v1/{route} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    // Refused before it is sent: the door may close first.
    let _ = stream.write_all(body).await;
    let mut raw = Vec::new();
    // A door that closes early resets the connection behind its answer.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut raw)).await?;
    let text = String::from_utf8(raw)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer")?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, body.to_owned()))
}

fn next_task(bring_up_to: Option<&str>) -> HookAnswer {
    HookAnswer::Continue {
        text: "Next: write \"tests\"\nand run them".to_owned(),
        bring_up_to: bring_up_to.map(CommitId::from),
    }
}

#[tokio::test]
async fn the_answer_to_a_stop_is_the_next_task() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    instance.driver.answer(next_task(None));
    let payload =
        br#"{"hook_event_name": "Stop", "session_id": "s-1", "last_assistant_message": "done"}"#;
    let output = instance.helper(&["hook"], payload).await?;
    ensure!(output.status.success());
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        answer,
        json!({"decision": "block", "reason": "Next: write \"tests\"\nand run them"})
    );
    let reports = instance.driver.with(|state| state.reports.clone());
    let [report] = reports.as_slice() else {
        anyhow::bail!("one report, not {reports:?}");
    };
    assert_eq!(report.agent, AgentId::worker(1));
    assert_eq!(report.incarnation, Some(Incarnation(4)));
    assert_eq!(report.session.as_ref().map(SessionId::as_str), Some("s-1"));
    assert_eq!(report.head, Some(CommitId::from(COMMIT)));
    assert!(!report.spooled);
    assert_eq!(
        instance
            .driver
            .with(|state| state.raw[0]["last_assistant_message"].clone()),
        json!("done")
    );
    assert!(!instance.path("brought-up").exists(), "nobody asked for it");
    door.close().await
}

#[tokio::test]
async fn nothing_to_say_prints_nothing() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    let output = instance.prompt("hello").await?;
    assert_eq!(output.stdout, b"");
    assert_eq!(String::from_utf8(output.stderr)?, "");
    door.close().await
}

#[tokio::test]
async fn the_worktree_is_brought_up_before_the_next_task_is_told() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    instance.driver.answer(next_task(Some(COMMIT)));
    let output = instance
        .helper(&["hook"], br#"{"hook_event_name": "Stop"}"#)
        .await?;
    let answer: Value =
        serde_json::from_slice(&output.stdout).context("only the answer on stdout")?;
    assert_eq!(answer["decision"], "block");
    let workspace = instance.path("workspace").canonicalize()?;
    assert_eq!(
        fs::read_to_string(instance.path("brought-up"))?,
        format!("{COMMIT} agent/worker-1 {}\n", workspace.display())
    );
    door.close().await
}

/// The workspace as a repository with one commit, a changed, a new and an ignored file.
fn unclean(instance: &Instance) -> Result<()> {
    let workspace = instance.path("workspace");
    fs::remove_dir_all(workspace.join(".git"))?;
    let script = "git init -q . && printf '*.log\n' > .gitignore && echo a > 'a b.txt' \
        && git add . && git -c user.name=t -c user.email=t@t commit -q -m first \
        && echo more >> 'a b.txt' && mkdir new && echo n > new/file && echo l > x.log";
    let made = std::process::Command::new("sh")
        .args(["-ec", script])
        .current_dir(workspace)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", instance.root.path())
        .status()?;
    ensure!(made.success());
    Ok(())
}

#[tokio::test]
async fn what_is_uncommitted_at_a_stop_is_told_before_anything_is_brought_up() -> Result<()> {
    let instance = Instance::new()?;
    unclean(&instance)?;
    let door = instance.open()?;
    instance.driver.answer(next_task(Some(COMMIT)));
    let output = instance
        .helper(&["hook", "--tree"], br#"{"hook_event_name": "Stop"}"#)
        .await?;
    assert!(output.stdout.starts_with(b"{"), "{output:?}");
    assert!(instance.path("brought-up").exists());
    let (callback, trees) = instance.driver.with(|state| {
        let callback = state.reports[0].callback.clone();
        (callback, state.trees.clone())
    });
    let told = TreeReport {
        agent: AgentId::worker(1),
        callback,
        uncommitted: vec!["a b.txt".into(), "new/".into()],
    };
    assert_eq!(trees, [told]);
    door.close().await
}

#[tokio::test]
async fn nobody_waits_for_a_look_at_a_large_tree() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    instance.driver.answer(next_task(None));
    // Hangs until the test is over.
    let bin = instance.path("bin");
    fs::create_dir(&bin)?;
    let git = "#!/bin/sh\ntouch \"$0.began\"\nwhile [ ! -e \"$0.over\" ]; do sleep 0.05; done\n";
    fs::write(bin.join("git"), git)?;
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755))?;
    let mut command = instance.command(&["hook", "--tree"])?;
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let output = feed(command, br#"{"hook_event_name": "Stop"}"#).await?;
    assert!(output.stdout.starts_with(b"{"), "{output:?}");
    tokio::time::timeout(LONG, async {
        while !bin.join("git.began").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await?;
    assert!(instance.driver.with(|state| state.trees.is_empty()));
    fs::write(bin.join("git.over"), "")?;
    door.close().await
}

#[tokio::test]
async fn a_tree_without_its_callback_or_its_list_is_refused() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    let socket = instance.path("socket/hooks.sock");
    let id = "x-callback-id: a\r\n";
    for (headers, body) in [("", "{\"uncommitted\":[]}"), (id, "{}"), (id, "[")] {
        let (status, said) = post_to(&socket, "tree", headers, body.as_bytes()).await?;
        assert_eq!(status, 400, "{said}");
    }
    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let body = json!({"uncommitted": many}).to_string();
    let (status, _) = post_to(&socket, "tree", id, body.as_bytes()).await?;
    assert_eq!(status, 204);
    let told = instance.driver.with(|state| state.trees.clone());
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].uncommitted.len(), 50);
    door.close().await
}

#[tokio::test]
async fn a_failing_bring_up_does_not_swallow_the_task() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    instance.driver.answer(next_task(Some(COMMIT)));
    let mut command = instance.command(&["hook"])?;
    command.env("ORCHESTRATOR_BRING_UP", "/bin/false");
    let output = feed(command, br#"{"hook_event_name": "Stop"}"#).await?;
    ensure!(output.status.success());
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout)?["decision"],
        "block"
    );
    let stderr = String::from_utf8(output.stderr)?;
    assert!(stderr.contains("was not brought up"), "{stderr}");
    door.close().await
}

#[tokio::test]
async fn events_of_an_absent_server_are_replayed_once_in_order_before_new_ones() -> Result<()> {
    let instance = Instance::new()?;
    for text in ["one", "two", "three \u{1b} \" \\ \u{e9}"] {
        let output = instance.prompt(text).await?;
        assert_eq!(output.stdout, b"");
        let stderr = String::from_utf8(output.stderr)?;
        assert!(stderr.contains("kept for later"), "{stderr}");
    }
    assert_eq!(instance.spooled()?.len(), 3);

    let door = instance.open()?;
    instance.prompt("four").await?;
    let wanted = [
        ("one".to_owned(), true),
        ("two".to_owned(), true),
        ("three \u{1b} \" \\ \u{e9}".to_owned(), true),
        ("four".to_owned(), false),
    ];
    assert_eq!(instance.driver.prompts(), wanted);
    assert_eq!(instance.spooled()?, Vec::<String>::new());
    let first = instance.driver.with(|state| state.reports[0].clone());
    assert_eq!(first.incarnation, Some(Incarnation(4)));
    assert_eq!(first.head, Some(CommitId::from(COMMIT)));

    assert_eq!(instance.spool.drain().await?, Drained::default());
    assert_eq!(instance.driver.prompts(), wanted);
    door.close().await
}

#[tokio::test]
async fn what_could_not_be_stored_is_kept_and_nothing_overtakes_it() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    instance.driver.set_broken(true);
    instance.prompt("one").await?;
    instance.prompt("two").await?;
    assert_eq!(instance.spooled()?.len(), 2);
    assert_eq!(instance.driver.prompts(), []);

    instance.driver.set_broken(false);
    instance.prompt("three").await?;
    let texts: Vec<String> = instance.driver.prompts().into_iter().map(|p| p.0).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    assert_eq!(instance.spooled()?, Vec::<String>::new());
    door.close().await
}

#[tokio::test]
async fn an_event_that_was_stored_but_not_deleted_changes_nothing_when_replayed() -> Result<()> {
    let instance = Instance::new()?;
    instance.prompt("one").await?;
    let name = instance.spooled()?.pop().context("a spooled event")?;
    let content = fs::read(instance.path("spool").join(&name))?;
    assert_eq!(instance.spool.drain().await?.replayed, 1);
    fs::write(instance.path("spool").join(&name), content)?;
    assert_eq!(instance.spool.drain().await?.replayed, 1);
    assert_eq!(instance.driver.prompts(), [("one".to_owned(), true)]);
    assert_eq!(instance.spooled()?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn the_same_callback_again_gets_the_same_answer() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    instance.driver.answer(next_task(None));
    let socket = instance.path("socket/hooks.sock");
    let stop = br#"{"hook_event_name": "Stop"}"#;
    let first = post(&socket, "x-callback-id: abc-1\r\n", stop).await?;
    assert_eq!(first.0, 200);
    assert_eq!(
        post(&socket, "x-callback-id: abc-1\r\n", stop).await?,
        first
    );
    assert_eq!(instance.driver.with(|state| state.reports.len()), 1);
    assert_eq!(
        post(&socket, "x-callback-id: abc-2\r\n", stop).await?.0,
        204
    );
    door.close().await
}

#[tokio::test]
async fn bodies_are_bounded_on_both_sides() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    let output = instance.prompt(&"x".repeat(1024 * 1024)).await?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(stderr.contains("larger than 1048576 bytes"), "{stderr}");

    let socket = instance.path("socket/hooks.sock");
    let (status, body) = post(&socket, "", &vec![b' '; 1024 * 1024 + 1]).await?;
    assert_eq!(status, 413);
    assert_eq!(
        serde_json::from_str::<Value>(&body)?["code"],
        "BODY_TOO_LARGE"
    );
    assert_eq!(instance.driver.prompts(), []);
    assert_eq!(instance.spooled()?, Vec::<String>::new());
    door.close().await
}

#[tokio::test]
async fn nonsense_is_refused_with_a_code_and_not_kept() -> Result<()> {
    let instance = Instance::new()?;
    let door = instance.open()?;
    let socket = instance.path("socket/hooks.sock");
    for (headers, body, code) in [
        ("", "not json", "BAD_PAYLOAD"),
        ("", "{}", "BAD_PAYLOAD"),
        (
            "x-head: main\r\n",
            r#"{"hook_event_name": "Stop"}"#,
            "BAD_HEADER",
        ),
        (
            "x-incarnation: x\r\n",
            r#"{"hook_event_name": "Stop"}"#,
            "BAD_HEADER",
        ),
    ] {
        let (status, answer) = post(&socket, headers, body.as_bytes()).await?;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(
            serde_json::from_str::<Value>(&answer)?["code"],
            code,
            "{answer}"
        );
    }
    let output = instance.helper(&["hook"], b"not json").await?;
    ensure!(output.status.success());
    assert!(String::from_utf8(output.stderr)?.contains("BAD_PAYLOAD"));
    assert_eq!(instance.spooled()?, Vec::<String>::new());
    door.close().await
}

#[tokio::test]
async fn a_hundred_callbacks_at_once_arrive_once_each() -> Result<()> {
    let instance = Arc::new(Instance::new()?);
    let door = instance.open()?;
    let mut running = JoinSet::new();
    for n in 0..100 {
        let instance = Arc::clone(&instance);
        running.spawn(async move { instance.prompt(&format!("p{n:03}")).await });
    }
    while let Some(output) = running.join_next().await {
        assert_eq!(String::from_utf8(output??.stderr)?, "");
    }
    let mut prompts = instance.driver.prompts();
    prompts.sort();
    let wanted: Vec<_> = (0..100).map(|n| (format!("p{n:03}"), false)).collect();
    assert_eq!(prompts, wanted);
    door.close().await
}

#[tokio::test]
async fn a_hostile_spool_costs_nothing_but_itself() -> Result<()> {
    let instance = Instance::new()?;
    instance.prompt("good").await?;
    let spool = instance.path("spool");
    let secret = instance.path("secret");
    fs::write(
        &secret,
        r#"{"callback": "x", "payload": "{\"hook_event_name\": \"Stop\"}"}"#,
    )?;
    symlink(&secret, spool.join("00000000000000000001-link.json"))?;
    symlink("/", spool.join("00000000000000000002-root.json"))?;
    fs::create_dir(spool.join("00000000000000000003-directory.json"))?;
    fs::write(
        spool.join("00000000000000000004-garbage.json"),
        "{ not json",
    )?;
    fs::File::create(spool.join("00000000000000000005-giant.json"))?.set_len(1 << 40)?;
    fs::write(spool.join(".half-written.tmp"), "{")?;
    let pipe = std::process::Command::new("mkfifo")
        .arg(spool.join("00000000000000000006-pipe.json"))
        .status()?;
    ensure!(pipe.success());

    let drained = tokio::time::timeout(LONG, instance.spool.drain()).await??;
    assert_eq!(drained.replayed, 1);
    assert_eq!(drained.set_aside.len(), 6, "{:?}", drained.set_aside);
    assert_eq!(instance.driver.prompts(), [("good".to_owned(), true)]);
    assert_eq!(instance.spooled()?, [".half-written.tmp"]);
    assert!(secret.exists());
    let kept: Vec<_> = fs::read_dir(instance.path("quarantine"))?.collect::<Result<_, _>>()?;
    assert_eq!(
        kept.len(),
        1,
        "only the garbage is worth looking at: {kept:?}"
    );
    assert_eq!(fs::read_to_string(kept[0].path())?, "{ not json");
    Ok(())
}

#[tokio::test]
async fn signs_of_life_are_not_kept() -> Result<()> {
    let instance = Instance::new()?;
    let payload = br#"{"hook_event_name": "PostToolUse", "tool_name": "Bash"}"#;
    let output = instance.helper(&["hook", "--evidence"], payload).await?;
    ensure!(output.status.success());
    assert_eq!(instance.spooled()?, Vec::<String>::new());
    let door = instance.open()?;
    instance.helper(&["hook", "--evidence"], payload).await?;
    let fact = instance.driver.with(|state| state.reports[0].fact.clone());
    let what = "PostToolUse Bash".to_owned();
    assert_eq!(fact, HookFact::Activity { what });
    door.close().await
}

#[tokio::test]
async fn the_status_line_is_told_and_shown_or_says_that_nobody_is_there() -> Result<()> {
    let instance = Instance::new()?;
    let sample = include_bytes!("../../src/claude/samples/status/oauth.json");
    let away = instance.helper(&["status"], sample).await?;
    ensure!(away.status.success());
    assert_eq!(away.stdout, b"orchestrator: supervisor away\n");
    assert_eq!(instance.spooled()?, Vec::<String>::new());

    let door = instance.open()?;
    let output = instance.helper(&["status"], sample).await?;
    assert_eq!(String::from_utf8(output.stdout)?, "worker-1 · working\n");
    let report = instance.driver.with(|state| state.status[0].clone());
    assert_eq!(report.agent, AgentId::worker(1));
    assert_eq!(report.incarnation, Some(Incarnation(4)));
    assert_eq!(report.claude_version.as_deref(), Some("2.1.197"));
    assert_eq!(report.usage.five_hour_percent, Some(41.0));
    door.close().await
}

#[tokio::test]
async fn a_restarted_server_takes_over_the_socket_even_in_a_deep_directory() -> Result<()> {
    let instance = Instance::new()?;
    let deep = instance.path(&format!(
        "{0}/{0}/{0}",
        "long-directory-name-for-a-socket".repeat(2)
    ));
    fs::create_dir_all(&deep)?;
    for _ in 0..2 {
        let stop = CancellationToken::new();
        let identity = Identity::Fixed {
            agent: AgentId::worker(1),
            branch: "b".to_owned(),
            spool: None,
        };
        let routes = router(Arc::clone(&instance.driver) as Control, identity);
        let served = serve_socket(&deep, routes, stop.clone())?;
        let mode = fs::metadata(deep.join("hooks.sock"))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        // An instance sees it under a short path.
        let short = instance.path("s");
        let _ = fs::remove_file(&short);
        symlink(&deep, &short)?;
        let answer = post(
            &short.join("hooks.sock"),
            "",
            br#"{"hook_event_name": "Stop"}"#,
        )
        .await?;
        assert_eq!(answer.0, 204);
        OpenDoor { stop, served }.close().await?;
    }
    assert_eq!(instance.driver.with(|state| state.reports.len()), 2);
    Ok(())
}

/// The door for sessions outside our containers.
async fn loopback(driver: &Arc<FakeDriver>) -> Result<(std::net::SocketAddr, CancellationToken)> {
    let identity = Identity::Token(Arc::new(|agent: &AgentId| {
        (agent.as_str() == "guest").then(|| "t0ken".to_owned())
    }));
    let routes = router(Arc::clone(driver) as Control, identity);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move {
        axum::serve(listener, routes)
            .with_graceful_shutdown(stopped)
            .await
    });
    Ok((address, stop))
}

#[tokio::test]
async fn a_wrong_token_or_agent_is_refused_before_anything_is_read() -> Result<()> {
    let driver = Arc::new(FakeDriver::default());
    let (address, stop) = loopback(&driver).await?;
    orchestrator::ports::tls::choose_provider();
    let client = reqwest::Client::builder().no_proxy().build()?;
    for (agent, token) in [
        ("guest", "wrong"),
        ("guest", ""),
        ("other", "t0ken"),
        ("other", ""),
    ] {
        for route in ["callback", "status"] {
            let answer = client
                .post(format!("http://{address}/hooks/v1/agents/{agent}/{route}"))
                .bearer_auth(token)
                .body(r#"{"hook_event_name": "Stop"}"#)
                .send()
                .await?;
            assert_eq!(answer.status(), 401);
            assert_eq!(answer.json::<Value>().await?["code"], "UNAUTHORIZED");
        }
    }
    // Without a token there is no way in through an instance's own route.
    let own = client
        .post(format!("http://{address}/hooks/v1/callback"))
        .send()
        .await?;
    assert_eq!(own.status(), 404);
    let get = client
        .get(format!("http://{address}/hooks/v1/agents/guest/callback"))
        .send()
        .await?;
    assert_eq!(get.status(), 405);
    assert_eq!(get.json::<Value>().await?["code"], "METHOD_NOT_ALLOWED");
    assert_eq!(driver.prompts(), []);
    stop.cancel();
    Ok(())
}

#[tokio::test]
async fn curl_in_a_shell_script_is_enough() -> Result<()> {
    let driver = Arc::new(FakeDriver::default());
    let (address, stop) = loopback(&driver).await?;
    driver.answer(next_task(None));
    let script = r#"exec curl --silent --fail --max-time 20 --data-binary @- \
        --header "authorization: Bearer $ORCHESTRATOR_TOKEN" \
        --header "content-type: application/json" \
        --header "x-callback-id: $(cat /proc/sys/kernel/random/uuid)" \
        "http://127.0.0.1:$ORCHESTRATOR_PORT/hooks/v1/agents/$ORCHESTRATOR_AGENT/callback""#;
    for wanted in [
        json!({"decision": "block", "reason": "Next: write \"tests\"\nand run them"}),
        Value::Null,
    ] {
        let mut command = tokio::process::Command::new("sh");
        command
            .args(["-c", script])
            .env("no_proxy", "127.0.0.1")
            .env("ORCHESTRATOR_TOKEN", "t0ken")
            .env("ORCHESTRATOR_PORT", address.port().to_string())
            .env("ORCHESTRATOR_AGENT", "guest");
        let output = feed(
            command,
            br#"{"hook_event_name": "Stop", "session_id": "s"}"#,
        )
        .await?;
        ensure!(output.status.success(), "{output:?}");
        let said = if output.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout)?
        };
        assert_eq!(said, wanted);
    }
    let agents = driver.with(|state| {
        state
            .reports
            .iter()
            .map(|r| r.agent.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(agents, [AgentId::from("guest"), AgentId::from("guest")]);
    stop.cancel();
    Ok(())
}
