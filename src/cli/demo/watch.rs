//! Following the fleet until everything has happened, and telling people what does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use super::super::error::Result;
use super::super::{Error, Exit, output};
use super::mishaps::Mishaps;
use super::stage::Stage;
use crate::model::view::{FleetView, Notice};
use crate::model::{AgentId, Role};

/// Between two looks at what breaks, when nothing is published.
const LOOK: Duration = Duration::from_millis(100);

/// What was seen.
pub(super) struct Watched {
    pub(super) last: Option<FleetView>,
    pub(super) mishaps: Mishaps,
    /// Why it ended before everything had happened.
    pub(super) problem: Option<String>,
    /// From the first snapshot to everything done.
    pub(super) took: Duration,
}

/// Until every task is done, merged and pushed, every mishap is got over and every agent rests, or
/// the time is over.
pub(super) async fn until_done(stage: &mut Stage, limit: Duration) -> Watched {
    let started = Instant::now();
    let mut watched = Watched {
        last: None,
        mishaps: Mishaps::default(),
        problem: None,
        took: Duration::ZERO,
    };
    let watching = follow(stage, &mut watched);
    let problem = match tokio::time::timeout(limit, watching).await {
        Ok(problem) => problem
            .err()
            .map(|error| error.render().trim_end().to_owned()),
        Err(_) => Some(format!("not done after {} s", limit.as_secs())),
    };
    watched.problem = problem;
    watched.took = started.elapsed();
    watched
}

async fn follow(stage: &mut Stage, watched: &mut Watched) -> Result<()> {
    let mut said = Said::default();
    loop {
        // Ends with the supervisor that is killed; then the next one is watched.
        let mut views = stage.client.watch().await?;
        loop {
            let next = tokio::time::timeout(LOOK, views.next()).await;
            match next {
                Ok(Some(Ok(view))) => {
                    said.tell(&view);
                    watched.last = Some(view);
                }
                Ok(Some(Err(_)) | None) if watched.mishaps.under_way() => break,
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) => return Err(Error::new(Exit::Failure, "the supervisor ended")),
                Err(_) => {}
            }
            if let Some(view) = &watched.last {
                if is_done(view) && watched.mishaps.over() {
                    return Ok(());
                }
                watched.mishaps.go_on(stage, view).await?;
            }
        }
    }
}

fn is_done(view: &FleetView) -> bool {
    let tasks = &view.tasks;
    let merges = &view.merges;
    tasks.done > 0
        && view.planning.rounds > 0
        && tasks.available == 0
        && tasks.claimed == 0
        && merges.merged > 0
        && merges.waiting == 0
        && merges.conflicts == merges.resolved
        && view.pushed
        && view
            .agents
            .iter()
            .all(|agent| agent.state == "idle" && agent.ahead.unwrap_or(0) == 0)
        && view
            .agents
            .iter()
            .any(|agent| agent.role == Role::Worker && agent.tasks_done > 0)
}

/// One line per thing that happened.
#[derive(Default)]
struct Said {
    agents: BTreeMap<AgentId, (String, u32)>,
    merges: (u32, u32, u32),
    notices: Vec<Notice>,
}

impl Said {
    fn tell(&mut self, view: &FleetView) {
        for agent in &view.agents {
            let what = match &agent.task {
                Some(task) => format!("{}: {}", agent.state, task.title),
                None => agent.state.clone(),
            };
            let now = (what.clone(), agent.tasks_done);
            if self.agents.get(&agent.id) != Some(&now) {
                let done = view.tasks.done;
                output::say(&format!(
                    "  {:<9} {what}   [{done} tasks done]",
                    agent.id.as_str()
                ));
                self.agents.insert(agent.id.clone(), now);
            }
        }
        let merges = (
            view.merges.merged,
            view.merges.conflicts,
            view.merges.resolved,
        );
        if merges != self.merges {
            output::say(&format!(
                "  branch    {} merged, {} conflicts, {} of them resolved",
                merges.0, merges.1, merges.2
            ));
            self.merges = merges;
        }
        for notice in &view.notices {
            if !self.notices.contains(notice) {
                let who = notice.agent.as_ref().map_or("fleet", AgentId::as_str);
                output::say(&format!("  {who:<9} {}", notice.text));
            }
        }
        self.notices.clone_from(&view.notices);
    }
}
