//! The result: a table for people, an object for scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::super::{format, output};
use super::catalog::Observation;
use super::notes::{Finding, Outcome};

const WIDTH_WITHOUT_A_TERMINAL: u16 = 140;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Nothing differs, and everything asked for could be tried.
    pub(super) ok: bool,
    /// What was asked for; absent with an image of the user's own.
    claude_version: Option<String>,
    /// What this build of orchestrator is tested with.
    tested_version: String,
    image: String,
    holds: usize,
    differs: usize,
    untried: usize,
    seconds: f64,
    observations: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: &'static str,
    outcome: Outcome,
    says: &'static str,
    seen: String,
    used_by: &'static str,
}

/// What the report is about.
pub(super) struct About {
    pub(super) claude_version: Option<String>,
    pub(super) tested_version: String,
    pub(super) image: String,
    pub(super) seconds: f64,
}

impl Report {
    /// In the order of the observations. One without a finding could not be tried.
    pub(super) fn make(
        about: About,
        observations: &[Observation],
        findings: &BTreeMap<&'static str, Finding>,
    ) -> Self {
        let rows: Vec<Row> = observations
            .iter()
            .map(|observation| {
                let finding = findings.get(observation.id);
                Row {
                    id: observation.id,
                    outcome: finding.map_or(Outcome::Untried, |found| found.outcome),
                    says: observation.says,
                    seen: finding.map_or_else(String::new, |found| format::safe(&found.seen)),
                    used_by: observation.used_by,
                }
            })
            .collect();
        let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
        let (holds, differs, untried) = (
            count(Outcome::Holds),
            count(Outcome::Differs),
            count(Outcome::Untried),
        );
        Self {
            ok: differs == 0 && untried == 0,
            claude_version: about.claude_version,
            tested_version: about.tested_version,
            image: about.image,
            holds,
            differs,
            untried,
            seconds: about.seconds,
            observations: rows,
        }
    }

    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(output::terminal_size().map_or(WIDTH_WITHOUT_A_TERMINAL, |size| size.0))
            .set_header(["", "observation", "what is believed", "what was seen"]);
        for row in &self.observations {
            table.add_row([row.outcome.words(), row.id, row.says, &row.seen]);
        }
        let mut text = format!("{table}\n");
        for row in self
            .observations
            .iter()
            .filter(|row| row.outcome != Outcome::Holds)
        {
            let _ = writeln!(
                text,
                "{:<9} {}: needed for {}",
                row.outcome.words(),
                row.id,
                row.used_by
            );
        }
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let what = match &self.claude_version {
            Some(version) => format!("Claude Code {version}"),
            None => format!("Claude Code in {}", self.image),
        };
        format!(
            "{what} (tested with: {}): {} hold, {} differ, {} could not be tried, in {:.0} s",
            self.tested_version, self.holds, self.differs, self.untried, self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::Scene;
    use super::super::notes::Notes;
    use super::*;

    fn report(notes: Notes, halted: bool) -> Report {
        let observations = Scene::Resume.observations();
        let ids = observations.iter().map(|o| o.id);
        let halt = super::super::notes::Halt::new("it ended");
        let findings = notes.close(ids, halted.then_some(&halt));
        let about = About {
            claude_version: Some("2.1.300".into()),
            tested_version: "2.1.197".into(),
            image: "image".into(),
            seconds: 3.0,
        };
        Report::make(about, observations, &findings)
    }

    #[test]
    fn one_difference_is_not_fine_and_says_what_needs_it() {
        let mut notes = Notes::default();
        notes.check("resume.session", true, "same");
        notes.check("resume.goes-on", false, "it rests");
        notes.check("resume.prompt-again", true, "again");
        notes.check("resume.rests", true, "rests");
        let report = report(notes, false);
        assert!(!report.ok);
        assert_eq!((report.holds, report.differs, report.untried), (3, 1, 0));
        let text = report.table();
        assert!(
            text.contains("DIFFERS   resume.goes-on: needed for no turn is lost"),
            "{text}"
        );
        assert!(text.contains("it rests"), "{text}");
    }

    #[test]
    fn what_could_not_be_tried_is_not_fine_either() {
        let mut notes = Notes::default();
        notes.check("resume.session", true, "same");
        let report = report(notes, true);
        assert!(!report.ok);
        assert_eq!((report.holds, report.differs, report.untried), (1, 0, 3));
        assert!(report.table().contains("it ended"));
    }
}
