//! What became of a candidate, in words that the rest of the house judges by.

use crate::model::{CommitId, GateRecord};

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Verdict {
    /// It is in the branch, which now is at `head`. `gates`: as they ran on what landed; those that
    /// did not pass had not passed on the branch before it either. Empty where there are none.
    Landed {
        head: CommitId,
        gates: Vec<GateRecord>,
    },
    /// The branch, which is at `head`, had it already. `gates`: what is known of `head`.
    UpToDate {
        head: CommitId,
        gates: Vec<GateRecord>,
    },
    /// It does not merge with the branch. Path and conflict text per file, bounded.
    Conflict { files: Vec<(String, String)> },
    /// Merged with the branch it does not pass these gates, which the branch without it passes.
    Red { gates: Vec<GateRecord> },
    /// The manager was asked to merge it, and `on`, which has the manager's work, does not have it.
    NotMerged { on: CommitId },
    /// It could not be tried. It stays in the line and is tried again by itself.
    Failed { reason: String },
}

impl Verdict {
    /// One word, and what else there is to say in a line.
    pub(super) fn words(&self) -> (&'static str, String) {
        match self {
            Self::Landed { head, .. } => ("landed", head.short().to_owned()),
            Self::UpToDate { head, .. } => ("up to date", head.short().to_owned()),
            Self::Conflict { files } => {
                let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
                ("conflict", paths.join(", "))
            }
            Self::Red { gates } => ("red", names(gates)),
            Self::NotMerged { on } => ("not merged", format!("not in {}", on.short())),
            Self::Failed { reason } => ("failed", reason.clone()),
        }
    }
}

/// The gates' names, for a sentence.
pub(in crate::supervisor) fn names(gates: &[GateRecord]) -> String {
    let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
    names.join(", ")
}
