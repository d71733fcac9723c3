//! Markdown task lists, losslessly: which lines are checklist items, which single byte ticks one,
//! and what changed since a source was last seen. Pure.
//!
//! What an item is follows CommonMark with GitHub's task list items, as `pulldown-cmark` reads
//! them: `- [ ] text`, `* [x] text`, `1. [X] text`. Checkboxes in code blocks, HTML comments or
//! running text are none. A nested checkbox is an item of its own and no part of its parent's text;
//! nested plain bullets and continuation lines are part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization as _;

/// Largest list in bytes; beyond it nothing is parsed.
pub const MAX_LIST_BYTES: usize = 1024 * 1024;

/// Most items of a list: what was seen of them fits one record of 256 KB.
pub const MAX_ITEMS: usize = 4000;

/// Most entries of a [`SeenList`], with those that went away.
const MAX_SEEN: usize = 7000;

/// Bytes of the hash that make a key: 40 bits, ten hexadecimal digits.
const KEY_BYTES: usize = 5;

/// One checklist item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Everything the item says, without its nested items: first line, continuation, bullets.
    pub text: String,
    /// The first lines of the items it is nested in, outermost first.
    pub parents: Vec<String>,
    pub checked: bool,
    /// Where the byte between the brackets is, counted in the whole file.
    pub box_offset: usize,
    /// Line of the box, from 1.
    pub line: usize,
    /// How many items with the same text come before it.
    pub occurrence: usize,
    /// Names the item over edits of everything else: a hash of text and occurrence.
    pub key: String,
}

/// What begins the line of an item that names the paths it may change.
pub const SCOPE: &str = "Files:";

impl Item {
    /// The patterns of its line `Files: src/a/**, docs/x.md`; none if it has no such line.
    pub fn scope(&self) -> Vec<String> {
        let lines = self.text.lines().skip(1);
        let named = lines.filter_map(|line| line.trim().strip_prefix(SCOPE));
        named
            .flat_map(|patterns| patterns.split(','))
            .map(|pattern| pattern.trim().trim_matches('`'))
            .filter(|pattern| !pattern.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// A list as one text shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedList {
    /// In the order of the file.
    pub items: Vec<Item>,
    /// Why there are no items.
    pub reason: Option<String>,
    /// The text was not read at all; it says nothing about items being gone.
    pub unread: bool,
    /// It is unread because a merge is under way in it: most often for seconds, in a checkout.
    pub in_conflict: bool,
}

impl ParsedList {
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.key == key)
    }
}

/// The file is not text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file is not UTF-8: byte {offset} is wrong")]
pub struct NotText {
    /// Of the first wrong byte.
    pub offset: usize,
}

/// The text of a list file.
pub fn decode(bytes: &[u8]) -> Result<&str, NotText> {
    std::str::from_utf8(bytes).map_err(|error| NotText {
        offset: error.valid_up_to(),
    })
}

/// The checklist items of `text`. Never fails: a text without any gives no items and the reason.
pub fn parse(text: &str) -> ParsedList {
    if text.len() > MAX_LIST_BYTES {
        return unread(format!(
            "the list has {} bytes; at most {MAX_LIST_BYTES} are read",
            text.len()
        ));
    }
    // Somebody is in the middle of a merge: both sides stand there, and the marks between them would
    // become part of an item, which would then be another one.
    if let Some(line) = conflict_mark(text) {
        let mut list = unread(format!(
            "the list has a conflict in line {line}; it is read again when that is resolved"
        ));
        list.in_conflict = true;
        return list;
    }
    // The parser knows no byte order mark and would not see a list in the first line.
    let start = if text.starts_with('\u{FEFF}') { 3 } else { 0 };
    let boxes = find_boxes(text, start);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut items = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for (at, found) in boxes.iter().enumerate() {
        let own = own_text(text, found, &boxes[at + 1..]);
        if own.is_empty() {
            continue;
        }
        line += newlines(&text[counted..found.offset]);
        counted = found.offset;
        let normal = normalise(&own);
        let occurrence = seen.entry(normal.clone()).or_default();
        items.push(Item {
            key: key(&normal, *occurrence),
            text: own,
            parents: found.parents.clone(),
            checked: found.checked,
            box_offset: found.offset,
            line,
            occurrence: *occurrence,
        });
        *occurrence += 1;
    }
    let reason = items
        .is_empty()
        .then(|| "no checklist items found".to_owned());
    ParsedList {
        items,
        reason,
        unread: false,
        in_conflict: false,
    }
}

fn unread(reason: String) -> ParsedList {
    ParsedList {
        items: Vec::new(),
        reason: Some(reason),
        unread: true,
        in_conflict: false,
    }
}

/// The line, from 1, where a conflict begins that git wrote into the text.
fn conflict_mark(text: &str) -> Option<usize> {
    let mut lines = text.lines().enumerate();
    let (number, _) = lines.find(|(_, line)| line.starts_with("<<<<<<< "))?;
    lines.find(|(_, line)| *line == "=======")?;
    lines
        .any(|(_, line)| line.starts_with(">>>>>>> "))
        .then_some(number + 1)
}

/// Which byte ticks an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickPlan {
    /// In the whole file.
    pub offset: usize,
    /// It is ticked already.
    pub checked: bool,
}

/// Where the item with this key is ticked; `None` if the text has no such item.
pub fn plan_tick(text: &str, key: &str) -> Option<TickPlan> {
    let list = parse(text);
    let item = list.get(key)?;
    Some(TickPlan {
        offset: item.box_offset,
        checked: item.checked,
    })
}

/// The text with the item ticked: exactly one byte differs, none if it was ticked already. `None`
/// if the text has no such item.
pub fn tick(text: &str, key: &str) -> Option<String> {
    let plan = plan_tick(text, key)?;
    if plan.checked {
        return Some(text.to_owned());
    }
    let before = text.get(..plan.offset)?;
    let after = text.get(plan.offset + 1..)?;
    Some(format!("{before}x{after}"))
}

/// A checkbox, before its text is cut out.
struct Found {
    /// The whole item, from its list marker on.
    range: Range<usize>,
    offset: usize,
    checked: bool,
    parents: Vec<String>,
}

fn find_boxes(text: &str, start: usize) -> Vec<Found> {
    let parsed = &text[start..];
    let mut open: Vec<Range<usize>> = Vec::new();
    let mut found = Vec::new();
    for (event, range) in Parser::new_ext(parsed, Options::ENABLE_TASKLISTS).into_offset_iter() {
        let range = range.start + start..range.end + start;
        match event {
            Event::Start(Tag::Item) => open.push(range),
            Event::End(TagEnd::Item) => {
                open.pop();
            }
            Event::TaskListMarker(checked) => {
                let Some((item, around)) = open.split_last() else {
                    continue;
                };
                // The range ends after `]`; what it says is checked against the bytes, because
                // this is where one will be written.
                let offset = range.end.saturating_sub(2);
                if is_box(text.as_bytes(), offset, checked) {
                    found.push(Found {
                        range: item.clone(),
                        offset,
                        checked,
                        parents: around.iter().map(|item| title(text, item)).collect(),
                    });
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|found| found.offset);
    found
}

fn is_box(bytes: &[u8], offset: usize, checked: bool) -> bool {
    let inside = bytes.get(offset).copied();
    offset > 0
        && bytes.get(offset - 1) == Some(&b'[')
        && bytes.get(offset + 1) == Some(&b']')
        && if checked {
            matches!(inside, Some(b'x' | b'X'))
        } else {
            matches!(inside, Some(b' ' | b'\t'))
        }
}

/// The first line of an item, without list marker and box.
fn title(text: &str, item: &Range<usize>) -> String {
    let line = text[item.clone()].lines().next().unwrap_or_default().trim();
    let line = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let line = line
        .trim_start_matches(['-', '*', '+', '.', ')'])
        .trim_start();
    let line = ["[ ]", "[x]", "[X]", "[\t]"]
        .iter()
        .find_map(|mark| line.strip_prefix(mark))
        .unwrap_or(line);
    line.trim().to_owned()
}

/// The item's source after the box, without the nested items, without its indentation.
fn own_text(text: &str, found: &Found, later: &[Found]) -> String {
    let mut raw = String::new();
    let mut at = found.offset + 2;
    for nested in later
        .iter()
        .take_while(|other| other.range.start < found.range.end)
    {
        // A nested item's own nested items lie inside it and were skipped with it.
        if nested.range.start >= at {
            raw.push_str(text[at..nested.range.start].trim_end_matches([' ', '\t']));
            at = nested.range.end;
        }
    }
    if at < found.range.end {
        raw.push_str(&text[at..found.range.end]);
    }
    let mut lines = raw.lines().map(str::trim_end);
    let first = lines.next().unwrap_or_default().trim().to_owned();
    let rest: Vec<&str> = lines.collect();
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let common = rest
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| indent(line))
        .min();
    let mut result = first;
    for line in rest {
        result.push('\n');
        result.push_str(line.get(common.unwrap_or(0)..).unwrap_or_default());
    }
    result.trim().to_owned()
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The same words are the same text, however they are wrapped or composed.
fn normalise(text: &str) -> String {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.nfc().collect())
        .collect();
    words.join(" ")
}

fn key(normal: &str, occurrence: usize) -> String {
    let digest = Sha256::new()
        .chain_update(normal.as_bytes())
        .chain_update(b"\0")
        .chain_update(occurrence.to_string().as_bytes())
        .finalize();
    let start = digest.iter().take(KEY_BYTES);
    let number = start.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:0width$x}", width = KEY_BYTES * 2)
}

/// What was last seen of an item, in one source. Written as an array to stay small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(
    /// Ticked when it was last there.
    pub bool,
    /// There when the source was last looked at.
    pub bool,
    /// Place in the file, from 0.
    pub i64,
);

/// What was last seen of one source of a list. It remembers items that went away, so that an
/// editor that empties the file before it writes it again changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeenList {
    pub items: BTreeMap<String, Seen>,
}

impl SeenList {
    /// What has been seen once `now` was dealt with. Items in `unsettled` keep their old tick.
    #[must_use]
    pub fn after(&self, now: &ParsedList, unsettled: &BTreeSet<String>) -> Self {
        let mut items = self.items.clone();
        for seen in items.values_mut() {
            seen.1 = false;
        }
        for (place, item) in (0_i64..).zip(&now.items) {
            let checked = item.checked || unsettled.contains(&item.key);
            items.insert(item.key.clone(), Seen(checked, true, place));
        }
        while items.len() > MAX_SEEN {
            let Some(gone) = items.iter().find(|(_, seen)| !seen.1) else {
                break;
            };
            let gone = gone.0.clone();
            items.remove(&gone);
        }
        Self { items }
    }
}

/// What happened to a source since it was last seen; keys, in the order of the file. An item is in
/// at most one of the lists but `moved`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListChanges {
    /// Not there before. May be ticked already.
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub ticked_by_hand: Vec<String>,
    pub unticked: Vec<String>,
    /// There before and now, at another place.
    pub moved: Vec<String>,
}

/// Compares a source with what was last seen of the *same* source. Two sources of one list are
/// never united: each tells only what changed in itself.
pub fn diff(last_seen: &SeenList, now: &ParsedList) -> ListChanges {
    let mut changes = ListChanges::default();
    let mut present: BTreeSet<&str> = BTreeSet::new();
    for (place, item) in (0_i64..).zip(&now.items) {
        present.insert(&item.key);
        let key = item.key.clone();
        match last_seen.items.get(&item.key) {
            Some(Seen(true, _, _)) if !item.checked => changes.unticked.push(key.clone()),
            None | Some(Seen(_, false, _)) => changes.added.push(key.clone()),
            Some(Seen(false, true, _)) if item.checked => changes.ticked_by_hand.push(key.clone()),
            Some(_) => {}
        }
        if let Some(Seen(_, true, before)) = last_seen.items.get(&item.key)
            && *before != place
        {
            changes.moved.push(key);
        }
    }
    for (key, seen) in &last_seen.items {
        if seen.1 && !present.contains(key.as_str()) {
            changes.removed.push(key.clone());
        }
    }
    changes
}
