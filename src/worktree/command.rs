//! The git program in a fixed environment, with a deadline and bounded output.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::ports::{ErrorKind, PortError, PortResult};

/// Local work: a checkout of a very large tree is the slowest of it.
const LOCAL_DEADLINE: Duration = Duration::from_secs(600);
/// Network work; a first clone of a large repository over a slow line takes its time.
const NETWORK_DEADLINE: Duration = Duration::from_secs(3600);
/// Output beyond this is an error: nothing we ask git for is that long.
const MAX_OUTPUT: usize = 16 * 1024 * 1024;

/// Set for every command. Hooks, filesystem monitors and remote helpers that run programs are off
/// even in repositories of our own; our store is never repacked or pruned behind our back.
const FIXED_CONFIG: [&str; 7] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "protocol.ext.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
];

/// Which configuration a command may see beside its repository's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// None: the result depends on nothing but our own repository.
    Local,
    /// The person's and the system's, because private remotes need them: credential helpers,
    /// `core.sshCommand`, proxies, certificates, `insteadOf`. They are the person's who runs the
    /// supervisor; no agent can write them. Repository configuration is ours.
    Network,
}

/// One git command being put together.
pub(super) struct Git {
    arguments: Vec<OsString>,
    scope: Scope,
    directory: Option<OsString>,
    deadline: Duration,
}

/// What git said.
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    /// Git's own words, without what we do not want to repeat to people.
    pub(super) stderr: String,
}

enum Piece {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Overflow,
}

impl Git {
    /// A command that reaches no network and sees no configuration but the repository's.
    pub(super) fn local(git_directory: &Path) -> Self {
        Self::new(Scope::Local, LOCAL_DEADLINE).arg_pair("--git-dir", git_directory)
    }

    /// A local command without a repository, for `init`.
    pub(super) fn bare_of_repository() -> Self {
        Self::new(Scope::Local, LOCAL_DEADLINE)
    }

    /// A command that talks to the remote.
    pub(super) fn network(git_directory: &Path) -> Self {
        Self::new(Scope::Network, NETWORK_DEADLINE)
            .arg_pair("--git-dir", git_directory)
            // A line that stands still is given up after a minute.
            .args([
                "-c",
                "http.lowSpeedLimit=1000",
                "-c",
                "http.lowSpeedTime=60",
            ])
    }

    fn new(scope: Scope, deadline: Duration) -> Self {
        let mut git = Self {
            arguments: Vec::new(),
            scope,
            directory: None,
            deadline,
        };
        for setting in FIXED_CONFIG {
            git = git.args(["-c", setting]);
        }
        git
    }

    fn arg_pair(mut self, option: &str, value: &Path) -> Self {
        let mut joined = OsString::from(option);
        joined.push("=");
        joined.push(value);
        self.arguments.push(joined);
        self
    }

    pub(super) fn work_tree(self, path: &Path) -> Self {
        let mut git = self.arg_pair("--work-tree", path);
        git.directory = Some(path.as_os_str().to_owned());
        git
    }

    pub(super) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(super) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub(super) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it to its end, whatever the exit status.
    pub(super) fn output(self) -> PortResult<Output> {
        self.output_with(&|_| {})
    }

    /// As [`Git::output`]; each line of standard error also goes to `progress`, carriage returns
    /// taken as line ends.
    pub(super) fn output_with(self, progress: &dyn Fn(&str)) -> PortResult<Output> {
        let deadline = Instant::now() + self.deadline;
        let mut child = self.command().spawn().map_err(|cause| {
            PortError::new(ErrorKind::Broken, "git could not be started")
                .hint("install git 2.30 or newer and make sure it is in PATH")
                .because(cause)
        })?;
        let collected = collect(&mut child, deadline, progress);
        let (stdout, stderr) = match collected {
            Ok(both) => both,
            Err(error) => {
                end(&mut child);
                return Err(error);
            }
        };
        let status = wait(&mut child, deadline)?;
        Ok(Output {
            status,
            stdout,
            stderr: clean(&stderr),
        })
    }

    /// Runs it; a failure is `Broken` with git's words, for commands that cannot fail on a sound
    /// store.
    pub(super) fn run(self, what: &str) -> PortResult<Vec<u8>> {
        let output = self.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(PortError::new(
            ErrorKind::Broken,
            format!("{what} failed: {}", last_lines(&output.stderr)),
        ))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        for (key, _) in std::env::vars_os() {
            let text = key.to_string_lossy();
            // Whatever the daemon was started from, for example a git hook, must not redirect us.
            if text.starts_with("GIT_") && !(self.scope == Scope::Network && for_network(&text)) {
                command.env_remove(&key);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1");
        match self.scope {
            Scope::Local => {
                command
                    .env("GIT_CONFIG_NOSYSTEM", "1")
                    .env("GIT_CONFIG_GLOBAL", "/dev/null")
                    .env("GIT_ATTR_NOSYSTEM", "1");
            }
            Scope::Network => {
                // Nobody sits at our terminal: ssh must fail instead of asking there.
                command
                    .env("SSH_ASKPASS", "/bin/false")
                    .env("SSH_ASKPASS_REQUIRE", "force");
            }
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group, so that a deadline also ends ssh and the transport helpers.
            .process_group(0);
        command
    }
}

/// Variables through which people configure transport and credentials.
fn for_network(key: &str) -> bool {
    matches!(
        key,
        "GIT_ASKPASS"
            | "GIT_SSH"
            | "GIT_SSH_COMMAND"
            | "GIT_SSH_VARIANT"
            | "GIT_CONFIG_GLOBAL"
            | "GIT_CONFIG_SYSTEM"
            | "GIT_CONFIG_NOSYSTEM"
            | "GIT_PROXY_COMMAND"
    ) || key.starts_with("GIT_SSL_")
        || key.starts_with("GIT_HTTP_")
}

fn collect(
    child: &mut Child,
    deadline: Instant,
    progress: &dyn Fn(&str),
) -> PortResult<(Vec<u8>, Vec<u8>)> {
    let (sender, pieces) = mpsc::sync_channel(64);
    if let Some(pipe) = child.stdout.take() {
        pump(pipe, sender.clone(), Piece::Stdout);
    }
    if let Some(pipe) = child.stderr.take() {
        pump(pipe, sender.clone(), Piece::Stderr);
    }
    drop(sender);
    let (mut stdout, mut stderr, mut line) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match pieces.recv_timeout(left) {
            Ok(Piece::Stdout(bytes)) => stdout.extend(bytes),
            Ok(Piece::Stderr(bytes)) => {
                tell_lines(&bytes, &mut line, progress);
                stderr.extend(bytes);
            }
            Ok(Piece::Overflow) => {
                return Err(PortError::new(
                    ErrorKind::Broken,
                    format!("git printed more than {MAX_OUTPUT} bytes"),
                ));
            }
            Err(RecvTimeoutError::Disconnected) => return Ok((stdout, stderr)),
            Err(RecvTimeoutError::Timeout) => return Err(late()),
        }
    }
}

fn pump(
    mut pipe: impl Read + Send + 'static,
    to: mpsc::SyncSender<Piece>,
    wrap: fn(Vec<u8>) -> Piece,
) {
    thread::spawn(move || {
        let mut total = 0;
        let mut buffer = [0; 16 * 1024];
        while let Ok(count) = pipe.read(&mut buffer) {
            if count == 0 {
                return;
            }
            total += count;
            let piece = if total > MAX_OUTPUT {
                Piece::Overflow
            } else {
                wrap(buffer[..count].to_vec())
            };
            if to.send(piece).is_err() || total > MAX_OUTPUT {
                return;
            }
        }
    });
}

fn tell_lines(bytes: &[u8], line: &mut Vec<u8>, progress: &dyn Fn(&str)) {
    for &byte in bytes {
        if byte == b'\n' || byte == b'\r' {
            let text = String::from_utf8_lossy(line);
            if !text.trim().is_empty() {
                progress(text.trim());
            }
            line.clear();
        } else if line.len() < 1000 {
            line.push(byte);
        }
    }
}

/// Git closed its output; it is about to exit.
fn wait(child: &mut Child, deadline: Instant) -> PortResult<ExitStatus> {
    let mut pause = Duration::from_micros(200);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(pause),
            Ok(None) => {
                end(child);
                return Err(late());
            }
            Err(cause) => {
                return Err(
                    PortError::new(ErrorKind::Transient, "git could not be waited for")
                        .because(cause),
                );
            }
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn late() -> PortError {
    PortError::new(
        ErrorKind::Transient,
        "git did not finish before its deadline",
    )
    .hint("check the network and the load of this machine; it is tried again")
}

fn clean(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr)
        .lines()
        // Our store sets it for libgit2, which knows no other name.
        .filter(|line| !line.contains("core.fsyncObjectFiles is deprecated"))
        .filter(|line| !line.starts_with("hint:") && !line.trim().is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The end of a long text, on one line, for messages.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let tail = lines[lines.len().saturating_sub(6)..].join("; ");
    if tail.is_empty() {
        "git gave no reason".to_owned()
    } else {
        tail.chars().take(800).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_end_at_carriage_returns_too() {
        let seen = std::cell::RefCell::new(Vec::new());
        let mut line = Vec::new();
        let tell = |text: &str| seen.borrow_mut().push(text.to_owned());
        tell_lines(b"Receiving:  1%\rReceiving: 10", &mut line, &tell);
        tell_lines(b"0%\n\n", &mut line, &tell);
        assert_eq!(*seen.borrow(), ["Receiving:  1%", "Receiving: 100%"]);
    }

    #[test]
    fn a_command_that_hangs_is_ended_at_its_deadline() {
        let started = Instant::now();
        // `git cat-file --batch` would wait for input; ours is empty, so let a shell alias hang.
        let error = Git::bare_of_repository()
            .args(["-c", "alias.hang=!sleep 1000", "hang"])
            .deadline(Duration::from_millis(200))
            .output()
            .err()
            .map(|e| e.kind);
        assert_eq!(error, Some(ErrorKind::Transient));
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn git_in_the_parents_environment_does_not_redirect_us() {
        let command = Git::bare_of_repository().command();
        let fixed: Vec<_> = command
            .get_envs()
            .filter_map(|(key, value)| Some((key.to_str()?, value?.to_str()?)))
            .collect();
        assert!(fixed.contains(&("GIT_CONFIG_GLOBAL", "/dev/null")));
        assert!(fixed.contains(&("GIT_CONFIG_NOSYSTEM", "1")));
        assert!(!for_network("GIT_DIR") && !for_network("GIT_CONFIG_PARAMETERS"));
    }
}
