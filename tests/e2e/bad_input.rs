//! What people get wrong or machines lack: cause, next step, exit code; nothing half done. `doctor`
//! finds each of them beforehand.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use orchestrator::cli::Exit;
use serde_json::{Value, json};

use crate::support::{Ran, Setup, Stage};

impl Stage {
    /// `up` in the foreground and in the background both say why, and leave nothing.
    #[track_caller]
    fn refuses(&self, prepare: &dyn Fn(&mut Command), exit: Exit, words: &[&str]) {
        for args in [&["up"][..], &["up", "-d"]] {
            let mut command = self.command(args);
            prepare(&mut command);
            let ran = Ran::of(&mut command)
                .ended(exit)
                .says(words)
                .says(&["hint: "]);
            assert!(!ran.stderr.contains("panicked"), "{ran}");
            self.nothing_is_left();
        }
        let mut command = self.command(&["status"]);
        prepare(&mut command);
        Ran::of(&mut command).ended(Exit::NotRunning);
    }

    /// The check of this name fails, with a way to mend it.
    #[track_caller]
    fn doctor_finds(&self, prepare: &dyn Fn(&mut Command), name: &str, word: &str) {
        let mut command = self.command(&["doctor", "--json"]);
        prepare(&mut command);
        let ran = Ran::of(&mut command);
        assert_ne!(ran.code, 0, "{ran}");
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let checks = report["checks"]
            .as_array()
            .unwrap_or_else(|| panic!("{report:#}"));
        let found = checks.iter().any(|check| {
            let text = check.to_string();
            check["name"] == name
                && text.contains(word)
                && !check["fix"].is_null()
                && check["outcome"] == "fail"
        });
        assert!(
            found,
            "no failed check `{name}` with `{word}` in {report:#}"
        );
    }
}

fn as_it_is(_: &mut Command) {}

#[test]
fn a_wrong_key_is_named_with_its_line_and_the_nearest_right_one() {
    let stage = Stage::set(Setup::default());
    stage.set_key("wokerCount", json!(3));
    for args in [&["up"][..], &["up", "-d"], &["config", "show"], &["doctor"]] {
        let ran = stage.run(args);
        assert_eq!(ran.code, i32::from(Exit::Usage.code()), "{args:?}: {ran}");
        let all = format!("{}{}", ran.stdout, ran.stderr);
        for word in ["orchestrator.json", "wokerCount", "workerCount"] {
            assert!(all.contains(word), "{args:?}: {ran}");
        }
    }
    assert!(!stage.state().exists());
    stage.nothing_is_left();
}

#[test]
fn a_missing_repository_or_branch_is_named() {
    let stage = Stage::set(Setup::default());
    stage.set_key("branch", json!("nowhere"));
    stage.refuses(&as_it_is, Exit::Prerequisite, &["nowhere"]);
    stage.doctor_finds(&as_it_is, "repository", "nowhere");
    stage.set_key("branch", json!("main"));
    stage.set_key("repositoryUrl", json!(stage.root().join("not-there.git")));
    stage.refuses(&as_it_is, Exit::Prerequisite, &["not-there.git"]);
    stage.doctor_finds(&as_it_is, "repository", "cannot read it");
    // Put right, it starts: nothing of the failed starts is in the way.
    stage.set_key("repositoryUrl", json!(stage.remote()));
    stage.up_and_ready();
    stage.down();
}

#[test]
fn a_dead_credential_is_named_and_no_credential_starts_nothing() {
    let stage = Stage::set(Setup::default());
    let login = json!({"claudeAiOauth": {
        "accessToken": "sk-ant-oat01-dead-dead-dead", "expiresAt": 1_600_000_000_000_i64,
        "scopes": ["user:inference"], "subscriptionType": "pro",
    }});
    stage.write_credential("first", &login);
    stage.refuses(&as_it_is, Exit::Usage, &["first.json"]);
    stage.doctor_finds(&as_it_is, "credentials", "first.json");
    stage.write_credential("first", &json!({"env": {}}));
    stage.refuses(&as_it_is, Exit::Usage, &["first.json"]);
    std::fs::remove_file(stage.config().join("credentials/first.json")).unwrap();
    stage.refuses(&as_it_is, Exit::Usage, &["credentials"]);
    stage.doctor_finds(&as_it_is, "credentials", "credentials");
}

#[test]
fn without_an_engine_or_without_tmux_nothing_starts() {
    let stage = Stage::set(Setup::default());
    let no_engine = |command: &mut Command| {
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    };
    stage.refuses(
        &no_engine,
        Exit::Prerequisite,
        &["/nonexistent/docker.sock"],
    );
    stage.doctor_finds(&no_engine, "container engine", "/nonexistent/docker.sock");
    let path = only_git(&stage);
    let no_tmux = |command: &mut Command| {
        command.env("PATH", &path);
    };
    stage.refuses(&no_tmux, Exit::Prerequisite, &["tmux"]);
    stage.doctor_finds(&no_tmux, "tmux", "install tmux");
}

/// A directory for PATH with git and a shell, and no tmux.
fn only_git(stage: &Stage) -> PathBuf {
    let directory = stage.root().join("bin");
    std::fs::create_dir(&directory).unwrap();
    for name in ["git", "sh"] {
        let found = Ran::of(Command::new("sh").args(["-c", &format!("command -v {name}")])).ok();
        std::os::unix::fs::symlink(found.trim(), directory.join(name)).unwrap();
    }
    directory
}

#[test]
fn a_port_in_use_is_named() {
    let stage = Stage::set(Setup::default());
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    stage.set_key("apiPort", json!(port));
    stage.refuses(
        &as_it_is,
        Exit::Prerequisite,
        &[&port.to_string(), "apiPort"],
    );
    stage.doctor_finds(&as_it_is, "port", &port.to_string());
    drop(taken);
    stage.up_and_ready();
    assert_eq!(stage.address(), format!("127.0.0.1:{port}"));
    stage
        .run(&["up", "-d"])
        .ended(Exit::AlreadyRunning)
        .says(&["running already", "hint: "]);
    stage.down();
}
