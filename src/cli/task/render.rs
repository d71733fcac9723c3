//! Tasks, one task and its receipt as text.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, Color};

use super::format::{age, cut, safe};
use crate::cli::output::{self, Look};
use crate::model::listing::{TaskLine, TaskPage, TaskReport, TaskState};
use crate::model::{
    AgentId, AttemptNote, GateRecord, Missing, Receipt, SentBack, TaskId, TaskSource, Timestamp,
};

/// A longer title is cut in the list; `show` has the whole text.
const MAX_TITLE: usize = 70;

const HEADER: [&str; 6] = ["task", "state", "agent", "attempts", "changed", "title"];

pub(super) fn page(page: &TaskPage, look: &Look) -> String {
    if page.tasks.is_empty() {
        return "no such task\n".to_owned();
    }
    let mut table = output::table(look.columns, look.colour, &HEADER);
    for task in &page.tasks {
        table.add_row(row(task, look));
    }
    let mut text = table
        .to_string()
        .lines()
        .fold(String::new(), |text, line| text + line.trim_end() + "\n");
    if let Some(next) = &page.next {
        let _ = writeln!(
            text,
            "\n{} of {}; the next page: --after {next}",
            page.tasks.len(),
            page.matching
        );
    }
    text
}

fn row(task: &TaskLine, look: &Look) -> Vec<Cell> {
    let agent = task.agent.as_ref().or(task.owner.as_ref());
    let attempts = match (task.attempts, task.failures) {
        (0, _) => "-".to_owned(),
        (tried, 0) => tried.to_string(),
        (tried, failures) => format!("{tried} ({failures} failed)"),
    };
    vec![
        Cell::new(safe(task.id.as_str())).add_attribute(Attribute::Bold),
        Cell::new(task.status.as_str()).fg(colour(task.status)),
        Cell::new(agent.map_or("any worker", |agent| agent.as_str())),
        Cell::new(attempts),
        Cell::new(age(look.now.since(task.updated_at))).set_alignment(CellAlignment::Right),
        Cell::new(cut(&safe(&task.title), MAX_TITLE)),
    ]
}

/// Colours repeat what the word says.
fn colour(state: TaskState) -> Color {
    match state {
        TaskState::Claimed => Color::Green,
        TaskState::Waiting => Color::Yellow,
        TaskState::Blocked | TaskState::Failed => Color::Red,
        TaskState::Done | TaskState::Cancelled => Color::DarkGrey,
        TaskState::Available => Color::Reset,
    }
}

pub(super) fn report(report: &TaskReport, look: &Look) -> String {
    let task = &report.task;
    let mut text = format!(
        "{}: {} since {}\n",
        safe(task.id.as_str()),
        report.state.as_str(),
        moment(task.updated_at, look)
    );
    for said in task.description.trim().lines() {
        let _ = writeln!(text, "  {}", safe(said));
    }
    text.push('\n');
    line(&mut text, "from", &source(&task.source));
    let owner = task.owner.as_ref();
    line(
        &mut text,
        "for",
        owner.map_or("any worker", |owner| owner.as_str()),
    );
    if let Some(claim) = &task.claim {
        let held = format!(
            "{}, life {}, since {}",
            claim.agent,
            claim.incarnation,
            moment(claim.claimed_at, look)
        );
        line(&mut text, "claimed by", &held);
    }
    for (name, ids) in [
        ("waits for", &report.waits_for),
        ("blocked by", &report.blocked_by),
        ("needed by", &report.needed_by),
    ] {
        if !ids.is_empty() {
            line(&mut text, name, &names(ids));
        }
    }
    if !task.labels.is_empty() {
        line(&mut text, "labels", &safe(&task.labels.join(", ")));
    }
    attempts(&mut text, report, look);
    if let Some(result) = &task.result {
        text.push_str("\nresult\n");
        for said in result.trim().lines() {
            let _ = writeln!(text, "  {}", safe(said));
        }
    }
    if task.receipt.is_some() {
        let _ = writeln!(
            text,
            "\nproven: see `orchestrator task receipt {}`",
            task.id
        );
    }
    text
}

fn attempts(text: &mut String, report: &TaskReport, look: &Look) {
    let task = &report.task;
    if task.history.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nattempts; {} count against it", task.failures());
    for note in &task.history {
        let _ = writeln!(text, "  {}", attempt(note, task.forgiven, look));
    }
}

fn attempt(note: &AttemptNote, forgiven: u32, look: &Look) -> String {
    let forgiven = if note.number <= forgiven && note.end.counts() {
        " (forgiven)"
    } else {
        ""
    };
    format!(
        "{}. {} life {}, {} for {}: {}{forgiven}",
        note.number,
        note.agent,
        note.incarnation,
        moment(note.began, look),
        age(note.ended.since(note.began)),
        safe(&note.told())
    )
}

fn source(source: &TaskSource) -> String {
    match source {
        TaskSource::TaskList { worker } => format!("WORKER_{worker}_TASK_LIST.md"),
        TaskSource::Plan { round } => format!("the supervisor: round {round} of planning"),
        TaskSource::MergeConflict { agent, commit } => {
            format!(
                "the supervisor: {} of {agent} does not merge",
                commit.short()
            )
        }
        TaskSource::Merge { agents } => {
            let agents: Vec<&str> = agents.iter().map(AgentId::as_str).collect();
            let agents = safe(&agents.join(", "));
            format!("the supervisor: what {agents} committed is to be merged")
        }
        TaskSource::Repair { tasks } => {
            let tasks: Vec<&str> = tasks.iter().map(TaskId::as_str).collect();
            format!("the supervisor: what {} lack", safe(&tasks.join(", ")))
        }
        TaskSource::Unproven { agent, task } => {
            let task = safe(task.as_str());
            format!("the supervisor: {agent} claimed {task} done, without proof")
        }
        TaskSource::Direct => "the supervisor or a script".to_owned(),
    }
}

pub(super) fn receipt(receipt: &Receipt, look: &Look) -> String {
    let mut text = format!(
        "{}: done by {}, proven {}\n\n",
        safe(receipt.task.as_str()),
        receipt.agent,
        moment(receipt.proven_at, look)
    );
    line(
        &mut text,
        "claimed",
        &format!("done {}", moment(receipt.claimed_at, look)),
    );
    match &receipt.landed {
        Some(commit) => line(&mut text, "landed", commit.short()),
        None => line(&mut text, "landed", "nothing to land"),
    }
    if let Some(reason) = &receipt.no_change {
        line(&mut text, "no change", &safe(reason));
    }
    for (name, paths) in [
        ("may change", &receipt.scope),
        ("changed", &receipt.files),
        ("uncommitted", &receipt.uncommitted),
    ] {
        if !paths.is_empty() {
            line(&mut text, name, &safe(&paths.join(", ")));
        }
    }
    if let Some(copy) = &receipt.rescue {
        let where_to = format!("`orchestrator rescue show {}`", safe(&copy.id));
        line(&mut text, "kept", &format!("a copy of that: {where_to}"));
    }
    if receipt.commit_count > 0 {
        let _ = writeln!(text, "\ncommits: {}", receipt.commit_count);
        for commit in &receipt.commits {
            let _ = writeln!(text, "  {} {}", commit.id.short(), safe(&commit.subject));
        }
    }
    if !receipt.gates.is_empty() {
        text.push_str("\ngates\n");
        for record in &receipt.gates {
            let _ = writeln!(text, "  {}", gate(record));
        }
    }
    if !receipt.sent_back.is_empty() {
        text.push_str("\nsent back before\n");
        for sent in &receipt.sent_back {
            let _ = writeln!(text, "  {}", sent_back(sent, look));
        }
    }
    text
}

fn gate(record: &GateRecord) -> String {
    let mut said = format!(
        "{}: {} on {}",
        safe(&record.name),
        if record.passed() {
            "passed"
        } else {
            "not passed"
        },
        record.commit.short()
    );
    if record.flaky {
        said.push_str(", at the second try");
    }
    if record.cached {
        said.push_str(", known from the same tree");
    }
    said
}

fn sent_back(sent: &SentBack, look: &Look) -> String {
    let missing = sent.missing.iter().map(|missing| match missing {
        Missing::Commit => "nothing was committed".to_owned(),
        Missing::CleanTree { paths } => format!("uncommitted: {}", paths.join(", ")),
        Missing::Scope { paths } => format!("outside of what it may change: {}", paths.join(", ")),
        Missing::Gate { gates } => {
            let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
            format!("gates not passed: {}", names.join(", "))
        }
        Missing::Merge { paths } => format!("does not merge: {}", paths.join(", ")),
    });
    let missing = safe(&missing.collect::<Vec<_>>().join("; "));
    let copy = sent.rescue.as_ref();
    let copy = copy.map_or_else(String::new, |copy| format!("; copy {}", safe(&copy.id)));
    format!("{}, to {}: {missing}{copy}", moment(sent.at, look), sent.to)
}

fn names(ids: &[TaskId]) -> String {
    let names: Vec<&str> = ids.iter().map(TaskId::as_str).collect();
    safe(&names.join(", "))
}

fn line(text: &mut String, name: &str, what: &str) {
    let _ = writeln!(text, "{name:<11} {what}");
}

/// `19:25:03 (4m ago)`, in the zone of whoever reads it.
fn moment(at: Timestamp, look: &Look) -> String {
    let ago = age(look.now.since(at));
    let Ok(time) = jiff::Timestamp::from_millisecond(at.0) else {
        return format!("{ago} ago");
    };
    let zoned = time.to_zoned(look.zone.clone());
    let today = jiff::Timestamp::from_millisecond(look.now.0)
        .is_ok_and(|now| now.to_zoned(look.zone.clone()).date() == zoned.date());
    let form = if today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
    format!("{} ({ago} ago)", zoned.strftime(form))
}
