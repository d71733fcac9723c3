//! `$CLAUDE_CONFIG_DIR/sessions/<pid>.json`: what a process notes about itself.
//!
//! Written when its status changes, removed at a clean exit, left behind by SIGKILL (seen with
//! 2.1.197). An agent can write these files, so what they say is shown and compared only.

use serde_json::Value;

use super::cut;

/// A few hundred bytes in all recordings.
pub const MAX_BYTES: usize = 64 * 1024;
const MAX_WORD_BYTES: usize = 128;

/// The file's content, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFile {
    /// `idle`, `busy` or `waiting`. Observed: `busy` from the prompt to the end of the turn.
    pub status: String,
    /// `permission prompt` or `dialog open`.
    pub waiting_for: Option<String>,
}

/// `None` for what is no such file, or tells no status.
pub fn parse(bytes: &[u8]) -> Option<SessionFile> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let word = |key: &str| {
        let text = value.get(key)?.as_str()?;
        Some(cut(text, MAX_WORD_BYTES).to_owned())
    };
    Some(SessionFile {
        status: word("status")?,
        waiting_for: word("waitingFor"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_file_and_what_is_none() {
        let busy = br#"{"pid":7,"sessionId":"c233d0f7-0c80-4271-a49e-f13d31ec9b4c","cwd":"/workspace","startedAt":1795268422464,"procStart":"152070","version":"2.1.197","peerProtocol":1,"kind":"interactive","entrypoint":"cli","name":"workspace-31","nameSource":"derived","status":"busy","updatedAt":1795268423226,"statusUpdatedAt":1795268423226}"#;
        let parsed = parse(busy).unwrap();
        assert_eq!((parsed.status.as_str(), parsed.waiting_for), ("busy", None));
        let waiting = br#"{"status":"waiting","waitingFor":"dialog open"}"#;
        assert_eq!(
            parse(waiting).unwrap().waiting_for.as_deref(),
            Some("dialog open")
        );
        for none in [&b""[..], b"{}", b"[1]", b"{\"status\":7}"] {
            assert_eq!(parse(none), None);
        }
    }
}
