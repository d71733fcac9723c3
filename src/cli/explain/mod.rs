//! `explain NAME`: why an agent is in its state.

mod render;

use clap::Args;

use super::context::{Context, agent};
use super::error::Result;
use super::output::{self, Look};
use super::{Exit, format};

/// Explain why an agent is in its state, and what would change it
///
/// Everything about the agent is looked at anew first. Signals are graded by how far they are
/// trusted: a weak one never stops an agent.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator explain worker-1
  orchestrator explain manager --history -n 50    how it came to that
  orchestrator explain worker-1 --json | jq '.signals[] | select(.grade == \"strong\")'")]
pub struct ExplainArgs {
    /// `manager` or `worker-N`
    name: String,
    /// The whole answer as JSON
    #[arg(long)]
    json: bool,
    /// The changes of its state as well, each with its cause
    #[arg(long)]
    history: bool,
    /// How many of the newest changes
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, requires = "history",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    lines: u16,
}

pub(super) async fn run(context: &Context, args: &ExplainArgs) -> Result<Exit> {
    let client = context.running()?.client;
    // Names those there are, with the exit code for it.
    let known = agent(&client.status().await?, &args.name)?.id.clone();
    let history = if args.history {
        usize::from(args.lines)
    } else {
        0
    };
    let explanation = client.explain(&known, history).await?;
    if args.json {
        output::json(&explanation)?;
        return Ok(Exit::Done);
    }
    let look = Look {
        now: explanation.at,
        ..Look::of_stdout()
    };
    let mut text = render::explanation(&explanation, &look);
    if args.history {
        text.push_str(&render::history(&explanation, &look));
    }
    output::data(&text)?;
    Ok(Exit::Done)
}
