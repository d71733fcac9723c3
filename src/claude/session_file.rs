//! `$CLAUDE_CONFIG_DIR/sessions/<pid>.json`: what each running Claude Code says of itself.
//!
//! Written at the start and at every change of status, removed on a clean exit, left behind by a
//! kill (seen with 2.1.197). The agent itself can write it, so it is evidence among others.

use std::path::Path;

use serde_json::Value;

use super::{Error, cut};
use crate::model::{SessionId, Timestamp};

const WHAT: &str = "session file";
/// A few hundred bytes in all recordings.
pub const MAX_BYTES: usize = 64 * 1024;
/// Where the files lie, below the home directory.
pub const DIRECTORY: &str = ".claude/sessions";
const MAX_WORD_BYTES: usize = 128;

/// One session file, with all that is relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFile {
    pub session: SessionId,
    pub version: String,
    /// `idle`, `busy` or `waiting` with 2.1.197.
    pub status: String,
    /// While it waits, for example `dialog open`.
    pub waiting_for: Option<String>,
    /// When the process started; tells a file that was left behind from the present one.
    pub started_at: Option<Timestamp>,
}

impl SessionFile {
    /// Every key that is relied on must be there: a file of another shape is an error that names
    /// the key, so that its reader falls back to other signals.
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
        Ok(Self {
            session: SessionId::new(word(&value, "sessionId")?),
            version: word(&value, "version")?,
            status: word(&value, "status")?,
            waiting_for: word(&value, "waitingFor").ok(),
            started_at: value["startedAt"].as_i64().map(Timestamp),
        })
    }
}

fn word(value: &Value, key: &str) -> Result<String, Error> {
    match value.get(key) {
        Some(Value::String(text)) => Ok(cut(text, MAX_WORD_BYTES).to_owned()),
        None | Some(Value::Null) => Err(Error::Missing {
            what: WHAT,
            key: key.to_owned(),
        }),
        Some(_) => Err(Error::WrongType {
            what: WHAT,
            key: key.to_owned(),
            wanted: "a string",
        }),
    }
}

/// Is this name, in [`DIRECTORY`], that of a session file: a process id and `.json`?
pub fn is_name(name: &str) -> bool {
    let path = Path::new(name);
    path.extension().is_some_and(|end| end == "json")
        && path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .is_some_and(|stem| !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("samples/sessions/idle.json");

    #[test]
    fn a_recorded_file_is_understood() {
        let file = SessionFile::parse(RECORDED.as_bytes()).unwrap();
        assert_eq!(file.version, "2.1.197");
        assert_eq!(file.status, "idle");
        assert!(file.started_at.is_some());
        assert_eq!(file.waiting_for, None);
        let dialog = include_bytes!("samples/sessions/dialog.json");
        let waits = SessionFile::parse(dialog).unwrap();
        assert_eq!(waits.status, "waiting");
        assert_eq!(waits.waiting_for.as_deref(), Some("dialog open"));
    }

    #[test]
    fn a_key_that_is_gone_or_different_is_named() {
        for (from, to, says) in [
            ("\"sessionId\"", "\"session\"", "`sessionId` is missing"),
            ("\"idle\"", "3", "`status` is not a string"),
            ("{", "", "not JSON"),
        ] {
            let text = RECORDED.replacen(from, to, 1);
            let error = SessionFile::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn only_numbers_are_names() {
        assert!(is_name("7.json"));
        for name in ["7.json.tmp", ".json", "a.json", "7", "-7.json"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
