//! What runs in each pane: `orchestrator view` as a program of its own, without all the rest, because
//! there is one of it for each agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator::cli::main_of_view()
}
