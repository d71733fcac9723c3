//! Looks at the fleet all the time, from outside: what the supervisor says while there is one, and
//! which containers run, whatever it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::super::demo::stage::Stage;
use super::super::output;
use crate::client::Client;
use crate::model::view::{FleetView, Notice};
use crate::model::{AgentId, ProjectId};
use crate::ports::Runtime as _;
use crate::runtime::docker::DockerRuntime;

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(150);

/// The engine is asked a little less often.
const LOOKS_PER_LIST: u32 = 3;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The newest snapshot and when it came.
    pub(super) view: Option<(Instant, FleetView)>,
    /// Agents that had two containers running at once, with their names.
    pub(super) two_at_once: BTreeSet<String>,
    /// Agents the supervisor gave up, with its reason.
    pub(super) given_up: BTreeMap<AgentId, String>,
    /// Most agents' lives seen; for the summary.
    pub(super) restarts: BTreeMap<AgentId, u32>,
    notices: Vec<Notice>,
}

/// Runs until it is dropped.
pub(super) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn start(stage: &Stage, verbose: bool) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(watch(
            seen.clone(),
            stage.client.clone(),
            stage.runtime.clone(),
            stage.config.project.clone(),
            verbose,
        ));
        Self { seen, task }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    pub(super) fn view(&self) -> Option<FleetView> {
        self.seen().view.as_ref().map(|(_, view)| view.clone())
    }

    /// A snapshot that came after this moment.
    pub(super) fn view_since(&self, moment: Instant) -> Option<FleetView> {
        let seen = self.seen();
        let (at, view) = seen.view.as_ref()?;
        (*at > moment).then(|| view.clone())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Sets and snapshots are replaced whole: a panic elsewhere leaves nothing half done.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(
    seen: Arc<Mutex<Seen>>,
    client: Client,
    runtime: DockerRuntime,
    project: ProjectId,
    verbose: bool,
) {
    let mut looks = 0_u32;
    loop {
        let asked = Instant::now();
        if let Ok(view) = client.status().await {
            lock(&seen).take(asked, view, verbose);
        }
        if looks.is_multiple_of(LOOKS_PER_LIST)
            && let Ok(containers) = runtime.list(&project).await
        {
            let mut running: BTreeMap<AgentId, Vec<String>> = BTreeMap::new();
            for container in containers.into_iter().filter(|container| container.running) {
                running
                    .entry(container.agent)
                    .or_default()
                    .push(container.name);
            }
            let twice = running.values().filter(|names| names.len() > 1);
            let twice: Vec<String> = twice.map(|names| names.join(" and ")).collect();
            lock(&seen).two_at_once.extend(twice);
        }
        looks = looks.wrapping_add(1);
        tokio::time::sleep(LOOK).await;
    }
}

impl Seen {
    fn take(&mut self, asked: Instant, view: FleetView, verbose: bool) {
        for agent in &view.agents {
            self.restarts.insert(agent.id.clone(), agent.restarts);
            if agent.state == "failed" {
                self.given_up.insert(agent.id.clone(), agent.reason.clone());
            }
        }
        if verbose {
            for notice in &view.notices {
                if !self.notices.contains(notice) {
                    let who = notice.agent.as_ref().map_or("fleet", AgentId::as_str);
                    output::say(&format!("    {who:<9} {}", notice.text));
                }
            }
        }
        self.notices.clone_from(&view.notices);
        self.view = Some((asked, view));
    }
}
