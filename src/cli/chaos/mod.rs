//! `chaos`: faults on the real thing while agents work, chosen by a seed.
//!
//! The stage is that of `demo`: containers, tmux, Claude Code, git, and the supervisor as a process
//! of its own; only the model is played. After every fault the fleet must be well again within a
//! limit, and in the end every task must have been done exactly once, merged and pushed, and every line
//! that an agent ever wrote must still be there.

mod blow;
mod dice;
mod disk;
mod fault;
mod ledger;
mod notes;
mod own_engine;
mod report;
mod rounds;
mod run;
mod watcher;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::demo::interruption::Interruption;
use super::demo::stage::{CHUNK_MS, Setting, Stage, credential_end};
use super::error::Result;
use super::{Error, Exit, format, output};
use crate::daemon::SystemEntropy;
use crate::ports::Entropy as _;
use crate::testing::sample;
use crate::testing::scripted_model::Pacing;
use blow::Tools;
use dice::Dice;
use disk::SmallDisk;
use fault::{Fault, LeftOut, Means};
use ledger::Ledger;
use notes::{Notes, Witness};
use own_engine::OwnEngine;
use rounds::Rounds;

/// Break things on purpose while a sample fleet works, and check that nothing is lost
///
/// Starts a manager and workers, each a real Claude Code in its own container, against a scripted
/// model that runs inside this program; then makes fault after fault, chosen by the seed, waits each
/// time until the fleet is well again, and goes on handing out tasks meanwhile. In the end every
/// task must have been done exactly once, merged and pushed. Agents also take notes that nobody could
/// write again, committed or not: each must be found in a commit, a rescue snapshot or a checkout.
/// Exit code 1, with everything kept, when a task was lost or done twice, a note was lost, an agent had
/// two containers, or work did not go on.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Faults:
  supervisor   kill -9 of the supervisor, started again after up to 4 s
  container    docker kill of an agent's container
  tmux         the tmux server is killed
  pane         the client in an agent's pane is killed
  network      an agent's container is taken off its network for some seconds
  freeze       an agent's processes are stopped (SIGSTOP) for some seconds
  clock        the supervisor's wall clock is off by an hour, either way, for some seconds
  disk         the disk of the state directory is full for some seconds (root)
  limit        the credential that an agent uses reaches its limit for a minute
  engine       the Docker daemon is stopped and started again (root, with --own-engine)

Examples:
  orchestrator chaos                           20 rounds, a new seed
  orchestrator chaos --seed 7 --rounds 100     the choices of seed 7
  orchestrator chaos --faults container,disk   only these
  sudo orchestrator chaos --own-engine         with restarts of a Docker daemon of its own")]
pub struct ChaosArgs {
    /// Chooses faults, targets and waits; a new one is chosen and printed if it is not given
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many rounds; in one of four, a second fault comes before the first is over
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Only these faults, by name
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_fault)]
    faults: Vec<Fault>,
    /// How many workers
    #[arg(long, default_value_t = sample::WORKERS, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub workers: u32,
    /// Start a Docker daemon for this run alone, in a network of its own, and restart it (root)
    #[arg(long)]
    pub own_engine: bool,
    /// How long the fleet may take to be well again after a fault
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = format::parse_duration)]
    pub limit: Duration,
    /// Leave the fleet running and its files in place in the end
    #[arg(long)]
    pub keep: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// How long the scripted model thinks before each answer
    #[arg(long, value_name = "TIME", default_value = "150ms", value_parser = format::parse_duration)]
    pub think: Duration,
}

fn parse_fault(text: &str) -> std::result::Result<Fault, String> {
    text.trim().parse()
}

pub(super) async fn run(args: &ChaosArgs) -> Result<Exit> {
    let inside = own_engine::inside();
    if args.own_engine && inside.is_none() {
        return own_engine::again_inside().await;
    }
    let mut interruption = Interruption::install()?;
    let means = Means {
        is_root: rustix::process::geteuid().is_root(),
        own_engine: inside.is_some(),
    };
    let (faults, left_out) = fault::possible(&args.faults, means);
    for left in &left_out {
        output::say(&format!("left out: {}: {}", left.fault, left.why));
    }
    if faults.is_empty() {
        return Err(Error::new(
            Exit::Usage,
            "none of these faults can be made here",
        ));
    }
    let seed = args.seed.unwrap_or_else(a_seed);
    output::say(&format!("seed {seed}"));
    let setting = tokio::select! {
        set = set(args, seed, &faults, inside) => set?,
        () = interruption.came() => return Err(Interruption::error()),
    };
    play(args, setting, faults, left_out, &mut interruption).await
}

/// 32 bits are enough to be different, and easy to type.
fn a_seed() -> u64 {
    let bits = (SystemEntropy.fraction() * f64::from(u32::MAX)).round();
    bits as u64
}

/// Everything stands.
struct Set {
    seed: u64,
    dice: Dice,
    errands: Dice,
    stage: Stage,
    tools: Tools,
    ledger: Ledger,
    notes: Notes,
}

async fn set(
    args: &ChaosArgs,
    seed: u64,
    faults: &[Fault],
    inside: Option<PathBuf>,
) -> Result<Set> {
    // Errands have dice of their own: how many are handed out depends on how fast agents work.
    let mut errands = Dice::new(seed.wrapping_add(1));
    let engine = match inside {
        Some(directory) => Some(OwnEngine::set(directory).await?),
        None => None,
    };
    let think = u64::try_from(args.think.as_millis()).unwrap_or(u64::MAX);
    let script = sample::errands_script().paced(Pacing {
        first_ms: think,
        chunk_ms: CHUNK_MS,
    });
    let witness = Witness::over(script.script());
    let mut setting = Setting::new("chaos", Arc::new(witness.clone()))?;
    let disk = if faults.contains(&Fault::Disk) {
        Some(SmallDisk::mount(setting.state())?)
    } else {
        None
    };
    let clock = setting.directory.path().join("clock-offset");
    setting.arguments = vec![format!("--clock-offset-file={}", clock.display())];
    let mut ledger = Ledger::new(args.workers);
    let mut files = ledger.first_lists(&mut errands);
    files.push((".gitignore".to_owned(), sample::IGNORED.to_owned()));
    setting.repository = Box::new(move |path| sample::create_without_direction(path, &files));
    // Faults come far more often than in life: what gives up on an agent or a task that fails again
    // and again would be right to, and is tested elsewhere.
    setting.config = json!({
        "workerCount": args.workers,
        "restart": {"burst": 1000, "perDay": 1000, "maximumBackoff": "5s"},
        "tasks": {"attempts": 100},
        "rescue": {"ignored": true, "interval": "20s"},
    });
    // One more than can be at their limit at once, most often.
    setting.credentials = (1..=3).map(credential_end).collect();
    let path = setting.directory.path().to_owned();
    let stage = match Stage::set(setting).await {
        Ok(stage) => stage,
        Err(error) => {
            // Nothing can be removed below a disk that is mounted.
            drop(disk);
            let _ = std::fs::remove_dir_all(path);
            return Err(error);
        }
    };
    Ok(Set {
        seed,
        dice: Dice::new(seed),
        errands,
        stage,
        tools: Tools {
            disk,
            engine,
            clock,
        },
        ledger,
        notes: Notes::new(witness),
    })
}

async fn play(
    args: &ChaosArgs,
    set: Set,
    faults: Vec<Fault>,
    left_out: Vec<LeftOut>,
    interruption: &mut Interruption,
) -> Result<Exit> {
    output::say(&set.stage.invitation());
    let mut rounds = Rounds::new(args, set, faults);
    let interrupted = tokio::select! {
        () = rounds.play() => false,
        () = interruption.came() => true,
    };
    if interrupted {
        rounds.strike(false).await?;
        return Err(Interruption::error());
    }
    let mut report = rounds.report(left_out);
    let ok = report.ok;
    if args.keep {
        report.kept = Some(rounds.directory());
        show(args, &report)?;
        rounds.wait_for_the_end(interruption).await?;
    } else {
        match rounds.strike(!ok).await {
            Ok(kept) => report.kept = kept,
            Err(error) => {
                report.ok = false;
                let what = format!("the fleet did not end well: {}", error.render().trim_end());
                report.violations.push(what);
            }
        }
        show(args, &report)?;
    }
    if report.ok {
        return Ok(Exit::Done);
    }
    let hint = format!("the same choices again: `--seed {} --keep`", report.seed);
    Err(Error::new(Exit::Failure, "the fleet did not stand it").hint(hint))
}

fn show(args: &ChaosArgs, report: &report::Report) -> Result<()> {
    if args.json {
        output::json(report)
    } else {
        output::data(&report.table())
    }
}
