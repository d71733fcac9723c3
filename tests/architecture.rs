//! The house rules that a compiler does not hold: who may name whom, what the deciding rooms may
//! not use, how large a file may be, and that every test file runs.
//!
//! Test code (`#[cfg(test)]` items, files called `tests.rs`, directories called `tests`) is exempt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Room → the rooms it may name. A room that is missing here fails the test.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("supervisor", &["model"]),
    ("ports", &["model"]),
    ("config", &["model", "ports"]),
    ("coordination", &["model", "ports"]),
    ("runtime", &["ports", "model", "config"]),
    ("worktree", &["ports", "model", "config"]),
    ("credentials", &["ports", "model", "config"]),
    ("store", &["ports", "model", "config"]),
    ("claude", &["ports", "model", "config"]),
    ("control", &["model", "supervisor", "coordination"]),
    ("api", &["control", "model"]),
    ("hooks", &["control", "model", "claude"]),
    ("telemetry", &["model"]),
    ("client", &["control", "model", "ports"]),
    ("cli", &["client", "config", "model", "telemetry", "ports"]),
    ("daemon", &ALL_BUT_CLI),
    ("testing", &ALL_BUT_CLI),
];

const ALL_BUT_CLI: [&str; 18] = [
    "model",
    "supervisor",
    "ports",
    "config",
    "coordination",
    "runtime",
    "worktree",
    "credentials",
    "store",
    "claude",
    "control",
    "api",
    "hooks",
    "telemetry",
    "client",
    "daemon",
    "testing",
    "cluster",
];

/// The commands that run a part of the house themselves may name it.
const MAY_NAME_ANYTHING: &[&str] = &[
    "cli/wiring",
    "cli/chaos",
    "cli/demo",
    "cli/drift",
    "cli/view",
    "cli/doctor",
    "cli/up",
];

/// What decides must be pure: the same input, the same decision, on every machine.
const PURE: &[&str] = &[
    "supervisor/",
    "model/",
    "coordination/rules.rs",
    "coordination/rules/",
    "coordination/board/",
    "coordination/tasklist.rs",
    "coordination/tasklist/",
];

const IMPURE_WORDS: &[&str] = &[
    "tokio",
    "async",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "HashMap",
    "HashSet",
    "rand",
    "Instant",
    "SystemTime",
];

const MAX_LINES: usize = 600;

/// Never more than this, whatever the reason.
const MAX_LINES_WITH_REASON: usize = 900;

/// (file below `src`, why it is one file). An entry whose file is small again fails the test.
const LARGE_FILES: &[(&str, &str)] = &[];

/// A source file, its test code blanked out (lines kept, so that numbers stay right).
struct Source {
    /// Below `src`, with `/`.
    name: String,
    /// Without tests, comments and the content of strings.
    code: String,
    /// Without tests only.
    lines: usize,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_in_a_room(&self) -> bool {
        self.name != "lib.rs" && self.name != "main.rs" && !self.name.starts_with("bin/")
    }
}

#[test]
fn rooms_name_only_the_rooms_they_may() {
    let rules: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    let rooms: BTreeSet<&str> = rules.keys().copied().collect();
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.is_in_a_room()) {
        let room = source.room();
        let Some(allowed) = rules.get(room) else {
            complaints.push(format!(
                "src/{}: the room `{room}` has no rule. Add it to MAY_NAME in tests/architecture.rs \
                 and to the table in src/ARCHITECTURE.md.",
                source.name
            ));
            continue;
        };
        if MAY_NAME_ANYTHING
            .iter()
            .any(|free| source.name.starts_with(free))
        {
            continue;
        }
        for (line, named) in rooms_named(&source.code) {
            let fine = named == room || allowed.contains(&named.as_str());
            if !fine && rooms.contains(named.as_str()) {
                complaints.push(format!(
                    "src/{}:{line}: `{room}` may not name `{named}` (only: {}). Move the shared \
                     type to `model`, go through a port or `control`, or let `daemon` translate.",
                    source.name,
                    allowed.join(", ")
                ));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn what_decides_is_pure() {
    let mut complaints = Vec::new();
    for source in sources() {
        if !PURE.iter().any(|pure| source.name.starts_with(pure)) {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            for word in IMPURE_WORDS.iter().filter(|word| has_word(line, word)) {
                complaints.push(format!(
                    "src/{}:{}: `{word}` in a file that decides. Time, ids and randomness come in as \
                     arguments, effects go out as actions, collections are ordered (BTreeMap).",
                    source.name,
                    number + 1
                ));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn files_stay_readable() {
    let reasons: BTreeMap<&str, &str> = LARGE_FILES.iter().copied().collect();
    let mut complaints = Vec::new();
    let sources = sources();
    for source in &sources {
        let limit = if reasons.contains_key(source.name.as_str()) {
            MAX_LINES_WITH_REASON
        } else {
            MAX_LINES
        };
        if source.lines > limit {
            complaints.push(format!(
                "src/{}: {} lines without tests, at most {limit}. Split it by what it is about; if it \
                 must be one file (never over {MAX_LINES_WITH_REASON}), give the reason in LARGE_FILES.",
                source.name, source.lines
            ));
        }
    }
    for (name, reason) in LARGE_FILES {
        let needed = sources
            .iter()
            .any(|source| source.name == *name && source.lines > MAX_LINES);
        if !needed || reason.is_empty() {
            complaints.push(format!(
                "src/{name} is in LARGE_FILES without need or reason: take it out."
            ));
        }
    }
    complain(&complaints);
}

#[test]
fn nothing_panics_on_purpose_outside_tests() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in source.code.lines().enumerate() {
            for bad in [".unwrap()", "todo!", "unimplemented!"] {
                if line.contains(bad) {
                    complaints.push(format!(
                        "src/{}:{}: `{bad}` outside tests. Return an error that names the cause, or \
                         `expect` with the invariant as a sentence.",
                        source.name,
                        number + 1
                    ));
                }
            }
        }
    }
    complain(&complaints);
}

#[test]
fn every_room_says_what_it_is_for() {
    let mut complaints = Vec::new();
    for (room, _) in MAY_NAME {
        let path = root().join("src").join(room).join("mod.rs");
        let Ok(text) = fs::read_to_string(&path) else {
            complaints.push(format!(
                "src/{room}/mod.rs is missing: the room is in MAY_NAME."
            ));
            continue;
        };
        let header: Vec<&str> = text.lines().take_while(|l| l.starts_with("//!")).collect();
        if header.is_empty() || header.len() > 40 {
            complaints.push(format!(
                "src/{room}/mod.rs: begin with `//!` lines (at most 40): what the room is for, who \
                 calls it, what it must never do."
            ));
        }
    }
    complain(&complaints);
}

/// Cargo runs `tests/*.rs` and `tests/*/main.rs`; every other file must be named by `mod`.
#[test]
fn every_test_file_is_wired_in() {
    let tests = root().join("tests");
    let mut complaints = Vec::new();
    for path in rust_files(&tests) {
        let name = relative(&path, &tests);
        let depth = name.matches('/').count();
        let is_target = depth == 0 || (depth == 1 && name.ends_with("/main.rs"));
        if is_target || is_named_by_a_parent(&path) || is_named_by_its_path(&path, &tests) {
            continue;
        }
        complaints.push(format!(
            "tests/{name} is never compiled. Add `mod {};` to the main.rs or mod.rs beside it.",
            path.file_stem().unwrap_or_default().to_string_lossy()
        ));
    }
    complain(&complaints);
}

/// By `#[path = "..."]` in some test file, as what several targets share is.
fn is_named_by_its_path(path: &Path, tests: &Path) -> bool {
    let Ok(wanted) = path.canonicalize() else {
        return false;
    };
    rust_files(tests).iter().any(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let beside = file.parent().unwrap_or(tests);
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"))
            .any(|named| {
                beside
                    .join(named)
                    .canonicalize()
                    .is_ok_and(|found| found == wanted)
            })
    })
}

fn is_named_by_a_parent(path: &Path) -> bool {
    let (Some(directory), Some(stem)) = (path.parent(), path.file_stem()) else {
        return false;
    };
    let (owner, name) = if stem == "mod" {
        (directory.parent(), directory.file_name())
    } else {
        (Some(directory), Some(stem))
    };
    let (Some(owner), Some(name)) = (owner, name) else {
        return false;
    };
    let wanted = format!("mod {};", name.to_string_lossy());
    let beside = owner.with_extension("rs");
    let mut owners: Vec<PathBuf> = fs::read_dir(owner)
        .map(|files| files.flatten().map(|file| file.path()).collect())
        .unwrap_or_default();
    owners.push(beside);
    owners.iter().any(|owner| {
        let text = fs::read_to_string(owner).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        owner != path && lines.any(|line| line == wanted || line.ends_with(&format!(" {wanted}")))
    })
}

fn complain(complaints: &[String]) {
    let mut text = String::new();
    for complaint in complaints {
        let _ = writeln!(text, "\n- {complaint}");
    }
    assert!(complaints.is_empty(), "{text}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let root = root().join("src");
    let files = rust_files(&root);
    assert!(files.len() > 20, "src was not found");
    files
        .into_iter()
        .map(|path| (relative(&path, &root), path))
        .filter(|(name, _)| !is_test_file(name))
        .map(|(name, path)| {
            let text = fs::read_to_string(&path).expect("a source file is readable text");
            let bare = without_comments_and_strings(&text);
            let tests = test_lines(&bare);
            let code = bare
                .lines()
                .enumerate()
                .map(|(number, line)| if tests.contains(&number) { "" } else { line });
            Source {
                name,
                lines: bare.lines().count() - tests.len(),
                code: code.collect::<Vec<_>>().join("\n"),
            }
        })
        .collect()
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.ends_with("_tests.rs") || name.contains("/tests/")
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn relative(path: &Path, root: &Path) -> String {
    let below = path
        .strip_prefix(root)
        .expect("files were listed below the root");
    below.to_string_lossy().replace('\\', "/")
}

/// Rooms behind `crate::`, also in `use crate::{a, b::c}`, with the line where they stand.
fn rooms_named(code: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let joined = code[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        if joined {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            named.extend(heads_of_group(group).into_iter().map(|room| (line, room)));
        } else {
            named.push((line, word_at_start(rest)));
        }
    }
    named
}

/// The first word of each member of a `use` group, up to its closing brace.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut expecting = true;
    for (at, c) in group.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            c if expecting && (c.is_alphabetic() || c == '_') => {
                heads.push(word_at_start(&group[at..]));
                expecting = false;
            }
            _ => {}
        }
    }
    heads
}

fn word_at_start(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// The lines of items under `#[cfg(test)]`, by counting braces from the attribute on.
fn test_lines(code: &str) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    let all: Vec<&str> = code.lines().collect();
    let mut at = 0;
    while at < all.len() {
        if !all[at].trim_start().starts_with("#[cfg(test)]") {
            at += 1;
            continue;
        }
        let mut depth = 0_i64;
        let mut opened = false;
        while at < all.len() {
            lines.insert(at);
            for c in all[at].chars() {
                depth += match c {
                    '{' => 1,
                    '}' => -1,
                    _ => 0,
                };
                opened |= c == '{';
            }
            let ends_here = all[at].trim_end().ends_with(';') && !opened;
            at += 1;
            if (opened && depth <= 0) || ends_here {
                break;
            }
        }
    }
    lines
}

/// Comments and what stands between quotes become spaces; line ends stay.
fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_comment(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => block_comment(&chars, at),
            'r' => raw_string(&chars, at).unwrap_or(at),
            '"' => string(&chars, at),
            '\'' => character(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            let gone = &chars[at..end.min(chars.len())];
            out.extend(gone.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn line_comment(chars: &[char], at: usize) -> usize {
    let length = chars[at..].iter().position(|c| *c == '\n');
    length.map_or(chars.len(), |length| at + length)
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut here) = (0, at);
    while here + 1 < chars.len() {
        match (chars[here], chars[here + 1]) {
            ('/', '*') => {
                depth += 1;
                here += 2;
            }
            ('*', '/') => {
                depth -= 1;
                here += 2;
                if depth == 0 {
                    return here;
                }
            }
            _ => here += 1,
        }
    }
    chars.len()
}

fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|before| chars[before]);
    // `br"` is one, `for"` is none.
    if before.is_some_and(|c| (c.is_alphanumeric() && c != 'b') || c == '_') {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let start = at + 1 + hashes;
    if chars.get(start) != Some(&'"') {
        return None;
    }
    let mut here = start + 1;
    while here < chars.len() {
        let closing = chars[here] == '"'
            && chars[here + 1..]
                .iter()
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes;
        if closing {
            return Some(here + 1 + hashes);
        }
        here += 1;
    }
    Some(chars.len())
}

fn string(chars: &[char], at: usize) -> usize {
    let mut here = at + 1;
    while here < chars.len() {
        match chars[here] {
            '\\' => here += 2,
            '"' => return here + 1,
            _ => here += 1,
        }
    }
    chars.len()
}

/// A character literal; a lifetime is left alone.
fn character(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let rest = chars.get(at + 3..).unwrap_or_default();
            let length = rest.iter().position(|c| *c == '\'');
            length.map_or(at, |length| at + 4 + length)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let text = r##"
        use crate::{model::{A, B}, store, daemon::X};
        // crate::comment
        let s = "crate::string \" { "; let c = '{'; let q = '\''; let raw = r#"crate::raw " "#;
        fn f<'a>(x: &'a str) { crate::ports::Y; mycrate::hooks::Z }
        #[cfg(test)]
        mod tests { use crate::testing; fn g() { } }
        fn after() { crate::api::W }
    "##;
    let bare = without_comments_and_strings(text);
    let tests = test_lines(&bare);
    let code: Vec<&str> = bare
        .lines()
        .enumerate()
        .map(|(number, line)| if tests.contains(&number) { "" } else { line })
        .collect();
    let names: Vec<String> = rooms_named(&code.join("\n"))
        .into_iter()
        .map(|(_, room)| room)
        .collect();
    assert_eq!(names, ["model", "store", "daemon", "ports", "api"]);
    assert!(has_word("use rand::x", "rand") && !has_word("operand", "rand"));
}
