//! `watch`: read up to the end, then wait for the head to move and read on.
//!
//! The writer announces only the number of the newest committed record. A watcher always takes the
//! records themselves from the log, in order, so there is no gap, no duplicate and nothing to lag
//! behind: a slow watcher reads in larger pages instead of losing messages, and holds no memory.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use rusqlite::params;
use tokio::sync::watch;

use super::error::closed;
use super::readers::Readers;
use super::{record, sql_seq};
use crate::ports::{PortResult, Record};

/// Records per page. With the largest records a page is 16 MB.
const PAGE: i64 = 64;

struct Watcher {
    readers: Arc<Readers>,
    head: watch::Receiver<u64>,
    after: u64,
    page: VecDeque<Record>,
    ended: bool,
}

/// Ends with an error when the writer is gone.
pub(super) fn stream(
    readers: Arc<Readers>,
    head: watch::Receiver<u64>,
    after: u64,
) -> BoxStream<'static, PortResult<Record>> {
    let watcher = Watcher {
        readers,
        head,
        after,
        page: VecDeque::new(),
        ended: false,
    };
    stream::unfold(watcher, |mut watcher| async move {
        if watcher.ended {
            return None;
        }
        match watcher.next().await {
            Ok(record) => Some((Ok(record), watcher)),
            Err(error) => {
                watcher.ended = true;
                Some((Err(error), watcher))
            }
        }
    })
    .boxed()
}

impl Watcher {
    async fn next(&mut self) -> PortResult<Record> {
        loop {
            if let Some(record) = self.page.pop_front() {
                self.after = record.seq;
                return Ok(record);
            }
            // Marked as seen before the read: a commit during the read wakes the next wait.
            self.head.mark_unchanged();
            self.page = self.read_page().await?;
            if self.page.is_empty() && self.head.changed().await.is_err() {
                return Err(closed(self.readers.path()));
            }
        }
    }

    async fn read_page(&self) -> PortResult<VecDeque<Record>> {
        let after = sql_seq(self.after);
        Readers::run(
            Arc::clone(&self.readers),
            "watch the log",
            move |connection| {
                connection
                .prepare_cached(
                    "SELECT seq, subject, data FROM records WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                )?
                .query_map(params![after, PAGE], record)?
                .collect()
            },
        )
        .await
    }
}
