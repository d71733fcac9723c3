//! The way into the branch: gates that are green, red and flaky, and a manager that merges.

use orchestrator::testing::scripted_model::{Condition, Pattern, Rule, Scenario, Step};
use serde_json::{Value, json};

use crate::support::stage::agent;
use crate::support::{Setup, Stage, worker_script};

fn pattern(text: &str) -> Condition {
    Condition::Text(Pattern::new(text).unwrap())
}

fn list(item: &str) -> Vec<u8> {
    format!("- [ ] {item}\n").into_bytes()
}

/// The usual script. Who is told to write something broken does, and mends it when it comes back.
fn careless() -> Scenario {
    const BROKEN: &str = "id={{id}}; id=${id%:}; mkdir -p work && echo broken > \"work/$id.txt\" && \
         git add work && git commit -q -m \"work $id\" && git log -1 --format=%s";
    const MEND: &str =
        "sed -i s/broken/mended/ work/*.txt; git commit -qam Mend; git log -1 --format=%s";
    let mut script = worker_script();
    let mend = Rule {
        name: "mend".into(),
        when: vec![Condition::text("You said that this is done")],
        steps: vec![Step::bash(MEND, "Mend it")],
        finally: "Mended.".into(),
    };
    let broken = Rule {
        name: "broken".into(),
        when: vec![pattern("Task {id:word}"), Condition::text("broken")],
        steps: vec![Step::bash(BROKEN, "Break it")],
        finally: "Done, I think.".into(),
    };
    script.rules.splice(0..0, [mend, broken]);
    script
}

/// One that finds what is broken, and one that fails the first time it ever runs.
fn gates() -> Value {
    json!([
        {"name": "clean", "timeout": "60s",
         "command": "echo looking for it; ! grep -rs broken work"},
        {"name": "moody", "timeout": "60s", "cache": true,
         "command": "[ -e /cache/tried ] || { touch /cache/tried; echo not today; exit 1; }"},
    ])
}

/// Every state the branch ever had, newest first.
#[track_caller]
fn states(stage: &Stage) -> Vec<String> {
    let log = ["rev-list", "--first-parent", "main"];
    let log = stage.git(&stage.remote(), &log).ok();
    log.lines().map(str::to_owned).collect()
}

fn outcomes(train: &Value) -> Vec<(&str, &str)> {
    let recent = train["recent"].as_array().unwrap().iter();
    recent
        .map(|ended| {
            let word = |key: &str| ended[key].as_str().unwrap();
            (word("agent"), word("outcome"))
        })
        .collect()
}

#[test]
fn what_is_red_goes_back_and_is_mended_and_a_flake_is_told_as_one() {
    let stage = Stage::set(Setup {
        workers: 2,
        scenario: careless(),
        files: vec![
            ("WORKER_1_TASK_LIST.md", list("write a")),
            ("WORKER_2_TASK_LIST.md", list("write it broken")),
        ],
        config: json!({"gates": gates()}),
        ..Setup::default()
    });
    stage.up_and_ready();
    // Both, and the one that mended the second.
    let view = stage.until_done(3);
    assert_eq!(agent(&view, "worker-2").tasks_done, 1);

    // Nothing broken was ever the branch.
    for commit in states(&stage) {
        let found = stage.git(&stage.remote(), &["grep", "broken", &commit, "--", "work"]);
        assert_eq!(found.code, 1, "{found}");
    }
    let mended = stage.git(
        &stage.remote(),
        &["grep", "-h", "mended", "main", "--", "work"],
    );
    assert_eq!(mended.ok(), "mended\n");

    let train = stage.run(&["train", "--json"]).json();
    assert_eq!(
        (&train["state"], &train["stack"]),
        (&json!("idle"), &Value::Null)
    );
    assert_eq!(train["gates"], json!(["clean", "moody"]));
    assert_eq!(
        (&train["waiting"], &train["stalls"]),
        (&json!([]), &json!([]))
    );
    let ended = outcomes(&train);
    for wanted in [
        ("worker-1", "landed"),
        ("worker-2", "red"),
        ("worker-2", "landed"),
    ] {
        assert!(ended.contains(&wanted), "{ended:?}");
    }
    let table = stage.run(&["train"]).ok();
    for word in [
        "gates: clean, moody",
        "idle",
        "nothing waits",
        "red",
        "landed",
    ] {
        assert!(table.contains(word), "`{word}` is not in\n{table}");
    }

    let gates = stage.run(&["gates", "list", "--json"]).json();
    let count = |gate: usize, what: &str| gates[gate]["counts"][what].as_u64().unwrap();
    assert!(
        count(0, "failed") >= 1 && count(0, "passed") >= 2,
        "{gates}"
    );
    assert_eq!((count(0, "flaky"), count(1, "flaky")), (0, 1), "{gates}");
    assert_eq!(count(1, "failed"), 0, "{gates}");
    let listed = stage.run(&["gates", "list"]).ok();
    assert!(
        listed.contains("clean") && listed.contains("moody"),
        "{listed}"
    );

    let runs = stage.run(&["gates", "log", "--json"]).json();
    let failed = runs.as_array().unwrap().iter();
    let mut failed = failed.filter(|run| run["record"]["outcome"] == "failed");
    let failed = failed.next().unwrap()["record"]["log"].as_str().unwrap();
    let log = stage.run(&["gates", "log", failed]).ok();
    assert!(
        log.contains("looking for it") && log.contains("broken"),
        "{log}"
    );

    for task in proven(&stage, "worker-2") {
        let receipt = stage.run(&["task", "receipt", &task, "--json"]).json();
        let passed = receipt["gates"].as_array().unwrap().iter();
        let passed: Vec<&Value> = passed.map(|gate| &gate["outcome"]).collect();
        assert_eq!(passed, [&json!("passed"), &json!("passed")], "{receipt}");
        assert_eq!(receipt["sent_back"][0]["missing"][0]["missing"], "gate");
    }
}

/// The tasks of the list of this worker that are done.
#[track_caller]
fn proven(stage: &Stage, worker: &str) -> Vec<String> {
    let page = stage.run(&[
        "task", "list", "--status", "done", "--owner", worker, "--json",
    ]);
    let page = page.json();
    let all = page["tasks"].as_array().unwrap().iter();
    let ids = all.map(|task| task["id"].as_str().unwrap().to_owned());
    let of_list: Vec<String> = ids.filter(|id| id.starts_with('w')).collect();
    assert_eq!(of_list.len(), 1, "{page}");
    of_list
}

/// Merges what is named in these lines, and keeps both sides of a conflict.
fn merge(lines: &str) -> Step {
    let script = format!(
        "set -e; [ -z \"$(git status --porcelain)\" ] || git commit -qam Lists
         for commit in $(printf '%s' {lines} | grep -oE '[0-9a-f]{{40}}'); do
           git merge --no-edit $commit || {{
             sed -i -E '/^(<<<<<<<|=======|>>>>>>>|[|]{{7}})/d' notes.txt
             git add notes.txt; git commit -q --no-edit; }}
         done; git log --oneline -3; cat notes.txt"
    );
    Step::bash(&script, "Merge")
}

/// Both workers write at the same place. The manager first leaves out what worker 2 wrote.
fn merging() -> Scenario {
    const WRITE: &str = "id={{id}}; id=${id%:}; echo \"line of $id\" >> notes.txt && git add notes.txt && \
         git commit -q -m \"work $id\" && git log -1 --format=%s";
    let rule = |name: &str, when: Vec<Condition>, steps: Vec<Step>| Rule {
        name: name.into(),
        when,
        steps,
        finally: "That is that.".into(),
    };
    // Which of the two comes first, and whether they come together, is left open.
    let asked = || Condition::text("Merge the work of worker-");
    let before = || Condition::text("you were asked for it before");
    let one = || pattern("- worker-1{one:line}");
    let two = || pattern("- worker-2{two:line}");
    Scenario {
        rules: vec![
            rule(
                "both",
                vec![asked(), before(), one(), two()],
                vec![merge("{{one}}{{two}}")],
            ),
            rule(
                "again",
                vec![asked(), before(), two()],
                vec![merge("{{two}}")],
            ),
            rule("first", vec![asked(), one()], vec![merge("{{one}}")]),
            rule("not yet", vec![asked()], Vec::new()),
            rule(
                "write",
                vec![pattern("Task {id:word}")],
                vec![Step::bash(WRITE, "Write a line")],
            ),
        ],
        ..Scenario::default()
    }
}

#[test]
fn a_manager_that_merges_is_asked_again_for_what_it_left_out() {
    let stage = Stage::set(Setup {
        workers: 2,
        scenario: merging(),
        files: vec![
            ("notes.txt", b"notes\n".to_vec()),
            ("WORKER_1_TASK_LIST.md", list("write a line")),
            ("WORKER_2_TASK_LIST.md", list("write another line")),
        ],
        config: json!({
            "mergeBy": "manager",
            "gates": [{"name": "whole", "command": "! grep -E '<<<<|>>>>' notes.txt", "timeout": "60s"}],
        }),
        ..Setup::default()
    });
    stage.up_and_ready();
    stage.until("both are proven", |view| {
        let done = |name| agent(view, name).tasks_done == 1;
        done("worker-1") && done("worker-2") && view.pushed && view.merges.waiting == 0
    });
    let notes = stage.on_remote("notes.txt").unwrap();
    assert_eq!(notes.matches("line of ").count(), 2, "{notes}");
    assert!(!notes.contains("<<<<"), "{notes}");

    for list in ["WORKER_1_TASK_LIST.md", "WORKER_2_TASK_LIST.md"] {
        let text = stage.on_remote(list).unwrap();
        assert!(text.starts_with("- [x] "), "{list}: {text}");
    }

    // Only the manager's work was ever merged into the branch.
    let subjects = ["log", "--first-parent", "--format=%s", "main"];
    let subjects = stage.git(&stage.remote(), &subjects).ok();
    assert!(subjects.contains("Merge manager"), "{subjects}");
    assert!(!subjects.contains("Merge worker"), "{subjects}");
    let again = stage.heard.all();
    let again = again
        .iter()
        .filter(|told| told.contains("you were asked for it before"));
    assert_eq!(again.count(), 1);

    let train = stage.run(&["train", "--json"]).json();
    assert_eq!(
        (&train["merge_by"], &train["with_manager"]),
        (&json!("manager"), &Value::Null)
    );
    let ended = outcomes(&train);
    for wanted in [
        ("manager", "landed"),
        ("worker-1", "up to date"),
        ("worker-2", "not merged"),
        ("worker-2", "up to date"),
    ] {
        assert!(ended.contains(&wanted), "{ended:?}");
    }
    assert!(stage.run(&["train"]).ok().contains("merged by the manager"));
    for worker in ["worker-1", "worker-2"] {
        for task in proven(&stage, worker) {
            let receipt = stage.run(&["task", "receipt", &task, "--json"]).json();
            assert_eq!(receipt["gates"][0]["outcome"], "passed", "{receipt}");
            let landed = receipt["landed"].as_str().unwrap();
            let commit = receipt["commits"][0]["id"].as_str().unwrap();
            let inside = ["merge-base", "--is-ancestor", commit, landed];
            stage.git(&stage.remote(), &inside).ok();
        }
    }
}
