//! The table of public error codes, and the body that carries them (RFC 9457, problem details).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::control::ControlError;

/// Every error the API answers with by itself. Denials of the supervisor carry codes of their
/// own, see [`Problem::denied`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NotFound,
    MethodNotAllowed,
    Unauthorized,
    BadJson,
    BadRequest,
    UnsupportedMediaType,
    TooLarge,
    TimedOut,
    ShuttingDown,
    Late,
    NotStored,
    Internal,
}

/// One row of the table.
struct Entry {
    name: &'static str,
    status: StatusCode,
    title: &'static str,
    hint: Option<&'static str>,
}

impl Code {
    /// All codes, for documents and tests.
    pub const ALL: [Self; 12] = [
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Unauthorized,
        Self::BadJson,
        Self::BadRequest,
        Self::UnsupportedMediaType,
        Self::TooLarge,
        Self::TimedOut,
        Self::ShuttingDown,
        Self::Late,
        Self::NotStored,
        Self::Internal,
    ];

    /// The stable public name.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    fn entry(self) -> Entry {
        let (name, status, title, hint) = match self {
            Self::NotFound => (
                "NOT_FOUND",
                StatusCode::NOT_FOUND,
                "there is nothing at this path",
                Some(
                    "the routes are /api/v1/health, /status, /status/stream, /about, /agents/{id}/restart, /agents/{id}/explain, /gates, /gates/run, /tasks, /tasks/{id}, /tasks/{id}/receipt, /tasks/{id}/retry, /tasks/{id}/cancel, /tasks/{id}/claim, /tasks/{id}/renew, /tasks/{id}/complete, /tasks/{id}/release, /tasks/{id}/fail, /rescues, /rescues/{id}, /rescues/{id}/restore, /worktrees, /worktrees/{id}/cleanup, /plan, /fetch and /end",
                ),
            ),
            Self::MethodNotAllowed => (
                "METHOD_NOT_ALLOWED",
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take this method",
                Some("the header `allow` names the methods it takes"),
            ),
            Self::Unauthorized => (
                "UNAUTHORIZED",
                StatusCode::UNAUTHORIZED,
                "a valid token is needed",
                Some("send `authorization: Bearer TOKEN`, or use the control socket"),
            ),
            Self::BadJson => (
                "BAD_JSON",
                StatusCode::BAD_REQUEST,
                "the body is not JSON",
                None,
            ),
            Self::BadRequest => (
                "BAD_REQUEST",
                StatusCode::BAD_REQUEST,
                "the request is not what this path takes",
                None,
            ),
            Self::UnsupportedMediaType => (
                "UNSUPPORTED_MEDIA_TYPE",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON",
                Some("send `content-type: application/json`"),
            ),
            Self::TooLarge => (
                "TOO_LARGE",
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large",
                None,
            ),
            Self::TimedOut => (
                "TIMED_OUT",
                StatusCode::REQUEST_TIMEOUT,
                "the request was not complete in time",
                Some("send the whole request at once"),
            ),
            Self::ShuttingDown => (
                "SHUTTING_DOWN",
                StatusCode::SERVICE_UNAVAILABLE,
                "the supervisor is shutting down",
                Some("start it again with `orchestrator up -d`"),
            ),
            Self::Late => (
                "LATE",
                StatusCode::GATEWAY_TIMEOUT,
                "the supervisor did not answer in time",
                Some("try again; if it stays so, see `orchestrator logs supervisor`"),
            ),
            Self::NotStored => (
                "NOT_STORED",
                StatusCode::SERVICE_UNAVAILABLE,
                "the supervisor could not store the change",
                Some(
                    "check that the disk of the state directory is not full; `orchestrator doctor` does",
                ),
            ),
            Self::Internal => (
                "INTERNAL",
                StatusCode::INTERNAL_SERVER_ERROR,
                "something is wrong in the supervisor",
                Some("see `orchestrator logs supervisor`"),
            ),
        };
        Entry {
            name,
            status,
            title,
            hint,
        }
    }
}

/// The body of every error: `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `urn:orchestrator:problem:CODE`; not meant to be fetched.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// Stable; what scripts compare.
    pub code: String,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let entry = code.entry();
        Self {
            kind: urn(entry.name),
            title: entry.title.to_owned(),
            status: entry.status.as_u16(),
            code: entry.name.to_owned(),
            detail: detail.into(),
            hint: entry.hint.map(str::to_owned),
        }
    }

    /// A refusal of the supervisor: its code, reason and hint as they are. A code that says
    /// something is unknown is 404; every other one is a conflict with the fleet's state, 409.
    pub fn denied(code: String, reason: String, hint: Option<String>) -> Self {
        let status = if code.starts_with("UNKNOWN_") {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::CONFLICT
        };
        Self {
            kind: urn(&code),
            title: "the supervisor refused".to_owned(),
            status: status.as_u16(),
            code,
            detail: reason,
            hint,
        }
    }
}

impl Problem {
    #[must_use]
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status.as_u16();
        self
    }
}

fn urn(code: &str) -> String {
    format!("urn:orchestrator:problem:{code}")
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let code = match error {
            ControlError::Gone => Code::ShuttingDown,
            ControlError::Late => Code::Late,
            ControlError::NotStored(_) => Code::NotStored,
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
