//! Setting up `tracing`, once per process.

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::{Redactor, RotatingFile, Rotation};

/// How much is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// What a person who watches wants to know.
    Normal,
    /// Everything of ours.
    Debug,
    /// A `tracing` filter, for example `info,orchestrator::daemon=debug`.
    Filter(String),
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Short lines for people on stderr.
    Foreground,
    /// One JSON object per line in a file that rotates.
    File { path: PathBuf, rotation: Rotation },
}

#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    #[error("cannot open the log file {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{filter}` is not a log filter: {reason}")]
    Filter { filter: String, reason: String },
    #[error("logging is set up already")]
    Twice,
}

/// `<state>/log/supervisor.log`.
pub fn supervisor_log_path(state_directory: &Path) -> PathBuf {
    state_directory.join("log/supervisor.log")
}

/// Sets the process's subscriber. Secrets given to `redactor`, now or later, are masked.
pub fn init(output: &Output, verbosity: &Verbosity, redactor: &Redactor) -> Result<(), SetUpError> {
    let filter = filter(verbosity)?;
    match output {
        Output::Foreground => {
            let sink = Sink::new(io::stderr(), redactor);
            let colour = io::stderr().is_terminal() && !no_colour();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_target(false)
                .with_ansi(colour)
                .with_writer(sink)
                .compact()
                .finish();
            tracing::subscriber::set_global_default(subscriber).map_err(|_| SetUpError::Twice)
        }
        Output::File { path, rotation } => {
            let file = RotatingFile::open(path, *rotation).map_err(|source| SetUpError::Open {
                path: path.clone(),
                source,
            })?;
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .json()
                .with_writer(Sink::new(file, redactor))
                .finish();
            tracing::subscriber::set_global_default(subscriber).map_err(|_| SetUpError::Twice)
        }
    }
}

/// The convention of <https://no-color.org>: set and not empty.
fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn filter(verbosity: &Verbosity) -> Result<EnvFilter, SetUpError> {
    let text = match verbosity {
        Verbosity::Quiet => "warn",
        Verbosity::Normal => "warn,orchestrator=info",
        Verbosity::Debug => "info,orchestrator=debug",
        Verbosity::Filter(text) => text,
    };
    EnvFilter::try_new(text).map_err(|error| SetUpError::Filter {
        filter: text.to_owned(),
        reason: error.to_string(),
    })
}

/// A writer shared by all threads that masks secrets. `tracing` hands over one whole event per
/// write, so a secret is never split over two.
struct Sink<W> {
    inner: Arc<Mutex<W>>,
    redactor: Redactor,
}

impl<W> Sink<W> {
    fn new(inner: W, redactor: &Redactor) -> Self {
        Self {
            inner: Arc::new(Mutex::new(inner)),
            redactor: redactor.clone(),
        }
    }
}

impl<W> Clone for Sink<W> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            redactor: self.redactor.clone(),
        }
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let clean = self.redactor.redact(&text);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.write_all(clean.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flush()
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for Sink<W> {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_reach_the_file_without_secrets_and_below_the_level_nothing_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = supervisor_log_path(directory.path());
        let file = RotatingFile::open(&path, Rotation::default()).unwrap();
        let redactor = Redactor::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(&Verbosity::Normal).unwrap())
            .json()
            .with_writer(Sink::new(file, &redactor))
            .finish();
        redactor.add("sk-ant-secret");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(agent = "worker-1", "started with sk-ant-secret");
            tracing::debug!("too fine");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!(lines[0]["fields"]["message"], "started with [redacted]");
        assert_eq!(lines[0]["fields"]["agent"], "worker-1");
        assert_eq!(lines[0]["level"], "INFO");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = filter(&Verbosity::Filter("orchestrator=loud".into())).unwrap_err();
        assert!(error.to_string().starts_with("`orchestrator=loud` is not"));
    }
}
