//! What only SQLite promises: its file, its compaction, the supervisor's rows beside the log.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use orchestrator::model::{AgentId, CallbackId, Timestamp};
use orchestrator::ports::store::MAX_RECORD_BYTES;
use orchestrator::ports::{Append, Appended, ErrorKind, Store};
use orchestrator::store::sqlite::{
    Changes, Committed, JournalEntry, SCHEMA_VERSION, SqliteOptions, SqliteStore, set_aside,
};
use orchestrator::testing::memory_store::MemoryStore;

use super::LONG;
use super::conformance::{append, listed};

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
        assert_eq!(listed(&fresh, "").await?, []);
    }
    // The backup itself is whole.
    assert_eq!(listed(&SqliteStore::open(&copy)?, "s/").await?.len(), 200);
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
    assert_eq!(listed(&store, "n/").await?.len(), 35);
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
                "store::sqlite::sqlite_loses_nothing_acknowledged_when_killed",
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
