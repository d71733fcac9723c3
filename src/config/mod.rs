//! The configuration: layers with origins become one validated [`Config`], or all problems at once.
//!
//! Called by the command line (`check`, `show`, `schema`, every command that needs the fleet's name
//! or state directory), by the daemon, and by the documentation. The single table of keys is in
//! `keys`: names, kinds, bounds, defaults and texts all come from there.
//!
//! Must never: read the process environment (it is handed in), stop at the first problem, show a
//! value that may hold a secret, write anything, or run git.

pub mod env;
pub mod keys;
pub mod problem;
pub mod units;

mod assemble;
mod checks;
mod compare;
mod entries;
mod file;
mod gate;
mod layers;
mod paths;
mod repository;
mod resolve;
mod schema;
mod show;
mod types;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use compare::{Applies, Change, changes, settings};
pub use file::FILE_NAME;
pub use gate::{Gate, GateCommand, GatePlace};
pub use keys::CLAUDE_VERSION;
pub use problem::{Origin, Place, Problem, Problems};
pub use repository::redact as redact_url;
pub use schema::{markdown_table, schema};
pub use show::{Row, rows, rows_json};
pub use types::{
    Config, Container, GitIdentity, ImageChoice, LogLevel, Logs, MergeBy, Planning, Rescue,
    Restart, TaskProof, Tasks,
};
pub use value::HIDDEN;

/// Everything beside the file that has a say.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The process environment, as far as it is UTF-8.
    pub environment: BTreeMap<String, String>,
    /// `--set key=value`, in order; later ones win.
    pub overrides: Vec<(String, String)>,
    /// What `~` means; `None` makes its use a problem.
    pub home: Option<PathBuf>,
    /// User id of this process.
    pub uid: u32,
}

impl Inputs {
    /// From the process environment as the caller read it (`std::env::vars_os()`). What is not UTF-8
    /// is left out, except that a variable of ours becomes a problem when it is read.
    pub fn new(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: Vec<(String, String)>,
        uid: u32,
    ) -> Self {
        let mut inputs = Self {
            overrides,
            uid,
            ..Self::default()
        };
        for (name, value) in variables {
            let Ok(name) = name.into_string() else {
                continue;
            };
            let value = match value.into_string() {
                Ok(value) => value,
                Err(value) if name.starts_with(env::PREFIX) => value.to_string_lossy().into_owned(),
                Err(_) => continue,
            };
            if name == env::HOME_VARIABLE && Path::new(&value).is_absolute() {
                inputs.home = Some(PathBuf::from(&value));
            }
            inputs.environment.insert(name, value);
        }
        inputs
    }
}

/// A configuration without problems.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// By dotted path: where the value in effect comes from. Has every key.
    pub origins: BTreeMap<&'static str, Origin>,
    /// Worth telling, no reason to stop.
    pub warnings: Vec<Problem>,
}

/// Loads the configuration in `directory`, or says everything that is wrong with it.
pub fn load(directory: &Path, inputs: &Inputs) -> Result<Loaded, Problems> {
    let directory = match config_directory(directory) {
        Ok(directory) => directory,
        Err(problem) => return Err(Problems(vec![*problem])),
    };
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let mut settings = layers::Settings::default();
    let whole = file::read(&directory, &mut settings, &mut problems);
    layers::environment(
        &inputs.environment,
        &mut settings,
        &mut problems,
        &mut warnings,
    );
    layers::flags(&inputs.overrides, &mut settings, &mut problems);
    if whole {
        checks::missing(&directory, &settings, &mut problems);
    }
    resolve::run(&directory, inputs, &mut settings, &mut problems);
    checks::run(
        &directory,
        inputs.uid,
        &settings,
        &mut problems,
        &mut warnings,
    );
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.place.rank());
        return Err(Problems(problems));
    }
    let origins = keys::KEYS
        .iter()
        .map(|key| (key.path, settings.origin(key.path)))
        .collect();
    Ok(Loaded {
        config: assemble::config(&directory, &settings),
        origins,
        warnings,
    })
}

/// The directory, absolute and without symbolic links.
fn config_directory(directory: &Path) -> Result<PathBuf, Box<Problem>> {
    let problem = |message: &str| {
        let place = Place::whole(directory);
        let problem = Problem::new(place, message)
            .allowed(format!("a directory with a file {FILE_NAME}"))
            .hint("name it with --config");
        Box::new(problem)
    };
    match directory.canonicalize() {
        Ok(real) if real.to_str().is_none() => {
            Err(problem("the path of the config directory is not UTF-8"))
        }
        Ok(real) if real.is_dir() => Ok(real),
        Ok(real) if real.file_name().is_some_and(|name| name == FILE_NAME) => {
            let mut problem = problem("this is the file, not its directory");
            problem.hint = real
                .parent()
                .map(|parent| format!("use --config {}", parent.display()));
            Err(problem)
        }
        Ok(_) => Err(problem("the config directory is not a directory")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(problem("no such config directory"))
        }
        Err(error) => Err(problem(&format!(
            "the config directory cannot be read: {error}"
        ))),
    }
}

#[cfg(test)]
mod tests;
