//! `drift` on the version everything was observed on, and on images in which something is changed;
//! and the check at each start, where everything is as it should be.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use orchestrator::config::keys::CLAUDE_VERSION;
use orchestrator::ports::Runtime as _;
use orchestrator::runtime::docker::DockerRuntime;
use orchestrator::runtime::docker::image::bundled_image;
use serde_json::Value;

use crate::support::{Ran, Setup, Stage};

fn drift(stage: &Stage, args: &[&str]) -> Ran {
    let temporary = stage.root().join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = stage.command(&["drift", "--json"]);
    let ran = Ran::of(command.args(args).env("TMPDIR", &temporary));
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "{ran}");
    let left = stage.docker(&["ps", "-aq", "--filter", "name=orchestrator-drift-"]);
    assert_eq!(left.ok(), "", "containers are left");
    ran
}

fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

/// `(id, outcome, what was seen)` of each observation.
fn outcomes(report: &Value) -> Vec<(&str, &str, &str)> {
    let rows = report["observations"].as_array().unwrap().iter();
    rows.map(|row| {
        let word = |key: &str| row[key].as_str().unwrap();
        (word("id"), word("outcome"), word("seen"))
    })
    .collect()
}

#[test]
fn every_observation_holds_on_the_version_it_was_made_on() {
    let stage = Stage::set(Setup::default());
    let ran = drift(&stage, &[]);
    let report = report(&ran);
    let others: Vec<_> = outcomes(&report)
        .into_iter()
        .filter(|(_, outcome, _)| *outcome != "holds")
        .collect();
    assert_eq!(others, [], "{ran}");
    assert_eq!(ran.code, 0, "{ran}");
    assert!(report["holds"].as_u64().unwrap() >= 50, "{report:#}");
    assert_eq!(report["claude_version"], CLAUDE_VERSION);
    let versions = report["observations"].as_array().unwrap().iter();
    let versions = versions.filter(|row| row["id"] == "start.version");
    assert!(versions.clone().count() == 1);
    for row in versions {
        assert!(
            row["seen"].as_str().unwrap().contains(CLAUDE_VERSION),
            "{row}"
        );
    }
}

/// The bundled image with something in front of its `claude`; taken away at the end.
struct Changed(String);

impl Changed {
    fn image(stage: &Stage, lines: &str) -> Self {
        let uid = bundled_uid(stage.root());
        let wanted = bundled_image(CLAUDE_VERSION, uid);
        let tokio = tokio::runtime::Runtime::new().unwrap();
        tokio.block_on(async {
            let docker = DockerRuntime::connect(None).await.unwrap();
            docker.ensure_image(&wanted, &|_| {}).await.unwrap();
        });
        let tag = format!("orchestrator-e2e-changed:{}", stage.project);
        let script = format!("#!/bin/sh\\n{lines}\\nexec /usr/local/bin/claude-itself \"$@\"\\n");
        let dockerfile = format!(
            "FROM {}\nUSER root\nRUN mv /usr/local/bin/claude /usr/local/bin/claude-itself \
             && printf '{script}' >/usr/local/bin/claude && chmod 755 /usr/local/bin/claude\nUSER agent\n",
            wanted.tag
        );
        let mut build = Command::new("docker")
            .args(["build", "-q", "-t", &tag, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = build.stdin.take().unwrap();
        stdin.write_all(dockerfile.as_bytes()).unwrap();
        drop(stdin);
        assert!(build.wait().unwrap().success());
        Self(tag)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = Ran::of(Command::new("docker").args(["rmi", "-f", &self.0]));
    }
}

/// Who owns what this test makes: root's agents run as 1000.
fn bundled_uid(mine: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    match std::fs::metadata(mine).unwrap().uid() {
        0 => 1000,
        own => own,
    }
}

#[test]
fn a_claude_that_does_not_go_on_by_itself_is_found_and_nothing_else() {
    let stage = Stage::set(Setup::default());
    let changed = Changed::image(&stage, "unset CLAUDE_CODE_RESUME_INTERRUPTED_TURN");
    let ran = drift(&stage, &["--image", &changed.0, "--only", "resume"]);
    let report = report(&ran);
    let found = outcomes(&report);
    let by_id = |id: &str| found.iter().find(|row| row.0 == id).unwrap();
    assert_eq!(by_id("resume.goes-on").1, "differs", "{ran}");
    assert!(by_id("resume.goes-on").2.contains("not asked"), "{ran}");
    assert_eq!(by_id("resume.prompt-again").1, "differs", "{ran}");
    assert_eq!(by_id("resume.session").1, "holds", "{ran}");
    assert_eq!(by_id("resume.rests").1, "holds", "{ran}");
    assert_eq!(ran.code, 1, "{ran}");
    assert!(
        ran.stderr.contains("is not what orchestrator knows"),
        "{ran}"
    );
}

#[test]
fn another_first_screen_is_found_and_what_lies_behind_it_is_not_said_to_hold() {
    let stage = Stage::set(Setup::default());
    // Again and again, as what redraws itself when somebody looks.
    let greeting = r#"while sleep 1; do echo "Something new. Press Enter to continue"; done"#;
    let changed = Changed::image(&stage, greeting);
    let ran = drift(
        &stage,
        &["--image", &changed.0, "--only", "start", "--only", "stop"],
    );
    let report = report(&ran);
    let found = outcomes(&report);
    let (_, outcome, seen) = found.iter().find(|row| row.0 == "start.prompt").unwrap();
    assert_eq!(*outcome, "differs", "{ran}");
    assert!(seen.contains("Something new"), "{seen}");
    let behind = found.iter().filter(|row| row.0 != "start.prompt");
    for (id, outcome, seen) in behind {
        assert_eq!(*outcome, "untried", "{id}: {seen}");
        assert!(seen.contains("it did not come up"), "{id}: {seen}");
    }
    assert_eq!(report["holds"], 0);
    assert_eq!(ran.code, 1, "{ran}");
}

#[test]
fn a_start_that_is_as_known_is_checked_and_says_nothing() {
    let stage = Stage::set(Setup::default());
    stage.up();
    let view = stage.until("every agent's start was checked", |view| {
        view.agents.iter().all(|agent| {
            let signals = &agent.signals;
            [&signals.hooks, &signals.screen, &signals.session_file]
                .iter()
                .all(|word| *word == "good")
        })
    });
    for agent in &view.agents {
        assert_eq!(
            agent.signals.claude_version.as_deref(),
            Some(CLAUDE_VERSION)
        );
    }
    assert!(view.notices.is_empty(), "{:#?}", view.notices);
    stage.down();
}
