//! Which supervisor is meant.

use std::path::{Path, PathBuf};

use super::registry::{self, Entry};
use super::{Error, Result};
use crate::model::ProjectId;
use crate::ports::ErrorKind;

/// How a person named the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `--config DIR`.
    Config(PathBuf),
    /// `--project NAME`.
    Project(ProjectId),
    /// Not at all: the only one that runs.
    Only,
}

/// The living supervisor that `target` means, among the entries of `directory`.
///
/// Errors: `NotFound` when none runs (or none of that name), `Refused` when several do and none
/// was named; the message then names them.
pub fn discover(directory: &Path, target: &Target) -> Result<Entry> {
    let mut entries = registry::list(directory).map_err(|error| {
        Error::new(
            ErrorKind::Broken,
            format!("cannot read {}", directory.display()),
        )
        .because(error)
    })?;
    entries.retain(Entry::is_alive);
    match target {
        Target::Config(wanted) => {
            let wanted = real(wanted);
            let found = entries
                .into_iter()
                .find(|entry| real(&entry.config_directory) == wanted);
            found.ok_or_else(|| none(&format!("for {}", wanted.display()), &wanted))
        }
        Target::Project(wanted) => {
            let names = names(&entries);
            let found = entries.into_iter().find(|entry| entry.project == *wanted);
            found.ok_or_else(|| {
                let error = none(&format!("for project `{wanted}`"), Path::new("DIR"));
                if names.is_empty() {
                    error
                } else {
                    error.hint(format!("running are: {names}"))
                }
            })
        }
        Target::Only => {
            if entries.len() > 1 {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!("several supervisors are running: {}", names(&entries)),
                )
                .hint("say which: `--project NAME` or `--config DIR`"));
            }
            entries
                .pop()
                .ok_or_else(|| none("for this user", Path::new("DIR")))
        }
    }
}

fn none(whose: &str, config: &Path) -> Error {
    let mut error = Error::not_running("").hint(format!(
        "start it: `orchestrator up -d --config {}`",
        config.display()
    ));
    error.message = format!("no supervisor is running {whose}");
    error
}

fn names(entries: &[Entry]) -> String {
    let names: Vec<&str> = entries.iter().map(|e| e.project.as_str()).collect();
    names.join(", ")
}

/// The path with links resolved, so that two spellings of one directory are one.
fn real(path: &Path) -> PathBuf {
    path.canonicalize()
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::model::Timestamp;

    struct Running {
        root: tempfile::TempDir,
        listeners: Vec<UnixListener>,
    }

    impl Running {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
                listeners: Vec::new(),
            }
        }

        fn registry(&self) -> PathBuf {
            self.root.path().join("running")
        }

        fn start(&mut self, project: &str) {
            let socket = self.root.path().join(project);
            self.listeners.push(UnixListener::bind(&socket).unwrap());
            self.write(project, &socket);
        }

        fn write(&self, project: &str, socket: &Path) {
            let config = self.root.path().join(format!("config-{project}"));
            std::fs::create_dir_all(&config).unwrap();
            let entry = Entry {
                project: project.into(),
                pid: std::process::id(),
                state_directory: self.root.path().to_owned(),
                control_socket: socket.to_owned(),
                api_address: None,
                config_directory: config,
                version: "0".into(),
                started_at: Timestamp(0),
            };
            registry::write(&self.registry(), &entry).unwrap();
        }
    }

    #[test]
    fn the_only_one_is_meant_and_stale_entries_do_not_count() {
        let mut running = Running::new();
        running.write("dead", Path::new("/nowhere/socket"));
        let error = discover(&running.registry(), &Target::Only).unwrap_err();
        assert!(error.is_not_running());
        assert_eq!(error.to_string(), "no supervisor is running for this user");
        running.start("one");
        let found = discover(&running.registry(), &Target::Only).unwrap();
        assert_eq!(found.project.as_str(), "one");
    }

    #[test]
    fn several_are_named_and_one_can_be_chosen() {
        let mut running = Running::new();
        running.start("one");
        running.start("two");
        let error = discover(&running.registry(), &Target::Only).unwrap_err();
        assert_eq!(
            error.to_string(),
            "several supervisors are running: one, two"
        );
        assert_eq!(error.kind, ErrorKind::Refused);
        let two = Target::Project("two".into());
        let found = discover(&running.registry(), &two).unwrap();
        assert_eq!(found.project.as_str(), "two");
        let other = Target::Project("three".into());
        let error = discover(&running.registry(), &other).unwrap_err();
        assert!(error.is_not_running());
        assert_eq!(error.hint.as_deref(), Some("running are: one, two"));
    }

    #[test]
    fn a_config_directory_means_its_supervisor_however_it_is_spelled() {
        let mut running = Running::new();
        running.start("one");
        running.start("two");
        let spelled = running.root.path().join("config-one/../config-two");
        let found = discover(&running.registry(), &Target::Config(spelled)).unwrap();
        assert_eq!(found.project.as_str(), "two");
        let other = Target::Config(running.root.path().to_owned());
        let error = discover(&running.registry(), &other).unwrap_err();
        assert!(error.is_not_running());
        assert!(error.hint.unwrap().contains("orchestrator up -d --config"));
    }
}
