//! Tests of the room, by file.

mod lists;
mod queue;
mod rules;
mod tasklist;

use std::sync::Arc;
use std::time::Duration;

use super::queue::Queue;
use super::rules::NewTask;
use crate::model::{AgentId, Task, TaskContext, TaskId, TaskSource, Timestamp};
use crate::testing::memory_store::MemoryStore;

/// Long enough for a loaded machine; a test that needs it has failed.
const LONG: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(60);

fn new_task(id: &str) -> NewTask {
    NewTask {
        id: id.into(),
        description: format!("do {id}"),
        priority: 0,
        owner: None,
        dependencies: Vec::new(),
        labels: Vec::new(),
        context: TaskContext::default(),
        scope: Vec::new(),
        source: TaskSource::Direct,
    }
}

fn after(id: &str, dependencies: &[&str]) -> NewTask {
    NewTask {
        dependencies: dependencies.iter().map(|id| TaskId::new(*id)).collect(),
        ..new_task(id)
    }
}

fn fence(task: &Task) -> u64 {
    task.claim.as_ref().unwrap().fence
}

fn ids(tasks: &[Task]) -> Vec<&str> {
    tasks.iter().map(|task| task.id.as_str()).collect()
}

fn worker() -> AgentId {
    AgentId::worker(1)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1000)
}

async fn open() -> (Queue, MemoryStore) {
    let store = MemoryStore::new();
    let queue = Queue::open(Arc::new(store.clone())).await.unwrap();
    (queue, store)
}

/// Waits until the view, which another process may have to feed, shows what is wanted.
async fn until(queue: &Queue, wanted: impl Fn(&Queue) -> bool) {
    let mut changes = queue.changes();
    let reached = async {
        while !wanted(queue) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LONG, reached)
        .await
        .expect("the view never showed it");
}

/// The rules decide; they must stay callable without a runtime, a disk or a clock.
#[test]
fn the_rules_are_pure() {
    let files = [
        ("rules.rs", include_str!("../rules.rs")),
        ("tasklist.rs", include_str!("../tasklist.rs")),
        ("view.rs", include_str!("../view.rs")),
    ];
    let refused = [
        "tokio",
        "async ",
        ".await",
        "std::fs",
        "std::net",
        "std::process",
        "std::env",
        "std::thread",
        "HashMap",
        "HashSet",
        "rand::",
        "uuid",
        "Instant",
        "SystemTime",
    ];
    for (file, text) in files {
        let rules = text;
        for word in refused {
            assert!(!rules.contains(word), "{file} names `{word}`");
        }
    }
}
