//! `rescue now`: by the running supervisor, or in a throwaway container while none runs.

use std::time::Duration;

use futures_util::StreamExt as _;

use super::unknown;
use crate::cli::context::Context;
use crate::cli::error::Result;
use crate::cli::wiring::kept::{Alone, Kept};
use crate::cli::{Error, Exit, output};
use crate::client::{Client, Done};
use crate::model::view::{AgentView, FleetView};
use crate::model::{AgentId, KeptView, RescueView};

/// A snapshot has a deadline of its own below this.
const LIMIT: Duration = Duration::from_secs(150);

pub(super) async fn run(context: &Context, agent: Option<&str>) -> Result<Exit> {
    let agent = agent.map(AgentId::new);
    match context.running() {
        Ok(running) => by_supervisor(&running.client, agent.as_ref()).await,
        Err(error) if error.exit == Exit::NotRunning && context.config.is_some() => {
            alone(context, agent.as_ref()).await
        }
        Err(error) if error.exit == Exit::NotRunning => {
            Err(error.hint("while no supervisor runs, say which fleet with `--config DIR`"))
        }
        Err(error) => Err(error),
    }
}

async fn by_supervisor(client: &Client, agent: Option<&AgentId>) -> Result<Exit> {
    let before = client.status().await?;
    let mut views = client.watch().await?;
    if client.rescue_now(agent).await? == Done::AlreadySo {
        output::say("no agent has run yet: there is nothing to copy");
        return Ok(Exit::Done);
    }
    let wanted = |view: &AgentView| agent.is_none_or(|id| view.id == *id) && view.incarnation.0 > 0;
    let mut waiting: Vec<AgentId> = before
        .agents
        .iter()
        .filter(|view| wanted(view))
        .map(|view| view.id.clone())
        .collect();
    let mut failed = false;
    let all = async {
        while !waiting.is_empty() {
            let Some(view) = views.next().await else {
                return Err(Error::new(Exit::Failure, "the supervisor ended meanwhile"));
            };
            let view = view?;
            waiting.retain(|id| match answered(&before, &view, id) {
                None => true,
                Some(kept) => {
                    failed |= tell(id, kept);
                    false
                }
            });
        }
        Ok(())
    };
    match tokio::time::timeout(LIMIT, all).await {
        Ok(done) => done?,
        Err(_) => {
            return Err(Error::new(Exit::TimedOut, "the copies are not there yet")
                .hint("they are still taken; see `orchestrator rescue list` later"));
        }
    }
    Ok(if failed { Exit::Failure } else { Exit::Done })
}

/// What became of it, once something has.
fn answered<'a>(before: &FleetView, now: &'a FleetView, id: &AgentId) -> Option<&'a KeptView> {
    let of = |view: &'a FleetView| view.agents.iter().find(|agent| agent.id == *id);
    let earlier = before.agents.iter().find(|agent| agent.id == *id);
    let kept = &of(now)?.kept;
    (kept.tried_at > earlier.and_then(|agent| agent.kept.tried_at)).then_some(kept)
}

/// True if it failed.
fn tell(id: &AgentId, kept: &KeptView) -> bool {
    if let Some(problem) = &kept.problem {
        output::say(&format!("{id}: failed: {problem}"));
        return true;
    }
    let new = kept
        .last
        .as_ref()
        .filter(|last| Some(last.at) == kept.kept_at);
    match (new, &kept.last) {
        (Some(last), _) => output::say(&format!("{id}: {} files, {}", last.files, last.id)),
        (None, Some(last)) => output::say(&format!(
            "{id}: nothing that is not kept; the newest copy is {}",
            last.id
        )),
        (None, None) => output::say(&format!("{id}: everything is committed")),
    }
    false
}

async fn alone(context: &Context, agent: Option<&AgentId>) -> Result<Exit> {
    let known = Kept::of(context)?.agents();
    let wanted: Vec<AgentId> = match agent {
        Some(agent) if !known.contains(agent) => return Err(unknown(agent, &known)),
        Some(agent) => vec![agent.clone()],
        None => known,
    };
    let alone = Alone::new(context).await?;
    for id in wanted {
        let taken: Option<RescueView> = alone.rescue(&id).await?;
        output::say(&match taken {
            Some(rescue) => format!("{id}: {} files, {}", rescue.files, rescue.id),
            None => format!("{id}: everything is committed"),
        });
    }
    Ok(Exit::Done)
}
