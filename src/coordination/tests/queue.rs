use super::super::rules::{Retry, TaskError};
use super::*;
use crate::model::{AttemptEnd, Incarnation, TaskStatus};
use crate::ports::{ErrorKind, Store as _};
use crate::store::sqlite::SqliteStore;
use crate::testing::memory_store::Fault;

const LIFE: Incarnation = Incarnation(1);

async fn claim(queue: &Queue, id: &str, now: Timestamp) -> Result<Task, TaskError> {
    queue.claim(&id.into(), &worker(), LIFE, now, LEASE).await
}

#[tokio::test]
async fn a_task_lives_from_creation_to_done() {
    let (queue, store) = open().await;
    queue.create(new_task("a"), at(0)).await.unwrap();
    assert_eq!(
        queue.get(&"a".into()).unwrap().status,
        TaskStatus::Available,
        "own writes show"
    );
    let again = queue.create(new_task("a"), at(0)).await.unwrap_err();
    assert_eq!(again.code(), "TASK_EXISTS");
    let task = claim(&queue, "a", at(1)).await.unwrap();
    assert!(queue.candidates(&worker()).is_empty());
    let again = claim(&queue, "a", at(2)).await.unwrap();
    assert_eq!(again, task, "a repeat of the holder finds its claim");
    queue.renew(&"a".into(), 1, at(30), LEASE).await.unwrap();
    assert_eq!(queue.next_expiry(), Some(at(90)));
    let done = queue
        .complete(&"a".into(), fence(&task), "ok", None, at(31))
        .await
        .unwrap();
    assert_eq!(done.result.as_deref(), Some("ok"));
    let records = store.read(0, 100).await.unwrap().len();
    queue
        .complete(&"a".into(), fence(&task), "ok", None, at(32))
        .await
        .unwrap();
    assert_eq!(
        store.read(0, 100).await.unwrap().len(),
        records,
        "a repeat writes nothing"
    );
    assert_eq!(queue.by_status().done, 1);
    queue.check(&"a".into(), fence(&task)).await.unwrap();
    let missing = claim(&queue, "zzz", at(1)).await.unwrap_err();
    assert_eq!(missing.code(), "TASK_NOT_FOUND");
}

#[tokio::test]
async fn dependencies_gate_and_their_end_opens() {
    let (queue, _store) = open().await;
    queue
        .create_all(vec![after("b", &["a"]), new_task("a")], at(0))
        .await
        .unwrap();
    assert_eq!(ids(&queue.candidates(&worker())), ["a"]);
    assert_eq!(
        claim(&queue, "b", at(1)).await.unwrap_err().code(),
        "TASK_BLOCKED"
    );
    claim(&queue, "a", at(1)).await.unwrap();
    queue
        .complete(&"a".into(), 1, "ok", None, at(2))
        .await
        .unwrap();
    assert_eq!(ids(&queue.candidates(&worker())), ["b"]);
    claim(&queue, "b", at(3)).await.unwrap();
    let stranger = queue
        .create(after("c", &["nobody"]), at(4))
        .await
        .unwrap_err();
    assert_eq!(stranger.code(), "UNKNOWN_DEPENDENCY");
    let cycle = vec![after("x", &["y"]), after("y", &["x"])];
    assert_eq!(
        queue.create_all(cycle, at(4)).await.unwrap_err().code(),
        "DEPENDENCY_CYCLE"
    );
    assert!(
        queue.get(&"x".into()).is_none(),
        "nothing of a refused batch is written"
    );
}

/// Queues of their own on one store are what several processes are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_claimers_exactly_one_wins_each_task() {
    const TASKS: usize = 30;
    const CLAIMERS: u32 = 8;
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
    let queue = Queue::open(Arc::new(store.clone())).await.unwrap();
    for n in 0..TASKS {
        queue
            .create(new_task(&format!("t{n}")), at(0))
            .await
            .unwrap();
    }
    let mut claimers = Vec::new();
    for number in 1..=CLAIMERS {
        let queue = Queue::open(Arc::new(store.clone())).await.unwrap();
        claimers.push(tokio::spawn(async move {
            let agent = AgentId::worker(number);
            let mut won = Vec::new();
            for n in 0..TASKS {
                let id = TaskId::new(format!("t{n}"));
                match queue.claim(&id, &agent, LIFE, at(1), LEASE).await {
                    Ok(task) => won.push((id, task)),
                    Err(TaskError::Claimed { holder, .. }) => assert_ne!(holder, agent),
                    Err(other) => panic!("{other}"),
                }
            }
            won
        }));
    }
    let mut won = Vec::new();
    for claimer in claimers {
        won.extend(claimer.await.unwrap());
    }
    assert_eq!(won.len(), TASKS, "each task has one winner");
    until(&queue, |queue| queue.by_status().claimed == TASKS as u32).await;
    for (id, task) in won {
        assert_eq!(queue.get(&id).unwrap().claim, task.claim);
    }
}

#[tokio::test]
async fn another_process_sees_changes_and_reclaims_an_expired_lease() {
    let (queue, store) = open().await;
    let other = Queue::open(Arc::new(store.clone())).await.unwrap();
    queue.create(new_task("a"), at(0)).await.unwrap();
    until(&other, |other| other.candidates(&worker()).len() == 1).await;
    let first = claim(&queue, "a", at(1)).await.unwrap();
    let second_agent = AgentId::worker(2);
    let early = other
        .claim(&"a".into(), &second_agent, LIFE, at(60), LEASE)
        .await;
    assert_eq!(early.unwrap_err().code(), "TASK_CLAIMED");
    let second = other
        .claim(&"a".into(), &second_agent, LIFE, at(61), LEASE)
        .await
        .unwrap();
    assert!(fence(&second) > fence(&first));
    assert_eq!(
        queue
            .check(&"a".into(), fence(&first))
            .await
            .unwrap_err()
            .code(),
        "TASK_CLAIMED"
    );
    queue.check(&"a".into(), fence(&second)).await.unwrap();
    // The old holder's view may still show its own claim; the store refuses it all the same.
    let late = queue
        .complete(&"a".into(), fence(&first), "late", None, at(62))
        .await;
    assert_eq!(late.unwrap_err().code(), "TASK_CLAIMED");
    assert_eq!(queue.get(&"a".into()).unwrap().claim, second.claim);
    // Once nobody has it, there is nobody to name.
    let claim = fence(&second);
    other
        .release(&"a".into(), claim, "enough", at(63))
        .await
        .unwrap();
    let late = queue
        .complete(&"a".into(), fence(&first), "late", None, at(64))
        .await;
    assert_eq!(late.unwrap_err().code(), "TASK_FENCED");
}

#[tokio::test]
async fn failing_releasing_and_cancelling() {
    let (queue, _store) = open().await;
    for id in ["a", "b", "c"] {
        queue.create(new_task(id), at(0)).await.unwrap();
        claim(&queue, id, at(1)).await.unwrap();
    }
    let id = |id: &str| TaskId::new(id);
    let a = id("a");
    for (fence, status) in [(1_u32, TaskStatus::Available), (2, TaskStatus::Failed)] {
        let now = at(2 * i64::from(fence));
        let task = queue.get(&a).unwrap();
        let crash = super::rules::attempt_of(&task, AttemptEnd::Crashed, now);
        let fence = u64::from(fence);
        for _ in 0..2 {
            let noted = queue.note(&a, fence, LIFE, std::slice::from_ref(&crash), now);
            noted.await.unwrap();
        }
        let failed = queue.fail(&a, fence, "broke", Retry::UpTo(2), now);
        let failed = failed.await.unwrap();
        assert_eq!(failed.status, status);
        assert_eq!(u64::from(failed.failures()), fence);
        if status == TaskStatus::Available {
            claim(&queue, "a", at(3)).await.unwrap();
        }
    }
    let again = queue.reopen(&a, at(5)).await.unwrap();
    assert_eq!((again.status, again.failures()), (TaskStatus::Available, 0));
    let b = queue
        .release(&id("b"), 1, "its agent went away", at(2))
        .await
        .unwrap();
    assert_eq!((b.status, b.attempts), (TaskStatus::Available, 1));
    let c = queue.cancel(&id("c"), "not needed", at(2)).await.unwrap();
    assert_eq!(c.status, TaskStatus::Cancelled);
    let late = queue.complete(&id("c"), 1, "x", None, at(3)).await;
    assert_eq!(late.unwrap_err().code(), "TASK_FENCED");
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_either_way() {
    for fault in [Fault::UnknownApplied, Fault::UnknownLost] {
        let (queue, store) = open().await;
        store.fail_append(fault);
        queue.create(new_task("a"), at(0)).await.unwrap();
        store.fail_append(fault);
        // The first looks fail too: giving up here is how a task got lost once.
        store.fail_read(ErrorKind::Transient);
        store.fail_read(ErrorKind::Transient);
        let task = claim(&queue, "a", at(1)).await.unwrap();
        assert_eq!(queue.get(&"a".into()), Some(task));
        assert_eq!(
            store.read(0, 100).await.unwrap().len(),
            2,
            "{fault:?}: none is written twice"
        );
    }
}

#[tokio::test]
async fn an_unknown_outcome_that_another_won_is_a_lost_race() {
    let (queue, store) = open().await;
    queue.create(new_task("a"), at(0)).await.unwrap();
    let other = Queue::open(Arc::new(store.clone())).await.unwrap();
    let agent = AgentId::worker(2);
    other
        .claim(&"a".into(), &agent, LIFE, at(1), LEASE)
        .await
        .unwrap();
    // This queue tries with what it knew before, and hears nothing.
    store.fail_append(Fault::UnknownLost);
    let error = claim(&queue, "a", at(2)).await.unwrap_err();
    assert_eq!(error.code(), "TASK_CLAIMED");
}

#[tokio::test]
async fn conflicts_are_retried_and_errors_told() {
    let (queue, store) = open().await;
    queue.create(new_task("a"), at(0)).await.unwrap();
    store.fail_append(Fault::Conflict);
    store.fail_append(Fault::Conflict);
    claim(&queue, "a", at(1)).await.unwrap();
    store.fail_append(Fault::Error(ErrorKind::Transient));
    let error = queue
        .complete(&"a".into(), 1, "x", None, at(2))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.kind()),
        ("STORE_FAILED", ErrorKind::Transient)
    );
    queue
        .complete(&"a".into(), 1, "x", None, at(2))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_view_comes_back_after_the_store_was_away() {
    let (queue, store) = open().await;
    let other = Queue::open(Arc::new(store.clone())).await.unwrap();
    store.set_closed(true);
    assert!(queue.create(new_task("a"), at(0)).await.is_err());
    store.set_closed(false);
    queue.create(new_task("a"), at(0)).await.unwrap();
    until(&other, |other| other.get(&"a".into()).is_some()).await;
    claim(&queue, "a", at(1)).await.unwrap();
    until(&other, |other| other.by_status().claimed == 1).await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_harms_nobody() {
    let (_, store) = open().await;
    store
        .append_if("task/broken", 0, b"{ not json")
        .await
        .unwrap();
    let queue = Queue::open(Arc::new(store)).await.unwrap();
    queue.create(new_task("a"), at(0)).await.unwrap();
    assert_eq!(ids(&queue.all()), ["a"]);
    let error = queue.create(new_task("broken"), at(0)).await.unwrap_err();
    assert_eq!(error.code(), "TASK_EXISTS");
}

#[tokio::test]
async fn finding_the_next_task_does_not_depend_on_the_queue() {
    use super::super::view::View;
    let mut view = View::default();
    for n in 0..50_000_u64 {
        let mut task = super::super::rules::create(&new_task(&format!("t{n}")), at(0)).unwrap();
        task.priority = (n * 7919 % 50_000) as i64;
        view.put(n + 1, task);
    }
    // Not a clock but the work: a bounded answer from a large queue, in order.
    let next = view.candidates(&worker(), 3);
    assert_eq!(
        next.iter().map(|t| t.priority).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(view.ready_count(&worker()), 50_000);
}
