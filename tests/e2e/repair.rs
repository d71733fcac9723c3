//! What breaks while the fleet runs is repaired, and no work is lost with it.

use crate::support::stage::agent;
use crate::support::{Setup, Stage};

fn gated(gate: &str) -> Setup {
    let list = format!("- [ ] go through gate {gate} and on\n");
    Setup {
        files: vec![("WORKER_1_TASK_LIST.md", list.into_bytes())],
        ..Setup::default()
    }
}

fn add(stage: &Stage, item: &str) {
    let list = stage.checkout("manager").join("WORKER_1_TASK_LIST.md");
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, format!("{text}- [ ] {item}\n")).unwrap();
}

#[test]
fn the_end_of_the_tmux_server_touches_no_agent() {
    let stage = Stage::set(gated("tmux"));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "tmux");
    let before = stage.view();
    stage.tmux(&["kill-server"]).ok();
    stage.open_gate("worker-1", "tmux");
    let after = stage.until_done(1);
    for (before, after) in before.agents.iter().zip(&after.agents) {
        assert_eq!(before.container, after.container);
        assert_eq!((after.restarts, after.incarnation), (0, before.incarnation));
    }
    assert_eq!(stage.turns_about("gate tmux").len(), 1);
    // People find their sessions again, though nothing is delivered.
    crate::support::eventually("all sessions are back by themselves", || {
        let names = stage
            .tmux(&["list-sessions", "-F", "#{session_name}"])
            .stdout;
        (names.lines().count() == 2).then_some(())
    });
    add(&stage, "one more");
    stage.until_done(2);
    let sessions = stage.tmux(&["list-sessions", "-F", "#{session_name}"]).ok();
    assert!(
        sessions.lines().any(|name| name == "worker-1"),
        "{sessions}"
    );
    // Gone again; the next start brings all of them back.
    stage.tmux(&["kill-server"]).ok();
    stage.run(&["down", "--detach"]).ok();
    stage.up();
    crate::support::eventually("all sessions are back", || {
        let names = stage
            .tmux(&["list-sessions", "-F", "#{session_name}"])
            .stdout;
        (names.lines().count() == 2).then_some(())
    });
    assert_eq!(stage.turns_about("one more").len(), 1);
}

#[test]
fn a_container_that_is_killed_comes_back_and_its_task_is_finished() {
    let stage = Stage::set(gated("killed"));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "killed");
    let before = stage.view();
    let worker = agent(&before, "worker-1");
    let container = worker.container.clone().unwrap();
    stage.docker(&["kill", &container]).ok();
    let back = stage.until("it is back", |view| {
        let now = agent(view, "worker-1");
        now.restarts == 1 && now.state == "working"
    });
    let now = agent(&back, "worker-1");
    assert!(now.incarnation > worker.incarnation);
    assert_eq!(now.session, worker.session, "the same conversation");
    assert_ne!(now.container.as_ref(), Some(&container));
    stage.open_gate("worker-1", "killed");
    let done = stage.until_done(1);
    let worker = agent(&done, "worker-1");
    assert_eq!((worker.tasks_done, worker.restarts), (1, 1));
    assert_eq!(agent(&done, "manager").restarts, 0);
    let log = stage
        .git(&stage.remote(), &["log", "--format=%s", "main"])
        .ok();
    assert_eq!(
        log.lines().filter(|line| line.starts_with("work ")).count(),
        1,
        "{log}"
    );
}
