//! Task lists as people keep them: every way to save arrives, every finished item is ticked, and
//! nothing else in the file ever changes.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use orchestrator::testing::scripted_model::{Condition, Rule, Scenario, Step};

use crate::support::stage::agent;
use crate::support::{Setup, Stage, eventually, worker_script};

const LIST: &str = "WORKER_1_TASK_LIST.md";

/// Windows line ends, trailing blanks, other boxes, a table, no final newline.
const ODD: &str = "# Worker 1  \r\n\r\nText with a box: [ ] not a task\r\n\r\n- [x] done long ago\r\n\
    * [ ] first of all\r\n\r\n```\r\n- [ ] in a code block\r\n```\r\n\r\n| a | b |\r\n|---|---|\r\n| [ ] | 2 |";

fn read(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).unwrap()).unwrap()
}

#[track_caller]
fn becomes(path: &Path, wanted: &str) {
    let mut last = String::new();
    let what = format!("{} becomes {wanted:?}", path.display());
    eventually(&what, || {
        last = read(path);
        (last == wanted).then_some(())
    });
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// As vim and emacs save: a new file beside, renamed over the old one.
fn save_by_rename(path: &Path, text: &str) {
    let beside = path.with_extension("md.new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

fn editor(stage: &Stage, line: &str) -> PathBuf {
    let path = stage.root().join("editor.sh");
    let text = format!("#!/bin/sh\nprintf '%s\\r\\n' '{line}' >> \"$1\"\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The usual script, and a manager that adds an item and commits when it is asked to plan.
fn script() -> Scenario {
    let mut script = worker_script();
    let add = format!(
        "grep -q 'by the manager' {LIST} || {{ printf '%s\\r\\n' '- [ ] by the manager' >> {LIST}; \
         git commit -q -m 'Plan' -- {LIST}; }}; tail -n 3 {LIST}"
    );
    let plan = Rule {
        name: "plan".into(),
        when: vec![Condition::text("PROJECT_DIRECTION.md")],
        steps: vec![Step::bash(&add, "Add an item")],
        finally: "Planned.".into(),
    };
    script.rules.insert(0, plan);
    script
}

#[test]
fn however_a_list_is_saved_its_items_are_worked_off_and_only_their_boxes_change() {
    let stage = Stage::set(Setup {
        scenario: script(),
        files: vec![(LIST, ODD.into())],
        ..Setup::default()
    });
    stage.up_and_ready();
    let list = stage.checkout("manager").join(LIST);
    let view = stage.until_done(1);
    assert_eq!(
        Path::new(&view.task_list_directory),
        stage.checkout("manager")
    );
    let mut wanted = ODD.replace("* [ ] first", "* [x] first");
    becomes(&list, &wanted);
    assert_eq!(stage.on_remote(LIST).unwrap(), wanted);

    // In place.
    append(&list, "\r\n\r\n- [ ] written in place\r\n");
    wanted.push_str("\r\n\r\n- [x] written in place\r\n");
    stage.until_done(2);
    becomes(&list, &wanted);

    // By rename.
    save_by_rename(&list, &format!("{wanted}- [ ] saved by rename\r\n"));
    wanted.push_str("- [x] saved by rename\r\n");
    stage.until_done(3);
    becomes(&list, &wanted);

    // In the person's editor.
    let editor = editor(&stage, "- [ ] from the editor");
    let mut edit = stage.command(&["edit", "worker-1"]);
    crate::support::Ran::of(edit.env("EDITOR", &editor)).ok();
    wanted.push_str("- [x] from the editor\r\n");
    stage.until_done(4);
    becomes(&list, &wanted);

    // Pushed by somebody else, who has not seen what was not committed.
    let clone = stage.clone_of_remote("colleague");
    let theirs =
        read(&clone.join(LIST)).replace("# Worker 1  \r\n", "# Worker 1  \r\n\r\n- [ ] pushed\r\n");
    std::fs::write(clone.join(LIST), theirs).unwrap();
    stage.commit_all(&clone, "One more");
    stage.git(&clone, &["push", "-q", "origin", "main"]).ok();
    stage.until_done(5);
    eventually("the pushed item is ticked on the remote", || {
        stage
            .on_remote(LIST)
            .filter(|text| text.contains("- [x] pushed\r\n"))
    });

    // Committed by the manager, who is asked to plan once there is a direction.
    stage
        .git(&clone, &["pull", "-q", "--rebase", "origin", "main"])
        .ok();
    std::fs::write(clone.join("PROJECT_DIRECTION.md"), "Do one more thing.\n").unwrap();
    stage.commit_all(&clone, "A direction");
    stage.git(&clone, &["push", "-q", "origin", "main"]).ok();
    stage.until("the manager's item is done", |view| {
        agent(view, "worker-1").tasks_done == 6 && view.planning.rounds > 0
    });
    eventually("the manager's item is ticked on the remote", || {
        stage
            .on_remote(LIST)
            .filter(|text| text.contains("- [x] by the manager"))
    });
    let text = eventually("everything is ticked where people edit", || {
        let text = read(&list);
        (text.matches("- [x] ").count() == 6).then_some(text)
    });
    for item in [
        "done long ago",
        "written in place",
        "saved by rename",
        "from the editor",
        "pushed",
        "by the manager",
    ] {
        assert_eq!(
            text.matches(&format!("- [x] {item}")).count(),
            1,
            "{item}: {text}"
        );
    }
    for kept in [
        "Text with a box: [ ] not a task\r\n",
        "- [ ] in a code block\r\n",
        "| [ ] | 2 |",
    ] {
        assert!(text.contains(kept), "{text}");
    }
    for item in [
        "first of all",
        "written in place",
        "saved by rename",
        "from the editor",
        "pushed",
        "by the manager",
    ] {
        assert_eq!(stage.turns_about(item).len(), 1, "{item}");
    }
}

#[test]
fn an_edit_made_while_an_item_is_ticked_is_never_lost() {
    let items: String = (1..=6)
        .map(|n| format!("- [ ] item number {n}\n"))
        .collect();
    let stage = Stage::set(Setup {
        files: vec![(
            LIST,
            format!("# List\n\n{items}\n## Notes\n\n").into_bytes(),
        )],
        ..Setup::default()
    });
    stage.up_and_ready();
    let list = stage.checkout("manager").join(LIST);
    // A person who saves all the time, by turns in place and by rename, while items are ticked.
    let mut notes = 0;
    let mut saved = std::collections::BTreeSet::new();
    eventually("six tasks are done", || {
        let before = read(&list);
        notes += 1;
        let note = format!("note {notes}\n");
        if notes % 2 == 0 {
            append(&list, &note);
        } else {
            save_by_rename(&list, &format!("{before}{note}"));
        }
        saved.insert(notes);
        (notes > 10 && stage.view().tasks.done == 6).then_some(())
    });
    let ticked = (1..=6)
        .map(|n| format!("- [x] item number {n}\n"))
        .collect::<String>();
    let text = eventually("all boxes are ticked", || {
        let text = read(&list);
        text.starts_with(&format!("# List\n\n{ticked}"))
            .then_some(text)
    });
    for note in saved {
        assert_eq!(
            text.matches(&format!("note {note}\n")).count(),
            1,
            "note {note} in {text}"
        );
    }
    assert_eq!(stage.view().tasks.done, 6);
    for n in 1..=6 {
        assert_eq!(
            stage.turns_about(&format!("item number {n}\n")).len(),
            1,
            "item {n}"
        );
    }
}

#[test]
fn a_list_that_cannot_be_read_is_told_and_loses_nothing() {
    let stage = Stage::set(Setup {
        workers: 2,
        files: vec![(LIST, b"- [ ] gate hold\n- [ ] after it\n".to_vec())],
        ..Setup::default()
    });
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "hold");
    let list = stage.checkout("manager").join(LIST);
    let broken = b"- [ ] gate hold\n- [ ] after it\n- [ ] caf\xe9\n";
    std::fs::write(&list, broken).unwrap();
    let prose = stage.checkout("manager").join("WORKER_2_TASK_LIST.md");
    std::fs::write(&prose, "Please do something useful.\n").unwrap();
    let view = stage.until("both lists are complained about", |view| {
        let said = |file: &str, what: &str| {
            view.notices.iter().any(|notice| {
                notice.text.contains(file) && notice.text.contains(what) && notice.hint.is_some()
            })
        };
        said(LIST, "not UTF-8") && said("WORKER_2", "no checklist item")
    });
    assert_eq!(
        view.tasks.available + view.tasks.claimed,
        2,
        "{:?}",
        view.tasks
    );
    assert_eq!(
        std::fs::read(&list).unwrap(),
        broken,
        "what cannot be read is not written"
    );
    stage.open_gate("worker-1", "hold");
    stage.until("both tasks are done all the same", |view| {
        view.tasks.done == 2
    });
    assert_eq!(std::fs::read(&list).unwrap(), broken);
    std::fs::write(&list, "- [ ] gate hold\n- [ ] after it\n- [ ] café\n").unwrap();
    std::fs::write(&prose, "Please do:\n\n- [ ] something useful\n").unwrap();
    stage.until("both new tasks are done", |view| view.tasks.done == 4);
    becomes(&list, "- [x] gate hold\n- [x] after it\n- [x] café\n");
    becomes(&prose, "Please do:\n\n- [x] something useful\n");
}

#[test]
fn a_turn_that_leaves_a_background_task_is_not_done() {
    let mut script = worker_script();
    let background = Rule {
        name: "background".into(),
        when: vec![Condition::text("in the background")],
        steps: vec![Step::Tool {
            name: "Bash".into(),
            input: serde_json::json!({
                "command": "until [ -e .gate-back.open ]; do sleep 0.1; done; echo over",
                "description": "Wait in the background",
                "run_in_background": true,
            }),
        }],
        finally: "It runs in the background.".into(),
    };
    script.rules.insert(0, background);
    let stage = Stage::set(Setup {
        scenario: script,
        files: vec![(
            LIST,
            b"- [ ] do it in the background\n- [ ] later\n".to_vec(),
        )],
        // It commits nothing.
        config: serde_json::json!({"tasks": {"proof": "none"}}),
        ..Setup::default()
    });
    stage.up_and_ready();
    let view = stage.until("a turn has ended", |view| agent(view, "worker-1").turns > 0);
    let worker = agent(&view, "worker-1");
    assert_eq!(worker.tasks_done, 0, "{worker:?}");
    assert_eq!(worker.state, "working");
    assert!(worker.reason.contains("background"), "{}", worker.reason);
    assert_eq!(stage.turns_about("later").len(), 0);
    stage.open_gate("worker-1", "back");
    stage.until_done(2);
    assert_eq!(agent(&stage.view(), "worker-1").tasks_done, 2);
}
