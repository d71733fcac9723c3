//! The explanation as text.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table};

use super::format::{age, count, safe};
use crate::cli::output::{self, Look};
use crate::model::explain::{Cause, Explanation, Grade, Signal, SignalView};
use crate::model::{KeptView, Timestamp};

pub(super) fn explanation(why: &Explanation, look: &Look) -> String {
    let mut text = String::new();
    head(&mut text, why, look);
    let _ = write!(text, "\n{}", signals(why, look));
    if let Some(since) = why.still_since.filter(|since| *since < why.at) {
        let _ = writeln!(
            text,
            "\nnothing of it, CPU use apart, has moved since {} ({})",
            time(since, look),
            age(look.now.since(since))
        );
    }
    ahead(&mut text, why, look);
    notices(&mut text, why, look);
    text
}

fn head(text: &mut String, why: &Explanation, look: &Look) {
    let life = match &why.container {
        Some(container) => format!("life {} in container {container}", why.incarnation),
        None => format!("life {}, without a container", why.incarnation),
    };
    let _ = writeln!(
        text,
        "{}: {} since {} ({})\n  {}\n",
        why.agent,
        why.state,
        time(why.since, look),
        age(look.now.since(why.since)),
        safe(&why.reason)
    );
    if let Some(until) = why.until {
        line(text, "until", &moment(until, look));
    }
    if let Some(task) = &why.task {
        let what = format!(
            "{} {}: {} (attempt {}, {})",
            task.status,
            task.id,
            safe(&task.title),
            task.attempts,
            age(look.now.since(task.since))
        );
        line(text, "task", &what);
    }
    for claim in &why.unproven {
        let what = format!(
            "{} ({}), said to be done {} ago: {}",
            claim.id,
            safe(&claim.title),
            age(look.now.since(claim.since)),
            safe(&claim.waits_for)
        );
        line(text, "not proven", &what);
    }
    line(text, "runs", &safe(&life));
    if let Some(session) = &why.session {
        line(text, "session", &safe(session.as_str()));
    }
    if let Some(credential) = &why.credential {
        line(text, "credential", &safe(credential.as_str()));
    }
    if let Some(kept) = kept(&why.kept, look) {
        line(text, "kept", &kept);
    }
    let crashes = format!(
        "{}; crashes that count now: {} of {} allowed",
        why.restarts, why.crashes, why.crashes_allowed
    );
    line(text, "restarts", &crashes);
}

/// The newest copy of its uncommitted work.
fn kept(kept: &KeptView, look: &Look) -> Option<String> {
    let ago = |at: Timestamp| age(look.now.since(at));
    if let Some(problem) = &kept.problem {
        return Some(format!(
            "its uncommitted work could not be copied: {}",
            safe(problem)
        ));
    }
    match (&kept.last, kept.kept_at) {
        (Some(last), _) => Some(format!(
            "uncommitted work: {} files {} ago, {} (`orchestrator rescue show {}`)",
            last.files,
            ago(last.at),
            safe(&last.cause),
            safe(&last.id)
        )),
        (None, Some(at)) => Some(format!("everything was committed {} ago", ago(at))),
        (None, None) => None,
    }
}

fn line(text: &mut String, name: &str, what: &str) {
    let _ = writeln!(text, "{name:<11} {what}");
}

fn signals(why: &Explanation, look: &Look) -> String {
    let mut table = table(look, &["signal", "grade", "for", "looked", "says"]);
    for view in &why.signals {
        let (held, looked, said) = match &view.fact {
            Some(fact) => (
                age(look.now.since(fact.at)),
                age(look.now.since(fact.seen)),
                said(view.signal, &fact.said),
            ),
            None => ("-".into(), "-".into(), "nothing yet".into()),
        };
        table.add_row(vec![
            Cell::new(view.signal.as_str()).add_attribute(Attribute::Bold),
            grade(view),
            right(held),
            right(looked),
            Cell::new(said),
        ]);
    }
    output::lines(&table)
}

fn grade(view: &SignalView) -> Cell {
    let cell = Cell::new(view.grade.as_str());
    match view.grade {
        Grade::Strong => cell.fg(Color::Green),
        Grade::Medium => cell,
        Grade::Weak => cell.add_attribute(Attribute::Dim),
    }
}

/// Sizes as people read them; `--json` has them exactly.
fn said(signal: Signal, text: &str) -> String {
    let bytes = text
        .strip_suffix(" bytes")
        .and_then(|number| number.parse::<u64>().ok());
    match bytes {
        Some(bytes) if signal == Signal::Transcript => format!("{} bytes written", count(bytes)),
        _ => safe(text),
    }
}

fn ahead(text: &mut String, why: &Explanation, look: &Look) {
    text.push_str("\nwhat would change it\n");
    for ahead in &why.ahead {
        let _ = match ahead.at {
            None => writeln!(text, "  {}", safe(&ahead.what)),
            Some(at) => writeln!(text, "  {}: {}", moment(at, look), safe(&ahead.what)),
        };
    }
}

fn notices(text: &mut String, why: &Explanation, look: &Look) {
    if why.notices.is_empty() {
        return;
    }
    text.push_str("\nnotices\n");
    for notice in &why.notices {
        let ago = age(look.now.since(notice.at));
        let _ = writeln!(text, "  {ago} ago: {}", safe(&notice.text));
        if let Some(hint) = &notice.hint {
            let _ = writeln!(text, "    hint: {}", safe(hint));
        }
    }
}

pub(super) fn history(why: &Explanation, look: &Look) -> String {
    let mut table = table(look, &["at", "life", "state", "reason", "because"]);
    for change in &why.history {
        let state = if change.from == change.to {
            change.to.clone()
        } else {
            format!("{} → {}", change.from, change.to)
        };
        table.add_row(vec![
            Cell::new(time(change.at, look)),
            right(change.incarnation.to_string()),
            Cell::new(safe(&state)),
            Cell::new(safe(&change.reason)),
            Cell::new(because(&change.cause)),
        ]);
    }
    let rest = if why.history.is_empty() {
        "  nothing is known any more\n".to_owned()
    } else {
        output::lines(&table)
    };
    format!("\nhistory, oldest first\n{rest}")
}

fn because(cause: &Cause) -> String {
    match (cause.signal, cause.grade) {
        (Some(signal), Some(grade)) => {
            format!(
                "{} ({}, {})",
                safe(&cause.text),
                signal.as_str(),
                grade.as_str()
            )
        }
        _ => safe(&cause.text),
    }
}

fn table(look: &Look, header: &[&str]) -> Table {
    output::table(look.columns, look.colour, header)
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// The time of day; with the date when that is another one.
fn time(at: Timestamp, look: &Look) -> String {
    let zoned = |at: Timestamp| {
        jiff::Timestamp::from_millisecond(at.0).map(|time| time.to_zoned(look.zone.clone()))
    };
    let (Ok(then), Ok(now)) = (zoned(at), zoned(look.now)) else {
        return "?".to_owned();
    };
    if then.date() == now.date() {
        then.strftime("%H:%M:%S").to_string()
    } else {
        then.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

fn moment(at: Timestamp, look: &Look) -> String {
    if at > look.now {
        format!("{} (in {})", time(at, look), age(at.since(look.now)))
    } else {
        format!("{} (now)", time(at, look))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake::{NOW, why};

    fn look() -> Look {
        Look::plain(NOW)
    }

    #[test]
    fn an_agent_at_work() {
        let why = why();
        let text = explanation(&why, &look()) + &history(&why, &look());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn an_agent_of_which_nothing_is_known() {
        let mut why = why();
        why.history.clear();
        why.notices.clear();
        (why.task, why.container, why.session) = (None, None, None);
        (why.still_since, why.until) = (None, Some(Timestamp(NOW.0 + 3000)));
        for view in &mut why.signals {
            view.fact = None;
        }
        let text = explanation(&why, &look()) + &history(&why, &look());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_agents_write_cannot_drive_the_terminal() {
        let mut why = why();
        why.reason = "\u{1b}]0;title\u{7}".into();
        why.history[0].reason = "\u{1b}[2J".into();
        if let Some(fact) = &mut why.signals[0].fact {
            fact.said = "\u{1b}[31m".into();
        }
        let text = explanation(&why, &look()) + &history(&why, &look());
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn other_days_are_named() {
        assert_eq!(time(NOW, &look()), "03:04:05");
        let yesterday = Timestamp(NOW.0 - 86_400_000);
        assert_eq!(time(yesterday, &look()), "2026-01-01 03:04:05");
    }
}
