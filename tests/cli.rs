//! The binary as people run it: arguments, output, exit codes. A fleet that is not there answers
//! on a real control socket; home and environment are the test's own.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "cli/board.rs"]
mod board;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orchestrator::api::{Access, bind_unix, router, serve_unix};
use orchestrator::cli::Exit;
use orchestrator::client::registry::{self, Entry};
use orchestrator::control::{
    ControlError, ControlPort, Ending, GateRequest, GateStream, Refusal, Reply, Request,
    StatusReport, TaskPort, TreeReport,
};
use orchestrator::coordination::Queue;
use orchestrator::daemon::{SystemClock, SystemEntropy, TaskDoor};
use orchestrator::model::listing::{FoundTask, TaskFilter, TaskPage};
use orchestrator::model::train::TrainView;
use orchestrator::model::view::{
    AgentView, FleetView, MergeCounts, PlanningView, TaskCounts, UsageView,
};
use orchestrator::model::{
    About, AgentId, Explanation, GateView, HookAnswer, HookReport, Incarnation, Role, TaskId,
    Timestamp,
};
use orchestrator::ports::Store as _;
use orchestrator::store::sqlite::SqliteStore;
use orchestrator::testing::memory_store::MemoryStore;
use orchestrator::testing::tasks::tasks;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// 2026-01-02T03:04:05Z.
const NOW: Timestamp = Timestamp(1_767_323_045_000);
const LONG: Duration = Duration::from_secs(30);

/// A home of its own, and nothing of the machine's environment.
struct House {
    root: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("orchestrator"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .current_dir(self.root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    fn registry(&self) -> PathBuf {
        self.path("run/orchestrator/running")
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    fn ended(self, exit: Exit) -> Self {
        assert_eq!(self.code, i32::from(exit.code()), "{self:?}");
        self
    }

    /// On stderr, as messages are.
    #[track_caller]
    fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in {self:?}");
        }
    }
}

/// Answers requests; when asked to end, says so in its snapshots and goes.
struct Fleet {
    queue: Arc<TaskDoor>,
    asked: Mutex<Vec<Request>>,
    about: Mutex<Option<About>>,
    views: watch::Sender<Arc<FleetView>>,
    shutdown: CancellationToken,
}

#[async_trait]
impl ControlPort for Fleet {
    async fn request(&self, request: Request) -> Result<Reply, ControlError> {
        self.asked.lock().unwrap().push(request.clone());
        match request {
            Request::Restart { agent } if agent.as_str() != "worker-1" => Ok(Reply::Denied {
                code: "UNKNOWN_AGENT".into(),
                reason: format!("there is no agent `{agent}`"),
                hint: Some("there are manager and worker-1".into()),
            }),
            Request::CancelTask { task } if task.as_str() == "w1-done" => Ok(Reply::Denied {
                code: "TASK_DONE".into(),
                reason: "w1-done is done".into(),
                hint: Some("`git revert` takes its commits back".into()),
            }),
            Request::End { .. } => {
                self.views.send_modify(|view| {
                    let mut next = FleetView::clone(view);
                    next.generation += 1;
                    next.phase = "stopping".into();
                    *view = Arc::new(next);
                });
                self.shutdown.cancel();
                Ok(Reply::Accepted)
            }
            _ => Ok(Reply::Accepted),
        }
    }

    async fn hook(&self, _: HookReport, _: serde_json::Value) -> Result<HookAnswer, ControlError> {
        Err(ControlError::Gone)
    }

    async fn about(&self) -> Result<About, ControlError> {
        self.about.lock().unwrap().clone().ok_or(ControlError::Gone)
    }

    async fn tree(&self, _: TreeReport) -> Result<(), ControlError> {
        Err(ControlError::Gone)
    }

    async fn status_line(&self, _: StatusReport) -> Result<String, ControlError> {
        Err(ControlError::Gone)
    }

    async fn explain(
        &self,
        agent: AgentId,
        history: usize,
    ) -> Result<Option<Explanation>, ControlError> {
        let change = serde_json::json!({
            "at": 1000, "from": "idle", "to": "working", "reason": "on a prompt of a person",
            "incarnation": 1,
            "cause": {"text": "hook UserPromptSubmit", "signal": "hook", "grade": "strong"},
        });
        let why = serde_json::json!({
            "agent": agent, "at": 9000, "state": "working", "reason": "on a prompt of a person",
            "since": 1000, "incarnation": 1, "restarts": 0, "crashes": 0, "crashes_allowed": 5,
            "signals": [{"signal": "hook", "grade": "strong", "fact": {
                "said": "UserPromptSubmit", "grade": "strong", "at": 1000, "seen": 1000,
            }}],
            "ahead": [{"at": 69000, "what": "its screen is looked at"}],
            "notices": [],
            "history": vec![change; history.min(1)],
        });
        Ok(Some(serde_json::from_value(why).unwrap()))
    }

    async fn gates(&self) -> Result<Vec<GateView>, ControlError> {
        Err(ControlError::Gone)
    }

    async fn run_gates(&self, _: GateRequest) -> Result<Result<GateStream, Refusal>, ControlError> {
        Err(ControlError::Gone)
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<TaskPage, ControlError> {
        Ok(tasks(NOW).page(&filter))
    }

    async fn task(&self, id: TaskId) -> Result<FoundTask, ControlError> {
        let (known, nearest) = (tasks(NOW).report(&id), tasks(NOW).nearest(&id));
        Ok(known.map_or(FoundTask::Unknown { nearest }, |report| {
            FoundTask::Known(Box::new(report))
        }))
    }

    fn queue(&self) -> Option<Arc<dyn TaskPort>> {
        Some(self.queue.clone())
    }

    fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.views.subscribe()
    }
}

/// A supervisor that runs in this test, for the binary to talk to.
struct Supervisor {
    fleet: Arc<Fleet>,
    /// Stands for the supervisor's process, which must be gone before `down` returns.
    process: Option<std::process::Child>,
    runtime: tokio::runtime::Runtime,
    task: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Supervisor {
    fn start(house: &House, project: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let state = house.path(&format!("state-{project}"));
        let socket = state.join("run/control.sock");
        let (views, _) = watch::channel(Arc::new(view(project, &state)));
        let shutdown = CancellationToken::new();
        let process = Command::new("sleep").arg("600").spawn().unwrap();
        let queue = runtime.block_on(Queue::open(Arc::new(MemoryStore::new())));
        let fleet = Arc::new(Fleet {
            queue: Arc::new(TaskDoor {
                queue: queue.unwrap(),
                clock: Arc::new(SystemClock::new()),
                entropy: Arc::new(SystemEntropy),
                agents: vec![AgentId::manager(), AgentId::worker(1)],
                lease: Duration::from_secs(60),
                attempts: 3,
            }),
            asked: Mutex::new(Vec::new()),
            about: Mutex::new(Some(about(project, process.id()))),
            views,
            shutdown: shutdown.clone(),
        });
        let listener = runtime.block_on(bind_unix(&socket)).unwrap();
        let router = router(fleet.clone(), Access::Local);
        let task = runtime.spawn(serve_unix(listener, router, shutdown));
        let entry = Entry {
            project: project.into(),
            pid: process.id(),
            state_directory: state,
            control_socket: socket,
            api_address: None,
            config_directory: house.path(&format!("config-{project}")),
            version: "0".into(),
            started_at: Timestamp(0),
        };
        registry::write(&house.registry(), &entry).unwrap();
        Self {
            fleet,
            process: Some(process),
            runtime,
            task: Some(task),
        }
    }

    fn take_asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.fleet.asked.lock().unwrap())
    }

    /// The process ends once the server has, as the daemon's does.
    fn end_with_the_server(&mut self) {
        let task = self.task.take().unwrap();
        let mut process = self.process.take().unwrap();
        self.runtime.spawn(async move {
            let _ = task.await;
            process.kill().unwrap();
            process.wait().unwrap();
        });
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The binary under test itself.
fn about(project: &str, pid: u32) -> About {
    let program = assert_cmd::cargo::cargo_bin!("orchestrator");
    About {
        project: project.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        build: Some(orchestrator::daemon::build_of(program).unwrap()),
        program: program.display().to_string(),
        pid,
        started_at: Timestamp(0),
        salt: String::new(),
        settings: Vec::new(),
    }
}

fn view(project: &str, state: &Path) -> FleetView {
    let agent = |id: AgentId, role| AgentView {
        role,
        incarnation: Incarnation(1),
        state: "idle".into(),
        reason: "nothing to do".into(),
        since: Timestamp(0),
        until: None,
        session: None,
        container: None,
        credential: None,
        model: None,
        task: None,
        unproven: Vec::new(),
        queued: 0,
        tasks_done: 0,
        branch: format!("agent/{id}"),
        head: None,
        ahead: None,
        behind: None,
        turns: 0,
        restarts: 0,
        usage: UsageView::default(),
        task_list: None,
        last_hook: None,
        last_hook_at: None,
        signals: orchestrator::model::view::SignalsView::default(),
        kept: orchestrator::model::KeptView::default(),
        id,
    };
    FleetView {
        generation: 1,
        at: Timestamp(0),
        project: project.into(),
        version: "0".into(),
        phase: "running".into(),
        branch: "main".into(),
        branch_head: None,
        pushed: true,
        push_problem: None,
        tmux_socket: format!("orchestrator-{project}"),
        task_list_directory: state.display().to_string(),
        credentials: Vec::new(),
        agents: vec![
            agent(AgentId::manager(), Role::Manager),
            agent(AgentId::worker(1), Role::Worker),
        ],
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

#[test]
fn help_teaches_with_examples_and_lists_the_exit_codes() {
    let house = House::new();
    let short = house.run(&["-h"]).ended(Exit::Done);
    assert!(short.stdout.contains("orchestrator init ./fleet"));
    insta::assert_snapshot!(house.run(&["--help"]).ended(Exit::Done).stdout);
    for command in [
        "up",
        "down",
        "status",
        "attach",
        "logs",
        "credentials",
        "gates",
        "train",
        "restart",
        "plan",
        "fetch",
        "edit",
        "config",
        "init",
        "doctor",
        "demo",
        "chaos",
        "drift",
        "completions",
        "man",
    ] {
        let help = house.run(&[command, "--help"]).ended(Exit::Done).stdout;
        assert!(help.contains("Usage: orchestrator"), "{command}: {help}");
        assert!(
            short.stdout.contains(&format!("\n  {command} ")),
            "{command}"
        );
    }
    assert!(
        !short.stdout.contains("\n  view "),
        "`view` is not for people"
    );
}

#[test]
fn wrong_usage_ends_with_two_and_says_what_is_right() {
    let house = House::new();
    let ran = house.run(&["statsu"]).ended(Exit::Usage);
    assert!(ran.stderr.contains("status"), "{ran:?}");
    assert_eq!(ran.stdout, "");
    let ran = house.run(&[]).ended(Exit::Usage);
    assert!(ran.stderr.contains("no command and no `--config DIR`"));
    assert!(ran.stderr.contains("orchestrator init"));
    let ran = house.run(&["doctor"]).ended(Exit::Usage);
    assert!(ran.stderr.contains("hint: add `--config DIR`"));
    house
        .run(&["down", "--drain", "--detach"])
        .ended(Exit::Usage);
}

#[test]
fn the_program_of_the_panes_says_what_it_needs() {
    let run = |words: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("orchestrator-view"));
        command
            .args(words)
            .env_clear()
            .env("DOCKER_HOST", "tcp://h:1");
        Ran::from(command.stdin(Stdio::null()).output().unwrap())
    };
    let ran = run(&[]).ended(Exit::Usage);
    assert!(ran.stderr.contains("orchestrator attach"), "{ran:?}");
    // The arguments are the right ones: it gets as far as the engine.
    let ran = run(&["shop", "worker-1"]).ended(Exit::Refused);
    assert!(ran.stderr.contains("tcp://h:1"), "{ran:?}");
}

#[test]
fn completions_and_manual_pages_are_made() {
    let house = House::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = house.run(&["completions", shell]).ended(Exit::Done).stdout;
        assert!(script.contains("orchestrator") && script.contains("attach"));
    }
    let page = house.run(&["man"]).ended(Exit::Done).stdout;
    assert!(page.contains(".TH") && page.contains("Exit codes"));
    house.run(&["man", "--dir", "pages"]).ended(Exit::Done);
    assert!(house.path("pages/orchestrator.1").is_file());
    assert!(house.path("pages/orchestrator-down.1").is_file());
}

#[test]
fn with_nobody_running_every_command_says_how_to_start() {
    let house = House::new();
    for args in [
        &["status"][..],
        &["status", "--watch"],
        &["train"],
        &["train", "--watch"],
        &["down"],
        &["attach", "worker-1"],
        &["logs", "worker-1"],
        &["restart", "worker-1"],
        &["plan"],
        &["fetch"],
        &["edit", "worker-1"],
    ] {
        let ran = house.run(args).ended(Exit::NotRunning);
        assert_eq!(ran.stdout, "", "{args:?}");
        assert_eq!(
            ran.stderr,
            "error: no supervisor is running for this user\n\
             hint: start it: `orchestrator up -d --config DIR`\n",
            "{args:?}"
        );
    }
}

#[test]
fn status_is_a_table_for_people_and_json_for_programs() {
    let house = House::new();
    let _supervisor = Supervisor::start(&house, "one");
    let table = house.run(&["status"]).ended(Exit::Done).stdout;
    assert!(table.starts_with("one: running, branch main, version 0\n"));
    assert!(
        table.contains("worker-1  worker   idle: nothing to do"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "no colours in a pipe");
    let json = house.run(&["status", "--json"]).ended(Exit::Done).stdout;
    let read: FleetView = serde_json::from_str(&json).unwrap();
    assert_eq!(read, view("one", &house.path("state-one")));
}

#[test]
fn several_supervisors_are_told_apart_by_name_or_directory() {
    let house = House::new();
    let _one = Supervisor::start(&house, "one");
    let _two = Supervisor::start(&house, "two");
    let ran = house.run(&["status"]).ended(Exit::Refused);
    assert!(
        ran.stderr
            .contains("several supervisors are running: one, two")
    );
    assert!(ran.stderr.contains("hint: say which"));
    let ran = house.run(&["status", "--project", "two"]).ended(Exit::Done);
    assert!(ran.stdout.starts_with("two: "));
    let ran = house
        .run(&["--config", "config-one", "status"])
        .ended(Exit::Done);
    assert!(ran.stdout.starts_with("one: "));
    let ran = house
        .run(&["status", "--project", "three"])
        .ended(Exit::NotRunning);
    assert!(ran.stderr.contains("running are: one, two"));
}

#[test]
fn a_task_is_created_with_what_it_needs() {
    let house = House::new();
    let supervisor = Supervisor::start(&house, "demo");
    let first = house
        .run(&["task", "create", "Write a JWT utility"])
        .ended(Exit::Done);
    let first = first.stdout.trim().to_owned();
    assert!(first.starts_with("task-"), "{first}");
    let second = house.run(&[
        "task",
        "create",
        "Add the middleware",
        "-p",
        "-2",
        "-d",
        &first,
        "--owner",
        "worker-1",
        "--label",
        "auth",
        "--file",
        "src/a.rs",
        "--hint",
        "see b",
        "--scope",
        "src/**",
        "--id",
        "middle",
        "--json",
    ]);
    let second: serde_json::Value = serde_json::from_str(&second.ended(Exit::Done).stdout).unwrap();
    assert_eq!(second["state"], "waiting");
    let task = supervisor.fleet.queue.queue.get(&"middle".into()).unwrap();
    assert_eq!((task.priority, task.owner), (-2, Some(AgentId::worker(1))));
    assert_eq!(task.dependencies, [TaskId::new(first)]);
    assert_eq!(
        (task.labels, task.scope),
        (vec!["auth".into()], vec!["src/**".into()])
    );
    assert_eq!(
        (task.context.files, task.context.hints),
        (vec!["src/a.rs".into()], Some("see b".into()))
    );
    for (args, exit, said) in [
        (
            vec!["x", "--id", "middle"],
            Exit::Refused,
            "task middle exists already",
        ),
        (
            vec!["x", "-d", "nobody"],
            Exit::Refused,
            "depends on nobody, which does not exist",
        ),
        (
            vec!["x", "--owner", "worker-7"],
            Exit::Refused,
            "there are: manager, worker-1",
        ),
        (vec![" "], Exit::Refused, "the description is empty"),
        (vec![], Exit::Usage, "<DESCRIPTION>"),
    ] {
        let args: Vec<&str> = ["task", "create"].into_iter().chain(args).collect();
        house.run(&args).ended(exit).says(&[said]);
    }
    assert_eq!(supervisor.fleet.queue.queue.all().len(), 2);
}

/// Beside whoever has the state open, and without anybody.
#[test]
fn the_state_is_backed_up_checked_and_restored() {
    let house = House::new();
    let supervisor = Supervisor::start(&house, "demo");
    let state = house.path("state-demo/state.db");
    let store = SqliteStore::open(&state).unwrap();
    let append = |subject: &str| {
        supervisor
            .runtime
            .block_on(store.append_if(subject, 0, b"x"))
            .unwrap();
    };
    append("task/a");
    house
        .run(&["state", "backup", "copy.db"])
        .ended(Exit::Done)
        .says(&["copy.db: written"]);
    house
        .run(&["state", "backup", "copy.db"])
        .ended(Exit::Refused)
        .says(&["exists already"]);
    append("task/b");
    let whole = house.run(&["state", "check"]).ended(Exit::Done);
    assert!(
        whole.stdout.contains("whole") && whole.stdout.contains("2 records"),
        "{whole:?}"
    );
    let found = house
        .run(&["state", "check", "copy.db", "--json"])
        .ended(Exit::Done);
    let found: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!((&found["ok"], &found["records"]), (&true.into(), &1.into()));
    drop(store);
    // Whoever restores must be alone with it.
    let lock = std::fs::File::create(house.path("state-demo/lock")).unwrap();
    lock.lock().unwrap();
    house
        .run(&["state", "restore", "copy.db"])
        .ended(Exit::AlreadyRunning)
        .says(&["a supervisor is already running", "orchestrator down"]);
    drop(lock);
    let restored = house
        .run(&["state", "restore", "copy.db", "--json"])
        .ended(Exit::Done);
    let restored: serde_json::Value = serde_json::from_str(&restored.stdout).unwrap();
    let kept = restored["replaced"].as_str().unwrap();
    assert!(
        kept.contains("state.db.replaced-1") && Path::new(kept).exists(),
        "{kept}"
    );
    let list = async |path: &Path| -> usize {
        let store = SqliteStore::open(path).unwrap();
        store.list("").await.unwrap().collect().await.unwrap().len()
    };
    assert_eq!(supervisor.runtime.block_on(list(&state)), 1);
    assert_eq!(supervisor.runtime.block_on(list(Path::new(kept))), 2);
    // Damaged in the middle of a page.
    let mut bytes = std::fs::read(house.path("copy.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 5000].fill(0xA5);
    std::fs::write(house.path("bad.db"), bytes).unwrap();
    house
        .run(&["state", "check", "bad.db"])
        .ended(Exit::Failure)
        .says(&["bad.db is damaged", "hint:"]);
    house
        .run(&["state", "restore", "bad.db"])
        .ended(Exit::Failure)
        .says(&["bad.db is damaged"]);
    house
        .run(&["state", "check", "no.db"])
        .ended(Exit::NotFound);
    assert_eq!(
        supervisor.runtime.block_on(list(&state)),
        1,
        "nothing was changed"
    );
}

#[test]
fn tasks_are_listed_shown_and_proven_and_an_unknown_one_gives_the_nearest() {
    let house = House::new();
    let _supervisor = Supervisor::start(&house, "one");
    let list = house.run(&["task", "list"]).ended(Exit::Done);
    for word in [
        "w1-waits",
        "blocked",
        "w1-fails",
        "failed",
        "w1-done",
        "1 (1 failed)",
    ] {
        assert!(list.stdout.contains(word), "no `{word}`: {list:?}");
    }
    let page = house.run(&["task", "list", "-n", "1"]).ended(Exit::Done);
    assert!(
        page.stdout
            .contains("1 of 3; the next page: --after w1-waits"),
        "{page:?}"
    );
    let args = [
        "task", "list", "--status", "failed", "--agent", "worker-1", "--json",
    ];
    let json: serde_json::Value =
        serde_json::from_str(&house.run(&args).ended(Exit::Done).stdout).unwrap();
    assert_eq!(json["matching"], 1);
    assert_eq!(json["tasks"][0]["id"], "w1-fails");
    house
        .run(&["task", "list", "--agent", "worker-9"])
        .ended(Exit::NotFound);
    house
        .run(&["task", "list", "--status", "gone"])
        .ended(Exit::Usage);

    let shown = house.run(&["task", "show", "w1-fails"]).ended(Exit::Done);
    for word in [
        "w1-fails: failed since",
        "and test it",
        "WORKER_1_TASK_LIST.md",
        "needed by   w1-waits",
        "attempts; 1 count against it",
        "1. worker-1 life 1",
        "crashed: killed (exit 137)",
        "no more",
    ] {
        assert!(shown.stdout.contains(word), "no `{word}`: {shown:?}");
    }
    let json = house
        .run(&["task", "show", "w1-waits", "--json"])
        .ended(Exit::Done);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["blocked_by"], serde_json::json!(["w1-fails"]));

    let receipt = house.run(&["task", "receipt", "w1-done"]).ended(Exit::Done);
    for word in [
        "done by worker-1, proven",
        "landed      89abcdef",
        "write it",
    ] {
        assert!(receipt.stdout.contains(word), "no `{word}`: {receipt:?}");
    }
    let none = house
        .run(&["task", "receipt", "w1-fails"])
        .ended(Exit::NotFound);
    assert!(
        none.stderr
            .contains("no receipt for w1-fails, which is failed"),
        "{none:?}"
    );
    let unknown = house
        .run(&["task", "show", "w1-fail"])
        .ended(Exit::NotFound);
    assert!(
        unknown.stderr.contains("the nearest there are: w1-fails"),
        "{unknown:?}"
    );
}

#[test]
fn a_task_is_tried_again_or_cancelled() {
    let house = House::new();
    let supervisor = Supervisor::start(&house, "one");
    for (verb, id, said) in [
        ("retry", "w1-fails", "w1-fails is tried again"),
        ("cancel", "w1-waits", "w1-waits is cancelled"),
    ] {
        let ran = house.run(&["task", verb, id]).ended(Exit::Done);
        assert!(ran.stderr.contains(said), "{ran:?}");
        let unknown = house.run(&["task", verb, "w1-fail"]).ended(Exit::NotFound);
        assert!(unknown.stderr.contains("w1-fails"), "{unknown:?}");
        house.run(&["task", verb, " "]).ended(Exit::Usage);
    }
    let done = house
        .run(&["task", "cancel", "w1-done"])
        .ended(Exit::Refused);
    assert!(done.stderr.contains("hint"), "{done:?}");
    let asked = supervisor.fleet.asked.lock().unwrap().clone();
    let tasks: Vec<Option<&str>> = asked.iter().map(|r| Some(r.task()?.as_str())).collect();
    assert_eq!(tasks, [Some("w1-fails"), Some("w1-waits"), Some("w1-done")]);
}

#[test]
fn explain_says_why_as_text_and_as_json() {
    let house = House::new();
    let _supervisor = Supervisor::start(&house, "one");
    let ran = house.run(&["explain", "worker-1"]).ended(Exit::Done);
    assert!(ran.stdout.starts_with("worker-1: working since "));
    for word in ["UserPromptSubmit", "strong", "its screen is looked at"] {
        assert!(ran.stdout.contains(word), "{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("history"));
    let history = ["explain", "worker-1", "--history", "-n", "5"];
    let ran = house.run(&history).ended(Exit::Done);
    assert!(ran.stdout.contains("idle → working"), "{}", ran.stdout);
    let ran = house
        .run(&["explain", "worker-1", "--json"])
        .ended(Exit::Done);
    let why: Explanation = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((why.state.as_str(), why.history.len()), ("working", 0));
    let ran = house.run(&["explain", "worker-9"]).ended(Exit::NotFound);
    assert!(ran.stderr.contains("hint: there are: "), "{}", ran.stderr);
    house
        .run(&["explain", "worker-1", "-n", "5"])
        .ended(Exit::Usage);
    house.run(&["explain"]).ended(Exit::Usage);
}

#[test]
fn requests_reach_the_supervisor_and_refusals_come_back() {
    let house = House::new();
    let supervisor = Supervisor::start(&house, "one");
    house.run(&["plan"]).ended(Exit::Done);
    house.run(&["fetch"]).ended(Exit::Done);
    house.run(&["restart", "worker-1"]).ended(Exit::Done);
    let ran = house.run(&["restart", "worker-9"]).ended(Exit::NotFound);
    assert_eq!(
        ran.stderr,
        "error: there is no agent `worker-9`\nhint: there are manager and worker-1\n"
    );
    let restart = |name: &str| Request::Restart { agent: name.into() };
    assert_eq!(
        supervisor.take_asked(),
        [
            Request::Plan,
            Request::Fetch,
            restart("worker-1"),
            restart("worker-9")
        ]
    );
}

#[test]
fn down_waits_for_the_end_and_says_how_it_goes() {
    for (flag, ending) in [
        (None, Ending::Stop),
        (Some("--drain"), Ending::Drain),
        (Some("--detach"), Ending::Detach),
    ] {
        let house = House::new();
        let mut supervisor = Supervisor::start(&house, "one");
        supervisor.end_with_the_server();
        let args: Vec<&str> = ["down"].into_iter().chain(flag).collect();
        let ran = house.run(&args).ended(Exit::Done);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains("running: 2 idle"), "{ran:?}");
        assert_eq!(supervisor.take_asked(), [Request::End { ending }]);
        house.run(&["status"]).ended(Exit::NotRunning);
    }
}

#[test]
fn down_gives_up_after_its_time() {
    let house = House::new();
    // The server ends, the process does not.
    let _supervisor = Supervisor::start(&house, "one");
    let ran = house
        .run(&["down", "--timeout", "1s"])
        .ended(Exit::TimedOut);
    assert!(ran.stderr.contains("error: it has not ended after 1s"));
    assert!(ran.stderr.contains("hint: "));
}

#[test]
fn watching_in_a_pipe_prints_each_change_and_ends_with_the_supervisor() {
    let house = House::new();
    let supervisor = Supervisor::start(&house, "one");
    let mut child = house
        .command(&["status", "--watch", "--json"])
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut read = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        line
    };
    let first: FleetView = serde_json::from_str(&read()).unwrap();
    assert_eq!(first.generation, 1);
    supervisor.fleet.views.send_modify(|view| {
        let mut next = FleetView::clone(view);
        next.generation = 2;
        *view = Arc::new(next);
    });
    let second: FleetView = serde_json::from_str(&read()).unwrap();
    assert_eq!(second.generation, 2);
    supervisor.fleet.shutdown.cancel();
    assert_eq!(read(), "");
    let ran = Ran::from(child.wait_with_output().unwrap()).ended(Exit::Done);
    assert_eq!(ran.stderr, "the supervisor has ended\n");
}

#[test]
fn the_train_is_a_table_and_json_and_watching_it_prints_its_own_changes_alone() {
    let house = House::new();
    let supervisor = Supervisor::start(&house, "one");
    let table = house.run(&["train"]).ended(Exit::Done).stdout;
    assert!(table.contains("nothing waits"), "{table}");
    let json = house.run(&["train", "--json"]).ended(Exit::Done).stdout;
    let read: TrainView = serde_json::from_str(&json).unwrap();
    assert_eq!(read, TrainView::default());

    let mut child = house
        .command(&["train", "--watch", "--json"])
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut read = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        line
    };
    let first: TrainView = serde_json::from_str(&read()).unwrap();
    assert_eq!(first, TrainView::default());
    // The first of these changes something else.
    for (generation, batch) in [(2, 0), (3, 7)] {
        supervisor.fleet.views.send_modify(|view| {
            let mut next = FleetView::clone(view);
            next.generation = generation;
            next.train.batch = batch;
            *view = Arc::new(next);
        });
    }
    let second: TrainView = serde_json::from_str(&read()).unwrap();
    assert_eq!(second.batch, 7);
    supervisor.fleet.shutdown.cancel();
    assert_eq!(read(), "");
    Ran::from(child.wait_with_output().unwrap()).ended(Exit::Done);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let house = House::new();
    let supervisor = Supervisor::start(&house, "one");
    let mut child = house.command(&["status", "--watch"]).spawn().unwrap();
    drop(child.stdout.take());
    let deadline = Instant::now() + LONG;
    // A write to the closed pipe happens with a next change at the latest.
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it still writes to nobody");
        supervisor.fleet.views.send_modify(|view| {
            let mut next = FleetView::clone(view);
            next.generation += 1;
            *view = Arc::new(next);
        });
        std::thread::yield_now();
    }
    let ran = Ran::from(child.wait_with_output().unwrap()).ended(Exit::Done);
    assert_eq!(ran.stderr, "");
}

#[test]
fn logs_are_read_and_followed_across_files() {
    let house = House::new();
    let _supervisor = Supervisor::start(&house, "one");
    let log = house.path("state-one/log/agents/worker-1.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(log.with_extension("log.1"), "a\nb\n").unwrap();
    std::fs::write(&log, "c\n").unwrap();
    let last = house
        .run(&["logs", "worker-1", "-n", "2"])
        .ended(Exit::Done);
    assert_eq!(last.stdout, "b\nc\n");
    let ran = house.run(&["logs", "worker-7"]).ended(Exit::NotFound);
    assert!(ran.stderr.contains("hint: there are: worker-1"));

    let mut command = house.command(&["logs", "worker-1", "-f", "-n", "1"]);
    let mut child = command.spawn().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut read = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        line
    };
    assert_eq!(read(), "c\n");
    std::fs::rename(&log, log.with_extension("log.1")).unwrap();
    std::fs::write(&log, "d\n").unwrap();
    assert_eq!(read(), "d\n");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn edit_opens_the_workers_list_in_the_persons_editor() {
    let house = House::new();
    let _supervisor = Supervisor::start(&house, "one");
    let edit = |name: &str, editor: &str| {
        let mut command = house.command(&["edit", name]);
        Ran::from(command.env("EDITOR", editor).output().unwrap())
    };
    edit("worker-1", "echo '- [ ] work' >>").ended(Exit::Done);
    let list = house.path("state-one/WORKER_1_TASK_LIST.md");
    assert_eq!(std::fs::read_to_string(&list).unwrap(), "- [ ] work\n");
    let ran = edit("worker-1", "false").ended(Exit::Failure);
    assert!(ran.stderr.contains("the editor `false` ended with"));
    let ran = edit("manager", "false").ended(Exit::Refused);
    assert!(ran.stderr.contains("PROJECT_DIRECTION.md"));
    std::fs::remove_file(&list).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &list).unwrap();
    let ran = edit("worker-1", "cat").ended(Exit::Refused);
    assert!(ran.stderr.contains("is not a plain file"));
}

#[test]
fn attach_becomes_tmux_with_the_fleets_socket() {
    let house = House::new();
    let _supervisor = Supervisor::start(&house, "one");
    let bin = house.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let tmux = bin.join("tmux");
    std::fs::write(&tmux, "#!/bin/sh\necho \"$@\"\n").unwrap();
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&tmux, mode).unwrap();
    let attach = |name: &str| {
        let mut command = house.command(&["attach", name]);
        let path = format!("{}:/usr/bin:/bin", bin.display());
        Ran::from(command.env("PATH", path).output().unwrap())
    };
    let ran = attach("worker-1").ended(Exit::Done);
    assert_eq!(ran.stdout, "-L orchestrator-one attach -t =worker-1\n");
    let ran = attach("worker-2").ended(Exit::NotFound);
    assert!(ran.stderr.contains("there are: manager, worker-1"));
}

#[test]
fn init_without_a_terminal_wants_flags() {
    let house = House::new();
    let ran = house.run(&["init", "fleet"]).ended(Exit::Usage);
    assert!(
        ran.stderr
            .contains("missing: --repository URL, --workers N")
    );
    assert!(!house.path("fleet").exists());
    std::fs::create_dir(house.path("old")).unwrap();
    std::fs::write(house.path("old/orchestrator.json"), "{}").unwrap();
    let ran = house.run(&["init", "old"]).ended(Exit::Refused);
    assert!(ran.stderr.contains("exists already"));
}

#[test]
fn what_init_writes_is_a_valid_configuration() {
    let house = House::new();
    let init = [
        "init",
        "fleet",
        "--repository",
        "https://example.com/r.git",
        "--workers",
        "2",
    ];
    let ran = house.run(&init).ended(Exit::Done);
    assert!(
        ran.stderr
            .contains("next: orchestrator doctor --config fleet")
    );
    let ran = house.run(&["config", "check", "--config", "fleet"]);
    assert!(
        ran.ended(Exit::Done)
            .stdout
            .ends_with("/fleet: no problems\n")
    );
    let schema = std::fs::read_to_string(house.path("fleet/orchestrator.schema.json")).unwrap();
    let printed = house.run(&["config", "schema"]).ended(Exit::Done).stdout;
    assert_eq!(schema, printed);
    let show = [
        "config",
        "show",
        "--origin",
        "--config",
        "fleet",
        "--set",
        "workerCount=5",
    ];
    let shown = house.run(&show).ended(Exit::Done).stdout;
    assert!(
        shown.contains("workerCount = 5  # --set workerCount\n"),
        "{shown}"
    );
    house.run(&init).ended(Exit::Refused);
}

#[test]
fn a_bad_configuration_is_told_whole_and_ends_with_two() {
    let house = House::new();
    std::fs::create_dir(house.path("fleet")).unwrap();
    let text = "{\n  \"workerCuont\": 3,\n  \"branch\": 7\n}\n";
    std::fs::write(house.path("fleet/orchestrator.json"), text).unwrap();
    for args in [
        &["config", "check", "--config", "fleet"][..],
        &["--config", "fleet"],
        &["up", "-d", "--config", "fleet"],
    ] {
        let ran = house.run(args).ended(Exit::Usage);
        for word in [
            "orchestrator.json:2",
            "workerCount",
            "branch",
            "repositoryUrl",
        ] {
            assert!(ran.stderr.contains(word), "{args:?}: {ran:?}");
        }
        assert_eq!(ran.stdout, "");
    }
    let ran = house
        .run(&["doctor", "--json", "--config", "fleet"])
        .ended(Exit::Usage);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["checks"][0]["name"], "configuration");
    assert_eq!(report["checks"][0]["outcome"], "fail");
}

#[test]
fn doctor_names_each_thing_that_is_missing_with_its_fix() {
    let house = House::new();
    let init = [
        "init",
        "fleet",
        "--repository",
        "../nowhere",
        "--workers",
        "1",
    ];
    house.run(&init).ended(Exit::Done);
    let args = ["doctor", "--json", "--config", "fleet"];
    let ran = house.run(&args).ended(Exit::Prerequisite);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let check = |name: &str| {
        let checks = report["checks"].as_array().unwrap().iter();
        checks
            .clone()
            .find(|check| check["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(check("configuration")["outcome"], "ok");
    for name in ["repository", "credentials"] {
        assert_eq!(check(name)["outcome"], "fail", "{ran:?}");
        assert!(!check(name)["fix"].as_str().unwrap().is_empty());
    }
    assert_eq!(check("state directory")["outcome"], "ok");
    assert_eq!(check("git")["outcome"], "ok");
    let text = house.run(
        &args[..1]
            .iter()
            .chain(&args[2..])
            .copied()
            .collect::<Vec<_>>(),
    );
    assert!(
        text.ended(Exit::Prerequisite)
            .stdout
            .contains("FAIL  credentials: ")
    );
}

#[test]
fn a_second_supervisor_of_the_same_fleet_is_refused() {
    let house = House::new();
    let supervisor = Supervisor::start(&house, "one");
    let init = [
        "init",
        "fleet",
        "--repository",
        "https://example.com/r.git",
        "--workers",
        "1",
    ];
    house.run(&init).ended(Exit::Done);
    // The fleet's state directory is the one whose control socket answers.
    let state = house.path("state-two");
    std::fs::create_dir(&state).unwrap();
    let socket = house.path("state-one/run/control.sock");
    std::os::unix::fs::symlink(socket, state.join("control.sock")).unwrap();
    let set = format!("--set=stateDirectory={}", state.display());
    for up in [&["up"][..], &["up", "-d"], &[]] {
        let args: Vec<&str> = up
            .iter()
            .copied()
            .chain(["--config", "fleet", &set])
            .collect();
        let ran = house.run(&args).ended(Exit::AlreadyRunning);
        assert!(
            ran.stderr
                .contains("the supervisor of `one` is running already")
        );
    }
    assert_eq!(supervisor.take_asked(), []);
}

#[test]
fn up_replaces_nothing_when_it_shall_not_and_opens_no_second_place() {
    let house = House::new();
    let supervisor = Supervisor::start(&house, "one");
    let init = [
        "init",
        "fleet",
        "--repository",
        "https://example.com/r.git",
        "--workers",
        "1",
    ];
    house.run(&init).ended(Exit::Done);
    let at_one = format!(
        "--set=stateDirectory={}",
        house.path("state-one/run").display()
    );
    let up = |more: &[&str]| {
        let args: Vec<&str> = ["up", "--config", "fleet", "--set=project=one"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        house.run(&args)
    };
    if let Some(about) = supervisor.fleet.about.lock().unwrap().as_mut() {
        about.build = Some("0000000000000000".into());
    }
    let other = up(&["--no-take-over", &at_one]).ended(Exit::AlreadyRunning);
    for word in ["runs version", "build 00000", "this is version"] {
        assert!(other.stderr.contains(word), "{other:?}");
    }
    // Its containers would be taken for those of the new one.
    let elsewhere = format!("--set=stateDirectory={}", house.path("another").display());
    let second = up(&["--take-over", &elsewhere]).ended(Exit::AlreadyRunning);
    for word in ["with its state in", "down --project one"] {
        assert!(second.stderr.contains(word), "{second:?}");
    }
    assert!(!house.path("another").exists());
    // Without a credential a new one could not start: the old one is not asked to go.
    up(&[&at_one]).ended(Exit::Usage);
    assert_eq!(supervisor.take_asked(), []);
}
