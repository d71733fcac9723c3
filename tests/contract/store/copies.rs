//! Files of SQLite as a whole: old ones are migrated, copies are made beside a writer, damage is
//! found, and a backup comes back without anything being thrown away.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use orchestrator::coordination::Queue;
use orchestrator::model::{AgentId, CallbackId, TaskId, TaskStatus};
use orchestrator::ports::{Appended, ErrorKind, Store as _};
use orchestrator::store::sqlite::{
    Checked, SCHEMA_VERSION, SqliteStore, backup_file, check_file, restore_file,
};

use super::conformance::{append, listed};

fn write_first_schema(path: &Path) -> Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(include_str!("v1.sql"))?;
    Ok(())
}

fn whole(path: &Path) -> Result<Checked> {
    let checked = check_file(path)?;
    ensure!(checked.problems.is_empty(), "{:?}", checked.problems);
    Ok(checked)
}

#[tokio::test]
async fn a_file_of_the_first_schema_is_migrated_and_keeps_everything() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("state.db");
    write_first_schema(&path)?;
    assert_eq!(whole(&path)?.schema, 1, "a look at it changes nothing");
    // Migrated once, opened as it is then.
    for _ in 0..2 {
        let store = SqliteStore::open(&path)?;
        let read: Vec<u64> = store.read(0, 100).await?.iter().map(|r| r.seq).collect();
        assert_eq!(read, [1, 2, 3, 4, 7]);
        let heads: Vec<(String, u64)> = listed(&store, "")
            .await?
            .into_iter()
            .map(|record| (record.subject, record.seq))
            .collect();
        let wanted = [
            ("task/w1-a", 7),
            ("task/w1-b", 4),
            ("tasklist/1/checkout", 2),
        ];
        assert_eq!(
            heads,
            wanted.map(|(subject, seq)| (subject.to_owned(), seq))
        );
        let fleet = store.fleet_state();
        let loaded = fleet.load().await?;
        assert_eq!(loaded.agents[&AgentId::worker(1)], "{\"n\":1}");
        assert_eq!(loaded.journal_head, 5);
        let answer = fleet.callback(&CallbackId::new("c1")).await?;
        assert_eq!(answer.as_deref(), Some("\"go on\""));
        let queue = Queue::open(Arc::new(store)).await?;
        let status = |id: &str| queue.get(&TaskId::new(id)).map(|task| task.status);
        assert_eq!(status("w1-a"), Some(TaskStatus::Done));
        assert_eq!(status("w1-b"), Some(TaskStatus::Available));
    }
    assert_eq!(whole(&path)?.schema, SCHEMA_VERSION);
    let store = SqliteStore::open(&path)?;
    assert_eq!(
        store.compact(0).await?,
        2,
        "what had been superseded before is known"
    );
    append(&store, "task/w1-b", 4, b"next").await?;
    assert_eq!(store.compact(0).await?, 1);
    let read: Vec<u64> = store.read(0, 100).await?.iter().map(|r| r.seq).collect();
    assert_eq!(read, [2, 7, 8]);
    whole(&path)?;
    Ok(())
}

/// A file may be of any version from the first on: each step is taken by itself.
#[tokio::test]
async fn a_new_file_and_a_migrated_one_have_the_same_tables() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let tables = |path: &Path| -> Result<Vec<(String, String)>> {
        drop(SqliteStore::open(path)?);
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(super::LONG)?;
        let mut statement = connection
            .prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")?;
        let rows = statement.query_map([], |row| {
            let sql: String = row.get(1)?;
            // Comments and spaces are no difference.
            let lines = sql
                .lines()
                .map(|line| line.split("--").next().unwrap_or(""));
            let words = lines.flat_map(str::split_whitespace).collect::<Vec<_>>();
            Ok((row.get(0)?, words.concat()))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    };
    let old = directory.path().join("old.db");
    write_first_schema(&old)?;
    assert_eq!(tables(&old)?, tables(&directory.path().join("new.db"))?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_made_beside_a_writer_that_never_rests() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("state.db");
    let store = SqliteStore::open(&path)?;
    for n in 0..2000 {
        append(&store, &format!("s/{n}"), 0, &[7; 1000]).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, ended) = (store.clone(), Arc::clone(&stop));
    let writing = tokio::spawn(async move {
        let mut seq = 0;
        while !ended.load(Ordering::Relaxed) {
            match writer.append_if("busy", seq, b"x").await? {
                Appended::Ok(next) => seq = next,
                other => bail!("{other:?}"),
            }
        }
        Ok(seq)
    });
    while store.last("busy").await?.is_none() {
        tokio::task::yield_now().await;
    }
    for n in 0..3 {
        let before = store.last("busy").await?.context("written")?.seq;
        let copy = directory.path().join(format!("backup-{n}.db"));
        // As another process does it: by the file alone.
        let (from, to) = (path.clone(), copy.clone());
        let made = tokio::task::spawn_blocking(move || backup_file(&from, &to)).await??;
        assert_eq!((made.subjects, made.schema), (2001, SCHEMA_VERSION));
        assert_eq!(
            made.bytes,
            fs::metadata(&copy)?.len(),
            "one file, and no log beside it"
        );
        assert_eq!(fs::metadata(&copy)?.permissions().mode() & 0o777, 0o600);
        whole(&copy)?;
        let copied = SqliteStore::open(&copy)?;
        assert_eq!(listed(&copied, "s/").await?.len(), 2000);
        let last = copied.last("busy").await?.context("in the copy")?.seq;
        ensure!(
            last >= before,
            "{last} in the copy, {before} were acknowledged before"
        );
    }
    stop.store(true, Ordering::Relaxed);
    let last = writing.await??;
    assert_eq!(store.last("busy").await?.map(|r| r.seq), Some(last));
    let again = store.backup(&directory.path().join("backup-0.db")).await;
    assert_eq!(again.err().map(|e| e.kind), Some(ErrorKind::AlreadyExists));
    no_drafts(directory.path())
}

fn no_drafts(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().display().to_string();
        ensure!(
            !name.contains("partial") && !name.contains("restoring"),
            "{name}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_backup_takes_the_place_of_a_damaged_file_which_is_kept() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (path, copy) = (
        directory.path().join("state.db"),
        directory.path().join("backup.db"),
    );
    let store = SqliteStore::open(&path)?;
    let first = append(&store, "a", 0, b"1").await?;
    store.backup(&copy).await?;
    for n in 0..200 {
        append(&store, &format!("s/{n}"), 0, &[7; 1000]).await?;
    }
    drop(store);
    // Everything of it in the one file, then damaged in the middle.
    let raw = rusqlite::Connection::open(&path)?;
    raw.busy_timeout(super::LONG)?;
    raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    drop(raw);
    let mut bytes = fs::read(&path)?;
    bytes[40_960..53_248].fill(0xA5);
    fs::write(&path, &bytes)?;
    let found = check_file(&path)?;
    ensure!(!found.problems.is_empty(), "the damage is found");
    let refused = SqliteStore::open(&path).err().context("it is refused")?;
    assert_eq!(refused.kind, ErrorKind::Broken);
    let hint = refused.hint.unwrap_or_default();
    ensure!(hint.contains("state restore"), "{hint}");
    let spoiled = backup_file(&path, &directory.path().join("no.db"));
    ensure!(spoiled.is_err(), "nobody is given a damaged backup");
    assert_eq!(fs::read(&path)?, bytes, "left as it is");

    let restored = restore_file(&copy, &path)?;
    let kept = restored.replaced.context("something was there")?;
    assert_eq!(fs::read(&kept)?, bytes, "and kept as it was");
    let store = SqliteStore::open(&path)?;
    assert_eq!(store.last("a").await?.map(|r| r.seq), Some(first));
    append(&store, "a", first, b"2").await?;
    drop(store);
    // Once more, over a whole one: that is kept as well, and the backup serves any number of times.
    let second = restore_file(&copy, &path)?.replaced.context("replaced")?;
    ensure!(second != kept && second.exists());
    assert_eq!(listed(&SqliteStore::open(&path)?, "").await?.len(), 1);
    let bad = restore_file(&kept, &path)
        .err()
        .context("a damaged backup")?;
    assert_eq!(bad.kind, ErrorKind::Broken);
    assert_eq!(
        listed(&SqliteStore::open(&path)?, "").await?.len(),
        1,
        "nothing was changed"
    );
    no_drafts(directory.path())
}

#[tokio::test]
async fn a_restore_that_was_cut_off_is_no_empty_store() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (path, copy) = (
        directory.path().join("state.db"),
        directory.path().join("backup.db"),
    );
    let store = SqliteStore::open(&path)?;
    append(&store, "a", 0, b"1").await?;
    store.backup(&copy).await?;
    drop(store);
    // Between moving the old one away and putting the new one in its place.
    fs::rename(&path, directory.path().join("state.db.replaced-1"))?;
    fs::copy(&copy, directory.path().join("state.db.restoring"))?;
    for suffix in ["-wal", "-shm"] {
        let beside = directory.path().join(format!("state.db{suffix}"));
        if beside.exists() {
            fs::remove_file(beside)?;
        }
    }
    let refused = SqliteStore::open(&path).err().context("refused")?;
    assert_eq!(refused.kind, ErrorKind::Broken);
    ensure!(!path.exists(), "no empty store in its place");
    assert_eq!(restore_file(&copy, &path)?.replaced, None);
    assert_eq!(listed(&SqliteStore::open(&path)?, "").await?.len(), 1);
    no_drafts(directory.path())
}

#[tokio::test]
async fn tables_that_contradict_each_other_are_found() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("state.db");
    let store = SqliteStore::open(&path)?;
    let first = append(&store, "a", 0, b"1").await?;
    append(&store, "a", first, b"2").await?;
    drop(store);
    whole(&path)?;
    let raw = rusqlite::Connection::open(&path)?;
    raw.busy_timeout(super::LONG)?;
    raw.execute_batch("DELETE FROM superseded")?;
    let problems = check_file(&path)?.problems;
    ensure!(
        problems.len() == 1 && problems[0].contains("or neither"),
        "{problems:?}"
    );
    raw.execute_batch("INSERT INTO superseded VALUES (1); DELETE FROM records WHERE seq = 2")?;
    let problems = check_file(&path)?.problems;
    ensure!(
        problems.len() == 1 && problems[0].contains("lost"),
        "{problems:?}"
    );
    for missing in ["no.db", "nowhere/no.db"] {
        let error = check_file(&directory.path().join(missing))
            .err()
            .context("missing")?;
        assert_eq!(error.kind, ErrorKind::NotFound);
    }
    Ok(())
}
