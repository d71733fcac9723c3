//! The environment variables of the supervisor, in one place: one per key, its dotted path in
//! capitals with `_`, behind `ORCHESTRATOR_`. Maps are JSON objects.
//!
//! Beside these: [`CONFIG_VARIABLE`] names the config directory, [`STATE_HOME_VARIABLE`] moves the
//! default state directory, [`HOME_VARIABLE`] is what `~` means. Nothing here reads the process environment;
//! it is handed in.

use std::collections::BTreeMap;

use super::keys::{KEYS, Key};
use super::problem::{Place, Problem, nearest};

/// What all variables of ours begin with.
pub const PREFIX: &str = "ORCHESTRATOR_";

/// The config directory, when `--config` is not given; read by the command line.
pub const CONFIG_VARIABLE: &str = "ORCHESTRATOR_CONFIG";

/// Base of the default state directory, by the XDG base directory specification.
pub const STATE_HOME_VARIABLE: &str = "XDG_STATE_HOME";

/// What `~` means.
pub const HOME_VARIABLE: &str = "HOME";

/// What a gate is told of itself. A supervisor that runs within a gate has it around itself.
pub const GATE_VARIABLE: &str = "ORCHESTRATOR_GATE";

/// The variable that sets the key with this path: `container.tmpSize` becomes
/// `ORCHESTRATOR_CONTAINER_TMP_SIZE`.
pub fn variable(path: &str) -> String {
    let mut name = PREFIX.to_owned();
    for c in path.chars() {
        match c {
            '.' => name.push('_'),
            c if c.is_ascii_uppercase() => {
                name.push('_');
                name.push(c);
            }
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

/// Every variable with the key it sets, in the order of the table.
pub fn variables() -> impl Iterator<Item = (String, &'static Key)> {
    KEYS.iter().map(|key| (variable(key.path), key))
}

/// Variables that look like one of ours, misspelt. Others with the prefix may be meant for
/// somebody else and are left alone.
pub(super) fn misspelt(environment: &BTreeMap<String, String>) -> Vec<Problem> {
    let known: Vec<String> = variables().map(|(name, _)| name).collect();
    environment
        .keys()
        .filter(|name| ![CONFIG_VARIABLE, GATE_VARIABLE].contains(&name.as_str()))
        .filter(|name| !known.contains(name))
        .filter_map(|name| {
            let bare = name.strip_prefix(PREFIX)?;
            let candidates = known.iter().filter_map(|k| k.strip_prefix(PREFIX));
            let near = nearest(bare, candidates)?;
            let place = Place::Environment {
                variable: name.clone(),
            };
            Some(
                Problem::new(place, "sets no key and is ignored")
                    .nearest(Some(format!("{PREFIX}{near}"))),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_variable_of_its_own() {
        let mut names: Vec<String> = variables().map(|(name, _)| name).collect();
        assert!(!names.contains(&CONFIG_VARIABLE.to_owned()));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
        assert_eq!(
            variable("container.tmpSize"),
            "ORCHESTRATOR_CONTAINER_TMP_SIZE"
        );
    }

    #[test]
    fn only_near_misses_are_spoken_of() {
        let environment = [
            "ORCHESTRATOR_WORKERS_COUNT",
            "ORCHESTRATOR_CONFIG",
            "ORCHESTRATOR_XYZZY",
            "OTHER",
        ]
        .map(|name| (name.to_owned(), String::new()));
        let warnings = misspelt(&BTreeMap::from(environment));
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            warnings[0].nearest.as_deref(),
            Some("ORCHESTRATOR_WORKER_COUNT")
        );
    }
}
