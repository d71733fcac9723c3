//! What is uncommitted when a turn ends, told beside its Stop hook, which never waits for it.
//!
//! `git status` takes some milliseconds in a small repository and a second in a large one, so a process
//! of its own looks and tells, while the hook gets its answer. The next turn changes no file before a
//! model has answered; only bringing the worktree up does, and that waits for the look, or ends it.

use std::env;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Patience, Request, exchange};
use crate::{Places, complain, spool};

/// After that nobody says anything: the next turn may have changed files.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// What bringing up waits at most.
const WAIT: Duration = Duration::from_millis(1500);
const BETWEEN: Duration = Duration::from_millis(2);
const TELL_WITHIN: Duration = Duration::from_secs(5);
/// Paths told: a repair task names fewer.
const MAX_PATHS: usize = 50;
/// In characters, as the supervisor cuts the paths that it reads itself.
const MAX_PATH: usize = 500;
/// Of the output of git.
const MAX_OUTPUT: u64 = 256 * 1024;

/// A look that is under way.
pub(crate) struct Look(Child);

impl Look {
    /// Begins one for the callback of a Stop hook. `None`: it could not be begun, and nothing is told.
    pub(crate) fn begin(callback: &str) -> Option<Self> {
        let program = env::current_exe().ok()?;
        // Of its own group, and without our ends of pipes: Claude Code neither waits for it nor ends it.
        let child = Command::new(program)
            .args(["tree", callback])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        child.ok().map(Self)
    }

    /// Before files are changed: waits until it has looked and told, or ends it.
    pub(crate) fn finish(mut self) {
        let until = Instant::now() + WAIT;
        while Instant::now() < until {
            match self.0.try_wait() {
                Ok(None) => thread::sleep(BETWEEN),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _gone = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Looks at the worktree and tells the supervisor what is not committed there.
pub(crate) fn run(callback: &str) {
    let places = Places::from_environment();
    let Some(paths) = uncommitted(&places.workspace) else {
        return complain("what is uncommitted could not be told in time");
    };
    let quoted: Vec<String> = paths.iter().map(|path| spool::quote(path)).collect();
    let body = format!("{{\"uncommitted\":[{}]}}", quoted.join(","));
    let mut request =
        Request::post("/hooks/v1/tree", body.into_bytes()).header("x-callback-id", callback);
    if let Some(incarnation) = places.incarnation {
        request = request.header("x-incarnation", &incarnation.to_string());
    }
    let patience = Patience {
        pauses: &[],
        deadline: TELL_WITHIN,
    };
    if let Err(error) = exchange(&places.socket, &request, patience) {
        complain(&format!("what is uncommitted could not be told: {error}"));
    }
}

/// As `inspect-work.sh` asks for it, so that the two can be compared. `None`: unknown.
fn uncommitted(workspace: &Path) -> Option<Vec<String>> {
    let mut git = Command::new("git")
        .args(["-c", "core.hooksPath=/dev/null", "status", "--porcelain"])
        .args(["-z", "--untracked-files=normal"])
        .args(["--ignore-submodules=none", "--no-renames"])
        .current_dir(workspace)
        .envs([("LC_ALL", "C"), ("GIT_TERMINAL_PROMPT", "0")])
        // Takes no lock that the agent, or bringing up, could meet.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let stdout = git.stdout.take()?;
    let (told, said) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(MAX_OUTPUT).read_to_end(&mut bytes);
        let _nobody_waits = told.send(read.map(|_| bytes));
    });
    let Ok(Ok(bytes)) = said.recv_timeout(LOOK_WITHIN) else {
        let _gone = git.kill().and_then(|()| git.wait());
        return None;
    };
    if bytes.len() as u64 == MAX_OUTPUT {
        // More than we want: it may still write.
        let _gone = git.kill();
        let _ended = git.wait();
        return Some(parse(&bytes));
    }
    git.wait().ok()?.success().then(|| parse(&bytes))
}

/// `XY path`, each ended by a zero byte. What comes after the last one was cut off.
fn parse(output: &[u8]) -> Vec<String> {
    let whole = output.iter().rposition(|&byte| byte == 0).unwrap_or(0);
    output[..whole]
        .split(|&byte| byte == 0)
        .filter_map(|entry| entry.get(3..))
        .take(MAX_PATHS)
        .map(|path| {
            String::from_utf8_lossy(path)
                .chars()
                .take(MAX_PATH)
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_as_they_are_and_bounded() {
        assert!(parse(b"").is_empty());
        let said = b" M a b.txt\0?? new/\0R  cut of".as_slice();
        assert_eq!(parse(said), ["a b.txt", "new/"]);
        let many: Vec<u8> = (0..1000)
            .flat_map(|n| format!("?? f{n}\0").into_bytes())
            .collect();
        assert_eq!(parse(&many).len(), MAX_PATHS);
        assert_eq!(parse(b"?? \xff\0"), ["\u{fffd}"]);
    }

    #[test]
    fn where_there_is_no_repository_nothing_is_known() {
        assert_eq!(uncommitted(Path::new("/")), None);
        assert_eq!(uncommitted(Path::new("/nonexistent")), None);
    }
}
