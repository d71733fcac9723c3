//! Who may ask.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use subtle::ConstantTimeEq as _;

use super::{Code, Problem};

/// How a request shows that it may ask.
#[derive(Clone)]
pub enum Access {
    /// The Unix socket: whoever may open the file may ask.
    Local,
    /// TCP: `authorization: Bearer` with this token.
    Token(String),
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "Local",
            Self::Token(_) => "Token([redacted])",
        })
    }
}

/// Lets a request through or answers 401. Everything but `/health` stands behind it.
pub(super) async fn check(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    if let Access::Token(token) = access.as_ref() {
        let shown = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(bearer);
        let Some(shown) = shown else {
            return Problem::new(Code::Unauthorized, "the request carries no bearer token")
                .into_response();
        };
        // An empty token would let everybody in; nobody may get in by a mistake in a file.
        if token.is_empty() || !bool::from(shown.as_bytes().ct_eq(token.as_bytes())) {
            return Problem::new(Code::Unauthorized, "the bearer token is not the right one")
                .into_response();
        }
    }
    next.run(request).await
}

/// The token of an `authorization` header. The scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case_and_the_token_is_not_empty() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("Bearer "), None);
        assert_eq!(bearer("abc"), None);
    }

    #[test]
    fn debug_does_not_show_the_token() {
        assert!(!format!("{:?}", Access::Token("sesame".into())).contains("sesame"));
    }
}
