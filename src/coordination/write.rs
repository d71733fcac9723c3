//! One conditional append whose outcome is known in the end.
//!
//! A store may not be able to say whether an append happened. Giving up there once made a client
//! own a task without knowing it (`facts/platform.md` D.2, rule 2), so the subject is read again
//! until the store answers, and operation ids tell our record from another's.

use std::time::Duration;

use serde::Deserialize;

use crate::ports::{Appended, PortResult, Record, Store};

/// How long an unknown outcome is pursued. The longest fail-over that was measured took 7.7 s
/// (`facts/platform.md` D.3); this is several of them.
const PURSUE: Duration = Duration::from_secs(60);

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Records per page when looking for our own behind later ones.
const PAGE: usize = 256;

#[derive(Debug)]
pub(super) enum Written {
    At(u64),
    /// Ours was written, and others on the subject after it.
    Superseded,
    Conflict,
    /// Still unknown when the time was over.
    Unknown(String),
}

/// The part of a record that says who wrote it.
#[derive(Deserialize)]
struct Operation {
    operation: String,
}

/// A fresh operation id; it must be in `data` as the JSON field `operation`.
pub(super) fn operation() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// An error means that nothing was written.
pub(super) async fn append(
    store: &dyn Store,
    subject: &str,
    expected: u64,
    data: &[u8],
    operation: &str,
) -> PortResult<Written> {
    let mut doubt = match store.append_if(subject, expected, data).await? {
        Appended::Ok(seq) => return Ok(Written::At(seq)),
        Appended::Conflict => return Ok(Written::Conflict),
        Appended::Unknown(text) => text,
    };
    let until = tokio::time::Instant::now() + PURSUE;
    let mut pause = FIRST_PAUSE;
    loop {
        match settle(store, subject, expected, data, operation).await {
            Ok(Some(written)) => return Ok(written),
            Ok(None) => {}
            Err(error) => doubt = error.chain(),
        }
        if tokio::time::Instant::now() + pause > until {
            return Ok(Written::Unknown(doubt));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One try to learn the outcome; `None` if it is open again.
async fn settle(
    store: &dyn Store,
    subject: &str,
    expected: u64,
    data: &[u8],
    operation: &str,
) -> PortResult<Option<Written>> {
    let last = store.last(subject).await?;
    match last {
        Some(record) if is_ours(&record, operation) => return Ok(Some(Written::At(record.seq))),
        Some(record) if record.seq != expected => {
            let ours = find(store, subject, expected, record.seq, operation).await?;
            let written = if ours {
                Written::Superseded
            } else {
                Written::Conflict
            };
            return Ok(Some(written));
        }
        _ => {}
    }
    // Not there, but it may still be on its way. The same append again settles it: only one of the
    // two can meet the expectation.
    match store.append_if(subject, expected, data).await? {
        Appended::Ok(seq) => Ok(Some(Written::At(seq))),
        // Our first try, or somebody else: the next look tells.
        Appended::Conflict | Appended::Unknown(_) => Ok(None),
    }
}

async fn find(
    store: &dyn Store,
    subject: &str,
    after: u64,
    until: u64,
    operation: &str,
) -> PortResult<bool> {
    let mut after = after;
    loop {
        let page = store.read(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(false);
        };
        after = last.seq;
        let mut ours = page.iter().filter(|record| record.subject == subject);
        if ours.any(|record| is_ours(record, operation)) {
            return Ok(true);
        }
        if after >= until {
            return Ok(false);
        }
    }
}

fn is_ours(record: &Record, operation: &str) -> bool {
    serde_json::from_slice::<Operation>(&record.data)
        .is_ok_and(|found| found.operation == operation)
}
