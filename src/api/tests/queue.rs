//! The queue as claimants outside of the fleet have it, over HTTP.

use std::sync::Mutex;

use super::*;
use crate::coordination::Queue;
use crate::daemon::{SystemEntropy, TaskDoor};
use crate::model::draft::{TaskChange, TaskDraft};
use crate::model::{AgentId, TaskId, TaskStatus, Timestamp};
use crate::ports::{Clock, ErrorKind};
use crate::testing::memory_store::{Fault, MemoryStore};

/// Stands still until it is moved.
struct Stopped(Mutex<Timestamp>);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct WithQueue {
    served: Served,
    queue: Queue,
    store: MemoryStore,
    clock: Arc<Stopped>,
}

impl WithQueue {
    async fn start() -> Self {
        let store = MemoryStore::new();
        let queue = Queue::open(Arc::new(store.clone())).await.unwrap();
        let clock = Arc::new(Stopped(Mutex::new(Timestamp(0))));
        let served = Served::start().await;
        served.control.serve_queue(Arc::new(TaskDoor {
            queue: queue.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            agents: vec![AgentId::manager(), AgentId::worker(1)],
            lease: Duration::from_secs(60),
            attempts: 2,
        }));
        Self {
            served,
            queue,
            store,
            clock,
        }
    }

    fn advance(&self, by: Duration) {
        let mut now = self.clock.0.lock().unwrap();
        *now = *now + by;
    }

    async fn post(&self, path: &str, body: Value) -> Response {
        let request = self
            .served
            .request(Method::POST, &format!("/api/v1/{path}"));
        request.json(&body).send().await.unwrap()
    }

    /// The task as the answer tells it.
    async fn ok(&self, path: &str, body: Value) -> Value {
        let response = self.post(path, body).await;
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }
}

#[tokio::test]
async fn tasks_are_created_one_by_one_and_together() {
    let with = WithQueue::start().await;
    let response = with
        .post(
            "tasks",
            json!({ "description": "write a JWT utility", "priority": 1,
            "labels": ["auth"], "context": { "files": ["src/a.rs"], "hints": "use zod" } }),
        )
        .await;
    assert_eq!(response.status(), 201);
    let place = response.headers()["location"].to_str().unwrap().to_owned();
    let made: Value = response.json().await.unwrap();
    let id = made["task"]["id"].as_str().unwrap();
    assert_eq!(place, format!("/api/v1/tasks/{id}"));
    let task = with.queue.get(&id.into()).unwrap();
    assert_eq!((task.priority, task.status), (1, TaskStatus::Available));
    assert_eq!(task.context.hints.as_deref(), Some("use zod"));

    let two = json!({ "tasks": [
        { "id": "b", "description": "second", "dependencies": ["a", id] },
        { "id": "a", "description": "first", "owner": "worker-1", "scope": ["src/**"] },
    ]});
    let made = with.ok("tasks", two).await;
    let states: Vec<(&str, &str)> = made["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| {
            (
                task["task"]["id"].as_str().unwrap(),
                task["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(states, [("a", "available"), ("b", "waiting")]);
}

#[tokio::test]
async fn what_cannot_be_a_task_is_refused_and_nothing_of_it_is_made() {
    let with = WithQueue::start().await;
    with.ok("tasks", json!({ "id": "a", "description": "there" }))
        .await;
    let task = |more: Value| {
        let mut task = json!({ "id": "new", "description": "x" });
        for (key, value) in more.as_object().unwrap() {
            task[key] = value.clone();
        }
        task
    };
    for (body, status, code) in [
        (task(json!({ "id": "a" })), 409, "TASK_EXISTS"),
        (task(json!({ "description": " " })), 422, "INVALID_TASK"),
        (task(json!({ "id": "a/b" })), 422, "INVALID_TASK"),
        (
            task(json!({ "dependencies": ["new"] })),
            422,
            "DEPENDENCY_CYCLE",
        ),
        (
            task(json!({ "dependencies": ["nobody"] })),
            422,
            "UNKNOWN_DEPENDENCY",
        ),
        (task(json!({ "owner": "worker-9" })), 422, "UNKNOWN_AGENT"),
        (
            json!({ "tasks": [
                task(json!({})), { "id": "x", "description": "x", "dependencies": ["y"] },
                { "id": "y", "description": "y", "dependencies": ["x"] },
            ]}),
            422,
            "DEPENDENCY_CYCLE",
        ),
        (json!({ "tasks": [] }), 422, "INVALID_TASK"),
        (task(json!({ "prio": 1 })), 400, "BAD_REQUEST"),
        (
            task(json!({ "context": { "file": [] } })),
            400,
            "BAD_REQUEST",
        ),
        (json!([]), 400, "BAD_REQUEST"),
    ] {
        let said = body.to_string();
        let response = with.post("tasks", body).await;
        assert_eq!(problem(response, status).await, code, "{said}");
    }
    assert_eq!(with.queue.all().len(), 1);
    let large = json!({ "description": "x".repeat(2 * 1024 * 1024) });
    assert_eq!(
        problem(with.post("tasks", large).await, 413).await,
        "TOO_LARGE"
    );
    with.store.fail_append(Fault::Error(ErrorKind::Transient));
    let response = with.post("tasks", task(json!({}))).await;
    assert_eq!(problem(response, 503).await, "NOT_STORED");
}

#[tokio::test]
async fn a_claim_is_renewed_and_completed_by_whoever_has_it() {
    let with = WithQueue::start().await;
    with.ok("tasks", json!({ "id": "a", "description": "x" }))
        .await;
    let mine = json!({ "agent": "terminal-2" });
    for _ in 0..2 {
        let claimed = with.ok("tasks/a/claim", mine.clone()).await;
        assert_eq!(
            claimed["task"]["claim"]["fence"], 1,
            "a repeat finds its own"
        );
        assert_eq!(claimed["task"]["claim"]["lease_until"], 60_000);
    }
    let other = with
        .post("tasks/a/claim", json!({ "agent": "terminal-3" }))
        .await;
    assert_eq!(problem(other, 409).await, "TASK_CLAIMED");
    with.advance(Duration::from_secs(30));
    let renewed = json!({ "agent": "terminal-2", "fence": 1, "lease": 120 });
    let renewed = with.ok("tasks/a/renew", renewed).await;
    assert_eq!(renewed["task"]["claim"]["lease_until"], 150_000);
    // The number alone is not enough.
    let theirs = json!({ "agent": "terminal-3", "fence": 1 });
    for verb in ["complete", "release", "fail", "renew"] {
        let response = with.post(&format!("tasks/a/{verb}"), theirs.clone()).await;
        assert_eq!(problem(response, 409).await, "TASK_CLAIMED", "{verb}");
    }
    let done = json!({ "agent": "terminal-2", "fence": 1, "result": "it works" });
    for _ in 0..2 {
        let done = with.ok("tasks/a/complete", done.clone()).await;
        assert_eq!(done["state"], "done");
        assert_eq!(done["task"]["result"], "it works");
    }
    let again = with.post("tasks/a/claim", mine).await;
    assert_eq!(problem(again, 409).await, "TASK_NOT_AVAILABLE");
}

/// Its lease ran out and somebody else has it: whatever it still does is refused, by that name.
#[tokio::test]
async fn a_reclaimed_task_stops_its_old_holder() {
    let with = WithQueue::start().await;
    with.ok("tasks", json!({ "id": "a", "description": "x" }))
        .await;
    with.ok("tasks/a/claim", json!({ "agent": "old", "lease": 1 }))
        .await;
    with.advance(Duration::from_secs(2));
    let claimed = with.ok("tasks/a/claim", json!({ "agent": "new" })).await;
    assert_eq!(claimed["task"]["claim"]["fence"], 2);
    let end = claimed["task"]["history"][0]["end"].as_str();
    assert_eq!(end, Some("lease_ran_out"));
    for verb in ["complete", "renew", "release", "fail"] {
        let response = with
            .post(
                &format!("tasks/a/{verb}"),
                json!({ "agent": "old", "fence": 1 }),
            )
            .await;
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (status.as_u16(), &body["code"]),
            (409, &json!("TASK_CLAIMED")),
            "{verb}"
        );
        assert!(
            body["detail"].as_str().unwrap().contains("claimed by new"),
            "{body}"
        );
    }
    let done = json!({ "agent": "new", "fence": 2 });
    assert_eq!(with.ok("tasks/a/complete", done).await["state"], "done");
    let late = json!({ "agent": "old", "fence": 1 });
    let response = with.post("tasks/a/complete", late).await;
    assert_eq!(problem(response, 409).await, "TASK_FENCED");
}

#[tokio::test]
async fn a_failure_is_tried_again_until_the_attempts_are_used_up() {
    let with = WithQueue::start().await;
    with.ok("tasks", json!({ "id": "a", "description": "x" }))
        .await;
    for (fence, state) in [(1, "available"), (2, "failed")] {
        with.ok("tasks/a/claim", json!({ "agent": "t" })).await;
        let failed = json!({ "agent": "t", "fence": fence, "cause": "does not compile" });
        for _ in 0..2 {
            let failed = with.ok("tasks/a/fail", failed.clone()).await;
            assert_eq!(failed["state"], state);
            let history = failed["task"]["history"].as_array().unwrap();
            assert_eq!(history.len(), fence, "a repeat is no further attempt");
        }
    }
    with.ok("tasks", json!({ "id": "b", "description": "x" }))
        .await;
    with.ok("tasks/b/claim", json!({ "agent": "t" })).await;
    let back = json!({ "agent": "t", "fence": 1 });
    assert_eq!(with.ok("tasks/b/release", back).await["state"], "available");
}

#[tokio::test]
async fn the_fleets_own_agents_do_not_claim_by_this_door() {
    let with = WithQueue::start().await;
    with.ok("tasks", json!({ "tasks": [
        { "id": "a", "description": "x" }, { "id": "theirs", "description": "x", "owner": "worker-1" },
    ]})).await;
    for (path, body, status, code) in [
        (
            "tasks/a/claim",
            json!({ "agent": "worker-1" }),
            409,
            "AGENT_OF_FLEET",
        ),
        (
            "tasks/a/claim",
            json!({ "agent": "worker-77" }),
            409,
            "AGENT_OF_FLEET",
        ),
        (
            "tasks/a/claim",
            json!({ "agent": "manager" }),
            409,
            "AGENT_OF_FLEET",
        ),
        ("tasks/a/claim", json!({ "agent": "" }), 422, "INVALID_TASK"),
        (
            "tasks/a/claim",
            json!({ "agent": "A B" }),
            422,
            "INVALID_TASK",
        ),
        (
            "tasks/a/claim",
            json!({ "agent": "t", "lease": 0 }),
            422,
            "INVALID_TASK",
        ),
        (
            "tasks/a/claim",
            json!({ "agent": "t", "lease": 90_000 }),
            422,
            "INVALID_TASK",
        ),
        ("tasks/a/claim", json!({}), 400, "BAD_REQUEST"),
        (
            "tasks/a/complete",
            json!({ "agent": "t" }),
            400,
            "BAD_REQUEST",
        ),
        (
            "tasks/a/complete",
            json!({ "agent": "t", "fence": 1 }),
            409,
            "TASK_FENCED",
        ),
        (
            "tasks/no/claim",
            json!({ "agent": "t" }),
            404,
            "UNKNOWN_TASK",
        ),
        (
            "tasks/theirs/claim",
            json!({ "agent": "t" }),
            409,
            "TASK_NOT_YOURS",
        ),
    ] {
        let said = body.to_string();
        assert_eq!(
            problem(with.post(path, body).await, status).await,
            code,
            "{path} {said}"
        );
    }
}

#[tokio::test]
async fn the_client_says_the_same() {
    let with = WithQueue::start().await;
    let url = format!("http://{}", with.served.address);
    let client = crate::client::Client::http(&url, Some("sesame".into())).unwrap();
    let draft = |id: &str, dependencies: &[&str]| TaskDraft {
        id: Some(id.into()),
        description: "x".into(),
        dependencies: dependencies.iter().map(|id| TaskId::new(*id)).collect(),
        ..TaskDraft::default()
    };
    let made = client
        .create_tasks(&[draft("b", &["a"]), draft("a", &[])])
        .await
        .unwrap();
    assert_eq!(made.len(), 2);
    let agent = AgentId::new("t");
    let (cause, id) = ("because".to_owned(), TaskId::new("a"));
    let lease = Some(Duration::from_secs(5));
    for (change, status) in [
        (
            TaskChange::Claim {
                agent: agent.clone(),
                lease,
            },
            TaskStatus::Claimed,
        ),
        (
            TaskChange::Renew {
                agent: agent.clone(),
                fence: 1,
                lease,
            },
            TaskStatus::Claimed,
        ),
        (
            TaskChange::Release {
                agent: agent.clone(),
                fence: 1,
                cause: cause.clone(),
            },
            TaskStatus::Available,
        ),
        (
            TaskChange::Claim {
                agent: agent.clone(),
                lease: None,
            },
            TaskStatus::Claimed,
        ),
        (
            TaskChange::Fail {
                agent: agent.clone(),
                fence: 2,
                cause,
            },
            TaskStatus::Available,
        ),
        (
            TaskChange::Claim {
                agent: agent.clone(),
                lease,
            },
            TaskStatus::Claimed,
        ),
        (
            TaskChange::Complete {
                agent: agent.clone(),
                fence: 3,
                result: "ok".into(),
            },
            TaskStatus::Done,
        ),
    ] {
        let report = client.change_task(&id, &change).await.unwrap();
        assert_eq!(report.task.status, status, "{change:?}");
    }
    let late = TaskChange::Complete {
        agent,
        fence: 2,
        result: String::new(),
    };
    let refused = client.change_task(&id, &late).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.code.as_deref()),
        (ErrorKind::Refused, Some("TASK_FENCED"))
    );
}
