//! What is wrong with a configuration, all of it at once, and where each value came from.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

/// Where something was written. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "source", rename_all = "camelCase")]
pub enum Place {
    File {
        file: PathBuf,
        line: Option<usize>,
        column: Option<usize>,
    },
    Environment {
        variable: String,
    },
    /// `--set key=...`
    Flag {
        key: String,
    },
}

impl Place {
    pub(super) fn whole(file: &Path) -> Self {
        Self::File {
            file: file.to_owned(),
            line: None,
            column: None,
        }
    }

    /// The order people read problems in: down the file, the file as a whole, the layers above.
    pub(super) fn rank(&self) -> (u8, usize, usize) {
        match self {
            Self::File {
                line: Some(line),
                column,
                ..
            } => (0, *line, column.unwrap_or(0)),
            Self::File { line: None, .. } => (1, 0, 0),
            Self::Environment { .. } => (2, 0, 0),
            Self::Flag { .. } => (3, 0, 0),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => {
                write!(f, "{}", file.display())?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                if let Some(column) = column {
                    write!(f, ":{column}")?;
                }
                Ok(())
            }
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Flag { key } => write!(f, "--set {key}"),
        }
    }
}

/// Which layer a value in effect came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    Set(Place),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Set(place) => place.fmt(f),
        }
    }
}

impl Origin {
    /// `{"source": "default" | "file" | "environment" | "flag", ...}`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Default => json!({ "source": "default" }),
            Self::Set(place) => json!(place),
        }
    }
}

/// One thing that is wrong. Never holds a secret: sensitive values are hidden where it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub place: Place,
    /// Dotted path of the key, where one is meant.
    pub key: Option<String>,
    pub message: String,
    pub found: Option<String>,
    pub allowed: Option<String>,
    /// The nearest known key, for one that is not known.
    pub nearest: Option<String>,
    /// The next step.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            key: None,
            message: message.into(),
            found: None,
            allowed: None,
            nearest: None,
            hint: None,
        }
    }

    pub(super) fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn nearest(mut self, nearest: Option<String>) -> Self {
        self.nearest = nearest;
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, severity: &str) -> fmt::Result {
        write!(f, "{severity}: {}: ", self.place)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        writeln!(f, "{}", self.message)?;
        let lines = [
            ("found", &self.found),
            ("allowed", &self.allowed),
            ("nearest known key", &self.nearest),
            ("hint", &self.hint),
        ];
        for (name, text) in lines {
            if let Some(text) = text {
                writeln!(f, "  {name}: {text}")?;
            }
        }
        Ok(())
    }

    /// The lines people read, beginning with `warning:` instead of `error:`.
    pub fn as_warning(&self) -> String {
        struct Warning<'a>(&'a Problem);
        impl fmt::Display for Warning<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(f, "warning")
            }
        }
        Warning(self).to_string()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "error")
    }
}

/// Every problem of one load, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Problems {
    /// `{"problems": [...]}` for `--json`.
    pub fn to_json(&self) -> Value {
        json!({ "problems": self.0 })
    }
}

/// The known word nearest to `word`, if one is near enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Found by trying usual slips: lower lets `git` suggest `image`, higher misses `worker_count`.
    const NEAR: f64 = 0.6;
    let word = word.to_lowercase();
    known
        .map(|candidate| {
            let lower = candidate.to_lowercase();
            let score = strsim::normalized_damerau_levenshtein(&word, &lower);
            // A word cut short (`mem`) is near whatever the share of letters says.
            let cut = word.len() >= 3 && lower.starts_with(&word);
            (if cut { score.max(NEAR) } else { score }, candidate)
        })
        .filter(|(score, _)| *score >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_near_words_the_nearest_is_named_and_far_ones_never() {
        let known = ["bench", "branch", "brunch"];
        assert_eq!(nearest("brannch", known.into_iter()), Some("branch"));
        assert_eq!(nearest("BRUNCH", known.into_iter()), Some("brunch"));
        assert_eq!(nearest("git", ["image"].into_iter()), None);
        assert_eq!(nearest("mem", ["memory"].into_iter()), Some("memory"));
    }
}
