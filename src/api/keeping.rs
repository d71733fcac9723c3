//! The routes of what is kept: snapshots of uncommitted work, checkouts.

use std::future::Future;
use std::path::PathBuf;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use super::handlers::{Body, Named, ask};
use super::{Code, Problem};
use crate::control::{CleanUp, Control, Refusal, Request};
use crate::model::AgentId;

/// Longer than any snapshot's name, which is a commit's.
const MAX_ID: usize = 64;

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::denied(refusal.code.to_owned(), refusal.reason, refusal.hint)
    }
}

fn none_kept() -> Problem {
    Problem::new(Code::NotFound, "this fleet keeps no snapshots")
}

/// Goes on to its end although the caller may go away: half a clean-up helps nobody.
async fn to_the_end<T: Serialize + Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<Response, Problem> {
    match tokio::spawn(work).await {
        Ok(done) => Ok(Json(done?).into_response()),
        Err(error) => Err(Problem::new(Code::Internal, error.to_string())),
    }
}

/// An extractor of its own, because what cannot be one is no snapshot's name.
pub(super) struct RescueId(String);

impl<S: Send + Sync> FromRequestParts<S> for RescueId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<String>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|error| Problem::new(Code::BadRequest, error.body_text()))?;
        if id.len() <= MAX_ID && !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self(id));
        }
        Err(Problem::denied(
            "UNKNOWN_RESCUE".to_owned(),
            "no snapshot has a name like that".to_owned(),
            Some("`orchestrator rescue list` lists them".to_owned()),
        ))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    agent: Option<String>,
}

pub(super) async fn list(
    State(control): State<Control>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(Code::BadRequest, error.body_text()))?;
    let agent = query.agent.map(AgentId::new);
    Ok(Json(
        control
            .keeping()
            .ok_or_else(none_kept)?
            .rescues(agent)
            .await?,
    )
    .into_response())
}

pub(super) async fn show(
    State(control): State<Control>,
    RescueId(id): RescueId,
) -> Result<Response, Problem> {
    let content = control.keeping().ok_or_else(none_kept)?.rescue(id).await?;
    Ok(Json(content).into_response())
}

/// The body of `POST /rescues`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NowBody {
    #[serde(default)]
    agent: Option<AgentId>,
}

pub(super) async fn now(
    State(control): State<Control>,
    Body(body): Body<NowBody>,
) -> Result<Response, Problem> {
    ask(&control, Request::Rescue { agent: body.agent }).await
}

/// The body of `POST /rescues/{id}/restore`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreBody {
    into: PathBuf,
}

pub(super) async fn restore(
    State(control): State<Control>,
    RescueId(id): RescueId,
    Body(body): Body<RestoreBody>,
) -> Result<Response, Problem> {
    let keeping = control.keeping().ok_or_else(none_kept)?;
    if !body.into.is_absolute() {
        let text = "`into` must be an absolute path on the supervisor's machine";
        return Err(Problem::new(Code::BadRequest, text));
    }
    to_the_end(async move { keeping.restore(id, body.into).await }).await
}

pub(super) async fn worktrees(State(control): State<Control>) -> Result<Response, Problem> {
    Ok(Json(control.keeping().ok_or_else(none_kept)?.worktrees().await?).into_response())
}

/// The body of `POST /worktrees/{name}/cleanup`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CleanUpBody {
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn clean_up(
    State(control): State<Control>,
    Named(agent): Named,
    Body(body): Body<CleanUpBody>,
) -> Result<Response, Problem> {
    let keeping = control.keeping().ok_or_else(none_kept)?;
    let how = match (body.dry_run, body.force) {
        (true, _) => CleanUp::Try,
        (false, true) => CleanUp::Force,
        (false, false) => CleanUp::IfKept,
    };
    to_the_end(async move { keeping.clean_up(agent, how).await }).await
}
