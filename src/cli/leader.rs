//! `leader`: plans work for sessions that share a directory, with no supervisor and no server.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::{Attribute, Cell, CellAlignment, Color};
use serde_json::json;

use super::Exit;
use super::error::Result;
use super::format::{cut, safe};
use super::output::{self, Look};
use super::wiring::board::{Board, BoardTask, NewBoardTask, Shared};
use crate::model::{TaskContext, TaskId, TaskStatus};

/// Where the sessions of one directory share their work.
pub(super) const DIRECTORY: &str = ".coordination";
const MAX_TITLE: usize = 60;

/// Plan work for sessions in several terminals: no supervisor, only files
///
/// Each terminal runs a Claude Code of its own in the same directory. What they share lies in
/// `.coordination/`: `master-plan.md`, `tasks.json`, `context/discoveries.md`, `results/`, `logs/`.
/// These commands change it under a lock. Sessions that edit `tasks.json` by hand get along with
/// them: what is broken there is said, kept in `logs/`, and loses no other task.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator leader init \"Build a REST API\"
  orchestrator leader add-task \"Create User model\" -p 1
  orchestrator leader add-task \"Create login endpoint\" -p 2 -d task-001 --file src/login.ts
  orchestrator leader status
In the other terminals: orchestrator worker claim terminal-2")]
pub struct LeaderArgs {
    #[command(subcommand)]
    action: Action,
    /// The shared directory
    #[arg(long, value_name = "DIR", default_value = DIRECTORY, global = true)]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the directory, with the goal in its master plan
    Init {
        /// What all of it is for
        goal: String,
    },
    /// Add a task that any session may claim
    AddTask(AddArgs),
    /// Show the goal and the tasks
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// What is to be done
    description: String,
    /// Smaller is sooner
    #[arg(short, long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i64,
    /// Tasks that have to be done before; may be given several times
    #[arg(short, long = "depends-on", value_name = "TASK")]
    depends_on: Vec<String>,
    /// A file that matters for it; may be given several times
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<String>,
    /// What else helps
    #[arg(long)]
    hints: Option<String>,
    /// Say what was added as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &LeaderArgs) -> Result<Exit> {
    match &args.action {
        Action::Init { goal } => init(args, goal),
        Action::AddTask(new) => add(&Shared::open(&args.dir)?, new),
        Action::Status { json } => status(&Shared::open(&args.dir)?, *json),
    }
}

fn init(args: &LeaderArgs, goal: &str) -> Result<Exit> {
    if goal.trim().is_empty() {
        return Err(super::Error::new(Exit::Usage, "the goal is empty")
            .hint("say in a sentence what all of it is for"));
    }
    let (shared, made) = Shared::init(&args.dir, goal)?;
    if made.is_empty() {
        output::say(&format!("{} is there already", args.dir.display()));
    } else {
        shared.log("leader", &format!("began: {goal}"))?;
        output::say(&format!(
            "made in {}: {}",
            args.dir.display(),
            made.join(", ")
        ));
    }
    output::say(
        "next: `orchestrator leader add-task \"...\"`, then in each other terminal\n      \
         `orchestrator worker claim NAME`",
    );
    Ok(Exit::Done)
}

fn add(shared: &Shared, args: &AddArgs) -> Result<Exit> {
    let new = NewBoardTask {
        description: args.description.clone(),
        priority: args.priority,
        dependencies: args.depends_on.iter().map(TaskId::new).collect(),
        context: TaskContext {
            files: args.files.clone(),
            hints: args.hints.clone(),
        },
    };
    let now = super::format::now();
    let (id, board) = shared.change(|board| board.add(&new, now))?;
    shared.log("leader", &format!("added {id}: {}", args.description))?;
    if args.json {
        output::json(&board.get(&id))?;
    } else {
        output::data(&format!("{id}\n"))?;
    }
    Ok(Exit::Done)
}

fn status(shared: &Shared, json: bool) -> Result<Exit> {
    let board = shared.board()?;
    let goal = shared.goal()?;
    if json {
        let tasks: Vec<&BoardTask> = board.tasks().collect();
        output::json(&json!({"goal": goal, "counts": board.counts(), "tasks": tasks}))?;
        return Ok(Exit::Done);
    }
    if let Some(goal) = goal {
        let first = goal.lines().next().unwrap_or_default();
        output::data(&format!("goal: {}\n", safe(first)))?;
    }
    let counts: Vec<String> = board
        .counts()
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    if counts.is_empty() {
        output::say("there are no tasks yet: `orchestrator leader add-task \"...\"`");
        return Ok(Exit::Done);
    }
    output::data(&format!("tasks: {}\n\n", counts.join(", ")))?;
    output::data(&table(&board, &Look::of_stdout()))?;
    Ok(Exit::Done)
}

fn table(board: &Board, look: &Look) -> String {
    let header = ["task", "state", "by", "priority", "description"];
    let mut table = output::table(look.columns, look.colour, &header);
    for task in board.tasks() {
        let waits_for = board.waits_for(task);
        let (state, colour) = match task.status {
            TaskStatus::Available if !waits_for.is_empty() => {
                let ids: Vec<String> = waits_for.iter().map(|id| safe(id.as_str())).collect();
                (format!("waits for {}", ids.join(", ")), Color::Reset)
            }
            TaskStatus::Claimed => ("claimed".to_owned(), Color::Cyan),
            TaskStatus::Done => ("done".to_owned(), Color::Green),
            TaskStatus::Failed => ("failed".to_owned(), Color::Red),
            other => (other.as_str().to_owned(), Color::Reset),
        };
        let title = task.description.lines().next().unwrap_or_default();
        table.add_row(vec![
            Cell::new(safe(task.id.as_str())).add_attribute(Attribute::Bold),
            Cell::new(state).fg(colour),
            Cell::new(safe(task.claimed_by.as_deref().unwrap_or("-"))),
            Cell::new(task.priority).set_alignment(CellAlignment::Right),
            Cell::new(cut(&safe(title), MAX_TITLE)),
        ]);
    }
    output::lines(&table)
}
