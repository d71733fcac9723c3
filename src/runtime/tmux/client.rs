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
        run(Tmux::new().version().build().to_command(), None).await
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
        run(tmux.build().to_command(), stdin).await
    }
}

async fn run(command: std::process::Command, stdin: Option<&[u8]>) -> Result<String, TmuxError> {
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
    let output = timeout(DEADLINE, talk(command, stdin))
        .await
        .map_err(|_| TmuxError::Deadline(DEADLINE.as_secs()))?
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
