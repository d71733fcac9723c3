//! Local processes that stand for what runs in a container, and their terminals.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use crate::ports::{
    ContainerSpec, ErrorKind, ExecOutput, ExecSpec, Job, JobEnd, JobOutput, Mount, PortError,
    PortResult,
};

/// The engine refuses a mount whose source is not there.
pub(super) fn check_mounts(spec: &ContainerSpec) -> PortResult<()> {
    match spec.mounts.iter().find(|mount| !mount.host.exists()) {
        None => Ok(()),
        Some(mount) => Err(PortError::new(
            ErrorKind::Refused,
            format!(
                "creating container {}: {} does not exist",
                spec.name(),
                mount.host.display()
            ),
        )),
    }
}

/// Replaces paths inside the container by those on the host, wherever one stands as a whole:
/// `/workspace/a` and `--git-dir=/workspace/.git`, not `/workspaces` and not `/a/workspace`.
pub(super) fn on_host(text: &str, mounts: &[Mount]) -> String {
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut result = String::new();
    let mut rest = text;
    let mut previous = None;
    while let Some(c) = rest.chars().next() {
        let starts_path = c == '/' && !previous.is_some_and(|p| in_name(p) || p == '/');
        let longest = mounts
            .iter()
            .filter(|mount| starts_path && rest.starts_with(&mount.container))
            .filter(|mount| !rest[mount.container.len()..].starts_with(in_name))
            .max_by_key(|mount| mount.container.len());
        let taken = if let Some(mount) = longest {
            result.push_str(&mount.host.display().to_string());
            mount.container.len()
        } else {
            result.push(c);
            c.len_utf8()
        };
        previous = rest[..taken].chars().last();
        rest = &rest[taken..];
    }
    result
}

/// `command` as a local process in a group of its own, with nothing of our environment but PATH.
fn local(
    spec: &ContainerSpec,
    words: &[String],
    directory: &str,
    environment: &BTreeMap<String, String>,
) -> PortResult<Command> {
    let map = |text: &str| on_host(text, &spec.mounts);
    let [program, arguments @ ..] = words else {
        return Err(PortError::new(
            ErrorKind::Refused,
            "running an empty command",
        ));
    };
    let mut command = Command::new(map(program));
    command
        .args(arguments.iter().map(|word| map(word)))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(
            spec.environment
                .iter()
                .map(|(key, value)| (key, map(value))),
        )
        .envs(environment.iter().map(|(key, value)| (key, map(value))))
        .current_dir(map(directory))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

fn spawn(mut command: Command, attempt: &str) -> PortResult<(Child, Group)> {
    let child = command.spawn().map_err(|error| {
        PortError::new(ErrorKind::Refused, format!("{attempt}: cannot be run here")).because(error)
    })?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    Ok((child, group))
}

/// All processes of one command; killed when dropped.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// What `exec` and `run_once` do.
pub(super) async fn run(
    spec: &ContainerSpec,
    command: &ExecSpec,
    attempt: &str,
) -> PortResult<ExecOutput> {
    let directory = command
        .working_directory
        .as_ref()
        .unwrap_or(&spec.working_directory);
    let process = local(spec, &command.command, directory, &command.environment)?;
    let (mut child, _group) = spawn(process, attempt)?;
    let failed =
        |error: io::Error| PortError::new(ErrorKind::Transient, attempt.to_owned()).because(error);
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let limit = command.max_output_bytes;
    let work = async {
        let write = async {
            if let Some(mut input) = input {
                let _ = input.write_all(&command.stdin).await;
            }
            Ok(())
        };
        let ((), stdout, stderr) =
            tokio::try_join!(write, bounded(out, limit), bounded(err, limit)).map_err(failed)?;
        if stdout.len() + stderr.len() > limit {
            return Err(PortError::new(
                ErrorKind::Refused,
                format!("{attempt}: more than {limit} bytes of output"),
            ));
        }
        let status = child.wait().await.map_err(failed)?;
        Ok(ExecOutput {
            exit_code: exit_code(status),
            stdout,
            stderr,
        })
    };
    match tokio::time::timeout(command.deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(PortError::new(
            ErrorKind::Transient,
            format!(
                "{attempt}: no result within {} s",
                command.deadline.as_secs()
            ),
        )),
    }
}

/// What `run_job` does.
pub(super) async fn run_job(job: &Job, output: JobOutput<'_>, attempt: &str) -> PortResult<JobEnd> {
    let spec = &job.spec;
    let none = BTreeMap::new();
    let mut process = local(spec, &spec.command, &spec.working_directory, &none)?;
    process.stdin(Stdio::null());
    let (mut child, _group) = match spawn(process, attempt) {
        Ok(spawned) => spawned,
        // As the container's init says it.
        Err(error) => {
            output(format!("{}: {}\n", spec.command.join(" "), error.chain()).as_bytes());
            return Ok(JobEnd::Exited {
                exit_code: 127,
                out_of_memory: false,
            });
        }
    };
    let failed =
        |error: io::Error| PortError::new(ErrorKind::Transient, attempt.to_owned()).because(error);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let work = async {
        tokio::try_join!(follow(out, output), follow(err, output))?;
        child.wait().await
    };
    tokio::select! {
        ended = work => Ok(JobEnd::Exited {
            exit_code: exit_code(ended.map_err(failed)?),
            out_of_memory: false,
        }),
        () = tokio::time::sleep(job.deadline) => Ok(JobEnd::TimedOut),
        () = job.stop.cancelled() => Ok(JobEnd::Stopped),
    }
}

async fn follow(source: Option<impl AsyncRead + Unpin>, output: JobOutput<'_>) -> io::Result<()> {
    let Some(mut source) = source else {
        return Ok(());
    };
    let mut buffer = vec![0; 8192];
    loop {
        match source.read(&mut buffer).await? {
            0 => return Ok(()),
            read => output(&buffer[..read]),
        }
    }
}

/// Reads to the end, or one byte beyond the limit.
async fn bounded(source: Option<impl AsyncRead + Unpin>, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(source) = source {
        source
            .take(limit as u64 + 1)
            .read_to_end(&mut bytes)
            .await?;
    }
    Ok(bytes)
}

/// As a shell and the engine count: 128 + signal.
fn exit_code(status: std::process::ExitStatus) -> i64 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.unwrap_or(-1).into()
}

/// A container's main process.
pub(super) struct Process {
    group: Group,
    ended: watch::Receiver<Option<i64>>,
}

impl Process {
    /// Starts it; the receiver gets its exit code once, at its end.
    pub(super) fn spawn(
        spec: &ContainerSpec,
        terminal: Terminal,
    ) -> PortResult<(Self, oneshot::Receiver<i64>)> {
        let command = local(
            spec,
            &spec.command,
            &spec.working_directory,
            &BTreeMap::new(),
        )?;
        let (mut child, group) = spawn(command, &format!("starting container {}", spec.name()))?;
        if let Some(mut input) = child.stdin.take() {
            let mut typed = terminal.connect();
            tokio::spawn(async move {
                while let Some(bytes) = typed.recv().await {
                    if input.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
            });
        }
        let out = child
            .stdout
            .take()
            .map(|source| tokio::spawn(copy(source, terminal.clone())));
        let err = child
            .stderr
            .take()
            .map(|source| tokio::spawn(copy(source, terminal)));
        let (tell, told) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            let code = child.wait().await.map_or(-1, exit_code);
            // What it printed comes before its end.
            for task in [out, err].into_iter().flatten() {
                let _ = task.await;
            }
            end.send_replace(Some(code));
            let _ = tell.send(code);
        });
        Ok((Self { group, ended }, told))
    }

    /// Sends SIGTERM; the receiver tells the exit code when it has ended.
    pub(super) fn terminate(&self) -> watch::Receiver<Option<i64>> {
        self.group.signal(Signal::TERM);
        self.ended.clone()
    }

    pub(super) fn kill(&self) {
        self.group.signal(Signal::KILL);
    }
}

async fn copy(mut source: impl AsyncRead + Unpin, terminal: Terminal) {
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = source.read(&mut buffer).await {
        terminal.print(Bytes::copy_from_slice(&buffer[..read]));
    }
}

/// What a terminal showed and what was typed into it. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Terminal(Arc<Mutex<Shown>>);

#[derive(Default)]
struct Shown {
    printed: Vec<u8>,
    typed: Vec<u8>,
    closed: bool,
    readers: Vec<mpsc::UnboundedSender<Bytes>>,
    process: Option<mpsc::UnboundedSender<Bytes>>,
}

impl Terminal {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn print(&self, bytes: Bytes) {
        let mut shown = self.shown();
        shown.printed.extend_from_slice(&bytes);
        shown
            .readers
            .retain(|reader| reader.send(bytes.clone()).is_ok());
    }

    pub(super) fn close(&self) {
        let mut shown = self.shown();
        shown.closed = true;
        shown.readers.clear();
        shown.process = None;
    }

    pub(super) fn typed(&self) -> Vec<u8> {
        self.shown().typed.clone()
    }

    /// The last `tail` lines, or all, then live if `follow`.
    pub(super) fn read(
        &self,
        tail: Option<usize>,
        follow: bool,
    ) -> BoxStream<'static, PortResult<Bytes>> {
        let mut shown = self.shown();
        let past = match tail {
            None => shown.printed.clone(),
            Some(lines) => {
                let all: Vec<&[u8]> = shown
                    .printed
                    .split_inclusive(|byte| *byte == b'\n')
                    .collect();
                all[all.len().saturating_sub(lines)..].concat()
            }
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        if follow && !shown.closed {
            shown.readers.push(sender);
        }
        let past = stream::iter((!past.is_empty()).then(|| Bytes::from(past)));
        let live = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        past.chain(live).map(Ok).boxed()
    }

    /// Where a process gets what is typed from now on.
    fn connect(&self) -> mpsc::UnboundedReceiver<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shown().process = Some(sender);
        receiver
    }

    pub(super) fn input(&self) -> Pin<Box<dyn AsyncWrite + Send>> {
        Box::pin(Keyboard(self.clone()))
    }
}

struct Keyboard(Terminal);

impl AsyncWrite for Keyboard {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut shown = self.0.shown();
        if shown.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        shown.typed.extend_from_slice(bytes);
        if let Some(process) = &shown.process {
            let _ = process.send(Bytes::copy_from_slice(bytes));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_paths_are_mapped_and_nothing_else() {
        let mount = |host: &str, container: &str| Mount {
            host: host.into(),
            container: container.to_owned(),
            read_only: false,
        };
        let mounts = [
            mount("/h/w", "/workspace"),
            mount("/h/g", "/workspace/.git"),
        ];
        let map = |text: &str| on_host(text, &mounts);
        assert_eq!(map("/workspace"), "/h/w");
        assert_eq!(
            map("cd /workspace/a && ls '/workspace'"),
            "cd /h/w/a && ls '/h/w'"
        );
        assert_eq!(map("--git-dir=/workspace/.git"), "--git-dir=/h/g");
        assert_eq!(
            map("/workspaces /a/workspace a/workspace"),
            "/workspaces /a/workspace a/workspace"
        );
    }
}
