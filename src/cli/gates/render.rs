//! Tables and lines about gates.

use std::time::Duration;

use comfy_table::{Attribute, Cell, Color};

use crate::cli::format::{age, safe};
use crate::cli::output::{self, Look};
use crate::model::{GateOutcome, GateRecord, GateView, LoggedGate, RunningGate};

const GATES: [&str; 10] = [
    "gate",
    "runs in",
    "timeout",
    "passed",
    "flaky",
    "failed",
    "timed out",
    "known",
    "last",
    "command",
];
const RUNS: [&str; 6] = ["log", "gate", "commit", "outcome", "took", "ended"];

pub(super) fn gates(gates: &[GateView], look: &Look) -> String {
    let mut table = output::table(look.columns, look.colour, &GATES);
    for gate in gates {
        let counts = &gate.counts;
        let last = gate.last.as_ref().zip(gate.last_at).map_or_else(
            || Cell::new("-"),
            |(record, at)| {
                let ago = age(look.now.since(at));
                Cell::new(format!("{} {ago} ago", outcome(record))).fg(colour_of(record))
            },
        );
        table.add_row([
            Cell::new(&gate.name).add_attribute(Attribute::Bold),
            Cell::new(place(gate)),
            Cell::new(age(Duration::from_secs(gate.timeout_seconds))),
            Cell::new(counts.passed),
            Cell::new(counts.flaky),
            Cell::new(counts.failed),
            Cell::new(counts.timed_out),
            Cell::new(counts.cached),
            last,
            Cell::new(safe(&gate.command)),
        ]);
    }
    lines(&table.to_string())
}

fn place(gate: &GateView) -> String {
    let mut text = safe(gate.image.as_deref().unwrap_or("agent"));
    if gate.network {
        text.push_str(" + network");
    }
    if gate.cache {
        text.push_str(" + cache");
    }
    text
}

pub(super) fn runs(runs: &[LoggedGate], look: &Look) -> String {
    let mut table = output::table(look.columns, look.colour, &RUNS);
    for LoggedGate { at, record } in runs {
        table.add_row([
            Cell::new(&record.log).add_attribute(Attribute::Bold),
            Cell::new(&record.name),
            Cell::new(record.commit.short()),
            Cell::new(outcome(record)).fg(colour_of(record)),
            Cell::new(age(Duration::from_millis(record.milliseconds))),
            Cell::new(format!("{} ago", age(look.now.since(*at)))),
        ]);
    }
    lines(&table.to_string())
}

fn lines(table: &str) -> String {
    table
        .lines()
        .fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// `failed`, `passed, flaky`, `passed, known`.
fn outcome(record: &GateRecord) -> String {
    let mut text = record.outcome.as_str().to_owned();
    if record.flaky {
        text.push_str(", flaky");
    }
    if record.cached {
        text.push_str(", known");
    }
    text
}

fn colour_of(record: &GateRecord) -> Color {
    match record.outcome {
        GateOutcome::Passed if !record.flaky => Color::Green,
        GateOutcome::Passed | GateOutcome::Broken => Color::Yellow,
        GateOutcome::Failed | GateOutcome::TimedOut => Color::Red,
    }
}

/// `test (2 of 3) on 3f2a91c`, with what is different about this try.
pub(super) fn started(running: &RunningGate) -> String {
    let RunningGate {
        gate,
        commit,
        number,
        of,
        ..
    } = running;
    let again = if running.again {
        " once more: it failed"
    } else {
        ""
    };
    format!(
        "running {gate} ({number} of {of}) on {}{again}",
        commit.short()
    )
}

pub(super) fn finished(record: &GateRecord) -> String {
    let took = age(Duration::from_millis(record.milliseconds));
    let mut text = format!("{}: {} after {took}", record.name, outcome(record));
    if record.outcome == GateOutcome::Broken {
        text = format!("{text}: {}", safe(&record.tail));
    }
    if record.log.is_empty() {
        return text;
    }
    format!("{text} (orchestrator gates log {})", record.log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommitId, GateCounts, Timestamp};

    const NOW: Timestamp = Timestamp(1_795_273_200_000);

    fn record(outcome: GateOutcome, flaky: bool) -> GateRecord {
        GateRecord {
            name: "test".into(),
            outcome,
            flaky,
            cached: false,
            commit: CommitId::new("3f2a91c0123456789012345678901234567890ab"),
            tree: "t".into(),
            milliseconds: 65_000,
            log: "20261121-164704-test".into(),
            tail: "no image\u{1b}[2J".into(),
        }
    }

    #[test]
    fn flakes_are_counted_where_people_look() {
        let gate = GateView {
            name: "test".into(),
            command: "make test\nsecond line".into(),
            image: Some("rust:1.90".into()),
            timeout_seconds: 1200,
            network: true,
            cache: false,
            counts: GateCounts {
                passed: 7,
                flaky: 3,
                ..GateCounts::default()
            },
            last: Some(record(GateOutcome::Passed, true)),
            last_at: Some(Timestamp(NOW.0 - 120_000)),
        };
        let text = gates(&[gate], &Look::plain(NOW));
        for word in [
            "rust:1.90 + network",
            "20m",
            "passed, flaky 2m ago",
            "make test second line",
        ] {
            assert!(text.contains(word), "`{word}` is not in\n{text}");
        }
        assert!(
            text.lines()
                .nth(1)
                .is_some_and(|row| row.contains('7') && row.contains('3'))
        );
    }

    #[test]
    fn a_line_says_how_it_ended_and_where_its_log_is() {
        let failed = finished(&record(GateOutcome::Failed, false));
        assert_eq!(
            failed,
            "test: failed after 1m (orchestrator gates log 20261121-164704-test)"
        );
        let broken = finished(&record(GateOutcome::Broken, false));
        assert!(broken.contains("could not be run") && broken.contains("no image"));
        assert!(!broken.contains('\u{1b}'));
        let logged = LoggedGate {
            at: Timestamp(NOW.0 - 5000),
            record: record(GateOutcome::TimedOut, false),
        };
        let table = runs(&[logged], &Look::plain(NOW));
        assert!(
            table.contains("timed out") && table.contains("5s ago"),
            "{table}"
        );
    }

    #[test]
    fn a_second_try_is_told() {
        let running = RunningGate {
            gate: "test".into(),
            commit: CommitId::new("3f2a91c0123456789012345678901234567890ab"),
            since: NOW,
            number: 2,
            of: 3,
            again: true,
            log: "l".into(),
        };
        let text = started(&running);
        assert!(
            text.starts_with("running test (2 of 3) on 3f2a91c"),
            "{text}"
        );
        assert!(text.ends_with("once more: it failed"), "{text}");
    }
}
