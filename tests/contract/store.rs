//! The stores: one suite that every one of them passes, and what each promises beyond it.
//!
//! An adapter joins with one line, `conformance!(name, opener)`.

mod claims;
mod conformance;
mod copies;
mod sqlite;

use std::time::Duration;

use anyhow::Result;
use futures_util::FutureExt as _;
use orchestrator::store::sqlite::SqliteStore;
use orchestrator::testing::memory_store::MemoryStore;
use std::sync::Arc;

use conformance::{Engine, conformance};

/// Long enough for a loaded machine; a test that needs it has failed.
const LONG: Duration = Duration::from_secs(120);

#[expect(clippy::unused_async, reason = "the shape of every opener")]
async fn open_memory() -> Result<Engine> {
    let store = MemoryStore::new();
    let compacted = store.clone();
    Ok(Engine {
        store: Arc::new(store),
        compact: Box::new(move || {
            compacted.compact();
            async { Ok(()) }.boxed()
        }),
        _alive: Box::new(()),
    })
}

#[expect(clippy::unused_async, reason = "the shape of every opener")]
async fn open_sqlite() -> Result<Engine> {
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(&directory.path().join("store.db"))?;
    let compacted = store.clone();
    Ok(Engine {
        store: Arc::new(store),
        compact: Box::new(move || {
            let store = compacted.clone();
            async move { Ok(store.compact(0).await.map(drop)?) }.boxed()
        }),
        _alive: Box::new(directory),
    })
}

conformance!(on_memory, super::open_memory);
conformance!(on_sqlite, super::open_sqlite);
