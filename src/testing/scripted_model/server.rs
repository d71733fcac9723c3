//! The HTTP server: routes, streaming, and stopping.

use std::convert::Infallible;
use std::future::IntoFuture as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, head, post};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::answer::{Answer, Failure, Pacing, Turn};
use super::record::{Answered, Counters, Log, RequestKind, RequestRecord, cut};
use super::request::ModelRequest;
use super::wire::{BYTES_PER_TOKEN, Message, Usage};
use crate::model::{SessionId, Timestamp};

/// The API itself takes 32 MB.
const LARGEST_BODY: usize = 32 * 1024 * 1024;
/// How long `stop` waits for open connections.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What the model does. Must depend on the request alone, so that a restart changes nothing.
pub trait Script: Send + Sync {
    fn answer(&self, request: &ModelRequest) -> Answer;
}

/// A running server. Dropping it stops it as well, without waiting.
#[derive(Debug)]
pub struct ScriptedModel {
    /// Where it listens; `http://ADDRESS` is the `ANTHROPIC_BASE_URL`.
    pub address: SocketAddr,
    log: Arc<Mutex<Log>>,
    cancel: DropGuard,
    task: JoinHandle<io::Result<()>>,
}

#[derive(Clone)]
struct Shared {
    script: Arc<dyn Script>,
    log: Arc<Mutex<Log>>,
    cancel: CancellationToken,
}

impl ScriptedModel {
    /// Serves on a bound listener until stopped. Call inside a tokio runtime.
    ///
    /// # Errors
    /// When the listener cannot tell its address.
    pub fn start(listener: TcpListener, script: Arc<dyn Script>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let cancel = CancellationToken::new();
        let shared = Shared {
            script,
            log: Arc::default(),
            cancel: cancel.clone(),
        };
        let log = Arc::clone(&shared.log);
        let serving = axum::serve(listener, router(shared))
            .with_graceful_shutdown(cancel.clone().cancelled_owned());
        Ok(Self {
            address,
            log,
            cancel: cancel.drop_guard(),
            task: tokio::spawn(serving.into_future()),
        })
    }

    /// The newest requests, oldest first; at most 10,000.
    pub fn requests(&self) -> Vec<RequestRecord> {
        lock(&self.log).records.iter().cloned().collect()
    }

    pub fn counters(&self) -> Counters {
        lock(&self.log).counters
    }

    /// Cuts streams, lets other answers finish for up to two seconds, and frees the address.
    pub async fn stop(self) {
        let Self {
            cancel, mut task, ..
        } = self;
        drop(cancel);
        if tokio::time::timeout(STOP_GRACE, &mut task).await.is_err() {
            task.abort();
        }
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/", head(|| async { StatusCode::OK }))
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/v1/models", get(models))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(shared)
}

async fn messages(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let at = now();
    let (body, bytes) = match read(&headers, body) {
        Ok(read) => read,
        Err(failure) => {
            let request = identified(ModelRequest::default(), &headers);
            let answer = Answer::Error(failure.clone());
            shared.note(at, RequestKind::Refused, &request, &answer);
            return failed(&failure);
        }
    };
    let mut request = identified(ModelRequest::parse(&body), &headers);
    let (kind, answer) = if request.is_side_call() {
        (RequestKind::Side, side_answer(&request))
    } else {
        if let Some(session) = &request.session {
            request.attempt = lock(&shared.log).attempt(session, &request.conversation);
        }
        (RequestKind::Turn, shared.script.answer(&request))
    };
    shared.note(at, kind, &request, &answer);
    match answer {
        Answer::Error(failure) => failed(&failure),
        Answer::Turn(turn) => {
            let usage = Usage::estimate(&body, bytes, &turn);
            send(&request, &turn, usage, shared.cancel).await
        }
    }
}

async fn count_tokens(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match read(&headers, body) {
        Ok((_, bytes)) => {
            lock(&shared.log).counters.token_counts += 1;
            axum::Json(json!({"input_tokens": bytes / BYTES_PER_TOKEN})).into_response()
        }
        Err(failure) => failed(&failure),
    }
}

async fn models() -> Response {
    let model = |id: &str, name: &str| json!({"type": "model", "id": id, "display_name": name, "created_at": "2026-01-01T00:00:00Z"});
    axum::Json(json!({
        "data": [model("claude-opus-4-8", "Claude Opus 4.8"), model("claude-sonnet-5", "Claude Sonnet 5")],
        "first_id": "claude-opus-4-8", "last_id": "claude-sonnet-5", "has_more": false,
    }))
    .into_response()
}

async fn unknown(State(shared): State<Shared>) -> Response {
    lock(&shared.log).counters.unknown += 1;
    failed(&Failure::new(404, "not_found_error", "Not found"))
}

/// The body as JSON and its size in bytes, or what the API says to a bad request.
fn read(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(Value, usize), Failure> {
    if credential(headers).is_none() {
        return Err(Failure::new(
            401,
            "authentication_error",
            "x-api-key header is required",
        ));
    }
    let body = body.map_err(|rejection| {
        let kind = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            "request_too_large"
        } else {
            "invalid_request_error"
        };
        Failure::new(rejection.status().as_u16(), kind, &rejection.body_text())
    })?;
    let invalid = |message: &str| Failure::new(400, "invalid_request_error", message);
    let value: Value = serde_json::from_slice(&body)
        .map_err(|error| invalid(&format!("The request body is not valid JSON: {error}")))?;
    if !value["messages"].is_array() {
        return Err(invalid("messages: Field required"));
    }
    Ok((value, body.len()))
}

/// Session titles fit a JSON schema; anything else gets a word.
fn side_answer(request: &ModelRequest) -> Answer {
    let Some(schema) = &request.schema else {
        return Answer::Turn(Turn::text("Done."));
    };
    let properties = schema["properties"].as_object();
    let fields: Map<String, Value> = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| {
            let value = match schema["type"].as_str() {
                Some("boolean") => json!(false),
                Some("number" | "integer") => json!(0),
                Some("array") => json!([]),
                Some("object") => json!({}),
                _ => json!("Scripted session"),
            };
            (name.clone(), value)
        })
        .collect();
    Answer::Turn(Turn::text(Value::Object(fields).to_string()))
}

async fn send(
    request: &ModelRequest,
    turn: &Turn,
    usage: Usage,
    cancel: CancellationToken,
) -> Response {
    let message = Message::new(&request.model, turn, usage);
    let mut response = if request.stream {
        let content_type = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")];
        (content_type, stream(message.events(), turn.pacing, cancel)).into_response()
    } else {
        pause(turn.pacing.first_ms, &cancel).await;
        axum::Json(message.whole()).into_response()
    };
    add_headers(&mut response, &turn.headers);
    response
}

/// Sends the events one by one at the pace wanted; ends early when the server stops.
fn stream(events: Vec<String>, pacing: Pacing, cancel: CancellationToken) -> Body {
    if pacing == Pacing::default() {
        return Body::from(events.concat());
    }
    let state = (events.into_iter(), pacing.first_ms, cancel);
    Body::from_stream(futures_util::stream::unfold(
        state,
        move |(mut events, wait, cancel)| async move {
            pause(wait, &cancel).await;
            let event = events.next().filter(|_| !cancel.is_cancelled())?;
            let sent: Result<String, Infallible> = Ok(event);
            Some((sent, (events, pacing.chunk_ms, cancel)))
        },
    ))
}

async fn pause(millis: u64, cancel: &CancellationToken) {
    if millis > 0 {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(millis)) => {}
            () = cancel.cancelled() => {}
        }
    }
}

fn failed(failure: &Failure) -> Response {
    let status = StatusCode::from_u16(failure.status)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(failure.body.clone())).into_response();
    add_headers(&mut response, &failure.headers);
    response
}

/// Headers that are none are left out: a script is data and must not break the server.
fn add_headers(response: &mut Response, headers: &[(String, String)]) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name.as_str()),
            HeaderValue::try_from(value.as_str()),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn identified(mut request: ModelRequest, headers: &HeaderMap) -> ModelRequest {
    let secret = credential(headers).unwrap_or_default();
    let skipped = secret.chars().count().saturating_sub(6);
    request.credential = secret.chars().skip(skipped).collect();
    request.session = headers
        .get("x-claude-code-session-id")
        .and_then(|id| id.to_str().ok())
        .map(SessionId::new);
    request
}

fn credential(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    text("x-api-key").or_else(|| text("authorization")?.strip_prefix("Bearer "))
}

impl Shared {
    fn note(&self, at: Timestamp, kind: RequestKind, request: &ModelRequest, answer: &Answer) {
        lock(&self.log).push(RequestRecord {
            at,
            kind,
            session: request.session.clone(),
            credential: request.credential.clone(),
            model: request.model.clone(),
            instruction: request.conversation.instruction.as_deref().map(cut),
            step: request.conversation.results.len(),
            attempt: request.attempt,
            answered: Answered::of(answer),
        });
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    // The log is plain counting: a panic elsewhere leaves nothing half done in it.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
