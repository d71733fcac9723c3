//! Connections that only read, one per concurrent reader, used on blocking threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::error::{closed, port_error};
use super::schema;
use crate::ports::PortResult;

/// Readers at the same time; more wait.
const MAX_READERS: usize = 8;

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` on a blocking thread. Sees everything committed before the call.
    pub(super) async fn run<T, F>(readers: Arc<Self>, what: &'static str, f: F) -> PortResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&readers.permits)
            .acquire_owned()
            .await
            .map_err(|_| closed(&readers.path))?;
        let path = readers.path.clone();
        let joined = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = readers.take()?;
            let result = f(&connection).map_err(|error| port_error(what, &readers.path, error))?;
            readers.idle().push(connection);
            Ok(result)
        })
        .await;
        joined.unwrap_or_else(|error| Err(closed(&path).because(error)))
    }

    fn take(&self) -> PortResult<Connection> {
        if let Some(connection) = self.idle().pop() {
            return Ok(connection);
        }
        let connection = schema::connect(&self.path, None)?;
        connection
            .pragma_update(None, "query_only", true)
            .map_err(|error| port_error("open a reader", &self.path, error))?;
        Ok(connection)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
