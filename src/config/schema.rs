//! What others read: the JSON Schema for editors, and the table for the README.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::keys::{DefaultValue, Entries, KEYS, Key, Kind};
use super::{env, value};

/// JSON Schema (draft 2020-12) of `orchestrator.json`.
pub fn schema() -> Json {
    let mut root = Map::new();
    let about = json!({
        "type": "string",
        "description": "Address of this schema; for editors.",
    });
    root.insert("$schema".to_owned(), about);
    let mut required = Vec::new();
    for key in KEYS {
        let property = property(key);
        match key.path.split_once('.') {
            None => {
                root.insert(key.path.to_owned(), property);
            }
            Some((section, name)) => {
                let section = root.entry(section).or_insert_with(
                    || json!({"type": "object", "additionalProperties": false, "properties": {}}),
                );
                section["properties"][name] = property;
            }
        }
        if matches!(key.default, DefaultValue::Required) {
            required.push(key.path);
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "orchestrator.json",
        "description": "Configuration of one fleet.",
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "not": {"required": ["image", "dockerfile"]},
        "properties": root,
    })
}

fn property(key: &Key) -> Json {
    let mut property = match &key.kind {
        Kind::Text { .. } => json!({"type": "string", "minLength": 1}),
        Kind::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Number { min, max } => json!({"type": "number", "minimum": min, "maximum": max}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Choice(choices) => json!({"enum": choices}),
        Kind::Duration { .. } => {
            json!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"})
        }
        Kind::Size { .. } => {
            json!({"type": "string", "pattern": "^[0-9]+ *([KMGT]i?B|B)$"})
        }
        Kind::Map => json!({
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            "additionalProperties": {"type": "string"},
        }),
        Kind::Command => json!({"anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "minItems": 1, "items": {"type": "string"}},
        ]}),
        Kind::Place => json!({"anyOf": [
            {"const": value::AGENT},
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["image"],
                "properties": {"image": {"type": "string", "minLength": 1}},
            },
        ]}),
        Kind::List(entries) => list(entries),
    };
    let allowed = capital(&value::allowed(&key.kind));
    property["description"] = json!(format!("{} {allowed}.", key.doc));
    property["examples"] = json!([as_json(key, key.example)]);
    if let DefaultValue::Text(text) = key.default {
        property["default"] = as_json(key, text);
    }
    property
}

fn list(entries: &Entries) -> Json {
    let required = |key: &&Key| matches!(key.default, DefaultValue::Required);
    let properties = entries
        .keys
        .iter()
        .map(|key| (key.path.to_owned(), property(key)));
    json!({
        "type": "array",
        "maxItems": entries.most,
        "items": {
            "type": "object",
            "additionalProperties": false,
            "required": entries.keys.iter().filter(required).map(|key| key.path).collect::<Vec<_>>(),
            "properties": properties.collect::<Map<_, _>>(),
        },
    })
}

/// The text form of a value as it is written in the file.
fn as_json(key: &Key, text: &str) -> Json {
    match key.kind {
        Kind::Integer { .. } | Kind::Number { .. } | Kind::Boolean | Kind::Map | Kind::List(_) => {
            serde_json::from_str(text).unwrap_or_default()
        }
        Kind::Place => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        _ => json!(text),
    }
}

fn capital(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// A Markdown table of all keys: key, default, meaning, environment variable. The keys of a list's
/// objects follow it.
pub fn markdown_table() -> String {
    let mut table = String::from(
        "| Key | Default | Meaning | Allowed | Environment variable |\n|---|---|---|---|---|\n",
    );
    for key in KEYS {
        row(
            &mut table,
            key,
            key.path,
            &format!("`{}`", env::variable(key.path)),
        );
        if let Kind::List(entries) = &key.kind {
            for inner in entries.keys {
                row(
                    &mut table,
                    inner,
                    &format!("{}[].{}", key.path, inner.path),
                    "",
                );
            }
        }
    }
    table
}

fn row(table: &mut String, key: &Key, path: &str, variable: &str) {
    let default = match key.default {
        DefaultValue::Required => "**required**".to_owned(),
        DefaultValue::Unset => "none".to_owned(),
        DefaultValue::Text(text) => format!("`{}`", as_json(key, text)),
        DefaultValue::Derived(words) => words.to_owned(),
    };
    let allowed = capital(&value::allowed(&key.kind));
    let _ = writeln!(
        table,
        "| `{path}` | {default} | {} | {allowed} | {variable} |",
        key.doc
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_every_key_with_its_default_and_bounds() {
        let schema = schema();
        for key in KEYS {
            let pointer = format!("/properties/{}", key.path.replace('.', "/properties/"));
            let property = schema.pointer(&pointer).unwrap_or(&Json::Null);
            assert!(property["description"].is_string(), "{}", key.path);
        }
        assert_eq!(
            schema["required"],
            json!(["repositoryUrl", "workerCount", "claudeConfigs"])
        );
        assert_eq!(schema["properties"]["workerCount"]["maximum"], json!(64));
        assert_eq!(
            schema["properties"]["container"]["properties"]["cpus"]["default"],
            json!(2)
        );
        assert_eq!(schema["additionalProperties"], json!(false));
    }

    #[test]
    fn the_table_has_one_row_per_key_and_no_broken_cells() {
        let table = markdown_table();
        let inner = KEYS.iter().map(|key| match &key.kind {
            Kind::List(entries) => entries.keys.len(),
            _ => 0,
        });
        assert_eq!(table.lines().count(), KEYS.len() + inner.sum::<usize>() + 2);
        for line in table.lines() {
            assert_eq!(line.matches('|').count(), 6, "{line}");
        }
    }
}
