//! Errors as `application/problem+json` (RFC 9457) with a code that scripts may rely on.

use std::fmt;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::control::ControlError;

/// One answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    detail: String,
}

/// All codes of this door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 400: a header has no meaning.
    BadHeader,
    /// 400: the body is not a hook payload.
    BadPayload,
    /// 401: no token, or not the one of that agent.
    Unauthorized,
    /// 404: no such route.
    NotFound,
    /// 405: the routes take POST.
    MethodNotAllowed,
    /// 413: more than 1 MiB.
    TooLarge,
    /// 503: not stored; send it again.
    NotStored,
    /// 503: no answer in time; perhaps stored. The same callback id tells.
    Late,
    /// 503: the supervisor is shutting down; send it again.
    Gone,
    /// 503: too many callbacks at once; send it again.
    Busy,
}

impl Code {
    pub fn name(self) -> &'static str {
        match self {
            Self::BadHeader => "BAD_HEADER",
            Self::BadPayload => "BAD_PAYLOAD",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::TooLarge => "BODY_TOO_LARGE",
            Self::NotStored => "NOT_STORED",
            Self::Late => "LATE",
            Self::Gone => "GONE",
            Self::Busy => "BUSY",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadHeader | Self::BadPayload => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotStored | Self::Late | Self::Gone | Self::Busy => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.detail)
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let code = match error {
            ControlError::Gone => Code::Gone,
            ControlError::Late => Code::Late,
            ControlError::NotStored(_) => Code::NotStored,
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "code": self.code.name(),
            "detail": self.detail,
        });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, kind, body.to_string()).into_response()
    }
}
