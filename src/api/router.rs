//! The routes and what is common to all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use super::{Access, Code, Problem, access, gates, handlers, keeping, queue, stream, tasks};
use crate::control::Control;

/// The largest body of nearly every route; only tasks to be created may be more.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a request may take until its response begins; a stream goes on after that.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Where the routes lie; the first is the one to use in new scripts.
const PREFIXES: [&str; 2] = ["/api/v1", "/api"];

/// The whole API over one handle.
pub fn router(control: Control, access: Access) -> Router {
    let access = Arc::new(access);
    let mut open = Router::new();
    let mut guarded = Router::new();
    for prefix in PREFIXES {
        open = open.route(&format!("{prefix}/health"), get(handlers::health));
        guarded = guarded
            .route(&format!("{prefix}/status"), get(handlers::status))
            .route(&format!("{prefix}/about"), get(handlers::about))
            .route(
                &format!("{prefix}/status/stream"),
                get(stream::status_stream),
            )
            .route(
                &format!("{prefix}/agents/{{id}}/restart"),
                post(handlers::restart),
            )
            .route(
                &format!("{prefix}/agents/{{id}}/explain"),
                get(handlers::explain),
            )
            .route(&format!("{prefix}/credentials"), get(handlers::credentials))
            .route(
                &format!("{prefix}/credentials/{{id}}/retry"),
                post(handlers::retry_credential),
            )
            .route(&format!("{prefix}/gates"), get(gates::list))
            .route(&format!("{prefix}/gates/run"), post(gates::run))
            .route(&format!("{prefix}/train"), get(handlers::train))
            .route(
                &format!("{prefix}/tasks"),
                get(tasks::list)
                    .post(queue::create)
                    .layer(DefaultBodyLimit::max(queue::MAX_DRAFTS_BYTES)),
            )
            .route(&format!("{prefix}/tasks/{{id}}"), get(tasks::show))
            .route(&format!("{prefix}/tasks/{{id}}/claim"), post(queue::claim))
            .route(&format!("{prefix}/tasks/{{id}}/renew"), post(queue::renew))
            .route(
                &format!("{prefix}/tasks/{{id}}/complete"),
                post(queue::complete),
            )
            .route(
                &format!("{prefix}/tasks/{{id}}/release"),
                post(queue::release),
            )
            .route(&format!("{prefix}/tasks/{{id}}/fail"), post(queue::fail))
            .route(
                &format!("{prefix}/tasks/{{id}}/receipt"),
                get(tasks::receipt),
            )
            .route(&format!("{prefix}/tasks/{{id}}/retry"), post(tasks::retry))
            .route(
                &format!("{prefix}/tasks/{{id}}/cancel"),
                post(tasks::cancel),
            )
            .route(&format!("{prefix}/plan"), post(handlers::plan))
            .route(&format!("{prefix}/fetch"), post(handlers::fetch))
            .route(
                &format!("{prefix}/rescues"),
                get(keeping::list).post(keeping::now),
            )
            .route(&format!("{prefix}/rescues/{{id}}"), get(keeping::show))
            .route(
                &format!("{prefix}/rescues/{{id}}/restore"),
                post(keeping::restore),
            )
            .route(&format!("{prefix}/worktrees"), get(keeping::worktrees))
            .route(
                &format!("{prefix}/worktrees/{{id}}/cleanup"),
                post(keeping::clean_up),
            )
            .route(&format!("{prefix}/end"), post(handlers::end));
    }
    let guarded = guarded.route_layer(middleware::from_fn_with_state(access, access::check));
    open.merge(guarded)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(deadline))
        .with_state(control)
}

async fn deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            Code::TimedOut,
            format!("no answer within {} s", REQUEST_DEADLINE.as_secs()),
        )
        .into_response(),
    }
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("no route `{}`", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(
        Code::MethodNotAllowed,
        format!("`{}` does not take {method}", uri.path()),
    )
}
