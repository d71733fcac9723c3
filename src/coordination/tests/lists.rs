use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::lists::{Applied, ListSource, UNTICK_GRACE, apply, item_key, task_id};
use super::super::tasklist::{parse, tick};
use super::*;
use crate::model::{Incarnation, TaskStatus};
use crate::ports::Store as _;
use crate::testing::memory_store::Fault;

const HERE: ListSource = ListSource::Checkout;
const TIP: ListSource = ListSource::Branch;

async fn show(queue: &Queue, source: ListSource, text: &str, now: Timestamp) -> Applied {
    apply(queue, 1, source, &parse(text), now).await.unwrap()
}

fn id(text: &str) -> TaskId {
    let list = parse(&format!("- [ ] {text}\n"));
    task_id(1, &list.items[0].key)
}

fn status(queue: &Queue, text: &str) -> TaskStatus {
    queue.get(&id(text)).unwrap().status
}

async fn finish(queue: &Queue, text: &str, now: Timestamp) {
    let task = queue
        .claim(&id(text), &worker(), Incarnation(1), now, LEASE)
        .await
        .unwrap();
    queue
        .complete(&id(text), fence(&task), "done", None, now)
        .await
        .unwrap();
}

#[tokio::test]
async fn items_become_tasks_of_the_worker_in_the_order_of_the_file() {
    let (queue, store) = open().await;
    let text = "- [x] old\n- [ ] first\n  - [ ] part\n- [ ] second\n";
    let applied = show(&queue, HERE, text, at(0)).await;
    assert_eq!(applied.created, [id("first"), id("part"), id("second")]);
    let tasks = queue.candidates(&worker());
    assert_eq!(
        ids(&tasks),
        [id("first"), id("part"), id("second")].map(|id| id.to_string())
    );
    assert_eq!(tasks[1].context.hints.as_deref(), Some("Part of: first"));
    assert_eq!(item_key(&tasks[0]).map(|(worker, _)| worker), Some(1));
    assert!(queue.candidates(&AgentId::worker(2)).is_empty());
    // Again, and through the other source: nothing new.
    let records = store.read(0, 1000).await.unwrap().len();
    assert!(show(&queue, HERE, text, at(1)).await.is_empty());
    assert_eq!(store.read(0, 1000).await.unwrap().len(), records);
    assert!(show(&queue, TIP, text, at(1)).await.is_empty());
    assert_eq!(queue.all().len(), 3);
}

#[tokio::test]
async fn removing_cancels_what_nobody_works_on_and_bringing_back_revives() {
    let (queue, _) = open().await;
    show(&queue, HERE, "- [ ] a\n- [ ] b\n", at(0)).await;
    queue
        .claim(&id("a"), &worker(), Incarnation(1), at(1), LEASE)
        .await
        .unwrap();
    let applied = show(&queue, HERE, "", at(2)).await;
    assert_eq!(applied.cancelled, [id("b")]);
    assert_eq!(
        status(&queue, "a"),
        TaskStatus::Claimed,
        "work in progress goes on"
    );
    let applied = show(&queue, HERE, "- [ ] a\n- [ ] b\n", at(3)).await;
    assert_eq!(applied.reopened, [id("b")]);
    // What a person cancelled stays so, however often its list is read, here or on the branch, moved,
    // ticked, or taken out and brought back; only a tick that goes asks for it once more.
    queue.cancel(&id("b"), "by a person", at(4)).await.unwrap();
    show(&queue, HERE, "", at(5)).await;
    assert!(
        show(&queue, HERE, "- [ ] b\n", at(6))
            .await
            .reopened
            .is_empty()
    );
    for (source, text) in [
        (TIP, "- [ ] a\n- [ ] b\n"),
        (HERE, "- [ ] new\n- [ ] b\n"),
        (HERE, "- [ ] b\n- [ ] new\n"),
        (HERE, "- [x] b\n"),
    ] {
        show(&queue, source, text, at(7)).await;
        assert_eq!(status(&queue, "b"), TaskStatus::Cancelled, "{text}");
    }
    let applied = show(&queue, HERE, "- [ ] b\n", at(8)).await;
    assert_eq!(applied.reopened, [id("b")]);
}

#[tokio::test]
async fn ticking_by_hand_finishes_and_unticking_opens_again() {
    let (queue, _) = open().await;
    show(&queue, HERE, "- [ ] a\n", at(0)).await;
    assert_eq!(
        show(&queue, HERE, "- [x] a\n", at(1)).await.closed,
        [id("a")]
    );
    assert_eq!(status(&queue, "a"), TaskStatus::Done);
    assert_eq!(
        show(&queue, HERE, "- [ ] a\n", at(2)).await.reopened,
        [id("a")]
    );
    finish(&queue, "a", at(3)).await;
    show(&queue, HERE, "- [x] a\n", at(4)).await;
    let later = at(4) + UNTICK_GRACE;
    assert_eq!(
        show(&queue, HERE, "- [ ] a\n", later).await.reopened,
        [id("a")]
    );
    let task = queue
        .claim(&id("a"), &worker(), Incarnation(1), later, LEASE)
        .await
        .unwrap();
    assert_eq!(fence(&task), 2, "a new attempt");
}

#[tokio::test]
async fn a_tick_that_an_editor_overwrote_is_ticked_again_not_done_again() {
    let (queue, _) = open().await;
    show(&queue, HERE, "- [ ] a\n", at(0)).await;
    finish(&queue, "a", at(100)).await;
    show(&queue, HERE, "- [x] a\n", at(100)).await;
    let applied = show(&queue, HERE, "- [ ] a\n- [ ] new\n", at(101)).await;
    assert_eq!((applied.retick, applied.reopened), (vec![id("a")], vec![]));
    assert_eq!(status(&queue, "a"), TaskStatus::Done);
    assert!(
        show(&queue, HERE, "- [x] a\n- [ ] new\n", at(102))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn the_sources_are_compared_each_with_itself() {
    let (queue, _) = open().await;
    show(&queue, HERE, "- [ ] a\n", at(0)).await;
    finish(&queue, "a", at(1)).await;
    // The branch shows the item for the first time, from before the tick: it stays done.
    show(&queue, TIP, "- [ ] a\n", at(50)).await;
    assert_eq!(status(&queue, "a"), TaskStatus::Done);
    show(&queue, HERE, "- [x] a\n", at(51)).await;
    show(&queue, TIP, "- [x] a\n", at(52)).await;
    assert_eq!(status(&queue, "a"), TaskStatus::Done);
    // Added on the branch alone, not yet in the checkout: an old checkout does not remove it.
    show(&queue, TIP, "- [x] a\n- [ ] pushed\n", at(53)).await;
    show(&queue, HERE, "- [x] a\n- [ ] local\n", at(54)).await;
    assert_eq!(status(&queue, "pushed"), TaskStatus::Available);
    assert_eq!(status(&queue, "local"), TaskStatus::Available);
}

#[tokio::test]
async fn moving_items_changes_priorities() {
    let (queue, _) = open().await;
    show(&queue, HERE, "- [ ] a\n- [ ] b\n", at(0)).await;
    show(&queue, HERE, "- [ ] b\n- [ ] a\n", at(1)).await;
    assert_eq!(
        ids(&queue.candidates(&worker())),
        [id("b"), id("a")].map(|id| id.to_string())
    );
}

#[tokio::test]
async fn a_list_that_cannot_be_taken_changes_nothing() {
    let (queue, _) = open().await;
    show(&queue, HERE, "- [ ] a\n", at(0)).await;
    for text in ["x".repeat(2_000_000), "- [ ] many\n".repeat(5000)] {
        let error = apply(&queue, 1, HERE, &parse(&text), at(1))
            .await
            .unwrap_err();
        assert_eq!(error.code(), "INVALID_TASK");
    }
    assert_eq!(status(&queue, "a"), TaskStatus::Available);
    let long = format!("- [ ] {}\n- [ ] a\n- [ ] b\n", "long ".repeat(20_000));
    let applied = show(&queue, HERE, &long, at(2)).await;
    assert_eq!((applied.refused.len(), applied.created), (1, vec![id("b")]));
}

#[tokio::test]
async fn many_items_fit_one_record() {
    let (queue, store) = open().await;
    let list = |word: &str| -> String {
        let lines: Vec<String> = (0..4000).map(|n| format!("- [x] {word} {n}")).collect();
        lines.join("\n")
    };
    show(&queue, HERE, &list("item"), at(0)).await;
    show(&queue, HERE, &list("thing"), at(0)).await;
    assert!(
        store
            .last("tasklist/1/checkout")
            .await
            .unwrap()
            .unwrap()
            .data
            .len()
            > 100_000
    );
}

#[tokio::test]
async fn an_interrupted_apply_is_finished_by_the_next() {
    let (queue, store) = open().await;
    let list = parse("- [ ] a\n- [ ] b\n- [ ] c\n");
    for failing in 1..=3 {
        // One append more works each time, then the store fails: a crash in the middle.
        for _ in 1..failing {
            store.fail_append(Fault::UnknownApplied);
        }
        store.fail_append(Fault::Error(crate::ports::ErrorKind::Transient));
        let error = apply(&queue, 1, HERE, &list, at(failing))
            .await
            .unwrap_err();
        assert_eq!(error.code(), "STORE_FAILED");
    }
    let applied = apply(&queue, 1, HERE, &list, at(9)).await.unwrap();
    assert_eq!(
        applied,
        Applied::default(),
        "all three were there, only the last record was not"
    );
    assert_eq!(queue.all().len(), 3);
    assert_eq!(
        ids(&queue.candidates(&worker())),
        ["a", "b", "c"].map(|text| id(text).to_string())
    );
    assert!(store.last("tasklist/1/checkout").await.unwrap().is_some());
}

/// What a person or an agent does to a list.
#[derive(Clone, Debug)]
enum Edit {
    Add(u8, usize),
    Remove(usize),
    Toggle(usize),
    Swap(usize, usize),
    /// An editor empties the file and is seen in between.
    Blink,
    /// The worker finishes its next task and the supervisor ticks it.
    Work,
    /// The file is committed: the branch shows it.
    Commit,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0..6_u8, 0..9_usize).prop_map(|(name, at)| Edit::Add(name, at)),
        2 => (0..9_usize).prop_map(Edit::Remove),
        2 => (0..9_usize).prop_map(Edit::Toggle),
        1 => (0..9_usize, 0..9_usize).prop_map(|(a, b)| Edit::Swap(a, b)),
        1 => Just(Edit::Blink),
        2 => Just(Edit::Work),
        2 => Just(Edit::Commit),
    ]
}

fn render(lines: &[(u8, bool)]) -> String {
    let mark = |done: bool| if done { 'x' } else { ' ' };
    let line = |(name, done): &(u8, bool)| format!("- [{}] job {name}\n", mark(*done));
    lines.iter().map(line).collect::<Vec<_>>().concat()
}

async fn check_sequence(edits: Vec<Edit>) -> Result<(), TestCaseError> {
    let (queue, _) = open().await;
    let mut lines: Vec<(u8, bool)> = Vec::new();
    let mut ever: BTreeSet<TaskId> = BTreeSet::new();
    let mut now = at(0);
    for edit in edits {
        now = now + UNTICK_GRACE * 2;
        let len = lines.len();
        match edit {
            Edit::Add(name, place) => lines.insert(place.min(len), (name, false)),
            Edit::Remove(place) if place < len => drop(lines.remove(place)),
            Edit::Toggle(place) if place < len => lines[place].1 = !lines[place].1,
            Edit::Swap(a, b) if a < len && b < len => lines.swap(a, b),
            Edit::Blink => drop(show(&queue, HERE, "", now).await),
            Edit::Work => work(&queue, &mut lines, now).await,
            Edit::Commit => drop(show(&queue, TIP, &render(&lines), now).await),
            _ => {}
        }
        show(&queue, HERE, &render(&lines), now).await;
        let list = parse(&render(&lines));
        let mut expected: BTreeMap<TaskId, bool> = BTreeMap::new();
        for item in &list.items {
            expected.insert(task_id(1, &item.key), item.checked);
            if !item.checked {
                ever.insert(task_id(1, &item.key));
            }
        }
        // Exactly the open items are open, none twice, none lost.
        for task in queue.all() {
            let open = expected.get(&task.id) == Some(&false);
            prop_assert_eq!(
                task.status == TaskStatus::Available,
                open,
                "{:?} in {:?}",
                task,
                &lines
            );
        }
        for (id, checked) in &expected {
            prop_assert!(*checked || queue.get(id).is_some(), "{} is lost", id);
        }
        prop_assert_eq!(
            queue.all().len(),
            ever.len(),
            "one task for each item ever open"
        );
    }
    Ok(())
}

async fn work(queue: &Queue, lines: &mut [(u8, bool)], now: Timestamp) {
    let Some(task) = queue.candidates(&worker()).into_iter().next() else {
        return;
    };
    let claim = queue
        .claim(&task.id, &worker(), Incarnation(1), now, LEASE)
        .await
        .unwrap();
    queue
        .complete(&task.id, fence(&claim), "ok", None, now)
        .await
        .unwrap();
    let (_, key) = item_key(&task).unwrap();
    let ticked = parse(&tick(&render(lines), key).unwrap());
    for (line, item) in lines.iter_mut().zip(&ticked.items) {
        line.1 = item.checked;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_edits_never_lose_or_duplicate_a_task(edits in prop::collection::vec(edit(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check_sequence(edits))?;
    }
}
