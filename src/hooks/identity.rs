//! Who a callback comes from: the socket it came through, or the token it shows.

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::{Code, Problem};
use super::spool::Spool;
use crate::model::AgentId;

/// The token that an agent's external session must show; `None`: no such agent, or none allowed.
pub type TokenLookup = Arc<dyn Fn(&AgentId) -> Option<String> + Send + Sync>;

/// How a router knows who is calling.
#[derive(Clone)]
pub enum Identity {
    /// A Unix socket in a directory that only one instance has mounted: whoever can connect is it.
    Fixed {
        agent: AgentId,
        /// The second argument of `bring-up-to.sh`, told in `x-bring-up-to`.
        branch: String,
        /// Read before each new callback; `None` where the instance has no spool.
        spool: Option<Arc<Spool>>,
    },
    /// Loopback: the path names the agent, `authorization: Bearer TOKEN` proves it.
    Token(TokenLookup),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed { agent, .. } => f.debug_tuple("Fixed").field(agent).finish(),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}

/// Says no in the same way, and in the same time, to a wrong token and to an unknown agent.
pub(super) fn check_token(
    lookup: &TokenLookup,
    agent: &AgentId,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        })
        .unwrap_or_default();
    let wanted = lookup(agent).filter(|token| !token.is_empty());
    // Digests have one length, so the comparison does not tell the token's.
    let equal = Sha256::digest(shown.as_bytes())
        .as_slice()
        .ct_eq(Sha256::digest(wanted.as_deref().unwrap_or_default().as_bytes()).as_slice());
    if bool::from(equal) && wanted.is_some() {
        return Ok(());
    }
    Err(Problem::new(
        Code::Unauthorized,
        "no token, or not the token of this agent; send `authorization: Bearer TOKEN`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(agent: &str, authorization: Option<&str>) -> bool {
        let lookup: TokenLookup = Arc::new(|agent| match agent.as_str() {
            "worker-1" => Some("right".to_owned()),
            "worker-2" => Some(String::new()),
            _ => None,
        });
        let mut headers = HeaderMap::new();
        if let Some(text) = authorization {
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
        }
        check_token(&lookup, &AgentId::from(agent), &headers).is_ok()
    }

    #[test]
    fn only_the_agents_own_token_opens() {
        assert!(check("worker-1", Some("Bearer right")));
        assert!(check("worker-1", Some("bearer right")));
        assert!(!check("worker-1", Some("Bearer wrong")));
        assert!(!check("worker-1", Some("right")));
        assert!(!check("worker-1", None));
    }

    #[test]
    fn an_empty_token_never_opens() {
        assert!(!check("worker-2", Some("Bearer ")));
        assert!(!check("worker-2", None));
        assert!(!check("worker-3", None));
        assert!(!check("worker-3", Some("Bearer ")));
    }
}
