//! What an agent has not committed is there afterwards, byte for byte: after a restart, a killed
//! container, a stop, and when its worker is removed.

use std::path::{Path, PathBuf};

use orchestrator::cli::Exit;
use serde_json::{Value, json};

use crate::support::stage::agent;
use crate::support::{Setup, Stage, eventually};

/// In the agent's container, as its user.
#[track_caller]
fn inside(stage: &Stage, name: &str, script: &str) {
    let view = stage.view();
    let container = agent(&view, name).container.clone().unwrap();
    let words = ["exec", "-w", "/workspace", &container, "sh", "-ec", script];
    stage.docker(&words).ok();
}

#[track_caller]
fn copies(stage: &Stage, name: &str) -> Vec<Value> {
    let all = stage.run(&["rescue", "list", name, "--json"]).json();
    all.as_array().unwrap().clone()
}

/// The newest copy of this cause, once there is one that was taken after `earlier` others.
#[track_caller]
fn newest(stage: &Stage, name: &str, cause: &str) -> Value {
    eventually(&format!("a copy {cause}"), || {
        let all = copies(stage, name);
        all.first().filter(|copy| copy["cause"] == cause).cloned()
    })
}

/// Written out by the command, into a directory of its own.
#[track_caller]
fn restored(stage: &Stage, copy: &Value) -> PathBuf {
    let id = copy["id"].as_str().unwrap();
    let said = stage.run(&["rescue", "restore", id]).ok();
    let directory = stage.root().join(format!("rescue-{id}"));
    assert!(said.contains(directory.to_str().unwrap()), "{said}");
    directory
}

#[track_caller]
fn same_bytes(stage: &Stage, name: &str, restored: &Path, files: &[&str]) {
    for file in files {
        let there = std::fs::read(stage.checkout(name).join(file)).unwrap();
        let back = std::fs::read(restored.join("worktree").join(file)).unwrap();
        assert!(there == back, "{file} is not as it was");
    }
}

#[test]
fn uncommitted_work_outlives_a_restart_a_kill_and_a_stop() {
    let list = b"- [ ] go through gate kept and on\n".to_vec();
    let stage = Stage::set(Setup {
        files: vec![("WORKER_1_TASK_LIST.md", list)],
        config: json!({"rescue": {"interval": "10s"}}),
        ..Setup::default()
    });
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "kept");
    inside(
        &stage,
        "worker-1",
        "printf 'as staged\\n' > both.txt && git add both.txt && printf 'then changed\\n' > both.txt
         printf 'more\\n' >> README.md
         mkdir 'new dir' && head -c 100000 /dev/urandom > 'new dir/blob.bin'
         ln -s nowhere link",
    );
    let files = ["both.txt", "README.md", "new dir/blob.bin"];

    // While it works, without anybody asking. What is there when its commits are taken at the start is
    // copied then, so that only what comes later is sure to be first seen at an interval.
    eventually("a copy", || copies(&stage, "worker-1").first().map(drop));
    inside(&stage, "worker-1", "printf later > later.txt");
    let copy = newest(&stage, "worker-1", "at an interval");
    let back = restored(&stage, &copy);
    same_bytes(&stage, "worker-1", &back, &files);
    let staged = std::fs::read(back.join("index/both.txt")).unwrap();
    assert_eq!(staged, b"as staged\n");
    let link = std::fs::read_link(back.join("worktree/link")).unwrap();
    assert_eq!(link, Path::new("nowhere"));
    let kept = agent(&stage.view(), "worker-1").kept.clone();
    assert_eq!(kept.last.unwrap().id, copy["id"].as_str().unwrap());

    inside(&stage, "worker-1", "printf two > two.txt");
    stage.run(&["restart", "worker-1"]).ok();
    stage.until("it is back", |view| {
        let worker = agent(view, "worker-1");
        worker.restarts == 1 && worker.state == "working"
    });
    let stopped = copies(&stage, "worker-1");
    let stopped = stopped.iter().find(|copy| copy["cause"] == "before a stop");
    let back = restored(&stage, stopped.unwrap());
    same_bytes(&stage, "worker-1", &back, &files);
    same_bytes(&stage, "worker-1", &back, &["two.txt"]);

    inside(&stage, "worker-1", "printf asked > asked.txt");
    stage.run(&["rescue", "now"]).says(&["worker-1: "]).ok();
    let copy = copies(&stage, "worker-1")[0].clone();
    assert_eq!(copy["cause"], "asked for");
    same_bytes(&stage, "worker-1", &restored(&stage, &copy), &["asked.txt"]);

    inside(&stage, "worker-1", "printf three > three.txt");
    let view = stage.view();
    let container = agent(&view, "worker-1").container.clone().unwrap();
    stage.docker(&["kill", "-s", "KILL", &container]).ok();
    stage.until("it is back again", |view| {
        let worker = agent(view, "worker-1");
        worker.restarts == 2 && worker.state == "working"
    });
    let all = copies(&stage, "worker-1");
    let died = all.iter().find(|copy| {
        let shown = stage.run(&["rescue", "show", copy["id"].as_str().unwrap()]);
        shown.ok().contains("three.txt")
    });
    same_bytes(
        &stage,
        "worker-1",
        &restored(&stage, died.unwrap()),
        &["three.txt"],
    );

    inside(&stage, "worker-1", "printf four > four.txt");
    stage.down();
    // Nobody runs any more, and everything can be had all the same.
    let copy = copies(&stage, "worker-1")[0].clone();
    assert_eq!(copy["cause"], "before a stop");
    let back = restored(&stage, &copy);
    same_bytes(&stage, "worker-1", &back, &files);
    same_bytes(
        &stage,
        "worker-1",
        &back,
        &["two.txt", "three.txt", "four.txt"],
    );
    let id = copy["id"].as_str().unwrap();
    let again = stage.run(&["rescue", "restore", id]).ended(Exit::Refused);
    again.says(&["is there already", "--into"]);
    let shown = stage.run(&["rescue", "show", &id[..6], "--diff"]).ok();
    assert!(shown.contains("+then changed"), "{shown}");
    std::fs::write(stage.checkout("worker-1").join("five.txt"), "five").unwrap();
    let now = stage.run(&["rescue", "now", "worker-1"]);
    assert_eq!(now.code, 0, "{now}");
    let copy = copies(&stage, "worker-1")[0].clone();
    assert_eq!(copy["cause"], "asked for");
    same_bytes(&stage, "worker-1", &restored(&stage, &copy), &["five.txt"]);
    let nobody = stage.run(&["rescue", "list", "worker-9"]);
    nobody.ended(Exit::NotFound).says(&["worker-1"]);
}

#[test]
fn the_checkout_of_a_removed_worker_is_put_away_and_comes_back() {
    let stage = Stage::set(Setup {
        workers: 2,
        ..Setup::default()
    });
    stage.up_and_ready();
    inside(
        &stage,
        "worker-2",
        "printf work > work.txt && git add work.txt && git commit -q -m 'not told'
         printf draft > draft.txt",
    );
    let head = stage.git(&stage.checkout("worker-2"), &["rev-parse", "HEAD"]);
    let head = head.ok().trim().to_owned();
    let used = stage.run(&["worktree", "cleanup", "worker-2"]);
    used.ended(Exit::Refused).says(&["worker-2", "workerCount"]);
    stage.down();
    stage.set_key("workerCount", json!(1));
    stage.up_and_ready();

    let listed = stage.run(&["worktree", "list", "--json"]).json();
    let of_two = listed.as_array().unwrap();
    let of_two = of_two
        .iter()
        .find(|one| one["agent"] == "worker-2")
        .unwrap();
    assert_eq!(of_two["configured"], false);
    assert!(of_two["bytes"].as_u64().unwrap() > 0);
    let tried = stage
        .run(&["worktree", "cleanup", "--dry-run", "--json"])
        .json();
    assert_eq!(tried[0]["trash"], Value::Null);
    assert!(stage.checkout("worker-2").exists());

    let done = stage.run(&["worktree", "cleanup", "--json"]).json();
    assert_eq!(done.as_array().unwrap().len(), 1, "{done}");
    assert_eq!(done[0]["agent"], "worker-2");
    assert!(!stage.checkout("worker-2").exists());
    assert!(stage.checkout("worker-1").exists());
    let store = stage.state().join("store.git");
    stage.git(&store, &["cat-file", "-e", &head]).ok();
    let copy = copies(&stage, "worker-2")[0].clone();
    let back = restored(&stage, &copy).join("worktree");
    assert_eq!(std::fs::read(back.join("draft.txt")).unwrap(), b"draft");
    assert_eq!(std::fs::read(back.join("work.txt")).unwrap(), b"work");

    let trash = done[0]["trash"].as_str().unwrap();
    let listed = stage.run(&["trash", "list", "--json"]).json();
    assert_eq!(listed[0]["id"], trash);
    stage.run(&["trash", "restore", trash]).ok();
    let draft = stage.checkout("worker-2").join("draft.txt");
    assert_eq!(std::fs::read(&draft).unwrap(), b"draft");
    stage.run(&["worktree", "cleanup", "worker-2"]).ok();
    stage
        .run(&["trash", "empty"])
        .ended(Exit::Refused)
        .says(&["--force"]);
    stage.run(&["trash", "empty", "--force"]).ok();
    let left = stage.run(&["trash", "list", "--json"]).json();
    assert_eq!(left, json!([]));
    assert!(!copies(&stage, "worker-2").is_empty(), "copies stay");
}
