//! Endings and beginnings: killed, detached, stopped, and up again. No work is lost and none is
//! done twice.

use orchestrator::model::view::FleetView;

use crate::support::stage::agent;
use crate::support::{Setup, Stage, eventually};

pub(crate) fn gated(gate: &str) -> Setup {
    let list = format!("- [ ] go through gate {gate} and on\n- [ ] and the next one\n");
    Setup {
        files: vec![("WORKER_1_TASK_LIST.md", list.into_bytes())],
        ..Setup::default()
    }
}

pub(crate) fn containers(view: &FleetView) -> Vec<Option<String>> {
    view.agents
        .iter()
        .map(|agent| agent.container.clone())
        .collect()
}

/// The engine's own ids, which a new container would change.
pub(crate) fn ids(stage: &Stage) -> String {
    let filter = format!("label=dev.orchestrator.project={}", stage.project);
    stage
        .docker(&["ps", "-q", "--no-trunc", "--filter", &filter])
        .ok()
}

fn spooled(stage: &Stage) -> usize {
    let spool = stage.state().join("agents/worker-1/spool");
    let names = std::fs::read_dir(spool).into_iter().flatten().flatten();
    names
        .filter(|file| !file.file_name().to_string_lossy().starts_with('.'))
        .count()
}

/// Every task was handed over once and worked off once.
pub(crate) fn nothing_ran_twice(stage: &Stage, view: &FleetView, tasks: &[&str]) {
    let worker = agent(view, "worker-1");
    assert_eq!(worker.tasks_done as usize, tasks.len(), "{worker:?}");
    for task in tasks {
        assert_eq!(
            stage.turns_about(task).len(),
            1,
            "`{task}` was handed over more than once"
        );
    }
    let log = stage
        .git(&stage.remote(), &["log", "--format=%s", "main"])
        .ok();
    let commits: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("work "))
        .collect();
    assert_eq!(commits.len(), tasks.len(), "{log}");
    for commit in commits {
        let task = commit.trim_start_matches("work ");
        assert_eq!(stage.runs_of(task), 1, "{task}");
    }
    // The file that people edit; what they did not commit is not on the remote.
    let list = stage.checkout("manager").join("WORKER_1_TASK_LIST.md");
    eventually("every item is ticked, and no other", || {
        let text = std::fs::read_to_string(&list).ok()?;
        let ticked = text.matches("- [x] ").count();
        (ticked == tasks.len() && text.matches("- [").count() == ticked).then_some(())
    });
}

#[test]
fn killed_in_the_middle_of_a_turn_the_agents_work_on_and_are_adopted() {
    let stage = Stage::set(gated("kill"));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "kill");
    let before = stage.view();
    let before_ids = ids(&stage);
    let pid = stage.pid();
    stage.signal("-9", &pid);
    stage.until_gone(&pid);
    stage
        .run(&["status"])
        .ended(orchestrator::cli::Exit::NotRunning);
    stage.open_gate("worker-1", "kill");
    eventually("the end of the turn lies in the spool", || {
        (spooled(&stage) > 0).then_some(())
    });
    assert_eq!(ids(&stage), before_ids, "the agents run on");
    stage.up();
    let after = stage.until_done(2);
    assert_eq!(ids(&stage), before_ids, "adopted, not started again");
    assert_eq!(containers(&after), containers(&before));
    nothing_ran_twice(&stage, &after, &["gate kill", "the next one"]);
    assert_eq!(spooled(&stage), 0);
    stage.down();
    stage.nothing_is_left();
}

#[test]
fn a_signal_detaches_and_up_after_down_goes_on_with_the_conversation() {
    let stage = Stage::set(gated("term"));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "term");
    let before_ids = ids(&stage);
    let pid = stage.pid();
    stage.signal("-TERM", &pid);
    stage.until_gone(&pid);
    assert_eq!(ids(&stage), before_ids, "SIGTERM leaves the agents alone");
    stage.up();
    stage.open_gate("worker-1", "term");
    let first = stage.until_done(2);
    assert_eq!(ids(&stage), before_ids);
    nothing_ran_twice(&stage, &first, &["gate term", "the next one"]);

    stage.down();
    stage.nothing_is_left();
    let list = stage.checkout("manager").join("WORKER_1_TASK_LIST.md");
    let mut text = std::fs::read_to_string(&list).unwrap();
    text.push_str("- [ ] something for the second day\n");
    std::fs::write(&list, text).unwrap();

    stage.up();
    let second = stage.until_done(3);
    for (before, after) in first.agents.iter().zip(&second.agents) {
        assert_eq!(after.session, before.session, "{}", after.id);
        assert!(after.incarnation > before.incarnation, "{}", after.id);
    }
    nothing_ran_twice(
        &stage,
        &second,
        &["gate term", "the next one", "the second day"],
    );
    let record = &stage.turns_about("the second day")[0];
    let session = agent(&first, "worker-1").session.as_ref();
    assert_eq!(record.session.as_ref(), session, "the conversation goes on");
    stage.down();
    stage.nothing_is_left();
}

#[test]
fn a_stop_in_the_middle_of_a_turn_loses_nothing() {
    let stage = Stage::set(gated("stop"));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "stop");
    let half_done = stage.checkout("worker-1").join("half-done.txt");
    std::fs::write(&half_done, "half of it\n").unwrap();
    stage.down();
    stage.nothing_is_left();
    assert_eq!(std::fs::read_to_string(&half_done).unwrap(), "half of it\n");
    stage.open_gate("worker-1", "stop");
    stage.up();
    let view = stage.until("both tasks are done", |view| view.tasks.done == 2);
    assert_eq!(agent(&view, "worker-1").tasks_done, 2);
    assert_eq!(std::fs::read_to_string(&half_done).unwrap(), "half of it\n");
}
