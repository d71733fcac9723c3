//! Too little memory: for a command of the agent's, and for Claude Code itself.

use orchestrator::cli::Exit;
use orchestrator::model::view::{FleetView, Notice};
use orchestrator::testing::scripted_model::{Condition, Rule, Scenario, Step};
use serde_json::{Value, json};

use crate::support::stage::agent;
use crate::support::{Setup, Stage, worker_script};

/// Whom the kernel takes first is made certain, whatever Claude Code needs today: anybody may
/// offer his own processes.
const A_CHILD: &str = "sh -c 'echo 1000 > /proc/self/oom_score_adj; exec tail /dev/zero'; \
     echo \"it ended with $?\"";
/// Takes 700 MB, and offers Claude Code should that be too much.
const CLAUDE_ITSELF: &str = "for task in /proc/[0-9]*; do \
     if [ \"$(cat $task/comm)\" = claude ]; then echo 1000 > $task/oom_score_adj; fi; done; \
     head -c 700m /dev/zero | tail | wc -c";
const WORK: &str =
    "mkdir -p work; echo ran >> work/memory.txt; git add work; git commit -qm memory";

fn hungry(command: &str) -> Scenario {
    let mut script = worker_script();
    let rule = Rule {
        name: "hungry".into(),
        when: vec![Condition::text("something large")],
        steps: vec![
            Step::bash(command, "Take much memory"),
            Step::bash(WORK, "Do the work"),
        ],
        finally: "Did something large.".into(),
    };
    script.rules.insert(0, rule);
    script
}

fn small(command: &str, over: Value) -> Stage {
    let mut config = over;
    config["container"] = json!({"memory": "768MiB", "tmpSize": "64MiB"});
    Stage::set(Setup {
        scenario: hungry(command),
        files: vec![(
            "WORKER_1_TASK_LIST.md",
            b"- [ ] do something large\n".into(),
        )],
        config,
        ..Setup::default()
    })
}

fn about_memory(view: &FleetView) -> Vec<&Notice> {
    let notices = view.notices.iter();
    notices
        .filter(|notice| notice.text.contains("lack of memory"))
        .collect()
}

#[test]
fn a_command_that_takes_too_much_memory_ends_alone_and_is_told_of() {
    let stage = small(A_CHILD, json!({}));
    let before = stage.up_and_ready();
    let after = stage.until_done(1);
    for (before, after) in before.agents.iter().zip(&after.agents) {
        assert_eq!(after.container, before.container, "{}", after.id);
        assert_eq!(after.restarts, 0, "{}", after.id);
    }
    assert_eq!(stage.runs_of("memory"), 1);
    let told = about_memory(&after);
    assert_eq!(told.len(), 1, "{:#?}", after.notices);
    let notice = told[0];
    assert_eq!(notice.agent.as_ref().unwrap().as_str(), "worker-1");
    assert!(notice.text.contains("768MiB"), "{notice:?}");
    assert!(notice.text.contains("the agent goes on"), "{notice:?}");
    let hint = notice.hint.as_deref().unwrap();
    assert!(hint.contains("raise `container.memory`"), "{notice:?}");
    let shown = stage.run(&["status"]).ok();
    assert!(shown.contains("768MiB"), "{shown}");
    stage.down();
}

#[test]
fn an_agent_that_has_too_little_memory_again_and_again_says_what_to_do_and_that_helps() {
    let stage = small(CLAUDE_ITSELF, json!({"restart": {"burst": 1}}));
    stage.up();
    let once = stage.until("it is restarted", |view| {
        agent(view, "worker-1").restarts == 1
    });
    let told = about_memory(&once);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].text.contains("768MiB"), "{told:#?}");

    let failed = stage.until("it is given up", |view| {
        agent(view, "worker-1").state == "failed"
    });
    let reason = &agent(&failed, "worker-1").reason;
    assert!(
        reason.contains("killed for lack of memory (`container.memory` is 768MiB)"),
        "{reason}"
    );
    let told = about_memory(&failed);
    let last = told.iter().find(|notice| notice.text == *reason).unwrap();
    let hint = last.hint.as_deref().unwrap();
    for word in [
        "raise `container.memory`",
        "orchestrator down --detach",
        "orchestrator up -d",
        "orchestrator restart worker-1",
    ] {
        assert!(hint.contains(word), "{hint}");
    }

    // As the hint says.
    stage.set_key("container", json!({"memory": "2GiB"}));
    stage.run(&["down", "--detach"]).ok();
    stage.run(&["status"]).ended(Exit::NotRunning);
    stage.up();
    stage.run(&["restart", "worker-1"]).ok();
    let done = stage.until_done(1);
    assert_eq!(agent(&done, "worker-1").tasks_done, 1);
    assert_eq!(stage.runs_of("memory"), 1);
    stage.down();
    stage.nothing_is_left();
}
