//! The pool lives: credential files that appear, change or go away are read again at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::handle::DriverHandle;
use super::house::House;
use super::prepare::hide_all;
use crate::credentials::load_pool;
use crate::supervisor::Event;

/// One save is several notifications.
const SETTLE: Duration = Duration::from_millis(200);
/// Network file systems tell nobody, and a pattern may lead through directories that come later.
const LOOK: Duration = Duration::from_secs(30);

/// Reads the files, and tells the driver when what they give has changed.
pub(super) async fn read_again(house: &House, driver: &DriverHandle) {
    let (pattern, now) = (house.config.claude_configs.clone(), house.clock.now());
    let logins = house.logins.clone();
    // One reader at a time: an older reading must not replace a newer one.
    let mut known = house.pool_problems.lock().await;
    let read = tokio::task::spawn_blocking(move || load_pool(&pattern, now, &logins)).await;
    let Ok(pool) = read else {
        return;
    };
    hide_all(&house.redactor, &pool);
    let problems: BTreeSet<(String, String)> = pool
        .problems
        .iter()
        .map(|problem| (problem.to_string(), problem.hint.clone()))
        .collect();
    for (text, hint) in problems.difference(&known) {
        let event = Event::Noticed {
            agent: None,
            text: text.clone(),
            hint: Some(hint.clone()),
        };
        driver.tell(event).await;
    }
    *known = problems;
    let before = house.pool.infos();
    house.pool.replace(pool.credentials);
    let after = house.pool.infos();
    if before != after {
        tracing::info!(credentials = after.len(), "the pool has changed");
        driver.tell(Event::PoolRead { credentials: after }).await;
    }
}

/// Until `end`.
pub(super) async fn follow(house: Arc<House>, driver: DriverHandle, end: CancellationToken) {
    let (touched, mut touches) = mpsc::channel::<()>(1);
    let mut watched = Watched::new(touched);
    loop {
        watched.follow(&directories(&house));
        let touch = tokio::select! {
            () = end.cancelled() => return,
            touch = tokio::time::timeout(LOOK, touches.recv()) => touch,
        };
        if touch.is_ok() {
            tokio::time::sleep(SETTLE).await;
            let _more = touches.try_recv();
        }
        read_again(&house, &driver).await;
    }
}

/// Where files may come or change: around the part of the pattern that is plain, beside each file,
/// and beside what a link leads to.
fn directories(house: &House) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let plain: PathBuf = Path::new(&house.config.claude_configs)
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']))
        .collect();
    found.extend(plain.parent().map(Path::to_owned));
    found.insert(plain);
    for credential in house.pool.all().values() {
        let real = std::fs::canonicalize(&credential.path).ok();
        for path in std::iter::once(credential.path.clone()).chain(real) {
            found.extend(path.parent().map(Path::to_owned));
        }
    }
    found.retain(|path| path.is_dir());
    found
}

struct Watched {
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
}

impl Watched {
    fn new(touched: mpsc::Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files ourselves is an access, and no reason to read them again.
            if event.map_or(true, |event| !event.kind.is_access()) {
                // Full: a touch is on its way already.
                let _full = touched.try_send(());
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "credential files are not watched; they are read at an interval");
        }
        Self {
            watcher: watcher.ok(),
            directories: BTreeSet::new(),
        }
    }

    fn follow(&mut self, wanted: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for gone in self.directories.difference(wanted) {
            // A directory that went away is not watched any more in any case.
            let _gone = watcher.unwatch(gone);
        }
        let mut watched: BTreeSet<PathBuf> =
            self.directories.intersection(wanted).cloned().collect();
        for new in wanted.difference(&self.directories) {
            match watcher.watch(new, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    watched.insert(new.clone());
                }
                Err(error) => {
                    tracing::debug!(directory = %new.display(), %error, "not watched");
                }
            }
        }
        self.directories = watched;
    }
}
