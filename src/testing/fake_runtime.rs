//! Containers in memory, with a script.
//!
//! Trusted because it passes the contract suite of the real runtime (`tests/contract/runtime.rs`).
//! By default a started container runs nothing and lives until it is killed; with
//! [`FakeRuntime::with_local_processes`] its command runs as a local process. `exec`, `run_once`
//! and `run_job` always run local processes, with the container's paths replaced by those of its
//! mounts on the host: good enough for git on a checkout mounted at `/workspace`.

mod failures;
mod process;
mod script;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{broadcast, watch};

use crate::model::{ProjectId, Timestamp};
use crate::ports::{
    AttachedTerminal, ContainerSpec, ErrorKind, ExecOutput, ExecSpec, ImageSpec, Job, JobEnd,
    JobOutput, NetworkInfo, ObservedContainer, PortError, PortResult, ProgressLine, Runtime,
    RuntimeEvent, RuntimeEventKind, RuntimeInfo, Vitals,
};
use crate::runtime::labels;
use failures::{away, missing, system_time};
use process::{Process, Terminal};

/// What was asked of the fake, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    EnsureNetwork(ProjectId),
    RemoveNetwork(ProjectId),
    EnsureImage(String),
    Start(String),
    Stop(String),
    Remove(String),
    Exec { name: String, command: Vec<String> },
    RunOnce { agent: String, command: Vec<String> },
    RunJob { agent: String, command: Vec<String> },
}

type OnStart = Arc<dyn Fn(&ContainerSpec) + Send + Sync>;
type OnJob = Arc<dyn Fn(&ContainerSpec) -> Option<PortResult<(Vec<u8>, JobEnd)>> + Send + Sync>;
type OnExec = Arc<dyn Fn(&str, &ExecSpec) -> Option<PortResult<ExecOutput>> + Send + Sync>;

/// A fake engine. Clones share it.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<(ProjectId, RuntimeEvent)>,
    reachable: watch::Sender<bool>,
    local_processes: bool,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<String, Container>,
    networks: BTreeMap<String, NetworkInfo>,
    images: BTreeMap<String, String>,
    calls: Vec<Call>,
    history: Vec<(ProjectId, RuntimeEvent)>,
    on_start: Option<OnStart>,
    on_exec: Option<OnExec>,
    on_job: Option<OnJob>,
    failures: VecDeque<PortError>,
    lost_answers: u32,
    now: Option<Timestamp>,
    made: u64,
}

struct Container {
    project: ProjectId,
    spec: ContainerSpec,
    observed: ObservedContainer,
    terminal: Terminal,
    size: Option<(u16, u16)>,
    process: Option<Process>,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeRuntime {
    /// An engine with no containers; any image asked for exists.
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            events: broadcast::Sender::new(1024),
            reachable: watch::Sender::new(true),
            local_processes: false,
        }
    }

    /// As `new`, and a container's command runs as a local process with its terminal as pipes.
    pub fn with_local_processes() -> Self {
        Self {
            local_processes: true,
            ..Self::new()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, attempt: &str) -> PortResult<()> {
        if *self.reachable.borrow() {
            return Ok(());
        }
        Err(away(attempt))
    }

    /// Marks the main process as ended and tells it. Only the first end counts.
    fn end(&self, name: &str, exit_code: i64, oom_killed: bool) -> bool {
        let (terminal, process) = {
            let mut state = self.state();
            let Some(container) = state.containers.get_mut(name) else {
                return false;
            };
            if !container.observed.running {
                return false;
            }
            container.observed.running = false;
            container.observed.exit_code = Some(exit_code);
            container.observed.oom_killed = oom_killed;
            (container.terminal.clone(), container.process.take())
        };
        terminal.close();
        if let Some(process) = process {
            process.kill();
        }
        self.tell(name, RuntimeEventKind::Died { exit_code })
    }

    fn tell(&self, name: &str, kind: RuntimeEventKind) -> bool {
        let mut state = self.state();
        let at = state.now.unwrap_or_else(system_time);
        let Some(container) = state.containers.get(name) else {
            return false;
        };
        let event = RuntimeEvent {
            name: name.to_owned(),
            agent: container.observed.agent.clone(),
            incarnation: container.observed.incarnation,
            at,
            kind,
        };
        let told = (container.project.clone(), event);
        state.history.push(told.clone());
        // Under the lock, so that a new subscriber sees each event once.
        let _ = self.events.send(told);
        true
    }

    /// Makes the container; `None` when one of this name is there already.
    fn create(&self, spec: &ContainerSpec) -> Option<ObservedContainer> {
        let name = spec.name();
        let mut state = self.state();
        if state.containers.contains_key(&name) {
            return None;
        }
        state.made += 1;
        let observed = ObservedContainer {
            id: format!("{:064x}", state.made),
            agent: spec.agent.clone(),
            incarnation: spec.incarnation,
            running: true,
            exit_code: None,
            oom_killed: false,
            spec_hash: labels::spec_hash(spec),
            settings_hash: spec.settings_hash.clone(),
            name: name.clone(),
        };
        let container = Container {
            project: spec.project.clone(),
            spec: spec.clone(),
            observed: observed.clone(),
            terminal: Terminal::default(),
            size: None,
            process: None,
        };
        state.containers.insert(name, container);
        Some(observed)
    }

    /// Runs the container's command as a local process and tells its end.
    fn launch(&self, spec: &ContainerSpec) -> PortResult<()> {
        let name = spec.name();
        let terminal = self.terminal(&name, "starting")?;
        let (process, end) = Process::spawn(spec, terminal)?;
        if let Some(container) = self.state().containers.get_mut(&name) {
            container.process = Some(process);
        }
        let fake = self.clone();
        tokio::spawn(async move {
            if let Ok(code) = end.await {
                fake.end(&name, code, false);
            }
        });
        Ok(())
    }

    fn terminal(&self, name: &str, attempt: &str) -> PortResult<Terminal> {
        let state = self.state();
        let container = state
            .containers
            .get(name)
            .ok_or_else(|| missing(attempt, name))?;
        Ok(container.terminal.clone())
    }

    fn scripted(&self, name: &str, command: &ExecSpec) -> Option<PortResult<ExecOutput>> {
        let script = self.state().on_exec.clone()?;
        script(name, command)
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    /// Throwaway containers of the fake never outlive their command.
    async fn remove_leftovers(&self, _project: &ProjectId) -> PortResult<usize> {
        self.reach("removing leftovers")?;
        Ok(0)
    }

    async fn probe(&self) -> PortResult<RuntimeInfo> {
        self.reach("asking for the version")?;
        Ok(RuntimeInfo {
            name: "fake".to_owned(),
            version: "1".to_owned(),
            api_version: "1".to_owned(),
        })
    }

    async fn ensure_network(&self, project: &ProjectId) -> PortResult<NetworkInfo> {
        self.reach("making the network")?;
        let mut state = self.state();
        state.calls.push(Call::EnsureNetwork(project.clone()));
        let name = labels::fleet_name(project);
        let info = NetworkInfo {
            name: name.clone(),
            gateway: "127.0.0.1".to_owned(),
        };
        Ok(state.networks.entry(name).or_insert(info).clone())
    }

    async fn remove_network(&self, project: &ProjectId) -> PortResult<()> {
        self.reach("removing the network")?;
        let mut state = self.state();
        state.calls.push(Call::RemoveNetwork(project.clone()));
        state.networks.remove(&labels::fleet_name(project));
        Ok(())
    }

    async fn ensure_image(
        &self,
        image: &ImageSpec,
        progress: ProgressLine<'_>,
    ) -> PortResult<String> {
        self.reach("making the image")?;
        let mut state = self.state();
        state.calls.push(Call::EnsureImage(image.tag.clone()));
        if let Some(id) = state.images.get(&image.tag) {
            return Ok(id.clone());
        }
        progress(&format!("building the image {}", image.tag));
        let id = format!("sha256:{:064x}", state.images.len() + 1);
        state.images.insert(image.tag.clone(), id.clone());
        Ok(id)
    }

    async fn image_id(&self, tag: &str) -> PortResult<Option<String>> {
        self.reach("looking for an image")?;
        Ok(self.state().images.get(tag).cloned())
    }

    async fn start(&self, spec: &ContainerSpec) -> PortResult<ObservedContainer> {
        let name = spec.name();
        let attempt = format!("starting container {name}");
        self.reach(&attempt)?;
        let failure = {
            let mut state = self.state();
            state.calls.push(Call::Start(name.clone()));
            state.failures.pop_front()
        };
        if let Some(error) = failure {
            return Err(error);
        }
        process::check_mounts(spec)?;
        if let Some(observed) = self.create(spec) {
            self.tell(&name, RuntimeEventKind::Started);
            if self.local_processes
                && let Err(error) = self.launch(spec)
            {
                self.state().containers.remove(&name);
                return Err(error);
            }
            let script = self.state().on_start.clone();
            if let Some(script) = script {
                script(spec);
            }
            let mut state = self.state();
            if state.lost_answers > 0 {
                state.lost_answers -= 1;
                return Err(away(&attempt));
            }
            return Ok(observed);
        }
        let state = self.state();
        state
            .containers
            .get(&name)
            .map(|container| container.observed.clone())
            .ok_or_else(|| missing(&attempt, &name))
    }

    async fn stop(&self, name: &str, grace: Duration) -> PortResult<()> {
        self.reach("stopping")?;
        let terminate = {
            let mut state = self.state();
            state.calls.push(Call::Stop(name.to_owned()));
            let Some(container) = state.containers.get(name) else {
                return Ok(());
            };
            container.process.as_ref().map(Process::terminate)
        };
        match terminate {
            // Without a process to ask, it does as it is told: 128 + SIGTERM.
            None => {
                self.end(name, 143, false);
            }
            Some(mut ended) => {
                let waited = tokio::time::timeout(grace, ended.wait_for(Option::is_some)).await;
                let code = match waited {
                    Ok(Ok(code)) => code.unwrap_or(137),
                    _ => 137,
                };
                self.end(name, code, false);
            }
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> PortResult<()> {
        self.reach("removing")?;
        let mut state = self.state();
        state.calls.push(Call::Remove(name.to_owned()));
        if state
            .containers
            .get(name)
            .is_some_and(|container| container.observed.running)
        {
            return Err(PortError::new(
                ErrorKind::Refused,
                format!("removing container {name}: it is running"),
            )
            .hint(format!("stop {name} first")));
        }
        state.containers.remove(name);
        Ok(())
    }

    async fn list(&self, project: &ProjectId) -> PortResult<Vec<ObservedContainer>> {
        self.reach("listing containers")?;
        let state = self.state();
        let ours = state
            .containers
            .values()
            .filter(|container| container.project == *project);
        Ok(ours.map(|container| container.observed.clone()).collect())
    }

    /// Every container of the fake computes all the time.
    async fn vitals(&self, name: &str) -> PortResult<Vitals> {
        let attempt = format!("measuring container {name}");
        self.reach(&attempt)?;
        let state = self.state();
        let container = state.containers.get(name);
        container
            .filter(|container| container.observed.running)
            .ok_or_else(|| missing(&attempt, name))?;
        let cpu = Duration::from_millis(u64::try_from(system_time().0).unwrap_or(0));
        Ok(Vitals { cpu, paused: false })
    }

    async fn exec(&self, name: &str, command: &ExecSpec) -> PortResult<ExecOutput> {
        let attempt = format!("running a command in container {name}");
        self.reach(&attempt)?;
        let spec = {
            let mut state = self.state();
            state.calls.push(Call::Exec {
                name: name.to_owned(),
                command: command.command.clone(),
            });
            let container = state
                .containers
                .get(name)
                .ok_or_else(|| missing(&attempt, name))?;
            if !container.observed.running {
                return Err(PortError::new(
                    ErrorKind::Refused,
                    format!("{attempt}: it is not running"),
                ));
            }
            container.spec.clone()
        };
        match self.scripted(name, command) {
            Some(scripted) => scripted,
            None => process::run(&spec, command, &attempt).await,
        }
    }

    async fn run_once(&self, spec: &ContainerSpec, command: &ExecSpec) -> PortResult<ExecOutput> {
        let attempt = format!("running a command for {}", spec.agent);
        self.reach(&attempt)?;
        self.state().calls.push(Call::RunOnce {
            agent: spec.agent.to_string(),
            command: command.command.clone(),
        });
        process::check_mounts(spec)?;
        match self.scripted(spec.agent.as_str(), command) {
            Some(scripted) => scripted,
            None => process::run(spec, command, &attempt).await,
        }
    }

    /// The engine may go away while it runs, which ends the job with an error. The network is this
    /// machine's, whatever the specification says.
    async fn run_job(&self, job: &Job, output: JobOutput<'_>) -> PortResult<JobEnd> {
        let attempt = format!("running {}", job.spec.agent);
        self.reach(&attempt)?;
        self.state().calls.push(Call::RunJob {
            agent: job.spec.agent.to_string(),
            command: job.spec.command.clone(),
        });
        process::check_mounts(&job.spec)?;
        let script = self.state().on_job.clone();
        if let Some(scripted) = script.and_then(|script| script(&job.spec)) {
            let (printed, end) = scripted?;
            output(&printed);
            return Ok(end);
        }
        let mut reachable = self.reachable.subscribe();
        tokio::select! {
            end = process::run_job(job, output, &attempt) => end,
            _ = reachable.wait_for(|reachable| !reachable) => Err(away(&attempt)),
        }
    }

    async fn events(
        &self,
        project: &ProjectId,
        since: Option<Timestamp>,
    ) -> PortResult<BoxStream<'static, PortResult<RuntimeEvent>>> {
        const ATTEMPT: &str = "following events";
        self.reach(ATTEMPT)?;
        let (past, live) = {
            let state = self.state();
            let past: Vec<_> = since.map_or_else(Vec::new, |since| {
                let later = state.history.iter().filter(|(_, event)| event.at >= since);
                later.cloned().collect()
            });
            (past, self.events.subscribe())
        };
        let live = tokio_stream::wrappers::BroadcastStream::new(live)
            .filter_map(|event| async move { event.ok() });
        let mut reachable = self.reachable.subscribe();
        let gone = async move {
            // An error is the fake's own end, which is the engine's.
            let _ = reachable.wait_for(|reachable| !reachable).await;
        };
        let project = project.clone();
        let told = stream::iter(past).chain(live).take_until(Box::pin(gone));
        let ours = told.filter_map(move |(of, event)| {
            let ours = of == project;
            async move { ours.then_some(Ok(event)) }
        });
        Ok(ours
            .chain(stream::once(async { Err(away(ATTEMPT)) }))
            .boxed())
    }

    async fn logs(
        &self,
        name: &str,
        tail: Option<usize>,
        follow: bool,
    ) -> PortResult<BoxStream<'static, PortResult<Bytes>>> {
        self.reach("reading the log")?;
        Ok(self.terminal(name, "reading the log")?.read(tail, follow))
    }

    async fn attach(&self, name: &str) -> PortResult<AttachedTerminal> {
        let attempt = format!("attaching to container {name}");
        self.reach(&attempt)?;
        let terminal = self.terminal(name, &attempt)?;
        let running = self
            .state()
            .containers
            .get(name)
            .is_some_and(|c| c.observed.running);
        if !running {
            return Err(PortError::new(
                ErrorKind::Refused,
                format!("{attempt}: it has ended"),
            ));
        }
        Ok(AttachedTerminal {
            output: terminal.read(Some(0), true),
            input: terminal.input(),
        })
    }

    async fn resize(&self, name: &str, columns: u16, rows: u16) -> PortResult<()> {
        let attempt = format!("resizing the terminal of {name}");
        self.reach(&attempt)?;
        let mut state = self.state();
        let container = state
            .containers
            .get_mut(name)
            .ok_or_else(|| missing(&attempt, name))?;
        container.size = Some((columns, rows));
        Ok(())
    }
}
