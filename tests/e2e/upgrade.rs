//! Another build, another configuration: `up` takes the place of the supervisor that runs, and the
//! agents do not notice.

use std::path::Path;

use orchestrator::cli::Exit;
use serde_json::json;

use super::endings::{containers, gated, ids, nothing_ran_twice};
use crate::support::stage::agent;
use crate::support::{Ran, Stage, eventually};

fn up_with(stage: &Stage, program: &Path, flags: &[&str]) -> Ran {
    let mut args = vec!["up", "-d"];
    args.extend(flags);
    Ran::of(&mut stage.command_of(program, &args))
}

fn program_of(pid: &str) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn another_build_takes_over_while_an_agent_works_and_then_another_configuration() {
    let stage = Stage::set(gated("upgrade"));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "upgrade");
    let (before, before_ids, pid) = (stage.view(), ids(&stage), stage.pid());
    stage
        .run(&["up", "-d"])
        .ended(Exit::AlreadyRunning)
        .says(&["is running already\nhint: see it"]);

    let newer = stage.another_build();
    up_with(&stage, &newer, &["--no-take-over"])
        .ended(Exit::AlreadyRunning)
        .says(&["runs version", "this is version"]);
    assert_eq!(stage.pid(), pid, "it was left alone");
    let took = up_with(&stage, &newer, &[]).ended(Exit::Done);
    took.says(&["runs version", "takes over; the agents work on", "is up"]);
    stage.until_gone(&pid);
    assert_eq!(program_of(&stage.pid()), newer);
    assert_eq!(ids(&stage), before_ids, "the agents run on");
    stage.open_gate("worker-1", "upgrade");
    let after = stage.until_done(2);
    assert_eq!(ids(&stage), before_ids, "adopted, not started again");
    assert_eq!(containers(&after), containers(&before));
    nothing_ran_twice(&stage, &after, &["gate upgrade", "the next one"]);

    another_configuration(&stage, &newer, &before_ids);
    stage.down();
    stage.nothing_is_left();
}

/// One worker more, and more memory for each.
fn another_configuration(stage: &Stage, program: &Path, before_ids: &str) {
    stage.configure(&json!({"workerCount": 2, "container": {"memory": "3GiB"}}));
    let pid = stage.pid();
    let changes = [
        "workerCount: 1 -> 2",
        "container.memory: \"2GiB\" -> \"3GiB\"",
    ];
    up_with(stage, program, &[])
        .ended(Exit::AlreadyRunning)
        .says(&changes)
        .says(&["up --take-over"]);
    assert_eq!(stage.pid(), pid);
    up_with(stage, program, &["--take-over"])
        .ended(Exit::Done)
        .says(&changes);
    let view = stage.until("the new worker is ready", |view| {
        view.agents.len() == 3 && view.agents.iter().all(|agent| agent.state == "idle")
    });
    let now = ids(stage);
    for id in before_ids.split_whitespace() {
        assert!(now.contains(id), "a container was replaced: {now}");
    }
    let told = |notice: &&orchestrator::model::view::Notice| {
        notice.text.contains("earlier settings: manager, worker-1")
    };
    assert!(view.notices.iter().any(|notice| told(&notice)), "{view:?}");
    let memory = |name: &str| {
        let container = agent(&stage.view(), name).container.clone().unwrap();
        stage
            .docker(&["inspect", "-f", "{{.HostConfig.Memory}}", &container])
            .ok()
            .trim()
            .to_owned()
    };
    let (two, three) = ((2_u64 << 30).to_string(), (3_u64 << 30).to_string());
    assert_eq!(
        (memory("worker-1"), memory("worker-2")),
        (two, three.clone())
    );
    stage.run(&["restart", "worker-1"]).ok();
    let restarted = stage.until("it is back", |view| {
        let worker = agent(view, "worker-1");
        worker.incarnation.0 == 2 && worker.state == "idle"
    });
    assert_eq!(
        agent(&restarted, "worker-1").session,
        agent(&view, "worker-1").session
    );
    assert_eq!(memory("worker-1"), three);
    stage.configure(&json!({"repositoryUrl": "/somewhere/else.git"}));
    up_with(stage, program, &["--take-over"])
        .ended(Exit::Refused)
        .says(&["`repositoryUrl` cannot change while agents run"]);
    stage.configure(&json!({"repositoryUrl": stage.remote()}));
    let elsewhere = stage.root().join("elsewhere");
    stage.configure(&json!({"stateDirectory": elsewhere}));
    up_with(stage, program, &["--take-over"])
        .ended(Exit::AlreadyRunning)
        .says(&["with its state in", "end it first"]);
    assert!(!elsewhere.exists());
    stage.configure(&json!({"stateDirectory": stage.state()}));
}

fn sql(stage: &Stage, statement: &str) {
    let connection = rusqlite::Connection::open(stage.state().join("state.db")).unwrap();
    connection.execute_batch(statement).unwrap();
}

#[test]
fn a_program_that_is_too_old_for_the_state_leaves_everything_as_it_is() {
    let stage = Stage::set(gated("old"));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "old");
    let (before_ids, pid) = (ids(&stage), stage.pid());
    // As a program of the future would leave it.
    let writer = r#"{"version": "9.9.9", "format": 99}"#;
    let ours: String = {
        let connection = rusqlite::Connection::open(stage.state().join("state.db")).unwrap();
        connection
            .query_row("SELECT value FROM meta WHERE key = 'writer'", [], |row| {
                row.get(0)
            })
            .unwrap()
    };
    sql(
        &stage,
        &format!("UPDATE meta SET value = '{writer}' WHERE key = 'writer'"),
    );
    let older = stage.another_build();
    up_with(&stage, &older, &[])
        .ended(Exit::Prerequisite)
        .says(&["9.9.9", "format 99", "nothing was changed"]);
    assert_eq!(stage.pid(), pid, "it was not asked to go");
    stage.run(&["down", "--detach"]).ok();
    up_with(&stage, &older, &[])
        .ended(Exit::Prerequisite)
        .says(&["9.9.9", "format 99", "nothing was changed"]);
    sql(
        &stage,
        &format!("UPDATE meta SET value = '{ours}' WHERE key = 'writer'"),
    );
    let schema: i64 = {
        let connection = rusqlite::Connection::open(stage.state().join("state.db")).unwrap();
        connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    };
    sql(&stage, "PRAGMA user_version = 99");
    up_with(&stage, &older, &[])
        .ended(Exit::Prerequisite)
        .says(&["schema version 99", "nothing was changed"]);
    assert_eq!(ids(&stage), before_ids, "the agents run on");
    sql(&stage, &format!("PRAGMA user_version = {schema}"));
    stage.up();
    stage.open_gate("worker-1", "old");
    let view = stage.until_done(2);
    nothing_ran_twice(&stage, &view, &["gate old", "the next one"]);
    assert_eq!(ids(&stage), before_ids);
    eventually("nothing lies in the spool", || {
        let spool = stage.state().join("agents/worker-1/spool");
        (std::fs::read_dir(spool).unwrap().count() == 0).then_some(())
    });
}
