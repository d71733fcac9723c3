//! DOES: an action becomes calls on the ports, and its result an event.
//!
//! Actions of one agent run in order, different agents side by side; merges have one queue, pushes
//! and fetches another, so that a remote that hangs holds up no merge. Gates, which may run for long, a
//! stop, a look at the screen and a snapshot at an interval wait for nobody; a snapshot before a launch is
//! done before it.

mod compose;
mod deliver;
mod examine;
mod instance;
mod launch;
mod lend;
mod refs;
mod rescue;
mod session;
mod train;

pub(super) use launch::settings_hash;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use launch::TakingUp;

use super::doors::Doors;
use super::handle::{DriverHandle, Input};
use super::house::House;
use super::keeping::Keeper;
use super::lists::TaskLists;
use super::usage::TokenCounts;
use crate::model::{AgentId, CredentialId, Incarnation, RescueCause};
use crate::ports::{ObservedContainer, PortResult};
use crate::supervisor::{Action, Event, Inventory, SeenContainer};

/// Actions of one agent that wait. The supervisor has at most a few in flight for each.
const WAITING: usize = 256;

/// An action with what the supervisor's state says about it.
struct Job {
    action: Action,
    credential: Option<CredentialId>,
}

pub(super) struct Effects {
    shared: Arc<Shared>,
    lanes: BTreeMap<AgentId, mpsc::Sender<Job>>,
    git: mpsc::Sender<Job>,
    remote: mpsc::Sender<Job>,
    tracker: TaskTracker,
}

pub(super) struct Shared {
    pub(super) house: Arc<House>,
    pub(super) driver: DriverHandle,
    pub(super) doors: Doors,
    pub(super) lists: TaskLists,
    keeper: Arc<Keeper>,
    turns: Turns,
    /// Held from a move of the branch until the driver is told, so that it hears of moves in order.
    branch: tokio::sync::Mutex<()>,
    compose: compose::ComposeFile,
    tokens: Arc<TokenCounts>,
    status_lines: examine::StatusLines,
    /// How often each agent's Claude Code has said that it has read its settings again.
    settings_read: tokio::sync::watch::Sender<BTreeMap<AgentId, u64>>,
}

/// Start and stop of one agent exclude each other, and a stop is remembered: a launch of that life
/// that has not begun yet must not begin any more.
#[derive(Default)]
struct Turns {
    agents: std::sync::Mutex<BTreeMap<AgentId, Arc<tokio::sync::Mutex<Option<Incarnation>>>>>,
}

impl Turns {
    /// The newest life that was stopped, to be locked.
    fn of(&self, agent: &AgentId) -> Arc<tokio::sync::Mutex<Option<Incarnation>>> {
        // A poisoned lock only means that another task panicked between two look-ups.
        let mut agents = self
            .agents
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        agents.entry(agent.clone()).or_default().clone()
    }
}

impl Effects {
    pub(super) fn new(
        house: Arc<House>,
        driver: DriverHandle,
        doors: Doors,
        lists: TaskLists,
        tracker: TaskTracker,
    ) -> Self {
        let keeper = driver.keeper.clone();
        let shared = Arc::new(Shared {
            house,
            driver,
            doors,
            lists,
            keeper,
            turns: Turns::default(),
            branch: tokio::sync::Mutex::default(),
            compose: compose::ComposeFile::default(),
            tokens: Arc::default(),
            status_lines: examine::StatusLines::default(),
            settings_read: tokio::sync::watch::Sender::default(),
        });
        let git = lane(&shared, &tracker);
        let remote = lane(&shared, &tracker);
        Self {
            shared,
            lanes: BTreeMap::new(),
            git,
            remote,
            tracker,
        }
    }

    /// Reads an agent's transcripts on, beside everything else.
    pub(super) fn count_tokens(&self, agent: &AgentId) {
        let (shared, agent) = (self.shared.clone(), agent.clone());
        self.tracker.spawn(async move {
            let home = shared.house.paths.agent(&agent).home();
            let (counts, id) = (shared.tokens.clone(), agent.clone());
            let counted = tokio::task::spawn_blocking(move || counts.update(&id, &home)).await;
            if let Ok(tokens) = counted {
                shared.driver.put(Input::Tokens { agent, tokens }).await;
            }
        });
    }

    /// An agent's Claude Code has read its settings again.
    pub(super) fn settings_were_read(&self, agent: &AgentId) {
        self.shared
            .settings_read
            .send_modify(|counts| *counts.entry(agent.clone()).or_default() += 1);
    }

    pub(super) fn start(&mut self, action: Action, credential: Option<CredentialId>) {
        let lane = match &action {
            Action::BuildStack { .. } | Action::Land { .. } => self.git.clone(),
            Action::Push { .. } | Action::FetchRemote => self.remote.clone(),
            Action::Launch { agent, .. }
            | Action::Adopt { agent, .. }
            | Action::EnsurePane { agent }
            | Action::Paste { agent, .. }
            | Action::Lend { agent, .. }
            | Action::CloseDialog { agent, .. }
            | Action::Rescue {
                agent,
                cause: RescueCause::Death,
                ..
            }
            | Action::Import { agent, .. } => self.lane_of(&agent.clone()),
            _ => {
                let shared = self.shared.clone();
                self.tracker
                    .spawn(async move { shared.carry_out(Job { action, credential }).await });
                return;
            }
        };
        if let Action::Import { after, .. } = action
            && !after.is_zero()
        {
            let shared = self.shared.clone();
            self.tracker.spawn(async move {
                if !shared.doors.wait_or_end(after).await {
                    let _ended = lane.send(Job { action, credential }).await;
                }
            });
            return;
        }
        if let Err(error) = lane.try_send(Job { action, credential }) {
            // Cannot happen with the bounds above; if it does, the next inventory repairs it.
            tracing::error!(%error, "an action was dropped: its lane is full");
        }
    }

    fn lane_of(&mut self, agent: &AgentId) -> mpsc::Sender<Job> {
        let (shared, tracker) = (&self.shared, &self.tracker);
        self.lanes
            .entry(agent.clone())
            .or_insert_with(|| lane(shared, tracker))
            .clone()
    }
}

fn lane(shared: &Arc<Shared>, tracker: &TaskTracker) -> mpsc::Sender<Job> {
    let (sender, mut jobs) = mpsc::channel::<Job>(WAITING);
    let shared = shared.clone();
    tracker.spawn(async move {
        while let Some(job) = jobs.recv().await {
            // Nobody would hear of it; the next start derives it again.
            if shared.doors.ended() {
                return;
            }
            shared.carry_out(job).await;
        }
    });
    sender
}

impl Shared {
    async fn carry_out(&self, job: Job) {
        let Job { action, credential } = job;
        match action {
            Action::Launch {
                agent,
                incarnation,
                session,
                resume,
                go_on,
            } => {
                let taking_up = TakingUp {
                    session,
                    resume,
                    go_on,
                };
                self.launch(agent, incarnation, taking_up, credential).await;
            }
            Action::Adopt { agent, incarnation } => self.adopt(&agent, incarnation).await,
            Action::EnsurePane { agent } => self.ensure_pane(&agent).await,
            Action::CheckScreen {
                agent,
                incarnation,
                after,
            } => {
                if self.doors.wait_or_end(after).await {
                    return;
                }
                self.check_screen(agent, incarnation).await;
            }
            Action::Examine { agent, incarnation } => self.examine(agent, incarnation).await,
            Action::CheckSession {
                agent,
                incarnation,
                after,
            } => {
                if self.doors.wait_or_end(after).await {
                    return;
                }
                self.check_session(agent, incarnation).await;
            }
            Action::Rescue {
                agent,
                incarnation,
                cause,
            } => self.rescue(&agent, incarnation, cause).await,
            Action::StopContainer {
                agent,
                incarnation,
                grace,
            } => {
                self.stop(agent, incarnation, grace).await;
            }
            Action::TakeInventory { after } => {
                if self.doors.wait_or_end(after).await {
                    return;
                }
                let inventory = self.inventory().await;
                self.driver.tell(Event::InventoryTaken(inventory)).await;
            }
            Action::Paste {
                agent,
                incarnation,
                text,
                bring_up_to,
                clear,
            } => {
                self.paste(agent, incarnation, &text, bring_up_to, clear)
                    .await;
            }
            Action::Import {
                agent,
                incarnation,
                head,
                claims,
                after: _,
            } => self.import(agent, incarnation, head, claims).await,
            Action::BuildStack { stack, candidates } => self.build_stack(stack, candidates).await,
            Action::RunGates { stack, commit, all } => {
                Box::pin(self.run_gates(stack, commit, all)).await;
            }
            Action::Land { stack, from, to } => self.land(stack, from, to).await,
            Action::Push { after } => {
                if self.doors.wait_or_end(after).await {
                    return;
                }
                self.push().await;
            }
            Action::FetchRemote => self.fetch().await,
            Action::Lend {
                agent,
                incarnation,
                credential,
            } => self.lend(agent, incarnation, credential).await,
            Action::Refresh { credential } => self.refresh(credential).await,
            Action::CloseDialog {
                agent,
                incarnation,
                name,
            } => self.close_dialog(agent, incarnation, name).await,
            Action::Claim { .. }
            | Action::Answer { .. }
            | Action::Complete { .. }
            | Action::Release { .. }
            | Action::NoteAttempts { .. }
            | Action::RetryTask { .. }
            | Action::CancelTask { .. }
            | Action::CreateTask(_)
            | Action::ReadTaskLists
            | Action::Finish { .. } => {
                tracing::error!(?action, "the driver's own action came to the effects");
            }
        }
    }

    async fn ensure_pane(&self, agent: &AgentId) {
        if self.doors.end().is_cancelled() {
            return;
        }
        let command = self.house.view_of(agent);
        if let Err(error) = self.house.panes.ensure(agent, &command).await {
            let text = format!("its pane could not be opened: {}", error.chain());
            let hint = error.hint;
            self.driver
                .tell(Event::Noticed {
                    agent: Some(agent.clone()),
                    text,
                    hint,
                })
                .await;
        }
    }

    /// Without its door an agent would work unheard for ever, so this is tried again until it works.
    async fn adopt(&self, agent: &AgentId, incarnation: Incarnation) {
        tracing::info!(%agent, %incarnation, "adopted");
        let mut delay = Duration::from_secs(1);
        while let Err(error) = self.doors.open(agent).await {
            let text = format!("its hook socket could not be opened yet: {error}");
            self.driver
                .tell(Event::Noticed {
                    agent: Some(agent.clone()),
                    text,
                    hint: None,
                })
                .await;
            if self.doors.wait_or_end(delay).await {
                return;
            }
            delay = (delay * 2).min(Duration::from_secs(60));
        }
    }

    async fn stop(&self, agent: AgentId, incarnation: Incarnation, grace: Duration) {
        let name =
            crate::ports::runtime::container_name(&self.house.config.project, &agent, incarnation);
        // A start that is under way is waited for: what does not exist yet cannot be stopped.
        let turn = self.turns.of(&agent);
        let mut stopped = turn.lock().await;
        *stopped = (*stopped).max(Some(incarnation));
        self.rescue(&agent, incarnation, RescueCause::Stop).await;
        if let Err(error) = self.house.runtime.stop(&name, grace).await {
            let text = format!("its container could not be stopped: {}", error.chain());
            let hint = error.hint;
            self.driver
                .tell(Event::Noticed {
                    agent: Some(agent.clone()),
                    text,
                    hint,
                })
                .await;
            drop(stopped);
            // Unknown is not gone: what is true comes from a fresh inventory.
            if self.doors.wait_or_end(Duration::from_secs(2)).await {
                return;
            }
            let inventory = self.inventory().await;
            self.driver.tell(Event::InventoryTaken(inventory)).await;
            return;
        }
        let seen = self.find(&name).await.ok().flatten();
        self.house.lives.fetch_add(1, Ordering::SeqCst);
        self.driver
            .tell(Event::Exited {
                agent,
                incarnation,
                exit_code: seen.as_ref().and_then(|c| c.exit_code),
                out_of_memory: seen.is_some_and(|c| c.starved()),
            })
            .await;
    }

    pub(super) async fn find(&self, name: &str) -> PortResult<Option<ObservedContainer>> {
        let all = self.house.runtime.list(&self.house.config.project).await?;
        Ok(all.into_iter().find(|container| container.name == name))
    }

    pub(super) async fn inventory(&self) -> Inventory {
        take_inventory(&self.house).await
    }
}

/// Made again while containers begin or end meanwhile: an inventory that does not show a container
/// whose start the driver has heard of would look like its end.
pub(super) async fn take_inventory(house: &House) -> Inventory {
    const TRIES: u32 = 10;
    let mut tries = 0;
    loop {
        let before = house.lives.load(Ordering::SeqCst);
        let inventory = list(house).await;
        tries += 1;
        if house.lives.load(Ordering::SeqCst) == before || tries == TRIES {
            return inventory;
        }
    }
}

async fn list(house: &House) -> Inventory {
    match house.runtime.list(&house.config.project).await {
        Ok(containers) => Inventory::Seen(
            containers
                .into_iter()
                .map(|c| SeenContainer {
                    out_of_memory: c.starved(),
                    name: c.name,
                    agent: c.agent,
                    incarnation: c.incarnation,
                    running: c.running,
                    exit_code: c.exit_code,
                })
                .collect(),
        ),
        Err(error) => Inventory::Unreachable {
            reason: error.chain(),
        },
    }
}
