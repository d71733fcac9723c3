//! `completions SHELL`.

use clap::Args;
use clap_complete::Shell;

use super::error::Result;
use super::{Exit, args, output};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator completions bash > ~/.local/share/bash-completion/completions/orchestrator
  orchestrator completions zsh > ~/.zfunc/_orchestrator
  orchestrator completions fish > ~/.config/fish/completions/orchestrator.fish")]
pub struct CompletionsArgs {
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut args::command(),
        "orchestrator",
        &mut script,
    );
    output::data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
