//! Uncommitted work is copied into the store: asked for by the supervisor, or within another effect
//! that would come too late without it. Always ends, whatever hangs.

use std::time::Duration;

use super::Shared;
use crate::model::{AgentId, Incarnation, RescueCause};
use crate::ports::runtime::container_name;
use crate::supervisor::{Event, RescueOutcome};

/// Two tries, each with a deadline of its own (see `worktree::sandbox`), and the store's part. After
/// this nothing waits for it any more: the work stays in the checkout.
const LIMIT: Duration = Duration::from_secs(100);

impl Shared {
    /// Takes a snapshot, if there is anything to take, and tells what became of it.
    pub(super) async fn rescue(
        &self,
        agent: &AgentId,
        incarnation: Incarnation,
        cause: RescueCause,
    ) {
        let name = container_name(&self.house.config.project, agent, incarnation);
        let began = self.house.clock.now();
        let taking = self.keeper.snapshot(agent, Some(&name), cause, began);
        let outcome = match tokio::time::timeout(LIMIT, taking).await {
            Ok(Ok(Some(rescue))) => {
                tracing::info!(%agent, id = rescue.id, files = rescue.files, cause = cause.as_str(), "rescued");
                RescueOutcome::Taken {
                    rescue: (&rescue).into(),
                }
            }
            Ok(Ok(None)) => RescueOutcome::Nothing,
            Ok(Err(error)) => RescueOutcome::Failed {
                reason: error.chain(),
                hint: error.hint,
            },
            Err(_) => RescueOutcome::Failed {
                reason: format!("no result within {} s", LIMIT.as_secs()),
                hint: Some(
                    "does the disk or the container engine hang? `orchestrator rescue now` tries again"
                        .into(),
                ),
            },
        };
        self.driver
            .tell(Event::Rescued {
                agent: agent.clone(),
                began,
                outcome,
            })
            .await;
    }
}
