//! Making a fault, taking it away, and telling when it is got over.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::super::demo::stage::Stage;
use super::super::error::Result;
use super::super::{Error, Exit};
use super::dice::Dice;
use super::disk::SmallDisk;
use super::fault::Fault;
use super::own_engine::OwnEngine;
use crate::model::view::{AgentView, FleetView};
use crate::model::{AgentId, Incarnation, SessionId, Timestamp};
use crate::ports::{ExecSpec, Runtime as _};
use crate::testing::scripted_model::{Answered, RequestKind};

/// What a fault that lasts lasts.
const SHORTEST: Duration = Duration::from_millis(1500);
const LONGEST: Duration = Duration::from_secs(6);

/// A start without an image to build takes well under a second, on a full disk it may not come up.
const START: Duration = Duration::from_secs(90);

/// A credential's limit ends after this. Claude Code tells people the minute, not the second.
const RESET: Duration = Duration::from_secs(60);

const HOUR_MS: i64 = 3_600_000;

/// What faults are made with, beside the stage.
pub(super) struct Tools {
    pub(super) disk: Option<SmallDisk>,
    pub(super) engine: Option<OwnEngine>,
    /// What the supervisor's wall clock is off by.
    pub(super) clock: PathBuf,
}

impl Tools {
    /// Takes away whatever a fault that was cut off has left.
    pub(super) async fn make_good(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(disk) = &self.disk {
            disk.free()?;
        }
        if let Some(engine) = self.engine.as_mut().filter(|engine| !engine.is_started()) {
            engine.start().await?;
        }
        if !stage.supervisor.is_started() {
            stage.supervisor.start(START).await?;
        }
        Ok(())
    }
}

/// A fault that was made.
pub(super) struct Blow {
    pub(super) fault: Fault,
    pub(super) targets: Vec<AgentId>,
    before: BTreeMap<AgentId, Before>,
    /// How long it is to last.
    pub(super) hold: Duration,
    container: Option<String>,
    begun: Instant,
    /// From here recovery counts: made, or taken away again if it lasts.
    since: (Instant, Timestamp),
}

struct Before {
    incarnation: Incarnation,
    session: Option<SessionId>,
    last_hook_at: Option<Timestamp>,
    busy: bool,
}

impl Blow {
    /// Chooses whom it hits, and hits.
    pub(super) async fn begin(
        fault: Fault,
        stage: &mut Stage,
        tools: &mut Tools,
        view: &FleetView,
        dice: &mut Dice,
    ) -> Result<Self> {
        let targets = targets(fault, view, dice);
        let container = view
            .agents
            .iter()
            .find(|agent| targets.first() == Some(&agent.id))
            .and_then(|agent| agent.container.clone());
        let hold = match fault {
            Fault::Container | Fault::Tmux | Fault::Pane | Fault::Limit => Duration::ZERO,
            Fault::Supervisor => dice.between(Duration::from_millis(100), Duration::from_secs(4)),
            _ => dice.between(SHORTEST, LONGEST),
        };
        let ahead = dice.one_in(2);
        let before = view
            .agents
            .iter()
            .filter(|agent| targets.contains(&agent.id));
        let before = before
            .map(|agent| (agent.id.clone(), Before::of(agent)))
            .collect();
        let mut blow = Self {
            fault,
            targets,
            before,
            hold,
            container,
            begun: Instant::now(),
            since: now(),
        };
        blow.make(stage, tools, ahead).await?;
        blow.since = now();
        Ok(blow)
    }

    async fn make(&self, stage: &mut Stage, tools: &mut Tools, ahead: bool) -> Result<()> {
        match self.fault {
            Fault::Supervisor => stage.supervisor.kill(),
            Fault::Container => stage.engine.kill(self.container()?).await,
            Fault::Tmux => {
                tmux(stage, &["kill-server"]).await?;
                Ok(())
            }
            Fault::Pane => kill_client(stage, &self.targets[0]).await,
            Fault::Network => {
                let network = crate::runtime::labels::fleet_name(&stage.config.project);
                stage.engine.disconnect(&network, self.container()?).await
            }
            Fault::Freeze => signal_agent(stage, self.container()?, "STOP").await,
            Fault::Clock => {
                let offset = if ahead { HOUR_MS } else { -HOUR_MS };
                set_clock(tools, offset)
            }
            Fault::Disk => tools.disk.as_ref().map_or(Ok(()), SmallDisk::fill),
            Fault::Limit => {
                if let Some(credential) = self.credential(stage) {
                    stage.limits.spend(&credential, now().1 + RESET);
                }
                Ok(())
            }
            Fault::Engine => match &mut tools.engine {
                Some(engine) => engine.stop().await,
                None => Ok(()),
            },
        }
    }

    /// Takes it away again.
    pub(super) async fn end(&mut self, stage: &mut Stage, tools: &mut Tools) -> Result<()> {
        if self.hold.is_zero() {
            return Ok(());
        }
        match self.fault {
            Fault::Supervisor => stage.supervisor.start(START).await?,
            Fault::Network => {
                let network = crate::runtime::labels::fleet_name(&stage.config.project);
                let back = stage.engine.connect(&network, self.container()?).await;
                if self.still_there(stage).await {
                    back?;
                }
            }
            Fault::Freeze => {
                let back = signal_agent(stage, self.container()?, "CONT").await;
                if self.still_there(stage).await {
                    back?;
                }
            }
            Fault::Clock => set_clock(tools, 0)?,
            Fault::Disk => tools.disk.as_ref().map_or(Ok(()), SmallDisk::free)?,
            Fault::Engine => {
                if let Some(engine) = &mut tools.engine {
                    engine.start().await?;
                }
            }
            Fault::Container | Fault::Tmux | Fault::Pane | Fault::Limit => {}
        }
        self.since = now();
        Ok(())
    }

    /// The one that the agent asked the model with last.
    fn credential(&self, stage: &Stage) -> Option<String> {
        let before = self.before.get(self.targets.first()?)?;
        let requests = stage.model.requests();
        let mut last = requests.iter().rev();
        let asked = last.find(|record| record.session == before.session)?;
        Some(asked.credential.clone())
    }

    /// Its container may have ended meanwhile, by a second fault.
    async fn still_there(&self, stage: &Stage) -> bool {
        let listed = stage.runtime.list(&stage.config.project).await;
        listed.is_ok_and(|containers| {
            containers
                .iter()
                .any(|found| Some(&found.name) == self.container.as_ref() && found.running)
        })
    }

    fn container(&self) -> Result<&str> {
        self.container
            .as_deref()
            .ok_or_else(|| Error::new(Exit::Failure, "the agent to hit has no container"))
    }

    pub(super) fn since(&self) -> Instant {
        self.since.0
    }

    /// From when it was made until it was taken away.
    pub(super) fn lasted(&self) -> Duration {
        self.since.0 - self.begun
    }

    /// Whose work has not gone on yet, and why; nobody: it is got over.
    pub(super) async fn missing(&self, stage: &Stage, view: &FleetView) -> Vec<String> {
        let panes = match self.fault {
            Fault::Tmux | Fault::Pane => Some(tmux(stage, &PANES).await.unwrap_or_default()),
            _ => None,
        };
        let mut missing = Vec::new();
        for agent in view
            .agents
            .iter()
            .filter(|agent| self.targets.contains(&agent.id))
        {
            if let Some(why) = self.lacks(stage, agent, panes.as_deref()) {
                missing.push(format!(
                    "{} {why} ({}: {})",
                    agent.id, agent.state, agent.reason
                ));
            }
        }
        missing
    }

    fn lacks(&self, stage: &Stage, agent: &AgentView, panes: Option<&str>) -> Option<&'static str> {
        let before = self.before.get(&agent.id)?;
        if agent.container.is_none() {
            return Some("has no container");
        }
        if !matches!(agent.state.as_str(), "idle" | "working" | "delivering") {
            return Some("is not at work");
        }
        if self.fault == Fault::Container && agent.incarnation <= before.incarnation {
            return Some("was not started again");
        }
        if let Some(panes) = panes {
            let shown = panes.lines().any(|line| line == format!("{} 0", agent.id));
            return (!shown).then_some("is shown in no pane");
        }
        let rests = agent.state == "idle" && agent.queued == 0 && agent.task.is_none();
        if rests || !before.busy {
            return None;
        }
        if !self.asked_since(stage, agent) {
            return Some("did not ask the model again");
        }
        let by_hooks = matches!(self.fault, Fault::Supervisor | Fault::Disk | Fault::Clock);
        let heard = agent.last_hook_at != before.last_hook_at;
        (by_hooks && !heard).then_some("was not heard of again")
    }

    fn asked_since(&self, stage: &Stage, agent: &AgentView) -> bool {
        let before = self.before.get(&agent.id);
        let session = |record: &crate::testing::scripted_model::RequestRecord| {
            record.session == agent.session
                || before.is_some_and(|before| record.session == before.session)
        };
        stage.model.requests().iter().rev().any(|record| {
            record.at > self.since.1
                && record.kind == RequestKind::Turn
                && matches!(record.answered, Answered::Turn { .. })
                && session(record)
        })
    }
}

impl Before {
    fn of(agent: &AgentView) -> Self {
        Self {
            incarnation: agent.incarnation,
            session: agent.session.clone(),
            last_hook_at: agent.last_hook_at,
            busy: agent.task.is_some(),
        }
    }
}

/// One agent, most often one in the middle of a task; or all.
fn targets(fault: Fault, view: &FleetView, dice: &mut Dice) -> Vec<AgentId> {
    if !fault.hits_one() {
        return view.agents.iter().map(|agent| agent.id.clone()).collect();
    }
    // Thrown in any case: the throws after it are the same whoever works.
    let any = dice.one_in(6);
    let present = |agent: &&AgentView| agent.container.is_some();
    let busy: Vec<&AgentView> = view
        .agents
        .iter()
        .filter(|agent| agent.state == "working" && agent.task.is_some())
        .filter(present)
        .collect();
    let all: Vec<&AgentView> = view.agents.iter().filter(present).collect();
    let from = if any || busy.is_empty() { &all } else { &busy };
    let chosen = dice.pick(from).map(|agent| agent.id.clone());
    chosen.into_iter().collect()
}

const PANES: [&str; 4] = ["list-panes", "-a", "-F", "#{session_name} #{pane_dead}"];

async fn tmux(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let output = Command::new("tmux")
        .args(["-L", &stage.socket()])
        .args(arguments)
        .output()
        .await
        .map_err(|error| Error::io("cannot run tmux", &error))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program that shows the agent in its pane.
async fn kill_client(stage: &Stage, agent: &AgentId) -> Result<()> {
    let target = format!("={agent}:");
    let shown = tmux(stage, &["list-panes", "-t", &target, "-F", "#{pane_pid}"]).await?;
    for pid in shown.lines().filter_map(|line| line.trim().parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // It may have ended by itself just now.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    Ok(())
}

/// Every process in the container but its init, which could not be woken again from inside.
async fn signal_agent(stage: &Stage, container: &str, signal: &str) -> Result<()> {
    let script = format!(
        "for one in /proc/[0-9]*; do pid=${{one#/proc/}}; [ $pid = 1 ] || [ $pid = $$ ] || \
         kill -{signal} $pid 2>/dev/null; done; true"
    );
    let command = ExecSpec {
        command: vec!["sh".into(), "-c".into(), script],
        working_directory: None,
        environment: BTreeMap::new(),
        stdin: Vec::new(),
        max_output_bytes: 4096,
        deadline: Duration::from_secs(20),
    };
    stage
        .runtime
        .exec(container, &command)
        .await
        .map(|_| ())
        .map_err(super::super::wiring::port_error)
}

fn set_clock(tools: &Tools, offset: i64) -> Result<()> {
    // By rename: the supervisor may read it at any moment.
    let new = tools.clock.with_extension("new");
    fs::write(&new, format!("{offset}\n"))
        .and_then(|()| fs::rename(&new, &tools.clock))
        .map_err(|error| Error::io("cannot set the clock", &error))
}

fn now() -> (Instant, Timestamp) {
    let wall = Timestamp(jiff::Timestamp::now().as_millisecond());
    (Instant::now(), wall)
}
