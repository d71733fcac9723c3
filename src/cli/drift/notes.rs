//! What was found, by observation. Nothing holds until a scene has said what it saw.

use std::collections::BTreeMap;

use crate::ports::PortError;

/// Why a scene cannot go on. Its observations that are not decided yet could then not be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Halt(pub(super) String);

impl Halt {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl From<PortError> for Halt {
    fn from(error: PortError) -> Self {
        Self(error.chain())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Holds,
    Differs,
    /// The way to it was blocked; `seen` says by what.
    Untried,
}

impl Outcome {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Differs => "DIFFERS",
            Self::Untried => "not tried",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) outcome: Outcome,
    pub(super) seen: String,
}

/// The findings of one scene.
#[derive(Debug, Default)]
pub(super) struct Notes {
    findings: BTreeMap<&'static str, Finding>,
}

impl Notes {
    /// `Ok`: as expected, and what was seen; `Err`: what was seen instead. Of two findings about one
    /// observation a difference counts.
    pub(super) fn found(&mut self, id: &'static str, seen: Result<String, String>) {
        let finding = match seen {
            Ok(seen) => Finding {
                outcome: Outcome::Holds,
                seen,
            },
            Err(seen) => Finding {
                outcome: Outcome::Differs,
                seen,
            },
        };
        let there = self.findings.get(id);
        if there.is_none_or(|there| there.outcome == Outcome::Holds) {
            self.findings.insert(id, finding);
        }
    }

    pub(super) fn check(&mut self, id: &'static str, holds: bool, seen: impl Into<String>) {
        let seen = seen.into();
        self.found(id, if holds { Ok(seen) } else { Err(seen) });
    }

    /// One finding per id; those without any could not be tried, for this reason.
    pub(super) fn close(
        self,
        ids: impl IntoIterator<Item = &'static str>,
        halted: Option<&Halt>,
    ) -> BTreeMap<&'static str, Finding> {
        let mut findings = self.findings;
        let why = halted.map_or("the scene ended without looking", |halt| &halt.0);
        for id in ids {
            findings.entry(id).or_insert_with(|| Finding {
                outcome: Outcome::Untried,
                seen: why.to_owned(),
            });
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_stays_whatever_else_is_found() {
        let mut notes = Notes::default();
        notes.check("a", true, "good");
        notes.check("a", false, "bad");
        notes.check("a", true, "good again");
        notes.check("b", true, "fine");
        let found = notes.close(["a", "b", "c"], Some(&Halt::new("it broke")));
        assert_eq!(found["a"].outcome, Outcome::Differs);
        assert_eq!(found["a"].seen, "bad");
        assert_eq!(found["b"].outcome, Outcome::Holds);
        assert_eq!(found["c"].outcome, Outcome::Untried);
        assert_eq!(found["c"].seen, "it broke");
    }
}
