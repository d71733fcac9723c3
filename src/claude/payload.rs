//! Hook payloads: the JSON object that Claude Code gives to a hook on stdin.

use serde_json::{Map, Value};

use super::{Error, cut};
use crate::model::{HookFact, SessionId};

const WHAT: &str = "hook payload";
/// The front door's limit for a body as well.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Of what an agent said last: kept as a task's result.
const MAX_LAST_MESSAGE_BYTES: usize = 16 * 1024;
const MAX_MESSAGE_BYTES: usize = 4 * 1024;
const MAX_WORD_BYTES: usize = 128;
const MAX_PATH_BYTES: usize = 4 * 1024;

/// Events that show that something goes on, and no more. From the list of version 2.1.197.
const ACTIVITY: &[&str] = &[
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PostToolBatch",
    "SubagentStart",
    "SubagentStop",
    "PreCompact",
    "PostCompact",
    "TaskCreated",
    "TaskCompleted",
    "ConfigChange",
    "InstructionsLoaded",
    "UserPromptExpansion",
    "CwdChanged",
    "FileChanged",
];
/// States of a background task after which it is not waited for.
const ENDED: &[&str] = &["completed", "failed", "killed", "stopped", "cancelled"];

/// One payload, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedHook {
    pub session: Option<SessionId>,
    /// `hook_event_name`, as it came.
    pub event: String,
    pub fact: HookFact,
    /// It happened inside a subagent: nothing of the main session's turn ended.
    pub subagent: bool,
    pub transcript_path: Option<String>,
    pub cwd: Option<String>,
}

/// Bytes to JSON, bounded.
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge {
            what: WHAT,
            limit: MAX_BYTES,
        });
    }
    serde_json::from_slice(bytes).map_err(|error| Error::NotJson {
        what: WHAT,
        problem: error.to_string(),
    })
}

/// What a payload says. Missing keys are tolerated, all but `hook_event_name`; a key of another
/// type than documented is an error that names it; an unknown event is kept as such.
pub fn parse(payload: &Value) -> Result<ParsedHook, Error> {
    let fields = Fields(
        payload
            .as_object()
            .ok_or_else(|| wrong("(top level)", "an object"))?,
    );
    let event = fields
        .text("hook_event_name", MAX_WORD_BYTES)?
        .filter(|event| !event.is_empty())
        .ok_or_else(|| Error::Missing {
            what: WHAT,
            key: "hook_event_name".to_owned(),
        })?;
    let subagent = event.starts_with("Subagent")
        || fields
            .text("agent_id", MAX_WORD_BYTES)?
            .is_some_and(|id| !id.is_empty());
    Ok(ParsedHook {
        session: fields
            .text("session_id", MAX_WORD_BYTES)?
            .map(SessionId::new),
        fact: fact(&event, subagent, &fields)?,
        event,
        subagent,
        transcript_path: fields.text("transcript_path", MAX_PATH_BYTES)?,
        cwd: fields.text("cwd", MAX_PATH_BYTES)?,
    })
}

fn fact(event: &str, subagent: bool, fields: &Fields<'_>) -> Result<HookFact, Error> {
    let word = |key| Ok::<_, Error>(fields.text(key, MAX_WORD_BYTES)?.unwrap_or_default());
    let message = |key, limit| Ok::<_, Error>(fields.text(key, limit)?.unwrap_or_default());
    Ok(match event {
        // A subagent's end, or its failed turn, ends nothing of the main session.
        "Stop" | "StopFailure" if subagent => HookFact::Activity {
            what: format!("subagent {event}"),
        },
        "SessionStart" => HookFact::SessionStarted {
            source: word("source")?,
        },
        "UserPromptSubmit" => {
            let text = message("prompt", MAX_BYTES)?;
            let machine = text.trim_start().starts_with("<task-notification>");
            HookFact::PromptSubmitted { text, machine }
        }
        "Stop" => HookFact::Stopped {
            background_tasks: fields.running_tasks()?,
            last_message: message("last_assistant_message", MAX_LAST_MESSAGE_BYTES)?,
        },
        "StopFailure" => HookFact::TurnFailed {
            error: word("error")?,
            message: message("last_assistant_message", MAX_MESSAGE_BYTES)?,
        },
        "Notification" => HookFact::Notified {
            notification: word("notification_type")?,
            message: message("message", MAX_MESSAGE_BYTES)?,
        },
        "PermissionRequest" => HookFact::PermissionAsked {
            tool: word("tool_name")?,
        },
        "SessionEnd" => HookFact::SessionEnded {
            reason: word("reason")?,
        },
        _ if ACTIVITY.contains(&event) => HookFact::Activity {
            what: [event, &word("tool_name")?].join(" ").trim_end().to_owned(),
        },
        _ => HookFact::Unknown {
            event: event.to_owned(),
        },
    })
}

/// Typed access to an object's keys; `null` counts as missing.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    /// Cut at `limit` bytes, between characters.
    fn text(&self, key: &str, limit: usize) -> Result<Option<String>, Error> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(cut(text, limit).to_owned())),
            Some(_) => Err(wrong(key, "a string")),
        }
    }

    fn running_tasks(&self) -> Result<u32, Error> {
        let tasks = match self.0.get("background_tasks") {
            None | Some(Value::Null) => return Ok(0),
            Some(Value::Array(tasks)) => tasks,
            Some(_) => return Err(wrong("background_tasks", "a list")),
        };
        let running = tasks
            .iter()
            .filter(|task| {
                let status = task.get("status").and_then(Value::as_str);
                !status.is_some_and(|status| ENDED.contains(&status))
            })
            .count();
        Ok(u32::try_from(running).unwrap_or(u32::MAX))
    }
}

fn wrong(key: &str, wanted: &'static str) -> Error {
    Error::WrongType {
        what: WHAT,
        key: key.to_owned(),
        wanted,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn sample(text: &str) -> ParsedHook {
        parse(&decode(text.as_bytes()).unwrap()).unwrap()
    }

    macro_rules! recorded {
        ($name:literal) => {
            sample(include_str!(concat!("samples/hooks/", $name, ".json")))
        };
    }

    #[test]
    fn the_recorded_life_of_a_session() {
        let start = recorded!("SessionStart-startup");
        assert_eq!(
            start.fact,
            HookFact::SessionStarted {
                source: "startup".into()
            }
        );
        assert_eq!(start.cwd.as_deref(), Some("/workspace"));
        assert!(start.session.is_some() && start.transcript_path.is_some() && !start.subagent);
        let prompt = recorded!("UserPromptSubmit").fact;
        assert!(
            matches!(&prompt, HookFact::PromptSubmitted { text, machine: false } if !text.is_empty()),
            "{prompt:?}"
        );
        let stop = recorded!("Stop").fact;
        assert!(
            matches!(&stop, HookFact::Stopped { background_tasks: 0, last_message } if !last_message.is_empty()),
            "{stop:?}"
        );
        assert_eq!(
            recorded!("SessionEnd-prompt-input-exit").fact,
            HookFact::SessionEnded {
                reason: "prompt_input_exit".into()
            }
        );
        assert_eq!(
            recorded!("SessionStart-compact").fact,
            HookFact::SessionStarted {
                source: "compact".into()
            }
        );
    }

    #[test]
    fn the_recorded_failures_and_questions() {
        let HookFact::TurnFailed { error, message } = recorded!("StopFailure-rate-limit").fact
        else {
            panic!("a failed turn");
        };
        assert_eq!(error, "rate_limit");
        assert!(
            message.starts_with("You've hit your session limit · resets "),
            "{message}"
        );
        let HookFact::TurnFailed { error, .. } =
            recorded!("StopFailure-authentication-failed").fact
        else {
            panic!("a failed turn");
        };
        assert_eq!(error, "authentication_failed");
        let HookFact::PermissionAsked { tool } = recorded!("PermissionRequest").fact else {
            panic!("a question");
        };
        assert!(!tool.is_empty());
        for (parsed, kind) in [
            (recorded!("Notification-idle-prompt"), "idle_prompt"),
            (
                recorded!("Notification-permission-prompt"),
                "permission_prompt",
            ),
        ] {
            let HookFact::Notified {
                notification,
                message,
            } = parsed.fact
            else {
                panic!("a notification");
            };
            assert_eq!(notification, kind);
            assert!(!message.is_empty());
        }
    }

    #[test]
    fn signs_of_life_are_only_that() {
        for (parsed, what) in [
            (recorded!("PostToolUse"), "PostToolUse Bash"),
            (recorded!("PostToolUseFailure"), "PostToolUseFailure Bash"),
            (recorded!("PreCompact"), "PreCompact"),
            (recorded!("PostCompact"), "PostCompact"),
            (recorded!("SubagentStart"), "SubagentStart"),
            (recorded!("SubagentStop"), "SubagentStop"),
        ] {
            assert_eq!(parsed.subagent, what.starts_with("Subagent"));
            let HookFact::Activity { what: said } = parsed.fact else {
                panic!("activity, not {parsed:?}");
            };
            assert!(said.starts_with(what.split(' ').next().unwrap()), "{said}");
        }
        assert!(
            recorded!("SubagentStop-compact").subagent,
            "the agent type is empty there"
        );
    }

    #[test]
    fn a_subagents_limit_is_not_the_sessions() {
        let parsed = parse(&json!({
            "hook_event_name": "StopFailure", "agent_id": "a1", "error": "rate_limit"
        }))
        .unwrap();
        assert!(parsed.subagent);
        assert_eq!(
            parsed.fact,
            HookFact::Activity {
                what: "subagent StopFailure".into()
            }
        );
    }

    #[test]
    fn a_task_notification_is_not_our_prompt() {
        let parsed = parse(&json!({
            "hook_event_name": "UserPromptSubmit",
            "prompt": "<task-notification>\n<summary>x</summary>"
        }))
        .unwrap();
        assert!(matches!(
            parsed.fact,
            HookFact::PromptSubmitted { machine: true, .. }
        ));
    }

    #[test]
    fn only_running_background_tasks_count() {
        let parsed = parse(&json!({"hook_event_name": "Stop", "background_tasks": [
            {"id": "a", "status": "running"}, {"id": "b", "status": "completed"}, {"id": "c"}
        ]}))
        .unwrap();
        assert!(matches!(
            parsed.fact,
            HookFact::Stopped {
                background_tasks: 2,
                ..
            }
        ));
    }

    #[test]
    fn a_wrong_type_is_an_error_that_names_the_key() {
        for (payload, text) in [
            (
                json!([]),
                "hook payload: key `(top level)` is not an object",
            ),
            (json!({}), "hook payload: key `hook_event_name` is missing"),
            (
                json!({"hook_event_name": 1}),
                "hook payload: key `hook_event_name` is not a string",
            ),
            (
                json!({"hook_event_name": "Stop", "background_tasks": 3}),
                "hook payload: key `background_tasks` is not a list",
            ),
            (
                json!({"hook_event_name": "Stop", "session_id": {}}),
                "hook payload: key `session_id` is not a string",
            ),
        ] {
            assert_eq!(parse(&payload).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_event_and_missing_keys_are_kept() {
        let parsed = parse(&json!({"hook_event_name": "Elicitation", "session_id": null})).unwrap();
        assert_eq!(
            parsed.fact,
            HookFact::Unknown {
                event: "Elicitation".into()
            }
        );
        assert_eq!(parsed.session, None);
        assert!(parse(&json!({"hook_event_name": "StopFailure"})).is_ok());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let parsed = parse(&json!({
            "hook_event_name": "Stop", "last_assistant_message": "é".repeat(20_000)
        }))
        .unwrap();
        let HookFact::Stopped { last_message, .. } = parsed.fact else {
            panic!("a stop");
        };
        assert_eq!(last_message.len(), MAX_LAST_MESSAGE_BYTES);
        assert!(matches!(
            decode(&vec![b' '; MAX_BYTES + 1]),
            Err(Error::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_in_makes_it_panic(
            event in "(Stop|StopFailure|UserPromptSubmit|Notification|[a-zA-Z]{0,12})",
            key in "(prompt|error|agent_id|background_tasks|message|last_assistant_message|cwd)",
            text in "\\PC{0,200}",
            number: i64,
        ) {
            for value in [json!(text), json!(number), json!([text]), json!({"a": number}), json!(null)] {
                let _ = parse(&json!({"hook_event_name": event, key.clone(): value}));
            }
            let _ = decode(text.as_bytes()).map(|value| parse(&value));
        }
    }
}
