//! What a person does in an agent's pane: opens a dialog, ends it, clears its conversation.

use crate::hung::explain;
use crate::support::stage::agent;
use crate::support::{Setup, Stage, eventually};

fn keys(stage: &Stage, keys: &[&str]) {
    let mut all = vec!["send-keys", "-t", "=worker-1:"];
    all.extend(keys);
    stage.tmux(&all).ok();
}

/// Types a command and sends it off once its menu is there.
fn command(stage: &Stage, text: &str) {
    keys(stage, &[text]);
    shows(stage, text);
    keys(stage, &["Enter"]);
}

fn shows(stage: &Stage, text: &str) {
    eventually(&format!("the pane shows {text}"), || {
        let pane = stage.tmux(&["capture-pane", "-p", "-t", "=worker-1:"]);
        pane.stdout.contains(text).then_some(())
    });
}

fn add(stage: &Stage, item: &str) {
    let list = stage.checkout("manager").join("WORKER_1_TASK_LIST.md");
    let text = std::fs::read_to_string(&list).unwrap_or_default();
    std::fs::write(&list, format!("{text}- [ ] {item}\n")).unwrap();
}

#[test]
fn a_dialog_is_left_to_the_person_and_exit_and_clear_cost_no_work() {
    let stage = Stage::set(Setup::default());
    let ready = stage.up_and_ready();
    let first = agent(&ready, "worker-1").clone();

    // A dialog: named, with what to do; closing it is all it takes.
    command(&stage, "/model");
    shows(&stage, "Select model");
    add(&stage, "after the dialog");
    let waiting = stage.until("it waits for a person", |view| {
        agent(view, "worker-1").state == "waiting"
    });
    let worker = agent(&waiting, "worker-1");
    assert!(worker.reason.contains("dialog"), "{}", worker.reason);
    let notice = waiting.notices.iter().find(|n| n.text == worker.reason);
    let hint = notice.unwrap().hint.clone().unwrap();
    assert!(hint.contains("orchestrator attach worker-1"), "{hint}");
    let why = stage.run(&["explain", "worker-1"]).ok();
    for word in ["waiting since", "a dialog: ", "attach worker-1"] {
        assert!(why.contains(word), "no `{word}` in:\n{why}");
    }
    assert!(stage.turns_about("after the dialog").is_empty());
    keys(&stage, &["Escape"]);
    stage.until_done(1);
    assert_eq!(stage.turns_about("after the dialog").len(), 1);

    // `/clear` in the middle of a task: the task is told again, and the new conversation counts.
    add(&stage, "go through gate clear and on");
    stage.until_at_gate("worker-1", "clear");
    keys(&stage, &["Escape"]);
    shows(&stage, "Interrupted");
    command(&stage, "/clear");
    let cleared = stage.until("it has another conversation", |view| {
        let worker = agent(view, "worker-1");
        worker.session != first.session && worker.state == "working"
    });
    let session = agent(&cleared, "worker-1").session.clone().unwrap();
    eventually("it is told again", || {
        (stage.turns_about("gate clear").len() == 2).then_some(())
    });
    stage.open_gate("worker-1", "clear");
    stage.until_done(2);
    let log = stage
        .git(&stage.remote(), &["log", "--format=%s", "main"])
        .ok();
    let works = log.lines().filter(|line| line.starts_with("work ")).count();
    assert_eq!(works, 2, "{log}");

    // `/exit`: it comes back at once, with the newest conversation, and it is no crash.
    command(&stage, "/exit");
    let back = stage.until("it is back", |view| {
        let worker = agent(view, "worker-1");
        worker.restarts == 1 && worker.state == "idle"
    });
    let worker = agent(&back, "worker-1");
    assert_eq!(worker.session.as_ref(), Some(&session));
    let container = worker.container.clone().unwrap();
    let command = stage
        .docker(&["inspect", "-f", "{{json .Config.Cmd}}", &container])
        .ok();
    assert!(command.contains(session.as_str()), "{command}");
    let why = explain(&stage, "worker-1");
    assert_eq!((why.crashes, why.restarts), (0, 1));
    let ended = why.history.iter().rfind(|change| change.to == "backoff");
    assert!(ended.unwrap().reason.contains("/exit"), "{ended:?}");
    shows(&stage, "gate clear");
}
