//! The requests.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::sse::SseParser;
use super::{Ending, Error, Result};
use crate::model::draft::{TaskChange, TaskDraft};
use crate::model::listing::{TaskFilter, TaskPage, TaskReport};
use crate::model::train::TrainView;
use crate::model::view::FleetView;
use crate::model::{
    About, AgentId, CredentialId, CredentialView, Explanation, GateEvent, GateView, Receipt, TaskId,
};
use crate::ports::ErrorKind;

/// How long a connection may take. Local; a supervisor under load still accepts at once.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Longer than the server's own deadline of 30 s, so that its answer wins.
const REQUEST_DEADLINE: Duration = Duration::from_secs(35);

/// The server sends at least a comment every 15 s; after this the connection is dead.
const STREAM_SILENCE: Duration = Duration::from_secs(60);

/// Larger than any answer of ours.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// A supervisor to ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    /// For messages: the socket's path or the URL.
    place: String,
}

/// What `GET /health` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Health {
    pub status: String,
    pub project: String,
    pub version: String,
    pub phase: String,
    pub generation: u64,
}

/// A request was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Done {
    Accepted,
    /// It was so before.
    AlreadySo,
}

/// Snapshots as they are published; ends when the supervisor does.
pub type StatusStream = BoxStream<'static, Result<FleetView>>;

/// What happens in a run of gates; ends with it.
pub type GateStream = BoxStream<'static, Result<GateEvent>>;

impl Client {
    /// Over the control socket. Does not connect yet.
    pub fn unix(socket: &Path) -> Result<Self> {
        let builder = reqwest::Client::builder().unix_socket(socket);
        // The host's name is not looked up: every connection goes to the socket.
        Self::build(
            builder,
            "http://orchestrator.localhost/",
            None,
            socket.display().to_string(),
        )
    }

    /// Over HTTP, `url` being for example `http://127.0.0.1:7000`. Does not connect yet.
    pub fn http(url: &str, token: Option<String>) -> Result<Self> {
        let builder = reqwest::Client::builder();
        Self::build(builder, url, token, url.to_owned())
    }

    fn build(
        builder: reqwest::ClientBuilder,
        url: &str,
        token: Option<String>,
        place: String,
    ) -> Result<Self> {
        let base = Url::parse(url).map_err(|error| {
            Error::new(ErrorKind::Refused, format!("`{url}` is not a URL"))
                .because(error)
                .hint("give it as http://HOST:PORT")
        })?;
        crate::ports::tls::choose_provider();
        // It speaks to this machine: no certificates are read for that.
        let http = builder
            .tls_certs_only([])
            .no_proxy()
            .connect_timeout(CONNECT_DEADLINE)
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Broken, "cannot set up the HTTP client").because(error)
            })?;
        Ok(Self {
            http,
            base,
            token,
            place,
        })
    }

    /// Where this client asks: the socket's path or the URL.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub async fn health(&self) -> Result<Health> {
        self.json(self.request(Method::GET, &["health"])).await
    }

    pub async fn status(&self) -> Result<FleetView> {
        self.json(self.request(Method::GET, &["status"])).await
    }

    /// Which program it is, and what it was told. `NotFound` from one that is too old to say.
    pub async fn about(&self) -> Result<About> {
        self.json(self.request(Method::GET, &["about"])).await
    }

    /// Every published snapshot, the newest one first.
    pub async fn watch(&self) -> Result<StatusStream> {
        let request = self
            .http
            .get(self.url(&["status", "stream"]))
            .header("accept", "text/event-stream");
        Ok(events(self.opened(request).await?, "status").boxed())
    }

    /// The beginning of an answer that has no end of its own.
    async fn opened(&self, request: RequestBuilder) -> Result<Response> {
        let sending = self.authorized(request).send();
        let response = tokio::time::timeout(REQUEST_DEADLINE, sending)
            .await
            .map_err(|_| self.late())?
            .map_err(|error| self.failed(error))?;
        self.checked(response).await
    }

    pub async fn restart(&self, agent: &AgentId) -> Result<Done> {
        let path = ["agents", agent.as_str(), "restart"];
        self.json(self.request(Method::POST, &path)).await
    }

    /// Why an agent is in its state, with its newest changes of state.
    pub async fn explain(&self, agent: &AgentId, history: usize) -> Result<Explanation> {
        let mut url = self.url(&["agents", agent.as_str(), "explain"]);
        url.set_query(Some(&format!("history={history}")));
        self.json(self.get(url)).await
    }

    pub async fn credentials(&self) -> Result<Vec<CredentialView>> {
        self.json(self.request(Method::GET, &["credentials"])).await
    }

    /// Forgets why a credential is not used.
    pub async fn retry_credential(&self, id: &CredentialId) -> Result<Done> {
        let path = ["credentials", id.as_str(), "retry"];
        self.json(self.request(Method::POST, &path)).await
    }

    /// A failed or cancelled task is to be done after all.
    pub async fn retry_task(&self, id: &TaskId) -> Result<Done> {
        let path = ["tasks", id.as_str(), "retry"];
        self.json(self.request(Method::POST, &path)).await
    }

    /// Nobody shall do this task any more.
    pub async fn cancel_task(&self, id: &TaskId) -> Result<Done> {
        let path = ["tasks", id.as_str(), "cancel"];
        self.json(self.request(Method::POST, &path)).await
    }

    /// All gates, in their order, and what came of them so far.
    pub async fn gates(&self) -> Result<Vec<GateView>> {
        self.json(self.request(Method::GET, &["gates"])).await
    }

    /// Runs gates now, on the tip of the branch unless told otherwise, and follows the run. Dropping
    /// the stream ends it.
    pub async fn run_gates(&self, commit: Option<&str>, gate: Option<&str>) -> Result<GateStream> {
        let body = json!({ "commit": commit, "gate": gate });
        let request = self.http.post(self.url(&["gates", "run"])).json(&body);
        Ok(events(self.opened(request).await?, "gate").boxed())
    }

    /// The merge train.
    pub async fn train(&self) -> Result<TrainView> {
        self.json(self.request(Method::GET, &["train"])).await
    }

    /// A page of tasks.
    pub async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage> {
        let mut url = self.url(&["tasks"]);
        let pairs = [
            (
                "status",
                filter.status.map(|status| status.as_str().to_owned()),
            ),
            ("owner", filter.owner.as_ref().map(ToString::to_string)),
            ("agent", filter.agent.as_ref().map(ToString::to_string)),
            ("label", filter.label.clone()),
            ("after", filter.after.as_ref().map(ToString::to_string)),
            ("limit", filter.limit.map(|limit| limit.to_string())),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        let request = self.authorized(self.http.get(url));
        self.json(request.timeout(REQUEST_DEADLINE)).await
    }

    /// One task with everything that is known of it.
    pub async fn task(&self, id: &TaskId) -> Result<TaskReport> {
        self.json(self.request(Method::GET, &["tasks", id.as_str()]))
            .await
    }

    /// Creates tasks, which may depend on each other; all are checked before one is written.
    pub async fn create_tasks(&self, drafts: &[TaskDraft]) -> Result<Vec<TaskReport>> {
        #[derive(Deserialize)]
        struct Created {
            tasks: Vec<TaskReport>,
        }
        let request = self.request(Method::POST, &["tasks"]);
        let created: Created = self.json(request.json(&json!({ "tasks": drafts }))).await?;
        Ok(created.tasks)
    }

    /// What a claimant outside of the fleet does with a task.
    pub async fn change_task(&self, id: &TaskId, change: &TaskChange) -> Result<TaskReport> {
        let seconds = change.lease().map(|lease| lease.as_secs());
        let agent = change.agent();
        let (verb, body) = match change {
            TaskChange::Claim { .. } => ("claim", json!({ "agent": agent, "lease": seconds })),
            TaskChange::Renew { fence, .. } => (
                "renew",
                json!({ "agent": agent, "fence": fence, "lease": seconds }),
            ),
            TaskChange::Complete { fence, result, .. } => (
                "complete",
                json!({ "agent": agent, "fence": fence, "result": result }),
            ),
            TaskChange::Release { fence, cause, .. } => (
                "release",
                json!({ "agent": agent, "fence": fence, "cause": cause }),
            ),
            TaskChange::Fail { fence, cause, .. } => (
                "fail",
                json!({ "agent": agent, "fence": fence, "cause": cause }),
            ),
        };
        let request = self.request(Method::POST, &["tasks", id.as_str(), verb]);
        self.json(request.json(&body)).await
    }

    /// Why a task counts as done.
    pub async fn receipt(&self, id: &TaskId) -> Result<Receipt> {
        let path = ["tasks", id.as_str(), "receipt"];
        self.json(self.request(Method::GET, &path)).await
    }

    /// Asks the manager to plan now.
    pub async fn plan(&self) -> Result<Done> {
        self.json(self.request(Method::POST, &["plan"])).await
    }

    /// Fetches the remote now.
    pub async fn fetch(&self) -> Result<Done> {
        self.json(self.request(Method::POST, &["fetch"])).await
    }

    pub async fn end(&self, ending: Ending) -> Result<Done> {
        let request = self.request(Method::POST, &["end"]);
        self.json(request.json(&json!({ "ending": ending }))).await
    }

    pub(super) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // Always works for `http`; segments are escaped one by one.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url
    }

    pub(super) fn get(&self, url: Url) -> RequestBuilder {
        self.authorized(self.http.get(url))
            .timeout(REQUEST_DEADLINE)
    }

    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let request = self.http.request(method, self.url(path));
        self.authorized(request).timeout(REQUEST_DEADLINE)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(super) async fn json<T: for<'de> Deserialize<'de>>(
        &self,
        request: RequestBuilder,
    ) -> Result<T> {
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let response = self.checked(response).await?;
        let bytes = self.body(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(
                ErrorKind::Broken,
                format!("the answer of {} is not understood", self.place),
            )
            .because(error)
            .hint("the supervisor may be of another version: end it and start it again")
        })
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>> {
        let mut chunks = response.bytes_stream();
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            body.extend_from_slice(&chunk.map_err(|error| self.failed(error))?);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(Error::new(
                    ErrorKind::Broken,
                    format!("the answer of {} is too large", self.place),
                ));
            }
        }
        Ok(body)
    }

    /// Turns a problem body into an error.
    async fn checked(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response).await?;
        let Ok(problem) = serde_json::from_slice::<ProblemBody>(&body) else {
            return Err(Error::new(
                ErrorKind::Broken,
                format!("{} answered {status} without a reason", self.place),
            )
            .hint("is another program listening there?"));
        };
        let kind = match status {
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => ErrorKind::Transient,
            status if status.is_server_error() => ErrorKind::Broken,
            _ => ErrorKind::Refused,
        };
        let mut error = Error::new(kind, problem.detail);
        error.code = Some(problem.code);
        error.hint = problem.hint;
        Err(error)
    }

    fn failed(&self, error: reqwest::Error) -> Error {
        if error.is_timeout() {
            return self.late();
        }
        if error.is_connect() {
            return Error::not_running(&self.place).because(error);
        }
        Error::new(
            ErrorKind::Transient,
            format!("the connection to {} broke", self.place),
        )
        .because(error)
        .hint("see whether it still runs: `orchestrator status`")
    }

    fn late(&self) -> Error {
        Error::new(
            ErrorKind::Transient,
            format!("{} did not answer in time", self.place),
        )
        .hint("see `orchestrator logs supervisor`")
    }
}

/// The part of a problem document we use.
#[derive(Deserialize)]
struct ProblemBody {
    code: String,
    detail: String,
    hint: Option<String>,
}

/// Events of one kind, each read as a `T`.
fn events<T: DeserializeOwned + Send>(
    response: Response,
    kind: &'static str,
) -> impl futures_util::Stream<Item = Result<T>> + Send {
    let state = (response.bytes_stream().boxed(), SseParser::default());
    futures_util::stream::try_unfold(state, move |(mut chunks, mut parser)| async move {
        let Ok(chunk) = tokio::time::timeout(STREAM_SILENCE, chunks.next()).await else {
            return Err(Error::new(
                ErrorKind::Transient,
                "the supervisor fell silent",
            ));
        };
        let Some(chunk) = chunk else {
            return Ok(None);
        };
        let chunk = chunk.map_err(|error| {
            Error::new(
                ErrorKind::Transient,
                "the connection to the supervisor broke",
            )
            .because(error)
        })?;
        let events = parser.feed(&chunk).map_err(|error| {
            Error::new(ErrorKind::Broken, "the stream of events is broken").because(error)
        })?;
        let mut told = Vec::new();
        for event in events.iter().filter(|event| event.event == kind) {
            told.push(serde_json::from_str::<T>(&event.data).map_err(|error| {
                Error::new(ErrorKind::Broken, "an event is not understood").because(error)
            })?);
        }
        Ok(Some((told, (chunks, parser))))
    })
    .map(|told: Result<Vec<T>>| match told {
        Ok(told) => futures_util::stream::iter(told.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => futures_util::stream::iter(vec![Err(error)]),
    })
    .flatten()
}
