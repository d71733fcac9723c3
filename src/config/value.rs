//! From what was written to a typed value, by the kind of its key.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::entries::{self, Entry};
use super::keys::{Key, Kind};
use super::{repository, units};

/// Shown instead of a value that may hold a secret.
pub const HIDDEN: &str = "(hidden)";

/// A value that its key allows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Text and choices.
    Text(String),
    Integer(u64),
    Number(f64),
    Boolean(bool),
    Duration(Duration),
    /// Bytes.
    Size(u64),
    Map(BTreeMap<String, String>),
    /// A program and its arguments.
    Words(Vec<String>),
    List(Vec<Entry>),
}

/// One step into a value that has parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Item(usize),
    Key(String),
}

/// Why a value was not taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rejection {
    /// Within a map or a list: the way to the part that is meant. Empty: the value itself.
    pub way: Vec<Step>,
    /// The name of that part is meant, not its value.
    pub at_name: bool,
    pub message: String,
    pub found: Option<String>,
    pub allowed: Option<String>,
    /// For a key that is not known: the nearest beside it.
    pub nearest: Option<String>,
    pub hint: Option<String>,
}

impl Rejection {
    /// The same, seen from one level further out.
    pub(super) fn within(mut self, step: Step) -> Self {
        self.way.insert(0, step);
        self
    }
}

/// Reads a JSON value for `key`; every reason against it, if there is any.
pub(super) fn read(key: &Key, json: &Json) -> Result<Value, Vec<Rejection>> {
    match (&key.kind, json) {
        (Kind::Map, Json::Object(entries)) => return read_map(entries),
        (Kind::List(entries), Json::Array(items)) => return entries::read(entries, items),
        (Kind::Place, Json::Object(parts)) => return entries::read_place(parts),
        _ => {}
    }
    let value = match (&key.kind, json) {
        (Kind::Text { check, .. }, Json::String(text)) if check(text) => {
            Some(Value::Text(text.clone()))
        }
        (Kind::Choice(choices), Json::String(text)) if choices.contains(&text.as_str()) => {
            Some(Value::Text(text.clone()))
        }
        (Kind::Boolean, Json::Bool(value)) => Some(Value::Boolean(*value)),
        (Kind::Integer { min, max }, Json::Number(number)) => number
            .as_u64()
            .filter(|n| (*min..=*max).contains(n))
            .map(Value::Integer),
        (Kind::Number { min, max }, Json::Number(number)) => number
            .as_f64()
            .filter(|n| (*min..=*max).contains(n))
            .map(Value::Number),
        (Kind::Duration { min, max }, Json::String(text)) => units::parse_duration(text)
            .filter(|d| (*min..=*max).contains(d))
            .map(Value::Duration),
        (Kind::Size { min, max }, Json::String(text)) => units::parse_size(text)
            .filter(|s| (*min..=*max).contains(s))
            .map(Value::Size),
        (Kind::Place, Json::String(text)) if text == AGENT => Some(Value::Text(text.clone())),
        (Kind::Command, json) => entries::command(json),
        _ => None,
    };
    value.ok_or_else(|| {
        vec![Rejection {
            message: complaint(&key.kind, json).to_owned(),
            found: Some(found(key, json)),
            allowed: Some(allowed(&key.kind)),
            hint: hint(key, json),
            ..Rejection::default()
        }]
    })
}

/// The place that has no image of its own.
pub(super) const AGENT: &str = "agent";

/// Reads the text of an environment variable or of `--set` for `key`.
pub(super) fn read_text(key: &Key, text: &str) -> Result<Value, Vec<Rejection>> {
    let json = match key.kind {
        Kind::Integer { .. }
        | Kind::Number { .. }
        | Kind::Boolean
        | Kind::Map
        | Kind::Place
        | Kind::List(_) => {
            serde_json::from_str(text.trim()).unwrap_or_else(|_| Json::String(text.to_owned()))
        }
        _ => Json::String(text.to_owned()),
    };
    read(key, &json)
}

fn read_map(entries: &Map<String, Json>) -> Result<Value, Vec<Rejection>> {
    let mut values = BTreeMap::new();
    let mut rejections = Vec::new();
    for (name, json) in entries {
        match read_entry(name, json) {
            Ok(value) => {
                values.insert(name.clone(), value);
            }
            Err(rejection) => rejections.push(*rejection),
        }
    }
    if rejections.is_empty() {
        Ok(Value::Map(values))
    } else {
        Err(rejections)
    }
}

/// One environment variable for agents. Its value is never shown.
pub(super) fn read_entry(name: &str, json: &Json) -> Result<String, Box<Rejection>> {
    let reject = |message: &str, found: &str, allowed: &str, hint: Option<&str>| {
        Box::new(Rejection {
            way: vec![Step::Key(name.to_owned())],
            at_name: true,
            message: message.to_owned(),
            found: Some(found.to_owned()),
            allowed: Some(allowed.to_owned()),
            nearest: None,
            hint: hint.map(str::to_owned),
        })
    };
    let quoted = format!("{name:?}");
    if !is_variable_name(name) {
        return Err(reject(
            "not a name for an environment variable",
            &quoted,
            "letters, digits and `_`, not beginning with a digit",
            None,
        ));
    }
    if name.starts_with("ORCHESTRATOR_") {
        return Err(reject(
            "names beginning with ORCHESTRATOR_ are set by the supervisor",
            &quoted,
            "any other name",
            None,
        ));
    }
    if CREDENTIALS.contains(&name) {
        return Err(reject(
            "a Claude credential does not belong here: it would not rotate and shows in `docker inspect`",
            &quoted,
            "variables that are no Claude credentials",
            Some(
                "put it under `env` of a settings file that `claudeConfigs` matches, with mode 600",
            ),
        ));
    }
    match json {
        Json::String(text) if !text.contains('\0') => Ok(text.clone()),
        Json::String(_) => Err(reject(
            "the value holds a NUL character",
            HIDDEN,
            "text without NUL",
            None,
        )),
        _ => Err(reject(
            "the value must be text",
            kind_of(json),
            "text; write numbers and booleans in quotes",
            None,
        )),
    }
}

/// What makes Claude Code log in; see "Credential swap" in the facts about it.
const CREDENTIALS: [&str; 3] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
];

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What a kind allows, in words.
pub(super) fn allowed(kind: &Kind) -> String {
    match kind {
        Kind::Text { allowed, .. } => (*allowed).to_owned(),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Number { min, max } => format!("a number from {min} to {max}"),
        Kind::Boolean => "true or false".to_owned(),
        Kind::Choice(choices) => format!("one of {}", choices.join(", ")),
        Kind::Duration { min, max } => format!(
            "a duration with units (ms, s, m, h, d) from {} to {}",
            units::format_duration(*min),
            units::format_duration(*max)
        ),
        Kind::Size { min, max } => format!(
            "a size with a unit (B, KiB, MiB, GiB, TiB) from {} to {}",
            units::format_size(*min),
            units::format_size(*max)
        ),
        Kind::Map => "an object of environment variable names and text values".to_owned(),
        Kind::Command => {
            "text for `sh -c`, or a list of words: a program and its arguments".to_owned()
        }
        Kind::Place => format!("{AGENT:?}, or an object with the key image"),
        Kind::List(entries) => {
            let names: Vec<&str> = entries.keys.iter().map(|key| key.path).collect();
            format!(
                "a list of at most {} objects with the keys {}",
                entries.most,
                names.join(", ")
            )
        }
    }
}

fn complaint(kind: &Kind, json: &Json) -> &'static str {
    let right_type = match kind {
        Kind::Text { .. } | Kind::Choice(_) | Kind::Duration { .. } | Kind::Size { .. } => {
            json.is_string()
        }
        Kind::Integer { .. } => json.is_u64() || json.is_i64(),
        Kind::Number { .. } => json.is_number(),
        Kind::Boolean => json.is_boolean(),
        Kind::Map => json.is_object(),
        Kind::Command => json.is_string() || json.is_array(),
        Kind::Place => json.is_string() || json.is_object(),
        Kind::List(_) => json.is_array(),
    };
    match (right_type, kind) {
        (false, _) => "wrong type of value",
        (true, Kind::Integer { .. } | Kind::Number { .. }) => "number out of range",
        (true, _) => "value not allowed",
    }
}

fn hint(key: &Key, json: &Json) -> Option<String> {
    if json.is_null() {
        return Some("leave the key out to get its default".to_owned());
    }
    match (&key.kind, json) {
        (Kind::Duration { .. } | Kind::Size { .. }, Json::Number(_)) => Some(format!(
            "write a unit and quotes, for example {:?}",
            key.example
        )),
        (Kind::Integer { .. } | Kind::Number { .. } | Kind::Boolean, Json::String(text))
            if serde_json::from_str::<Json>(text).is_ok_and(|inner| read(key, &inner).is_ok()) =>
        {
            Some("leave the quotes away".to_owned())
        }
        (Kind::Text { .. } | Kind::Duration { .. } | Kind::Size { .. } | Kind::Command, _) => {
            Some(format!("for example {:?}", key.example))
        }
        (Kind::Place, _) => Some(format!("for example {}", key.example)),
        (Kind::List(_), Json::Object(_)) => Some("put it into square brackets".to_owned()),
        _ => None,
    }
}

pub(super) fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

/// The value as it may be shown in a message.
fn found(key: &Key, json: &Json) -> String {
    /// Enough to recognise a value, too little to fill a screen.
    const LONGEST: usize = 80;
    let text = match json {
        Json::Array(_) | Json::Object(_) | Json::Null => return kind_of(json).to_owned(),
        Json::String(text) if key.sensitive => match key.kind {
            Kind::Text { .. } => format!("{:?}", repository::redact(text)),
            _ => return HIDDEN.to_owned(),
        },
        other => other.to_string(),
    };
    if text.chars().count() > LONGEST {
        text.chars().take(LONGEST).chain("...".chars()).collect()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::keys::{KEYS, find};

    #[test]
    fn every_default_and_example_is_allowed_by_its_own_key() {
        let nested = KEYS.iter().flat_map(|key| match &key.kind {
            Kind::List(entries) => entries.keys,
            _ => &[],
        });
        for key in KEYS.iter().chain(nested) {
            assert!(
                read_text(key, key.example).is_ok(),
                "example of {}",
                key.path
            );
            if let crate::config::keys::DefaultValue::Text(text) = key.default {
                assert!(read_text(key, text).is_ok(), "default of {}", key.path);
            }
        }
    }

    #[test]
    fn a_number_in_quotes_is_told_to_lose_them() {
        let rejections = read(find("workerCount").unwrap(), &json!("3")).unwrap_err();
        assert_eq!(rejections[0].hint.as_deref(), Some("leave the quotes away"));
        let allowed = rejections[0].allowed.as_deref();
        assert_eq!(allowed, Some("a whole number from 1 to 64"));
        assert_eq!(rejections[0].found.as_deref(), Some("\"3\""));
    }

    #[test]
    fn every_bad_entry_of_a_map_is_named_and_no_value_is_shown() {
        let json = json!({"1X": "a", "ANTHROPIC_API_KEY": "sk-hush", "ORCHESTRATOR_X": "", "N": 4, "OK": "x"});
        let rejections = read(find("environment").unwrap(), &json).unwrap_err();
        let ways: Vec<_> = rejections.iter().map(|r| r.way.clone()).collect();
        let names = ["1X", "ANTHROPIC_API_KEY", "ORCHESTRATOR_X", "N"];
        assert_eq!(ways, names.map(|name| vec![Step::Key(name.to_owned())]));
        assert!(!format!("{rejections:?}").contains("hush"));
    }

    #[test]
    fn a_password_in_a_bad_url_is_not_shown() {
        let key = find("repositoryUrl").unwrap();
        let rejections = read(key, &json!("gopher://me:hush@host/x")).unwrap_err();
        assert!(
            !format!("{rejections:?}").contains("hush"),
            "{rejections:?}"
        );
        let rejections = read(find("environment").unwrap(), &json!("hush")).unwrap_err();
        assert_eq!(rejections[0].found.as_deref(), Some(HIDDEN));
    }
}
