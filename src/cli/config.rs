//! `config check|schema|show`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::context::Context;
use super::error::Result;
use super::wiring::{self, Settings};
use super::{Exit, output};
use crate::config::{self, Loaded};

/// Check and show the configuration
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration; prints every problem at once
    #[command(after_help = "Example:\n  orchestrator config check --config ./fleet")]
    Check,
    /// Print the JSON Schema of orchestrator.json, for editors
    Schema,
    /// Print every value as it is used, secrets left out
    #[command(after_help = "Example:\n  orchestrator config show --origin --config ./fleet")]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Also say where each value comes from
    #[arg(long)]
    origin: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &ConfigArgs) -> Result<Exit> {
    match &args.command {
        ConfigCommand::Schema => output::json(&wiring::schema())?,
        ConfigCommand::Check => {
            let settings = context.settings()?;
            warn(&settings);
            let directory = settings.loaded.config.directory.display();
            output::data(&format!("{directory}: no problems\n"))?;
        }
        ConfigCommand::Show(args) => {
            let settings = context.settings()?;
            warn(&settings);
            if args.json {
                output::json(&shown(&settings.loaded, args.origin))?;
            } else {
                output::data(&lines(&settings.loaded, args.origin))?;
            }
        }
    }
    Ok(Exit::Done)
}

fn warn(settings: &Settings) {
    for warning in &settings.loaded.warnings {
        output::say(warning.as_warning().trim_end());
    }
}

/// An object of key and value, or with origins a list of everything known about each key.
fn shown(loaded: &Loaded, origin: bool) -> Value {
    if origin {
        return config::rows_json(loaded);
    }
    let rows = config::rows(loaded).into_iter();
    rows.map(|row| (row.key.to_owned(), row.value)).collect()
}

/// `key = value`, and `# origin` behind it.
fn lines(loaded: &Loaded, origin: bool) -> String {
    let mut text = String::new();
    for row in config::rows(loaded) {
        let _ = write!(text, "{} = {}", row.key, row.value_text());
        if origin {
            let _ = write!(text, "  # {}", row.origin);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::wiring::tests::settings;

    #[test]
    fn values_are_lines_and_origins_stand_behind_them() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path(), "trunk");
        let text = lines(&settings.loaded, true);
        let branch = text.lines().find(|line| line.starts_with("branch = "));
        let branch = branch.unwrap();
        assert!(branch.starts_with("branch = trunk  # "), "{branch}");
        assert!(branch.contains("orchestrator.json:"), "{branch}");
        assert!(text.contains("\nworkerCount = 2  # "));
        assert!(text.contains("  # default\n"));
        assert!(!lines(&settings.loaded, false).contains('#'));
        assert_eq!(shown(&settings.loaded, false)["branch"], "trunk");
        assert_eq!(shown(&settings.loaded, true)[1]["origin"]["source"], "file");
    }
}
