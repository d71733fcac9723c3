//! Sessions that a person closed, or that went with the tmux server, come back by themselves: who
//! looks in the morning finds every agent where it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::handle::DriverHandle;
use super::house::House;
use crate::model::AgentId;

/// One `tmux list-panes` each time, which takes some milliseconds.
const LOOK_FOR_PANES: Duration = Duration::from_secs(10);

/// Opens the panes of agents whose containers run, until `end`.
pub(super) async fn keep_panes(house: Arc<House>, driver: DriverHandle, end: CancellationToken) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(LOOK_FOR_PANES) => {}
        }
        let view = driver.view.borrow().clone();
        if view.phase == "stopping" {
            continue;
        }
        // What is wrong with tmux is told where a pane is needed.
        let Ok(panes) = house.panes.list().await else {
            continue;
        };
        let live: BTreeSet<&AgentId> = panes
            .iter()
            .filter(|pane| !pane.dead)
            .map(|pane| &pane.agent)
            .collect();
        let running = view.agents.iter().filter(|agent| agent.container.is_some());
        for agent in running.filter(|agent| !live.contains(&agent.id)) {
            if end.is_cancelled() {
                return;
            }
            match house
                .panes
                .ensure(&agent.id, &house.view_of(&agent.id))
                .await
            {
                Ok(()) => tracing::info!(agent = %agent.id, "its pane was gone and is there again"),
                Err(error) => {
                    tracing::warn!(agent = %agent.id, error = error.chain(), "its pane is gone");
                }
            }
        }
    }
}
