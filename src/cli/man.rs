//! `man`: the manual pages.

use std::path::PathBuf;

use clap::Args;

use super::error::Result;
use super::{Error, Exit, args, output};

/// Print the manual page, or write one page per command into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator man | man -l -
  orchestrator man --dir ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Write `orchestrator.1`, `orchestrator-up.1`, … here
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Result<Exit> {
    let command = args::command();
    if let Some(directory) = &args.dir {
        let failed = |error: std::io::Error| {
            Error::io(format!("cannot write to {}", directory.display()), &error)
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        clap_mangen::generate_to(command, directory).map_err(failed)?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(|error| Error::io("cannot write the manual page", &error))?;
        output::data(&String::from_utf8_lossy(&page))?;
    }
    Ok(Exit::Done)
}
