//! The view: its loop over streams in memory, and the whole of it in a real tmux pane.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use orchestrator::model::{AgentId, Incarnation, ProjectId, Timestamp};
use orchestrator::ports::{
    AttachedTerminal, ContainerSpec, ErrorKind, ExecOutput, ExecSpec, ImageSpec, Job, JobEnd,
    JobOutput, NetworkInfo, ObservedContainer, Panes, PortError, PortResult, ProgressLine, Runtime,
    RuntimeEvent, RuntimeEventKind, RuntimeInfo, Vitals,
};
use orchestrator::runtime::view::{self, Terminal, TerminalSize, ViewOptions, follow};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{RealStage, eventually, pasted};

const PROJECT: &str = "contract";

/// The container's side of one attachment.
struct Seat {
    container: String,
    output: mpsc::UnboundedSender<PortResult<Bytes>>,
    input: DuplexStream,
}

impl Seat {
    fn prints(&self, text: &str) {
        self.output
            .send(Ok(Bytes::copy_from_slice(text.as_bytes())))
            .unwrap();
    }

    async fn reads(&mut self, wanted: &[u8]) {
        let mut got = vec![0; wanted.len()];
        let reading = self.input.read_exact(&mut got);
        tokio::time::timeout(super::LIMIT, reading)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(got, wanted);
    }
}

#[derive(Default)]
struct State {
    away: bool,
    running: Vec<u64>,
    resizes: Vec<(String, u16, u16)>,
    refuse_resizes: u32,
    listeners: Vec<mpsc::UnboundedSender<PortResult<RuntimeEvent>>>,
    lists: usize,
}

/// A container engine with one agent, `worker-1`, that a test plays.
struct Engine {
    state: Mutex<State>,
    seats: mpsc::UnboundedSender<Seat>,
}

impl Engine {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Seat>) {
        let (seats, taken) = mpsc::unbounded_channel();
        (
            Arc::new(Self {
                state: Mutex::default(),
                seats,
            }),
            taken,
        )
    }

    fn set_running(&self, lives: &[u64]) {
        self.state.lock().unwrap().running = lives.to_vec();
    }

    fn set_away(&self, away: bool) {
        let mut state = self.state.lock().unwrap();
        state.away = away;
        if away {
            state.listeners.clear();
        }
    }

    fn says(&self, life: u64, kind: RuntimeEventKind) {
        let agent = AgentId::worker(1);
        let event = RuntimeEvent {
            name: name(life),
            agent,
            incarnation: Incarnation(life),
            at: Timestamp(0),
            kind,
        };
        let listeners = self.state.lock().unwrap().listeners.clone();
        for listener in listeners {
            let _ = listener.send(Ok(event.clone()));
        }
    }

    fn listeners(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        state.listeners.retain(|listener| !listener.is_closed());
        state.listeners.len()
    }

    fn lists(&self) -> usize {
        self.state.lock().unwrap().lists
    }

    fn resizes(&self) -> Vec<(String, u16, u16)> {
        self.state.lock().unwrap().resizes.clone()
    }

    fn there(&self) -> PortResult<()> {
        if self.state.lock().unwrap().away {
            return Err(PortError::new(ErrorKind::Transient, "the engine is away"));
        }
        Ok(())
    }
}

fn name(life: u64) -> String {
    format!("orchestrator-{PROJECT}-worker-1-{life}")
}

fn container(agent: AgentId, life: u64, running: bool) -> ObservedContainer {
    ObservedContainer {
        name: name(life),
        id: format!("id-{life}"),
        agent,
        incarnation: Incarnation(life),
        running,
        exit_code: (!running).then_some(0),
        oom_killed: false,
        spec_hash: String::new(),
        settings_hash: String::new(),
    }
}

fn unused<T>() -> PortResult<T> {
    Err(PortError::new(
        ErrorKind::Refused,
        "a view has no business with this",
    ))
}

#[async_trait]
impl Runtime for Engine {
    async fn remove_leftovers(&self, _: &ProjectId) -> PortResult<usize> {
        unused()
    }

    async fn probe(&self) -> PortResult<RuntimeInfo> {
        unused()
    }
    async fn ensure_network(&self, _: &ProjectId) -> PortResult<NetworkInfo> {
        unused()
    }
    async fn remove_network(&self, _: &ProjectId) -> PortResult<()> {
        unused()
    }
    async fn ensure_image(&self, _: &ImageSpec, _: ProgressLine<'_>) -> PortResult<String> {
        unused()
    }
    async fn start(&self, _: &ContainerSpec) -> PortResult<ObservedContainer> {
        unused()
    }
    async fn stop(&self, _: &str, _: Duration) -> PortResult<()> {
        unused()
    }
    async fn remove(&self, _: &str) -> PortResult<()> {
        unused()
    }
    async fn list(&self, project: &ProjectId) -> PortResult<Vec<ObservedContainer>> {
        assert_eq!(project.as_str(), PROJECT);
        self.there()?;
        let mut state = self.state.lock().unwrap();
        state.lists += 1;
        let mut all = vec![
            container(AgentId::worker(1), 90, false),
            container(AgentId::worker(11), 99, true),
        ];
        all.extend(
            state
                .running
                .iter()
                .map(|&life| container(AgentId::worker(1), life, true)),
        );
        Ok(all)
    }
    async fn vitals(&self, _: &str) -> PortResult<Vitals> {
        unused()
    }
    async fn exec(&self, _: &str, _: &ExecSpec) -> PortResult<ExecOutput> {
        unused()
    }
    async fn run_once(&self, _: &ContainerSpec, _: &ExecSpec) -> PortResult<ExecOutput> {
        unused()
    }
    async fn image_id(&self, _: &str) -> PortResult<Option<String>> {
        unused()
    }
    async fn run_job(&self, _: &Job, _: JobOutput<'_>) -> PortResult<JobEnd> {
        unused()
    }
    async fn events(
        &self,
        _: &ProjectId,
        _: Option<Timestamp>,
    ) -> PortResult<BoxStream<'static, PortResult<RuntimeEvent>>> {
        self.there()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state.lock().unwrap().listeners.push(sender);
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }
    async fn logs(
        &self,
        _: &str,
        _: Option<usize>,
        _: bool,
    ) -> PortResult<BoxStream<'static, PortResult<Bytes>>> {
        unused()
    }
    async fn attach(&self, container: &str) -> PortResult<AttachedTerminal> {
        self.there()?;
        let (output, shown) = mpsc::unbounded_channel();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let seat = Seat {
            container: container.to_owned(),
            output,
            input: theirs,
        };
        self.seats
            .send(seat)
            .map_err(|_| PortError::new(ErrorKind::Broken, "the test is over"))?;
        Ok(AttachedTerminal {
            output: UnboundedReceiverStream::new(shown).boxed(),
            input: Box::pin(ours),
        })
    }
    async fn resize(&self, container: &str, columns: u16, rows: u16) -> PortResult<()> {
        let mut state = self.state.lock().unwrap();
        if state.refuse_resizes > 0 {
            state.refuse_resizes -= 1;
            return Err(PortError::new(ErrorKind::Transient, "not yet"));
        }
        state.resizes.push((container.to_owned(), columns, rows));
        Ok(())
    }
}

/// A view on streams in memory.
struct Watched {
    engine: Arc<Engine>,
    seats: mpsc::UnboundedReceiver<Seat>,
    keyboard: Option<DuplexStream>,
    size: watch::Sender<TerminalSize>,
    shown: Arc<Mutex<Vec<u8>>>,
    stop: CancellationToken,
    view: JoinHandle<PortResult<()>>,
}

const LONG: Duration = Duration::from_secs(3600);

/// Looks again only after an hour: what happens before is by events.
fn patient() -> ViewOptions {
    let options = ViewOptions::new(PROJECT.into(), AgentId::worker(1));
    ViewOptions {
        first_wait: LONG,
        longest_wait: LONG,
        ..options
    }
}

fn eager() -> ViewOptions {
    let wait = Duration::from_millis(10);
    ViewOptions {
        first_wait: wait,
        longest_wait: wait,
        ..patient()
    }
}

impl Watched {
    fn start(options: ViewOptions, prepare: impl FnOnce(&Engine)) -> Self {
        let (engine, seats) = Engine::new();
        prepare(&engine);
        let (keyboard, input) = tokio::io::duplex(1 << 16);
        let (output, mut display) = tokio::io::duplex(1 << 16);
        let (sizes, size) = watch::channel(TerminalSize {
            columns: 200,
            rows: 50,
        });
        let stop = CancellationToken::new();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&shown);
        tokio::spawn(async move {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = display.read(&mut chunk).await {
                record.lock().unwrap().extend_from_slice(&chunk[..count]);
            }
        });
        let runtime: Arc<dyn Runtime> = Arc::clone(&engine) as _;
        let token = stop.clone();
        let view = tokio::spawn(async move {
            follow(
                runtime,
                &options,
                Terminal {
                    input,
                    output,
                    size,
                },
                token,
            )
            .await
        });
        Self {
            engine,
            seats,
            keyboard: Some(keyboard),
            size: sizes,
            shown,
            stop,
            view,
        }
    }

    async fn seat(&mut self) -> Seat {
        tokio::time::timeout(super::LIMIT, self.seats.recv())
            .await
            .unwrap()
            .unwrap()
    }

    async fn types(&mut self, keys: &[u8]) {
        self.keyboard
            .as_mut()
            .unwrap()
            .write_all(keys)
            .await
            .unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    async fn shows(&self, wanted: &str) {
        eventually(&format!("shown: {wanted:?}"), async || {
            self.text().contains(wanted)
        })
        .await;
    }

    /// Waits until the view waits for events.
    async fn waits(&self, status: &str) {
        self.shows(status).await;
        eventually("it listens", async || self.engine.listeners() == 1).await;
    }

    async fn ends(self) {
        tokio::time::timeout(super::LIMIT, self.view)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn keys_and_output_pass_unchanged_and_no_key_is_the_views_own() {
    let mut watched = Watched::start(patient(), |engine| engine.set_running(&[1, 3, 2]));
    let mut seat = watched.seat().await;
    assert_eq!(seat.container, name(3), "the newest one");
    seat.prints("\x1b[31mred\x1b[0m Grüße\r\n");
    watched.shows("\x1b[31mred\x1b[0m Grüße\r\n").await;
    let every_key: Vec<u8> = (0..=255)
        .chain(*b"\x03\x04\x10\x11\x1a\x1c\x1d\x02d\x1b[A~.")
        .collect();
    watched.types(&every_key).await;
    seat.reads(&every_key).await;
}

#[tokio::test]
async fn bracketed_paste_is_announced_first_and_the_redraw_is_asked_for() {
    let mut watched = Watched::start(patient(), |engine| {
        engine.set_running(&[1]);
        engine.state.lock().unwrap().refuse_resizes = 2;
    });
    let _seat = watched.seat().await;
    let wanted = [(name(1), 199, 50), (name(1), 200, 50)];
    eventually("off by one and back", async || {
        watched.engine.resizes() == wanted
    })
    .await;
    assert!(
        watched.text().starts_with("\x1b[?2004h"),
        "{:?}",
        watched.text()
    );
    watched.size.send_replace(TerminalSize {
        columns: 80,
        rows: 24,
    });
    eventually("the new size", async || {
        watched.engine.resizes().last() == Some(&(name(1), 80, 24))
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_away_is_waited_for_and_its_start_is_heard() {
    let mut watched = Watched::start(patient(), |_| {});
    watched
        .waits("\r\x1b[2Korchestrator: worker-1 is not running; waiting...")
        .await;
    assert!(
        !watched.text().contains('\n'),
        "nothing scrolls: {:?}",
        watched.text()
    );
    watched.types(b"typed at nobody\r").await;
    watched.engine.set_running(&[1]);
    watched.engine.says(1, RuntimeEventKind::Started);
    let mut seat = watched.seat().await;
    watched.types(b"typed at somebody\r").await;
    seat.reads(b"typed at somebody\r").await;
}

#[tokio::test]
async fn the_next_life_is_shown_after_the_last_with_clean_modes() {
    let mut watched = Watched::start(patient(), |engine| engine.set_running(&[1]));
    let seat = watched.seat().await;
    seat.prints("\x1b[?1049h\x1b[?1003hfirst life");
    watched.shows("first life").await;
    watched.engine.set_running(&[]);
    drop(seat);
    watched.waits("worker-1 is not running").await;
    let text = watched.text();
    let (_, after) = text.split_once("first life").unwrap();
    for mode in ["\x1b[?2004l", "\x1b[?1003l", "\x1b[?47l", "\x1b[?25h"] {
        assert!(after.contains(mode), "{mode:?} in {after:?}");
    }
    watched.engine.set_running(&[2]);
    watched.engine.says(2, RuntimeEventKind::Started);
    let mut seat = watched.seat().await;
    assert_eq!(seat.container, name(2));
    eventually("announced again", async || {
        watched.text().matches("\x1b[?2004h").count() == 2
    })
    .await;
    watched.types(b"\x03").await;
    seat.reads(b"\x03").await;
}

#[tokio::test]
async fn a_later_life_is_switched_to_though_the_stream_of_the_earlier_hangs() {
    let mut watched = Watched::start(patient(), |engine| engine.set_running(&[4]));
    let hanging = watched.seat().await;
    watched.engine.set_running(&[5]);
    watched.engine.says(3, RuntimeEventKind::Started);
    watched.engine.says(4, RuntimeEventKind::Started);
    watched.engine.says(5, RuntimeEventKind::Started);
    assert_eq!(watched.seat().await.container, name(5));
    assert!(hanging.output.is_closed());
}

#[tokio::test]
async fn a_death_is_noticed_though_the_stream_hangs() {
    let mut watched = Watched::start(patient(), |engine| engine.set_running(&[1]));
    let hanging = watched.seat().await;
    watched.engine.set_running(&[]);
    watched
        .engine
        .says(1, RuntimeEventKind::Died { exit_code: 137 });
    watched.waits("worker-1 is not running").await;
    assert!(hanging.output.is_closed());
}

#[tokio::test]
async fn an_engine_that_is_away_is_waited_for_without_events() {
    let mut watched = Watched::start(eager(), |engine| engine.set_running(&[1]));
    let seat = watched.seat().await;
    watched.engine.set_away(true);
    seat.output
        .send(Err(PortError::new(ErrorKind::Transient, "unexpected EOF")))
        .unwrap();
    watched.shows("the container engine is away").await;
    watched.engine.set_away(false);
    let seat = watched.seat().await;
    assert_eq!(seat.container, name(1), "the same life again");
    seat.prints("still here");
    watched.shows("still here").await;
    let statuses = watched.text().matches("engine is away").count();
    assert_eq!(statuses, 1, "said once, however often it looked");
}

#[tokio::test]
async fn a_closed_terminal_of_a_running_agent_does_not_spin() {
    let mut watched = Watched::start(patient(), |engine| engine.set_running(&[1]));
    drop(watched.seat().await);
    watched
        .waits("the terminal of worker-1 was closed; reconnecting...")
        .await;
    assert_eq!(watched.engine.lists(), 2, "once before and once after");
    watched.engine.says(1, RuntimeEventKind::Started);
    assert_eq!(watched.seat().await.container, name(1));
}

#[tokio::test]
async fn stopping_and_a_terminal_that_is_gone_end_the_view_and_nothing_else() {
    let mut watched = Watched::start(patient(), |engine| engine.set_running(&[1]));
    let seat = watched.seat().await;
    seat.prints("text");
    watched.shows("text").await;
    watched.stop.cancel();
    watched.shows("\x1b[?2004l").await;
    watched.ends().await;

    let mut watched = Watched::start(patient(), |engine| engine.set_running(&[1]));
    let _seat = watched.seat().await;
    watched.keyboard = None;
    watched.ends().await;

    let mut watched = Watched::start(patient(), |_| {});
    watched.waits("not running").await;
    watched.keyboard = None;
    watched.ends().await;
}

// --- In a real pane ----------------------------------------------------------------------------

/// Names the directory in which this test, started again inside a pane, leaves what it saw.
const INSIDE: &str = "ORCHESTRATOR_TEST_VIEW_DIRECTORY";
const THIS_TEST: &str = "panes::view::a_view_in_a_real_pane_carries_pastes_keys_and_sizes";

/// The application: says who it is, records its keys, and ends its life at a `Q`.
async fn play(engine: Arc<Engine>, mut seats: mpsc::UnboundedReceiver<Seat>, directory: PathBuf) {
    let mut life = 1;
    while let Some(mut seat) = seats.recv().await {
        seat.prints(&format!("READY {life}\r\n"));
        let mut record = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("input"))
            .unwrap();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = seat.input.read(&mut chunk).await {
            record.write_all(&chunk[..count]).unwrap();
            let sizes: Vec<String> = engine
                .resizes()
                .iter()
                .map(|(_, columns, rows)| format!("{columns}x{rows}"))
                .collect();
            fs::write(directory.join("sizes"), sizes.join(" ")).unwrap();
            if chunk[..count].contains(&b'Q') {
                life += 1;
                engine.set_running(&[life]);
                break;
            }
        }
    }
}

async fn inside_the_pane(directory: PathBuf) {
    fs::write(directory.join("pid"), std::process::id().to_string()).unwrap();
    let (engine, seats) = Engine::new();
    engine.set_running(&[1]);
    tokio::spawn(play(Arc::clone(&engine), seats, directory));
    let options = ViewOptions::new(PROJECT.into(), AgentId::worker(1));
    view::run(engine, options).await.unwrap();
}

fn command(directory: &Path) -> Vec<String> {
    let after = directory.join("stty").display().to_string();
    let inside = format!("{INSIDE}={}", directory.display());
    let exe = std::env::current_exe().unwrap().display().to_string();
    let script = "\"$@\"; echo \"exit=$?\"; stty -a >\"$0\"; exec cat";
    [
        "sh",
        "-c",
        script,
        &after,
        "env",
        &inside,
        &exe,
        "--exact",
        THIS_TEST,
        "--nocapture",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[tokio::test]
async fn a_view_in_a_real_pane_carries_pastes_keys_and_sizes() {
    if let Some(directory) = std::env::var_os(INSIDE) {
        return inside_the_pane(directory.into()).await;
    }
    let stage = RealStage::new();
    let directory = tempfile::tempdir().unwrap();
    let read = |file: &str| fs::read(directory.path().join(file)).unwrap_or_default();
    let agent = AgentId::worker(1);
    stage
        .panes
        .ensure(&agent, &command(directory.path()))
        .await
        .unwrap();
    let shows = async |wanted: &str| {
        eventually(wanted, async || {
            stage
                .panes
                .capture(&agent)
                .await
                .is_ok_and(|screen| screen.contains(wanted))
        })
        .await;
    };
    let mut wanted = Vec::new();
    let mut next = |bytes: &[u8]| {
        wanted.extend_from_slice(bytes);
        wanted.clone()
    };

    shows("READY 1").await;
    stage
        .panes
        .paste(&agent, "two\nlines `of` $text")
        .await
        .unwrap();
    let so_far = next(&pasted("two\nlines `of` $text"));
    eventually("the paste", async || read("input") == so_far).await;

    assert!(stage.tmux(&["resize-window", "-t", "=worker-1:", "-x", "120", "-y", "40"]));
    eventually("the sizes", async || {
        stage.panes.keys(&agent, &["x"]).await.unwrap();
        next(b"x");
        String::from_utf8(read("sizes"))
            .unwrap()
            .ends_with("199x50 200x50 120x40")
    })
    .await;

    stage
        .panes
        .keys(&agent, &["C-c", "C-p", "C-q", "C-z", "Escape", "Q"])
        .await
        .unwrap();
    let so_far = next(b"\x03\x10\x11\x1a\x1bQ");
    eventually("the control keys", async || read("input") == so_far).await;
    shows("READY 2").await;
    let long = "a long line of text, again and again. ".repeat(800);
    stage.panes.paste(&agent, &long).await.unwrap();
    let so_far = next(&pasted(&long));
    eventually("the paste in the next life", async || {
        read("input") == so_far
    })
    .await;

    let pid = String::from_utf8(read("pid")).unwrap();
    assert!(
        std::process::Command::new("kill")
            .arg(&pid)
            .status()
            .unwrap()
            .success()
    );
    shows("exit=0").await;
    eventually("the terminal's state", async || {
        read("stty").ends_with(b"\n")
    })
    .await;
    let stty = String::from_utf8(read("stty")).unwrap();
    let restored = |flag: &str| stty.split_whitespace().any(|word| word == flag);
    assert!(
        restored("icanon") && restored("isig") && restored("echo"),
        "{stty}"
    );
}
