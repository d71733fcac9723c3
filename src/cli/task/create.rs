//! `task create`: one more task in the queue.

use clap::Args;

use super::{Client, Exit, Result};
use crate::cli::output;
use crate::model::draft::{DraftContext, TaskDraft};
use crate::model::{AgentId, TaskId};

/// Create a task; the next free worker gets it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator task create \"Write a JWT utility\" -p 1
  orchestrator task create \"Add the middleware\" -d task-3fa9c21b --owner worker-2
  orchestrator task create \"Fix the date parser\" --file src/date.rs --hint \"see RFC 3339\" \\
      --scope \"src/**\" --label bug

Prints the id of the task. It waits until the tasks it depends on are done.")]
pub(super) struct CreateArgs {
    /// What the agent is told
    description: String,
    /// Smaller is sooner
    #[arg(short, long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i64,
    /// A task that must be done before; may be repeated
    #[arg(short = 'd', long = "depends-on", value_name = "ID")]
    dependencies: Vec<String>,
    /// Only this agent may do it; without it any worker
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// A word to find it by; may be repeated
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// A file to look at; may be repeated
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<String>,
    /// A hint that goes with the description
    #[arg(long, value_name = "TEXT")]
    hint: Option<String>,
    /// A pattern of the paths it may change; may be repeated; without one any
    #[arg(long, value_name = "GLOB")]
    scope: Vec<String>,
    /// Its id: letters, digits, `.`, `_` and `-`; without it one is made up
    #[arg(long)]
    id: Option<String>,
    /// The task as JSON
    #[arg(long)]
    json: bool,
}

impl CreateArgs {
    fn draft(&self) -> TaskDraft {
        TaskDraft {
            id: self.id.as_deref().map(TaskId::from),
            description: self.description.clone(),
            priority: self.priority,
            owner: self.owner.as_deref().map(AgentId::from),
            dependencies: self.dependencies.iter().map(TaskId::new).collect(),
            labels: self.labels.clone(),
            context: DraftContext {
                files: self.files.clone(),
                hints: self.hint.clone(),
            },
            scope: self.scope.clone(),
        }
    }
}

pub(super) async fn run(client: &Client, args: &CreateArgs) -> Result<Exit> {
    let created = client.create_tasks(&[args.draft()]).await?;
    for report in created {
        if args.json {
            output::json(&report)?;
        } else {
            output::data(&format!("{}\n", report.task.id))?;
        }
    }
    Ok(Exit::Done)
}
