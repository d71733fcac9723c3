//! `list`: one look at the log in the order it was written, while everything goes on.
//!
//! The records are read in one read transaction, so nobody's writes show in the middle of it, and
//! handed on in batches, so that a million of them are never in memory at once. The log is walked
//! from front to back and not subject by subject: neighbours on the disk are read together.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use super::readers::Readers;
use super::{prefix_end, record};
use crate::ports::{Listing, PortResult, Record};

/// Records handed on at once.
const BATCH: usize = 512;
/// And bytes: a few records may be large.
const BATCH_BYTES: usize = 1024 * 1024;
/// Batches that may wait for whoever reads them.
const WAITING: usize = 4;

type Batch = PortResult<Vec<Record>>;

pub(super) async fn list(readers: Arc<Readers>, prefix: &str) -> PortResult<Listing> {
    let (sender, receiver) = mpsc::channel::<Batch>(WAITING);
    let (position, at) = oneshot::channel();
    let prefix = prefix.to_owned();
    let failed = sender.clone();
    let path = readers.path().to_owned();
    let walk = Readers::run(readers, "list records", move |connection| {
        walk(connection, &prefix, position, &sender)
    });
    let walked = tokio::spawn(async move {
        if let Err(error) = walk.await {
            // Whoever went away needs no answer.
            let _gone = failed.send(Err(error)).await.is_err();
        }
    });
    let mut receiver = receiver;
    let Ok(at) = at.await else {
        // It ended before it had a position: its error is the first and only thing it said.
        return match receiver.recv().await {
            Some(Err(error)) => Err(error),
            _ => Err(super::error::closed(&path)),
        };
    };
    drop(walked);
    let batches = stream::unfold(receiver, |mut receiver| async move {
        let batch = receiver.recv().await?;
        let records: Vec<PortResult<Record>> = match batch {
            Ok(records) => records.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        Some((stream::iter(records), receiver))
    });
    Ok(Listing {
        at,
        records: batches.flatten().boxed(),
    })
}

/// Ends early, without an error, when nobody listens any more.
fn walk(
    connection: &Connection,
    prefix: &str,
    position: oneshot::Sender<u64>,
    batches: &mpsc::Sender<Batch>,
) -> rusqlite::Result<()> {
    let snapshot = connection.unchecked_transaction()?;
    let newest: i64 =
        snapshot.query_row("SELECT coalesce(max(seq), 0) FROM records", [], |row| {
            row.get(0)
        })?;
    if position.send(u64::try_from(newest).unwrap_or(0)).is_err() {
        return Ok(());
    }
    let mut statement = snapshot.prepare_cached(
        "SELECT seq, subject, data FROM records \
         WHERE subject >= ?1 AND (?2 IS NULL OR subject < ?2) \
         AND NOT EXISTS (SELECT 1 FROM superseded s WHERE s.seq = records.seq) ORDER BY seq",
    )?;
    let mut rows = statement.query(params![prefix, prefix_end(prefix)])?;
    let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), 0);
    while let Some(row) = rows.next()? {
        let record = record(row)?;
        bytes += record.data.len();
        batch.push(record);
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            bytes = 0;
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            if batches.blocking_send(Ok(full)).is_err() {
                return Ok(());
            }
        }
    }
    let _gone = batches.blocking_send(Ok(batch)).is_err();
    Ok(())
}
