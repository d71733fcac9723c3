//! From arguments to the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::FromArgMatches as _;

use super::args::{Cli, Command, command};
use super::context::Context;
use super::error::Result;
use super::{
    Error, Exit, attach, chaos, completions, config, credentials, demo, doctor, down, drift, edit,
    explain, fetch, gates, init, leader, logs, man, output, plan, rescue, restart, state, status,
    task, train, trash, up, view, worker, worktree,
};

/// Runs the program: the whole of `main`.
pub fn main() -> ExitCode {
    let parsed = command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions go to stdout with 0, wrong usage to stderr with 2.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    let exit = match run(cli) {
        Ok(exit) => exit,
        Err(error) => {
            let _ = write!(std::io::stderr(), "{}", error.render());
            error.exit
        }
    };
    exit.into()
}

fn run(cli: Cli) -> Result<Exit> {
    if let Some(Command::Up(args)) = &cli.command {
        args.leave_the_terminal();
    }
    // One for each agent, and nearly always at rest: a view needs no threads.
    let mut threads = match &cli.command {
        Some(Command::View(_)) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = threads
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start the async runtime", &error))?;
    let result = runtime.block_on(dispatch(cli));
    // A blocking call that never returns must not keep a finished command alive.
    runtime.shutdown_background();
    result
}

async fn dispatch(cli: Cli) -> Result<Exit> {
    let context = Context::new(cli.target);
    let Some(chosen) = cli.command else {
        if context.config.is_none() {
            output::say(&command().render_help().to_string());
            output::say("error: no command and no `--config DIR`");
            return Ok(Exit::Usage);
        }
        return up::run(&context, &up::UpArgs::default()).await;
    };
    match chosen {
        Command::Up(args) => up::run(&context, &args).await,
        Command::Down(args) => down::run(&context, &args).await,
        Command::Status(args) => status::run(&context, &args).await,
        Command::Explain(args) => explain::run(&context, &args).await,
        Command::Task(args) => task::run(&context, &args).await,
        Command::Attach(args) => attach::run(&context, &args).await,
        Command::Logs(args) => logs::run(&context, &args).await,
        Command::Credentials(args) => credentials::run(&context, &args).await,
        Command::Gates(args) => gates::run(&context, &args).await,
        Command::Train(args) => train::run(&context, &args).await,
        Command::Restart(args) => restart::run(&context, &args).await,
        Command::Rescue(args) => rescue::run(&context, &args).await,
        Command::Worktree(args) => worktree::run(&context, &args).await,
        Command::Trash(args) => trash::run(&context, &args).await,
        Command::State(args) => state::run(&context, &args).await,
        Command::Plan => plan::run(&context).await,
        Command::Fetch => fetch::run(&context).await,
        Command::Edit(args) => edit::run(&context, &args).await,
        Command::Config(args) => config::run(&context, &args),
        Command::Init(args) => init::run(&args),
        Command::Doctor(args) => doctor::run(&context, &args).await,
        Command::Chaos(args) => chaos::run(&args).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Drift(args) => drift::run(&args).await,
        Command::Leader(args) => leader::run(&args),
        Command::Worker(args) => worker::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::View(args) => view::run(&context, &args).await,
    }
}
