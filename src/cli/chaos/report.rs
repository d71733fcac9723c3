//! The table of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::fault::{Fault, LeftOut};
use super::notes::Kept;
use crate::model::AgentId;

/// One fault that was made.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Happened {
    pub(super) round: u32,
    pub(super) fault: Fault,
    pub(super) targets: Vec<AgentId>,
    /// Since the start of the first round.
    pub(super) at_seconds: f64,
    /// Until it was taken away; 0 for one that does not last.
    pub(super) lasted_seconds: f64,
    /// From there until work went on; `None`: it never did.
    pub(super) recovered_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    pub(super) seed: u64,
    pub(super) rounds: u32,
    pub(super) seconds: f64,
    pub(super) errands: usize,
    /// Lines of lists that a merge in the manager's checkout took away and that were added again.
    pub(super) put_back: usize,
    pub(super) lost: Vec<String>,
    pub(super) doubled: Vec<String>,
    /// What agents wrote, and where it is now.
    pub(super) notes: Kept,
    /// Everything that must not be.
    pub(super) violations: Vec<String>,
    pub(super) left_out: Vec<LeftOut>,
    pub(super) faults: Vec<Summary>,
    pub(super) happened: Vec<Happened>,
    pub(super) merges: u32,
    pub(super) conflicts: u32,
    pub(super) model_requests: u64,
    pub(super) restarts: BTreeMap<AgentId, u32>,
    /// Where the evidence lies.
    pub(super) kept: Option<PathBuf>,
}

/// All of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) fault: Fault,
    pub(super) times: usize,
    pub(super) recovered: usize,
    pub(super) median_seconds: Option<f64>,
    pub(super) max_seconds: Option<f64>,
}

/// In the order of the kinds; those that never came are not there.
pub(super) fn summarise(happened: &[Happened]) -> Vec<Summary> {
    let of = |fault: Fault| happened.iter().filter(move |one| one.fault == fault);
    Fault::ALL
        .into_iter()
        .filter(|fault| of(*fault).next().is_some())
        .map(|fault| {
            let mut took: Vec<f64> = of(fault).filter_map(|one| one.recovered_seconds).collect();
            took.sort_by(f64::total_cmp);
            Summary {
                fault,
                times: of(fault).count(),
                recovered: took.len(),
                median_seconds: median(&took),
                max_seconds: took.last().copied(),
            }
        })
        .collect()
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

impl Report {
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["fault", "times", "recovered", "median", "longest"]);
        let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |s| format!("{s:.1} s"));
        for summary in &self.faults {
            table.add_row([
                summary.fault.what().to_owned(),
                summary.times.to_string(),
                summary.recovered.to_string(),
                seconds(summary.median_seconds),
                seconds(summary.max_seconds),
            ]);
        }
        let _ = writeln!(text, "{table}");
        for left in &self.left_out {
            let _ = writeln!(text, "left out: {}: {}", left.fault, left.why);
        }
        let _ = writeln!(
            text,
            "seed {}: {} rounds in {:.0} s; {} tasks, {} lost, {} done twice; {} merges, {} conflicts, \
             {} restarts, {} model requests",
            self.seed,
            self.rounds,
            self.seconds,
            self.errands,
            self.lost.len(),
            self.doubled.len(),
            self.merges,
            self.conflicts,
            self.restarts.values().sum::<u32>(),
            self.model_requests,
        );
        let _ = writeln!(text, "{}", self.notes);
        if self.put_back > 0 {
            let _ = writeln!(
                text,
                "{} lines added to a task list were overwritten by a merge in that checkout and added again",
                self.put_back
            );
        }
        for violation in &self.violations {
            let _ = writeln!(text, "FAIL {violation}");
        }
        if let Some(kept) = &self.kept {
            let _ = writeln!(text, "kept: {}", kept.display());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(fault: Fault, recovered_seconds: Option<f64>) -> Happened {
        Happened {
            round: 1,
            fault,
            targets: vec![AgentId::worker(1)],
            at_seconds: 0.0,
            lasted_seconds: 0.0,
            recovered_seconds,
        }
    }

    #[test]
    fn each_kind_has_its_median_and_its_longest() {
        let all = [
            happened(Fault::Tmux, Some(4.0)),
            happened(Fault::Container, Some(9.0)),
            happened(Fault::Container, None),
            happened(Fault::Container, Some(2.0)),
            happened(Fault::Container, Some(3.0)),
            happened(Fault::Tmux, Some(1.0)),
        ];
        let summaries = summarise(&all);
        let container = Summary {
            fault: Fault::Container,
            times: 4,
            recovered: 3,
            median_seconds: Some(3.0),
            max_seconds: Some(9.0),
        };
        assert_eq!(summaries.len(), 2);
        assert_eq!(summaries[0], container);
        assert_eq!(summaries[1].median_seconds, Some(2.5));
    }
}
