//! Does a payload have the fields that are read from it?

use serde_json::Value;

/// What a field must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Is {
    /// A string that is not empty.
    Text,
    /// Exactly this string.
    Exactly(&'static str),
    Number,
    Flag(bool),
    List,
}

/// Each field by its JSON pointer. `Err` names every one that is missing or different.
pub(super) fn fields(payload: &Value, wanted: &[(&str, Is)]) -> Result<String, String> {
    let wrong: Vec<String> = wanted
        .iter()
        .filter_map(|(pointer, is)| problem(payload.pointer(pointer), pointer, *is))
        .collect();
    if wrong.is_empty() {
        let names: Vec<&str> = wanted
            .iter()
            .map(|(p, _)| p.trim_start_matches('/'))
            .collect();
        return Ok(names.join(", "));
    }
    Err(wrong.join("; "))
}

fn problem(found: Option<&Value>, pointer: &str, is: Is) -> Option<String> {
    let name = pointer.trim_start_matches('/');
    let Some(value) = found.filter(|value| !value.is_null()) else {
        return Some(format!("`{name}` is missing"));
    };
    let wanted = match is {
        Is::Text if value.as_str().is_some_and(|text| !text.is_empty()) => return None,
        Is::Text => "a text".to_owned(),
        Is::Exactly(text) if value == text => return None,
        Is::Exactly(text) => format!("`{text}`"),
        Is::Number if value.is_number() => return None,
        Is::Number => "a number".to_owned(),
        Is::Flag(flag) if *value == flag => return None,
        Is::Flag(flag) => flag.to_string(),
        Is::List if value.is_array() => return None,
        Is::List => "a list".to_owned(),
    };
    let shown: String = value.to_string().chars().take(60).collect();
    Some(format!("`{name}` is {shown}, not {wanted}"))
}

/// What Stop hooks are read for.
pub(super) const STOP: &[(&str, Is)] = &[
    ("/session_id", Is::Text),
    ("/transcript_path", Is::Text),
    ("/cwd", Is::Text),
    ("/stop_hook_active", Is::Flag(false)),
    ("/last_assistant_message", Is::Text),
    ("/background_tasks", Is::List),
];

pub(super) const SESSION_START: &[(&str, Is)] = &[
    ("/session_id", Is::Text),
    ("/transcript_path", Is::Text),
    ("/cwd", Is::Exactly("/workspace")),
    ("/source", Is::Text),
];

pub(super) const PROMPT: &[(&str, Is)] = &[("/session_id", Is::Text), ("/prompt", Is::Text)];

pub(super) const STATUS: &[(&str, Is)] = &[
    ("/session_id", Is::Text),
    ("/model/id", Is::Text),
    ("/version", Is::Text),
    ("/cost/total_cost_usd", Is::Number),
    ("/context_window/total_input_tokens", Is::Number),
    ("/context_window/total_output_tokens", Is::Number),
    ("/context_window/used_percentage", Is::Number),
];

pub(super) const WINDOWS: &[(&str, Is)] = &[
    ("/rate_limits/five_hour/used_percentage", Is::Number),
    ("/rate_limits/five_hour/resets_at", Is::Number),
    ("/rate_limits/seven_day/used_percentage", Is::Number),
    ("/rate_limits/seven_day/resets_at", Is::Number),
];

pub(super) const SESSION_FILE: &[(&str, Is)] = &[
    ("/pid", Is::Number),
    ("/sessionId", Is::Text),
    ("/cwd", Is::Exactly("/workspace")),
    ("/version", Is::Text),
    ("/kind", Is::Exactly("interactive")),
    ("/startedAt", Is::Number),
    ("/status", Is::Text),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    macro_rules! recorded {
        ($name:literal) => {
            sample(include_str!(concat!(
                "../../claude/samples/",
                $name,
                ".json"
            )))
        };
    }

    #[test]
    fn what_was_recorded_has_every_field() {
        for (payload, wanted) in [
            (recorded!("hooks/Stop"), STOP),
            (recorded!("hooks/SessionStart-startup"), SESSION_START),
            (recorded!("hooks/UserPromptSubmit"), PROMPT),
            (recorded!("status/oauth"), STATUS),
            (recorded!("status/oauth"), WINDOWS),
            (recorded!("sessions/idle"), SESSION_FILE),
        ] {
            fields(&payload, wanted).unwrap();
        }
    }

    #[test]
    fn each_field_that_is_dropped_or_changed_is_found_and_named() {
        for (payload, wanted) in [
            (recorded!("hooks/Stop"), STOP),
            (recorded!("hooks/SessionStart-startup"), SESSION_START),
            (recorded!("hooks/UserPromptSubmit"), PROMPT),
            (recorded!("status/oauth"), STATUS),
            (recorded!("status/oauth"), WINDOWS),
            (recorded!("sessions/idle"), SESSION_FILE),
        ] {
            for (pointer, _) in wanted {
                let name = pointer.trim_start_matches('/');
                let mut dropped = payload.clone();
                *dropped.pointer_mut(pointer).unwrap() = Value::Null;
                let said = fields(&dropped, wanted).unwrap_err();
                assert_eq!(said, format!("`{name}` is missing"));
                let mut changed = payload.clone();
                *changed.pointer_mut(pointer).unwrap() = serde_json::json!({"new": "form"});
                let said = fields(&changed, wanted).unwrap_err();
                assert!(said.starts_with(&format!("`{name}` is {{")), "{said}");
            }
        }
    }
}
