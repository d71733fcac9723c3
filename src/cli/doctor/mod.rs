//! `doctor`: is everything there that the fleet needs, and how to get what is missing.

mod checks;
mod report;
mod task_lists;

use clap::Args;

use super::context::Context;
use super::error::Result;
use super::output::{self, Colour};
use super::{Exit, wiring};

pub use report::Check;
#[cfg(test)]
pub(super) use report::Outcome;

/// Check everything the fleet needs; each problem with its fix
///
/// Exit code 2 when the configuration has problems, 5 when something else is missing.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orchestrator doctor --config ./fleet")]
pub struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, args: &DoctorArgs) -> Result<Exit> {
    let directory = context.config_directory()?;
    let (settings, config_check) = match wiring::load(directory, &context.overrides) {
        Ok(settings) => {
            let check = Check::ok(
                "configuration",
                format!("{} has no problems", directory.display()),
            );
            (Some(settings), check)
        }
        Err(error) => {
            let text = error.render();
            let check = Check::fail(
                "configuration",
                text.trim_end(),
                "mend the file; `orchestrator config check` looks again",
            );
            (None, check)
        }
    };
    let mut checks = vec![config_check];
    checks.extend(checks::machine().await);
    match &settings {
        Some(settings) => checks.extend(checks::fleet(settings).await),
        None => checks.push(Check::warn(
            "fleet",
            "repository, credentials, port and state directory were not checked",
            "mend the configuration first",
        )),
    }
    if args.json {
        output::json(&report::json(&checks))?;
    } else {
        output::data(&report::text(&checks, Colour::of_stdout()))?;
    }
    Ok(report::exit(&checks, settings.is_some()))
}
