//! Creating tasks, and what claimants outside of the fleet do with them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::Value;

use super::handlers::Body;
use super::tasks::Asked;
use super::{Code, Problem};
use crate::control::{Control, Refusal};
use crate::model::draft::{TaskChange, TaskDraft};
use crate::model::listing::TaskReport;
use crate::model::{AgentId, TaskId};

/// The largest body with tasks to create: a thousand of a kilobyte.
pub(super) const MAX_DRAFTS_BYTES: usize = 1024 * 1024;

/// Several tasks at once, which may depend on each other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drafts {
    tasks: Vec<TaskDraft>,
}

/// One task, or `{"tasks": [...]}`, of which all are checked before one is written. 201 with what was made, in the same form.
pub(super) async fn create(
    State(control): State<Control>,
    Body(body): Body<Value>,
) -> Result<Response, Problem> {
    let several = body.get("tasks").is_some();
    let drafts = if several {
        serde_json::from_value::<Drafts>(body)
            .map_err(not_understood)?
            .tasks
    } else {
        vec![serde_json::from_value(body).map_err(not_understood)?]
    };
    let queue = control.queue().ok_or_else(no_queue)?;
    let created = queue.create(drafts).await?;
    let mut created = created.map_err(problem)?;
    if several {
        let body = serde_json::json!({ "tasks": created });
        return Ok((StatusCode::CREATED, Json(body)).into_response());
    }
    let Some(task) = created.pop() else {
        return Err(Problem::new(Code::Internal, "nothing was created"));
    };
    let place = format!("/api/v1/tasks/{}", task.task.id);
    let headers = [(header::LOCATION, place)];
    Ok((StatusCode::CREATED, headers, Json(task)).into_response())
}

fn not_understood(error: serde_json::Error) -> Problem {
    Problem::new(Code::BadRequest, error.to_string())
}

/// The body of `claim` and `renew`. `lease`: seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimBody {
    agent: AgentId,
    lease: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenewBody {
    agent: AgentId,
    fence: u64,
    lease: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteBody {
    agent: AgentId,
    fence: u64,
    #[serde(default)]
    result: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GiveUpBody {
    agent: AgentId,
    fence: u64,
    cause: Option<String>,
}

pub(super) async fn claim(
    State(control): State<Control>,
    Asked(id): Asked,
    Body(body): Body<ClaimBody>,
) -> Result<Response, Problem> {
    let change = TaskChange::Claim {
        agent: body.agent,
        lease: body.lease.map(Duration::from_secs),
    };
    ask(&control, id, change).await
}

pub(super) async fn renew(
    State(control): State<Control>,
    Asked(id): Asked,
    Body(body): Body<RenewBody>,
) -> Result<Response, Problem> {
    let change = TaskChange::Renew {
        agent: body.agent,
        fence: body.fence,
        lease: body.lease.map(Duration::from_secs),
    };
    ask(&control, id, change).await
}

pub(super) async fn complete(
    State(control): State<Control>,
    Asked(id): Asked,
    Body(body): Body<CompleteBody>,
) -> Result<Response, Problem> {
    let change = TaskChange::Complete {
        agent: body.agent,
        fence: body.fence,
        result: body.result,
    };
    ask(&control, id, change).await
}

pub(super) async fn release(
    State(control): State<Control>,
    Asked(id): Asked,
    Body(body): Body<GiveUpBody>,
) -> Result<Response, Problem> {
    let change = TaskChange::Release {
        agent: body.agent,
        fence: body.fence,
        cause: body.cause.unwrap_or_else(|| "it was given back".to_owned()),
    };
    ask(&control, id, change).await
}

pub(super) async fn fail(
    State(control): State<Control>,
    Asked(id): Asked,
    Body(body): Body<GiveUpBody>,
) -> Result<Response, Problem> {
    let change = TaskChange::Fail {
        agent: body.agent,
        fence: body.fence,
        cause: body.cause.unwrap_or_else(|| "no cause was told".to_owned()),
    };
    ask(&control, id, change).await
}

async fn ask(control: &Control, id: TaskId, change: TaskChange) -> Result<Response, Problem> {
    let queue = control.queue().ok_or_else(no_queue)?;
    let changed: Result<TaskReport, Refusal> = queue.change(id, change).await?;
    Ok(Json(changed.map_err(problem)?).into_response())
}

fn no_queue() -> Problem {
    Problem::new(Code::Internal, "there is no queue")
}

/// A refusal about what was sent is 422; one about how things are is 404 or 409.
fn problem(refusal: Refusal) -> Problem {
    let of_the_body = matches!(
        refusal.code,
        "INVALID_TASK" | "DEPENDENCY_CYCLE" | "UNKNOWN_DEPENDENCY" | "UNKNOWN_AGENT"
    );
    let problem = Problem::denied(refusal.code.to_owned(), refusal.reason, refusal.hint);
    if of_the_body {
        return problem.with_status(StatusCode::UNPROCESSABLE_ENTITY);
    }
    problem
}
