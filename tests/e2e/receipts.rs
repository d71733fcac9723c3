//! What a worker says is done against what is there: a false "done", a dirty tree and files it should
//! have left alone go back to it, are mended, and stand in the receipt; what is never mended fails.

use std::io::Write as _;

use orchestrator::cli::Exit;
use orchestrator::testing::scripted_model::{Condition, Rule, Scenario, Step};
use serde_json::Value;

use crate::support::stage::agent;
use crate::support::{Setup, Stage, eventually, worker_script};

const LIST: &str = "WORKER_1_TASK_LIST.md";

fn commit(files: &str) -> String {
    format!("git add -A -- {files} && git commit -q -m 'Did it' && git log -1 --format=%s")
}

/// A rule for a task whose words hold all of `words`.
fn rule(name: &str, words: &[&str], command: Option<&str>) -> Rule {
    Rule {
        name: name.into(),
        when: words.iter().map(|word| Condition::text(word)).collect(),
        steps: command.map(|it| Step::bash(it, name)).into_iter().collect(),
        finally: "Done.".into(),
    }
}

/// A worker that is careless at first and mends what it is told.
fn careless() -> Scenario {
    let again = "something is still missing";
    let write = |file: &str| format!("mkdir -p docs && date > {file} && ");
    let forgot = format!("{}{}", write("forgotten.txt"), commit("."));
    let left = format!(
        "{}{} && date > scratch.txt",
        write("left.txt"),
        commit("left.txt")
    );
    let on = format!("{}{}", write("on.txt"), commit("on.txt"));
    let strayed = format!(
        "{}date > astray.txt && {}",
        write("docs/page.md"),
        commit(".")
    );
    Scenario {
        rules: vec![
            rule("do it", &[again, "no new commit"], Some(&forgot)),
            rule(
                "clean up",
                &[again, "scratch.txt"],
                Some("rm scratch.txt && git status --short"),
            ),
            rule(
                "take it back",
                &[again, "astray.txt"],
                Some("git rm -q astray.txt && git commit -q -m 'Took it back' && git status"),
            ),
            rule("forget", &["say it is done"], None),
            rule("leave", &["leave something"], Some(&left)),
            rule("go on", &["go straight on"], Some(&on)),
            rule("stray", &["stay in the docs"], Some(&strayed)),
        ],
        ..Scenario::default()
    }
}

fn add(stage: &Stage, item: &str) {
    let list = stage.checkout("manager").join(LIST);
    let mut file = std::fs::OpenOptions::new().append(true).open(list).unwrap();
    file.write_all(item.as_bytes()).unwrap();
}

/// The id of the task with this word in its title.
#[track_caller]
fn id_of(stage: &Stage, word: &str) -> String {
    let page = stage.run(&["task", "list", "--json"]).json();
    let tasks = page["tasks"].as_array().unwrap();
    let title = |task: &&Value| task["title"].as_str().unwrap().starts_with(word);
    let found = tasks.iter().find(title);
    found.unwrap_or_else(|| panic!("no {word} in {page:#}"))["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Adds it, waits until it is done, and gives its receipt.
#[track_caller]
fn receipt_of(stage: &Stage, item: &str, word: &str, done: u32) -> Value {
    add(stage, item);
    stage.until(&format!("`{word}` is done"), |view| {
        agent(view, "worker-1").tasks_done == done && view.tasks.available + view.tasks.claimed == 0
    });
    let id = id_of(stage, word);
    stage.run(&["task", "receipt", &id, "--json"]).json()
}

#[test]
fn what_is_said_to_be_done_goes_back_until_it_is_and_the_receipt_tells_so() {
    let stage = Stage::set(Setup {
        scenario: careless(),
        files: vec![(LIST, b"# Worker 1\n\n".to_vec())],
        ..Setup::default()
    });
    stage.up_and_ready();

    let receipt = receipt_of(&stage, "- [ ] say it is done\n", "say", 1);
    let sent = receipt["sent_back"].as_array().unwrap();
    assert_eq!(sent.len(), 1, "{receipt:#}");
    assert_eq!(sent[0]["missing"][0]["missing"], "commit");
    assert_eq!(sent[0]["to"], "worker-1");
    assert_eq!(receipt["commit_count"], 1);
    assert_eq!(receipt["files"][0], "forgotten.txt");
    assert!(stage.on_remote("forgotten.txt").is_some());

    // It goes straight on to the next, which answers for nothing that was there before.
    let both = "- [ ] leave something\n- [ ] go straight on\n";
    let receipt = receipt_of(&stage, both, "leave", 3);
    let next = id_of(&stage, "go straight on");
    let next = stage.run(&["task", "receipt", &next, "--json"]).json();
    assert_eq!(next["sent_back"], serde_json::json!([]), "{next:#}");
    let sent = &receipt["sent_back"][0];
    assert_eq!(sent["missing"][0]["missing"], "clean_tree", "{receipt:#}");
    assert_eq!(sent["missing"][0]["paths"][0], "scratch.txt");
    // What it was told to clean up can be had all the same.
    let copy = sent["rescue"]["id"].as_str().unwrap();
    let shown = stage.run(&["rescue", "show", copy]).ok();
    assert!(shown.contains("scratch.txt"), "{shown}");
    assert!(!stage.checkout("worker-1").join("scratch.txt").exists());
    assert_eq!(receipt["rescue"], Value::Null);

    let item = "- [ ] stay in the docs\n  Files: docs/**\n";
    let receipt = receipt_of(&stage, item, "stay", 4);
    let sent = &receipt["sent_back"][0]["missing"][0];
    assert_eq!(sent["missing"], "scope", "{receipt:#}");
    assert_eq!(sent["paths"][0], "astray.txt");
    assert_eq!(receipt["scope"][0], "docs/**");
    assert!(stage.on_remote("docs/page.md").is_some());
    assert_eq!(stage.on_remote("astray.txt"), None);
    let text = stage.run(&["task", "receipt", &id_of(&stage, "stay")]).ok();
    for word in ["sent back before", "astray.txt", "may change", "commits: 2"] {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
    stage.down();
}

#[test]
fn what_is_never_mended_fails_and_a_person_is_told_and_may_try_again() {
    // It does nothing until the test lets it.
    let work = format!(
        "test -e .gate-late.open && date > late.txt && {}",
        commit(".")
    );
    let stage = Stage::set(Setup {
        scenario: Scenario {
            rules: vec![rule("late", &["only talk about it"], Some(&work))],
            ..Scenario::default()
        },
        files: vec![(LIST, b"- [ ] only talk about it\n".to_vec())],
        ..Setup::default()
    });
    stage.up_and_ready();
    let failed = stage.until("it has failed, and the manager has looked at it", |view| {
        view.tasks.failed == 1 && view.tasks.available + view.tasks.claimed == 0
    });
    let told = failed
        .notices
        .iter()
        .find(|notice| notice.text.contains("not proven after 2 repair(s)"));
    let told = told.unwrap_or_else(|| panic!("nobody is told: {:#?}", failed.notices));
    assert!(told.text.contains("no new commit"), "{}", told.text);
    assert_eq!(stage.turns_about("something is still missing").len(), 2);
    assert_eq!(stage.turns_about("Decide what becomes of a task").len(), 1);
    let id = id_of(&stage, "only");
    let none = stage.run(&["task", "receipt", &id]);
    none.ended(Exit::NotFound).says(&["failed"]);
    let shown = stage.run(&["task", "show", &id, "--json"]).json();
    let ends: Vec<&str> = shown["task"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|note| note["end"].as_str().unwrap())
        .collect();
    assert_eq!(ends, ["sent_back", "sent_back"], "{shown:#}");
    eventually("its box stays open where people look", || {
        let text = std::fs::read_to_string(stage.checkout("manager").join(LIST)).unwrap();
        (text == "- [ ] only talk about it\n").then_some(())
    });

    stage.open_gate("worker-1", "late");
    stage.run(&["task", "cancel", &id]).ended(Exit::Refused);
    stage.run(&["task", "retry", &id]).says(&["tried again"]);
    stage.until("it is done after all", |view| {
        agent(view, "worker-1").tasks_done == 1
    });
    let shown = stage.run(&["task", "show", &id, "--json"]).json();
    let ends = shown["task"]["history"].as_array().unwrap();
    assert_eq!(ends.len(), 3, "what was tried before is kept: {shown:#}");
    let receipt = stage.run(&["task", "receipt", &id, "--json"]).json();
    assert_eq!(receipt["files"][0], "late.txt", "{receipt:#}");
    eventually("its box is ticked", || {
        let text = std::fs::read_to_string(stage.checkout("manager").join(LIST)).unwrap();
        (text == "- [x] only talk about it\n").then_some(())
    });
    stage.run(&["task", "retry", &id]).ended(Exit::Refused);
    stage.down();
}

#[test]
fn a_cancelled_task_is_nobodys_and_its_list_does_not_bring_it_back() {
    let list = b"- [ ] go through gate first\n- [ ] write part two\n- [ ] write part three\n";
    let mut scenario = worker_script();
    let third = format!("date > three.txt && {}", commit("three.txt"));
    let third = rule("third", &["was cancelled"], Some(&third));
    scenario.rules.insert(0, third);
    let stage = Stage::set(Setup {
        scenario,
        files: vec![(LIST, list.to_vec())],
        ..Setup::default()
    });
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "first");
    let (held, waits) = (id_of(&stage, "go"), id_of(&stage, "write part two"));
    for id in [&held, &waits] {
        stage.run(&["task", "cancel", id]).says(&["is cancelled"]);
        stage.run(&["task", "cancel", id]).says(&["already"]);
    }
    stage.open_gate("worker-1", "first");
    let view = stage.until("the third is done", |view| {
        view.tasks.done >= 1 && view.tasks.available + view.tasks.claimed == 0
    });
    assert_eq!(view.tasks.cancelled, 2);
    let told = stage.turns_about("was cancelled");
    assert_eq!(told.len(), 1);
    let told = told[0].instruction.clone().unwrap();
    assert!(
        told.contains(&held) && told.contains("write part three"),
        "{told}"
    );
    assert!(stage.turns_about("write part two").is_empty());
    let file = stage.checkout("manager").join(LIST);
    let text = eventually("only the third is ticked", || {
        let text = std::fs::read_to_string(&file).unwrap();
        text.contains("- [x] write part three").then_some(text)
    });
    assert_eq!(text.matches("- [ ] ").count(), 2, "{text}");
    // Read again, and whole: nothing comes back.
    add(&stage, "- [ ] write part four\n");
    let view = stage.until("the fourth is done", |view| view.tasks.done >= 2);
    assert_eq!((view.tasks.cancelled, view.tasks.available), (2, 0));
    stage.down();
}
