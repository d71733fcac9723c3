//! `view AGENT`: what runs inside a tmux pane, showing an agent's terminal.

use clap::Args;

use super::context::Context;
use super::error::Result;
use super::{Exit, wiring};
use crate::model::AgentId;

/// Show an agent's terminal here; started by the supervisor inside tmux
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct ViewArgs {
    agent: String,
}

pub(super) async fn run(context: &Context, args: &ViewArgs) -> Result<Exit> {
    let project = context.project()?;
    wiring::view(&project, &AgentId::new(args.agent.clone())).await
}
