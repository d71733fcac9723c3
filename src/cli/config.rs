//! `config check|schema|show`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::Context;
use super::error::Result;
use super::wiring::{self, Settings};
use super::{Exit, output};

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
            let directory = context.config_directory()?;
            let settings = context.load()?;
            warn(&settings);
            output::data(&format!("{}: no problems\n", directory.display()))?;
        }
        ConfigCommand::Show(args) => {
            let settings = context.load()?;
            warn(&settings);
            if args.json {
                output::json(&shown(&settings, args.origin))?;
            } else {
                output::data(&lines(&settings, args.origin))?;
            }
        }
    }
    Ok(Exit::Done)
}

fn warn(settings: &Settings) {
    for warning in &settings.warnings {
        output::say(warning.trim_end());
    }
}

fn shown(settings: &Settings, origin: bool) -> Value {
    if origin {
        json!({ "config": settings.shown, "origins": settings.origins })
    } else {
        settings.shown.clone()
    }
}

/// `key = value`, and `# origin` behind it.
fn lines(settings: &Settings, origin: bool) -> String {
    let mut keys = Vec::new();
    flatten("", &settings.shown, &mut keys);
    let mut text = String::new();
    for (key, value) in keys {
        let _ = write!(text, "{key} = {value}");
        if origin && let Some(origin) = origin_of(settings, &key) {
            let _ = write!(text, "  # {origin}");
        }
        text.push('\n');
    }
    text
}

/// The origin of the key, or of the section it lies in.
fn origin_of<'a>(settings: &'a Settings, key: &str) -> Option<&'a str> {
    let mut key = key;
    loop {
        if let Some(origin) = settings.origins.get(key) {
            return Some(origin);
        }
        key = key.rsplit_once('.')?.0;
    }
}

fn flatten(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, value, out);
            }
        }
        other => out.push((path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_lines_and_origins_stand_behind_them() {
        let settings = Settings {
            config_directory: "/c".into(),
            project: "demo".into(),
            state_directory: "/s".into(),
            control_socket: "/s/x".into(),
            repository_url: "u".into(),
            branch: "main".into(),
            api_port: 0,
            shown: json!({"branch": "main", "container": {"pids": 5}, "environment": {}}),
            origins: [
                ("branch", "default"),
                ("container", "/c/orchestrator.json:3"),
            ]
            .map(|(key, origin)| (key.to_owned(), origin.to_owned()))
            .into(),
            warnings: Vec::new(),
        };
        assert_eq!(
            lines(&settings, true),
            "branch = \"main\"  # default\ncontainer.pids = 5  # /c/orchestrator.json:3\nenvironment = {}\n"
        );
        assert_eq!(
            lines(&settings, false),
            "branch = \"main\"\ncontainer.pids = 5\nenvironment = {}\n"
        );
        assert_eq!(shown(&settings, true)["origins"]["branch"], "default");
    }
}
