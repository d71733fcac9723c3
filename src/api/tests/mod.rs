//! The API as a program sees it that speaks plain HTTP.

pub(crate) mod fake;
mod queue;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use self::fake::FakeControl;
use super::limits::Limited;
use super::{Access, BindError, Code, bind_tcp, bind_unix, router, serve_tcp, serve_unix};
use crate::control::{ControlError, Ending, Reply, Request};

const LONG: Duration = Duration::from_secs(20);

struct Served {
    control: Arc<FakeControl>,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    http: Client,
}

fn client() -> Client {
    crate::ports::tls::choose_provider();
    Client::builder().no_proxy().timeout(LONG).build().unwrap()
}

impl Served {
    async fn start() -> Self {
        let control = FakeControl::new();
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = router(control.clone(), Access::Token("sesame".into()));
        let task = tokio::spawn(serve_tcp(listener, router, shutdown.clone()));
        let http = client();
        Self {
            control,
            address,
            shutdown,
            task,
            http,
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
            .bearer_auth("sesame")
    }

    async fn send(&self, method: Method, path: &str) -> Response {
        self.request(method, path).send().await.unwrap()
    }
}

/// Checks the shape that every error has, and gives its code.
async fn problem(response: Response, status: u16) -> String {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], status);
    let code = body["code"].as_str().unwrap().to_owned();
    assert_eq!(body["type"], format!("urn:orchestrator:problem:{code}"));
    assert!(!body["title"].as_str().unwrap().is_empty());
    assert!(!body["detail"].as_str().unwrap().is_empty());
    code
}

#[tokio::test]
async fn health_and_status_are_served_under_both_prefixes() {
    let served = Served::start().await;
    for prefix in ["/api/v1", "/api"] {
        let health = served.send(Method::GET, &format!("{prefix}/health")).await;
        let health: Value = health.json().await.unwrap();
        assert_eq!(health["status"], "ok");
        assert_eq!(health["project"], "demo");
        let status = served.send(Method::GET, &format!("{prefix}/status")).await;
        let status: Value = status.json().await.unwrap();
        assert_eq!(status, serde_json::to_value(fake::fleet()).unwrap());
        let about = served.send(Method::GET, &format!("{prefix}/about")).await;
        let about: Value = about.json().await.unwrap();
        assert_eq!(
            (&about["version"], &about["pid"]),
            (&json!("1.2.3"), &json!(42))
        );
    }
}

#[tokio::test]
async fn tasks_come_in_pages_and_one_by_one() {
    let served = Served::start().await;
    let get = async |path: &str| -> Value {
        let response = served.send(Method::GET, path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    };
    let ids = |page: &Value| -> Vec<String> {
        let tasks = page["tasks"].as_array().unwrap().iter();
        tasks
            .map(|task| task["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = get("/api/v1/tasks").await;
    assert_eq!(
        ids(&all),
        ["w1-waits", "w1-fails", "w1-done"],
        "newest first"
    );
    assert_eq!((&all["matching"], &all["next"]), (&json!(3), &json!(null)));
    let line = &all["tasks"][1];
    assert_eq!(
        (&line["status"], &line["attempts"], &line["failures"]),
        (&json!("failed"), &json!(1), &json!(1))
    );
    let first = get("/api/tasks?limit=2&agent=worker-1&label=docs").await;
    assert_eq!((ids(&first).len(), &first["next"]), (2, &json!("w1-fails")));
    let rest = get("/api/tasks?limit=2&after=w1-fails").await;
    assert_eq!(
        (ids(&rest), &rest["next"]),
        (vec!["w1-done".to_owned()], &json!(null))
    );
    let blocked = get("/api/tasks?status=blocked&owner=worker-1").await;
    assert_eq!(ids(&blocked), ["w1-waits"]);
    assert_eq!(ids(&get("/api/tasks?owner=worker-2").await), [""; 0]);

    let one = get("/api/v1/tasks/w1-waits").await;
    assert_eq!(one["state"], "blocked");
    assert_eq!(one["blocked_by"], json!(["w1-fails"]));
    let one = get("/api/v1/tasks/w1-done").await;
    let ends: Vec<&Value> = one["task"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|note| &note["end"])
        .collect();
    assert_eq!(ends, [&json!("crashed"), &json!("done")]);
    let receipt = get("/api/v1/tasks/w1-done/receipt").await;
    assert_eq!(receipt["commit_count"], 1);
}

#[tokio::test]
async fn a_question_about_no_task_names_the_nearest() {
    let served = Served::start().await;
    for (path, status, code) in [
        ("tasks/w1-wait", 404, "UNKNOWN_TASK"),
        ("tasks/w1-wait/receipt", 404, "UNKNOWN_TASK"),
        ("tasks?after=nobody", 404, "UNKNOWN_TASK"),
        ("tasks/w1-fails/receipt", 404, "UNKNOWN_RECEIPT"),
        ("tasks?status=gone", 400, "BAD_REQUEST"),
        ("tasks?limit=0", 400, "BAD_REQUEST"),
        ("tasks?limit=501", 400, "BAD_REQUEST"),
        ("tasks?stat=done", 400, "BAD_REQUEST"),
    ] {
        let response = served.send(Method::GET, &format!("/api/v1/{path}")).await;
        assert_eq!(problem(response, status).await, code, "{path}");
    }
    for path in [
        "/api/v1/tasks/w1-wait/retry",
        "/api/v1/tasks/w1-wait/cancel",
    ] {
        let response = served.send(Method::POST, path).await;
        assert_eq!(problem(response, 404).await, "UNKNOWN_TASK", "{path}");
    }
    assert!(served.control.take_asked().is_empty());
    let response = served.send(Method::GET, "/api/v1/tasks/w1-wait").await;
    let body: Value = response.json().await.unwrap();
    let hint = body["hint"].as_str().unwrap();
    assert!(
        hint.starts_with("the nearest there are: w1-waits"),
        "{hint}"
    );
}

#[tokio::test]
async fn each_request_reaches_the_supervisor_as_itself() {
    let served = Served::start().await;
    let plan = served.send(Method::POST, "/api/v1/plan").await;
    assert_eq!(plan.status(), 202);
    let body: Value = plan.json().await.unwrap();
    assert_eq!(body, json!({"reply": "accepted"}));
    served.send(Method::POST, "/api/fetch").await;
    served
        .send(Method::POST, "/api/v1/agents/worker-2/restart")
        .await;
    served
        .send(Method::POST, "/api/v1/credentials/team.max-1/retry")
        .await;
    for path in ["/api/v1/tasks/w1-fails/retry", "/api/tasks/w1-waits/cancel"] {
        assert_eq!(served.send(Method::POST, path).await.status(), 202);
    }
    let drain = served
        .request(Method::POST, "/api/v1/end")
        .json(&json!({"ending": "drain"}));
    assert_eq!(drain.send().await.unwrap().status(), 202);
    assert_eq!(
        served.control.take_asked(),
        [
            Request::Plan,
            Request::Fetch,
            Request::Restart {
                agent: "worker-2".into()
            },
            Request::RetryCredential {
                credential: "team.max-1".into()
            },
            Request::RetryTask {
                task: "w1-fails".into()
            },
            Request::CancelTask {
                task: "w1-waits".into()
            },
            Request::End {
                ending: Ending::Drain
            },
        ]
    );
    served.control.answer(Ok(Reply::AlreadySo));
    assert_eq!(served.send(Method::POST, "/api/plan").await.status(), 200);
}

#[tokio::test]
async fn an_agent_is_explained_with_as_much_history_as_asked_for() {
    let served = Served::start().await;
    let path = "/api/v1/agents/worker-1/explain";
    let why: Value = served.send(Method::GET, path).await.json().await.unwrap();
    assert_eq!(why, serde_json::to_value(fake::why()).unwrap());
    let short = served.send(Method::GET, &format!("{path}?history=1")).await;
    let short: Value = short.json().await.unwrap();
    assert_eq!(short["history"].as_array().unwrap().len(), 1);
    for (path, status, code) in [
        ("/api/agents/worker-9/explain", 404, "UNKNOWN_AGENT"),
        ("/api/agents/a%20b/explain", 404, "UNKNOWN_AGENT"),
        (
            "/api/agents/worker-1/explain?history=1001",
            400,
            "BAD_REQUEST",
        ),
        (
            "/api/agents/worker-1/explain?history=-1",
            400,
            "BAD_REQUEST",
        ),
        ("/api/agents/worker-1/explain?since=1", 400, "BAD_REQUEST"),
    ] {
        let answer = served.send(Method::GET, path).await;
        assert_eq!(problem(answer, status).await, code, "{path}");
    }
    let posted = served.send(Method::POST, path).await;
    assert_eq!(problem(posted, 405).await, "METHOD_NOT_ALLOWED");
    served.control.answer(Err(ControlError::Late));
    let late = served.send(Method::GET, path).await;
    assert_eq!(problem(late, 504).await, "LATE");
}

#[tokio::test]
async fn gates_are_listed_and_a_run_is_a_stream() {
    let served = Served::start().await;
    let gates = served.send(Method::GET, "/api/v1/gates").await;
    let gates: Value = gates.json().await.unwrap();
    assert_eq!(gates[0]["name"], "test");
    let run = |body: Value| served.request(Method::POST, "/api/gates/run").json(&body);
    let response = run(json!({"commit": "3f2a"})).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|json| serde_json::from_str(json).unwrap())
        .collect();
    assert_eq!(text.matches("event: gate\n").count(), 3, "{text}");
    assert_eq!(events[0], json!({"event": "waiting"}));
    assert_eq!(events[1]["text"], "3f2a\n\u{1b}[31mred\u{1b}[0m\n");
    assert_eq!(events[2], json!({"event": "ended", "not_run": ["other"]}));
    let unknown = run(json!({"gate": "tset"})).send().await.unwrap();
    assert_eq!(problem(unknown, 404).await, "UNKNOWN_GATE");
    let wrong = run(json!({"gates": "test"})).send().await.unwrap();
    assert_eq!(problem(wrong, 400).await, "BAD_REQUEST");
}

#[tokio::test]
async fn the_train_is_the_snapshots() {
    let served = Served::start().await;
    let train = served.send(Method::GET, "/api/v1/train").await;
    let train: Value = train.json().await.unwrap();
    assert_eq!(train, serde_json::to_value(fake::train()).unwrap());
    assert_eq!(
        (&train["state"], &train["bisecting"]),
        (&json!("testing"), &json!(true))
    );
    let status = served.send(Method::GET, "/api/v1/status").await;
    let status: Value = status.json().await.unwrap();
    assert_eq!(status["train"], train);
    let posted = served.send(Method::POST, "/api/v1/train").await;
    assert_eq!(problem(posted, 405).await, "METHOD_NOT_ALLOWED");
}

#[tokio::test]
async fn snapshots_are_listed_shown_taken_and_written_out() {
    let served = Served::start().await;
    let get = |path: &'static str| served.send(Method::GET, path);
    let all: Value = get("/api/v1/rescues").await.json().await.unwrap();
    assert_eq!(all, json!([fake::rescue()]));
    let none: Value = get("/api/rescues?agent=worker-2")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(none, json!([]));
    let one: Value = get("/api/rescues/3f2a").await.json().await.unwrap();
    assert_eq!(
        (&one["files"], &one["agent"]),
        (&json!([]), &json!("worker-1"))
    );
    for (path, status, code) in [
        ("/api/rescues/ffff", 404, "UNKNOWN_RESCUE"),
        ("/api/rescues/..%2F..%2Fetc", 404, "UNKNOWN_RESCUE"),
        ("/api/rescues?since=1", 400, "BAD_REQUEST"),
    ] {
        assert_eq!(problem(get(path).await, status).await, code, "{path}");
    }
    let post = |path: &str, body: Value| served.request(Method::POST, path).json(&body).send();
    let taken = post("/api/v1/rescues", json!({"agent": "worker-1"})).await;
    assert_eq!(taken.unwrap().status(), 202);
    let agent = Some("worker-1".into());
    assert_eq!(served.control.take_asked(), [Request::Rescue { agent }]);
    let path = "/api/v1/rescues/3f2a/restore";
    let written = post(path, json!({"into": "/tmp/new"})).await.unwrap();
    let written: Value = written.json().await.unwrap();
    assert_eq!(written["directory"], "/tmp/new");
    let relative = post(path, json!({"into": "new"})).await.unwrap();
    assert_eq!(problem(relative, 400).await, "BAD_REQUEST");
}

#[tokio::test]
async fn checkouts_are_put_away_as_far_as_was_asked() {
    let served = Served::start().await;
    let all: Value = served
        .send(Method::GET, "/api/v1/worktrees")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(all, json!([]));
    let path = "/api/v1/worktrees/worker-2/cleanup";
    let post = |body: Value| served.request(Method::POST, path).json(&body).send();
    let refused = post(json!({})).await.unwrap();
    assert_eq!(problem(refused, 409).await, "NOT_KEPT");
    let tried: Value = post(json!({"dry_run": true, "force": true}))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&tried["trash"], &tried["only_here"]),
        (&Value::Null, &json!(["file a"]))
    );
    let forced = post(json!({"force": true})).await.unwrap();
    let forced: Value = forced.json().await.unwrap();
    assert_eq!(forced["trash"], "1-checkout");
}

#[tokio::test]
async fn refusals_and_failures_of_the_supervisor_have_their_codes() {
    let served = Served::start().await;
    let denied = |code: &str| {
        Ok(Reply::Denied {
            code: code.into(),
            reason: "because".into(),
            hint: None,
        })
    };
    for (answer, status, code) in [
        (denied("UNKNOWN_AGENT"), 404, "UNKNOWN_AGENT"),
        (denied("ENDING"), 409, "ENDING"),
        (Err(ControlError::Gone), 503, "SHUTTING_DOWN"),
        (Err(ControlError::Late), 504, "LATE"),
        (
            Err(ControlError::NotStored("disk full".into())),
            503,
            "NOT_STORED",
        ),
    ] {
        served.control.answer(answer);
        let response = served.send(Method::POST, "/api/v1/plan").await;
        assert_eq!(problem(response, status).await, code);
    }
    served.control.take_asked();
    let odd = "/api/v1/agents/Worker%20%2F1/restart";
    let response = served.send(Method::POST, odd).await;
    assert_eq!(problem(response, 404).await, "UNKNOWN_AGENT");
    let broken = served
        .send(Method::POST, "/api/v1/agents/%ff/restart")
        .await;
    assert_eq!(problem(broken, 400).await, "BAD_REQUEST");
    assert_eq!(served.control.take_asked(), []);
}

#[tokio::test]
async fn every_wrong_request_is_a_problem_with_a_code() {
    let served = Served::start().await;
    let response = served.send(Method::GET, "/api/v1/nothing").await;
    assert_eq!(problem(response, 404).await, "NOT_FOUND");
    let response = served.send(Method::GET, "/").await;
    assert_eq!(problem(response, 404).await, "NOT_FOUND");
    let response = served.send(Method::DELETE, "/api/v1/status").await;
    assert_eq!(response.headers()["allow"], "GET,HEAD");
    assert_eq!(problem(response, 405).await, "METHOD_NOT_ALLOWED");
    let end = |body: &str| {
        served
            .request(Method::POST, "/api/v1/end")
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
    };
    for (body, status, code) in [
        ("{", 400, "BAD_JSON"),
        ("", 400, "BAD_JSON"),
        ("{\"ending\":\"explode\"}", 400, "BAD_REQUEST"),
        ("{\"ending\":\"stop\",\"more\":1}", 400, "BAD_REQUEST"),
        ("{}", 400, "BAD_REQUEST"),
        (&"x".repeat(100_000), 413, "TOO_LARGE"),
    ] {
        assert_eq!(problem(end(body).await.unwrap(), status).await, code);
    }
    let plain = served.request(Method::POST, "/api/v1/end").body("{}");
    let response = plain.send().await.unwrap();
    assert_eq!(problem(response, 415).await, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(served.control.take_asked(), []);
}

#[tokio::test]
async fn without_the_token_only_health_answers() {
    let served = Served::start().await;
    let url = |path: &str| format!("http://{}{path}", served.address);
    let health = served.http.get(url("/api/v1/health")).send().await.unwrap();
    assert_eq!(health.status(), 200);
    for token in [None, Some("sesam"), Some("sesamesesame"), Some("")] {
        let mut request = served.http.post(url("/api/v1/plan"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(problem(response, 401).await, "UNAUTHORIZED");
    }
    assert_eq!(served.control.take_asked(), []);
}

#[tokio::test]
async fn an_empty_token_lets_nobody_in() {
    let control = FakeControl::new();
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(control, Access::Token(String::new()));
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve_tcp(listener, router, shutdown.clone()));
    let http = client();
    let request = http.get(format!("http://{address}/api/status"));
    let response = request.bearer_auth("").send().await.unwrap();
    assert_eq!(problem(response, 401).await, "UNAUTHORIZED");
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_stream_has_ids_and_ends_with_the_server() {
    let served = Served::start().await;
    let mut stream = served.send(Method::GET, "/api/v1/status/stream").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut read_until = async |stream: &mut Response, wanted: &str| {
        while !text.contains(wanted) {
            let chunk = tokio::time::timeout(LONG, stream.chunk()).await.unwrap();
            text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        }
    };
    read_until(
        &mut stream,
        "event: status\nid: 7\ndata: {\"generation\":7,",
    )
    .await;
    served.control.publish(8);
    read_until(&mut stream, "id: 8\n").await;
    read_until(&mut stream, "}\n\n").await;
    served.shutdown.cancel();
    let rest = tokio::time::timeout(LONG, async {
        while stream.chunk().await.unwrap().is_some() {}
    });
    rest.await.unwrap();
    tokio::time::timeout(LONG, served.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_said_with_the_next_step() {
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = bind_tcp(address).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{address} is in use by another program")
    );
    assert!(error.hint().contains("set `apiPort` to another one"));
}

#[tokio::test]
async fn the_socket_is_private_replaces_a_dead_one_and_refuses_a_living_one() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run/control.sock");
    let socket = bind_unix(&path).await.unwrap();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let second = bind_unix(&path).await.unwrap_err();
    assert!(
        matches!(second, BindError::AlreadyRunning { .. }),
        "{second}"
    );
    drop(socket);
    assert!(!path.exists(), "the file goes with the socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead supervisor left its socket");
    drop(bind_unix(&path).await.unwrap());
    std::fs::write(&path, "precious").unwrap();
    let error = bind_unix(&path).await.unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn an_open_directory_and_a_long_path_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let open = root.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = bind_unix(&open.join("s")).await.unwrap_err();
    assert_eq!(error.hint(), format!("chmod 700 {}", open.display()));
    let long = root.path().join("x".repeat(120)).join("s");
    let error = bind_unix(&long).await.unwrap_err();
    assert!(matches!(error, BindError::PathTooLong { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_ends_removes_its_socket() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run/control.sock");
    let shutdown = CancellationToken::new();
    let socket = bind_unix(&path).await.unwrap();
    let router = router(FakeControl::new(), Access::Local);
    let task = tokio::spawn(serve_unix(socket, router, shutdown.clone()));
    shutdown.cancel();
    tokio::time::timeout(LONG, task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn no_more_than_so_many_connections_are_served_and_silent_ones_are_cut() {
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let router = router(FakeControl::new(), Access::Local);
    let limited = Limited::with(listener, 1, Duration::from_millis(300));
    let task = tokio::spawn(super::serve::serve(limited, router, shutdown.clone()));
    // The only place is taken by one that says nothing; the second is served once that one is cut.
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /api/v1/hea").await.unwrap();
    let http = client();
    let health = http.get(format!("http://{address}/api/v1/health"));
    assert_eq!(health.send().await.unwrap().status(), 200);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LONG, silent.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the silent connection was not cut");
    shutdown.cancel();
    tokio::time::timeout(LONG, task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[test]
fn codes_are_unique() {
    let mut names = Code::ALL.map(Code::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Code::ALL.len());
}
