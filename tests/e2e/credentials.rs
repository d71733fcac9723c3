//! The pool on the real thing: limits met and avoided, logins renewed and refused, while the same
//! Claude Code process goes on with the same conversation.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use orchestrator::model::Timestamp;
use orchestrator::model::view::{AgentView, FleetView};
use orchestrator::testing::scripted_model::{Answered, Failure};
use serde_json::{Value, json};

use crate::support::stage::{SECRET, agent};
use crate::support::{Setup, Stage, eventually};

const MINUTE: i64 = 60_000;
const FAR: Timestamp = Timestamp(i64::MAX);

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

fn later(seconds: i64) -> Timestamp {
    Timestamp(now().0 + seconds * 1000)
}

/// A token whose last six characters are this one.
fn token(end: char) -> String {
    format!("{SECRET}-{}", String::from(end).repeat(6))
}

fn end(letter: char) -> String {
    String::from(letter).repeat(6)
}

fn login(letter: char) -> Value {
    json!({"claudeAiOauth": {
        "accessToken": token(letter), "scopes": ["user:inference", "user:profile"],
    }})
}

/// A plan for which Claude Code opens no dialog at a limit.
fn max_login(letter: char) -> Value {
    let mut login = login(letter);
    login["claudeAiOauth"]["subscriptionType"] = json!("max");
    login["claudeAiOauth"]["rateLimitTier"] = json!("default_claude_max_20x");
    login
}

fn gates(names: &[&str]) -> Vec<u8> {
    let items = names
        .iter()
        .map(|name| format!("- [ ] go through gate {name}\n"));
    format!("# Worker 1\n\n{}", items.collect::<String>()).into_bytes()
}

fn stage(gates_of: &[&str], environment: Value) -> Stage {
    let stage = Stage::set(Setup {
        files: vec![("WORKER_1_TASK_LIST.md", gates(gates_of))],
        ..Setup::default()
    });
    let mut environment = environment;
    environment["ANTHROPIC_BASE_URL"] = json!(format!("http://{}", stage.model().address));
    stage.configure("environment", environment);
    stage
}

fn worker(view: &FleetView) -> &AgentView {
    agent(view, "worker-1")
}

fn credential_of(view: &FleetView) -> String {
    worker(view).credential.as_ref().unwrap().to_string()
}

fn state_of(stage: &Stage, name: &str) -> Value {
    let report = stage.run(&["credentials", "--json"]).json();
    assert_eq!(report["running"], true);
    let all = report["credentials"].as_array().unwrap();
    let found = all.iter().find(|one| one["id"] == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {report}"))
        .clone()
}

/// One line in each of so many files: every task was done, and once.
fn each_task_was_done_once(stage: &Stage, tasks: usize) {
    let listed = stage.git(
        &stage.remote(),
        &["ls-tree", "--name-only", "main", "work/"],
    );
    let files = listed.ok();
    assert_eq!(files.lines().count(), tasks, "{files}");
    for file in files.lines() {
        let text = stage.on_remote(file).unwrap();
        assert_eq!(text.lines().count(), 1, "{file}: {text}");
    }
}

/// The same life of the same conversation.
fn is_the_same(before: &FleetView, after: &FleetView) {
    let (before, after) = (worker(before), worker(after));
    assert_eq!(before.incarnation, after.incarnation);
    assert_eq!(before.container, after.container);
    assert_eq!(before.session, after.session);
    assert_eq!(after.restarts, 0);
}

/// In nothing but the places that exist to hold it.
fn no_secret_is_seen(stage: &Stage) {
    for file in files_below(&stage.state()) {
        let shown = file.display().to_string();
        let meant = ["/managed/", "/credentials/", "/state/credentials"];
        if meant.iter().any(|part| shown.contains(part)) {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap_or_default();
        let found = bytes
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes());
        assert!(!found, "a secret is in {shown}");
    }
    for agent in stage.view().agents {
        let inspected = stage.docker(&["inspect", &agent.container.unwrap()]).ok();
        assert!(!inspected.contains(SECRET));
    }
    for args in [
        &["status", "--json"][..],
        &["credentials", "--json"],
        &["credentials"],
        &["doctor", "--json"],
    ] {
        assert!(!stage.run(args).to_string().contains(SECRET), "{args:?}");
    }
}

fn files_below(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else {
        return found;
    };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

#[test]
fn a_spent_login_is_exchanged_in_the_middle_of_a_turn_and_when_all_are_spent_the_fleet_waits() {
    let stage = stage(&["one", "two"], json!({}));
    stage.remove_credential("first");
    stage.write_credential("a", &login('a'));
    stage.write_credential("b", &max_login('b'));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "one");
    let before = stage.view();
    let first = credential_of(&before);
    let (has, other) = if first == "a" { ('a', 'b') } else { ('b', 'a') };

    let reset = later(3600);
    let limit = Failure::usage_limit("five_hour", reset.0 / 1000);
    stage.provider.fails(&end(has), limit, FAR);
    stage.open_gate("worker-1", "one");
    stage.until_at_gate("worker-1", "two");
    let after = stage.view();
    is_the_same(&before, &after);
    assert_eq!(credential_of(&after), other.to_string());
    let spent = state_of(&stage, &first);
    assert_eq!(spent["state"], "spent", "{spent}");
    let until = spent["until"].as_i64().unwrap();
    assert!((until - reset.0).abs() <= MINUTE, "{spent}");

    // The other one as well, for some seconds.
    let reset = later(20);
    let limit = Failure::usage_limit("five_hour", reset.0 / 1000);
    stage.provider.fails(&end(other), limit, reset);
    stage.open_gate("worker-1", "two");
    let parked = stage.until("the worker waits for the reset", |view| {
        worker(view).state == "limited" && worker(view).until.is_some()
    });
    let until = worker(&parked).until.unwrap();
    assert!(until.0 >= now().0 - 1000, "{parked:#?}");
    let table = stage.run(&["status"]).ok();
    assert!(table.contains("limited until"), "{table}");
    assert_eq!(state_of(&stage, &other.to_string())["state"], "spent");
    let pid = stage.pid();
    stage.signal("-KILL", &pid);
    stage.until_gone(&pid);
    stage.up();
    let done = stage.until_done(2);
    is_the_same(&before, &done);
    assert!(now() >= reset, "it went on before the limit was over");
    each_task_was_done_once(&stage, 2);
    no_secret_is_seen(&stage);
    stage.down();
}

#[test]
fn a_key_at_its_limit_is_exchanged_for_another() {
    let stage = stage(&["one"], json!({"CLAUDE_CODE_MAX_RETRIES": "1"}));
    let key = |letter| json!({"env": {"ANTHROPIC_API_KEY": token(letter)}});
    stage.remove_credential("first");
    stage.write_credential("k", &key('k'));
    stage.write_credential("m", &key('m'));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "one");
    let before = stage.view();
    let has = credential_of(&before);
    let letter = has.chars().next().unwrap();
    let message = "This request would exceed your account's rate limit. Please try again later.";
    let limit = Failure::new(429, "rate_limit_error", message);
    stage.provider.fails(&end(letter), limit, FAR);
    stage.open_gate("worker-1", "one");
    let done = stage.until_done(1);
    is_the_same(&before, &done);
    assert_ne!(credential_of(&done), has);
    // Nothing told when its limit ends.
    let cooling = state_of(&stage, &has);
    assert_eq!(cooling["state"], "cooling", "{cooling}");
    // The retries of one request, and not one more on that key.
    let refused = stage
        .model()
        .requests()
        .into_iter()
        .filter(|request| request.credential == end(letter))
        .filter(|request| request.answered == Answered::Error { status: 429 })
        .count();
    assert!(refused <= 3, "{refused} requests on a key that is spent");
    each_task_was_done_once(&stage, 1);
    no_secret_is_seen(&stage);
    stage.down();
}

/// Answers every renewal with a login that ends in `n`, and keeps the requests.
fn token_server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let mut bytes = Vec::new();
            let mut part = [0; 4096];
            while !bytes.ends_with(b"}") {
                match stream.read(&mut part) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => bytes.extend_from_slice(&part[..length]),
                }
            }
            kept.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&bytes).into_owned());
            let body = json!({
                "access_token": token('n'), "refresh_token": format!("{SECRET}-refresh-2"),
                "expires_in": 28800, "scope": "user:inference user:profile",
            })
            .to_string();
            let _sent = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, requests)
}

#[test]
fn a_login_is_renewed_before_use_a_dead_one_set_aside_and_one_near_its_limit_left_in_time() {
    let stage = stage(&["one", "two"], json!({}));
    let (url, renewals) = token_server();
    stage.configure("credentials", json!({"tokenUrl": url}));
    stage.remove_credential("first");
    let mut expired = max_login('x');
    expired["claudeAiOauth"]["expiresAt"] = json!(now().0 - MINUTE);
    expired["claudeAiOauth"]["refreshToken"] = json!(format!("{SECRET}-refresh-1"));
    stage.write_credential("old", &expired);
    stage.write_credential("dead", &max_login('d'));
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "one");
    eventually("the expired login is renewed", || {
        let renewed = state_of(&stage, "old");
        (renewed["expires_at"].as_i64().unwrap_or_default() > now().0).then_some(())
    });
    assert_eq!(renewals.lock().unwrap().len(), 1);
    assert!(renewals.lock().unwrap()[0].contains("-refresh-1"));
    let users = std::fs::read_to_string(stage.config().join("credentials/old.json")).unwrap();
    assert_eq!(users, expired.to_string(), "the user's file stays");

    let before = stage.view();
    let has = credential_of(&before);
    if has == "dead" {
        stage
            .provider
            .fails(&end('d'), Failure::unauthorized(), FAR);
    }
    stage.open_gate("worker-1", "one");
    stage.until_at_gate("worker-1", "two");
    let after = stage.view();
    is_the_same(&before, &after);
    assert_eq!(has, "dead", "the manager has the other one");
    assert_eq!(credential_of(&after), "old");
    let dead = state_of(&stage, "dead");
    assert_eq!(dead["state"], "refused", "{dead}");
    assert!(
        after
            .notices
            .iter()
            .any(|notice| notice.text.contains("dead")),
        "{:#?}",
        after.notices
    );
    let container = worker(&after).container.clone().unwrap();
    let inside = "/run/orchestrator/credentials/.credentials.json";
    let login = stage.docker(&["exec", &container, "cat", inside]).ok();
    assert!(login.contains(&token('n')), "the renewed token is lent");
    assert!(!login.contains("refresh"), "{login}");

    // A new file is used at once; what nears its limit is left without a failed request.
    stage.write_credential("spare", &max_login('s'));
    eventually("the new credential is in the pool", || {
        let report = stage.run(&["credentials", "--json"]).json();
        let all = report["credentials"].as_array().unwrap().clone();
        all.iter().any(|one| one["id"] == "spare").then_some(())
    });
    let failures = || {
        let all = stage.model().requests();
        let failed = |answered: &Answered| matches!(answered, Answered::Error { .. });
        all.iter().filter(|one| failed(&one.answered)).count()
    };
    let failed = failures();
    stage.provider.used(&end('n'), "0.96", later(3600));
    stage.open_gate("worker-1", "two");
    let done = stage.until("the worker was moved to the spare one", |view| {
        credential_of(view) == "spare"
    });
    is_the_same(&before, &done);
    let done = stage.until_done(2);
    is_the_same(&before, &done);
    assert_eq!(failures(), failed, "no request failed for it");
    assert_eq!(renewals.lock().unwrap().len(), 1);
    each_task_was_done_once(&stage, 2);
    no_secret_is_seen(&stage);
    stage.down();
}
