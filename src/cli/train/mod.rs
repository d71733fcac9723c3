//! `train`: what is on its way into the branch, and what holds it up.

mod render;

use clap::Args;

use super::Exit;
use super::context::Context;
use super::error::Result;
use super::output;
use super::watch::{self, Look, Shown};
pub(super) use render::stall;

/// Show what is on its way into the branch, and what holds it up
///
/// Work that agents have committed waits in a line, the oldest first; what was red or in conflict before
/// waits a little longer. The first few are merged in memory, one on the other, and tested together by
/// the gates; only what passes becomes the branch. A red batch is halved until the one at fault is found,
/// which goes back to its worker. Nothing of this touches a checkout.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator train
  orchestrator train --watch                      redrawn with every change; Ctrl-C ends it
  orchestrator train --json | jq '.stalls[] | {reason, again_at}'
  orchestrator train --json | jq '.recent[] | select(.outcome == \"red\")'

States: idle; building (the stack is being merged); testing (the gates run on it); testing the branch (they
were red, and run on the branch without it); landing (the branch is being moved to it); stalled (a step could
not be done; it is tried again by itself).")]
pub struct TrainArgs {
    /// As JSON; with --watch one line for each change
    #[arg(long)]
    json: bool,
    /// Go on, and show each change
    #[arg(long)]
    watch: bool,
}

const SHOWN: Shown = Shown {
    frame: render::train,
    line: |view| serde_json::to_string(&view.train),
};

pub(super) async fn run(context: &Context, args: &TrainArgs) -> Result<Exit> {
    let client = context.running()?.client;
    if args.watch {
        return watch::run(&client, args.json, SHOWN).await;
    }
    if args.json {
        output::json(&client.train().await?)?;
    } else {
        let view = client.status().await?;
        output::data(&render::train(&view, Look::of_stdout()))?;
    }
    Ok(Exit::Done)
}
