//! Which supervisors run for this user: one small file each, written by the daemon.
//!
//! The files are hints, not truth: an entry counts only if its process exists and its control
//! socket takes a connection.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::model::{ProjectId, Timestamp};

/// A larger file is not one of ours.
const MAX_ENTRY_BYTES: u64 = 64 * 1024;

/// One running supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub project: ProjectId,
    pub pid: u32,
    pub state_directory: PathBuf,
    pub control_socket: PathBuf,
    /// `HOST:PORT` of the HTTP API, when it listens on TCP.
    pub api_address: Option<String>,
    pub config_directory: PathBuf,
    pub version: String,
    pub started_at: Timestamp,
}

impl Entry {
    /// Does its process run? One that has ended and was not reaped, as happens in containers
    /// without an init, does not.
    pub fn process_exists(&self) -> bool {
        process_exists(self.pid)
    }

    /// Does the supervisor live: its process exists and its socket takes a connection.
    pub fn is_alive(&self) -> bool {
        self.process_exists() && UnixStream::connect(&self.control_socket).is_ok()
    }
}

/// As [`Entry::process_exists`], by the number alone.
pub fn process_exists(pid: u32) -> bool {
    // Another user's process cannot be ours, so "not permitted" is a no as well.
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|known| test_kill_process(known).is_ok() && !is_zombie(pid))
}

/// By the third field of `/proc/PID/stat`, behind the name in parentheses (`man 5 proc`).
fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| state.starts_with(['Z', 'X']))
    })
}

/// The directory of this user's entries, from the environment (`XDG_RUNTIME_DIR`,
/// `XDG_STATE_HOME`, `HOME`, in that order); `None` when none of them is set.
pub fn directory(env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| {
        env(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_RUNTIME_DIR")
        .or_else(|| absolute("XDG_STATE_HOME"))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("orchestrator/running"))
}

/// Writes the entry of a project, whole or not at all.
pub fn write(directory: &Path, entry: &Entry) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    // Made with mode 0600 by `tempfile`.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec_pretty(entry)?)?;
    file.as_file().sync_all()?;
    file.persist(path(directory, &entry.project))
        .map_err(|error| error.error)?;
    Ok(())
}

/// Removes the entry of a project, if it is still that of process `pid`.
pub fn remove(directory: &Path, project: &ProjectId, pid: u32) -> io::Result<()> {
    let path = path(directory, project);
    match read(&path) {
        Some(entry) if entry.pid == pid => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// All entries by project, stale ones too (see [`Entry::is_alive`]). Files that cannot be read
/// as an entry are skipped; a directory that is not there is empty.
pub fn list(directory: &Path) -> io::Result<Vec<Entry>> {
    let files = match fs::read_dir(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut entries = Vec::new();
    for file in files {
        let path = file?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            entries.extend(read(&path));
        }
    }
    entries.sort_by(|a, b| a.project.cmp(&b.project));
    Ok(entries)
}

fn read(path: &Path) -> Option<Entry> {
    let length = fs::symlink_metadata(path).ok()?.len();
    if length > MAX_ENTRY_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn path(directory: &Path, project: &ProjectId) -> PathBuf {
    // Project ids are `[a-z0-9-]`; anything else must not become a path.
    let safe: String = project
        .as_str()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    directory.join(format!("{safe}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(project: &str, pid: u32, socket: &Path) -> Entry {
        Entry {
            project: project.into(),
            pid,
            state_directory: "/state".into(),
            control_socket: socket.to_owned(),
            api_address: Some("127.0.0.1:7000".into()),
            config_directory: "/config".into(),
            version: "0.1.0".into(),
            started_at: Timestamp(1),
        }
    }

    #[test]
    fn what_was_written_is_listed_and_only_its_own_process_removes_it() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("orchestrator/running");
        assert_eq!(list(&directory).unwrap(), []);
        let one = entry("one", 11, Path::new("/none"));
        let two = entry("two", 12, Path::new("/none"));
        write(&directory, &two).unwrap();
        write(&directory, &one).unwrap();
        fs::write(directory.join("broken.json"), "{").unwrap();
        assert_eq!(list(&directory).unwrap(), [one.clone(), two.clone()]);
        remove(&directory, &one.project, 99).unwrap();
        assert_eq!(list(&directory).unwrap().len(), 2);
        remove(&directory, &one.project, 11).unwrap();
        assert_eq!(list(&directory).unwrap(), [two]);
    }

    #[test]
    fn an_entry_lives_only_with_its_process_and_its_socket() {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("s");
        let me = std::process::id();
        assert!(!entry("p", me, &socket).is_alive(), "no socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(entry("p", me, &socket).is_alive());
        assert!(!entry("p", u32::MAX, &socket).is_alive(), "no such process");
        drop(listener);
        assert!(!entry("p", me, &socket).is_alive(), "nobody listens");
    }

    #[test]
    fn a_process_that_ended_is_gone_before_it_is_reaped() {
        use std::io::Read as _;
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let entry = entry("p", child.id(), Path::new("/none"));
        assert!(entry.process_exists());
        drop(child.stdin.take());
        // The end of its output comes with the end of the process, or just before it.
        let mut rest = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while entry.process_exists() {
            assert!(
                std::time::Instant::now() < deadline,
                "a zombie counts as alive"
            );
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!entry.process_exists());
    }

    #[test]
    fn the_directory_follows_the_environment() {
        let with = |pairs: &'static [(&str, &str)]| {
            directory(move |name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        let all = with(&[("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/home/a")]);
        assert_eq!(all, Some("/run/user/1/orchestrator/running".into()));
        let home = with(&[("XDG_RUNTIME_DIR", ""), ("HOME", "/home/a")]);
        assert_eq!(
            home,
            Some("/home/a/.local/state/orchestrator/running".into())
        );
        assert_eq!(with(&[("HOME", "relative")]), None);
    }

    #[test]
    fn a_project_name_never_leaves_the_directory() {
        let path = path(Path::new("/d"), &"../../etc/x".into());
        assert_eq!(path, Path::new("/d/______etc_x.json"));
    }
}
