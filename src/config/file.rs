//! The file layer: `orchestrator.json`, strict JSON, each value with its line and column.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use jsonc_parser::ast::{Object, ObjectProp, Value as Node};
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::keys::{self, KEYS, Key, Kind};
use super::layers::Settings;
use super::problem::{Place, Problem, nearest};
use super::value::{self, Rejection, Step};

/// Name of the file in the config directory.
pub const FILE_NAME: &str = "orchestrator.json";

/// A configuration is a few kilobytes; more is another file by mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads the file into `settings`. Returns whether it was readable as a whole, so that a key
/// that is missing is really missing.
pub(super) fn read(directory: &Path, settings: &mut Settings, problems: &mut Vec<Problem>) -> bool {
    let path = directory.join(FILE_NAME);
    let text = match text_of(&path) {
        Ok(text) => text,
        Err(problem) => {
            problems.push(*problem);
            return false;
        }
    };
    if text.trim().is_empty() {
        problems.push(
            Problem::new(Place::whole(&path), "the file is empty")
                .hint("write a configuration into it; `config-example` shows one"),
        );
        return false;
    }
    let reader = Reader { path, text: &text };
    let parsed = match parse_to_ast(&text, &CollectOptions::default(), &strict()) {
        Ok(parsed) => parsed,
        Err(error) => {
            let place = reader.place(error.range());
            problems.push(syntax(place, &error.kind().to_string()));
            return false;
        }
    };
    // A second opinion: serde_json is stricter about escapes and control characters in text.
    if let Err(error) = serde_json::from_str::<serde_json::Value>(&text) {
        let place = Place::File {
            file: reader.path,
            line: Some(error.line()),
            column: Some(error.column()),
        };
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or(&text);
        problems.push(syntax(place, reason));
        return false;
    }
    match parsed.value {
        Some(Node::Object(root)) => {
            reader.section("", &root, settings, problems);
            true
        }
        Some(other) => {
            let place = reader.place(other.range());
            problems.push(
                Problem::new(place, "the file must hold one JSON object")
                    .allowed("{ \"repositoryUrl\": ..., \"workerCount\": ..., ... }"),
            );
            false
        }
        // Not reached: text without a value is empty, which was asked above.
        None => false,
    }
}

/// JSON as the standard has it.
fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

fn syntax(place: Place, reason: &str) -> Problem {
    Problem::new(place, format!("not valid JSON: {reason}"))
        .hint("the file is strict JSON: double quotes, no comments, no trailing commas")
}

fn text_of(path: &Path) -> Result<String, Box<Problem>> {
    let problem = |message: &str| Problem::new(Place::whole(path), message);
    let cannot = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Box::new(
            problem("no such file")
                .allowed(format!("a config directory with a file {FILE_NAME}"))
                .hint("create it, or name the right directory with --config"),
        ),
        std::io::ErrorKind::PermissionDenied => Box::new(
            problem("the file may not be read")
                .hint("run as the user who owns it, or change its mode"),
        ),
        _ => Box::new(problem(&format!("the file cannot be read: {error}"))),
    };
    let metadata = std::fs::metadata(path).map_err(|error| cannot(&error))?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "a directory"
        } else {
            "a special file"
        };
        return Err(Box::new(
            problem("not a regular file")
                .found(what)
                .allowed("a JSON file"),
        ));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| cannot(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Box::new(
            problem("the file is too large").allowed("at most 1MiB"),
        ));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Box::new(
            problem("the file begins with a byte order mark")
                .hint("save it as UTF-8 without a byte order mark"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let (line, column) = line_and_column(&String::from_utf8_lossy(valid), valid.len());
        let place = Place::File {
            file: path.to_owned(),
            line: Some(line),
            column: Some(column),
        };
        Box::new(Problem::new(place, "the file is not UTF-8").hint("save it as UTF-8"))
    })
}

/// From a byte offset to a line and a column in characters, both from 1.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

struct Reader<'a> {
    path: PathBuf,
    text: &'a str,
}

impl Reader<'_> {
    fn place(&self, range: Range) -> Place {
        let (line, column) = line_and_column(self.text, range.start);
        Place::File {
            file: self.path.clone(),
            line: Some(line),
            column: Some(column),
        }
    }

    /// One object of the file whose keys lie under `prefix` (`""` or `container.`).
    fn section(
        &self,
        prefix: &str,
        object: &Object<'_>,
        settings: &mut Settings,
        problems: &mut Vec<Problem>,
    ) {
        self.duplicates(prefix, object, problems);
        for property in &object.properties {
            let name = property.name.as_str();
            let path = format!("{prefix}{name}");
            if let Some(key) = keys::find(&path) {
                self.value(key, property, settings, problems);
            } else if keys::is_section(&path) {
                match &property.value {
                    Node::Object(inner) => {
                        self.section(&format!("{path}."), inner, settings, problems);
                    }
                    other => problems.push(self.not_a_section(&path, other)),
                }
            } else if path == "$schema" {
                if property.value.as_string_lit().is_none() {
                    let place = self.place(property.value.range());
                    problems.push(
                        Problem::new(place, "wrong type of value")
                            .key(path)
                            .allowed("text: the address of the JSON Schema"),
                    );
                }
            } else {
                let place = self.place(property.name_range());
                problems.push(unknown(place, prefix, name));
            }
        }
    }

    fn not_a_section(&self, path: &str, node: &Node<'_>) -> Problem {
        let inner: Vec<&str> = KEYS
            .iter()
            .filter_map(|key| key.path.strip_prefix(path)?.strip_prefix('.'))
            .collect();
        let json = serde_json::from_str(node.text(self.text)).unwrap_or_default();
        Problem::new(self.place(node.range()), "wrong type of value")
            .key(path)
            .found(value::kind_of(&json))
            .allowed(format!("an object with the keys {}", inner.join(", ")))
    }

    fn value(
        &self,
        key: &'static Key,
        property: &ObjectProp<'_>,
        settings: &mut Settings,
        problems: &mut Vec<Problem>,
    ) {
        if matches!(key.kind, Kind::Map | Kind::List(_)) {
            self.duplicates_below(key.path, &property.value, problems);
        }
        let place = self.place(property.value.range());
        // The whole text was parsed before, so a part of it is JSON too.
        let json = serde_json::from_str(property.value.text(self.text)).unwrap_or_default();
        match value::read(key, &json) {
            Ok(value) => settings.set(key, value, place),
            Err(rejections) => problems.extend(rejections.into_iter().map(|rejection| {
                let place = self.part(&property.value, &rejection);
                rejected(key, place, rejection)
            })),
        }
    }

    /// Where the part of a value is that is meant; what is around it where that part is missing.
    fn part(&self, value: &Node<'_>, rejection: &Rejection) -> Place {
        let (mut node, mut range) = (value, value.range());
        for step in &rejection.way {
            let inner = match (step, node) {
                (Step::Item(number), Node::Array(array)) => {
                    array.elements.get(*number).map(|item| (item, item.range()))
                }
                (Step::Key(name), Node::Object(object)) => object
                    .properties
                    .iter()
                    .rfind(|property| property.name.as_str() == name)
                    .map(|property| (&property.value, property.name_range())),
                _ => None,
            };
            let Some((inner, name)) = inner else { break };
            node = inner;
            range = if rejection.at_name {
                name
            } else {
                inner.range()
            };
        }
        self.place(range)
    }

    /// Keys that are there twice in any object of a value.
    fn duplicates_below(&self, path: &str, node: &Node<'_>, problems: &mut Vec<Problem>) {
        match node {
            Node::Object(object) => {
                self.duplicates(&format!("{path}."), object, problems);
                for property in &object.properties {
                    let inner = format!("{path}.{}", property.name.as_str());
                    self.duplicates_below(&inner, &property.value, problems);
                }
            }
            Node::Array(array) => {
                for (number, item) in array.elements.iter().enumerate() {
                    self.duplicates_below(&format!("{path}[{number}]"), item, problems);
                }
            }
            _ => {}
        }
    }

    fn duplicates(&self, prefix: &str, object: &Object<'_>, problems: &mut Vec<Problem>) {
        let mut first = BTreeMap::new();
        for property in &object.properties {
            let name = property.name.as_str();
            let place = self.place(property.name_range());
            if let Some(earlier) = first.get(name) {
                problems.push(
                    Problem::new(place, format!("the key is there twice, first at {earlier}"))
                        .key(format!("{prefix}{name}"))
                        .hint("remove one of the two"),
                );
            } else {
                first.insert(name.to_owned(), place);
            }
        }
    }
}

trait NameRange {
    fn name_range(&self) -> Range;
}

impl NameRange for ObjectProp<'_> {
    fn name_range(&self) -> Range {
        // A property begins with its name.
        self.range
    }
}

/// A problem from a value that was not taken.
pub(super) fn rejected(key: &Key, place: Place, rejection: Rejection) -> Problem {
    let path = |way: &[Step]| {
        way.iter()
            .fold(key.path.to_owned(), |path, step| match step {
                Step::Item(number) => format!("{path}[{number}]"),
                Step::Key(name) => format!("{path}.{name}"),
            })
    };
    let around = &rejection.way[..rejection.way.len().saturating_sub(1)];
    let nearest = rejection
        .nearest
        .map(|name| format!("{}.{name}", path(around)));
    Problem {
        found: rejection.found,
        allowed: rejection.allowed,
        hint: rejection.hint,
        ..Problem::new(place, rejection.message)
    }
    .key(path(&rejection.way))
    .nearest(nearest)
}

/// An unknown key: siblings are looked at first, then the same name in other sections.
pub(super) fn unknown(place: Place, prefix: &str, name: &str) -> Problem {
    let siblings: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| key.path.strip_prefix(prefix)?.split('.').next())
        .collect();
    let elsewhere = || {
        let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
        let best = nearest(name, KEYS.iter().map(|key| last(key.path)))?;
        KEYS.iter()
            .find(|key| last(key.path) == best)
            .map(|key| key.path.to_owned())
    };
    let near = nearest(name, siblings.iter().copied())
        .map(|sibling| format!("{prefix}{sibling}"))
        .or_else(elsewhere);
    let mut allowed = siblings.clone();
    allowed.dedup();
    Problem::new(place, "unknown key")
        .key(format!("{prefix}{name}"))
        .found(format!("{name:?}"))
        .allowed(allowed.join(", "))
        .nearest(near)
}
