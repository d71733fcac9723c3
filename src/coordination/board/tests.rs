use super::*;

const NOW: Timestamp = Timestamp(0);

fn board(text: &str) -> Board {
    let reading = read(Some(text), None);
    assert_eq!(reading.problems, []);
    reading.board
}

fn new(description: &str, dependencies: &[&str]) -> NewBoardTask {
    NewBoardTask {
        description: description.into(),
        dependencies: dependencies.iter().map(|id| TaskId::from(*id)).collect(),
        ..NewBoardTask::default()
    }
}

/// The task format of the documentation, and what an agent put beside it.
const BY_HAND: &str = r#"{
  "note": "of the leader",
  "tasks": [
    {"id": "task-001", "description": "Implement user validation", "status": "available",
     "claimed_by": null, "priority": 2, "dependencies": [],
     "context": {"files": ["src/models/user.ts"], "hints": "Use zod for validation"}},
    {"id": "task-002", "description": "Sign in", "status": "In Progress", "claimed_by": "terminal-3",
     "priority": "1", "estimate": "5m"},
    {"id": 7, "description": "Sign out", "priority": 1, "dependencies": ["task-002"]}
  ]
}"#;

#[test]
fn what_agents_write_is_understood_and_what_is_unknown_stays() {
    let mut board = board(BY_HAND);
    let first = board.get(&"task-001".into()).unwrap();
    assert_eq!(first.context.files, ["src/models/user.ts"]);
    assert_eq!(
        first.context.hints.as_deref(),
        Some("Use zod for validation")
    );
    let second = board.get(&"task-002".into()).unwrap();
    assert_eq!((second.status, second.priority), (TaskStatus::Claimed, 1));
    assert!(board.complete("terminal-3", &"task-002".into()).unwrap());
    let text = board.text();
    for kept in ["of the leader", "5m", "Use zod"] {
        assert!(text.contains(kept), "{text}");
    }
    assert_eq!(read(Some(&text), None).board, board);
}

#[test]
fn the_most_urgent_that_can_be_done_is_claimed_by_one() {
    let mut board = board(BY_HAND);
    let Claimed::New(task) = board.claim("terminal-2", None).unwrap() else {
        panic!("nothing was claimed")
    };
    // 7 is more urgent, and waits for task-002.
    assert_eq!(task.id.as_str(), "task-001");
    let again = board.claim("terminal-2", None).unwrap();
    assert_eq!(again, Claimed::Again(task));
    let other = board.claim("terminal-4", None).unwrap();
    assert_eq!(other, Claimed::Nothing { waiting: 1 });
    let error = board
        .claim("terminal-4", Some(&"task-001".into()))
        .unwrap_err();
    assert_eq!(error.code(), "TASK_CLAIMED");
    assert_eq!(error.to_string(), "task task-001 is claimed by terminal-2");
    let error = board.claim("terminal-4", Some(&"7".into())).unwrap_err();
    assert_eq!(error.code(), "TASK_BLOCKED");
    board.complete("terminal-3", &"task-002".into()).unwrap();
    assert!(
        matches!(board.claim("terminal-4", None).unwrap(), Claimed::New(task) if task.id.as_str() == "7")
    );
}

#[test]
fn only_the_holder_ends_a_claim_and_may_say_so_twice() {
    let mut board = board(BY_HAND);
    let id = TaskId::from("task-002");
    let error = board.complete("terminal-2", &id).unwrap_err();
    assert_eq!(error.code(), "TASK_CLAIMED");
    assert!(board.complete("terminal-3", &id).unwrap());
    assert!(!board.complete("terminal-3", &id).unwrap());
    assert_eq!(
        board.release("terminal-3", &id).unwrap_err().code(),
        "TASK_NOT_CLAIMED"
    );
    assert_eq!(
        board
            .complete("terminal-2", &"nope".into())
            .unwrap_err()
            .code(),
        "TASK_NOT_FOUND"
    );
    assert_eq!(
        board.claim("../x", None).unwrap_err().code(),
        "INVALID_NAME"
    );
    board.claim("terminal-2", Some(&"task-001".into())).unwrap();
    assert!(board.release("terminal-2", &"task-001".into()).unwrap());
    assert!(!board.release("terminal-2", &"task-001".into()).unwrap());
}

#[test]
fn new_tasks_get_the_next_number_and_known_dependencies() {
    let mut board = Board::default();
    assert_eq!(board.add(&new("a", &[]), NOW).unwrap().as_str(), "task-001");
    assert_eq!(
        board.add(&new("b", &["task-001"]), NOW).unwrap().as_str(),
        "task-002"
    );
    let error = board.add(&new("c", &["task-009"]), NOW).unwrap_err();
    assert_eq!(error.code(), "UNKNOWN_DEPENDENCY");
    assert_eq!(
        board.add(&new(" ", &[]), NOW).unwrap_err().code(),
        "INVALID_TASK"
    );
    assert_eq!(
        board.counts(),
        BTreeMap::from([("available", 1), ("waiting", 1)])
    );
}

#[test]
fn a_file_that_is_no_json_is_handed_back_and_the_tasks_are_as_they_were() {
    let good = board(BY_HAND).text();
    let broken = &good[..good.len() / 2];
    let reading = read(Some(broken), Some(&good));
    assert_eq!(reading.board.text(), good);
    assert_eq!(reading.problems.len(), 1);
    assert_eq!(reading.problems[0].removed.as_deref(), Some(broken));
    assert!(
        reading.problems[0].text.contains("line"),
        "{:?}",
        reading.problems
    );
    for text in ["{}", "3", r#"{"tasks": 3}"#, ""] {
        assert_eq!(read(Some(text), Some(&good)).board.text(), good, "{text}");
    }
}

#[test]
fn a_broken_task_takes_no_other_with_it() {
    let good = board(BY_HAND).text();
    let edited = good
        .replace("\"available\"", "\"started?\"")
        .replace("Sign in", " ");
    let reading = read(Some(&edited), Some(&good));
    let ids: Vec<&str> = reading.board.tasks().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["task-001", "task-002", "7"]);
    assert_eq!(reading.problems.len(), 2);
    assert!(
        reading.problems[0].text.contains("`started?`"),
        "{:?}",
        reading.problems
    );
    assert!(
        reading.problems[0]
            .removed
            .as_ref()
            .unwrap()
            .contains("started?")
    );
    // Nothing is known of it from before.
    let reading = read(
        Some(r#"[{"id": "a/b", "description": "x"}, 3, {"id": "b", "description": "y"}]"#),
        None,
    );
    assert_eq!(reading.board.tasks().count(), 1);
    assert_eq!(reading.problems.len(), 2);
}

#[test]
fn a_forgotten_task_is_back_and_of_two_with_one_name_the_first_counts() {
    let good = board(BY_HAND).text();
    let text = r#"{"tasks": [
        {"id": "task-001", "description": "first"}, {"id": "task-001", "description": "second"}]}"#;
    let reading = read(Some(text), Some(&good));
    let ids: Vec<&str> = reading.board.tasks().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["task-001", "task-002", "7"]);
    assert_eq!(
        reading.board.get(&"task-001".into()).unwrap().description,
        "first"
    );
    assert_eq!(reading.problems.len(), 3);
}

proptest::proptest! {
    /// Whatever is written over the file, no task that was there before is lost, and reading goes on.
    #[test]
    fn no_edit_loses_a_task(at in 0usize..600, what in "[\\[\\]{}\",:a-z0-9 ]{0,12}") {
        let good = board(BY_HAND).text();
        let at = (0..=at.min(good.len())).rev().find(|at| good.is_char_boundary(*at)).unwrap_or(0);
        let text = format!("{}{what}{}", &good[..at], good.get(at + what.len()..).unwrap_or_default());
        let reading = read(Some(&text), Some(&good));
        for task in board(&good).tasks() {
            proptest::prop_assert!(reading.board.get(&task.id).is_some(), "{} of {text}", task.id);
        }
        let again = read(Some(&reading.board.text()), None);
        proptest::prop_assert_eq!(again.board.text(), reading.board.text());
    }
}
