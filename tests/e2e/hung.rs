//! Probe.
use orchestrator::testing::scripted_model::{Condition, Rule, Step};
use serde_json::json;

use crate::support::stage::agent;
use crate::support::{Setup, Stage, eventually, worker_script};

#[test]
fn probe() {
    let mut script = worker_script();
    script.rules.insert(
        0,
        Rule {
            name: "sleeps".into(),
            when: vec![Condition::text("sleep long")],
            steps: vec![
                Step::bash(
                    "[ -e .second ] || { touch .second; sleep 45; }; echo slept",
                    "Sleep",
                ),
                Step::bash(
                    "mkdir -p work; echo ran >> work/slept.txt; git add work; git commit -qm slept",
                    "Work",
                ),
            ],
            finally: "Slept and did it.".into(),
        },
    );
    let stage = Stage::set(Setup {
        scenario: script,
        files: vec![("WORKER_1_TASK_LIST.md", b"- [ ] sleep long\n".to_vec())],
        config: json!({}),
        ..Setup::default()
    });
    stage.up_and_ready();
    eventually("sleeps", || {
        stage
            .checkout("worker-1")
            .join(".second")
            .exists()
            .then_some(())
    });
    let c = agent(&stage.view(), "worker-1").container.clone().unwrap();
    let show = || {
        let s = stage.tmux(&["capture-pane", "-p", "-t", "=worker-1:"]);
        eprintln!(
            "---- {}\n{}",
            chrono(),
            s.stdout
                .lines()
                .filter(|l| !l.is_empty())
                .collect::<Vec<_>>()
                .join("\n")
        );
        eprintln!("{}", stage.docker(&["stats", "--no-stream", &c]).stdout);
        eprintln!("{}", stage.docker(&["exec", &c, "sh", "-c", "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null | head -2; ls -la --time-style=full-iso $HOME/.claude/sessions $HOME/.claude/projects/*; cat $HOME/.claude/sessions/*; ps -eo pid,stat,time,args"]).stdout);
    };
    for _ in 0..4 {
        show();
    }
    eprintln!("==== STOP");
    eprintln!(
        "{}",
        stage.docker(&["exec", &c, "pkill", "-STOP", "-x", "claude"])
    );
    for _ in 0..4 {
        show();
    }
    eprintln!("==== CONT, dialog");
    eprintln!(
        "{}",
        stage.docker(&["exec", &c, "pkill", "-CONT", "-x", "claude"])
    );
    stage.until_done(1);
    show();
    stage.tmux(&["send-keys", "-t", "=worker-1:", "/model", "Enter"]);
    for _ in 0..3 {
        show();
    }
    stage.tmux(&["send-keys", "-t", "=worker-1:", "Escape"]);
    for _ in 0..2 {
        show();
    }
    stage.tmux(&["send-keys", "-t", "=worker-1:", "/exit", "Enter"]);
    stage.until("exit seen", |v| agent(v, "worker-1").restarts == 1);
    eprintln!("{}", stage.run(&["logs", "worker-1"]).stdout);
}
fn chrono() -> String {
    format!("{:?}", std::time::SystemTime::now())
}
