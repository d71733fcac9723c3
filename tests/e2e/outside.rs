//! Hooks of a session outside our containers, with nothing but `curl` and the token.

use std::process::Command;

use serde_json::Value;

use crate::support::stage::agent;
use crate::support::{Ran, Setup, Stage};

/// Status code and body.
fn post(stage: &Stage, who: &str, token: &str, id: &str, body: &str) -> (String, String) {
    let url = format!("http://{}/hooks/v1/agents/{who}/callback", stage.address());
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--max-time",
        "20",
        "--noproxy",
        "*",
        "--data-binary",
        body,
    ])
    .args(["--header", &format!("authorization: Bearer {token}")])
    .args(["--header", "content-type: application/json"])
    .args(["--header", &format!("x-callback-id: {id}")])
    .args(["--write-out", "\n%{http_code}", &url]);
    let said = Ran::of(&mut curl).ok();
    let (body, code) = said.rsplit_once('\n').unwrap();
    (code.to_owned(), body.to_owned())
}

#[test]
fn a_session_outside_posts_its_hooks_with_the_token() {
    let stage = Stage::set(Setup::default());
    let before = stage.up_and_ready();
    let turns = agent(&before, "worker-1").turns;
    let token = std::fs::read_to_string(stage.state().join("token")).unwrap();
    let stop = r#"{"hook_event_name":"Stop","session_id":"0f0e0d0c-0000-4000-8000-000000000001",
        "stop_hook_active":false,"last_assistant_message":"from outside","background_tasks":[]}"#;

    let (code, body) = post(
        &stage,
        "worker-1",
        "0123456789abcdef0123456789abcdef",
        "one",
        stop,
    );
    assert_eq!(code, "401", "{body}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert!(
        problem["code"].is_string() && problem["detail"].is_string(),
        "{body}"
    );
    let (code, body) = post(&stage, "worker-9", &token, "two", stop);
    assert!(code == "401" || code == "404", "{code} {body}");
    let (code, body) = post(&stage, "worker-1", &token, "three", "not json");
    assert_eq!(code, "400", "{body}");
    assert_eq!(agent(&stage.view(), "worker-1").turns, turns);

    let first = post(&stage, "worker-1", &token, "four", stop);
    assert!(first.0 == "204" || first.0 == "200", "{first:?}");
    let again = post(&stage, "worker-1", &token, "four", stop);
    assert_eq!(again, first, "the same answer");
    let view = stage.until("the turn is counted", |view| {
        agent(view, "worker-1").turns > turns
    });
    assert_eq!(agent(&view, "worker-1").turns, turns + 1, "counted once");

    // Nothing waits, so nothing is handed over; then something does.
    let list = stage.checkout("manager").join("WORKER_1_TASK_LIST.md");
    std::fs::write(list, "- [ ] after the visit\n").unwrap();
    stage.until_done(1);
    assert_eq!(agent(&stage.view(), "worker-1").turns, turns + 2);
}
