//! Routes: callbacks and the status line, for one instance or for external sessions.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::identity::{Identity, TokenLookup, check_token};
use super::intake::{Told, read_body, understand, understand_tree};
use super::problem::{Code, Problem};
use super::spool::Spool;
use crate::claude::{self, StatusLine};
use crate::control::{Control, StatusReport};
use crate::model::{AgentId, HookAnswer};

/// For one request, from its first header to its answer.
const DEADLINE: Duration = Duration::from_secs(15);
/// One instance has a handful at a time; a script in it may have more.
const MAX_IN_FLIGHT: usize = 256;

/// Shared by all requests of one router.
struct Door {
    control: Control,
    in_flight: Arc<Semaphore>,
}

/// One agent's side of a router.
#[derive(Clone)]
struct Caller {
    agent: AgentId,
    branch: Option<String>,
    spool: Option<Arc<Spool>>,
}

/// The routes for `identity`: `/hooks/v1/callback` and `/hooks/v1/status` on an instance's own
/// socket, the same below `/hooks/v1/agents/{agent}` with a token.
pub fn router(control: Control, identity: Identity) -> Router {
    let door = Arc::new(Door {
        control,
        in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
    });
    let routes = match identity {
        Identity::Fixed {
            agent,
            branch,
            spool,
        } => own_routes(
            door,
            Caller {
                agent,
                branch: Some(branch),
                spool,
            },
        ),
        Identity::Token(lookup) => token_routes(door, lookup),
    };
    routes
        .fallback(|| async { Problem::new(Code::NotFound, "no such route") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "this route takes POST")
        })
}

fn own_routes(door: Arc<Door>, caller: Caller) -> Router {
    let caller = Arc::new(caller);
    let state = (door, caller);
    type Own = (Arc<Door>, Arc<Caller>);
    Router::new()
        .route(
            "/hooks/v1/callback",
            post(
                |State((door, caller)): State<Own>, headers: HeaderMap, body: Body| async move {
                    in_time(callback(door, Caller::clone(&caller), headers, body)).await
                },
            ),
        )
        .route(
            "/hooks/v1/tree",
            post(
                |State((door, caller)): State<Own>, headers: HeaderMap, body: Body| async move {
                    in_time(tree(door, caller.agent.clone(), headers, body)).await
                },
            ),
        )
        .route(
            "/hooks/v1/status",
            post(
                |State((door, caller)): State<Own>, headers: HeaderMap, body: Body| async move {
                    in_time(status(door, caller.agent.clone(), headers, body)).await
                },
            ),
        )
        .with_state(state)
}

fn token_routes(door: Arc<Door>, lookup: TokenLookup) -> Router {
    type Shared = (Arc<Door>, TokenLookup);
    Router::new()
        .route(
            "/hooks/v1/agents/{agent}/callback",
            post(
                |State((door, lookup)): State<Shared>,
                 Path(agent): Path<String>,
                 headers: HeaderMap,
                 body: Body| async move {
                    let agent = AgentId::new(agent);
                    check_token(&lookup, &agent, &headers)?;
                    let caller = Caller {
                        agent,
                        branch: None,
                        spool: None,
                    };
                    in_time(callback(door, caller, headers, body)).await
                },
            ),
        )
        .route(
            "/hooks/v1/agents/{agent}/status",
            post(
                |State((door, lookup)): State<Shared>,
                 Path(agent): Path<String>,
                 headers: HeaderMap,
                 body: Body| async move {
                    let agent = AgentId::new(agent);
                    check_token(&lookup, &agent, &headers)?;
                    in_time(status(door, agent, headers, body)).await
                },
            ),
        )
        .with_state((door, lookup))
}

async fn in_time(
    work: impl Future<Output = Result<Response, Problem>>,
) -> Result<Response, Problem> {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| {
            Err(Problem::new(
                Code::Late,
                format!("no answer within {} s", DEADLINE.as_secs()),
            ))
        })
}

fn enter(door: &Door) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&door.in_flight)
        .try_acquire_owned()
        .map_err(|_| {
            Problem::new(
                Code::Busy,
                format!("more than {MAX_IN_FLIGHT} callbacks at once"),
            )
        })
}

async fn callback(
    door: Arc<Door>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let permit = enter(&door)?;
    let told = Told::read(&headers)?;
    let bytes = read_body(&headers, body).await?;
    let callback = understand(&caller.agent, told, &bytes).inspect_err(|problem| {
        tracing::warn!(agent = %caller.agent, ?problem, "a hook payload was refused");
    })?;
    // On a task of its own: what was received is handed in, whether the caller still waits or not.
    let control = Arc::clone(&door.control);
    let spool = caller.spool.clone();
    let handed_in = tokio::spawn(async move {
        let _permit = permit;
        if let Some(spool) = spool {
            // Older events first, or the new one must wait in the spool as well.
            spool.drain().await?;
        }
        control.hook(callback.report, callback.raw).await
    });
    let answer = handed_in
        .await
        .map_err(|error| Problem::new(Code::NotStored, format!("the intake failed: {error}")))??;
    Ok(respond(&caller, &callback.event, &answer))
}

fn respond(caller: &Caller, event: &str, answer: &HookAnswer) -> Response {
    let json = claude::render(event, answer).unwrap_or_else(|error| {
        tracing::error!(agent = %caller.agent, %error, "the supervisor's answer was dropped");
        None
    });
    let mut response = match json {
        Some(json) => (
            [(header::CONTENT_TYPE, "application/json")],
            json.to_string(),
        )
            .into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    };
    if let HookAnswer::Continue {
        bring_up_to: Some(commit),
        ..
    } = answer
        && let Some(branch) = &caller.branch
    {
        match HeaderValue::from_str(&format!("{commit} {branch}")) {
            Ok(value) => {
                response.headers_mut().insert("x-bring-up-to", value);
            }
            Err(error) => {
                tracing::error!(agent = %caller.agent, %error, "a branch name does not fit a header");
            }
        }
    }
    response
}

/// Only from an instance: the helper there begins to look with its Stop hook.
async fn tree(
    door: Arc<Door>,
    agent: AgentId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let _permit = enter(&door)?;
    let told = Told::read(&headers)?;
    let bytes = read_body(&headers, body).await?;
    let report = understand_tree(agent, told, &bytes)?;
    door.control.tree(report).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn status(
    door: Arc<Door>,
    agent: AgentId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let _permit = enter(&door)?;
    let told = Told::read(&headers)?;
    let bytes = read_body(&headers, body).await?;
    let line = StatusLine::parse(&bytes)
        .map_err(|error| Problem::new(Code::BadPayload, error.to_string()))?;
    let report = StatusReport {
        agent,
        incarnation: told.incarnation,
        session: line.session,
        model: line.model,
        claude_version: line.claude_version,
        usage: line.usage,
    };
    let text = door.control.status_line(report).await?;
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, text).into_response())
}
