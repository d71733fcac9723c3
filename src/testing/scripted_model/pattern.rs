//! A small pattern language for instruction texts: literal text with typed captures.
//!
//! `git merge {sha:hex}` is found anywhere in a text; a leading `^` anchors it at the start.
//! Kinds: `hex` (exactly 40 hexadecimal digits), `int` (decimal digits), `word` (up to white space),
//! `line` (up to the end of the line). Literals match without regard to ASCII case.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the captures of a pattern took, by name.
pub type Captures = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    source: String,
    anchored: bool,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Capture { name: String, kind: Kind },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hex,
    Int,
    Word,
    Line,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("pattern {0:?} is empty")]
    Empty(String),
    #[error("pattern {0:?} has a `{{` that is not closed by `}}`")]
    Unclosed(String),
    #[error("pattern {0:?}: {1:?} is not `name:kind` with the kind hex, int, word or line")]
    Capture(String, String),
}

impl Pattern {
    pub fn new(source: &str) -> Result<Self, PatternError> {
        let (anchored, mut rest) = match source.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, source),
        };
        let mut parts = Vec::new();
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Literal(rest[..open].to_owned()));
            }
            let close = rest[open..]
                .find('}')
                .ok_or_else(|| PatternError::Unclosed(source.to_owned()))?;
            parts.push(capture(source, &rest[open + 1..open + close])?);
            rest = &rest[open + close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err(PatternError::Empty(source.to_owned()));
        }
        Ok(Self {
            source: source.to_owned(),
            anchored,
            parts,
        })
    }

    /// A pattern of nothing but this text, braces and all.
    pub fn literal(text: &str) -> Self {
        Self {
            source: text.to_owned(),
            anchored: false,
            parts: vec![Part::Literal(text.to_owned())],
        }
    }

    /// The captures of the first place where the pattern fits, or `None`.
    pub fn find(&self, text: &str) -> Option<Captures> {
        if self.anchored {
            return self.fits_at(text);
        }
        text.char_indices()
            .find_map(|(start, _)| self.fits_at(&text[start..]))
    }

    fn fits_at(&self, text: &str) -> Option<Captures> {
        let mut captures = Captures::new();
        let mut rest = text;
        for part in &self.parts {
            let length = match part {
                Part::Literal(literal) => {
                    let head = rest.get(..literal.len())?;
                    head.eq_ignore_ascii_case(literal)
                        .then_some(literal.len())?
                }
                Part::Capture { name, kind } => {
                    let length = kind.length(rest)?;
                    captures.insert(name.clone(), rest[..length].to_owned());
                    length
                }
            };
            rest = &rest[length..];
        }
        Some(captures)
    }
}

impl Kind {
    /// How many bytes at the start of the text are of this kind; `None` if it does not fit.
    fn length(self, text: &str) -> Option<usize> {
        let run =
            |ends: fn(char) -> bool| Some(text.find(ends).unwrap_or(text.len())).filter(|n| *n > 0);
        match self {
            Self::Hex => run(|c| !c.is_ascii_hexdigit()).filter(|length| *length == 40),
            Self::Int => run(|c| !c.is_ascii_digit()),
            Self::Word => run(char::is_whitespace),
            Self::Line => run(|c| c == '\n'),
        }
    }
}

fn capture(source: &str, inside: &str) -> Result<Part, PatternError> {
    let wrong = || PatternError::Capture(source.to_owned(), inside.to_owned());
    let (name, kind) = inside.split_once(':').ok_or_else(wrong)?;
    let kind = match kind {
        "hex" => Kind::Hex,
        "int" => Kind::Int,
        "word" => Kind::Word,
        "line" => Kind::Line,
        _ => return Err(wrong()),
    };
    if name.is_empty() {
        return Err(wrong());
    }
    Ok(Part::Capture {
        name: name.to_owned(),
        kind,
    })
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(source: String) -> Result<Self, PatternError> {
        Self::new(&source)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, text: &str) -> Option<Captures> {
        Pattern::new(pattern).unwrap().find(text)
    }

    #[test]
    fn captures_take_their_kind_and_nothing_more() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        let text = format!("Please run `git merge {sha}` as worker 12, now\nthen stop");
        assert_eq!(found("git merge {sha:hex}", &text).unwrap()["sha"], sha);
        assert_eq!(found("Worker {n:int}", &text).unwrap()["n"], "12");
        assert_eq!(found("as {a:word} ", &text).unwrap()["a"], "worker");
        assert_eq!(found("12, {rest:line}", &text).unwrap()["rest"], "now");
    }

    #[test]
    fn a_short_or_long_hash_is_no_commit() {
        assert_eq!(found("git merge {sha:hex}", "git merge 0123abc"), None);
        assert_eq!(
            found(
                "git merge {sha:hex}",
                &format!("git merge {}", "a".repeat(41))
            ),
            None
        );
    }

    #[test]
    fn an_anchor_holds_and_unicode_is_no_trouble() {
        assert!(found("^Plan", "Plan it").is_some());
        assert!(found("^Plan", "ä Plan it").is_none());
        assert!(found("plan", "ää→ Plan").is_some());
        assert!(found("plan", "ä").is_none());
    }

    #[test]
    fn a_bad_pattern_is_refused_with_its_text() {
        for (source, says) in [
            ("a {b", "not closed"),
            ("{b:real}", "b:real"),
            ("^", "empty"),
        ] {
            let error = Pattern::new(source).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
