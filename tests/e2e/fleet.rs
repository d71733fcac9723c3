//! A small fleet: what people see of it, and what its instances are given.

use serde_json::Value;

use crate::support::stage::{SECRET, agent};
use crate::support::{Ran, Setup, Stage, eventually};

const LIST: &str = "# Worker 1\n\n- [ ] write the first thing\n";

#[test]
fn a_fleet_comes_up_straight_at_work_and_shows_all_it_does() {
    let stage = Stage::set(Setup {
        workers: 2,
        files: vec![("WORKER_1_TASK_LIST.md", LIST.into())],
        ..Setup::default()
    });
    stage.up_and_ready();
    let view = stage.until_done(1);
    assert_eq!(view.phase, "running");
    assert_eq!(view.branch, "main");
    assert_eq!(view.agents.len(), 3);
    for agent in &view.agents {
        assert_eq!(agent.state, "idle", "{agent:?}");
        assert_eq!(agent.incarnation.0, 1, "{agent:?}");
        assert_eq!(agent.branch, agent.id.as_str());
        assert!(
            agent.session.is_some() && agent.container.is_some(),
            "{agent:?}"
        );
        assert_eq!(agent.credential.as_ref().unwrap().as_str(), "first");
        assert!(agent.since.0 > 0 && !agent.reason.is_empty(), "{agent:?}");
        assert_eq!(agent.restarts, 0);
    }
    let worker = agent(&view, "worker-1");
    assert_eq!((worker.tasks_done, worker.turns), (1, 1));
    assert_eq!(worker.last_hook.as_deref(), Some("Stop"));
    assert_eq!(worker.task_list.as_deref(), Some("WORKER_1_TASK_LIST.md"));
    // From the status line, which is drawn a moment after the turn.
    stage.until("the usage of the turn is shown", |view| {
        let worker = agent(view, "worker-1");
        let usage = &worker.usage;
        usage.input_tokens > 0
            && usage.output_tokens > 0
            && usage.cost_usd > 0.0
            && usage.context_used_percent.is_some()
            && worker.model.is_some()
    });
    shows_it_to_people(&stage);
    the_instances_are_as_promised(&stage);
    stage.down();
    stage.nothing_is_left();
}

fn shows_it_to_people(stage: &Stage) {
    let table = stage.run(&["status"]).ok();
    for word in ["manager", "worker-1", "worker-2", "idle", "first"] {
        assert!(table.contains(word), "{table}");
    }
    let origin = stage.run(&["config", "show", "--origin"]).ok();
    for word in ["workerCount", "orchestrator.json", "default"] {
        assert!(origin.contains(word), "{origin}");
    }
    let log = stage.run(&["logs", "worker-1"]).ok();
    assert!(
        log.contains("write the first thing") || log.contains("Stop"),
        "{log}"
    );
    let supervisor = stage.run(&["logs", "supervisor"]).ok();
    for line in supervisor.lines() {
        let _: Value = serde_json::from_str(line).unwrap();
    }
    assert!(!supervisor.contains(SECRET) && !log.contains(SECRET));
    stage
        .run(&["attach", "worker-9"])
        .ended(orchestrator::cli::Exit::NotFound)
        .says(&["worker-2"]);
    for name in ["manager", "worker-1", "worker-2"] {
        let target = format!("={name}:");
        eventually(&format!("the pane of {name} shows its prompt"), || {
            let pane = stage.tmux(&["capture-pane", "-p", "-t", &target]).stdout;
            let dialogs = [
                "Do you trust",
                "Choose the text style",
                "Do you want to use",
                "Yes, I accept",
            ];
            assert!(
                !dialogs.iter().any(|dialog| pane.contains(dialog)),
                "{pane}"
            );
            (pane.contains('❯') && pane.contains("bypass permissions")).then_some(())
        });
    }
}

fn the_instances_are_as_promised(stage: &Stage) {
    for agent in stage.view().agents {
        let container = agent.container.unwrap();
        let inspected = stage.docker(&["inspect", &container]).ok();
        assert!(
            !inspected.contains(SECRET),
            "a secret is in `docker inspect` of {container}"
        );
        let ran: Ran = stage.docker(&["exec", &container, "cat", "/proc/1/environ"]);
        let outside: Value = serde_json::from_str(&inspected).unwrap();
        let environment = outside[0]["Config"]["Env"].as_array().unwrap();
        let has = |wanted: &str| environment.iter().any(|pair| pair == wanted);
        assert!(!ran.ok().contains(SECRET));
        let number = agent.id.worker_number().map_or(0, |n| n);
        assert!(has("TOTAL_WORKERS=2"), "{environment:?}");
        if number > 0 {
            assert!(has(&format!("WORKER_ID={number}")), "{environment:?}");
        }
        let names = |name: &str| {
            environment
                .iter()
                .any(|pair| pair.as_str().is_some_and(|pair| pair.starts_with(name)))
        };
        for name in [
            "ORCHESTRATOR_ROLE=",
            "ORCHESTRATOR_BRANCH=",
            "ORCHESTRATOR_CALLBACK",
        ] {
            assert!(names(name), "{name} is not in {environment:?}");
        }
    }
}
