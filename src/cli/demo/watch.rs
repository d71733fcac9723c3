//! Following the fleet until everything has happened, and telling people what does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use super::super::output;
use super::stage::Stage;
use crate::model::view::FleetView;
use crate::model::{AgentId, Role};

/// What was seen.
pub(super) struct Watched {
    pub(super) last: Option<FleetView>,
    /// Why it ended before everything had happened.
    pub(super) problem: Option<String>,
    /// From the first snapshot to everything done.
    pub(super) took: Duration,
}

/// Until every task is done, merged and pushed and every agent rests, or the time is over.
pub(super) async fn until_done(stage: &Stage, limit: Duration) -> Watched {
    let started = Instant::now();
    let mut last = None;
    let watching = follow(stage, &mut last);
    let problem = match tokio::time::timeout(limit, watching).await {
        Ok(problem) => problem,
        Err(_) => Some(format!("not done after {} s", limit.as_secs())),
    };
    Watched {
        last,
        problem,
        took: started.elapsed(),
    }
}

async fn follow(stage: &Stage, last: &mut Option<FleetView>) -> Option<String> {
    let mut views = match stage.client.watch().await {
        Ok(views) => views,
        Err(error) => return Some(format!("the fleet cannot be watched: {error}")),
    };
    let mut said = Said::default();
    while let Some(view) = views.next().await {
        match view {
            Ok(view) => {
                said.tell(&view);
                let done = is_done(&view);
                *last = Some(view);
                if done {
                    return None;
                }
            }
            Err(error) => return Some(format!("the fleet could not be watched any more: {error}")),
        }
    }
    Some("the supervisor ended".into())
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
    notices: usize,
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
        for notice in view.notices.iter().skip(self.notices) {
            let who = notice.agent.as_ref().map_or("fleet", AgentId::as_str);
            output::say(&format!("  {who:<9} {}", notice.text));
        }
        self.notices = view.notices.len();
    }
}
