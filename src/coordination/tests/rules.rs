use super::super::rules::{self, Claimant, MAX_DESCRIPTION_BYTES, Retry, TaskError};
use super::super::view::View;
use super::*;
use crate::model::attempt::next_number;
use crate::model::{AttemptEnd, AttemptNote, Incarnation, TaskStatus};

fn claimed(task: &Task, now: Timestamp) -> Result<Task, TaskError> {
    let agent = worker();
    let who = Claimant {
        agent: &agent,
        incarnation: Incarnation(1),
        lease: LEASE,
    };
    rules::claim(task, who, Vec::new(), now).map(Option::unwrap)
}

fn fresh() -> Task {
    rules::create(&new_task("t"), at(0)).unwrap()
}

#[test]
fn a_claim_holds_until_its_lease_ends_and_each_has_a_larger_fence() {
    let first = claimed(
        &Task {
            owner: None,
            ..fresh()
        },
        at(1),
    )
    .unwrap();
    let (me, stranger) = (worker(), AgentId::worker(2));
    let try_again = |agent| {
        let who = Claimant {
            agent,
            incarnation: Incarnation(1),
            lease: LEASE,
        };
        rules::claim(&first, who, Vec::new(), at(60))
    };
    assert_eq!(try_again(&me).unwrap(), None, "its own claim, once more");
    let error = try_again(&stranger).unwrap_err();
    assert_eq!(error.code(), "TASK_CLAIMED");
    let text = error.to_string();
    assert!(
        text.contains("worker-1") && text.contains("since 1000 ms"),
        "{text}"
    );
    let second = claimed(&first, at(61)).unwrap();
    assert_eq!((fence(&first), fence(&second), second.attempts), (1, 2, 2));
    for refused in [
        rules::renew(&second, 1, LEASE, at(62)),
        rules::complete(&second, 1, "late", None, at(62)),
        rules::fail(&second, 1, "late", Retry::Never, at(62)),
        rules::release(&second, 1, "late", at(62)),
        rules::note(&second, 1, Incarnation(9), &[], at(62)),
    ] {
        assert_eq!(
            refused.unwrap_err().code(),
            "TASK_CLAIMED",
            "somebody has it"
        );
    }
    let done = rules::complete(&second, 2, "done", None, at(62))
        .unwrap()
        .unwrap();
    assert_eq!(done.status, TaskStatus::Done);
    assert_eq!(
        rules::complete(&done, 2, "done", None, at(63)).unwrap(),
        None,
        "a repeat is no error"
    );
    assert_eq!(
        rules::complete(&done, 1, "late", None, at(63))
            .unwrap_err()
            .code(),
        "TASK_FENCED"
    );
}

#[test]
fn a_late_holder_may_complete_while_nobody_else_claimed() {
    let first = claimed(&fresh(), at(1)).unwrap();
    assert!(
        rules::complete(&first, 1, "late but mine", None, at(1000))
            .unwrap()
            .is_some()
    );
}

#[test]
fn renewing_never_shortens_a_lease() {
    let task = claimed(&fresh(), at(1)).unwrap();
    assert_eq!(
        rules::renew(&task, 1, Duration::from_secs(1), at(2)).unwrap(),
        None
    );
    let longer = rules::renew(&task, 1, LEASE, at(30)).unwrap().unwrap();
    assert_eq!(longer.claim.unwrap().lease_until, at(90));
}

#[test]
fn attempts_are_bounded_by_the_caller() {
    let mut task = fresh();
    for attempt in 1..=3 {
        // What is given back unjudged in between counts for nothing.
        let claim = claimed(&task, at(attempt)).unwrap();
        let back = rules::release(&claim, fence(&claim), "the engine went", at(attempt));
        let claim = claimed(&back.unwrap().unwrap(), at(attempt)).unwrap();
        let number = fence(&claim);
        let crash = attempt_of(&claim, AttemptEnd::Crashed, at(attempt));
        let claim = rules::note(&claim, number, Incarnation(2), &[crash], at(attempt));
        let claim = claim.unwrap().unwrap();
        task = rules::fail(&claim, number, "broke", Retry::UpTo(3), at(attempt))
            .unwrap()
            .unwrap();
        let again = rules::fail(&task, number, "broke", Retry::UpTo(3), at(attempt));
        assert_eq!(again.unwrap(), None, "a repeat is no error");
    }
    assert_eq!((task.status, task.attempts), (TaskStatus::Failed, 6));
    assert_eq!((task.history.len(), task.failures()), (6, 3));
    assert_eq!(task.result.as_deref(), Some("broke"));
    assert_eq!(
        claimed(&task, at(9)).unwrap_err().code(),
        "TASK_NOT_AVAILABLE"
    );
    let reopened = rules::reopen(&task, 7, at(9)).unwrap().unwrap();
    assert_eq!(
        fence(&claimed(&reopened, at(9)).unwrap()),
        7,
        "fences never go back"
    );
    assert_eq!(reopened.history, task.history, "what was is kept");
    assert_eq!(reopened.failures(), 0, "and counts no longer");
}

pub(super) fn attempt_of(task: &Task, end: AttemptEnd, now: Timestamp) -> AttemptNote {
    let claim = task.claim.as_ref().unwrap();
    AttemptNote {
        number: next_number(&task.history),
        fence: claim.fence,
        agent: claim.agent.clone(),
        incarnation: claim.incarnation,
        began: claim.claimed_at,
        ended: now,
        end,
        cause: "killed (exit 137)".into(),
    }
}

#[test]
fn each_end_of_a_claim_is_kept_with_the_task_and_once() {
    let ends = |task: &Task| -> Vec<(u32, AttemptEnd)> {
        let notes = task.history.iter();
        notes.map(|note| (note.number, note.end)).collect()
    };
    let shared = Task {
        owner: None,
        ..fresh()
    };
    let first = claimed(&shared, at(1)).unwrap();
    let crash = attempt_of(&first, AttemptEnd::Crashed, at(5));
    let life = Incarnation(2);
    let noted = rules::note(&first, 1, life, std::slice::from_ref(&crash), at(5));
    let noted = noted.unwrap().unwrap();
    assert_eq!(noted.claim.as_ref().unwrap().incarnation, life);
    let again = rules::note(&noted, 1, life, &[crash], at(6)).unwrap();
    assert_eq!(again, None, "told twice, kept once");
    // Its lease runs out, and another takes it; later that one gives it back.
    let other = AgentId::worker(2);
    let who = Claimant {
        agent: &other,
        incarnation: Incarnation(7),
        lease: LEASE,
    };
    let second = rules::claim(&noted, who, Vec::new(), at(90));
    let second = second.unwrap().unwrap();
    let back = rules::release(&second, 2, "went away", at(91));
    let third = claimed(&back.unwrap().unwrap(), at(92)).unwrap();
    let done = rules::complete(&third, 3, "did it", None, at(95));
    let done = done.unwrap().unwrap();
    assert_eq!(
        ends(&done),
        [
            (1, AttemptEnd::Crashed),
            (2, AttemptEnd::LeaseRanOut),
            (3, AttemptEnd::Released),
            (4, AttemptEnd::Done)
        ]
    );
    let lapsed = &done.history[1];
    assert_eq!(
        (
            lapsed.began,
            lapsed.ended,
            &lapsed.agent,
            lapsed.incarnation
        ),
        (at(5), at(90), &worker(), life),
        "it began with the end of the one before"
    );
    assert_eq!(done.history[2].incarnation, Incarnation(7));
    let cancelled = rules::cancel(&third, "not wanted", at(93));
    let last = cancelled.unwrap().unwrap().history.pop().unwrap();
    assert_eq!(
        (last.end, last.cause.as_str()),
        (AttemptEnd::Cancelled, "not wanted")
    );
    let never = rules::cancel(&fresh(), "not wanted", at(1))
        .unwrap()
        .unwrap();
    assert_eq!(never.history, [], "nobody tried");
}

#[test]
fn a_record_from_before_attempts_were_kept_is_read() {
    let mut old = serde_json::to_value(claimed(&fresh(), at(1)).unwrap()).unwrap();
    for new in ["history", "forgiven"] {
        old.as_object_mut().unwrap().remove(new);
    }
    let task: Task = serde_json::from_value(old).unwrap();
    assert_eq!((task.failures(), task.history.len()), (0, 0));
}

#[test]
fn cancelling_fences_the_holder_and_closing_does_not() {
    let claim = claimed(&fresh(), at(1)).unwrap();
    let cancelled = rules::cancel(&claim, "not needed", at(2)).unwrap().unwrap();
    assert_eq!(
        rules::complete(&cancelled, 1, "x", None, at(3))
            .unwrap_err()
            .code(),
        "TASK_FENCED"
    );
    assert_eq!(rules::cancel(&cancelled, "again", at(3)).unwrap(), None);
    let closed = rules::close(&claim, "ticked", at(2)).unwrap().unwrap();
    assert_eq!(rules::complete(&closed, 1, "x", None, at(3)).unwrap(), None);
    assert_eq!(
        rules::cancel(&closed, "late", at(3)).unwrap_err().code(),
        "TASK_NOT_AVAILABLE"
    );
}

#[test]
fn only_the_owner_may_claim() {
    let mut task = fresh();
    task.owner = Some(AgentId::worker(2));
    assert_eq!(claimed(&task, at(1)).unwrap_err().code(), "TASK_NOT_YOURS");
}

#[test]
fn unreasonable_tasks_are_refused_with_a_reason() {
    let long = "x".repeat(MAX_DESCRIPTION_BYTES + 1);
    for (id, description) in [
        ("", "x"),
        ("a/b", "x"),
        ("a b", "x"),
        ("ok", "  \n"),
        ("ok", &long),
    ] {
        let new = NewTask {
            description: description.to_owned(),
            ..new_task(id)
        };
        assert_eq!(
            rules::create(&new, at(0)).unwrap_err().code(),
            "INVALID_TASK",
            "{id}"
        );
    }
    // Control characters take six bytes each as JSON.
    let escaped = "x\u{1}".repeat(MAX_DESCRIPTION_BYTES / 2);
    let new = NewTask {
        description: escaped,
        ..new_task("ok")
    };
    assert_eq!(
        rules::create(&new, at(0)).unwrap_err().code(),
        "INVALID_TASK"
    );
    let task = claimed(&fresh(), at(1)).unwrap();
    let done = rules::complete(&task, 1, &"ä".repeat(100_000), None, at(2))
        .unwrap()
        .unwrap();
    assert!(
        done.result.unwrap().len() <= rules::MAX_RESULT_BYTES,
        "long results are cut"
    );
}

#[test]
fn dependencies_are_ordered_and_cycles_and_strangers_refused() {
    let there = |id: &TaskId| id.as_str() == "old";
    let new = [after("c", &["b", "old"]), after("b", &["a"]), new_task("a")];
    assert_eq!(rules::order(&new, &there).unwrap(), [2, 1, 0]);
    let new = [
        after("z", &["a"]),
        after("a", &["b"]),
        after("b", &["c"]),
        after("c", &["a"]),
    ];
    let cycle = rules::order(&new, &there).unwrap_err();
    assert_eq!(cycle.code(), "DEPENDENCY_CYCLE");
    assert!(cycle.to_string().ends_with("a, b, c, a"), "{cycle}");
    let itself = rules::order(&[after("a", &["a"])], &there).unwrap_err();
    assert_eq!(itself.code(), "DEPENDENCY_CYCLE");
    let stranger = rules::order(&[after("a", &["nobody"])], &there).unwrap_err();
    assert_eq!(stranger.code(), "UNKNOWN_DEPENDENCY");
    assert!(stranger.to_string().contains("nobody"), "{stranger}");
}

#[test]
fn the_view_ignores_older_records_and_counts_right() {
    let mut view = View::default();
    let task = fresh();
    let claim = claimed(&task, at(1)).unwrap();
    assert!(view.put(2, claim.clone()));
    assert!(!view.put(1, task), "an older record");
    assert!(!view.put(2, claim), "a repeat");
    assert_eq!((view.counts().available, view.counts().claimed), (0, 1));
    assert_eq!(view.next_expiry(), Some(at(61)));
    assert!(view.candidates(&worker(), 9).is_empty());
    assert_eq!(ids(&view.expired(at(61), 9)), ["t"]);
    assert!(view.expired(at(60), 9).is_empty());
}

#[test]
fn candidates_come_by_priority_then_age_own_and_shared_merged() {
    let mut view = View::default();
    let mut seq = 0;
    let mut put = |id: &str, owner: Option<AgentId>, priority, created| {
        seq += 1;
        let mut task = rules::create(&new_task(id), at(created)).unwrap();
        (task.owner, task.priority) = (owner, priority);
        view.put(seq, task);
    };
    put("shared-late", None, 1, 5);
    put("own-early", Some(worker()), 1, 3);
    put("own-last", Some(worker()), 9, 0);
    put("shared-first", None, 0, 9);
    put("other", Some(AgentId::worker(2)), 0, 0);
    put("manager", Some(AgentId::manager()), 0, 0);
    let order = ["shared-first", "own-early", "shared-late", "own-last"];
    assert_eq!(ids(&view.candidates(&worker(), 9)), order);
    assert_eq!(ids(&view.candidates(&worker(), 2)), order[..2]);
    assert_eq!(view.ready_count(&worker()), 4);
    assert_eq!(ids(&view.candidates(&AgentId::manager(), 9)), ["manager"]);
}

#[test]
fn what_waits_for_a_failed_task_is_blocked_until_that_is_asked_for_again() {
    let mut view = View::default();
    let of = |id: &str, dependencies: &[&str]| {
        let new = after(id, dependencies);
        rules::create(&new, at(0)).unwrap()
    };
    let (a, b, c) = (of("a", &[]), of("b", &["a"]), of("c", &["b"]));
    for (seq, task) in [(1, &a), (2, &b), (3, &c)] {
        view.put(seq, task.clone());
    }
    assert!(view.blockers(&c).is_empty(), "it only waits");
    let named = |ids: &[TaskId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(named(&view.dependents(&"a".into())), ["b", "c"]);
    let claim = claimed(&a, at(1)).unwrap();
    let failed = rules::fail(&claim, 1, "broke", Retry::Never, at(2));
    let failed = failed.unwrap().unwrap();
    view.put(4, failed.clone());
    assert_eq!(named(&view.blockers(&b)), ["a"]);
    assert_eq!(named(&view.blockers(&c)), ["a"], "through what is between");
    assert!(view.candidates(&worker(), 9).is_empty());
    let again = rules::reopen(&failed, 0, at(3)).unwrap().unwrap();
    view.put(5, again);
    assert!(view.blockers(&c).is_empty());
}
