//! What a script can answer: a turn of the model, or an error of the API.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Turn(Turn),
    Error(Failure),
}

/// What the model says. The stop reason follows from the blocks: `tool_use` or `end_turn`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    pub blocks: Vec<Block>,
    /// Extra response headers, for example `anthropic-ratelimit-unified-5h-utilization`.
    pub headers: Vec<(String, String)>,
    pub pacing: Pacing,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    Text(String),
    /// The id is given by the server, fresh each time.
    ToolUse {
        name: String,
        input: Value,
    },
}

/// How slowly a turn is streamed. Zero is as fast as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pacing {
    /// Before the first byte, in milliseconds.
    pub first_ms: u64,
    /// Before each chunk of about 40 characters, in milliseconds.
    pub chunk_ms: u64,
}

/// An HTTP error with any headers and body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// HTTP status, 400 to 599; anything else is sent as 500.
    pub status: u16,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Turn {
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            blocks: vec![Block::Text(text.into())],
            ..Self::default()
        }
    }

    pub(super) fn stop_reason(&self) -> &'static str {
        let calls_a_tool = self
            .blocks
            .iter()
            .any(|block| matches!(block, Block::ToolUse { .. }));
        if calls_a_tool { "tool_use" } else { "end_turn" }
    }
}

impl Failure {
    /// The API's error shape: `{"type":"error","error":{"type":KIND,"message":...}}`.
    pub fn new(status: u16, kind: &str, message: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: json!({"type": "error", "error": {"type": kind, "message": message}}),
        }
    }

    /// The limit of a subscription: 429 with the unified headers that Claude Code reads.
    /// `claim` is `five_hour`, `seven_day`, `seven_day_opus` or `seven_day_sonnet`;
    /// `reset` is in seconds since the epoch.
    pub fn usage_limit(claim: &str, reset: i64) -> Self {
        let window = if claim == "five_hour" { "5h" } else { "7d" };
        let unified = |name: &str| format!("anthropic-ratelimit-unified-{name}");
        let mut failure = Self::new(
            429,
            "rate_limit_error",
            "This request would exceed your account's rate limit. Please try again later.",
        );
        failure.headers = vec![
            (unified("status"), "rejected".into()),
            (unified("reset"), reset.to_string()),
            (unified("representative-claim"), claim.into()),
            (unified("fallback"), "unavailable".into()),
            (unified(&format!("{window}-utilization")), "1.0".into()),
            (unified(&format!("{window}-reset")), reset.to_string()),
        ];
        failure
    }

    /// 529, as sent when the service is at capacity.
    pub fn overloaded() -> Self {
        Self::new(529, "overloaded_error", "Overloaded")
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "authentication_error", "Invalid bearer token")
    }

    /// 401 for an API key that does not exist.
    pub fn invalid_key() -> Self {
        Self::new(401, "authentication_error", "invalid x-api-key")
    }

    /// 403 for a login that its owner, or the service, has ended.
    pub fn revoked() -> Self {
        Self::new(403, "permission_error", "OAuth token has been revoked")
    }

    /// 403 for a login whose organisation does not let subscriptions be used here.
    pub fn not_allowed() -> Self {
        Self::new(
            403,
            "permission_error",
            "OAuth authentication is currently not allowed for this organization",
        )
    }

    /// A 429 without unified headers: too many requests a minute, no quota spent.
    pub fn too_many_requests() -> Self {
        Self::new(
            429,
            "rate_limit_error",
            "Number of requests has exceeded your per-minute rate limit",
        )
    }

    /// 400 when prepaid credit is used up.
    pub fn no_credit() -> Self {
        Self::new(
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. \
             Please go to Plans & Billing to upgrade or purchase credits.",
        )
    }

    /// 404 for a model that does not exist, or not for this account.
    pub fn no_such_model() -> Self {
        Self::new(404, "not_found_error", "model: no-such-model")
    }

    pub fn server_error() -> Self {
        Self::new(500, "api_error", "Internal server error")
    }
}
