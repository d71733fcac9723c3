//! The one place where the command line touches the rooms that run in its own process:
//! configuration, credentials, runtime, store of git objects, daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::doctor::Check;
use super::error::Result;
use super::{DemoArgs, Error, Exit};
use crate::model::{AgentId, ProjectId};

/// What the commands use of a valid configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config_directory: PathBuf,
    pub project: ProjectId,
    pub state_directory: PathBuf,
    pub control_socket: PathBuf,
    /// With any password in it: never printed, handed to git through its environment.
    pub repository_url: String,
    pub branch: String,
    /// 0: any free port.
    pub api_port: u16,
    /// The whole configuration as JSON, without secrets.
    pub shown: Value,
    /// Dotted key → where its value comes from, in words.
    pub origins: BTreeMap<String, String>,
    /// Complete lines for stderr.
    pub warnings: Vec<String>,
}

/// How the supervisor was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In a terminal: short log lines on stderr, Ctrl-C asks for stop.
    Foreground,
    /// By `up -d`: log lines as JSON into the state directory.
    Background,
}

/// Loads and checks the configuration; all problems at once, ready to print.
pub fn load(directory: &Path) -> Result<Settings> {
    Err(unconnected("the configuration").hint(directory.display().to_string()))
}

/// The JSON Schema of `orchestrator.json`.
pub fn schema() -> Result<Value> {
    Err(unconnected("the configuration"))
}

/// Runs the supervisor until its end.
#[expect(clippy::unused_async, reason = "the room behind it is async")]
pub async fn run_supervisor(settings: Settings, mode: Mode) -> Result<Exit> {
    let _ = (settings, mode);
    Err(unconnected("the supervisor"))
}

/// Shows an agent's terminal in this one, until the pane is closed.
#[expect(clippy::unused_async, reason = "the room behind it is async")]
pub async fn view(project: &ProjectId, agent: &AgentId) -> Result<Exit> {
    let _ = (project, agent);
    Err(unconnected("the view"))
}

/// The whole system on a sample repository.
#[expect(clippy::unused_async, reason = "the room behind it is async")]
pub async fn demo(args: &DemoArgs) -> Result<Exit> {
    let _ = args;
    Err(unconnected("the demo"))
}

/// Can every credential file be read, and what is it?
pub fn check_credentials(settings: &Settings) -> Vec<Check> {
    let _ = settings;
    Vec::new()
}

/// The task lists in the git store, as (file name, bytes); `None` while there is no store.
pub fn task_lists(settings: &Settings) -> Option<Vec<(String, Vec<u8>)>> {
    let _ = settings;
    None
}

/// The container engine's name and version, or why it does not answer.
pub async fn probe_engine() -> std::result::Result<String, String> {
    let docker = bollard::Docker::connect_with_defaults().map_err(|error| error.to_string())?;
    let version = docker.version().await.map_err(|error| error.to_string())?;
    Ok(format!(
        "Docker {} (API {})",
        version.version.unwrap_or_else(|| "?".to_owned()),
        version.api_version.unwrap_or_else(|| "?".to_owned())
    ))
}

fn unconnected(what: &str) -> Error {
    Error::new(Exit::Failure, format!("{what} is not part of this build"))
}
