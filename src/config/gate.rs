//! A gate as it is configured.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::entries::Entry;
use super::units::format_duration;
use super::value::{AGENT, HIDDEN, Value};

/// A command that must pass on the merged tree before it becomes the branch. Its `Debug` hides the
/// values of its environment.
#[derive(Clone, PartialEq, Eq)]
pub struct Gate {
    /// 1 to 40 of `a-z`, `0-9` and `-`; no other gate has it.
    pub name: String,
    pub command: GateCommand,
    pub timeout: Duration,
    pub place: GatePlace,
    /// It reaches the network.
    pub network: bool,
    /// It has a directory that is kept between its runs.
    pub cache: bool,
    /// Values may be secret.
    pub environment: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateCommand {
    /// For `sh -c`.
    Shell(String),
    /// A program and its arguments.
    Words(Vec<String>),
}

/// Which image a gate runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatePlace {
    /// The one that agents run in.
    Agent,
    Image(String),
}

impl GateCommand {
    /// The program and its arguments.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Shell(text) => vec!["sh".to_owned(), "-c".to_owned(), text.clone()],
            Self::Words(words) => words.clone(),
        }
    }

    /// As people read it: the shell's text, or the words with spaces between.
    pub fn shown(&self) -> String {
        match self {
            Self::Shell(text) => text.clone(),
            Self::Words(words) => words.join(" "),
        }
    }
}

impl Gate {
    /// Each entry has every key of the table, read by its own kind.
    pub(super) fn from_entry(entry: &Entry) -> Self {
        let text = |key: &str| match entry.get(key) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let map = |key: &str| match entry.get(key) {
            Some(Value::Map(map)) => map.clone(),
            _ => BTreeMap::new(),
        };
        let yes = |key: &str| matches!(entry.get(key), Some(Value::Boolean(true)));
        Self {
            name: text("name"),
            command: match entry.get("command") {
                Some(Value::Words(words)) => GateCommand::Words(words.clone()),
                _ => GateCommand::Shell(text("command")),
            },
            timeout: match entry.get("timeout") {
                Some(Value::Duration(timeout)) => *timeout,
                _ => Duration::ZERO,
            },
            place: match map("where").remove("image") {
                Some(image) => GatePlace::Image(image),
                None => GatePlace::Agent,
            },
            network: yes("network"),
            cache: yes("cache"),
            environment: map("environment"),
        }
    }

    /// As it would be written, without what may be secret.
    pub(super) fn shown(&self) -> Json {
        let names = self.environment.keys();
        self.written(names.map(|name| (name.clone(), json!(HIDDEN))).collect())
    }

    /// As it would be written: everything that its outcome may hang on. Not for showing.
    pub fn definition(&self) -> Json {
        let values = self.environment.iter();
        self.written(
            values
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect(),
        )
    }

    fn written(&self, environment: serde_json::Map<String, Json>) -> Json {
        // No `..` here: a new field that is not shown does not compile.
        let Self {
            name,
            command,
            timeout,
            place,
            network,
            cache,
            environment: _,
        } = self;
        json!({
            "name": name,
            "command": match command {
                GateCommand::Shell(text) => json!(text),
                GateCommand::Words(words) => json!(words),
            },
            "timeout": format_duration(*timeout),
            "where": match place {
                GatePlace::Agent => json!(AGENT),
                GatePlace::Image(image) => json!({"image": image}),
            },
            "network": network,
            "cache": cache,
            "environment": environment,
        })
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shown())
    }
}
