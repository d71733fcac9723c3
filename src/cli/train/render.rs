//! The train as text: one line on the whole, what is on the way, what holds it up, what became of the
//! last ones.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, Color};

use crate::cli::format::{age, cut, safe};
use crate::cli::output;
use crate::cli::watch::Look;
use crate::model::train::{CandidateView, EndedView, StallView, TrainState, TrainView};
use crate::model::view::FleetView;
use crate::model::{AgentId, RunningGate, TaskId, Timestamp};

/// Longer titles and details are cut; `--json` has all of them.
const MAX_TEXT: usize = 60;
/// Of those that have ended.
const ENDED: usize = 10;

const WAYS: [&str; 7] = [
    "place", "agent", "commit", "work", "claims", "since", "setbacks",
];
const ENDS: [&str; 6] = ["ended", "agent", "commit", "outcome", "detail", "work"];

pub(super) fn train(view: &FleetView, look: Look) -> String {
    let train = &view.train;
    let mut text = head(view);
    let _ = writeln!(text, "{}", state(train, view.gate.as_ref(), look.now));
    if let Some(asked) = &train.with_manager {
        let _ = writeln!(
            text,
            "the manager is asked to merge {} commit(s) as {}, for {}",
            asked.candidates.len(),
            safe(asked.task.as_str()),
            age(look.now.since(asked.since))
        );
    }
    for one in &train.stalls {
        let _ = writeln!(text, "held up: {}", stall(one, look.now));
    }
    text.push('\n');
    text.push_str(&ways(train, look));
    if !train.recent.is_empty() {
        text.push('\n');
        text.push_str(&ends(&train.recent, look));
    }
    text
}

/// Branch, batch and gates.
fn head(view: &FleetView) -> String {
    let train = &view.train;
    let at = view
        .branch_head
        .as_ref()
        .map_or_else(String::new, |head| format!(" at {}", head.short()));
    let gates = if train.gates.is_empty() {
        "no gates: what merges cleanly becomes the branch".to_owned()
    } else {
        format!("gates: {}", safe(&train.gates.join(", ")))
    };
    let by = if train.merge_by == "manager" {
        "merged by the manager, "
    } else {
        ""
    };
    format!(
        "branch {}{at}; {by}up to {} together; {gates}\n",
        safe(&view.branch),
        train.batch
    )
}

fn state(train: &TrainView, gate: Option<&RunningGate>, now: Timestamp) -> String {
    let mut text = train.state.as_str().to_owned();
    if let Some(stack) = &train.stack {
        let _ = write!(text, " stack {}", stack.number);
        if let (Some(base), Some(top)) = (&stack.base, &stack.top) {
            let _ = write!(text, " ({} on {})", top.short(), base.short());
        }
    }
    if let Some(since) = train.since {
        let _ = write!(text, " for {}", age(now.since(since)));
    }
    if train.bisecting {
        text.push_str(", bisecting a red batch");
    }
    let stack = train.stack.as_ref();
    let tests = matches!(train.state, TrainState::Testing | TrainState::TestingBranch);
    // A person may be running gates on something else.
    let ours = gate.filter(|gate| {
        let commit = Some(&gate.commit);
        tests && stack.is_some_and(|s| s.top.as_ref() == commit || s.base.as_ref() == commit)
    });
    if let Some(gate) = ours {
        let again = if gate.again { " once more" } else { "" };
        let _ = write!(
            text,
            "; gate {} ({} of {}){again} for {}",
            safe(&gate.gate),
            gate.number,
            gate.of,
            age(now.since(gate.since))
        );
    }
    text
}

/// `REASON, for 5m, again in 10s`.
pub(in crate::cli) fn stall(stall: &StallView, now: Timestamp) -> String {
    let mut text = safe(&stall.reason);
    if let Some(since) = stall.since {
        let _ = write!(text, ", for {}", age(now.since(since)));
    }
    match stall.again_at {
        Some(at) if at > now => {
            let _ = write!(text, ", tried again in {}", age(at.since(now)));
        }
        Some(_) => text.push_str(", tried again now"),
        None => {}
    }
    text
}

fn ways(train: &TrainView, look: Look) -> String {
    let mut table = output::table(look.columns, look.colour, &WAYS);
    let stack = train.stack.iter().flat_map(|stack| &stack.members);
    for candidate in stack {
        table.add_row(way("now".to_owned(), candidate, look));
    }
    for (part, candidates) in train.after.iter().enumerate() {
        for candidate in candidates {
            table.add_row(way(format!("after {}", part + 1), candidate, look));
        }
    }
    let asked = train
        .with_manager
        .iter()
        .flat_map(|asked| &asked.candidates);
    for candidate in asked {
        table.add_row(way("manager".to_owned(), candidate, look));
    }
    for (place, candidate) in train.waiting.iter().enumerate() {
        table.add_row(way(format!("line {}", place + 1), candidate, look));
    }
    if table.row_count() == 0 {
        return "nothing waits\n".to_owned();
    }
    output::lines(&table)
}

fn way(place: String, candidate: &CandidateView, look: Look) -> Vec<Cell> {
    let tasks: Vec<&str> = candidate.tasks.iter().map(TaskId::as_str).collect();
    let claims = if tasks.is_empty() {
        "-".to_owned()
    } else {
        safe(&tasks.join(", "))
    };
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    vec![
        Cell::new(place),
        agent(&candidate.agent),
        Cell::new(candidate.commit.short()),
        Cell::new(cut(&safe(&candidate.title), MAX_TEXT)),
        Cell::new(cut(&claims, MAX_TEXT)),
        right(age(look.now.since(candidate.since))),
        right(candidate.setbacks.to_string()),
    ]
}

fn agent(agent: &AgentId) -> Cell {
    Cell::new(agent).add_attribute(Attribute::Bold)
}

/// Newest first.
fn ends(recent: &[EndedView], look: Look) -> String {
    let mut table = output::table(look.columns, look.colour, &ENDS);
    for ended in recent.iter().rev().take(ENDED) {
        let colour = match ended.outcome.as_str() {
            "landed" | "up to date" => Color::Green,
            "failed" => Color::Yellow,
            _ => Color::Red,
        };
        table.add_row(vec![
            Cell::new(format!("{} ago", age(look.now.since(ended.at)))),
            agent(&ended.agent),
            Cell::new(ended.commit.short()),
            Cell::new(&ended.outcome).fg(colour),
            Cell::new(cut(&safe(&ended.detail), MAX_TEXT)),
            Cell::new(cut(&safe(&ended.title), MAX_TEXT)),
        ]);
    }
    output::lines(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake::{NOW, fleet};
    use crate::cli::output::Colour;

    const LOOK: Look = Look {
        now: NOW,
        columns: None,
        colour: Colour::No,
    };

    #[test]
    fn a_train_that_bisects_and_is_held_up() {
        insta::assert_snapshot!(train(&fleet(), LOOK));
    }

    #[test]
    fn an_idle_train_is_three_lines() {
        let mut view = fleet();
        view.train = TrainView {
            batch: 5,
            ..TrainView::default()
        };
        let text = train(&view, LOOK);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].contains("no gates"), "{text}");
        assert_eq!((lines[1], lines[3]), ("idle", "nothing waits"));
    }

    #[test]
    fn a_gate_that_a_person_runs_is_not_the_trains() {
        let mut view = fleet();
        let top = view.train.stack.as_ref().and_then(|s| s.top.clone());
        let mut gate = RunningGate {
            gate: "test".into(),
            commit: top.unwrap(),
            since: Timestamp(NOW.0 - 12_000),
            number: 2,
            of: 2,
            again: true,
            log: "l".into(),
        };
        let said = state(&view.train, Some(&gate), NOW);
        assert!(
            said.ends_with("; gate test (2 of 2) once more for 12s"),
            "{said}"
        );
        gate.commit = "ffff".into();
        let said = state(&view.train, Some(&gate), NOW);
        assert!(!said.contains("gate test"), "{said}");
        view.train.state = TrainState::Idle;
    }

    #[test]
    fn what_agents_write_cannot_drive_the_terminal() {
        let mut view = fleet();
        view.train.waiting[0].title = "\u{1b}[2J".into();
        view.train.recent[0].detail = "\u{1b}[31m".into();
        view.train.stalls[0].reason = "\u{1b}]0;x\u{7}".into();
        assert!(!train(&view, LOOK).contains('\u{1b}'));
    }
}
