//! The gates: what they are, and a run of them as a stream.

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::http::Extensions;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::Problem;
use super::handlers::Body;
use super::stream::{Closing, KEEP_ALIVE};
use crate::control::{Control, GateRequest};
use crate::model::GateEvent;

pub(super) async fn list(State(control): State<Control>) -> Result<Response, Problem> {
    Ok(Json(control.gates().await?).into_response())
}

/// The body of `POST /gates/run`; an empty object runs all on the tip of the branch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunBody {
    commit: Option<String>,
    gate: Option<String>,
}

/// Each event: `event: gate`, `data:` a [`GateEvent`]. The run ends when nobody reads any more.
pub(super) async fn run(
    State(control): State<Control>,
    extensions: Extensions,
    Body(body): Body<RunBody>,
) -> Result<Response, Problem> {
    let request = GateRequest {
        commit: body.commit,
        gate: body.gate,
    };
    let events = control.run_gates(request).await?.map_err(Problem::from)?;
    let closing = extensions
        .get::<Closing>()
        .map_or_else(CancellationToken::new, |closing| closing.0.clone());
    let events = events
        .map(|event| Ok::<_, Infallible>(told(&event)))
        .take_until(closing.cancelled_owned());
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

fn told(event: &GateEvent) -> Event {
    match serde_json::to_string(event) {
        Ok(json) => Event::default().event("gate").data(json),
        // Plain data; if it ever cannot be written, the reader is told, not cut off.
        Err(error) => Event::default().comment(format!("unreadable event: {error}")),
    }
}
