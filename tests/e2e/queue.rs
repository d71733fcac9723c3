//! The queue from outside: tasks by command, dependencies, sessions that are no agents of the fleet,
//! and the state's file while all of that goes on.

use std::time::Duration;

use orchestrator::client::Client;
use orchestrator::model::draft::TaskChange;
use orchestrator::model::{AgentId, TaskId};
use orchestrator::ports::ErrorKind;
use serde_json::Value;

use crate::support::{Setup, Stage, eventually};

#[track_caller]
fn shown(stage: &Stage, id: &str) -> Value {
    stage.run(&["task", "show", id, "--json"]).json()
}

#[track_caller]
fn until_is(stage: &Stage, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), || {
        (shown(stage, id)["state"] == state).then_some(())
    });
}

#[test]
fn tasks_by_command_wait_for_each_other_and_a_session_outside_loses_what_it_does_not_renew() {
    let stage = Stage::set(Setup::default());
    stage.up_and_ready();
    stage
        .run(&["task", "create", "go through gate held", "--id", "first"])
        .ok();
    stage.until_at_gate("worker-1", "held");
    stage
        .run(&[
            "task",
            "create",
            "do the second",
            "--id",
            "second",
            "-d",
            "first",
        ])
        .ok();
    assert_eq!(shown(&stage, "second")["state"], "waiting");
    stage
        .run(&["task", "create", "by hand", "--id", "third", "-d", "second"])
        .ok();
    // Before all others, but its worker is busy: whoever comes may have it.
    stage
        .run(&["task", "create", "for anybody", "--id", "free", "-p", "-5"])
        .ok();

    let tokio = tokio::runtime::Runtime::new().unwrap();
    let client = Client::unix(&stage.state().join("control.sock")).unwrap();
    let task = TaskId::new("free");
    let change = |change: TaskChange| tokio.block_on(client.change_task(&task, &change));
    let claim = |name: &str, seconds: u64| {
        change(TaskChange::Claim {
            agent: AgentId::new(name),
            lease: Some(Duration::from_secs(seconds)),
        })
    };
    let complete = |name: &str, fence: u64| {
        change(TaskChange::Complete {
            agent: AgentId::new(name),
            fence,
            result: format!("{name} did it"),
        })
    };
    let first = claim("terminal-2", 1).unwrap().task.claim.unwrap();
    let second = eventually("its lease is over", || claim("terminal-3", 600).ok());
    let second = second.task.claim.unwrap();
    assert!(second.fence > first.fence, "{second:?}");
    let late = complete("terminal-2", first.fence).unwrap_err();
    assert_eq!(
        (late.kind, late.code.as_deref()),
        (ErrorKind::Refused, Some("TASK_CLAIMED"))
    );
    assert!(late.message.contains("terminal-3"), "{}", late.message);
    complete("terminal-3", second.fence).unwrap();
    assert_eq!(shown(&stage, "free")["task"]["result"], "terminal-3 did it");

    let copy = stage.root().join("copy.db").display().to_string();
    stage.run(&["state", "backup", &copy]).ok();
    stage.open_gate("worker-1", "held");
    for id in ["first", "second", "third"] {
        until_is(&stage, id, "done");
        eventually("its work is pushed", || {
            (stage.runs_of(id) == 1).then_some(())
        });
    }
    let at = |id: &str, field: &str| {
        shown(&stage, id)["task"]["history"][0][field]
            .as_i64()
            .unwrap()
    };
    assert!(
        at("second", "began") >= at("first", "ended"),
        "one after the other"
    );
    let whole = stage.run(&["state", "check", "--json"]).json();
    assert_eq!(whole["ok"], true, "{whole}");

    // Back to how it was when the copy was made; what was there is kept.
    stage.down();
    let restored = stage.run(&["state", "restore", &copy, "--json"]).json();
    assert!(
        restored["replaced"]
            .as_str()
            .unwrap()
            .contains("state.db.replaced-1"),
        "{restored}"
    );
    stage.up();
    assert_eq!(shown(&stage, "free")["state"], "done");
    assert_eq!(shown(&stage, "third")["state"], "waiting");
    stage.down();
}
