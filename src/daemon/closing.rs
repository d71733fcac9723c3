//! The end of a run: what was begun is finished or left, and what the ending says goes.

use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::house::House;
use crate::model::{Ending, ProjectId};
use crate::ports::Runtime;

/// How long front doors and effects may take to finish what they have begun.
const DOORS_CLOSE: Duration = Duration::from_secs(5);

pub(super) async fn close(house: &House, ending: Ending, tracker: &TaskTracker) {
    tracker.close();
    if tokio::time::timeout(DOORS_CLOSE, tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "tasks still run {} s after the end: {}",
            DOORS_CLOSE.as_secs(),
            tracker.len()
        );
    }
    // Only now: what was under way may have opened a pane or a container again.
    if ending == Ending::Stop {
        if let Err(error) = house.panes.shut_down().await {
            tracing::warn!(error = error.chain(), "tmux was not shut down");
        }
        remove_containers(house).await;
    }
}

/// A start that failed leaves nothing that was not there before.
pub(super) async fn leave_no_network(runtime: &dyn Runtime, project: &ProjectId) {
    let nobody = runtime.list(project).await.is_ok_and(|all| all.is_empty());
    if nobody && let Err(error) = runtime.remove_network(project).await {
        tracing::warn!(error = error.chain(), "the network was not removed");
    }
}

/// Ended containers and their network; checkouts, homes and the store stay.
pub(super) async fn remove_containers(house: &House) {
    let project = &house.config.project;
    match house.runtime.list(project).await {
        Ok(all) => {
            for container in all.into_iter().filter(|c| !c.running) {
                if let Err(error) = house.runtime.remove(&container.name).await {
                    tracing::warn!(name = container.name, error = error.chain(), "not removed");
                }
            }
        }
        Err(error) => tracing::warn!(error = error.chain(), "containers were not removed"),
    }
    if let Err(error) = house.runtime.remove_network(project).await {
        tracing::warn!(error = error.chain(), "the network was not removed");
    }
}
