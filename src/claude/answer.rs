//! What a hook prints: the supervisor's answer in Claude Code's output format.

use serde_json::{Value, json};

use crate::model::HookAnswer;

/// The supervisor said something that this event has no words for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {event} hook cannot be answered with {answer}")]
pub struct Unsayable {
    pub event: String,
    pub answer: &'static str,
}

/// The JSON for stdout; `None`: print nothing, the action goes on.
///
/// A Stop that is told to continue becomes a plain user message "Stop hook feedback: TEXT". A
/// permission request that is denied leaves no dialog behind.
pub fn render(event: &str, answer: &HookAnswer) -> Result<Option<Value>, Unsayable> {
    let unsayable = |answer| Unsayable {
        event: event.to_owned(),
        answer,
    };
    match (answer, event) {
        (HookAnswer::LetGo, _) => Ok(None),
        (HookAnswer::Continue { text, .. }, "Stop") => {
            Ok(Some(json!({"decision": "block", "reason": text})))
        }
        (HookAnswer::Deny { message }, "PermissionRequest") => {
            Ok(Some(json!({"hookSpecificOutput": {
                "hookEventName": "PermissionRequest",
                "decision": {"behavior": "deny", "message": message},
            }})))
        }
        (HookAnswer::Deny { message }, "PreToolUse") => Ok(Some(json!({"hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": "deny",
            "permissionDecisionReason": message,
        }}))),
        (HookAnswer::Continue { .. }, _) => Err(unsayable("continue")),
        (HookAnswer::Deny { .. }, _) => Err(unsayable("deny")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go_on() -> HookAnswer {
        HookAnswer::Continue {
            text: "next \"task\"\n".to_owned(),
            bring_up_to: None,
        }
    }

    #[test]
    fn a_stop_goes_on_with_the_next_task() {
        assert_eq!(
            render("Stop", &go_on()).unwrap(),
            Some(json!({"decision": "block", "reason": "next \"task\"\n"}))
        );
    }

    #[test]
    fn letting_go_says_nothing() {
        assert_eq!(render("Stop", &HookAnswer::LetGo).unwrap(), None);
        assert_eq!(render("SessionEnd", &HookAnswer::LetGo).unwrap(), None);
    }

    #[test]
    fn a_permission_is_denied_with_a_reason() {
        let deny = HookAnswer::Deny {
            message: "decide yourself".to_owned(),
        };
        let answer = render("PermissionRequest", &deny).unwrap().unwrap();
        assert_eq!(
            answer["hookSpecificOutput"]["decision"],
            json!({"behavior": "deny", "message": "decide yourself"})
        );
        assert_eq!(
            render("Stop", &deny).unwrap_err().to_string(),
            "a Stop hook cannot be answered with deny"
        );
    }

    #[test]
    fn a_task_is_never_swallowed_by_an_event_that_cannot_carry_it() {
        for event in [
            "SessionStart",
            "StopFailure",
            "UserPromptSubmit",
            "SubagentStop",
        ] {
            assert!(render(event, &go_on()).is_err(), "{event}");
        }
    }
}
