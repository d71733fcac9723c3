//! Client and API together, over a real socket and a real port.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::{Client, Done, Ending};
use crate::api::tests::fake::{FakeControl, fleet};
use crate::api::{Access, bind_tcp, bind_unix, router, serve_tcp, serve_unix};
use crate::control::{ControlError, Reply, Request};
use crate::model::AgentId;
use crate::ports::ErrorKind;

const LONG: Duration = Duration::from_secs(20);

struct Served {
    control: Arc<FakeControl>,
    socket: PathBuf,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    _root: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("run/control.sock");
        let control = FakeControl::new();
        let shutdown = CancellationToken::new();
        let listener = bind_unix(&socket).await.unwrap();
        let router = router(control.clone(), Access::Local);
        Self {
            control,
            socket,
            task: tokio::spawn(serve_unix(listener, router, shutdown.clone())),
            shutdown,
            _root: root,
        }
    }
}

#[tokio::test]
async fn everything_goes_around_over_the_socket() {
    let served = Served::start().await;
    let client = Client::unix(&served.socket).unwrap();
    let health = client.health().await.unwrap();
    assert_eq!((health.project.as_str(), health.generation), ("demo", 7));
    assert_eq!(client.status().await.unwrap(), fleet());
    let about = client.about().await.unwrap();
    assert_eq!((about.version.as_str(), about.pid), ("1.2.3", 42));
    let why = client.explain(&AgentId::worker(1), 1).await.unwrap();
    assert_eq!(why.history.len(), 1);
    assert_eq!(why.signals, crate::api::tests::fake::why().signals);
    let worker = AgentId::worker(2);
    assert_eq!(client.restart(&worker).await.unwrap(), Done::Accepted);
    let task = "w1-fails".into();
    assert_eq!(client.retry_task(&task).await.unwrap(), Done::Accepted);
    assert_eq!(client.cancel_task(&task).await.unwrap(), Done::Accepted);
    assert_eq!(client.plan().await.unwrap(), Done::Accepted);
    assert_eq!(client.fetch().await.unwrap(), Done::Accepted);
    served.control.answer(Ok(Reply::AlreadySo));
    assert_eq!(client.end(Ending::Stop).await.unwrap(), Done::AlreadySo);
    assert_eq!(
        served.control.take_asked(),
        [
            Request::Restart { agent: worker },
            Request::RetryTask { task: task.clone() },
            Request::CancelTask { task },
            Request::Plan,
            Request::Fetch,
            Request::End {
                ending: Ending::Stop
            },
        ]
    );
}

#[tokio::test]
async fn watching_gives_each_snapshot_and_ends_with_the_supervisor() {
    let served = Served::start().await;
    let client = Client::unix(&served.socket).unwrap();
    let mut views = client.watch().await.unwrap();
    let mut next = async || tokio::time::timeout(LONG, views.next()).await.unwrap();
    assert_eq!(next().await.unwrap().unwrap().generation, 7);
    served.control.publish(8);
    assert_eq!(next().await.unwrap().unwrap().generation, 8);
    served.shutdown.cancel();
    assert!(next().await.is_none());
    let ended = tokio::time::timeout(LONG, served.task).await;
    ended.unwrap().unwrap().unwrap();
    let error = client.health().await.unwrap_err();
    assert!(error.is_not_running(), "{error:?}");
}

#[tokio::test]
async fn over_tcp_the_token_decides() {
    let control = FakeControl::new();
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let router = router(control, Access::Token("sesame".into()));
    let task = tokio::spawn(serve_tcp(listener, router, shutdown.clone()));
    let right = Client::http(&url, Some("sesame".into())).unwrap();
    assert_eq!(right.status().await.unwrap(), fleet());
    let wrong = Client::http(&url, Some("simsim".into())).unwrap();
    let error = wrong.status().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(error.code.as_deref(), Some("UNAUTHORIZED"));
    assert!(error.hint.unwrap().contains("authorization: Bearer"));
    shutdown.cancel();
    tokio::time::timeout(LONG, task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn refusals_keep_code_reason_and_hint() {
    let served = Served::start().await;
    let client = Client::unix(&served.socket).unwrap();
    served.control.answer(Ok(Reply::Denied {
        code: "UNKNOWN_AGENT".into(),
        reason: "there is no agent `worker-9`".into(),
        hint: Some("there are worker-1 and worker-2".into()),
    }));
    let error = client.restart(&AgentId::worker(9)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(!error.is_not_running());
    assert_eq!(error.to_string(), "there is no agent `worker-9`");
    assert_eq!(
        error.hint.as_deref(),
        Some("there are worker-1 and worker-2")
    );
    served.control.answer(Err(ControlError::Late));
    let error = client.plan().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    assert_eq!(error.code.as_deref(), Some("LATE"));
}

#[tokio::test]
async fn nobody_there_is_said_with_the_next_step() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run/control.sock");
    let client = Client::unix(&path).unwrap();
    let error = client.status().await.unwrap_err();
    assert!(error.is_not_running());
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(
        error.hint.as_deref(),
        Some("start it: `orchestrator up -d --config DIR`")
    );
    std::fs::create_dir(root.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(client.watch().await.err().unwrap().is_not_running());
}

#[test]
fn a_bad_url_is_named() {
    let error = Client::http("not a url", None).unwrap_err();
    assert_eq!(error.to_string(), "`not a url` is not a URL");
}
