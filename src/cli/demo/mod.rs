//! `demo`: the whole system on a sample repository, with the scripted model.
//!
//! Everything but the model is the real thing: the supervisor as `up` runs it, containers, tmux,
//! Claude Code, git. Nothing is said to be done that was not seen to happen.

pub(in crate::cli) mod engine;
pub(in crate::cli) mod interruption;
mod mishaps;
pub(in crate::cli) mod process;
mod proofs;
mod report;
pub(in crate::cli) mod stage;
mod watch;

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::error::Result;
use super::{Error, Exit, output};
use crate::testing::sample;
use crate::testing::scripted_model::Pacing;
use interruption::Interruption;
use report::Report;
use stage::{CHUNK_MS, Setting, Stage};

/// Try everything on a sample repository; no account needed
///
/// Starts a manager and three workers, each a real Claude Code in its own container and tmux
/// session, against a scripted model that runs inside this program. The manager plans, the workers
/// build and commit, and what passes the gates is merged. Two branches conflict, one worker says
/// "done" and has done nothing, another's work fails the tests: each is sent back to the worker whose
/// work it is, who mends it. A gate is flaky. A worker's credential reaches its limit, a container is
/// killed in the middle of a task, and so is the supervisor itself; work goes on each time.
/// Exit code 1 when any of it did not happen.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  orchestrator demo                run, show the result, clean up
  orchestrator demo --keep         leave the fleet running, to look around
  orchestrator demo --json         the result as one JSON object on stdout")]
pub struct DemoArgs {
    /// Leave the fleet running and its files in place when the demo is over
    #[arg(long)]
    pub keep: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Give up after this long, not counting the building of the image
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = super::format::parse_duration)]
    pub timeout: Duration,
    /// How long the scripted model thinks before each answer
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = super::format::parse_duration)]
    pub think: Duration,
}

pub(super) async fn run(args: &DemoArgs) -> Result<Exit> {
    let started = Instant::now();
    let mut interruption = Interruption::install()?;
    let think = u64::try_from(args.think.as_millis()).unwrap_or(u64::MAX);
    let script = sample::demo_script().paced(Pacing {
        first_ms: think,
        chunk_ms: CHUNK_MS,
    });
    let mut setting = Setting::new("demo", script.script())?;
    setting.config = json!({"gates": proofs::gates()});
    let mut stage = tokio::select! {
        stage = Stage::set(setting) => stage?,
        () = interruption.came() => return Err(Interruption::error()),
    };
    output::say(&stage.invitation());
    let ready = started.elapsed();
    let watched = tokio::select! {
        watched = watch::until_done(&mut stage, args.timeout) => Some(watched),
        () = interruption.came() => None,
    };
    let Some(watched) = watched else {
        stage.strike().await?;
        return Err(Interruption::error());
    };
    let report = Report::make(&stage, &watched, ready, started.elapsed()).await;
    if args.json {
        output::json(&report)?;
    } else {
        output::data(&report.table())?;
    }
    if args.keep {
        output::say(&stage.kept());
        stage.wait_for_the_end(&mut interruption).await?;
    } else {
        stage.strike().await?;
    }
    if report.ok {
        return Ok(Exit::Done);
    }
    Err(Error::new(
        Exit::Failure,
        "not everything the demo is to show did happen",
    )
    .hint("run it again with `--keep` and look around with `orchestrator status`"))
}
