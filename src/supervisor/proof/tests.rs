//! What a claim is worth in the end: receipts, in the small world.

use std::time::Duration;

use crate::model::{AgentId, Missing, Receipt, Task, TaskStatus};
use crate::supervisor::{Event, ImportOutcome, Policy};
use crate::testing::world::{Turn, World};

fn worker() -> AgentId {
    AgentId::worker(1)
}

/// Worker 1 works on `write a`; the manager has nothing to do.
fn at_work(policy: Policy) -> World {
    let mut world = World::new(policy);
    world.start_daemon(false);
    world.run_outbox();
    world.boot(&AgentId::manager());
    world.boot(&worker());
    world.advance(Duration::from_secs(1));
    world.add_task(&worker(), "write a");
    world.run_outbox();
    world
}

fn leaves(paths: &[&str]) -> Turn {
    Turn {
        dirty: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..Turn::default()
    }
}

fn ends(world: &mut World, turn: &Turn) {
    assert!(world.turn_ends(&worker(), turn), "{}", world.tail());
    world.run_outbox();
}

fn task(world: &World, id: &str) -> Task {
    world.queue.get(&id.into()).unwrap().clone()
}

fn receipt(world: &World, id: &str) -> Receipt {
    let task = task(world, id);
    assert_eq!(task.status, TaskStatus::Done, "{}", world.tail());
    *task.receipt.unwrap()
}

#[test]
fn what_is_left_to_the_end_is_in_the_receipt_with_its_copy() {
    let mut world = at_work(Policy::default());
    for _ in 0..3 {
        ends(&mut world, &leaves(&["notes.txt"]));
    }
    let receipt = receipt(&world, "write-a");
    assert_eq!(receipt.uncommitted, ["notes.txt"]);
    let copy = receipt.rescue.unwrap();
    let kept = world.fleet().agents[&worker()].rescuing.last().cloned();
    assert_eq!(Some(&copy), kept.as_ref());
    assert_eq!(receipt.sent_back.len(), 2);
    for sent in &receipt.sent_back {
        let paths = vec!["notes.txt".to_owned()];
        assert_eq!(sent.missing, [Missing::CleanTree { paths }]);
        assert!(sent.rescue.is_some());
    }
    let told = world.fleet().notices;
    let told = told.iter().find(|n| n.text.contains("counts without"));
    let hint = told.unwrap().hint.clone().unwrap();
    assert!(hint.contains(&copy.id), "{hint}");
}

#[test]
fn what_was_mended_is_no_leftover_and_only_the_way_there_names_a_copy() {
    let mut world = at_work(Policy::default());
    ends(&mut world, &leaves(&["notes.txt"]));
    ends(&mut world, &Turn::default());
    let receipt = receipt(&world, "write-a");
    assert!(receipt.uncommitted.is_empty() && receipt.rescue.is_none());
    assert!(receipt.sent_back[0].rescue.is_some());
}

#[test]
fn without_a_round_a_copy_is_enough_at_once() {
    let mut world = at_work(Policy {
        send_back: 0,
        ..Policy::default()
    });
    ends(&mut world, &leaves(&["notes.txt"]));
    let receipt = receipt(&world, "write-a");
    assert!(receipt.rescue.is_some() && receipt.sent_back.is_empty());
}

#[test]
fn without_a_copy_or_a_commit_it_is_not_done() {
    let mut world = at_work(Policy {
        send_back: 0,
        ..Policy::default()
    });
    world.rescue_faults = 1;
    ends(&mut world, &leaves(&["notes.txt"]));
    assert_eq!(task(&world, "write-a").status, TaskStatus::Failed);
    world.add_task(&worker(), "write b");
    world.run_outbox();
    let nothing = Turn {
        idle: true,
        says: Some("No change needed: it is so".into()),
        ..leaves(&["notes.txt", "more.txt"])
    };
    ends(&mut world, &nothing);
    assert_eq!(task(&world, "write-b").status, TaskStatus::Failed);
}

#[test]
fn a_task_answers_for_what_its_own_stop_found_and_nothing_that_was_there_before() {
    let mut world = at_work(Policy::default());
    world.add_task(&worker(), "write b");
    ends(&mut world, &leaves(&["a.txt"]));
    let lack = |world: &World, task: &str| {
        let agent = world.fleet().agents[&worker()].clone();
        let claim = agent.claims.into_iter().find(|c| c.task == task.into());
        claim.map(|claim| claim.missing)
    };
    let paths = vec!["a.txt".to_owned()];
    let unclean = vec![Missing::CleanTree { paths }];
    assert_eq!(lack(&world, "write-a").as_ref(), Some(&unclean));
    // The other is told meanwhile, and leaves what was there.
    ends(&mut world, &leaves(&["a.txt"]));
    assert_eq!(lack(&world, "write-b"), Some(Vec::new()));
    // The repair cleans up and leaves something else, which is of the task it was to mend.
    ends(&mut world, &leaves(&["b.txt"]));
    let paths = vec!["b.txt".to_owned()];
    let unclean = vec![Missing::CleanTree { paths }];
    assert_eq!(lack(&world, "write-a").as_ref(), Some(&unclean));
    assert_eq!(lack(&world, "write-b"), Some(Vec::new()));
    ends(&mut world, &Turn::default());
    assert_eq!(receipt(&world, "write-a").sent_back.len(), 2);
    assert!(receipt(&world, "write-b").sent_back.is_empty());
}

#[test]
fn what_is_not_told_is_judged_at_rest() {
    let mut world = at_work(Policy::default());
    world.minds.get_mut(&worker()).unwrap().tree_untold = true;
    world.add_task(&worker(), "write b");
    ends(&mut world, &leaves(&["a.txt"]));
    assert!(receipt(&world, "write-a").sent_back.is_empty());
    ends(&mut world, &leaves(&["a.txt"]));
    ends(&mut world, &Turn::default());
    assert_eq!(receipt(&world, "write-b").sent_back.len(), 1);
}

#[test]
fn a_look_that_comes_late_or_is_of_another_stop_changes_nothing() {
    let mut world = at_work(Policy::default());
    ends(&mut world, &Turn::default());
    let before = world.fleet();
    world.observe(Event::TreeSeen {
        agent: worker(),
        callback: "of-another-life".into(),
        uncommitted: vec!["x".into()],
    });
    assert_eq!(world.fleet(), before);
}

#[test]
fn what_is_on_its_way_keeps_its_commits_when_its_repair_ends() {
    let mut world = at_work(Policy {
        gates: vec!["test".into()],
        ..Policy::default()
    });
    world.gates_held = true;
    ends(&mut world, &leaves(&["notes.txt"]));
    // In the middle of the repair the tree is clean, and something takes its commits.
    world.minds.get_mut(&worker()).unwrap().dirty.clear();
    let head = world.git.head(&worker());
    let outcome = ImportOutcome::Taken {
        head,
        dirty: Vec::new(),
        work: Vec::new(),
    };
    let agent = worker();
    world.observe(Event::Imported { agent, outcome });
    world.run_outbox();
    assert!(world.fleet().agents[&worker()].claims[0].offered);
    ends(&mut world, &Turn::default());
    world.gates_held = false;
    world.run_outbox();
    assert_eq!(receipt(&world, "write-a").commit_count, 1);
}
