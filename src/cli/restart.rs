//! `restart NAME`.

use clap::Args;

use super::context::Context;
use super::error::Result;
use super::{Exit, output};
use crate::client::Done;
use crate::model::AgentId;

/// Restart one agent; it keeps its checkout, its conversation and its task
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orchestrator restart worker-2")]
pub struct RestartArgs {
    /// `manager` or `worker-N`
    name: String,
}

pub(super) async fn run(context: &Context, args: &RestartArgs) -> Result<Exit> {
    let agent = AgentId::new(args.name.clone());
    match context.running()?.client.restart(&agent).await? {
        Done::Accepted => output::say(&format!("{agent} is being restarted")),
        Done::AlreadySo => output::say(&format!("{agent} is being restarted already")),
    }
    Ok(Exit::Done)
}
