//! What a check found, and how it is shown.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::Exit;
use crate::cli::output::Colour;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ok,
    /// The fleet runs, but somebody should look.
    Warn,
    /// The fleet will not run.
    Fail,
}

/// One prerequisite, looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// The next step; `None` when all is well.
    pub fix: Option<String>,
}

impl Check {
    pub fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self::new(name, Outcome::Ok, detail.into(), None)
    }

    pub fn warn(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, Outcome::Warn, detail.into(), Some(fix.into()))
    }

    pub fn fail(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, Outcome::Fail, detail.into(), Some(fix.into()))
    }

    fn new(name: &str, outcome: Outcome, detail: String, fix: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            outcome,
            detail,
            fix,
        }
    }
}

pub(super) fn json(checks: &[Check]) -> Value {
    json!({ "ok": worst(checks) != Outcome::Fail, "checks": checks })
}

/// One line for each check, and the fix below it.
pub(super) fn text(checks: &[Check], colour: Colour) -> String {
    let mut text = String::new();
    for check in checks {
        let word = match check.outcome {
            Outcome::Ok => paint("ok  ", "32", colour),
            Outcome::Warn => paint("warn", "33", colour),
            Outcome::Fail => paint("FAIL", "31", colour),
        };
        let mut lines = check.detail.lines();
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(text, "{word}  {}: {first}", check.name);
        for line in lines {
            let _ = writeln!(text, "        {line}");
        }
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "      fix: {fix}");
        }
    }
    let failed = number(checks, Outcome::Fail);
    let warned = number(checks, Outcome::Warn);
    let _ = match (failed, warned) {
        (0, 0) => writeln!(text, "\neverything is there"),
        _ => writeln!(text, "\n{failed} missing, {warned} to look at"),
    };
    text
}

/// SGR colours of ECMA-48.
fn paint(word: &str, code: &str, colour: Colour) -> String {
    match colour {
        Colour::Yes => format!("\x1b[{code}m{word}\x1b[0m"),
        Colour::No => word.to_owned(),
    }
}

fn number(checks: &[Check], outcome: Outcome) -> usize {
    checks
        .iter()
        .filter(|check| check.outcome == outcome)
        .count()
}

fn worst(checks: &[Check]) -> Outcome {
    let outcomes = checks.iter().map(|check| check.outcome);
    outcomes.max().unwrap_or(Outcome::Ok)
}

pub(super) fn exit(checks: &[Check], configuration_is_valid: bool) -> Exit {
    match worst(checks) {
        _ if !configuration_is_valid => Exit::Usage,
        Outcome::Fail => Exit::Prerequisite,
        Outcome::Ok | Outcome::Warn => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<Check> {
        vec![
            Check::ok("git", "2.47.3"),
            Check::warn("disk", "3 GiB free", "make room"),
            Check::fail(
                "engine",
                "no answer\npermission denied",
                "add yourself to the group `docker`",
            ),
        ]
    }

    #[test]
    fn each_check_has_a_line_and_each_problem_its_fix() {
        insta::assert_snapshot!(text(&checks(), Colour::No));
        insta::assert_snapshot!(text(&checks()[..1], Colour::No));
    }

    #[test]
    fn the_json_says_whether_the_fleet_can_run() {
        assert_eq!(json(&checks())["ok"], false);
        assert_eq!(json(&checks()[..2])["ok"], true);
        assert_eq!(json(&checks())["checks"][2]["outcome"], "fail");
    }

    #[test]
    fn the_exit_code_tells_configuration_from_prerequisites() {
        assert_eq!(exit(&checks(), true), Exit::Prerequisite);
        assert_eq!(exit(&checks()[..2], true), Exit::Done);
        assert_eq!(exit(&checks(), false), Exit::Usage);
    }
}
