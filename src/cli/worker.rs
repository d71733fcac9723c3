//! `worker`: takes and ends tasks of `.coordination/`, for sessions that no supervisor runs.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::error::Result;
use super::format::safe;
use super::leader::DIRECTORY;
use super::output;
use super::wiring::board::{BoardTask, Claimed, Shared};
use super::{Error, Exit};
use crate::model::TaskId;

/// Take and end tasks that a leader has planned: no supervisor, only files
///
/// NAME is this session's, for example `terminal-2`. Claiming again gives the same task until it is
/// completed or released, so a session that was restarted goes on with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator worker claim terminal-2
  orchestrator worker claim terminal-2 task-003     this one
  orchestrator worker complete terminal-2 task-003 \"Added the model and its tests\"
  orchestrator worker complete terminal-2 task-003 - < report.md
  orchestrator worker release terminal-2 task-003   somebody else may do it")]
pub struct WorkerArgs {
    #[command(subcommand)]
    action: Action,
    /// The shared directory
    #[arg(long, value_name = "DIR", default_value = DIRECTORY, global = true)]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Claim a task: the most urgent one that can be done, or the one that is named
    Claim {
        /// Who claims
        name: String,
        /// This task
        task: Option<String>,
        /// As JSON; `null` if there is nothing to claim
        #[arg(long)]
        json: bool,
    },
    /// End a claim: the task is done. What came of it goes to `results/TASK.md`
    Complete {
        /// Who has claimed it
        name: String,
        task: String,
        /// What came of it; `-` reads it from stdin
        result: String,
    },
    /// Give a claim back, undone
    Release {
        /// Who has claimed it
        name: String,
        task: String,
    },
}

pub(super) fn run(args: &WorkerArgs) -> Result<Exit> {
    let shared = Shared::open(&args.dir)?;
    match &args.action {
        Action::Claim { name, task, json } => claim(&shared, name, task.as_deref(), *json),
        Action::Complete { name, task, result } => complete(&shared, name, task, result),
        Action::Release { name, task } => {
            let id = TaskId::from(task.as_str());
            let (changed, _) = shared.change(|board| board.release(name, &id))?;
            if changed {
                shared.log(name, &format!("released {id}"))?;
            }
            output::say(&format!("{id} is available"));
            Ok(Exit::Done)
        }
    }
}

fn claim(shared: &Shared, name: &str, task: Option<&str>, as_json: bool) -> Result<Exit> {
    let wanted = task.map(TaskId::from);
    let (claimed, _) = shared.change(|board| board.claim(name, wanted.as_ref()))?;
    let (task, said) = match claimed {
        Claimed::New(task) => {
            shared.log(name, &format!("claimed {}: {}", task.id, task.description))?;
            (task, "claimed")
        }
        Claimed::Again(task) => (task, "claimed already"),
        Claimed::Nothing { waiting } => {
            if as_json {
                output::json(&json!(null))?;
            }
            output::say(&match waiting {
                0 => "there is nothing to claim".to_owned(),
                _ => format!("there is nothing to claim yet: {waiting} task(s) wait for others"),
            });
            return Ok(Exit::Done);
        }
    };
    if as_json {
        output::json(&task)?;
    } else {
        output::say(&format!("{said}: {}", task.id));
        output::data(&text(&task))?;
    }
    Ok(Exit::Done)
}

fn complete(shared: &Shared, name: &str, task: &str, result: &str) -> Result<Exit> {
    let mut text = result.to_owned();
    if result == "-" {
        text.clear();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Error::io("cannot read the result from stdin", &error))?;
    }
    if text.trim().is_empty() {
        return Err(Error::new(Exit::Usage, "the result is empty")
            .hint("say in a sentence what came of it: the leader reads it"));
    }
    let id = TaskId::from(task);
    // The result is written between the look at the claim and its end: after a crash there the claim
    // can be completed again.
    let (held, _) = shared.change(|board| board.clone().complete(name, &id))?;
    if held {
        let place = shared.result(task, &text)?;
        output::say(&format!("the result is in {}", place.display()));
    }
    let (changed, board) = shared.change(|board| board.complete(name, &id))?;
    if changed {
        shared.log(name, &format!("completed {id}"))?;
    }
    let left = board.counts();
    let open = left.get("available").unwrap_or(&0) + left.get("waiting").unwrap_or(&0);
    output::say(&format!("{id} is done; {open} task(s) are open"));
    Ok(Exit::Done)
}

fn text(task: &BoardTask) -> String {
    let mut text = String::new();
    for line in task.description.lines() {
        let _ = writeln!(text, "{}", safe(line));
    }
    if !task.context.files.is_empty() {
        let _ = writeln!(text, "files: {}", safe(&task.context.files.join(", ")));
    }
    for line in task.context.hints.iter().flat_map(|hints| hints.lines()) {
        let _ = writeln!(text, "hint: {}", safe(line));
    }
    text
}
