//! Values that have parts: lists of objects with keys of their own. Every part that is wrong is
//! named by the way to it.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::keys::{DefaultValue, Entries, Key, is_word};
use super::problem::nearest;
use super::value::{self, Rejection, Step, Value, kind_of};

/// One object of a list: every key of its table that has a value or a default.
pub(super) type Entry = BTreeMap<&'static str, Value>;

/// A longer command belongs into a script.
const LONGEST_COMMAND: usize = 16 * 1024;
const MOST_WORDS: usize = 256;

/// Reads the objects of a list.
pub(super) fn read(entries: &'static Entries, items: &[Json]) -> Result<Value, Vec<Rejection>> {
    let mut list = Vec::new();
    let mut rejections: Vec<Rejection> = too_many(entries, items).into_iter().collect();
    for (number, item) in items.iter().enumerate() {
        match read_one(entries, item) {
            Ok(entry) => list.push(entry),
            Err(inner) => rejections.extend(
                inner
                    .into_iter()
                    .map(|rejection| rejection.within(Step::Item(number))),
            ),
        }
    }
    rejections.extend(repeated(entries, items));
    if rejections.is_empty() {
        Ok(Value::List(list))
    } else {
        Err(rejections)
    }
}

fn too_many(entries: &Entries, items: &[Json]) -> Option<Rejection> {
    (items.len() > entries.most).then(|| Rejection {
        message: "the list is too long".to_owned(),
        found: Some(items.len().to_string()),
        allowed: Some(format!("at most {}", entries.most)),
        ..Rejection::default()
    })
}

fn read_one(entries: &'static Entries, item: &Json) -> Result<Entry, Vec<Rejection>> {
    let Json::Object(parts) = item else {
        let names: Vec<&str> = entries.keys.iter().map(|key| key.path).collect();
        return Err(vec![Rejection {
            message: "wrong type of value".to_owned(),
            found: Some(kind_of(item).to_owned()),
            allowed: Some(format!("an object with the keys {}", names.join(", "))),
            ..Rejection::default()
        }]);
    };
    let mut rejections = unknown(parts, entries.keys.iter().map(|key| key.path));
    let mut entry = Entry::new();
    for key in entries.keys {
        let read = match parts.get(key.path) {
            Some(json) => value::read(key, json),
            None => match default(key) {
                Some(read) => read,
                None => continue,
            },
        };
        match read {
            Ok(value) => {
                entry.insert(key.path, value);
            }
            Err(inner) => rejections.extend(inner.into_iter().map(|rejection| {
                let step = Step::Key(key.path.to_owned());
                // A required key that is missing has no place of its own.
                if parts.contains_key(key.path) {
                    rejection.within(step)
                } else {
                    Rejection {
                        way: vec![step],
                        ..rejection
                    }
                }
            })),
        }
    }
    if rejections.is_empty() {
        Ok(entry)
    } else {
        Err(rejections)
    }
}

/// What holds for a key that is not there; `None` where that is no value.
fn default(key: &Key) -> Option<Result<Value, Vec<Rejection>>> {
    match key.default {
        DefaultValue::Text(text) => Some(value::read_text(key, text)),
        DefaultValue::Required => Some(Err(vec![Rejection {
            message: "required key is missing".to_owned(),
            allowed: Some(value::allowed(&key.kind)),
            hint: Some(format!("for example \"{}\": {:?}", key.path, key.example)),
            ..Rejection::default()
        }])),
        DefaultValue::Unset | DefaultValue::Derived(_) => None,
    }
}

fn unknown<'a>(
    parts: &Map<String, Json>,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Vec<Rejection> {
    let unknown = parts
        .keys()
        .filter(|name| !known.clone().any(|k| k == name.as_str()));
    let reject = |name: &String| Rejection {
        way: vec![Step::Key(name.clone())],
        at_name: true,
        message: "unknown key".to_owned(),
        found: Some(format!("{name:?}")),
        allowed: Some(known.clone().collect::<Vec<_>>().join(", ")),
        nearest: nearest(name, known.clone()).map(str::to_owned),
        hint: None,
    };
    unknown.map(reject).collect()
}

/// Each but the first of those that are called the same.
fn repeated(entries: &Entries, items: &[Json]) -> Vec<Rejection> {
    let mut first = BTreeMap::new();
    let mut rejections = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let Some(name) = item.get(entries.unique).and_then(Json::as_str) else {
            continue;
        };
        match first.get(name) {
            None => {
                first.insert(name, number);
            }
            Some(earlier) => rejections.push(Rejection {
                way: vec![Step::Item(number), Step::Key(entries.unique.to_owned())],
                message: format!(
                    "the {} number {} has this {} too",
                    entries.one,
                    earlier + 1,
                    entries.unique
                ),
                found: Some(format!("{name:?}")),
                allowed: Some(format!(
                    "a {} that no other {} has",
                    entries.unique, entries.one
                )),
                ..Rejection::default()
            }),
        }
    }
    rejections
}

/// `{ "image": "rust:1.90" }`.
pub(super) fn read_place(parts: &Map<String, Json>) -> Result<Value, Vec<Rejection>> {
    const IMAGE: &str = "image";
    let mut rejections = unknown(parts, [IMAGE].into_iter());
    let image = parts.get(IMAGE);
    match image.and_then(Json::as_str).filter(|text| is_word(text)) {
        Some(text) if rejections.is_empty() => {
            return Ok(Value::Map(BTreeMap::from([(
                IMAGE.to_owned(),
                text.to_owned(),
            )])));
        }
        Some(_) => {}
        None => rejections.push(Rejection {
            way: vec![Step::Key(IMAGE.to_owned())],
            message: match image {
                None => "required key is missing".to_owned(),
                Some(Json::String(_)) => "value not allowed".to_owned(),
                Some(_) => "wrong type of value".to_owned(),
            },
            found: image.map(|json| match json {
                Json::String(text) => format!("{text:?}"),
                other => kind_of(other).to_owned(),
            }),
            allowed: Some("an image reference without spaces".to_owned()),
            hint: Some("for example \"rust:1.90\"".to_owned()),
            ..Rejection::default()
        }),
    }
    Err(rejections)
}

/// A command as it was written.
pub(super) fn command(json: &Json) -> Option<Value> {
    let whole = |text: &str| !text.contains('\0') && text.len() <= LONGEST_COMMAND;
    match json {
        Json::String(text) if whole(text) && !text.trim().is_empty() => {
            Some(Value::Text(text.clone()))
        }
        Json::Array(items) if items.len() <= MOST_WORDS => {
            let words: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().filter(|word| whole(word)).map(str::to_owned))
                .collect();
            words
                .filter(|words| words.first().is_some_and(|program| !program.is_empty()))
                .map(Value::Words)
        }
        _ => None,
    }
}
