//! The configuration in effect as another program can compare it, and what would change.

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::gate::Gate;
use super::show;
use super::types::Config;
use crate::model::about::Setting;

/// Digits of a digest: two values of one key are told apart, nothing more.
const DIGITS: usize = 16;

/// A key whose value in a running supervisor is not that of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub key: String,
    /// As `config show` shows them; the same text twice when what differs is hidden.
    pub from: Json,
    pub to: Json,
    pub applies: Applies,
}

/// When a changed key has its effect on a fleet whose agents run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// The supervisor alone reads it.
    AtOnce,
    /// A container is made from it, and a running one is left as it is.
    AtNextStart,
    /// It says which fleet is meant.
    Never,
}

impl Applies {
    fn of(key: &str) -> Self {
        let of_containers = [
            "model",
            "claudeVersion",
            "image",
            "dockerfile",
            "environment",
        ];
        match key {
            "project" | "repositoryUrl" | "stateDirectory" => Self::Never,
            _ if of_containers.contains(&key) => Self::AtNextStart,
            _ if key.starts_with("container.") || key.starts_with("git.") => Self::AtNextStart,
            _ => Self::AtOnce,
        }
    }
}

/// Every key, in the order of the table. `salt` goes into the digests.
pub fn settings(config: &Config, salt: &str) -> Vec<Setting> {
    show::values(config)
        .into_iter()
        .map(|(key, value)| Setting {
            key: key.to_owned(),
            digest: digest(salt, key, &exact(config, key, &value)),
            value,
        })
        .collect()
}

/// Where `wanted` differs from what a supervisor runs with. A key only one of both knows is left
/// out: it came or went with a version.
pub fn changes(running: &[Setting], salt: &str, wanted: &Config) -> Vec<Change> {
    let differs = |new: Setting| {
        let old = running.iter().find(|old| old.key == new.key)?;
        (old.digest != new.digest).then(|| Change {
            applies: Applies::of(&new.key),
            from: old.value.clone(),
            to: new.value,
            key: new.key,
        })
    };
    settings(wanted, salt)
        .into_iter()
        .filter_map(differs)
        .collect()
}

/// The value itself where `shown` hides a part of it.
fn exact(config: &Config, key: &str, shown: &Json) -> Json {
    match key {
        "repositoryUrl" => json!(config.repository_url),
        "environment" => json!(config.environment),
        "gates" => config.gates.iter().map(Gate::definition).collect(),
        _ => shown.clone(),
    }
}

fn digest(salt: &str, key: &str, value: &Json) -> String {
    use std::fmt::Write as _;
    let text = format!("{salt}\n{key}\n{value}");
    let bytes = Sha256::digest(text.as_bytes());
    bytes
        .iter()
        .take(DIGITS / 2)
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Inputs, load};

    fn config() -> Config {
        let root = tempfile::tempdir().unwrap();
        let document = json!({
            "repositoryUrl": "https://user:first@example.com/r.git",
            "claudeConfigs": root.path().join("*.json"),
            "workerCount": 2,
            "stateDirectory": root.path().join("state"),
            "environment": {"TOKEN": "one"},
        });
        let directory = root.path().join("config");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("orchestrator.json"), document.to_string()).unwrap();
        load(&directory, &Inputs::default()).unwrap().config
    }

    #[test]
    fn what_differs_is_named_with_both_values_and_when_it_applies() {
        let running = config();
        let told = settings(&running, "salt");
        assert_eq!(changes(&told, "salt", &running), []);
        let mut wanted = running.clone();
        wanted.worker_count = 3;
        wanted.container.pids += 1;
        wanted.fetch_interval += Duration::from_secs(1);
        let found = changes(&told, "salt", &wanted);
        let keys: Vec<(&str, Applies)> =
            found.iter().map(|c| (c.key.as_str(), c.applies)).collect();
        assert_eq!(
            keys,
            [
                ("workerCount", Applies::AtOnce),
                ("container.pids", Applies::AtNextStart),
                ("fetchInterval", Applies::AtOnce),
            ]
        );
        assert_eq!((&found[0].from, &found[0].to), (&json!(2), &json!(3)));
    }

    #[test]
    fn what_is_hidden_is_compared_and_stays_hidden() {
        let running = config();
        let told = settings(&running, "salt");
        let text = serde_json::to_string(&told).unwrap();
        assert!(
            !text.contains("first") && !text.contains("\"one\""),
            "{text}"
        );
        let mut wanted = running.clone();
        wanted.repository_url = "https://user:second@example.com/r.git".into();
        wanted.environment.insert("TOKEN".into(), "two".into());
        let found = changes(&told, "salt", &wanted);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].applies, Applies::Never);
        let text = format!("{found:?}");
        assert!(!text.contains("second") && !text.contains("two"), "{text}");
    }

    #[test]
    fn a_key_of_another_version_is_no_change() {
        let running = config();
        let mut told = settings(&running, "salt");
        told.retain(|setting| setting.key != "push");
        told.push(Setting {
            key: "fromTheFuture".into(),
            value: json!(1),
            digest: String::new(),
        });
        assert_eq!(changes(&told, "salt", &running), []);
    }
}
