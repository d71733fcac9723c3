//! The status line's stdin: the one place where Claude Code tells usage and reset times as numbers.

use serde_json::Value;

use super::{Error, cut};
use crate::model::view::UsageView;
use crate::model::{SessionId, Timestamp};

const WHAT: &str = "status line";
/// A few kB in all recordings.
pub const MAX_BYTES: usize = 1024 * 1024;
const MAX_WORD_BYTES: usize = 128;

/// What was told; everything is optional, and a key of an unexpected type counts as missing: the
/// line is drawn again in seconds, and nothing depends on one of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusLine {
    pub session: Option<SessionId>,
    /// The model's full id.
    pub model: Option<String>,
    pub claude_version: Option<String>,
    /// `cost_usd` is the session's; the token counts are those of the context after the last
    /// answer, which is all this version tells. Rate limits come only with a subscription login.
    pub usage: UsageView,
}

impl StatusLine {
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLarge {
                what: WHAT,
                limit: MAX_BYTES,
            });
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|error| Error::NotJson {
            what: WHAT,
            problem: error.to_string(),
        })?;
        if !value.is_object() {
            return Err(Error::WrongType {
                what: WHAT,
                key: "(top level)".to_owned(),
                wanted: "an object",
            });
        }
        let word = |pointer| word(&value, pointer);
        Ok(Self {
            session: word("/session_id").map(SessionId::new),
            model: word("/model/id"),
            claude_version: word("/version"),
            usage: usage(&value),
        })
    }
}

fn usage(value: &Value) -> UsageView {
    let count = |pointer| value.pointer(pointer).and_then(Value::as_u64);
    let number = |pointer| {
        value
            .pointer(pointer)
            .and_then(Value::as_f64)
            .filter(|n| n.is_finite() && *n >= 0.0)
    };
    UsageView {
        input_tokens: count("/context_window/total_input_tokens").unwrap_or(0),
        output_tokens: count("/context_window/total_output_tokens").unwrap_or(0),
        cost_usd: number("/cost/total_cost_usd").unwrap_or(0.0),
        context_used_percent: number("/context_window/used_percentage"),
        five_hour_percent: number("/rate_limits/five_hour/used_percentage"),
        five_hour_resets_at: epoch(value, "/rate_limits/five_hour/resets_at"),
        seven_day_percent: number("/rate_limits/seven_day/used_percentage"),
        seven_day_resets_at: epoch(value, "/rate_limits/seven_day/resets_at"),
    }
}

fn word(value: &Value, pointer: &str) -> Option<String> {
    let text = value.pointer(pointer)?.as_str()?;
    Some(cut(text, MAX_WORD_BYTES).to_owned())
}

/// Seconds since the epoch, as Claude Code has it.
fn epoch(value: &Value, pointer: &str) -> Option<Timestamp> {
    let seconds = value.pointer(pointer)?.as_i64()?;
    Some(Timestamp(seconds.checked_mul(1000)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_tells_its_windows() {
        let line = StatusLine::parse(include_bytes!("samples/status/oauth.json")).unwrap();
        assert_eq!(line.claude_version.as_deref(), Some("2.1.197"));
        assert_eq!(line.model.as_deref(), Some("claude-opus-4-8"));
        assert!(line.session.is_some());
        assert_eq!(line.usage.input_tokens, 6500);
        assert_eq!(line.usage.context_used_percent, Some(3.0));
        assert_eq!(line.usage.five_hour_percent, Some(41.0));
        assert_eq!(line.usage.seven_day_percent, Some(17.0));
        let resets_at = line.usage.five_hour_resets_at.unwrap();
        assert_eq!(resets_at.0 % 1000, 0);
        assert!(line.usage.seven_day_resets_at.unwrap() > resets_at);
        assert!(line.usage.cost_usd > 0.0);
    }

    #[test]
    fn a_spent_window_shows_a_hundred_per_cent() {
        let line = StatusLine::parse(include_bytes!("samples/status/limited-oauth.json")).unwrap();
        assert_eq!(line.usage.five_hour_percent, Some(100.0));
        assert_eq!(line.usage.seven_day_percent, None);
    }

    #[test]
    fn a_key_and_a_fresh_session_tell_no_windows() {
        for sample in [
            &include_bytes!("samples/status/api-key.json")[..],
            &include_bytes!("samples/status/fresh.json")[..],
        ] {
            let line = StatusLine::parse(sample).unwrap();
            assert_eq!(line.usage.five_hour_percent, None);
            assert_eq!(line.usage.five_hour_resets_at, None);
        }
    }

    #[test]
    fn everything_is_optional_but_the_shape() {
        assert_eq!(StatusLine::parse(b"{}").unwrap(), StatusLine::default());
        let odd = br#"{"model": 3, "cost": [], "rate_limits": {"five_hour": {"resets_at": "x"}}}"#;
        assert_eq!(StatusLine::parse(odd).unwrap(), StatusLine::default());
        assert!(StatusLine::parse(b"[]").is_err());
        assert!(StatusLine::parse(b"").is_err());
    }
}
