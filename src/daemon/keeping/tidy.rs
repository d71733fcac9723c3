//! What was kept long enough goes: at the start, and once a day.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Keeper;
use crate::ports::PortResult;
use crate::worktree::{Retention, Trash};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(in crate::daemon) async fn keep_tidy(keeper: Arc<Keeper>, end: CancellationToken) {
    let mut every = tokio::time::interval(DAY);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = every.tick() => {}
        }
        if let Err(error) = keeper.tidy().await {
            tracing::warn!(
                error = error.chain(),
                "old snapshots and trash were not looked through; trying again in a day"
            );
        }
    }
}

impl Keeper {
    /// Thins out the snapshots, and deletes from the trash what has been there for its time.
    async fn tidy(&self) -> PortResult<()> {
        let now = self.clock.now();
        let full = self.rescue.keep;
        let standard = Retention::default();
        let retention = Retention {
            whole: standard.whole.min(full),
            hourly: standard.hourly.min(full),
            full,
        };
        let thinned =
            crate::daemon::blocking(&self.git, move |git| git.thin_rescues(now, &retention))
                .await?;
        let root = self.paths.root().to_owned();
        let gone = crate::daemon::join(move || Trash::open(&root)?.expire(now)).await?;
        if !thinned.dropped.is_empty() || !gone.is_empty() {
            let trash: Vec<&str> = gone.iter().map(|entry| entry.id.as_str()).collect();
            tracing::info!(
                snapshots = thinned.dropped.len(),
                stay = thinned.kept,
                ?trash,
                "what was kept long enough is gone"
            );
        }
        Ok(())
    }
}
