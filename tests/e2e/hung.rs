//! An agent that stands still is noticed and goes on; one that is only quiet is left alone; and
//! `explain` says which of the two it is.

use orchestrator::cli::Exit;
use orchestrator::model::explain::{Explanation, Signal};
use orchestrator::testing::scripted_model::{Condition, Pattern, Rule, Scenario, Step};
use serde_json::json;

use crate::support::stage::agent;
use crate::support::{Setup, Stage, eventually, worker_script};

/// Longer than `restart.hungAfter` below: what is only quiet must not be taken for hung.
const QUIET_SECONDS: u32 = 16;

/// `sleep NAME` is quiet for a while, the first time it is tried: the tool uses no CPU.
fn sleepers() -> Scenario {
    let mut script = worker_script();
    let sleep = format!(
        "[ -e .slept-{{{{name}}}} ] || {{ touch .slept-{{{{name}}}}; sleep {QUIET_SECONDS}; }}; echo slept"
    );
    let work = "mkdir -p work; echo ran >> work/{{name}}.txt; git add work; git commit -qm 'work {{name}}'";
    let rule = Rule {
        name: "sleeps".into(),
        when: vec![Condition::Text(Pattern::new("sleep {name:word}").unwrap())],
        steps: vec![Step::bash(&sleep, "Sleep"), Step::bash(work, "Work")],
        finally: "Slept and did it.".into(),
    };
    script.rules.insert(0, rule);
    script
}

pub fn explain(stage: &Stage, name: &str) -> Explanation {
    let text = stage.run(&["explain", name, "--history", "--json"]).ok();
    serde_json::from_str(&text).unwrap()
}

fn sleeps(stage: &Stage, name: &str) {
    let begun = stage.checkout("worker-1").join(format!(".slept-{name}"));
    eventually("the quiet tool runs", || begun.exists().then_some(()));
}

#[test]
fn a_process_that_stands_still_is_restarted_and_a_quiet_one_is_not() {
    let stage = Stage::set(Setup {
        scenario: sleepers(),
        files: vec![
            (".gitignore", b".gate-*\n.slept-*\n".to_vec()),
            ("WORKER_1_TASK_LIST.md", b"- [ ] sleep first\n".to_vec()),
        ],
        config: json!({"restart": {"hungAfter": "6s", "backoff": "500ms"}}),
        ..Setup::default()
    });
    stage.up_and_ready();
    sleeps(&stage, "first");
    let before = stage.view();
    let worker = agent(&before, "worker-1");
    let container = worker.container.clone().unwrap();
    stage
        .docker(&["exec", &container, "pkill", "-STOP", "-x", "claude"])
        .ok();
    let back = stage.until("it is back", |view| agent(view, "worker-1").restarts == 1);
    assert_eq!(agent(&back, "worker-1").session, worker.session);
    let done = stage.until_done(1);
    assert_eq!(agent(&done, "worker-1").restarts, 1);
    assert_eq!(stage.on_remote("work/first.txt").as_deref(), Some("ran\n"));
    let why = explain(&stage, "worker-1");
    let hung = why
        .history
        .iter()
        .find(|change| change.reason.starts_with("hung: for "))
        .unwrap_or_else(|| panic!("{:#?}", why.history));
    assert_eq!(hung.to, "stopping");
    assert_eq!((hung.incarnation, why.crashes), (worker.incarnation, 1));
    assert!(done.notices.iter().any(|n| n.text.starts_with("hung: ")));

    // The same silence of a living one, and somebody who pauses its container.
    let list = stage.checkout("manager").join("WORKER_1_TASK_LIST.md");
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, format!("{text}- [ ] sleep second\n")).unwrap();
    sleeps(&stage, "second");
    let why = explain(&stage, "worker-1");
    assert_eq!(why.state, "working");
    for view in &why.signals {
        assert!(view.fact.is_some(), "nothing said: {:?}", view.signal);
    }
    assert!(why.ahead.iter().any(|ahead| ahead.at.is_some()), "{why:#?}");
    let busy = &why.signals[Signal::ALL
        .iter()
        .position(|s| *s == Signal::SessionFile)
        .unwrap()];
    assert_eq!(busy.fact.as_ref().unwrap().said, "busy");
    let view = stage.view();
    let container = agent(&view, "worker-1").container.clone().unwrap();
    stage.docker(&["pause", &container]).ok();
    stage.until("a person is told of the pause", |view| {
        view.notices.iter().any(|n| n.text.contains("is paused"))
    });
    stage.docker(&["unpause", &container]).ok();
    let done = stage.until_done(2);
    let worker = agent(&done, "worker-1");
    assert_eq!(worker.restarts, 1, "quiet is not hung: {}", worker.reason);
    assert_eq!(worker.container.as_ref(), Some(&container));
    assert_eq!(stage.on_remote("work/second.txt").as_deref(), Some("ran\n"));

    let text = stage
        .run(&["explain", "manager", "--history", "-n", "3"])
        .ok();
    for word in [
        "manager: idle since",
        "SIGNAL",
        "what would change it",
        "history",
    ] {
        assert!(text.contains(word), "no `{word}` in:\n{text}");
    }
    stage
        .run(&["explain", "worker-7"])
        .ended(Exit::NotFound)
        .says(&["no agent `worker-7`", "there are: manager, worker-1"]);
}
