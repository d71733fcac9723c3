//! `task`: the tasks, one of them with its attempts, the proof that it is done; once more, or not at all.

mod create;
mod render;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::context::{Context, agent};
use super::error::Result;
use super::format::safe;
use super::output::{self, Look};
use super::{Error, Exit, format};
use crate::client::{Client, Done};
use crate::model::listing::{PAGE, TaskFilter, TaskState};
use crate::model::{AgentId, TaskId};

/// Show the tasks, and how each attempt ended; try one again, or cancel it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator task list                       newest first
  orchestrator task list --status failed       what is not tried again
  orchestrator task list --agent worker-1 -n 20
  orchestrator task create \"Write a JWT utility\" -p 1
  orchestrator task show w1-3fa9c2             its attempts, each with its cause
  orchestrator task receipt w1-3fa9c2          why it counts as done
  orchestrator task retry w1-3fa9c2            fresh attempts for one that has failed
  orchestrator task cancel w1-3fa9c2           nobody shall do it any more

States: available; waiting (for tasks that are not done); blocked (by one that has failed or was
cancelled); claimed; done; failed; cancelled.")]
pub struct TaskArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(ListArgs),
    Create(create::CreateArgs),
    Show(OneArgs),
    /// Show why a task counts as done: its commits, where they landed, the gates that passed
    Receipt(OneArgs),
    /// Give a failed or cancelled task fresh attempts: it goes back to its owner's queue, and the attempts
    /// so far stay in its history
    Retry(WishArgs),
    /// Cancel a task that is not done. Whoever works on it ends its turn, is given other work and told to
    /// take back what it did; uncommitted work is copied. Its box in the task list stays open, and does
    /// not bring it back; `task retry` does, and so does ticking and unticking the box
    Cancel(WishArgs),
}

/// Show tasks, newest first
#[derive(Debug, Args)]
struct ListArgs {
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = states())]
    status: Option<String>,
    /// Only those that are this agent's, or that it has claimed
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only those that nobody else may do
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Only those with this label
    #[arg(long)]
    label: Option<String>,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = PAGE as u16,
          value_parser = clap::value_parser!(u16).range(1..=500))]
    lines: u16,
    /// The next page: those after this task
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// The page as JSON
    #[arg(long)]
    json: bool,
}

/// Show one task: what it is, who has it, what it waits for, how each attempt ended
#[derive(Debug, Args)]
struct OneArgs {
    /// Its id, as `task list` and `status` show it
    id: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Which one
#[derive(Debug, Args)]
struct WishArgs {
    /// Its id, as `task list` and `status` show it
    id: String,
}

fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(TaskState::ALL.map(TaskState::as_str))
}

pub(super) async fn run(context: &Context, args: &TaskArgs) -> Result<Exit> {
    let client = context.running()?.client;
    match &args.action {
        Action::List(args) => list(&client, args).await,
        Action::Create(args) => create::run(&client, args).await,
        Action::Show(args) => show(&client, args).await,
        Action::Receipt(args) => receipt(&client, args).await,
        Action::Retry(args) => retry(&client, args).await,
        Action::Cancel(args) => cancel(&client, args).await,
    }
}

async fn list(client: &Client, args: &ListArgs) -> Result<Exit> {
    let known = async |name: &Option<String>| -> Result<Option<AgentId>> {
        match name {
            // Names those there are, with the exit code for it.
            Some(name) => Ok(Some(agent(&client.status().await?, name)?.id.clone())),
            None => Ok(None),
        }
    };
    let wanted = args.status.as_deref();
    let filter = TaskFilter {
        status: TaskState::ALL
            .into_iter()
            .find(|state| Some(state.as_str()) == wanted),
        owner: known(&args.owner).await?,
        agent: known(&args.agent).await?,
        label: args.label.clone(),
        after: args.after.as_deref().map(TaskId::from),
        limit: Some(usize::from(args.lines)),
    };
    let page = client.tasks(&filter).await?;
    if args.json {
        output::json(&page)?;
    } else {
        output::data(&render::page(&page, &Look::of_stdout()))?;
    }
    Ok(Exit::Done)
}

async fn show(client: &Client, args: &OneArgs) -> Result<Exit> {
    let report = client.task(&id(&args.id)?).await?;
    if args.json {
        output::json(&report)?;
    } else {
        output::data(&render::report(&report, &Look::of_stdout()))?;
    }
    Ok(Exit::Done)
}

async fn receipt(client: &Client, args: &OneArgs) -> Result<Exit> {
    let receipt = client.receipt(&id(&args.id)?).await?;
    if args.json {
        output::json(&receipt)?;
    } else {
        output::data(&render::receipt(&receipt, &Look::of_stdout()))?;
    }
    Ok(Exit::Done)
}

async fn retry(client: &Client, args: &WishArgs) -> Result<Exit> {
    let id = id(&args.id)?;
    match client.retry_task(&id).await? {
        Done::Accepted => output::say(&format!("{id} is tried again")),
        Done::AlreadySo => output::say(&format!("{id} is open already; nothing was changed")),
    }
    Ok(Exit::Done)
}

async fn cancel(client: &Client, args: &WishArgs) -> Result<Exit> {
    let id = id(&args.id)?;
    match client.cancel_task(&id).await? {
        Done::Accepted => output::say(&format!("{id} is cancelled")),
        Done::AlreadySo => output::say(&format!("{id} is cancelled already")),
    }
    Ok(Exit::Done)
}

/// An empty one would be the list.
fn id(id: &str) -> Result<TaskId> {
    if id.trim().is_empty() {
        return Err(
            Error::new(Exit::Usage, "the id is empty").hint("`orchestrator task list` lists them")
        );
    }
    Ok(TaskId::new(safe(id)))
}
