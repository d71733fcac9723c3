//! `chaos`, a short run with a fixed seed: faults on the real thing, and nothing lost or done twice.

use serde_json::Value;

use crate::support::{Ran, Setup, Stage};

/// What goes through the supervisor, the engine, tmux and the disk once each.
const FAULTS: &str = "supervisor,container,tmux,disk";

#[test]
fn a_short_run_of_faults_loses_nothing_and_does_nothing_twice() {
    let stage = Stage::set(Setup::default());
    let temporary = stage.root().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = stage.command(&["chaos", "--json", "--seed", "5", "--rounds", "4"]);
    let ran = Ran::of(
        command
            .args(["--workers", "2", "--faults", FAULTS])
            .env("TMPDIR", &temporary)
            .env_remove("ORCHESTRATOR_CONFIG"),
    );
    let (_, rest) = ran.stderr.split_once("--project ").unwrap();
    let project: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
    let report: Value = ran.json();
    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!(report["seed"], 5);
    let happened = report["happened"].as_array().unwrap();
    assert!(happened.len() >= 4, "{report:#}");
    assert!(
        happened
            .iter()
            .all(|one| one["recovered_seconds"].is_number()),
        "{report:#}"
    );
    // Every kind comes before any comes twice; without root there is no small disk.
    let left_out = report["left_out"].as_array().unwrap().len();
    assert_eq!(
        report["faults"].as_array().unwrap().len() + left_out,
        4,
        "{report:#}"
    );
    assert!(report["errands"].as_u64().unwrap() >= 4, "{report:#}");
    for none in ["lost", "doubled", "violations"] {
        assert_eq!(report[none].as_array().unwrap().len(), 0, "{report:#}");
    }
    let notes = &report["notes"];
    let count = |what: &str| notes[what].as_u64().unwrap();
    assert!(count("notes") >= 4 && count("looks") >= 4, "{notes:#}");
    assert_eq!(notes["lost"].as_array().unwrap().len(), 0, "{notes:#}");
    let found = [
        "in_the_branch",
        "in_other_commits",
        "in_snapshots",
        "in_checkouts",
    ];
    assert_eq!(
        found.map(count).iter().sum::<u64>(),
        count("notes"),
        "{notes:#}"
    );
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let label = format!("label=dev.orchestrator.project={project}");
    assert_eq!(stage.docker(&["ps", "-aq", "--filter", &label]).ok(), "");
}

#[test]
fn faults_that_cannot_be_made_here_are_named_and_nothing_is_started() {
    let stage = Stage::set(Setup::default());
    let ran = stage.run(&["chaos", "--faults", "engine"]);
    assert_ne!(ran.code, 0, "{ran}");
    ran.says(&["left out: engine", "--own-engine", "none of these faults"]);
    let ran = stage.run(&["chaos", "--faults", "flood"]);
    ran.ended(orchestrator::cli::Exit::Usage)
        .says(&["no such fault", "supervisor"]);
}
