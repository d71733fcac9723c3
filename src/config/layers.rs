//! Layers on top of the file, and the merged settings: default < file < environment < `--set`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::keys::{self, Key, Kind};
use super::problem::{Origin, Place, Problem};
use super::value::{self, Value};
use super::{env, file};

/// The value in effect of each key that any layer set, with its origin.
#[derive(Debug, Default)]
pub(super) struct Settings(BTreeMap<&'static str, (Value, Origin)>);

impl Settings {
    /// Sets a key, hiding what lower layers said.
    pub(super) fn set(&mut self, key: &'static Key, value: Value, place: Place) {
        self.0.insert(key.path, (value, Origin::Set(place)));
    }

    /// Replaces the value by a form of it that is worked out; the origin stays.
    pub(super) fn rewrite(&mut self, path: &'static str, value: Value) {
        let origin = self.origin(path);
        self.0.insert(path, (value, origin));
    }

    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        self.0.get(path).map(|(value, _)| value)
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        match self.get(path)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn origin(&self, path: &str) -> Origin {
        self.0
            .get(path)
            .map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// Where to point when the key is part of a problem.
    pub(super) fn place(&self, path: &str, otherwise: Place) -> Place {
        match self.origin(path) {
            Origin::Set(place) => place,
            Origin::Default => otherwise,
        }
    }
}

/// The environment layer; `variables` is the process environment, handed in.
pub(super) fn environment(
    variables: &BTreeMap<String, String>,
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    for (variable, key) in env::variables() {
        let Some(text) = variables.get(&variable) else {
            continue;
        };
        let place = Place::Environment { variable };
        if text.contains(char::REPLACEMENT_CHARACTER) {
            problems.push(Problem::new(place, "the value is not UTF-8").key(key.path));
            continue;
        }
        apply(key, text, place, settings, problems);
    }
    warnings.extend(env::misspelt(variables));
}

/// The command line layer: `--set key=value`; `environment.NAME` sets one entry of the map.
pub(super) fn flags(
    overrides: &[(String, String)],
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
) {
    for (path, text) in overrides {
        let place = Place::Flag { key: path.clone() };
        if let Some(key) = keys::find(path) {
            apply(key, text, place, settings, problems);
        } else if let Some((key, name)) = map_entry(path) {
            match value::read_entry(name, &Json::String(text.clone())) {
                Ok(value) => {
                    let mut map = match settings.get(key.path) {
                        Some(Value::Map(map)) => map.clone(),
                        _ => BTreeMap::new(),
                    };
                    map.insert(name.to_owned(), value);
                    settings.set(key, Value::Map(map), place);
                }
                Err(rejection) => problems.push(file::rejected(key, place, *rejection)),
            }
        } else {
            let (prefix, name) = match path.rsplit_once('.') {
                Some((section, name)) if keys::is_section(section) => (format!("{section}."), name),
                _ => (String::new(), path.as_str()),
            };
            problems.push(file::unknown(place, &prefix, name));
        }
    }
}

fn map_entry(path: &str) -> Option<(&'static Key, &str)> {
    let (start, name) = path.split_once('.')?;
    let key = keys::find(start)?;
    matches!(key.kind, Kind::Map).then_some((key, name))
}

fn apply(
    key: &'static Key,
    text: &str,
    place: Place,
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
) {
    match value::read_text(key, text) {
        Ok(value) => settings.set(key, value, place),
        Err(rejections) => problems.extend(
            rejections
                .into_iter()
                .map(|rejection| file::rejected(key, place.clone(), rejection)),
        ),
    }
}
