//! The transcript: one JSON object a line, written by Claude Code as a conversation goes on. Here
//! only what an answer cost in tokens is read from it.
//!
//! `$CLAUDE_CONFIG_DIR/projects/<slug>/<session>.jsonl`; subagents lie in
//! `<slug>/<session>/subagents/agent-*.jsonl` (seen with 2.1.197). An agent can write these files,
//! so what they say is shown to people and decides nothing.

use serde_json::Value;

/// Tokens of one answer of the API, or a sum of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Everything sent: fresh, written to the cache, and read from it.
    pub input: u64,
    pub output: u64,
}

impl Tokens {
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
        }
    }
}

/// What a line says an answer has used so far, with the answer's id: an answer of several blocks is
/// several lines with one id, of which the last counts. `None` for every other line.
pub fn answer_usage(line: &[u8]) -> Option<(String, Tokens)> {
    let value: Value = serde_json::from_slice(line).ok()?;
    if value.get("type")?.as_str()? != "assistant" {
        return None;
    }
    let message = value.get("message")?;
    let usage = message.get("usage")?;
    let count = |key: &str| usage.get(key).and_then(Value::as_u64).unwrap_or(0);
    let input = count("input_tokens")
        .saturating_add(count("cache_creation_input_tokens"))
        .saturating_add(count("cache_read_input_tokens"));
    let tokens = Tokens {
        input,
        output: count("output_tokens"),
    };
    Some((message.get("id")?.as_str()?.to_owned(), tokens))
}

/// The directory of a working directory's transcripts below `projects/`: every character outside
/// `[A-Za-z0-9]` becomes `-`.
pub fn slug(working_directory: &str) -> String {
    working_directory
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_count_and_caches_are_input() {
        let line = br#"{"type":"assistant","message":{"id":"msg_1","role":"assistant","usage":
            {"input_tokens":10,"cache_creation_input_tokens":300,"cache_read_input_tokens":5000,"output_tokens":8}}}"#;
        let tokens = Tokens {
            input: 5310,
            output: 8,
        };
        assert_eq!(answer_usage(line), Some(("msg_1".to_owned(), tokens)));
        assert_eq!(
            answer_usage(br#"{"type":"user","message":{"role":"user"}}"#),
            None
        );
        assert_eq!(answer_usage(b"{\"type\":\"assist"), None, "half a line");
    }

    #[test]
    fn the_slug_is_as_observed() {
        assert_eq!(
            slug("/srv/q6 dir.with_odd-Chars"),
            "-srv-q6-dir-with-odd-Chars"
        );
        assert_eq!(slug("/workspace"), "-workspace");
    }
}
