//! `make bench`: how much the supervisor costs, each number against a floor measured in the same run.
//!
//! Fleets are started as a user starts them: the binary, real containers, tmux and Claude Code, against
//! a scripted model that answers at once. The two sides of a comparison take turns, because a machine is
//! never equally quiet twice. Must never be part of the tests: it takes minutes and wants the machine.

mod boot;
mod claims;
mod fleet;
mod hall;
mod hook_latency;
mod machine;
mod model;
mod plain;
mod recovery;
mod rotation;
mod servers;
mod snapshot;
mod stats;
mod table;
mod train;
mod turn_gap;
mod weight;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use hall::Hall;
use machine::Machine;
use servers::Serve;
use table::{Results, Row};

/// Compare a running fleet with the least it could cost
///
/// Needs a Docker engine, tmux and git, as `make test` does; `make bench` brings them. Prints a table
/// of ratios. A run of everything also writes it to benches/RESULTS.md.
#[derive(Debug, Parser)]
#[command(
    name = "make bench ARGS=",
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  make bench                                       everything; about ten minutes
  make bench ARGS='--only turn-gap --repeat 5'     one benchmark, more rounds
  make bench ARGS='--smoke'                        does all of it work? No numbers worth keeping"
)]
struct Arguments {
    /// Only these benchmarks; may be given several times
    #[arg(long, value_enum)]
    only: Vec<Which>,
    /// Rounds of each comparison; ours and the floor take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// One round of the smallest size, and nothing is written to benches/
    #[arg(long)]
    smoke: bool,
    /// Where all measured values go
    #[arg(long, value_name = "FILE", default_value = "target/bench/results.json")]
    json: PathBuf,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    serve: Option<Serve>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    TurnGap,
    HookLatency,
    Boot,
    Claims,
    Recovery,
    Rotation,
    Snapshot,
    Train,
    Weight,
}

impl Which {
    fn run(self, hall: &Hall) -> Result<Vec<Row>> {
        match self {
            Self::TurnGap => turn_gap::run(hall),
            Self::HookLatency => hook_latency::run(hall),
            Self::Boot => boot::run(hall),
            Self::Claims => claims::run(hall),
            Self::Recovery => recovery::run(hall),
            Self::Rotation => rotation::run(hall),
            Self::Snapshot => snapshot::run(hall),
            Self::Train => train::run(hall),
            Self::Weight => weight::run(hall),
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(serve) = arguments.serve {
        return serve.run();
    }
    let repeat = if arguments.smoke { 1 } else { arguments.repeat };
    let results = measure(&arguments.only, usize::from(repeat), arguments.smoke)?;
    println!("{}", results.table());
    results.write_json(&arguments.json)?;
    if arguments.only.is_empty() && !arguments.smoke {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/RESULTS.md");
        results.write_markdown(&file)?;
    }
    anyhow::ensure!(results.failed.is_empty(), "not everything was measured");
    Ok(())
}

fn measure(only: &[Which], repeat: usize, smoke: bool) -> Result<Results> {
    let machine = Machine::look();
    let hall = Hall::open(repeat, smoke)?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for which in Which::value_variants() {
        if !only.is_empty() && !only.contains(which) {
            continue;
        }
        let begun = Instant::now();
        eprintln!("{which:?} ...");
        match which.run(&hall) {
            Ok(measured) => rows.extend(measured),
            Err(error) => failed.push(format!("{which:?}: {error:#}")),
        }
        eprintln!("{which:?} took {:.0} s", begun.elapsed().as_secs_f64());
    }
    Ok(Results {
        machine,
        rows,
        failed,
    })
}
