//! Commands inside containers: input in, both outputs out, bounded and with an end.

use std::pin::Pin;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::query_parameters::InspectContainerOptions;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::error::{classify, too_late};
use crate::ports::{ErrorKind, ExecOutput, ExecSpec, PortError, PortResult};

/// Marks the processes of one exec, so that they can be found again and killed: the engine has
/// no call for it.
const MARK: &str = "ORCHESTRATOR_EXEC";
/// Kills every process that carries the mark, children included. Runs with nothing but a shell.
const KILL_MARKED: &str = r#"for p in /proc/[0-9]*; do
if tr '\0' '\n' <"$p/environ" 2>/dev/null | grep -qxF "$1"; then kill -9 "${p#/proc/}" 2>/dev/null; fi
done; true"#;
/// The clean-up after a deadline has one of its own.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
const EXIT_POLL: Duration = Duration::from_millis(20);

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// `Runtime::exec`.
///
/// # Errors
/// `Refused` when the container does not run or the output is over its limit, `Transient` when
/// the deadline passed; in both the command's processes are killed.
pub(super) async fn exec(
    docker: &Docker,
    name: &str,
    command: &ExecSpec,
) -> PortResult<ExecOutput> {
    let attempt = attempt(command, name);
    let mark = format!("{MARK}={}", uuid::Uuid::new_v4());
    let deadline = Instant::now() + command.deadline;
    let run = run(docker, name, command, &mark, &attempt);
    let result = match tokio::time::timeout_at(deadline, run).await {
        Ok(Ok(output)) => return Ok(output),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(too_late(&attempt, command.deadline.as_secs())),
    };
    // Whatever went wrong, nothing of it shall run on unseen.
    let kill = kill_marked(docker, name, &mark);
    if !matches!(tokio::time::timeout(KILL_DEADLINE, kill).await, Ok(Ok(()))) {
        tracing::debug!(
            container = name,
            "could not look for what an unfinished command left"
        );
    }
    result
}

/// What is attempted, with the program but without its arguments, which may be long.
pub(super) fn attempt(command: &ExecSpec, name: &str) -> String {
    let program = command.command.first().map_or("nothing", String::as_str);
    format!("running {program} in container {name}")
}

async fn run(
    docker: &Docker,
    name: &str,
    command: &ExecSpec,
    mark: &str,
    attempt: &str,
) -> PortResult<ExecOutput> {
    let mut environment = vec![mark.to_owned()];
    environment.extend(
        command
            .environment
            .iter()
            .map(|(key, value)| format!("{key}={value}")),
    );
    let (id, input, output) = start(docker, name, command, environment, attempt).await?;
    let (stdout, stderr) = converse(input, output, command, attempt).await?;
    let exit_code = loop {
        let state = docker
            .inspect_exec(&id)
            .await
            .map_err(|error| classify(attempt, error))?;
        // The stream can end a moment before the engine has noted the exit.
        match state.exit_code {
            Some(code) if state.running != Some(true) => break code,
            _ => tokio::time::sleep(EXIT_POLL).await,
        }
    };
    Ok(ExecOutput {
        exit_code,
        stdout,
        stderr,
    })
}

async fn start(
    docker: &Docker,
    name: &str,
    command: &ExecSpec,
    environment: Vec<String>,
    attempt: &str,
) -> PortResult<(String, Input, Output)> {
    let options = CreateExecOptions {
        attach_stdin: Some(!command.stdin.is_empty()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        env: Some(environment),
        cmd: Some(command.command.clone()),
        working_dir: command.working_directory.clone(),
        user: container_user(docker, name, attempt).await?,
        ..CreateExecOptions::default()
    };
    let id = docker
        .create_exec(name, options)
        .await
        .map_err(|error| classify(attempt, error))?
        .id;
    match docker.start_exec(&id, None).await {
        Ok(StartExecResults::Attached { output, input }) => Ok((id, input, output)),
        Ok(StartExecResults::Detached) => Err(PortError::new(
            ErrorKind::Broken,
            format!("{attempt}: the engine detached at once"),
        )),
        Err(error) => Err(classify(attempt, error)),
    }
}

/// The user the container's main process runs as; said explicitly, whatever the image says.
async fn container_user(docker: &Docker, name: &str, attempt: &str) -> PortResult<Option<String>> {
    let found = docker
        .inspect_container(name, None::<InspectContainerOptions>)
        .await
        .map_err(|error| classify(attempt, error))?;
    Ok(found
        .config
        .and_then(|config| config.user)
        .filter(|user| !user.is_empty()))
}

/// Writes the input and reads both outputs at once, so that neither side waits for the other.
pub(super) async fn converse(
    mut input: Input,
    mut output: Output,
    command: &ExecSpec,
    attempt: &str,
) -> PortResult<(Vec<u8>, Vec<u8>)> {
    let write = async {
        // A command that does not read its input to the end is no error.
        if !command.stdin.is_empty() && input.write_all(&command.stdin).await.is_ok() {
            let _ = input.flush().await;
        }
        let _ = input.shutdown().await;
        Ok(input)
    };
    let read = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = output.next().await {
            let chunk = chunk.map_err(|error| classify(attempt, error))?;
            let target = match chunk {
                LogOutput::StdErr { .. } => &mut stderr,
                _ => &mut stdout,
            };
            target.extend_from_slice(chunk.as_ref());
            if stdout.len() + stderr.len() > command.max_output_bytes {
                return Err(PortError::new(
                    ErrorKind::Refused,
                    format!(
                        "{attempt}: more than {} bytes of output",
                        command.max_output_bytes
                    ),
                ));
            }
        }
        Ok((stdout, stderr))
    };
    // The input stays open as long as the output is read: dropping it would close both.
    let (_input, outputs) = tokio::try_join!(write, read)?;
    Ok(outputs)
}

async fn kill_marked(docker: &Docker, name: &str, mark: &str) -> PortResult<()> {
    let command = ExecSpec {
        command: ["sh", "-c", KILL_MARKED, "sh", mark]
            .map(str::to_owned)
            .to_vec(),
        working_directory: None,
        environment: std::collections::BTreeMap::new(),
        stdin: Vec::new(),
        max_output_bytes: 4096,
        deadline: KILL_DEADLINE,
    };
    let attempt = format!("ending a command in container {name}");
    let (_, input, output) = start(docker, name, &command, Vec::new(), &attempt).await?;
    converse(input, output, &command, &attempt).await?;
    Ok(())
}
