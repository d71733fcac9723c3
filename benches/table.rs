//! The result: rows of ours against a floor, as a table for people and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::machine::Machine;
use crate::stats::Sample;

/// One comparison. Smaller is better in every row.
#[derive(Debug, Serialize)]
pub struct Row {
    pub benchmark: &'static str,
    pub case: String,
    pub unit: &'static str,
    pub ours: Sample,
    /// What it is compared with, measured in the same run; one value where it is a stated limit.
    pub floor: Sample,
    /// The largest ratio that is as wished; none where nothing was promised.
    pub aim: Option<f64>,
}

impl Row {
    pub fn ratio(&self) -> f64 {
        self.ours.median() / self.floor.median()
    }

    fn verdict(&self) -> &'static str {
        match self.aim {
            None => "",
            Some(aim) if self.ratio() <= aim => "yes",
            Some(_) => "NO",
        }
    }

    fn cells(&self) -> [String; 7] {
        [
            self.benchmark.to_owned(),
            self.case.clone(),
            shown(&self.ours, self.unit),
            shown(&self.floor, self.unit),
            format!("{:.2}", self.ratio()),
            self.aim
                .map_or_else(|| "-".to_owned(), |aim| format!("{aim:.2}")),
            self.verdict().to_owned(),
        ]
    }
}

const HEADER: [&str; 7] = [
    "benchmark",
    "case",
    "ours",
    "floor",
    "ratio",
    "aim",
    "reached",
];

fn shown(sample: &Sample, unit: &str) -> String {
    let digits = match sample.median().abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let median = sample.median();
    if sample.0.len() < 2 {
        return format!("{median:.digits$} {unit}");
    }
    let (low, high) = sample.spread();
    format!("{median:.digits$} {unit} ({low:.digits$}–{high:.digits$})")
}

#[derive(Debug, Serialize)]
pub struct Results {
    pub machine: Machine,
    pub rows: Vec<Row>,
    /// Benchmarks that could not be measured, and why.
    pub failed: Vec<String>,
}

impl Results {
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(HEADER);
        for row in &self.rows {
            table.add_row(row.cells());
        }
        self.failed.iter().fold(table.to_string(), |text, failed| {
            format!("{text}\nNOT MEASURED: {failed}")
        })
    }

    pub fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        write(path, &format!("{text}\n"))
    }

    pub fn write_markdown(&self, path: &Path) -> Result<()> {
        let mut text = String::from(include_str!("RESULTS.head.md"));
        let _ = writeln!(text, "\n{}\n", self.machine.in_words());
        let _ = writeln!(text, "| {} |", HEADER.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(HEADER.len()));
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.cells().join(" | "));
        }
        for failed in &self.failed {
            let _ = writeln!(text, "\nNot measured: {failed}");
        }
        write(path, &text)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
