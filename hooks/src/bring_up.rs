//! Running the script that brings the worktree up to a commit, with a deadline.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::{complain, head};

const DEADLINE: Duration = Duration::from_secs(30);
/// Of the script's one line.
const MAX_WORDS: u64 = 4096;
/// In the git directory: the newest commit that the script has brought the worktree up to.
const MEMORY: &str = "orchestrator-brought-up-to";
/// The script's first word when the worktree has the commit now. After any other it is tried again.
const OUTCOMES_WITH_IT: [&str; 3] = ["up-to-date", "forwarded", "merged"];

/// `x-bring-up-to: COMMIT BRANCH`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    commit: String,
    branch: String,
}

impl Order {
    /// `None` unless it is a full commit id and a branch name that no program takes for an option.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (commit, branch) = text.split_once(' ')?;
        let commit_ok =
            matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit());
        let branch_ok = !branch.is_empty()
            && branch.len() <= 255
            && !branch.starts_with('-')
            && branch
                .chars()
                .all(|c| !c.is_whitespace() && !c.is_control());
        (commit_ok && branch_ok).then(|| Self {
            commit: commit.to_owned(),
            branch: branch.to_owned(),
        })
    }
}

/// Runs `script COMMIT BRANCH` in `workspace`, unless it has brought the worktree up to this commit
/// before. Its output goes to stderr: stdout belongs to the supervisor's answer.
pub(crate) fn run(script: &Path, workspace: &Path, order: &Order) -> io::Result<()> {
    run_with(&mut Command::new(script), workspace, order)
}

fn run_with(script: &mut Command, workspace: &Path, order: &Order) -> io::Result<()> {
    let memory = head::git_directory(workspace).map(|git| git.join(MEMORY));
    let done = memory
        .as_deref()
        .and_then(|path| fs::read_to_string(path).ok());
    if done.is_some_and(|done| done.trim() == order.commit) {
        return Ok(());
    }
    let shown = script.get_program().display().to_string();
    let mut child = script
        .arg(&order.commit)
        .arg(&order.branch)
        .current_dir(workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let said = last_words(&mut child);
    let Ok(said) = said.recv_timeout(DEADLINE) else {
        child.kill()?;
        child.wait()?;
        let seconds = DEADLINE.as_secs();
        let text = format!("{shown} took longer than {seconds} s");
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    };
    let status = child.wait()?;
    complain(said.trim());
    if !status.success() {
        let text = format!("{shown} ended with {status}");
        return Err(io::Error::other(text));
    }
    if let Some(memory) = memory
        && OUTCOMES_WITH_IT.contains(&said.split_whitespace().next().unwrap_or_default())
    {
        // Without it the script looks again next time, which costs time and nothing else.
        let _forgotten = fs::write(memory, &order.commit);
    }
    Ok(())
}

/// All it writes to stdout, when it has closed it: as a rule by ending.
fn last_words(child: &mut Child) -> mpsc::Receiver<String> {
    let (told, said) = mpsc::channel();
    let stdout = child.stdout.take();
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stdout) = stdout {
            let _cut_off = stdout.take(MAX_WORDS).read_to_end(&mut text);
        }
        let _nobody_waits = told.send(String::from_utf8_lossy(&text).into_owned());
    });
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn an_order_is_a_commit_and_a_branch() {
        let order = Order::parse(&format!("{COMMIT} agent/worker-1")).expect("an order");
        assert_eq!(order.commit, COMMIT);
        assert_eq!(order.branch, "agent/worker-1");
    }

    #[test]
    fn anything_else_is_no_order() {
        for text in [
            String::new(),
            COMMIT.to_owned(),
            format!("{COMMIT} --upload-pack=x"),
            format!("{COMMIT} a b"),
            "main main".to_owned(),
        ] {
            assert_eq!(Order::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn a_failing_script_is_told() {
        let order = Order::parse(&format!("{COMMIT} main")).expect("an order");
        let error = run(Path::new("/bin/false"), Path::new("/"), &order).expect_err("it fails");
        assert!(error.to_string().contains("exit status: 1"), "{error}");
        run(Path::new("/bin/true"), Path::new("/"), &order).expect("it works");
    }

    /// How often a script that prints `outcome` runs when it is ordered twice.
    fn runs(outcome: &str) -> usize {
        let name = format!("orchestrator-hook-{}-up-{outcome}", std::process::id());
        let workspace = std::env::temp_dir().join(name);
        fs::create_dir_all(workspace.join(".git")).expect("directory");
        let script = format!("echo ran >> runs; echo '{outcome} {COMMIT}'");
        let path = workspace.join("script");
        fs::write(&path, script).expect("script");
        let order = Order::parse(&format!("{COMMIT} main")).expect("an order");
        for _ in 0..2 {
            run_with(Command::new("sh").arg(&path), &workspace, &order).expect("it works");
        }
        let runs = fs::read_to_string(workspace.join("runs")).expect("it ran");
        fs::remove_dir_all(&workspace).expect("removed");
        runs.lines().count()
    }

    #[test]
    fn what_was_brought_up_is_left_alone_and_what_was_not_is_tried_again() {
        for (outcome, expected) in [("merged", 1), ("forwarded", 1), ("up-to-date", 1)] {
            assert_eq!(runs(outcome), expected, "{outcome}");
        }
        for outcome in ["dirty", "conflict", "busy", "detached"] {
            assert_eq!(runs(outcome), 2, "{outcome}");
        }
    }
}
