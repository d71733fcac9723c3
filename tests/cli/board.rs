//! `leader` and `worker`: sessions that share a directory of files.

use std::collections::BTreeSet;
use std::fs;

use orchestrator::cli::Exit;
use serde_json::{Value, json};

use super::House;

fn tasks(house: &House) -> Value {
    let shown = house.run(&["leader", "status", "--json"]).ended(Exit::Done);
    serde_json::from_str(&shown.stdout).unwrap()
}

#[test]
fn a_leader_plans_and_workers_take_the_tasks() {
    let house = House::new();
    let error = house.run(&["leader", "status"]).ended(Exit::NotFound);
    assert!(error.stderr.contains("leader init"), "{error:?}");
    let goal = ["leader", "init", "Build a REST API"];
    house.run(&goal).ended(Exit::Done);
    house.run(&goal).ended(Exit::Done);
    let other = house
        .run(&["leader", "init", "Another"])
        .ended(Exit::Refused);
    assert!(other.stderr.contains("--dir"), "{other:?}");

    let add = ["leader", "add-task", "Create login endpoint", "-p", "1"];
    let unknown = house.run(&[&add[..], &["-d", "task-009"]].concat());
    unknown.ended(Exit::Usage);
    let first = [
        "leader",
        "add-task",
        "Create User model",
        "-p",
        "2",
        "--file",
        "src/user.ts",
    ];
    assert_eq!(house.run(&first).ended(Exit::Done).stdout, "task-001\n");
    let second = house.run(&[&add[..], &["-d", "task-001"]].concat());
    assert_eq!(second.ended(Exit::Done).stdout, "task-002\n");

    let claim = |name: &str| house.run(&["worker", "claim", name]).ended(Exit::Done);
    assert_eq!(
        claim("terminal-2").stdout,
        "Create User model\nfiles: src/user.ts\n"
    );
    assert!(claim("terminal-2").stderr.contains("claimed already"));
    assert!(claim("terminal-3").stderr.contains("1 task(s) wait"));
    let complete = ["worker", "complete", "terminal-3", "task-001", "Done!"];
    let refused = house.run(&complete).ended(Exit::Refused);
    assert!(refused.stderr.contains("TASK_CLAIMED"), "{refused:?}");
    assert!(!house.path(".coordination/results/task-001.md").exists());
    let complete = ["worker", "complete", "terminal-2", "task-001", "Done!"];
    house.run(&complete).ended(Exit::Done);
    house.run(&complete).ended(Exit::Done);
    let result = fs::read_to_string(house.path(".coordination/results/task-001.md"));
    assert_eq!(result.unwrap(), "Done!\n");
    let log = fs::read_to_string(house.path(".coordination/logs/terminal-2.log")).unwrap();
    assert!(
        log.contains("claimed task-001") && log.contains("completed task-001"),
        "{log}"
    );

    let shown = tasks(&house);
    assert_eq!(shown["goal"], "Build a REST API");
    assert_eq!(shown["counts"], json!({"available": 1, "done": 1}));
    assert_eq!(shown["tasks"][0]["claimed_by"], "terminal-2");
    let table = house.run(&["leader", "status"]).ended(Exit::Done).stdout;
    assert!(
        table.contains("task-002") && table.contains("1 available, 1 done"),
        "{table}"
    );
}

#[test]
fn of_many_who_claim_at_once_each_task_has_one() {
    let house = House::new();
    house.run(&["leader", "init", "Race"]).ended(Exit::Done);
    for number in 0..5 {
        let description = format!("number {number}");
        house
            .run(&["leader", "add-task", &description])
            .ended(Exit::Done);
    }
    let names: Vec<String> = (0..8).map(|number| format!("terminal-{number}")).collect();
    let claimed: Vec<Value> = std::thread::scope(|scope| {
        let started: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(|| house.run(&["worker", "claim", name, "--json"])))
            .collect();
        let ended = started.into_iter().map(|thread| thread.join().unwrap());
        let shown = ended.map(|ran| ran.ended(Exit::Done).stdout);
        shown
            .map(|text| serde_json::from_str(&text).unwrap())
            .collect()
    });
    let won: Vec<&str> = claimed
        .iter()
        .filter_map(|task| task["id"].as_str())
        .collect();
    assert_eq!(won.len(), 5, "{claimed:?}");
    assert_eq!(won.iter().collect::<BTreeSet<_>>().len(), 5, "{won:?}");
    assert_eq!(tasks(&house)["counts"], json!({"claimed": 5}));
}

#[test]
fn a_broken_edit_is_told_and_kept_and_loses_nothing() {
    let house = House::new();
    house.run(&["leader", "init", "Edits"]).ended(Exit::Done);
    house.run(&["leader", "add-task", "one"]).ended(Exit::Done);
    let file = house.path(".coordination/tasks.json");
    // By hand, as the prompts for agents say.
    let mut edited: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let by_hand = json!({"id": "mine", "description": "two", "status": "available", "effort": 3});
    edited["tasks"].as_array_mut().unwrap().push(by_hand);
    fs::write(&file, edited.to_string()).unwrap();
    assert_eq!(tasks(&house)["counts"], json!({"available": 2}));

    let broken = &edited.to_string()[..60];
    fs::write(&file, broken).unwrap();
    let told = house.run(&["leader", "status", "--json"]).ended(Exit::Done);
    assert!(told.stderr.contains("is not JSON"), "{told:?}");
    let logs = fs::read_dir(house.path(".coordination/logs")).unwrap();
    let kept = logs.map(|entry| entry.unwrap().path());
    let kept: Vec<_> = kept
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(fs::read_to_string(&kept[0]).unwrap(), broken);
    let shown: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(shown["counts"], json!({"available": 2}));
    assert!(fs::read_to_string(&file).unwrap().contains("\"effort\": 3"));

    fs::remove_file(&file).unwrap();
    let told = house
        .run(&["worker", "claim", "terminal-2", "mine"])
        .ended(Exit::Done);
    assert!(told.stderr.contains("is gone"), "{told:?}");
    assert_eq!(told.stdout, "two\n");
}
