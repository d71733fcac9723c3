//! The Docker engine is stopped, restarted and killed while agents work. The engine is the test's
//! own, in a network namespace of its own: see `tests/support/engine.rs`.

use std::collections::BTreeMap;

use orchestrator::model::view::FleetView;
use serde_json::json;

use crate::support::engine::Containers;
use crate::support::stage::agent;
use crate::support::{Setup, Stage, eventually};

const GATES: [&str; 5] = ["stopped", "killed", "terminated", "inbetween", "crashed"];

/// The engine's own ids, which a new container would change.
fn ids(stage: &Stage) -> String {
    let filter = format!("label=dev.orchestrator.project={}", stage.project);
    stage
        .docker(&["ps", "-q", "--no-trunc", "--filter", &filter])
        .ok()
}

fn notice(stage: &Stage, words: &str) {
    stage.until(words, |view| {
        let mut notices = view.notices.iter();
        notices.any(|notice| notice.text.contains(words))
    });
}

/// Everybody was started again, once, with the same conversation, and the worker is at work.
fn all_came_back(stage: &Stage, before: &FleetView) -> FleetView {
    let back = stage.until("everybody is back", |view| {
        let mut pairs = before.agents.iter().zip(&view.agents);
        agent(view, "worker-1").state == "working"
            && pairs.all(|(before, now)| {
                now.incarnation > before.incarnation
                    && matches!(now.state.as_str(), "idle" | "working")
            })
    });
    for (before, now) in before.agents.iter().zip(&back.agents) {
        assert_eq!(now.session, before.session, "the same conversation");
        assert_eq!(now.restarts, before.restarts + 1, "{}", now.id);
        assert_eq!(now.incarnation, before.incarnation.next(), "{}", now.id);
    }
    assert_eq!(ids(stage).lines().count(), 2, "no second copy");
    back
}

/// Waits until the worker's pane shows its terminal, not the view's own words.
fn is_shown(stage: &Stage, what: &str) {
    eventually(&format!("its pane shows {what}"), || {
        let screen = stage
            .tmux(&["capture-pane", "-p", "-t", "=worker-1:"])
            .stdout;
        (screen.contains(what) && !screen.contains("orchestrator: ")).then_some(())
    });
}

/// With a budget of one crash: two deaths that are counted would end an agent.
#[test]
fn an_engine_that_stops_dies_and_comes_back_costs_no_work_and_no_crash() {
    let items = GATES.map(|gate| format!("- [ ] go through gate {gate} and on\n"));
    let stage = Stage::set(Setup {
        files: vec![("WORKER_1_TASK_LIST.md", items.concat().into_bytes())],
        config: json!({"restart": {"burst": 1}}),
        own_engine: Some(Containers::EndWithIt),
        ..Setup::default()
    });
    let engine = stage.engine();
    stage.up_and_ready();

    // SIGTERM: the engine stops every container before it goes.
    stage.until_at_gate("worker-1", "stopped");
    let before = stage.view();
    engine.terminate();
    notice(&stage, "the container engine went away");
    engine.start(Containers::EndWithIt);
    let back = all_came_back(&stage, &before);
    stage.open_gate("worker-1", "stopped");

    // kill -9: the containers run on, and the next engine ends them.
    stage.until_at_gate("worker-1", "killed");
    engine.kill();
    engine.start(Containers::EndWithIt);
    all_came_back(&stage, &back);
    stage.open_gate("worker-1", "killed");

    // With live-restore from the next start on; what runs is lost once more.
    stage.until_at_gate("worker-1", "terminated");
    let before = stage.view();
    engine.terminate();
    engine.start(Containers::LiveOn);
    let alive = all_came_back(&stage, &before);
    let living = ids(&stage);

    // While it is away the agent ends a task and begins the next.
    stage.until_at_gate("worker-1", "terminated");
    engine.terminate();
    stage.open_gate("worker-1", "terminated");
    stage.until_at_gate("worker-1", "inbetween");
    let turns = agent(&stage.view(), "worker-1").turns;
    engine.start(Containers::LiveOn);
    stage.until("its work is at the remote", |view| view.merges.merged >= 3);
    assert_eq!(agent(&stage.view(), "worker-1").turns, turns);
    stage.open_gate("worker-1", "inbetween");

    stage.until_at_gate("worker-1", "crashed");
    engine.kill();
    notice(&stage, "the container engine went away");
    engine.start(Containers::LiveOn);
    stage.open_gate("worker-1", "crashed");
    let done = stage.until_done(5);
    assert_eq!(ids(&stage), living, "the agents ran on");
    for (before, now) in alive.agents.iter().zip(&done.agents) {
        assert_eq!(now.container, before.container, "{}", now.id);
        assert_eq!(now.restarts, before.restarts, "{}", now.id);
    }
    is_shown(&stage, "Went through the gate and did it.");
    every_task_was_done_once(&stage, &done);

    // The events are followed again: a death is noticed at once, and is the one that counts.
    let container = agent(&done, "worker-1").container.clone().unwrap();
    stage.docker(&["kill", &container]).ok();
    let again = stage.until("it is back", |view| {
        let worker = agent(view, "worker-1");
        worker.restarts == agent(&done, "worker-1").restarts + 1 && worker.state == "idle"
    });
    assert_eq!(agent(&again, "worker-1").tasks_done, 5);
    stage.down();
    stage.nothing_is_left();
}

fn every_task_was_done_once(stage: &Stage, done: &FleetView) {
    assert_eq!(agent(done, "worker-1").tasks_done as usize, GATES.len());
    let log = stage
        .git(&stage.remote(), &["log", "--format=%s", "main"])
        .ok();
    let mut commits: BTreeMap<&str, usize> = BTreeMap::new();
    for subject in log.lines().filter(|line| line.starts_with("work ")) {
        *commits.entry(subject).or_default() += 1;
    }
    assert_eq!(commits.len(), GATES.len(), "{log}");
    for (subject, count) in commits {
        assert_eq!(count, 1, "{subject}");
        assert_eq!(stage.runs_of(subject.trim_start_matches("work ")), 1);
    }
}
