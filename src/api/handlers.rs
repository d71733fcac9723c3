//! The routes with a short answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Code, Problem};
use crate::control::{Control, Ending, Reply, Request};
use crate::model::view::FleetView;
use crate::model::{AgentId, CredentialId};

/// Longer than any agent's name.
const MAX_AGENT_ID: usize = 64;

/// Longer than any credential's name: a stem and a directory of at most 64 characters each.
const MAX_CREDENTIAL_ID: usize = 160;

/// What `GET /health` says.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    project: String,
    version: String,
    phase: String,
    generation: u64,
}

pub(super) async fn health(State(control): State<Control>) -> Json<Health> {
    let view = newest(&control);
    Json(Health {
        status: "ok",
        project: view.project.to_string(),
        version: view.version.clone(),
        phase: view.phase.clone(),
        generation: view.generation,
    })
}

pub(super) async fn status(State(control): State<Control>) -> Response {
    Json(newest(&control).as_ref()).into_response()
}

pub(super) async fn about(State(control): State<Control>) -> Result<Response, Problem> {
    Ok(Json(control.about().await?).into_response())
}

fn newest(control: &Control) -> Arc<FleetView> {
    Arc::clone(&control.view().borrow())
}

pub(super) async fn restart(
    State(control): State<Control>,
    Named(agent): Named,
) -> Result<Response, Problem> {
    ask(&control, Request::Restart { agent }).await
}

/// How many changes of state an explanation comes with, and at most.
const HISTORY: usize = 20;
const MOST_HISTORY: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    history: Option<usize>,
}

pub(super) async fn explain(
    State(control): State<Control>,
    Named(agent): Named,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(Code::BadRequest, error.body_text()))?;
    let history = query.history.unwrap_or(HISTORY);
    if history > MOST_HISTORY {
        let text = format!("`history` is {history}; at most {MOST_HISTORY} changes are given");
        return Err(Problem::new(Code::BadRequest, text));
    }
    if let Some(explanation) = control.explain(agent.clone(), history).await? {
        return Ok(Json(explanation).into_response());
    }
    let view = newest(&control);
    let known: Vec<&str> = view.agents.iter().map(|a| a.id.as_str()).collect();
    Err(Problem::denied(
        "UNKNOWN_AGENT".to_owned(),
        format!("there is no agent `{agent}`"),
        Some(format!("there are: {}", known.join(", "))),
    ))
}

/// An extractor of its own, because a name that cannot be one is no agent's.
pub(super) struct Named(pub(super) AgentId);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<String>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|error| Problem::new(Code::BadRequest, error.body_text()))?;
        let plausible = id.len() <= MAX_AGENT_ID
            && id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if plausible {
            return Ok(Self(AgentId::new(id)));
        }
        Err(Problem::denied(
            "UNKNOWN_AGENT".to_owned(),
            "no agent has a name like that".to_owned(),
            Some("`orchestrator status` lists the agents".to_owned()),
        ))
    }
}

/// What of the snapshot concerns the way into the branch.
pub(super) async fn train(State(control): State<Control>) -> Response {
    Json(&newest(&control).train).into_response()
}

/// What of the snapshot concerns the pool.
pub(super) async fn credentials(State(control): State<Control>) -> Response {
    Json(&newest(&control).credentials).into_response()
}

pub(super) async fn retry_credential(
    State(control): State<Control>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|error| Problem::new(Code::BadRequest, error.body_text()))?;
    let plausible = id.len() <= MAX_CREDENTIAL_ID
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !plausible {
        return Err(Problem::denied(
            "UNKNOWN_CREDENTIAL".to_owned(),
            "no credential has a name like that".to_owned(),
            Some("`orchestrator credentials` lists them".to_owned()),
        ));
    }
    let credential = CredentialId::new(id);
    ask(&control, Request::RetryCredential { credential }).await
}

pub(super) async fn plan(State(control): State<Control>) -> Result<Response, Problem> {
    ask(&control, Request::Plan).await
}

pub(super) async fn fetch(State(control): State<Control>) -> Result<Response, Problem> {
    ask(&control, Request::Fetch).await
}

/// The body of `POST /end`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndBody {
    ending: Ending,
}

pub(super) async fn end(
    State(control): State<Control>,
    Body(body): Body<EndBody>,
) -> Result<Response, Problem> {
    ask(
        &control,
        Request::End {
            ending: body.ending,
        },
    )
    .await
}

/// 202 when accepted, 200 when it is so already, a problem when refused.
pub(super) async fn ask(control: &Control, request: Request) -> Result<Response, Problem> {
    match control.request(request).await? {
        reply @ Reply::Accepted => Ok((StatusCode::ACCEPTED, Json(reply)).into_response()),
        reply @ Reply::AlreadySo => Ok(Json(reply).into_response()),
        Reply::Denied { code, reason, hint } => Err(Problem::denied(code, reason, hint)),
    }
}

/// A JSON body whose errors are problems of ours.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: HttpRequest, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(problem(&rejection)),
        }
    }
}

fn problem(rejection: &JsonRejection) -> Problem {
    let code = match rejection {
        JsonRejection::JsonSyntaxError(_) => Code::BadJson,
        JsonRejection::MissingJsonContentType(_) => Code::UnsupportedMediaType,
        other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        _ => Code::BadRequest,
    };
    Problem::new(code, rejection.body_text())
}
