//! From a request to a report: headers, body, callback id.

use axum::body::{self, Body};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::problem::{Code, Problem};
use crate::claude::payload;
use crate::claude::{self, ParsedHook};
use crate::control::TreeReport;
use crate::model::{AgentId, CallbackId, CommitId, HookReport, Incarnation};

const MAX_HEADER_BYTES: usize = 64;
/// Of a tree, and of each of its paths in characters; as the helper tells them.
const MAX_PATHS: usize = 50;
const MAX_PATH: usize = 500;

/// What the headers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) callback: Option<String>,
    pub(super) at: Option<String>,
    pub(super) incarnation: Option<Incarnation>,
    pub(super) head: Option<CommitId>,
}

impl Told {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = |name: &'static str| -> Result<Option<String>, Problem> {
            let Some(value) = headers.get(name) else {
                return Ok(None);
            };
            match value.to_str() {
                Ok(text) if (1..=MAX_HEADER_BYTES).contains(&text.len()) => {
                    Ok(Some(text.to_owned()))
                }
                _ => Err(bad_header(name, "1 to 64 plain characters")),
            }
        };
        let callback = text("x-callback-id")?;
        if callback.as_deref().is_some_and(|id| !is_callback_id(id)) {
            return Err(bad_header("x-callback-id", "1 to 64 of [A-Za-z0-9._-]"));
        }
        let incarnation = text("x-incarnation")?
            .map(|text| text.parse().map(Incarnation))
            .transpose()
            .map_err(|_| bad_header("x-incarnation", "a number"))?;
        let head = text("x-head")?;
        if head.as_deref().is_some_and(|head| !is_commit(head)) {
            return Err(bad_header("x-head", "a full commit id"));
        }
        Ok(Self {
            callback,
            at: text("x-callback-at")?,
            incarnation,
            head: head.map(CommitId::new),
        })
    }
}

fn bad_header(name: &str, wanted: &str) -> Problem {
    Problem::new(Code::BadHeader, format!("header `{name}` is not {wanted}"))
}

pub(super) fn is_callback_id(text: &str) -> bool {
    (1..=MAX_HEADER_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The whole body, or 413.
pub(super) async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Code::TooLarge,
            format!("the body is larger than {} bytes", payload::MAX_BYTES),
        )
    };
    let announced: Option<usize> = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    if announced.is_some_and(|length| length > payload::MAX_BYTES) {
        return Err(too_large());
    }
    // Of a body that ends early nobody waits for the answer, so this is always "too large".
    body::to_bytes(body, payload::MAX_BYTES)
        .await
        .map_err(|_| too_large())
}

/// A callback, ready for `control`.
pub(super) struct Callback {
    pub(super) report: HookReport,
    pub(super) event: String,
    pub(super) raw: serde_json::Value,
}

pub(super) fn understand(agent: &AgentId, told: Told, body: &[u8]) -> Result<Callback, Problem> {
    let bad_payload = |error: claude::Error| Problem::new(Code::BadPayload, error.to_string());
    let raw = payload::decode(body).map_err(bad_payload)?;
    let ParsedHook {
        session,
        event,
        fact,
        ..
    } = claude::parse(&raw).map_err(bad_payload)?;
    let callback = match (told.callback, told.at) {
        (Some(id), _) => id,
        (None, Some(at)) => derived_id(agent, &at, body),
        (None, None) => Uuid::new_v4().to_string(),
    };
    Ok(Callback {
        report: HookReport {
            callback: CallbackId::new(callback),
            agent: agent.clone(),
            incarnation: told.incarnation,
            session,
            head: told.head,
            spooled: false,
            at: None,
            fact,
        },
        event,
        raw,
    })
}

#[derive(Deserialize)]
struct Tree {
    uncommitted: Vec<String>,
}

/// What was uncommitted at a Stop, cut to what the helper tells at most.
pub(super) fn understand_tree(
    agent: AgentId,
    told: Told,
    body: &[u8],
) -> Result<TreeReport, Problem> {
    let callback = told
        .callback
        .ok_or_else(|| bad_header("x-callback-id", "there; it is that of the Stop hook"))?;
    let tree: Tree = serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::BadPayload, error.to_string()))?;
    let paths = tree.uncommitted.into_iter().take(MAX_PATHS);
    Ok(TreeReport {
        agent,
        callback: CallbackId::new(callback),
        uncommitted: paths
            .map(|path| path.chars().take(MAX_PATH).collect())
            .collect(),
    })
}

/// The same call again gives the same id.
fn derived_id(agent: &AgentId, at: &str, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [agent.as_str().as_bytes(), at.as_bytes(), body] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut number = [0; 16];
    number.copy_from_slice(&hash.finalize()[..16]);
    format!("derived-{:032x}", u128::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP: &[u8] = br#"{"hook_event_name": "Stop"}"#;

    fn id(at: Option<&str>, body: &[u8]) -> String {
        let told = Told {
            at: at.map(str::to_owned),
            ..Told::default()
        };
        let callback =
            understand(&AgentId::worker(1), told, body).unwrap_or_else(|p| panic!("{p:?}"));
        callback.report.callback.to_string()
    }

    #[test]
    fn an_id_is_derived_from_time_and_body_or_is_new() {
        assert_eq!(id(Some("1"), STOP), id(Some("1"), STOP));
        assert_ne!(id(Some("1"), STOP), id(Some("2"), STOP));
        assert_ne!(
            id(Some("1"), STOP),
            id(Some("1"), br#"{"hook_event_name": "X"}"#)
        );
        assert_ne!(id(None, STOP), id(None, STOP));
        assert!(is_callback_id(&id(Some("1"), STOP)));
    }

    #[test]
    fn headers_are_checked() {
        let read = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            Told::read(&headers)
        };
        assert_eq!(
            read("x-incarnation", "7").unwrap().incarnation,
            Some(Incarnation(7))
        );
        for (name, value) in [
            ("x-callback-id", "a/b"),
            ("x-callback-id", ""),
            ("x-incarnation", "-1"),
            ("x-head", "main"),
        ] {
            assert!(read(name, value).is_err(), "{name}: {value}");
        }
        assert!(read("x-callback-id", &"a".repeat(65)).is_err());
        assert!(read("x-head", &"a".repeat(40)).is_ok());
    }
}
