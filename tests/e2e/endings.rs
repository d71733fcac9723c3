//! Endings and beginnings: killed, detached, stopped, and up again. No work is lost and none is
//! done twice.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};

use orchestrator::model::view::FleetView;
use serde_json::json;

use crate::support::stage::agent;
use crate::support::{LONG, Setup, Stage, eventually};

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
    // The half of a file stays where it is: as a claim, a turn that leaves it would be sent back.
    let stage = Stage::set(Setup {
        config: json!({"tasks": {"proof": "none"}}),
        ..gated("stop")
    });
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

#[test]
fn a_drain_lets_turns_end_and_starts_nothing_new() {
    let stage = Stage::set(gated("drain"));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "drain");
    let (before_ids, pid) = (ids(&stage), stage.pid());
    let mut drain = stage
        .command(&["down", "--drain"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    stage.until("it is draining", |view| view.phase == "draining");
    stage
        .run(&["up", "-d", "--take-over"])
        .ended(orchestrator::cli::Exit::AlreadyRunning)
        .says(&["is draining", "wait until it has ended"]);
    assert!(drain.try_wait().unwrap().is_none(), "the turn goes on");
    stage.open_gate("worker-1", "drain");
    assert!(drain.wait().unwrap().success());
    stage.until_gone(&pid);
    assert_eq!(ids(&stage), before_ids, "the agents are left as they are");
    assert_eq!(stage.turns_about("gate drain").len(), 1);
    assert_eq!(stage.turns_about("the next one").len(), 0, "nothing new");
    stage.up();
    let view = stage.until_done(2);
    assert_eq!(ids(&stage), before_ids);
    nothing_ran_twice(&stage, &view, &["gate drain", "the next one"]);
}

/// A supervisor in the foreground, and what it says on stderr.
struct Foreground {
    child: Child,
    said: Receiver<String>,
}

impl Foreground {
    fn start(stage: &Stage) -> Self {
        let mut child = stage
            .command(&[])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (send, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { child, said }
    }

    fn start_and_wait(stage: &Stage) -> Self {
        let started = Self::start(stage);
        eventually("it is up", || {
            (stage.run(&["status"]).code == 0).then_some(())
        });
        started
    }

    #[track_caller]
    fn says(&self, words: &str) {
        let mut heard = Vec::new();
        loop {
            match self.said.recv_timeout(LONG) {
                Ok(line) if line.contains(words) => return,
                Ok(line) => heard.push(line),
                Err(error) => panic!("it did not say `{words}` ({error}), but: {heard:#?}"),
            }
        }
    }

    fn signal(&self, stage: &Stage, signal: &str) {
        stage.signal(signal, &self.child.id().to_string());
    }

    #[track_caller]
    fn ends_well(mut self) {
        let child = &mut self.child;
        let status = eventually("it ends", || child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

/// The agent does not hear any more that it is asked to stop. Returns its process.
fn deafen(stage: &Stage, name: &str) -> String {
    let container = agent(&stage.view(), name).container.clone().unwrap();
    let inspected = stage
        .docker(&["inspect", "-f", "{{.State.Pid}}", &container])
        .ok();
    let process = inspected.trim().to_owned();
    stage.signal("-STOP", &process);
    process
}

#[test]
fn ctrl_c_stops_and_a_second_one_leaves_the_agents_to_themselves() {
    let stage = Stage::set(gated("ctrl-c"));
    let first = Foreground::start(&stage);
    stage.until_at_gate("worker-1", "ctrl-c");
    let process = deafen(&stage, "worker-1");
    first.signal(&stage, "-INT");
    first.says("Ctrl-C again leaves them running");
    stage.until("it is stopping", |view| view.phase == "stopping");
    first.signal(&stage, "-INT");
    first.says("agents that still run go on");
    first.says("detached");
    first.ends_well();
    // The engine still waits for it, and may have killed it by now.
    let _ = crate::support::Ran::of(std::process::Command::new("kill").args(["-CONT", &process]));
    stage.open_gate("worker-1", "ctrl-c");

    let second = Foreground::start_and_wait(&stage);
    let done = stage.until_done(2);
    assert_eq!(agent(&done, "worker-1").tasks_done, 2);
    assert_eq!(stage.turns_about("the next one").len(), 1);
    second.signal(&stage, "-HUP");
    second.says("detached");
    second.ends_well();
    assert_eq!(
        ids(&stage).lines().count(),
        2,
        "a closed terminal ends no agent"
    );

    let third = Foreground::start_and_wait(&stage);
    stage.until("all are adopted", |view| {
        view.agents.iter().all(|agent| agent.state == "idle")
    });
    // Who does not go within the grace is killed.
    deafen(&stage, "manager");
    third.signal(&stage, "-INT");
    third.says("is stopped; its work and conversations are kept");
    third.ends_well();
    stage.nothing_is_left();
}

#[test]
fn ctrl_c_while_it_starts_ends_the_start() {
    let stage = Stage::set(gated("early"));
    // On the base of the bundled image, which is there; it takes long to build.
    let dockerfile = stage.config().join("Dockerfile");
    std::fs::write(&dockerfile, "FROM debian:bookworm-slim\nRUN sleep 300\n").unwrap();
    stage.configure(&serde_json::json!({"dockerfile": dockerfile}));
    let starting = Foreground::start(&stage);
    starting.says("engine:");
    starting.signal(&stage, "-INT");
    starting.says("ended while it was starting");
    starting.ends_well();
    stage.nothing_is_left();
}
