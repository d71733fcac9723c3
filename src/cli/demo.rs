//! `demo`: the whole system on a sample repository, with the scripted model.

use clap::Args;

use super::error::Result;
use super::{Exit, wiring};

/// Try everything on a sample repository; no account and no network needed
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  orchestrator demo                run, show the result, clean up
  orchestrator demo --keep         leave the fleet running, to look around")]
pub struct DemoArgs {
    /// Leave the fleet and its files when the demo is over
    #[arg(long)]
    pub keep: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// How many workers take part
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub workers: u32,
}

pub(super) async fn run(args: &DemoArgs) -> Result<Exit> {
    wiring::demo(args).await
}
