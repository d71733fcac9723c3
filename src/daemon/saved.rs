//! The saved state as rows: read whole or not at all, and never by a program that is too old for it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::DaemonError;
use crate::model::about::is_older;
use crate::store::sqlite::LoadedState;
use crate::supervisor::{AgentState, Fleet};

/// Counts up when a row is written that an earlier program would misread, or lacks a field that an
/// earlier one wrote.
const FORMAT: u32 = 1;

/// The row that says who wrote the others last.
const WRITER: &str = "writer";

/// Who wrote the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Writer {
    version: String,
    format: u32,
}

impl Writer {
    fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format: FORMAT,
        }
    }

    /// The row that makes this program the writer; stored before anything else is.
    pub(super) fn row() -> (String, String) {
        let text = serde_json::to_string(&Self::this()).unwrap_or_default();
        (WRITER.to_owned(), text)
    }
}

/// What was saved, as this program understands it.
pub(super) struct Saved {
    /// Without its agents.
    pub(super) fleet: Option<Fleet>,
    pub(super) agents: Vec<AgentState>,
}

/// Errors: a row that cannot be read, or that a newer program wrote and that would lose something
/// if this one wrote it again. Nothing is changed in any case.
pub(super) fn read(saved: &LoadedState) -> Result<Saved, DaemonError> {
    let writer: Option<Writer> = match saved.meta.get(WRITER) {
        Some(text) => Some(parse("its writer", text)?),
        None => None,
    };
    if let Some(writer) = &writer
        && writer.format > FORMAT
    {
        return Err(newer(writer, format!("it has format {}", writer.format)));
    }
    let newer_writer = writer.filter(|w| is_older(env!("CARGO_PKG_VERSION"), &w.version));
    let fleet = match saved.meta.get("fleet") {
        Some(text) => Some(row("the fleet", text, newer_writer.as_ref())?),
        None => None,
    };
    let agents = saved
        .agents
        .iter()
        .map(|(id, text)| row(id.as_str(), text, newer_writer.as_ref()))
        .collect::<Result<_, _>>()?;
    Ok(Saved { fleet, agents })
}

fn row<T: DeserializeOwned + Serialize>(
    what: &str,
    text: &str,
    newer_writer: Option<&Writer>,
) -> Result<T, DaemonError> {
    let read: T = parse(what, text)?;
    if let Some(writer) = newer_writer {
        let (was, again): (Value, Value) = (parse(what, text)?, rewritten(what, &read)?);
        if let Some(lost) = lost(&was, &again) {
            return Err(newer(writer, format!("{what} has `{lost}`")));
        }
    }
    Ok(read)
}

fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, DaemonError> {
    serde_json::from_str(text).map_err(unreadable(what))
}

fn rewritten(what: &str, read: &impl Serialize) -> Result<Value, DaemonError> {
    serde_json::to_value(read).map_err(unreadable(what))
}

fn unreadable(what: &str) -> impl FnOnce(serde_json::Error) -> DaemonError {
    let what = what.to_owned();
    move |cause| DaemonError::State { what, cause }
}

fn newer(writer: &Writer, what: String) -> DaemonError {
    DaemonError::Newer {
        version: writer.version.clone(),
        what,
    }
}

/// A field of `was` that is not in `again`, by its path.
fn lost(was: &Value, again: &Value) -> Option<String> {
    match (was, again) {
        (Value::Object(was), Value::Object(again)) => was.iter().find_map(|(key, value)| {
            let Some(kept) = again.get(key) else {
                return Some(key.clone());
            };
            lost(value, kept).map(|deeper| format!("{key}.{deeper}"))
        }),
        (Value::Array(was), Value::Array(again)) => was
            .iter()
            .zip(again)
            .find_map(|(was, again)| lost(was, again)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{AgentId, SessionId};

    fn state(writer: Option<Writer>, change: impl FnOnce(&mut Value)) -> LoadedState {
        let sessions = (1..).map(|n| SessionId::new(format!("s{n}")));
        let fleet = Fleet::new(&[AgentId::manager()], sessions);
        let agent = &fleet.agents[&AgentId::manager()];
        let mut row = serde_json::to_value(agent).unwrap();
        change(&mut row);
        let bare = Fleet {
            agents: std::collections::BTreeMap::new(),
            ..fleet.clone()
        };
        let mut saved = LoadedState::default();
        saved.agents.insert(AgentId::manager(), row.to_string());
        let bare = serde_json::to_string(&bare).unwrap();
        saved.meta.insert("fleet".into(), bare);
        if let Some(writer) = writer {
            let text = serde_json::to_string(&writer).unwrap();
            saved.meta.insert(WRITER.into(), text);
        }
        saved
    }

    fn writer(version: &str, format: u32) -> Writer {
        let version = version.into();
        Writer { version, format }
    }

    fn said(saved: &LoadedState) -> String {
        match read(saved) {
            Ok(_) => "read".into(),
            Err(error) => format!("{error}; {}", error.hint().unwrap_or_default()),
        }
    }

    #[test]
    fn what_this_program_or_an_earlier_one_wrote_is_read() {
        for writer in [None, Some(Writer::this()), Some(writer("0.0.1", FORMAT))] {
            let saved = read(&state(writer, |_| ())).unwrap();
            assert!(saved.fleet.is_some());
            assert_eq!(saved.agents.len(), 1);
        }
        // A field that was dropped since then.
        let earlier = state(Some(writer("0.0.1", FORMAT)), |row| row["gone"] = json!(1));
        assert_eq!(said(&earlier), "read");
    }

    #[test]
    fn a_newer_format_is_refused_with_both_versions() {
        let text = said(&state(Some(writer("9.0.0", FORMAT + 1)), |_| ()));
        for word in [
            "9.0.0",
            env!("CARGO_PKG_VERSION"),
            "format 2",
            "nothing was changed",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn what_a_newer_program_wrote_is_refused_only_if_something_would_be_lost() {
        assert_eq!(said(&state(Some(writer("9.0.0", FORMAT)), |_| ())), "read");
        let more = state(Some(writer("9.0.0", FORMAT)), |row| {
            row["mood"] = json!({"a": 1});
        });
        assert!(
            said(&more).contains("manager has `mood`"),
            "{}",
            said(&more)
        );
        let deeper = json!({"phase": {"is": "idle"}, "list": [{"a": 1, "b": 2}]});
        let kept = json!({"phase": {"is": "idle"}, "list": [{"a": 1}]});
        assert_eq!(lost(&deeper, &kept).as_deref(), Some("list.b"));
        assert_eq!(lost(&kept, &deeper), None);
    }
}
