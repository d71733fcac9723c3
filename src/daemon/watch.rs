//! What tells us without being asked: the engine's events and saved task lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::effects::take_inventory;
use super::handle::{DriverHandle, Input};
use super::house::House;
use super::lists::DIRECTION;
use crate::model::Timestamp;
use crate::ports::runtime::KILLED;
use crate::ports::{ObservedContainer, PortResult, RuntimeEventKind};
use crate::supervisor::Event;

/// Between tries while the engine is away.
const RECONNECT: Duration = Duration::from_secs(1);
const RECONNECT_MOST: Duration = Duration::from_secs(5);
/// From a kill for lack of memory to the end of the container, where the one is why of the other.
/// Observed: 30 to 50 ms.
const DIES_OF_IT: Duration = Duration::from_secs(10);
/// Between looks for ends that no event told of.
const LOOK_FOR_ENDS: Duration = Duration::from_secs(10);
/// An editor writes, syncs, renames: one save is several notifications.
const SETTLE: Duration = Duration::from_millis(60);

/// Follows the engine's events until `end`, from `since`: a moment before the first inventory, so
/// that nothing falls between the two. When they end the supervisor is told that the engine is
/// away, and after each reconnection, with an inventory, that it is back.
pub(super) async fn follow_engine(
    house: Arc<House>,
    driver: DriverHandle,
    since: Timestamp,
    end: CancellationToken,
) {
    let mut delay = RECONNECT;
    let mut since = Some(since);
    while !end.is_cancelled() {
        let mut connected = false;
        let ended = tokio::select! {
            () = end.cancelled() => return,
            ended = follow_once(&house, &driver, since.take(), &mut connected) => ended,
        };
        if let Err(error) = ended {
            tracing::warn!(error = error.chain(), "the engine's events ended");
            let reason = error.chain();
            driver.tell(Event::EngineAway { reason }).await;
        }
        if connected {
            delay = RECONNECT;
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
        delay = (delay * 2).min(RECONNECT_MOST);
    }
}

/// `first`: since when, on the first try; an inventory has been taken since then.
async fn follow_once(
    house: &House,
    driver: &DriverHandle,
    first: Option<Timestamp>,
    connected: &mut bool,
) -> PortResult<()> {
    let project = &house.config.project;
    let since = first.unwrap_or_else(|| house.clock.now());
    let mut events = house.runtime.events(project, Some(since)).await?;
    *connected = true;
    if first.is_none() {
        let inventory = take_inventory(house).await;
        driver.tell(Event::EngineBack(inventory)).await;
    }
    // When something was last killed in a container for lack of memory.
    let mut starved: BTreeMap<String, Timestamp> = BTreeMap::new();
    while let Some(event) = events.next().await {
        let event = event?;
        match event.kind {
            RuntimeEventKind::Started => {}
            RuntimeEventKind::OutOfMemory => {
                starved.insert(event.name, event.at);
                driver
                    .tell(Event::Starved {
                        agent: event.agent,
                        incarnation: event.incarnation,
                    })
                    .await;
            }
            RuntimeEventKind::Died { exit_code } => {
                let before = starved.remove(&event.name);
                let out_of_memory = exit_code == KILLED
                    && match before {
                        Some(at) => event.at.since(at) <= DIES_OF_IT,
                        None => is_starved(house, &event.name).await,
                    };
                house.lives.fetch_add(1, Ordering::SeqCst);
                driver
                    .tell(Event::Exited {
                        agent: event.agent,
                        incarnation: event.incarnation,
                        exit_code: Some(exit_code),
                        out_of_memory,
                    })
                    .await;
            }
        }
    }
    Ok(())
}

/// The two events may come in the wrong order; the container itself knows both.
async fn is_starved(house: &House, name: &str) -> bool {
    let all = house.runtime.list(&house.config.project).await;
    let mut all = all.unwrap_or_default().into_iter();
    all.any(|container| container.name == name && container.starved())
}

/// Ends that no event told of, or that were told in the wrong order. Seen twice in a row, so that
/// one list taken between two moments decides nothing.
pub(super) async fn find_missed_ends(
    house: Arc<House>,
    driver: DriverHandle,
    end: CancellationToken,
) {
    let mut suspects: BTreeSet<String> = BTreeSet::new();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(LOOK_FOR_ENDS) => {}
        }
        let Ok(containers) = house.runtime.list(&house.config.project).await else {
            suspects.clear();
            continue;
        };
        let view = driver.view.borrow().clone();
        let mut missing = BTreeSet::new();
        for agent in &view.agents {
            let Some(name) = &agent.container else {
                continue;
            };
            let seen = containers.iter().find(|container| container.name == *name);
            if seen.is_some_and(|container| container.running) {
                continue;
            }
            if !suspects.contains(name) {
                missing.insert(name.clone());
                continue;
            }
            tracing::warn!(agent = %agent.id, name, "its container ended and no event told");
            driver
                .tell(Event::Exited {
                    agent: agent.id.clone(),
                    incarnation: agent.incarnation,
                    exit_code: seen.and_then(|container| container.exit_code),
                    out_of_memory: seen.is_some_and(ObservedContainer::starved),
                })
                .await;
        }
        suspects = missing;
    }
}

/// Watches the directory with the task lists: a save in place and a save by rename both arrive.
pub(super) struct ListWatch {
    _watcher: RecommendedWatcher,
}

impl ListWatch {
    /// The directory must exist. Other files in it, and everything below, are ignored.
    pub(super) fn start(directory: &Path, driver: DriverHandle) -> notify::Result<Self> {
        let (touched, mut touches) = mpsc::channel::<()>(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Where events were lost nobody knows whom they concerned.
                let ours = event.map_or(true, |event| {
                    event.need_rescan()
                        || (!event.kind.is_access()
                            && event.paths.iter().any(|path| concerns_us(path)))
                });
                if ours {
                    // Full: a touch is on its way already.
                    let _full = touched.try_send(());
                }
            })?;
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        tokio::spawn(async move {
            while touches.recv().await.is_some() {
                tokio::time::sleep(SETTLE).await;
                let _more = touches.try_recv();
                driver.put(Input::ListsTouched).await;
            }
        });
        Ok(Self { _watcher: watcher })
    }
}

fn concerns_us(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| {
            name == DIRECTION || (name.starts_with("WORKER_") && name.ends_with("_TASK_LIST.md"))
        })
}

/// Watches a remote that is a directory on this machine: a push there arrives at once. Other
/// remotes are fetched at an interval, because git servers tell nobody.
pub(super) struct RemoteWatch {
    _watcher: RecommendedWatcher,
}

impl RemoteWatch {
    pub(super) fn start(remote: &Path, driver: DriverHandle) -> notify::Result<Self> {
        let (touched, mut touches) = mpsc::channel::<()>(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if event.is_ok_and(|event| !event.kind.is_access()) {
                    let _full = touched.try_send(());
                }
            })?;
        for part in ["refs/heads", "."] {
            let path = remote.join(part);
            let path = if path.is_dir() {
                path
            } else {
                remote.join(".git").join(part)
            };
            if path.is_dir() {
                let mode = if part == "." {
                    RecursiveMode::NonRecursive
                } else {
                    RecursiveMode::Recursive
                };
                watcher.watch(&path, mode)?;
            }
        }
        tokio::spawn(async move {
            while touches.recv().await.is_some() {
                tokio::time::sleep(SETTLE).await;
                let _more = touches.try_recv();
                let (reply, _unread) = tokio::sync::oneshot::channel();
                let request = crate::model::Request::Fetch;
                driver.put(Input::Request { request, reply }).await;
            }
        });
        Ok(Self { _watcher: watcher })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_and_the_direction_concern_us() {
        assert!(concerns_us(Path::new("/x/WORKER_3_TASK_LIST.md")));
        assert!(concerns_us(Path::new("/x/PROJECT_DIRECTION.md")));
        assert!(!concerns_us(Path::new("/x/.WORKER_3_TASK_LIST.md.swp")));
    }
}
