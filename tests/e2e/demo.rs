//! `demo`, as the first thing anybody runs.

use std::path::Path;

use serde_json::Value;

use crate::support::{Ran, Setup, Stage};

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    let stage = Stage::set(Setup::default());
    let temporary = stage.root().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = stage.command(&["demo", "--json"]);
    let ran = Ran::of(
        command
            .env("TMPDIR", &temporary)
            .env_remove("ORCHESTRATOR_CONFIG"),
    );
    let project = project_of(&ran);
    let report: Value = ran.json();
    assert_eq!(report["ok"], true, "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() >= 13, "{report:#}");
    assert!(checks.iter().all(|check| check["ok"] == true), "{report:#}");
    assert!(report["conflicts"].as_u64().unwrap() > 0);
    assert_eq!(report["conflicts"], report["resolved"]);
    let mishaps = report["mishaps"].as_array().unwrap();
    assert_eq!(mishaps.len(), 3, "{report:#}");
    for mishap in mishaps {
        assert_eq!(mishap["recovered"], true, "{report:#}");
        assert!(mishap["seconds"].as_f64().unwrap() > 0.0, "{report:#}");
    }
    // What was not done when it was said to be: by whom, and why.
    let sent_back = report["sent_back"].as_array().unwrap();
    for (agent, why) in [
        ("worker-3", "gates that did not pass: test"),
        ("worker-1", "no new commit"),
    ] {
        let same = |back: &&Value| back["agent"] == agent && back["why"][0] == why;
        let back = sent_back.iter().find(same);
        assert!(back.is_some_and(|back| back["to"] == agent), "{report:#}");
    }
    let conflict = |back: &Value| back["why"][0] == "conflicts in textstats/report.py";
    assert!(sent_back.iter().any(conflict), "{report:#}");
    assert_eq!(report["gates"][0]["flaky"], 1, "{report:#}");
    assert_eq!(report["gates"][1]["flaky"], 0, "{report:#}");
    assert!(report["gates"][1]["failed"].as_u64().unwrap() > 0);
    let agents = report["agents"].as_array().unwrap();
    assert_eq!(agents.len(), 4);
    assert_eq!(left_in(&temporary), Vec::<String>::new());
    assert_eq!(
        left_in(&stage.root().join("run/orchestrator/running")),
        Vec::<String>::new()
    );
    let label = format!("label=dev.orchestrator.project={project}");
    assert_eq!(stage.docker(&["ps", "-aq", "--filter", &label]).ok(), "");
    assert_eq!(
        stage
            .docker(&[
                "network",
                "ls",
                "-q",
                "--filter",
                &format!("name={project}")
            ])
            .ok(),
        ""
    );
    let socket = format!("orchestrator-{project}");
    let mut tmux = std::process::Command::new("tmux");
    tmux.args(["-L", &socket, "list-sessions"]);
    let server = Ran::of(tmux.env("TMUX_TMPDIR", stage.root().join("tmux")));
    assert_ne!(server.code, 0, "the tmux server is still there: {server}");
}

/// `demo-` and six characters, from the invitation.
fn project_of(ran: &Ran) -> String {
    let (_, rest) = ran.stderr.split_once("--project ").unwrap();
    let name: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
    assert!(name.starts_with("demo-"), "{name}");
    name
}

fn left_in(directory: &Path) -> Vec<String> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files
        .map(|file| file.path().display().to_string())
        .collect()
}
