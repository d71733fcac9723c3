//! Running the script that brings the worktree up to a commit, with a deadline.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

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

/// Runs `script COMMIT BRANCH` in `workspace`. Its output goes to stderr: stdout belongs to the
/// supervisor's answer.
pub(crate) fn run(script: &Path, workspace: &Path, order: &Order) -> io::Result<()> {
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    let mut child = Command::new(script)
        .arg(&order.commit)
        .arg(&order.branch)
        .current_dir(workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::from(stderr))
        .spawn()?;
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() {
                Ok(())
            } else {
                Err(io::Error::other(format!(
                    "{} ended with {status}",
                    script.display()
                )))
            };
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "{} took longer than {} s",
                    script.display(),
                    DEADLINE.as_secs()
                ),
            ));
        }
        thread::sleep(LOOK_EVERY);
    }
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
}
