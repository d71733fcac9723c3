//! The arguments.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::exit::Exit;
use super::{
    attach, chaos, completions, config, credentials, demo, doctor, down, drift, edit, explain,
    gates, init, leader, logs, man, rescue, restart, state, status, task, train, trash, up, view,
    worker, worktree,
};

/// A process supervisor for fleets of coding agents.
///
/// One manager and N workers, each a real Claude Code in its own container, shown in its own tmux
/// session. With no command, runs the supervisor in the foreground.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  orchestrator init ./fleet                write a config directory, by questions
  orchestrator doctor --config ./fleet     is everything there that is needed?
  orchestrator --config ./fleet            run in the foreground; Ctrl-C stops the fleet
  orchestrator up -d --config ./fleet      run in the background
  orchestrator status --watch              see what every agent does
  orchestrator attach worker-1             watch one at work
  orchestrator edit worker-1               give it tasks
  orchestrator down                        stop the fleet; work and conversations are kept";

/// Which supervisor is meant. Not needed while only one is running.
#[derive(Debug, Clone, Default, Args)]
pub struct TargetArgs {
    /// The config directory, which holds `orchestrator.json`
    #[arg(long, global = true, value_name = "DIR", env = "ORCHESTRATOR_CONFIG")]
    pub config: Option<PathBuf>,
    /// The running fleet of this name
    #[arg(long, global = true, value_name = "NAME")]
    pub project: Option<String>,
    /// Set a key of the configuration for this run, for example `workerCount=5`; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| "give it as KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Up(up::UpArgs),
    Down(down::DownArgs),
    Status(status::StatusArgs),
    Explain(explain::ExplainArgs),
    Task(task::TaskArgs),
    Attach(attach::AttachArgs),
    Logs(logs::LogsArgs),
    Credentials(credentials::CredentialsArgs),
    Gates(gates::GatesArgs),
    Train(train::TrainArgs),
    Restart(restart::RestartArgs),
    Rescue(rescue::RescueArgs),
    Worktree(worktree::WorktreeArgs),
    Trash(trash::TrashArgs),
    State(state::StateArgs),
    /// Ask the manager to plan new tasks now
    Plan,
    /// Fetch the remote now, instead of at the next interval
    #[command(after_help = "Example, as a post-receive hook:\n  orchestrator fetch --project NAME")]
    Fetch,
    Edit(edit::EditArgs),
    Config(config::ConfigArgs),
    Init(init::InitArgs),
    Doctor(doctor::DoctorArgs),
    Demo(demo::DemoArgs),
    Chaos(chaos::ChaosArgs),
    Drift(drift::DriftArgs),
    Leader(leader::LeaderArgs),
    Worker(worker::WorkerArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    View(view::ViewArgs),
}

/// The arguments as `clap` knows them, with the table of exit codes; for help, man pages and
/// completions.
pub fn command() -> clap::Command {
    let command = Cli::command();
    let long = format!("{EXAMPLES}\n\n{}", Exit::table());
    command.after_long_help(long)
}
