//! `view AGENT`: what runs inside a tmux pane, showing an agent's terminal.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::context::Context;
use super::error::Result;
use super::{Error, Exit, wiring};
use crate::model::{AgentId, ProjectId};

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

/// The whole of `orchestrator-view PROJECT AGENT`. What it names is what it has in memory, once for each
/// agent: no argument parser, one thread.
pub fn main_of_view() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let shown = match words.as_slice() {
        [project, agent] => show(&ProjectId::from(project.as_str()), &AgentId::new(agent)),
        _ => Err(Error::new(Exit::Usage, "which agent is to be shown?")
            .hint("orchestrator-view PROJECT AGENT; people use `orchestrator attach AGENT`")),
    };
    let exit = shown.unwrap_or_else(|error| {
        let _ = write!(std::io::stderr(), "{}", error.render());
        error.exit
    });
    exit.into()
}

fn show(project: &ProjectId, agent: &AgentId) -> Result<Exit> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start the async runtime", &error))?
        .block_on(wiring::view(project, agent))
}
