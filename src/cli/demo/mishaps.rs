//! What breaks in the demo, on purpose: the credential of a worker reaches its limit and a container
//! is killed, each in the middle of a task, then the supervisor itself. How each was got over is taken
//! from the fleet and from the model's record.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::error::Result;
use super::super::output;
use super::stage::Stage;
use crate::model::view::{AgentView, FleetView};
use crate::model::{AgentId, SessionId, Timestamp};
use crate::testing::sample;
use crate::testing::scripted_model::{Answered, RequestKind, RequestRecord};

/// How long there is no supervisor.
const ABSENCE: Duration = Duration::from_secs(1);

/// When the limit ends: long after the demo.
const RESET: Duration = Duration::from_secs(3600);

/// A start without an image to build takes well under a second.
const START: Duration = Duration::from_secs(60);

/// One thing that broke.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Mishap {
    pub(super) what: &'static str,
    pub(super) agent: Option<AgentId>,
    pub(super) recovered: bool,
    /// From the moment it broke until work went on.
    pub(super) seconds: Option<f64>,
    pub(super) detail: String,
}

/// The limit and the container at once, the supervisor when both are got over.
#[derive(Default)]
pub(super) struct Mishaps {
    limit: Course<Spent>,
    container: Course<Killed>,
    supervisor: Course<Absent>,
}

/// Where one mishap stands.
#[derive(Default)]
enum Course<T> {
    #[default]
    ToCome,
    UnderWay(T),
    Over(Mishap),
}

/// An agent whose container was killed.
struct Killed {
    agent: AgentId,
    before: AgentView,
    at: Instant,
    since: Timestamp,
}

/// The supervisor was killed and is there again.
struct Absent {
    before: FleetView,
    at: Instant,
    /// When the new one was up.
    back_at: Timestamp,
    /// What the model was asked while there was none.
    requests: u64,
}

/// A worker whose credential reached its limit.
struct Spent {
    before: AgentView,
    since: Timestamp,
    credential: String,
}

impl<T> Course<T> {
    fn is_over(&self) -> bool {
        matches!(self, Self::Over(_))
    }

    fn is_under_way(&self) -> bool {
        matches!(self, Self::UnderWay(_))
    }

    /// What became of it, whether it came to an end or not.
    fn told(&self, what: &'static str) -> Mishap {
        let detail = match self {
            Self::Over(mishap) => return mishap.clone(),
            Self::UnderWay(_) => "work did not go on",
            Self::ToCome => "the moment for it did not come",
        };
        Mishap {
            what,
            agent: None,
            recovered: false,
            seconds: None,
            detail: detail.to_owned(),
        }
    }

    fn end(&mut self, mishap: Option<Mishap>) {
        if let Some(mishap) = mishap {
            output::say(&format!("  got over  {}: {}", mishap.what, mishap.detail));
            *self = Self::Over(mishap);
        }
    }
}

impl Mishaps {
    /// All happened and were got over.
    pub(super) fn over(&self) -> bool {
        self.limit.is_over() && self.container.is_over() && self.supervisor.is_over()
    }

    /// Is something broken now?
    pub(super) fn under_way(&self) -> bool {
        self.limit.is_under_way() || self.container.is_under_way() || self.supervisor.is_under_way()
    }

    /// Breaks what is to break at this moment, and sees what works again.
    pub(super) async fn go_on(&mut self, stage: &mut Stage, view: &FleetView) -> Result<()> {
        match &self.limit {
            Course::ToCome => {
                if let Some(spent) = spend_credential(stage, view) {
                    self.limit = Course::UnderWay(spent);
                }
            }
            Course::UnderWay(spent) => {
                let mishap = spent.over(stage, view);
                self.limit.end(mishap);
            }
            Course::Over(_) => {}
        }
        match &self.container {
            Course::ToCome => {
                if let Some(killed) = kill_container(stage, view).await? {
                    self.container = Course::UnderWay(killed);
                }
            }
            Course::UnderWay(killed) => {
                let mishap = killed.over(stage, view);
                self.container.end(mishap);
            }
            Course::Over(_) => {}
        }
        match &self.supervisor {
            Course::ToCome if self.limit.is_over() && self.container.is_over() => {
                if let Some(absent) = kill_supervisor(stage, view).await? {
                    self.supervisor = Course::UnderWay(absent);
                }
            }
            Course::UnderWay(absent) => {
                let mishap = absent.over(view);
                self.supervisor.end(mishap);
            }
            Course::ToCome | Course::Over(_) => {}
        }
        Ok(())
    }

    /// All of them, whether they came to an end or not.
    pub(super) fn list(&self) -> Vec<Mishap> {
        vec![
            self.limit.told(LIMIT),
            self.container.told(CONTAINER),
            self.supervisor.told(SUPERVISOR),
        ]
    }

    /// The agent whose container was killed.
    pub(super) fn victim(&self) -> Option<AgentId> {
        match &self.container {
            Course::ToCome => None,
            Course::UnderWay(killed) => Some(killed.agent.clone()),
            Course::Over(mishap) => mishap.agent.clone(),
        }
    }
}

const LIMIT: &str = "a worker's credential reaches its limit in the middle of a task";
const CONTAINER: &str = "a container is killed in the middle of a task";
const SUPERVISOR: &str = "the supervisor is killed (kill -9) and started again";

/// The first worker, once it has used a tool for its task.
fn spend_credential(stage: &Stage, view: &FleetView) -> Option<Spent> {
    let worker = AgentId::worker(1);
    let agent = view.agents.iter().find(|agent| agent.id == worker)?;
    if !at_work(agent) {
        return None;
    }
    let record = turns_of(stage, agent.session.as_ref()).find(|record| record.step > 0)?;
    output::say(&format!("  mishap    {LIMIT}: {worker}"));
    let since = now();
    stage.limits.spend(&record.credential, since + RESET);
    Some(Spent {
        before: agent.clone(),
        since,
        credential: record.credential,
    })
}

impl Spent {
    /// When the model answers it with another credential.
    fn over(&self, stage: &Stage, view: &FleetView) -> Option<Mishap> {
        let agent = view
            .agents
            .iter()
            .find(|agent| agent.id == self.before.id)?;
        let refused = turns_of(stage, agent.session.as_ref())
            .find(|record| record.at >= self.since && record.credential == self.credential)?
            .at;
        let answered = turns_of(stage, agent.session.as_ref()).find(|record| {
            record.at > self.since
                && record.credential != self.credential
                && matches!(record.answered, Answered::Turn { .. })
        })?;
        let took = answered.at.since(refused).as_secs_f64();
        let same = agent.container == self.before.container && agent.session == self.before.session;
        Some(Mishap {
            what: LIMIT,
            agent: Some(agent.id.clone()),
            recovered: same,
            seconds: Some(took),
            detail: format!(
                "{} went on with another credential after {took:.1} s, in {}",
                agent.id,
                if same {
                    "the same process"
                } else {
                    "ANOTHER process"
                },
            ),
        })
    }
}

/// As soon as the last worker is in the middle of a task: it has used a tool for it.
async fn kill_container(stage: &Stage, view: &FleetView) -> Result<Option<Killed>> {
    let victim = AgentId::worker(sample::WORKERS);
    let Some(agent) = view.agents.iter().find(|agent| agent.id == victim) else {
        return Ok(None);
    };
    let (Some(container), true) = (&agent.container, at_work(agent)) else {
        return Ok(None);
    };
    if !turns_of(stage, agent.session.as_ref()).any(|record| record.step > 0) {
        return Ok(None);
    }
    output::say(&format!("  mishap    {CONTAINER}: {victim}"));
    stage.engine.kill(container).await?;
    Ok(Some(Killed {
        agent: victim,
        before: agent.clone(),
        at: Instant::now(),
        since: now(),
    }))
}

impl Killed {
    /// When it asks the model about its task again.
    fn over(&self, stage: &Stage, view: &FleetView) -> Option<Mishap> {
        let agent = view.agents.iter().find(|agent| agent.id == self.agent)?;
        let back = agent.incarnation > self.before.incarnation && agent.container.is_some();
        let asked = turns_of(stage, agent.session.as_ref())
            .find(|record| record.at > self.since)?
            .at;
        if !back {
            return None;
        }
        let took = asked.since(self.since).as_secs_f64();
        let same = agent.session == self.before.session;
        Some(Mishap {
            what: CONTAINER,
            agent: Some(self.agent.clone()),
            recovered: same,
            seconds: Some(took),
            detail: format!(
                "{} asked the model again after {took:.1} s, in {} ({:.1} s until that was seen)",
                self.agent,
                if same {
                    "the same conversation"
                } else {
                    "ANOTHER conversation"
                },
                self.at.elapsed().as_secs_f64(),
            ),
        })
    }
}

/// When at least two agents are in the middle of something, and the first gates have run: their flake is
/// not to be cut off.
async fn kill_supervisor(stage: &mut Stage, view: &FleetView) -> Result<Option<Absent>> {
    let busy = view.agents.iter().filter(|agent| at_work(agent)).count();
    if busy < 2 || view.merges.merged == 0 {
        return Ok(None);
    }
    output::say(&format!("  mishap    {SUPERVISOR}"));
    let at = Instant::now();
    stage.supervisor.kill()?;
    let asked = stage.model.counters().turns;
    tokio::time::sleep(ABSENCE).await;
    let requests = stage.model.counters().turns - asked;
    stage.supervisor.start(START).await?;
    Ok(Some(Absent {
        before: view.clone(),
        at,
        back_at: now(),
        requests,
    }))
}

impl Absent {
    /// When the new supervisor has heard from an agent that worked on.
    fn over(&self, view: &FleetView) -> Option<Mishap> {
        let heard = view
            .agents
            .iter()
            .filter(|agent| agent.last_hook_at.is_some_and(|at| at > self.back_at))
            .count();
        if heard == 0 {
            return None;
        }
        let adopted = self
            .before
            .agents
            .iter()
            .zip(&view.agents)
            .filter(|(before, after)| before.container == after.container && before.id == after.id)
            .count();
        let all = self.before.agents.len();
        let took = self.at.elapsed().as_secs_f64();
        Some(Mishap {
            what: SUPERVISOR,
            agent: None,
            recovered: adopted == all,
            seconds: Some(took),
            detail: format!(
                "{adopted} of {all} agents adopted as they were, {} model requests while it was gone, \
                 callbacks again after {took:.1} s",
                self.requests
            ),
        })
    }
}

/// In a turn about a task.
fn at_work(agent: &AgentView) -> bool {
    agent.state == "working" && agent.task.is_some()
}

/// What the model was asked in this conversation.
fn turns_of(stage: &Stage, session: Option<&SessionId>) -> impl Iterator<Item = RequestRecord> {
    let session = session.cloned();
    let records = stage.model.requests().into_iter();
    records.filter(move |record| record.kind == RequestKind::Turn && record.session == session)
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
