//! `logs NAME`: what was written about an agent, or by the supervisor.

mod follow;
mod tail;

use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt as _;

use super::context::{Context, agent};
use super::error::Result;
use super::{Error, Exit, output, wiring};
use crate::model::AgentId;
use crate::telemetry::{agent_log_path, supervisor_log_path};

/// The name under which the supervisor's own log is asked for.
const SUPERVISOR: &str = "supervisor";

/// Print the log of an agent, or of the supervisor itself
///
/// An agent's log says what happened to it, one line each. The supervisor's log has one JSON
/// object per line. Works for a fleet that has ended, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator logs worker-1
  orchestrator logs worker-1 -f -n 20
  orchestrator logs worker-1 --terminal
  orchestrator logs supervisor -f | jq -r '.fields.message'")]
pub struct LogsArgs {
    /// `manager`, `worker-N` or `supervisor`
    name: String,
    /// Go on, and print new lines as they come
    #[arg(short = 'f', long)]
    follow: bool,
    /// How many of the last lines to begin with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 200)]
    lines: usize,
    /// What the agent's terminal showed instead, as its container engine kept it
    #[arg(long)]
    terminal: bool,
}

pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<Exit> {
    if args.terminal {
        return terminal(context, args).await;
    }
    let state = context.state_directory()?;
    let path = path(&state, &args.name)?;
    let failed = |error| Error::io(format!("cannot read {}", path.display()), &error);
    // Following begins where these lines end: nothing falls between.
    let (text, position) = tail::last_lines(&path, args.lines).map_err(failed)?;
    output::data(&text)?;
    if args.follow {
        follow::follow(&path, position, output::data).await?;
    }
    Ok(Exit::Done)
}

/// The raw bytes, escape sequences and all: that is what was asked for.
async fn terminal(context: &Context, args: &LogsArgs) -> Result<Exit> {
    let view = context.running()?.client.status().await?;
    let agent = agent(&view, &args.name)?;
    let container = agent.container.as_deref().ok_or_else(|| {
        Error::new(
            Exit::NotFound,
            format!("`{}` has no container now", agent.id),
        )
        .hint(format!("it is {}: {}", agent.state, agent.reason))
    })?;
    let mut chunks = wiring::terminal_log(container, args.lines, args.follow).await?;
    while let Some(chunk) = chunks.next().await {
        output::bytes(&chunk.map_err(wiring::port_error)?)?;
    }
    Ok(Exit::Done)
}

fn path(state: &Path, name: &str) -> Result<PathBuf> {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let path = if name == SUPERVISOR {
        supervisor_log_path(state)
    } else {
        agent_log_path(state, &AgentId::new(name))
    };
    if plain && path.is_file() {
        return Ok(path);
    }
    let error = Error::new(Exit::NotFound, format!("there is no log of `{name}`"));
    Err(error.hint(format!("there are: {}", names(state).join(", "))))
}

fn names(state: &Path) -> Vec<String> {
    let mut names = Vec::new();
    if supervisor_log_path(state).is_file() {
        names.push(SUPERVISOR.to_owned());
    }
    let files = std::fs::read_dir(state.join("log/agents"));
    let files = files.into_iter().flatten().flatten();
    let mut agents: Vec<String> = files
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            Some(name.strip_suffix(".log")?.to_owned())
        })
        .collect();
    agents.sort();
    names.extend(agents);
    if names.is_empty() {
        names.push(format!("none yet in {}", state.join("log").display()));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_that_are_there_are_named_and_no_path_gets_through() {
        let state = tempfile::tempdir().unwrap();
        let agents = state.path().join("log/agents");
        std::fs::create_dir_all(&agents).unwrap();
        std::fs::write(agents.join("worker-1.log"), "x").unwrap();
        std::fs::write(agents.join("worker-1.log.1"), "x").unwrap();
        std::fs::write(state.path().join("log/supervisor.log"), "x").unwrap();
        assert!(path(state.path(), "worker-1").is_ok());
        assert!(path(state.path(), "supervisor").is_ok());
        let error = path(state.path(), "../supervisor").unwrap_err();
        assert_eq!(error.exit, Exit::NotFound);
        assert!(error.render().contains("there are: supervisor, worker-1\n"));
    }
}
