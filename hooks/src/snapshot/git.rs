//! Running git in the checkout, in an environment of our own.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

/// Settings of the agent's that would run programs, hide changes or clean up behind our back.
const FIXED: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "core.fileMode=true",
    "core.symlinks=true",
    "core.trustctime=true",
    "core.checkStat=default",
    "gc.auto=0",
    "maintenance.auto=false",
    "log.showSignature=false",
];

/// Variables that would lead git elsewhere.
const STRAY: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
];

/// One repository: the checkout itself, or one that lies in it.
pub(super) struct Git {
    directory: PathBuf,
    /// The checkout's own `.git`, whatever its configuration says about work trees.
    explicit: bool,
    index: Option<PathBuf>,
}

impl Git {
    pub(super) fn of_checkout(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            explicit: true,
            index: None,
        }
    }

    /// A repository inside of it; git finds its directory.
    pub(super) fn nested(directory: PathBuf) -> Self {
        Self {
            directory,
            explicit: false,
            index: None,
        }
    }

    /// Another index file instead of the repository's.
    pub(super) fn with_index(&self, index: PathBuf) -> Self {
        Self {
            directory: self.directory.clone(),
            explicit: self.explicit,
            index: Some(index),
        }
    }

    pub(super) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&self.directory);
        for name in STRAY {
            command.env_remove(name);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1");
        if let Some(index) = &self.index {
            command.env("GIT_INDEX_FILE", index);
        }
        command.arg("--literal-pathspecs");
        for setting in FIXED {
            command.args(["-c", setting]);
        }
        if self.explicit {
            command.args(["--git-dir=.git", "--work-tree=."]);
        }
        command.args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Standard output of a command that ended well.
    pub(super) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> io::Result<Vec<u8>> {
        let output = self.command(arguments).output().map_err(no_git)?;
        ended_well(arguments, output).map(|output| output.stdout)
    }

    pub(super) fn output<A: AsRef<OsStr>>(&self, arguments: &[A]) -> io::Result<Output> {
        let output = self.command(arguments).output().map_err(no_git)?;
        ended_well(arguments, output)
    }

    /// The same with something on standard input.
    pub(super) fn fed<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        input: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(no_git)?;
        let stdin = child.stdin.take();
        // A git that fails early closes its input; what it says is told below.
        let feeding = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
        let output = child.wait_with_output()?;
        let _closed_early = feeding.join();
        ended_well(arguments, output).map(|output| output.stdout)
    }
}

fn ended_well<A: AsRef<OsStr>>(arguments: &[A], output: Output) -> io::Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    Err(failed(arguments, &output.stderr))
}

pub(super) fn failed<A: AsRef<OsStr>>(arguments: &[A], stderr: &[u8]) -> io::Error {
    let name = arguments
        .first()
        .map(|name| name.as_ref().to_string_lossy().into_owned());
    let said: String = String::from_utf8_lossy(stderr)
        .trim()
        .chars()
        .take(400)
        .collect();
    io::Error::other(format!("git {}: {said}", name.unwrap_or_default()))
}

pub(super) fn no_git(cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("git could not be started: {cause}"))
}

/// A path as git names it, below the checkout.
pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

pub(super) fn is_id(text: &[u8]) -> bool {
    text.len() == 40 && text.iter().all(u8::is_ascii_hexdigit)
}
