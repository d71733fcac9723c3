//! The suite every store passes, written against the port alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use orchestrator::ports::store::{MAX_RECORD_BYTES, MAX_SUBJECT_BYTES};
use orchestrator::ports::{Appended, ErrorKind, Listing, Record, Store};

/// An empty store, and the means to try what its engine does over the months.
pub(super) struct Engine {
    pub(super) store: Arc<dyn Store>,
    /// Makes the engine drop everything its retention may ever drop.
    pub(super) compact: Compact,
    /// Held while the store is in use.
    pub(super) _alive: Box<dyn std::any::Any + Send>,
}

pub(super) type Compact = Box<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// One module with every test of the suite. `$open`: an async function that gives an [`Engine`].
macro_rules! conformance {
    ($name:ident, $open:path) => {
        mod $name {
            super::conformance!(@tests $open, an_empty_subject_has_no_record, create_and_second_create,
                update_although_other_subjects_moved, wrong_expectations_conflict,
                one_order_over_all_subjects, read_your_write,
                replay_in_order_and_nothing_after_the_end, watch_has_no_gap_while_others_write,
                list_gives_the_last_record_of_each_subject,
                a_listing_and_a_watch_from_it_are_the_whole_state,
                a_listing_that_nobody_reads_holds_nobody_up,
                compaction_keeps_the_last_record_of_each_subject,
                an_old_position_is_taken_after_a_compaction,
                sixteen_racers_have_one_winner,
                a_caller_that_gives_up_leaves_all_or_nothing,
                subjects_mean_nothing_to_the_engine, an_empty_record_is_a_record,
                large_binary_payload, oversize_is_refused);
        }
    };
    (@tests $open:path, $($test:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() -> anyhow::Result<()> {
            let engine = $open().await?;
            tokio::time::timeout(super::LONG, super::conformance::$test(engine)).await?
        })+
    };
}
pub(super) use conformance;

pub(super) async fn listed(store: &dyn Store, prefix: &str) -> Result<Vec<Record>> {
    Ok(store.list(prefix).await?.collect().await?)
}

pub(super) async fn append(
    store: &dyn Store,
    subject: &str,
    expected: u64,
    data: &[u8],
) -> Result<u64> {
    match store.append_if(subject, expected, data).await? {
        Appended::Ok(seq) => Ok(seq),
        other => bail!("append to {subject} after {expected}: {other:?}"),
    }
}

pub(super) async fn an_empty_subject_has_no_record(Engine { store, .. }: Engine) -> Result<()> {
    assert_eq!(store.last("task/none").await?, None);
    assert_eq!(store.read(0, 10).await?, []);
    assert_eq!(listed(&*store, "").await?, []);
    Ok(())
}

pub(super) async fn create_and_second_create(Engine { store, .. }: Engine) -> Result<()> {
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

pub(super) async fn update_although_other_subjects_moved(
    Engine { store, .. }: Engine,
) -> Result<()> {
    let seq = append(&*store, "task/1", 0, b"a").await?;
    for n in 0..5 {
        append(&*store, &format!("other/{n}"), 0, b"x").await?;
    }
    let next = append(&*store, "task/1", seq, b"b").await?;
    ensure!(next > seq, "{next} after {seq}");
    Ok(())
}

pub(super) async fn wrong_expectations_conflict(Engine { store, .. }: Engine) -> Result<()> {
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

pub(super) async fn one_order_over_all_subjects(Engine { store, .. }: Engine) -> Result<()> {
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

pub(super) async fn read_your_write(Engine { store, .. }: Engine) -> Result<()> {
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

pub(super) async fn replay_in_order_and_nothing_after_the_end(
    Engine { store, .. }: Engine,
) -> Result<()> {
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

pub(super) async fn watch_has_no_gap_while_others_write(
    Engine { store, .. }: Engine,
) -> Result<()> {
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

pub(super) async fn list_gives_the_last_record_of_each_subject(
    Engine { store, .. }: Engine,
) -> Result<()> {
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
    let tasks = listed(&*store, "task/").await?;
    let subjects: Vec<&str> = tasks.iter().map(|r| r.subject.as_str()).collect();
    assert_eq!(subjects, ["task/a", "task/b", "task/ä"]);
    assert_eq!(
        (tasks[0].seq, tasks[0].data.as_slice()),
        (newest, &b"new"[..])
    );
    assert_eq!(listed(&*store, "").await?.len(), 7);
    assert_eq!(listed(&*store, "nothing/").await?, []);
    Ok(())
}

pub(super) async fn sixteen_racers_have_one_winner(Engine { store, .. }: Engine) -> Result<()> {
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

pub(super) async fn large_binary_payload(Engine { store, .. }: Engine) -> Result<()> {
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

pub(super) async fn oversize_is_refused(Engine { store, .. }: Engine) -> Result<()> {
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

/// Subject → its newest record.
type State = BTreeMap<String, Record>;

fn keep_newest(state: &mut State, record: Record) {
    let known = state.get(&record.subject).map_or(0, |known| known.seq);
    if record.seq > known {
        state.insert(record.subject.clone(), record);
    }
}

/// What an informer does: while others write, its list and its watch miss nothing.
pub(super) async fn a_listing_and_a_watch_from_it_are_the_whole_state(
    Engine { store, .. }: Engine,
) -> Result<()> {
    const SUBJECTS: usize = 60;
    const ROUNDS: usize = 8;
    const LAST: &[u8] = &[ROUNDS as u8];
    for n in 0..SUBJECTS {
        append(&*store, &format!("s/{n}"), 0, &[0]).await?;
    }
    let writer = Arc::clone(&store);
    let writing = tokio::spawn(async move {
        for round in 1..=ROUNDS {
            for n in 0..SUBJECTS {
                let subject = format!("s/{n}");
                let seq = writer.last(&subject).await?.map_or(0, |record| record.seq);
                append(&*writer, &subject, seq, &[round as u8]).await?;
            }
        }
        Ok::<_, anyhow::Error>(())
    });
    // Several informers, each begun at another moment of it.
    for _ in 0..4 {
        let Listing { at, mut records } = store.list("s/").await?;
        let mut state = State::new();
        while let Some(record) = records.next().await {
            keep_newest(&mut state, record?);
        }
        assert_eq!(state.len(), SUBJECTS, "all were there before the listing");
        let mut watch = store.watch(at).await?;
        while state.values().any(|record| record.data != LAST) {
            let record = watch.next().await.context("the watch goes on")??;
            ensure!(record.seq > at, "a watch begins after its position");
            keep_newest(&mut state, record);
        }
    }
    writing.await??;
    let now: State = listed(&*store, "s/")
        .await?
        .into_iter()
        .map(|record| (record.subject.clone(), record))
        .collect();
    ensure!(now.values().all(|record| record.data == LAST));
    Ok(())
}

pub(super) async fn a_listing_that_nobody_reads_holds_nobody_up(
    Engine { store, .. }: Engine,
) -> Result<()> {
    for n in 0..2000 {
        append(&*store, &format!("s/{n}"), 0, &[7; 1000]).await?;
    }
    let held: Vec<Listing> = vec![store.list("s/").await?, store.list("s/").await?];
    append(&*store, "t", 0, b"written beside them").await?;
    assert_eq!(listed(&*store, "s/").await?.len(), 2000);
    drop(held);
    // What they held is free again, however often it happens.
    for _ in 0..20 {
        drop(store.list("s/").await?);
    }
    assert_eq!(listed(&*store, "").await?.len(), 2001);
    Ok(())
}

/// Three subjects, one of them written once and long ago.
async fn some_history(store: &dyn Store) -> Result<[u64; 3]> {
    let quiet = append(store, "quiet", 0, b"q").await?;
    let (mut busy, mut other) = (0, 0);
    for n in 0..50_u8 {
        busy = append(store, "busy", busy, &[n]).await?;
        other = append(store, "other", other, &[n]).await?;
    }
    Ok([quiet, busy, other])
}

pub(super) async fn compaction_keeps_the_last_record_of_each_subject(
    Engine { store, compact, .. }: Engine,
) -> Result<()> {
    let [quiet, busy, other] = some_history(&*store).await?;
    let before = listed(&*store, "").await?;
    compact().await?;
    assert_eq!(listed(&*store, "").await?, before);
    let all = store.read(0, 1000).await?;
    ensure!(all.is_sorted_by(|a, b| a.seq < b.seq), "in order: {all:?}");
    for (subject, seq) in [("quiet", quiet), ("busy", busy), ("other", other)] {
        let last = store.last(subject).await?;
        assert_eq!(
            last.as_ref().map(|record| record.seq),
            Some(seq),
            "{subject}"
        );
        ensure!(
            all.iter().any(|record| Some(record) == last.as_ref()),
            "{subject}"
        );
        let again = store.append_if(subject, 0, b"no").await?;
        assert_eq!(again, Appended::Conflict, "{subject} is no new subject");
        let next = append(&*store, subject, seq, b"next").await?;
        ensure!(next > other, "numbers go on");
    }
    compact().await?;
    assert_eq!(listed(&*store, "").await?.len(), 3);
    Ok(())
}

pub(super) async fn an_old_position_is_taken_after_a_compaction(
    Engine { store, compact, .. }: Engine,
) -> Result<()> {
    let [quiet, busy, other] = some_history(&*store).await?;
    compact().await?;
    let mut wanted = BTreeSet::from([busy, other]);
    let mut watch = store.watch(quiet).await?;
    let mut read = store.read(quiet, 1000).await?;
    while !wanted.is_empty() {
        let record = watch.next().await.context("the watch goes on")??;
        assert_eq!(read.remove(0), record, "they agree");
        wanted.remove(&record.seq);
    }
    let live = append(&*store, "quiet", quiet, b"!").await?;
    let record = watch.next().await.context("and goes on")??;
    assert_eq!((record.seq, record.data.as_slice()), (live, &b"!"[..]));
    Ok(())
}

/// A future that is dropped may have written or not, but never a part, and never later than what
/// is written after it on the same subject.
pub(super) async fn a_caller_that_gives_up_leaves_all_or_nothing(
    Engine { store, .. }: Engine,
) -> Result<()> {
    for n in 0..40_u32 {
        let subject = format!("given-up/{n}");
        let base = append(&*store, &subject, 0, b"base").await?;
        {
            let writing = store.append_if(&subject, base, b"given up");
            let moment = async {
                for _ in 0..n % 8 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                () = moment => {}
                _ = writing => {}
            }
        }
        // The next writer reads, and loses at most against the one that gave up.
        let mut tries = 0;
        let mine = loop {
            let last = store.last(&subject).await?.context("there is one")?;
            ensure!(last.data == b"base" || last.data == b"given up");
            match store.append_if(&subject, last.seq, b"mine").await? {
                Appended::Ok(seq) => break seq,
                Appended::Conflict if tries < 2 => tries += 1,
                other => bail!("{other:?} at try {tries}"),
            }
        };
        assert_eq!(store.last(&subject).await?.map(|r| r.seq), Some(mine));
    }
    Ok(())
}

pub(super) async fn subjects_mean_nothing_to_the_engine(
    Engine { store, .. }: Engine,
) -> Result<()> {
    let long = "l".repeat(MAX_SUBJECT_BYTES);
    let odd = [
        "a",
        "A",
        "a.b",
        "a.*",
        "a.>",
        "*",
        ">",
        "a b",
        " a",
        "a_b",
        "a%b",
        "a/b/",
        "/a",
        "a\u{0}b",
        "a\nb",
        "ä",
        "a\u{308}",
        "\u{10FFFF}",
        "\u{D7FF}x",
        "\u{E000}x",
        "'; DROP",
        long.as_str(),
    ];
    let mut given = BTreeMap::new();
    for subject in odd {
        let seq = append(&*store, subject, 0, subject.as_bytes()).await?;
        given.insert(subject.to_owned(), seq);
    }
    for (subject, seq) in &given {
        let last = store
            .last(subject)
            .await?
            .with_context(|| format!("{subject:?}"))?;
        assert_eq!((last.seq, &last.subject), (*seq, subject));
        assert_eq!(last.data, subject.as_bytes());
    }
    for prefix in [
        "",
        "a",
        "a.",
        "a_",
        "a%",
        "*",
        "\u{10FFFF}",
        "\u{D7FF}",
        "A",
    ] {
        let found = listed(&*store, prefix).await?;
        let found: Vec<&String> = found.iter().map(|record| &record.subject).collect();
        let wanted: Vec<&String> = given.keys().filter(|s| s.starts_with(prefix)).collect();
        assert_eq!(found, wanted, "with prefix {prefix:?}");
    }
    Ok(())
}

/// It says that there is nothing to say, and not that there is no record.
pub(super) async fn an_empty_record_is_a_record(Engine { store, .. }: Engine) -> Result<()> {
    let first = append(&*store, "s", 0, b"").await?;
    assert_eq!(store.append_if("s", 0, b"x").await?, Appended::Conflict);
    assert_eq!(listed(&*store, "s").await?.len(), 1);
    let mut watch = store.watch(0).await?;
    let record = watch.next().await.context("it is watched")??;
    assert_eq!((record.seq, record.data.len()), (first, 0));
    Ok(())
}
