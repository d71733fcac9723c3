//! Runs tmux: built with `tmux_interface`, started by tokio, ended at a deadline.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tmux_interface::{Tmux, TmuxCommands};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::environment;
use super::error::TmuxError;

/// A command takes 3 to 7 ms; ten seconds means that the server hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// One tmux server, by the name of its socket.
pub(super) struct Client {
    socket: String,
}

impl Client {
    pub(super) fn new(socket: String) -> Self {
        Self { socket }
    }

    pub(super) fn socket(&self) -> &str {
        &self.socket
    }

    /// What `tmux -V` prints. Needs no server.
    pub(super) async fn version(&self) -> Result<String, TmuxError> {
        run(Tmux::new().version().build().to_command(), None, DEADLINE).await
    }

    /// Runs the commands as one sequence, which tmux ends at the first error, and returns what
    /// they printed. `-f /dev/null`: the user's configuration is not ours.
    pub(super) async fn run(
        &self,
        commands: TmuxCommands<'static>,
        stdin: Option<&[u8]>,
    ) -> Result<String, TmuxError> {
        let mut tmux = Tmux::new()
            .force_utf8()
            .file("/dev/null")
            .socket_name(self.socket.clone());
        for command in commands.into_cmds() {
            tmux = tmux.command(command);
        }
        run(tmux.build().to_command(), stdin, DEADLINE).await
    }
}

async fn run(
    command: std::process::Command,
    stdin: Option<&[u8]>,
    deadline: Duration,
) -> Result<String, TmuxError> {
    let mut command = Command::from(command);
    command
        .env_clear()
        .envs(environment::for_server(std::env::vars_os()))
        .stdin(if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = timeout(deadline, talk(command, stdin))
        .await
        .map_err(|_| TmuxError::Deadline(deadline.as_secs()))?
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TmuxError::NotInstalled,
            _ => TmuxError::Io(error),
        })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(TmuxError::from_stderr(&String::from_utf8_lossy(
            &output.stderr,
        )))
    }
}

async fn talk(mut command: Command, stdin: Option<&[u8]>) -> io::Result<Output> {
    let mut child = command.spawn()?;
    let pipe = child.stdin.take();
    let feed = async {
        if let (Some(mut pipe), Some(bytes)) = (pipe, stdin) {
            // tmux may refuse before it has read everything; its exit code and words say why.
            let _ = pipe.write_all(bytes).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::ErrorKind;

    #[tokio::test]
    async fn a_server_that_hangs_costs_the_deadline_and_no_more() {
        let mut hanging = std::process::Command::new("sleep");
        hanging.arg("600");
        let deadline = Duration::from_millis(50);
        let error = run(hanging, Some(b"text"), deadline).await.unwrap_err();
        assert!(matches!(error, TmuxError::Deadline(_)), "{error}");
        assert_eq!(error.during("ask").kind, ErrorKind::Transient);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told_apart() {
        let none = std::process::Command::new("/nonexistent/tmux");
        let error = run(none, None, DEADLINE).await.unwrap_err();
        assert!(matches!(error, TmuxError::NotInstalled), "{error}");
    }

    #[tokio::test]
    async fn its_words_on_failure_are_kept() {
        let mut failing = std::process::Command::new("sh");
        failing.args(["-c", "echo \"can't find session: x\" >&2; exit 1"]);
        let error = run(failing, Some(&vec![b'x'; 1 << 20]), DEADLINE)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "can't find session: x");
        assert_eq!(error.during("ask").kind, ErrorKind::NotFound);
    }
}
