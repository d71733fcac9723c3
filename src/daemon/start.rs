//! The order of life: lock, store, engine, git, doors, inventory, loop, end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::closing::{close, leave_no_network};
use super::disk::watch_disk;
use super::doors::Doors;
use super::driver::Driver;
use super::effects::{Effects, settings_hash, take_inventory};
use super::error::DaemonError;
use super::gates;
use super::handle::{DriverHandle, INPUTS, Input};
use super::house::House;
use super::keeping::{Keeper, keep_tidy};
use super::lists::TaskLists;
use super::panes::keep_panes;
use super::paths::FleetPaths;
use super::pool;
use super::prepare::{agents, build_house, load_supervisor};
use super::program::Herald;
use super::queue_actions::QueueActions;
use super::signals::Signals;
use super::task_door::TaskDoor;
use super::watch::{ListWatch, RemoteWatch, find_missed_ends, follow_engine};
use crate::config::Config;
use crate::coordination::Queue;
use crate::credentials::Pool;
use crate::model::view::FleetView;
use crate::model::{About, AgentId, Ending};
use crate::ports::{Clock, Entropy, Panes, Runtime, Store};
use crate::store::sqlite::SqliteStore;
use crate::supervisor::{Event, Supervisor};
use crate::telemetry::Redactor;

/// What the caller provides: the ports and how to talk to people.
pub struct RunOptions {
    pub runtime: Arc<dyn Runtime>,
    pub panes: Arc<dyn Panes>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// The socket name the panes were made with.
    pub tmux_socket: String,
    /// What a pane runs; the agent's name is appended.
    pub view_command: Vec<String>,
    /// Directory in which a running supervisor is announced.
    pub registry: Option<PathBuf>,
    pub redactor: Redactor,
    pub signals: Option<Signals>,
    /// Lines for the person who waits.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub ending: Ending,
}

/// The tmux socket of a fleet: `tmux -L orchestrator-PROJECT attach`.
pub fn tmux_socket_name(config: &Config) -> String {
    format!("orchestrator-{}", config.project)
}

/// Between looks after ticked files.
const SETTLE_TICKS: Duration = Duration::from_secs(10);

/// Runs a fleet until it is ended by a request or a signal.
///
/// Errors: a missing prerequisite, another supervisor on the same state, a store that cannot be
/// read. Nothing is started before everything it needs has been found.
///
/// A signal before everything is there ends the start: nothing was launched yet, and agents of an
/// earlier run go on.
pub async fn run(
    config: Config,
    pool: Pool,
    mut options: RunOptions,
) -> Result<Ended, DaemonError> {
    let mut signals = options.signals.take();
    let paths = FleetPaths::new(&config.state_directory);
    make_directories(&paths)?;
    // Held until this returns, whatever is under way then.
    let _lock = lock(&paths)?;
    let (runtime, project) = (options.runtime.clone(), config.project.clone());
    let say = options.progress.clone();
    let ready = tokio::select! {
        prepared = Box::pin(prepare(config, pool, options, paths)) => prepared?,
        () = first_signal(&mut signals) => {
            say("ended while it was starting; nothing was started");
            leave_no_network(&*runtime, &project).await;
            return Ok(Ended { ending: Ending::Detach });
        }
    };
    Box::pin(ready.run(signals)).await
}

async fn first_signal(signals: &mut Option<Signals>) {
    match signals {
        Some(signals) => signals.any().await,
        None => std::future::pending().await,
    }
}

/// Everything a run needs, found or made.
async fn prepare(
    config: Config,
    pool: Pool,
    options: RunOptions,
    paths: FleetPaths,
) -> Result<Fleetrun, DaemonError> {
    if pool.credentials.is_empty() {
        let problems = pool.problems.iter().map(ToString::to_string).collect();
        return Err(DaemonError::NoCredential { problems });
    }
    let database = paths.database();
    let store = super::join(move || SqliteStore::open(&database))
        .await
        .map_err(DaemonError::prerequisite("opening the state"))?;
    let owner = owner_of_agents(&config);
    install_tools(&paths)?;
    let (runtime, project) = (options.runtime.clone(), config.project.clone());
    // A long queue takes its time, and so does the engine.
    let (built, queue) = tokio::join!(
        build_house(config, pool, &options, paths, owner),
        Queue::open(Arc::new(store.clone()) as Arc<dyn Store>)
    );
    let (house, remote_head) = built?;
    let queue = match queue {
        Ok(queue) => queue,
        Err(error) => {
            leave_no_network(&*runtime, &project).await;
            return Err(DaemonError::prerequisite("reading the task queue")(error));
        }
    };
    let supervisor =
        load_supervisor(&house, &store.fleet_state(), remote_head, &*options.entropy).await?;
    Ok(Fleetrun {
        house,
        store,
        queue,
        supervisor,
        options,
    })
}

/// The helper and the scripts that every instance has mounted.
pub(super) fn install_tools(paths: &FleetPaths) -> Result<(), DaemonError> {
    let scripts = [("bring-up-to.sh", crate::worktree::sandbox::BRING_UP_TO)];
    crate::hooks::install::install(&paths.tools(), None, &scripts).map_err(DaemonError::io(
        "installing the hook helper in",
        &paths.tools(),
    ))
}

fn make_directories(paths: &FleetPaths) -> Result<(), DaemonError> {
    for directory in [paths.root().to_owned(), paths.scratch(), paths.tools()] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(DaemonError::io("creating", &directory))?;
    }
    // Whoever made it first (a log file, a person): conversations and secrets lie in it.
    let closed = fs::Permissions::from_mode(0o700);
    fs::set_permissions(paths.root(), closed).map_err(DaemonError::io("closing", paths.root()))?;
    // Mounted into containers whose user is another; the root stays closed.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(paths.tools(), open).map_err(DaemonError::io("opening", &paths.tools()))
}

/// Held until the process ends; the operating system lets go of it in any case.
pub(super) fn lock(paths: &FleetPaths) -> Result<fs::File, DaemonError> {
    let path = paths.lock();
    let file = fs::File::create(&path).map_err(DaemonError::io("creating", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DaemonError::AlreadyRunning(
            paths.root().display().to_string(),
        )),
        Err(fs::TryLockError::Error(cause)) => Err(DaemonError::io("locking", &path)(cause)),
    }
}

/// Files can only be given away by root; else the containers run with our own uid.
fn owner_of_agents(config: &Config) -> Option<(u32, u32)> {
    let root = rustix::process::geteuid().is_root();
    root.then_some((config.container.uid, config.container.uid))
}

/// Everything found; what is left is to run it.
struct Fleetrun {
    house: Arc<House>,
    store: SqliteStore,
    queue: Queue,
    supervisor: Supervisor,
    options: RunOptions,
}

impl Fleetrun {
    async fn run(self, signals: Option<Signals>) -> Result<Ended, DaemonError> {
        let Self {
            house,
            store,
            queue,
            supervisor,
            options,
        } = self;
        let (inputs, received) = mpsc::channel(INPUTS);
        let (publisher, view) = watch::channel(Arc::new(empty_view(&supervisor, &house)));
        let driver = DriverHandle {
            inputs,
            view,
            herald: Arc::new(Herald::new(about(&house))),
            gates: house.gates.clone(),
            keeper: Arc::new(Keeper::of(&house)),
            tasks: Arc::new(TaskDoor {
                queue: queue.clone(),
                clock: house.clock.clone(),
                entropy: house.entropy.clone(),
                agents: agents(&house.config),
                lease: house.config.tasks.lease,
                attempts: house.config.tasks.attempts,
            }),
        };
        let end = CancellationToken::new();
        let tracker = TaskTracker::new();
        let doors = Doors::new(house.clone(), driver.clone(), end.clone(), tracker.clone());
        let agents = agents(&house.config);
        let lists = TaskLists {
            git: house.git.clone(),
            queue: queue.clone(),
            checkout: house.paths.agent(&AgentId::manager()).checkout(),
            scratch: house.scratch(),
            workers: house.config.worker_count,
        };
        // Whatever ends this function ends what it has begun.
        let _end_all = end.clone().drop_guard();
        let since = house.clock.now();
        let first = first_facts(&house, &lists).await?;
        // Only now: who can connect is served by a driver that runs.
        let announced = match doors.open_front(options.registry.as_deref()).await {
            Ok(announced) => announced,
            Err(error) => {
                leave_no_network(&*house.runtime, &house.config.project).await;
                return Err(error);
            }
        };
        let actions = QueueActions {
            queue: queue.clone(),
            lists: lists.clone(),
            agents,
            lease: house.config.tasks.lease,
            again: Vec::new(),
        };
        let effects = Effects::new(
            house.clone(),
            driver.clone(),
            doors.clone(),
            lists.clone(),
            tracker.clone(),
        );
        tracker.spawn(settle_ticks(lists.clone(), driver.clone(), end.clone()));
        let watchers = start_watchers(&house, &driver, &queue, since, &end, &tracker);
        if let Some(signals) = signals {
            let say = options.progress.clone();
            let driver = driver.clone();
            tokio::spawn(async move { signals.follow(driver, |text| say(text)).await });
        }
        let loop_ = Driver::new(
            supervisor,
            house.clone(),
            store.fleet_state(),
            actions,
            effects,
            publisher,
        );
        let ending = loop_.run(received, first).await;
        drop(watchers);
        end.cancel();
        house.gates.shut_down().await;
        close(&house, ending, &tracker).await;
        drop(announced);
        Ok(Ended { ending })
    }
}

/// What is true before anything is decided: the lists, the direction, the containers.
async fn first_facts(house: &House, lists: &TaskLists) -> Result<Vec<Event>, DaemonError> {
    let head = house
        .git
        .branch_head()
        .map_err(DaemonError::prerequisite("reading the branch"))?;
    let present = lists
        .direction_present(head)
        .await
        .map_err(DaemonError::prerequisite("reading the branch"))?;
    let inventory = take_inventory(house).await;
    let mut facts = vec![
        // Before the inventory: what is launched after it needs a credential.
        Event::PoolRead {
            credentials: house.pool.infos(),
        },
        Event::DirectionSeen { present },
        Event::InventoryTaken(inventory),
    ];
    facts.extend(made_from_other_settings(house).await);
    Ok(facts)
}

/// A container that works is left as it is, whatever the settings say now; people are told.
async fn made_from_other_settings(house: &House) -> Option<Event> {
    let containers = house.runtime.list(&house.config.project).await.ok()?;
    let wanted = agents(&house.config);
    let others: Vec<&str> = containers
        .iter()
        .filter(|c| c.running && wanted.contains(&c.agent) && !c.settings_hash.is_empty())
        .filter(|c| c.settings_hash != settings_hash(house, &c.agent))
        .map(|c| c.agent.as_str())
        .collect();
    let names = others.join(", ");
    (!others.is_empty()).then(|| Event::Noticed {
        agent: None,
        text: format!("running on in containers made from earlier settings: {names}"),
        hint: Some(
            "the new ones apply when each is started next; `orchestrator restart NAME` does it \
             now and keeps the conversation"
                .into(),
        ),
    })
}

/// What the next program that wants to run this fleet is told.
fn about(house: &House) -> About {
    let salt = house.entropy.uuid();
    let program = std::env::current_exe().unwrap_or_default();
    About {
        project: house.config.project.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: None,
        program: program.display().to_string(),
        pid: std::process::id(),
        started_at: house.clock.now(),
        settings: crate::config::settings(&house.config, &salt),
        salt,
    }
}

struct Watchers {
    _remote: Option<RemoteWatch>,
}

fn start_watchers(
    house: &Arc<House>,
    driver: &DriverHandle,
    queue: &Queue,
    since: crate::model::Timestamp,
    end: &CancellationToken,
    tracker: &TaskTracker,
) -> Watchers {
    tracker.spawn(find_missed_ends(house.clone(), driver.clone(), end.clone()));
    tracker.spawn(keep_tidy(driver.keeper.clone(), end.clone()));
    tracker.spawn(watch_disk(house.clone(), driver.clone(), end.clone()));
    tracker.spawn(keep_panes(house.clone(), driver.clone(), end.clone()));
    tracker.spawn(pool::follow(house.clone(), driver.clone(), end.clone()));
    tracker.spawn(gates::follow(house.clone(), driver.clone(), end.clone()));
    tracker.spawn(follow_engine(
        house.clone(),
        driver.clone(),
        since,
        end.clone(),
    ));
    let mut changes = queue.changes();
    let (queue_driver, queue_end) = (driver.clone(), end.clone());
    tracker.spawn(async move {
        loop {
            tokio::select! {
                () = queue_end.cancelled() => return,
                changed = changes.changed() => match changed {
                    Ok(()) => queue_driver.put(Input::QueueMoved).await,
                    Err(_) => return,
                },
            }
        }
    });
    let lists_end = end.clone();
    let checkout = house.paths.agent(&AgentId::manager()).checkout();
    tracker.spawn(watch_lists(checkout, driver.clone(), lists_end));
    let remote = Path::new(house.config.repository_url.trim_start_matches("file://")).to_owned();
    let remote = if remote.is_dir() {
        match RemoteWatch::start(&remote, driver.clone()) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "the remote is not watched; it is fetched at an interval");
                None
            }
        }
    } else {
        None
    };
    Watchers { _remote: remote }
}

/// The checkout is made with the manager's first launch; from then on it is watched.
async fn watch_lists(checkout: PathBuf, driver: DriverHandle, end: CancellationToken) {
    let mut view = driver.view.clone();
    loop {
        if checkout.is_dir() {
            match ListWatch::start(&checkout, driver.clone()) {
                Ok(_watch) => {
                    driver.put(Input::ListsTouched).await;
                    end.cancelled().await;
                    return;
                }
                Err(error) => tracing::warn!(%error, "task lists are not watched yet"),
            }
        }
        // Anything the fleet does may have made it.
        tokio::select! {
            () = end.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

/// Looks after ticked files until nobody can have the old ones open any more.
async fn settle_ticks(lists: TaskLists, driver: DriverHandle, end: CancellationToken) {
    let mut every = tokio::time::interval(SETTLE_TICKS);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = every.tick() => {}
        }
        match lists.settle().await {
            Ok(true) => driver.put(Input::ListsTouched).await,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "ticked task lists could not be looked after"),
        }
    }
}

fn empty_view(supervisor: &Supervisor, house: &House) -> FleetView {
    supervisor.view(house.clock.now())
}

/// Writes a file only its owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
