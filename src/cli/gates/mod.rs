//! `gates list|run|log`: what must pass before work becomes the branch.

mod render;
mod run;

use clap::{Args, Subcommand};

use super::context::Context;
use super::error::Result;
use super::output;
use super::{Error, Exit, wiring};
use crate::telemetry::Plain;

/// Show the gates, run them now, read what they printed
///
/// Gates are commands that `gates` in orchestrator.json names. They run in containers of their own on
/// the merged tree, which becomes the branch only if all of them pass.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator gates list                        each gate, how often it passed, failed, was flaky
  orchestrator gates run                         all of them, on the tip of the branch
  orchestrator gates run worker-2 --gate test    one, on what worker 2 has committed
  orchestrator gates log                         what is kept
  orchestrator gates log 20261121-164704-test    what one printed")]
pub struct GatesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Each gate, and what came of it so far
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    Run(run::RunArgs),
    /// What a gate printed; without an id, the runs that are kept. Works for a fleet that has ended, too
    Log {
        /// As `gates log` and the supervisor's messages name it
        id: Option<String>,
        /// What came of it, as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(context: &Context, args: &GatesArgs) -> Result<Exit> {
    match &args.action {
        Action::List { json } => list(context, *json).await,
        Action::Run(args) => run::run(context, args).await,
        Action::Log { id: None, json } => runs(context, *json),
        Action::Log { id: Some(id), json } => log(context, id, *json),
    }
}

async fn list(context: &Context, json: bool) -> Result<Exit> {
    let gates = context.running()?.client.gates().await?;
    let empty = "no gates are configured: whatever merges cleanly becomes the branch\n\
                 hint: name commands under `gates` in orchestrator.json";
    output::list(&gates, json, empty, render::gates)
}

fn runs(context: &Context, json: bool) -> Result<Exit> {
    let runs = wiring::gate_runs(&context.state_directory()?)?;
    output::list(&runs, json, "no gate has been run yet", render::runs)
}

fn log(context: &Context, id: &str, json: bool) -> Result<Exit> {
    let state = context.state_directory()?;
    let unknown = || {
        Error::new(Exit::NotFound, format!("there is no log `{id}` of a gate"))
            .hint("`orchestrator gates log` lists those that are kept")
    };
    if json {
        let mut runs = wiring::gate_runs(&state)?.into_iter();
        let found = runs.find(|run| run.record.log == id).ok_or_else(unknown)?;
        output::json(&found)?;
        return Ok(Exit::Done);
    }
    let bytes = wiring::gate_log(&state, id)?.ok_or_else(unknown)?;
    // To a terminal only what cannot drive it; to a file or a pipe as it was printed.
    if output::terminal_size().is_some() {
        output::data(&Plain::default().feed(&String::from_utf8_lossy(&bytes)))?;
    } else {
        output::bytes(&bytes)?;
    }
    Ok(Exit::Done)
}
