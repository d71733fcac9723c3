//! The store's conformance suite, run on every adapter, and what only SQLite promises.
//!
//! An adapter joins with one line, `conformance!(name, opener)`, where the opener gives an empty
//! store and something that keeps it alive.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use orchestrator::model::{AgentId, CallbackId, Timestamp};
use orchestrator::ports::store::MAX_RECORD_BYTES;
use orchestrator::ports::{Append, Appended, ErrorKind, Record, Store};
use orchestrator::store::sqlite::{
    Changes, Committed, JournalEntry, SCHEMA_VERSION, SqliteOptions, SqliteStore, set_aside,
};
use orchestrator::testing::memory_store::MemoryStore;

/// Long enough for a loaded machine; a test that needs it has failed.
const LONG: Duration = Duration::from_secs(60);

type Opened = (Arc<dyn Store>, Box<dyn std::any::Any>);

#[expect(clippy::unnecessary_wraps, reason = "the shape of every opener")]
fn memory() -> Result<Opened> {
    Ok((Arc::new(MemoryStore::new()), Box::new(())))
}

fn sqlite() -> Result<Opened> {
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(&directory.path().join("store.db"))?;
    Ok((Arc::new(store), Box::new(directory)))
}

macro_rules! conformance {
    ($name:ident, $open:path) => {
        mod $name {
            conformance!(@tests $open, an_empty_subject_has_no_record, create_and_second_create,
                update_although_other_subjects_moved, wrong_expectations_conflict,
                one_order_over_all_subjects, read_your_write,
                replay_in_order_and_nothing_after_the_end, watch_has_no_gap_while_others_write,
                list_gives_the_last_record_of_each_subject, sixteen_racers_have_one_winner,
                large_binary_payload, oversize_is_refused);
        }
    };
    (@tests $open:path, $($test:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() -> anyhow::Result<()> {
            let (store, _alive) = $open()?;
            tokio::time::timeout(super::LONG, super::$test(store)).await?
        })+
    };
}

conformance!(on_memory, super::memory);
conformance!(on_sqlite, super::sqlite);

async fn append(store: &dyn Store, subject: &str, expected: u64, data: &[u8]) -> Result<u64> {
    match store.append_if(subject, expected, data).await? {
        Appended::Ok(seq) => Ok(seq),
        other => bail!("append to {subject} after {expected}: {other:?}"),
    }
}

async fn an_empty_subject_has_no_record(store: Arc<dyn Store>) -> Result<()> {
    assert_eq!(store.last("task/none").await?, None);
    assert_eq!(store.read(0, 10).await?, []);
    assert_eq!(store.list("").await?, []);
    Ok(())
}

async fn create_and_second_create(store: Arc<dyn Store>) -> Result<()> {
    let seq = append(&*store, "task/1", 0, b"first").await?;
    ensure!(seq > 0, "numbers start above 0");
    assert_eq!(
        store.append_if("task/1", 0, b"again").await?,
        Appended::Conflict
    );
    let last = store.last("task/1").await?.context("the record is there")?;
    assert_eq!((last.seq, last.data.as_slice()), (seq, &b"first"[..]));
    Ok(())
}

async fn update_although_other_subjects_moved(store: Arc<dyn Store>) -> Result<()> {
    let seq = append(&*store, "task/1", 0, b"a").await?;
    for n in 0..5 {
        append(&*store, &format!("other/{n}"), 0, b"x").await?;
    }
    let next = append(&*store, "task/1", seq, b"b").await?;
    ensure!(next > seq, "{next} after {seq}");
    Ok(())
}

async fn wrong_expectations_conflict(store: Arc<dyn Store>) -> Result<()> {
    let first = append(&*store, "task/1", 0, b"a").await?;
    let other = append(&*store, "task/2", 0, b"b").await?;
    let second = append(&*store, "task/1", first, b"c").await?;
    for (what, expected) in [
        ("stale", first),
        ("future", second + 1000),
        ("another subject's", other),
        ("none", 0),
        ("huge", u64::MAX),
    ] {
        let answer = store.append_if("task/1", expected, b"no").await?;
        assert_eq!(answer, Appended::Conflict, "{what}");
    }
    let unborn = store.append_if("task/3", first, b"no").await?;
    assert_eq!(
        unborn,
        Appended::Conflict,
        "an expectation on an empty subject"
    );
    assert_eq!(store.last("task/3").await?, None);
    assert_eq!(store.last("task/1").await?.map(|r| r.seq), Some(second));
    Ok(())
}

async fn one_order_over_all_subjects(store: Arc<dyn Store>) -> Result<()> {
    let mut given = Vec::new();
    for n in 0..20 {
        given.push(
            append(
                &*store,
                &format!("s/{}", n % 3),
                last_seq(&*store, n).await?,
                b"x",
            )
            .await?,
        );
    }
    ensure!(
        given.is_sorted_by(|a, b| a < b),
        "numbers grow over all subjects: {given:?}"
    );
    let read: Vec<u64> = store.read(0, 100).await?.iter().map(|r| r.seq).collect();
    assert_eq!(read, given);
    Ok(())
}

async fn last_seq(store: &dyn Store, n: u32) -> Result<u64> {
    let last = store.last(&format!("s/{}", n % 3)).await?;
    Ok(last.map_or(0, |record| record.seq))
}

async fn read_your_write(store: Arc<dyn Store>) -> Result<()> {
    let mut seq = 0;
    for n in 0..100_u32 {
        seq = append(&*store, "mine", seq, &n.to_be_bytes()).await?;
        let last = store.last("mine").await?.context("just written")?;
        assert_eq!((last.seq, last.data), (seq, n.to_be_bytes().to_vec()));
        let read = store.read(seq - 1, 10).await?;
        assert_eq!(read.last().map(|r| r.seq), Some(seq));
    }
    Ok(())
}

async fn replay_in_order_and_nothing_after_the_end(store: Arc<dyn Store>) -> Result<()> {
    let mut written = Vec::new();
    for n in 0..30_u8 {
        written.push((append(&*store, &format!("r/{n}"), 0, &[n]).await?, n));
    }
    let (mut after, mut read) = (0, Vec::new());
    loop {
        let page = store.read(after, 7).await?;
        ensure!(page.len() <= 7, "the limit holds");
        let Some(last) = page.last() else { break };
        after = last.seq;
        read.extend(page.iter().map(|r| (r.seq, r.data[0])));
    }
    assert_eq!(read, written);
    assert_eq!(store.read(after, 10).await?, []);
    assert_eq!(store.read(u64::MAX, 10).await?, []);
    Ok(())
}

async fn watch_has_no_gap_while_others_write(store: Arc<dyn Store>) -> Result<()> {
    const WRITERS: usize = 4;
    const EACH: usize = 100;
    let before = append(&*store, "start", 0, b"0").await?;
    let first = append(&*store, "start", before, b"1").await?;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move {
            for n in 0..EACH {
                append(&*store, &format!("w{writer}/{n}"), 0, b"x").await?;
            }
            Ok::<_, anyhow::Error>(())
        }));
    }
    let early = tokio::spawn(collect(Arc::clone(&store), before, WRITERS * EACH + 1));
    let second = tokio::spawn(collect(Arc::clone(&store), 0, WRITERS * EACH + 2));
    for writer in writers {
        writer.await??;
    }
    let late = collect(Arc::clone(&store), first, WRITERS * EACH).await?;
    let early = early.await??;
    assert_eq!(early[0].seq, first, "a watch begins after the given record");
    assert_eq!(early[1..], late[..]);
    assert_eq!(second.await??[2..], late[..]);
    let expected: BTreeSet<String> = (0..WRITERS)
        .flat_map(|w| (0..EACH).map(move |n| format!("w{w}/{n}")))
        .collect();
    assert_eq!(
        late.iter()
            .map(|r| r.subject.clone())
            .collect::<BTreeSet<_>>(),
        expected
    );
    ensure!(
        late.is_sorted_by(|a, b| a.seq < b.seq),
        "in order, none twice"
    );

    // And live: a record that comes after the watcher has caught up.
    let mut live = store.watch(late.last().context("records")?.seq).await?;
    let seq = append(&*store, "later", 0, b"!").await?;
    let record = live.next().await.context("the watch goes on")??;
    assert_eq!((record.seq, record.subject.as_str()), (seq, "later"));
    Ok(())
}

async fn collect(store: Arc<dyn Store>, after: u64, count: usize) -> Result<Vec<Record>> {
    let mut stream = store.watch(after).await?;
    let mut records = Vec::new();
    while records.len() < count {
        records.push(stream.next().await.context("the watch goes on")??);
    }
    Ok(records)
}

async fn list_gives_the_last_record_of_each_subject(store: Arc<dyn Store>) -> Result<()> {
    for subject in [
        "task/b",
        "task/a",
        "tasklist/1",
        "tas",
        "task/ä",
        "task0",
        "z",
    ] {
        append(&*store, subject, 0, b"old").await?;
    }
    let old = store.last("task/a").await?.context("there")?.seq;
    let newest = append(&*store, "task/a", old, b"new").await?;
    let listed = store.list("task/").await?;
    let subjects: Vec<&str> = listed.iter().map(|r| r.subject.as_str()).collect();
    assert_eq!(subjects, ["task/a", "task/b", "task/ä"]);
    assert_eq!(
        (listed[0].seq, listed[0].data.as_slice()),
        (newest, &b"new"[..])
    );
    assert_eq!(store.list("").await?.len(), 7);
    assert_eq!(store.list("nothing/").await?, []);
    Ok(())
}

async fn sixteen_racers_have_one_winner(store: Arc<dyn Store>) -> Result<()> {
    for round in 0..25 {
        let subject = format!("race/{round}");
        let base = append(&*store, &subject, 0, b"open").await?;
        let racers: Vec<_> = (0..16_u8)
            .map(|racer| {
                let (store, subject) = (Arc::clone(&store), subject.clone());
                tokio::spawn(async move { store.append_if(&subject, base, &[racer]).await })
            })
            .collect();
        let mut winners = Vec::new();
        for (racer, task) in (0..16_u8).zip(racers) {
            match task.await?? {
                Appended::Ok(seq) => winners.push((seq, racer)),
                Appended::Conflict => {}
                Appended::Unknown(text) => bail!("unknown outcome: {text}"),
            }
        }
        let [(seq, racer)] = winners[..] else {
            bail!("round {round}: winners {winners:?}")
        };
        let last = store.last(&subject).await?.context("claimed")?;
        assert_eq!((last.seq, last.data), (seq, vec![racer]));
    }
    Ok(())
}

async fn large_binary_payload(store: Arc<dyn Store>) -> Result<()> {
    let data: Vec<u8> = (0..200 * 1024).map(|n: u32| (n % 251) as u8).collect();
    let seq = append(&*store, "large", 0, &data).await?;
    assert_eq!(
        store.last("large").await?.map(|r| r.data),
        Some(data.clone())
    );
    assert_eq!(store.read(seq - 1, 1).await?[0].data, data);
    let full = vec![0_u8; MAX_RECORD_BYTES];
    append(&*store, "full", 0, &full).await?;
    assert_eq!(store.last("full").await?.map(|r| r.data), Some(full));
    Ok(())
}

async fn oversize_is_refused(store: Arc<dyn Store>) -> Result<()> {
    let answer = store
        .append_if("big", 0, &vec![0_u8; MAX_RECORD_BYTES + 1])
        .await;
    let error = answer
        .err()
        .context("a record over the limit must be refused")?;
    assert_eq!(error.kind, ErrorKind::Refused);
    let answer = store.append_if(&"s".repeat(600), 0, b"x").await;
    assert_eq!(
        answer.err().map(|e| e.kind),
        Some(ErrorKind::Refused),
        "subject too long"
    );
    let answer = store.append_if("", 0, b"x").await;
    assert_eq!(
        answer.err().map(|e| e.kind),
        Some(ErrorKind::Refused),
        "no subject"
    );
    assert_eq!(store.read(0, 10).await?, []);
    Ok(())
}

// ---- SQLite only -------------------------------------------------------------------------------

fn refusal(path: &Path) -> Result<orchestrator::ports::PortError> {
    SqliteStore::open(path)
        .err()
        .context("the file must be refused")
}

#[tokio::test]
async fn sqlite_keeps_everything_over_a_reopen() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("deep/down/store.db");
    let store = SqliteStore::open(&path)?;
    let a = append(&store, "task/1", 0, b"a").await?;
    let b = append(&store, "task/1", a, b"b").await?;
    drop(store);
    let store = SqliteStore::open(&path)?;
    assert_eq!(
        store.last("task/1").await?.map(|r| (r.seq, r.data)),
        Some((b, b"b".to_vec()))
    );
    assert_eq!(
        store.append_if("task/1", a, b"c").await?,
        Appended::Conflict
    );
    ensure!(
        append(&store, "task/1", b, b"c").await? > b,
        "numbers go on"
    );
    Ok(())
}

#[tokio::test]
async fn sqlite_ends_a_watch_with_an_error_when_it_closes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(&directory.path().join("store.db"))?;
    append(&store, "a", 0, b"1").await?;
    let mut watch = store.watch(0).await?;
    ensure!(
        watch.next().await.context("the record")?.is_ok(),
        "replayed"
    );
    drop(store);
    let end = tokio::time::timeout(LONG, watch.next()).await?;
    ensure!(matches!(end, Some(Err(_))), "ends with an error: {end:?}");
    ensure!(watch.next().await.is_none(), "and then it is over");
    Ok(())
}

#[tokio::test]
async fn sqlite_refuses_a_damaged_file_and_leaves_it_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("store.db");
    let store = SqliteStore::open(&path)?;
    for n in 0..200 {
        append(&store, &format!("s/{n}"), 0, &[7; 1000]).await?;
    }
    let copy = directory.path().join("copy.db");
    store.backup(&copy).await?;
    drop(store);
    let good = std::fs::read(&copy)?;

    let cut = good[..good.len() / 2].to_vec();
    let mut flipped = good.clone();
    flipped[4096..12288].fill(0xA5);
    let text = b"this is not a database at all, but somebody's notes".repeat(100);
    for (what, bytes) in [
        ("cut", cut),
        ("flipped", flipped),
        ("text", text),
        ("empty", vec![]),
    ] {
        let victim = directory.path().join(format!("{what}.db"));
        std::fs::write(&victim, &bytes)?;
        let error = refusal(&victim).context(what)?;
        assert_eq!(error.kind, ErrorKind::Broken, "{what}: {}", error.chain());
        ensure!(
            error.message.contains(&victim.display().to_string()),
            "{what}: {}",
            error.message
        );
        ensure!(
            error.hint.as_deref().is_some_and(|h| h.contains("aside")),
            "{what}: the next step"
        );
        ensure!(std::fs::read(&victim)? == bytes, "{what}: the file changed");
        let aside = set_aside(&victim)?;
        ensure!(
            std::fs::read(&aside)? == bytes,
            "{what}: kept under its new name"
        );
        let fresh = SqliteStore::open(&victim).with_context(|| format!("{what}: after the act"))?;
        assert_eq!(fresh.list("").await?, []);
    }
    // The backup itself is whole.
    assert_eq!(SqliteStore::open(&copy)?.list("s/").await?.len(), 200);
    Ok(())
}

#[tokio::test]
async fn sqlite_refuses_to_start_empty_when_only_the_log_is_left() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("store.db");
    std::fs::write(directory.path().join("store.db-wal"), b"frames")?;
    let error = refusal(&path)?;
    assert_eq!(error.kind, ErrorKind::Broken);
    ensure!(!path.exists(), "no empty store in its place");
    Ok(())
}

#[tokio::test]
async fn sqlite_refuses_newer_and_foreign_files() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("store.db");
    let store = SqliteStore::open(&path)?;
    append(&store, "a", 0, b"1").await?;
    drop(store);
    // The writer thread may still be closing; SQLite's own lock and busy time sort that out.
    let raw = rusqlite::Connection::open(&path)?;
    raw.busy_timeout(LONG)?;
    raw.pragma_update(None, "user_version", SCHEMA_VERSION + 41)?;
    drop(raw);
    let error = refusal(&path)?;
    assert_eq!(error.kind, ErrorKind::Refused);
    for number in [SCHEMA_VERSION, SCHEMA_VERSION + 41] {
        ensure!(
            error.message.contains(&number.to_string()),
            "{}",
            error.message
        );
    }
    let foreign = directory.path().join("foreign.db");
    rusqlite::Connection::open(&foreign)?.execute_batch("CREATE TABLE notes(text)")?;
    let error = refusal(&foreign)?;
    assert_eq!(error.kind, ErrorKind::Refused);
    ensure!(
        error.message.contains("another program"),
        "{}",
        error.message
    );
    Ok(())
}

#[tokio::test]
async fn sqlite_survives_a_full_disk() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("store.db");
    let options = SqliteOptions {
        max_pages: Some(100),
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open_with(&path, options)?;
    let mut seq = 0;
    let mut acknowledged = 0_u32;
    let error = loop {
        ensure!(acknowledged < 1000, "100 pages never filled up");
        match store.append_if("log", seq, &[1; 8000]).await {
            Ok(Appended::Ok(next)) => {
                seq = next;
                acknowledged += 1;
            }
            Ok(other) => bail!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Transient);
    ensure!(error.message.contains("disk is full"), "{}", error.message);
    ensure!(error.hint.is_some(), "says what to do");
    // Reading goes on, nothing acknowledged is lost, a failed state commit changes nothing.
    assert_eq!(store.read(0, 1000).await?.len(), acknowledged as usize);
    let fleet = store.fleet_state();
    let large = Changes {
        meta: vec![
            ("k".into(), "v".into()),
            ("large".into(), "x".repeat(400_000)),
        ],
        ..Changes::default()
    };
    ensure!(fleet.commit(large).await.is_err(), "there is no room");
    assert_eq!(fleet.load().await?.meta.len(), 0, "all or nothing");
    // Space comes back: superseded records go, and the same handle works again.
    ensure!(store.compact(1).await? > 0, "there was something to drop");
    seq = append(&store, "log", seq, &[2; 8000]).await?;
    drop(store);
    let store = SqliteStore::open(&path)?;
    assert_eq!(store.last("log").await?.map(|r| r.seq), Some(seq));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_one_bad_job_does_not_fail_its_neighbours() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let options = SqliteOptions {
        max_pages: Some(60),
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open_with(&directory.path().join("store.db"), options)?;
    let jobs: Vec<_> = (0..40)
        .map(|n| {
            let store = store.clone();
            // Every eighth is larger than the whole file may be.
            let size = if n % 8 == 3 { MAX_RECORD_BYTES } else { 100 };
            tokio::spawn(async move { store.append_if(&format!("n/{n}"), 0, &vec![0; size]).await })
        })
        .collect();
    for (n, job) in jobs.into_iter().enumerate() {
        let answer = job.await?;
        assert_eq!(answer.is_err(), n % 8 == 3, "{n}: {answer:?}");
    }
    assert_eq!(store.list("n/").await?.len(), 35);
    Ok(())
}

#[tokio::test]
async fn sqlite_compaction_keeps_the_last_record_of_each_subject() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(&directory.path().join("store.db"))?;
    let quiet = append(&store, "quiet", 0, b"q").await?;
    let mut seq = 0;
    for n in 0..100_u8 {
        seq = append(&store, "busy", seq, &[n]).await?;
    }
    assert_eq!(store.compact(10).await?, 90);
    assert_eq!(store.last("quiet").await?.map(|r| r.seq), Some(quiet));
    assert_eq!(store.read(0, 1000).await?.len(), 11);
    assert_eq!(
        store.append_if("quiet", 0, b"no").await?,
        Appended::Conflict
    );
    append(&store, "busy", seq, b"goes on").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_state_and_records_are_written_together_or_not_at_all() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("store.db");
    let store = SqliteStore::open(&path)?;
    let fleet = store.fleet_state();
    ensure!(store.is_in(fleet.path()) && !MemoryStore::new().is_in(fleet.path()));
    let first = append(&store, "task/1", 0, b"1").await?;
    let changes = |value: &str| Changes {
        meta: vec![("k".into(), value.into())],
        callbacks: vec![(CallbackId::new(value), AgentId::worker(1), "\"a\"".into())],
        ..Changes::default()
    };
    let record = |subject: &str, expected, data: &[u8]| Append {
        subject: subject.into(),
        expected,
        data: data.to_vec(),
    };
    let mut watched = store.watch(first).await?;
    let both = vec![record("task/1", first, b"2"), record("task/2", 0, b"new")];
    let Committed::All(numbers) = fleet.commit_with(changes("together"), both).await? else {
        bail!("nothing was in the way");
    };
    for (number, data) in numbers.iter().zip([b"2".as_slice(), b"new"]) {
        let record = watched.next().await.context("a record")??;
        assert_eq!((record.seq, record.data.as_slice()), (*number, data));
    }
    let before = store.read(0, 100).await?;
    let large = vec![0; MAX_RECORD_BYTES + 1];
    for appends in [
        // One of two was overtaken; the first alone would do.
        vec![
            record("task/3", 0, b"new"),
            record("task/1", first, b"late"),
        ],
        vec![record("task/3", 0, &large)],
    ] {
        let committed = fleet.commit_with(changes("refused"), appends).await?;
        assert_eq!(committed, Committed::Nothing);
    }
    drop((watched, fleet, store));
    let store = SqliteStore::open(&path)?;
    let fleet = store.fleet_state();
    assert_eq!(store.read(0, 100).await?, before);
    assert_eq!(fleet.load().await?.meta["k"], "together");
    for (id, found) in [("together", true), ("refused", false)] {
        let answer = fleet.callback(&CallbackId::new(id)).await?;
        assert_eq!(answer.is_some(), found, "{id}");
    }
    Ok(())
}

#[tokio::test]
async fn sqlite_fleet_state_is_one_transaction_and_bounded() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("store.db");
    let options = SqliteOptions {
        keep_journal: 5,
        keep_callbacks: 3,
        callback_age_ms: 1000,
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open_with(&path, options)?;
    let fleet = store.fleet_state();
    let worker = AgentId::worker(1);
    for n in 1..=8_i64 {
        let agent = if n % 2 == 0 {
            worker.clone()
        } else {
            AgentId::manager()
        };
        fleet
            .commit(Changes {
                at: Timestamp(n),
                agents: vec![(agent.clone(), format!("{{\"n\":{n}}}"))],
                meta: vec![("last".into(), n.to_string())],
                journal: vec![JournalEntry {
                    seq: 0,
                    at: Timestamp(n),
                    agent: Some(agent.clone()),
                    kind: "hook".into(),
                    json: "{}".into(),
                }],
                callbacks: vec![
                    (
                        CallbackId::new(format!("c{n}")),
                        agent.clone(),
                        format!("\"a{n}\""),
                    ),
                    (CallbackId::new("c1"), agent, "\"another answer\"".into()),
                ],
                ..Changes::default()
            })
            .await?;
        if n == 1 {
            let first = fleet.callback(&CallbackId::new("c1")).await?;
            assert_eq!(first.as_deref(), Some("\"a1\""), "the first answer stays");
        }
    }
    drop((store, fleet));
    let fleet = SqliteStore::open(&path)?.fleet_state();
    let loaded = fleet.load().await?;
    assert_eq!(loaded.agents[&worker], "{\"n\":8}");
    assert_eq!(loaded.agents[&AgentId::manager()], "{\"n\":7}");
    assert_eq!(loaded.meta["last"], "8");
    assert_eq!(loaded.journal_head, 8);
    let journal = fleet.journal(0, 100, None).await?;
    assert_eq!(
        journal.iter().map(|e| e.at.0).collect::<Vec<_>>(),
        [4, 5, 6, 7, 8]
    );
    let of_worker = fleet.journal(4, 100, Some(&worker)).await?;
    assert_eq!(of_worker.iter().map(|e| e.seq).collect::<Vec<_>>(), [6, 8]);
    let tail = fleet.journal_tail(2, None).await?;
    assert_eq!(tail.iter().map(|e| e.seq).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(
        fleet.callback(&CallbackId::new("c2")).await?,
        None,
        "pruned by count"
    );
    let newest = fleet.callback(&CallbackId::new("c8")).await?;
    assert_eq!(newest.as_deref(), Some("\"a8\""));
    let much_later = Changes {
        at: Timestamp(10_000),
        removed_agents: vec![worker.clone()],
        callbacks: vec![(CallbackId::new("new"), worker.clone(), "1".into())],
        ..Changes::default()
    };
    // The reopened store has the default age, a week: c8 stays until then.
    fleet.commit(much_later).await?;
    ensure!(
        fleet.callback(&CallbackId::new("c8")).await?.is_some(),
        "young enough"
    );
    ensure!(!fleet.load().await?.agents.contains_key(&worker), "removed");
    Ok(())
}

/// This test runs itself once more as the process that is killed.
#[tokio::test]
async fn sqlite_loses_nothing_acknowledged_when_killed() -> Result<()> {
    const ROLE: &str = "ORCHESTRATOR_TEST_WRITER";
    if let Some(path) = std::env::var_os(ROLE) {
        let store = SqliteStore::open(Path::new(&path))?;
        let mut seq = store.last("log").await?.map_or(0, |record| record.seq);
        // Ends by being killed; the bound is for the case that nobody does.
        for _ in 0..1_000_000 {
            seq = append(&store, "log", seq, b"x").await?;
            // One line is one write to the pipe: a kill cuts none in two.
            println!("acknowledged {seq}");
        }
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("store.db");
    let mut acknowledged: Vec<u64> = Vec::new();
    for round in 1..=3 {
        let mut child = std::process::Command::new(std::env::current_exe()?)
            .args([
                "--exact",
                "store::sqlite_loses_nothing_acknowledged_when_killed",
                "--nocapture",
            ])
            .env(ROLE, &path)
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let output = std::io::BufReader::new(child.stdout.take().context("piped")?);
        let enough = round * 100;
        for line in std::io::BufRead::lines(output) {
            let line = line?;
            let number = line.strip_prefix("acknowledged ");
            acknowledged.extend(number.and_then(|number| number.parse::<u64>().ok()));
            if acknowledged.len() == enough {
                child.kill()?;
            }
        }
        child.wait()?;
        ensure!(acknowledged.len() >= enough, "the writer ended by itself");
        let store = SqliteStore::open(&path)?;
        let mut stored: BTreeSet<u64> = BTreeSet::new();
        while let Some(page) = next_page(&store, stored.last().copied()).await? {
            stored.extend(page);
        }
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|seq| !stored.contains(seq))
            .collect();
        ensure!(lost.is_empty(), "lost {lost:?} of {}", acknowledged.len());
    }
    Ok(())
}

async fn next_page(store: &dyn Store, after: Option<u64>) -> Result<Option<Vec<u64>>> {
    let page = store.read(after.unwrap_or(0), 1000).await?;
    Ok((!page.is_empty()).then(|| page.iter().map(|record| record.seq).collect()))
}
