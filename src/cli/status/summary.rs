//! What stands above and below the table.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::format::{age, safe};
use crate::cli::train::stall;
use crate::model::Timestamp;
use crate::model::train::TrainView;
use crate::model::view::{FleetView, PlanningView};

/// Only the newest notices; `--json` has all.
const NOTICES: usize = 10;

/// One line: project, phase, branch.
pub(super) fn head(view: &FleetView) -> String {
    let head = view
        .branch_head
        .as_ref()
        .map_or_else(String::new, |commit| format!(" at {}", commit.short()));
    format!(
        "{}: {}, branch {}{head}, version {}\n",
        view.project,
        view.phase,
        safe(&view.branch),
        view.version
    )
}

/// Tasks, merges, planning, notices, and where to go from here.
pub(super) fn foot(view: &FleetView, now: Timestamp) -> String {
    let mut text = String::new();
    counts(&mut text, view, now);
    let _ = writeln!(text, "planning    {}", planning(&view.planning, now));
    kept(&mut text, view, now);
    if let Some(disk) = &view.disk {
        let mib = |bytes| bytes / (1 << 20);
        let _ = writeln!(
            text,
            "disk        little room: {} MiB of {} MiB are free; make room",
            mib(disk.free_bytes),
            mib(disk.total_bytes)
        );
    }
    if !view.unknown_hooks.is_empty() {
        let kinds: Vec<String> = view
            .unknown_hooks
            .iter()
            .map(|(name, number)| format!("{} ({number})", safe(name)))
            .collect();
        let _ = writeln!(text, "new hooks   {}", kinds.join(", "));
    }
    notices(&mut text, view, now);
    let option = if view.tmux_socket.contains('/') {
        "-S"
    } else {
        "-L"
    };
    let _ = write!(
        text,
        "\ntask lists  {}  (or `orchestrator edit worker-1`)\n\
         attach      tmux {option} {} attach -t =worker-1  (or `orchestrator attach worker-1`)\n",
        view.task_list_directory, view.tmux_socket
    );
    text
}

fn counts(text: &mut String, view: &FleetView, now: Timestamp) {
    let tasks = &view.tasks;
    let _ = writeln!(
        text,
        "tasks       {} available, {} claimed, {} done, {} failed, {} cancelled",
        tasks.available, tasks.claimed, tasks.done, tasks.failed, tasks.cancelled
    );
    let merges = &view.merges;
    let _ = writeln!(
        text,
        "merges      {} merged, {} waiting, {} conflicts ({} resolved)",
        merges.merged, merges.waiting, merges.conflicts, merges.resolved
    );
    train(text, &view.train, now);
    if let Some(gate) = &view.gate {
        let again = if gate.again { " once more" } else { "" };
        let _ = writeln!(
            text,
            "gates       running {} ({} of {}) on {}{again} for {}",
            gate.gate,
            gate.number,
            gate.of,
            gate.commit.short(),
            age(now.since(gate.since))
        );
    }
    let push = match (view.pushed, &view.push_problem) {
        (true, _) => "everything merged is at the remote".to_owned(),
        (false, None) => "merged commits wait for the remote".to_owned(),
        (false, Some(problem)) => format!("merged commits wait: {}", safe(problem)),
    };
    let _ = writeln!(text, "push        {push}");
}

/// Nothing while it goes on.
fn train(text: &mut String, train: &TrainView, now: Timestamp) {
    let Some(first) = train.stalls.first() else {
        return;
    };
    let more = match train.stalls.len() - 1 {
        0 => String::new(),
        more => format!("{more} more: "),
    };
    let _ = writeln!(
        text,
        "train       {} ({more}`orchestrator train`)",
        stall(first, now)
    );
}

/// The newest copies of uncommitted work, if there are any.
fn kept(text: &mut String, view: &FleetView, now: Timestamp) {
    let with_one = view.agents.iter().filter_map(|agent| {
        let last = agent.kept.last.as_ref()?;
        let ago = age(now.since(last.at));
        Some(format!("{} {} files {ago} ago", agent.id, last.files))
    });
    let all: Vec<String> = with_one.collect();
    if !all.is_empty() {
        let _ = writeln!(
            text,
            "kept        uncommitted work: {} (`orchestrator rescue list`)",
            all.join(", ")
        );
    }
}

fn planning(planning: &PlanningView, now: Timestamp) -> String {
    let rounds = format!(
        "{} rounds, the last {} without a new task",
        planning.rounds, planning.empty_rounds
    );
    if planning.resting {
        return format!("{rounds}; resting until something changes (`orchestrator plan` asks now)");
    }
    match planning.next_round_at {
        Some(at) if at > now => format!("{rounds}; the next in {}", age(at.since(now))),
        Some(_) => format!("{rounds}; the next is due"),
        None => rounds,
    }
}

fn notices(text: &mut String, view: &FleetView, now: Timestamp) {
    let hidden = view.notices.len().saturating_sub(NOTICES);
    if !view.notices.is_empty() {
        text.push_str("\nnotices\n");
    }
    if hidden > 0 {
        let _ = writeln!(
            text,
            "  ({hidden} older ones: `orchestrator status --json`)"
        );
    }
    for notice in view.notices.iter().skip(hidden) {
        let ago: Duration = now.since(notice.at);
        let text_of = safe(&notice.text);
        // Few notices name their agent themselves.
        let whose = match &notice.agent {
            Some(agent) if !text_of.contains(agent.as_str()) => format!("{agent}: "),
            _ => String::new(),
        };
        let _ = writeln!(text, "  {} ago: {whose}{text_of}", age(ago));
        if let Some(hint) = &notice.hint {
            let _ = writeln!(text, "    hint: {}", safe(hint));
        }
    }
}
