//! Questions about tasks, and what people want of one.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};

use super::handlers::ask;
use super::{Code, Problem};
use crate::control::{Control, Request};
use crate::model::TaskId;
use crate::model::listing::{FoundTask, MOST_PER_PAGE, TaskFilter, TaskReport};

/// The longest id a task may have.
const MAX_TASK_ID: usize = 256;

pub(super) async fn list(
    State(control): State<Control>,
    query: Result<Query<TaskFilter>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(filter) = query.map_err(|error| Problem::new(Code::BadRequest, error.body_text()))?;
    if let Some(limit) = filter.limit.filter(|n| !(1..=MOST_PER_PAGE).contains(n)) {
        let text = format!("`limit` is {limit}; a page has 1 to {MOST_PER_PAGE} tasks");
        return Err(Problem::new(Code::BadRequest, text));
    }
    if let Some(after) = filter.after.clone() {
        known(&control, after).await?;
    }
    Ok(Json(control.tasks(filter).await?).into_response())
}

pub(super) async fn show(
    State(control): State<Control>,
    Asked(id): Asked,
) -> Result<Response, Problem> {
    Ok(Json(known(&control, id).await?).into_response())
}

pub(super) async fn receipt(
    State(control): State<Control>,
    Asked(id): Asked,
) -> Result<Response, Problem> {
    let report = known(&control, id).await?;
    if let Some(receipt) = &report.task.receipt {
        return Ok(Json(receipt.as_ref()).into_response());
    }
    Err(Problem::denied(
        "UNKNOWN_RECEIPT".to_owned(),
        format!(
            "there is no receipt for {}, which is {}",
            report.task.id,
            report.state.as_str()
        ),
        Some("a task has one when its work was proven: done, merged, gates passed".to_owned()),
    ))
}

pub(super) async fn retry(
    State(control): State<Control>,
    Asked(task): Asked,
) -> Result<Response, Problem> {
    // Names the nearest, where there is none.
    let task = known(&control, task).await?.task.id;
    ask(&control, Request::RetryTask { task }).await
}

pub(super) async fn cancel(
    State(control): State<Control>,
    Asked(task): Asked,
) -> Result<Response, Problem> {
    let task = known(&control, task).await?.task.id;
    ask(&control, Request::CancelTask { task }).await
}

/// An extractor of its own, because an id that cannot be one is no task's.
pub(super) struct Asked(pub(super) TaskId);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<String>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|error| Problem::new(Code::BadRequest, error.body_text()))?;
        if id.len() > MAX_TASK_ID {
            let text = format!("an id has at most {MAX_TASK_ID} bytes");
            return Err(Problem::new(Code::BadRequest, text));
        }
        Ok(Self(TaskId::new(id)))
    }
}

async fn known(control: &Control, id: TaskId) -> Result<TaskReport, Problem> {
    let nearest = match control.task(id.clone()).await? {
        FoundTask::Known(report) => return Ok(*report),
        FoundTask::Unknown { nearest } => nearest,
    };
    let names: Vec<&str> = nearest.iter().map(TaskId::as_str).collect();
    let hint = if names.is_empty() {
        "`orchestrator task list` lists them".to_owned()
    } else {
        format!("the nearest there are: {}", names.join(", "))
    };
    Err(Problem::denied(
        "UNKNOWN_TASK".to_owned(),
        format!("there is no task `{id}`"),
        Some(hint),
    ))
}
