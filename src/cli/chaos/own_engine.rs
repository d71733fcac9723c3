//! A Docker engine of chaos's own, which it may restart: in a network namespace of its own, because
//! two engines in one share bridges and firewall rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::super::error::Result;
use super::super::{Error, Exit, output};
use super::run::ran;
use crate::config::CLAUDE_VERSION;
use crate::runtime::docker::DockerRuntime;

/// Names the directory of the own engine; we run in its network already.
const INSIDE: &str = "ORCHESTRATOR_CHAOS_ENGINE";

/// Where the machine's engine listens, which has the agent image.
const MACHINES: &str = "ORCHESTRATOR_CHAOS_IMAGES_FROM";

/// An engine that was killed has taken a minute to come back.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// The directory of the engine to start, when this process runs in its network.
pub(super) fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// Runs this very command again in a network of its own, and waits for it.
pub(super) async fn again_inside() -> Result<Exit> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new(Exit::Prerequisite, "an own engine needs root")
            .hint("leave `--own-engine` out: the Docker daemon is then not restarted"));
    }
    let directory = tempfile::Builder::new()
        .prefix("orchestrator-chaos-engine-")
        .tempdir()
        .map_err(|error| Error::io("cannot create a directory for the engine", &error))?;
    let machines = std::env::var("DOCKER_HOST").unwrap_or_default();
    let program = std::env::current_exe()
        .map_err(|error| Error::io("cannot find this program's own file", &error))?;
    let mut child = tokio::process::Command::new("unshare")
        .args(["--net", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, directory.path())
        .env(MACHINES, machines)
        .env("DOCKER_HOST", host(directory.path()))
        .spawn()
        .map_err(|error| Error::io("cannot run `unshare` (of util-linux)", &error))?;
    // Ctrl-C reaches it as well, and it cleans up.
    let mut interruption = super::super::demo::interruption::Interruption::install()?;
    let failed = |error| {
        Error::io(
            "cannot wait for the process in a network of its own",
            &error,
        )
    };
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(failed)?,
            () = interruption.came() => {}
        }
    };
    directory
        .close()
        .map_err(|error| Error::io("cannot remove the engine's directory", &error))?;
    let exit = status.code().map_or(Exit::Failure, Exit::from_code);
    if exit == Exit::Done {
        return Ok(exit);
    }
    // It has said why.
    Err(Error::rendered(exit, ""))
}

fn host(directory: &Path) -> String {
    format!("unix://{}", directory.join("docker.sock").display())
}

/// Stopped when it is dropped.
pub(super) struct OwnEngine {
    directory: PathBuf,
    child: Option<Child>,
}

impl OwnEngine {
    /// Starts it in a directory and gives it the agent image of the machine's engine.
    pub(super) async fn set(directory: PathBuf) -> Result<Self> {
        ran(
            Command::new("ip").args(["link", "set", "lo", "up"]),
            "raising the loopback",
        )?;
        let mut engine = Self {
            directory,
            child: None,
        };
        engine.start().await?;
        engine.take_images()?;
        Ok(engine)
    }

    fn host(&self) -> String {
        host(&self.directory)
    }

    pub(super) async fn start(&mut self) -> Result<()> {
        let path = |name: &str| self.directory.join(name);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path("dockerd.log"))
            .map_err(|error| Error::io("cannot write the engine's log", &error))?;
        let again = log
            .try_clone()
            .map_err(|error| Error::io("cannot write the engine's log", &error))?;
        let child = Command::new("dockerd")
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("dockerd.pid"))
            .arg("--host")
            .arg(self.host())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .spawn()
            .map_err(|error| Error::io("cannot start `dockerd`", &error))?;
        self.child = Some(child);
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if DockerRuntime::connect(Some(&self.host())).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                return Err(self.not_up(&format!("it ended ({status})")));
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(self.not_up("it does not answer"))
    }

    pub(super) fn is_started(&self) -> bool {
        self.child.is_some()
    }

    fn not_up(&self, why: &str) -> Error {
        let log = fs::read_to_string(self.directory.join("dockerd.log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        Error::new(
            Exit::Failure,
            format!("the own engine is not up: {why}: {last}"),
        )
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .as_mut()
            .map_or(Ok(None), Child::try_wait)
            .map_err(|error| Error::io("cannot look after `dockerd`", &error))
    }

    /// SIGTERM, as a service manager stops it: it ends all containers first.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        terminate(child);
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if self.ended()?.is_some() {
                self.child = None;
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Error::new(Exit::TimedOut, "the own engine does not end"))
    }

    /// The agent image, from the machine's engine: this one reaches no network to build it.
    fn take_images(&self) -> Result<()> {
        let machines = || {
            let mut docker = Command::new("docker");
            docker.env(
                "DOCKER_HOST",
                std::env::var_os(MACHINES).unwrap_or_default(),
            );
            docker
        };
        let listed = machines()
            .args(["image", "ls", "--filter"])
            .arg(format!("reference=orchestrator-agent:{CLAUDE_VERSION}-*"))
            .args(["--format", "{{.Repository}}:{{.Tag}}"])
            .output()
            .map_err(|error| Error::io("cannot run `docker`", &error))?;
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        let names: Vec<&str> = names.lines().collect();
        if names.is_empty() {
            return Err(
                Error::new(Exit::Prerequisite, "the agent image is not built yet")
                    .hint("run `orchestrator demo` once, which builds it"),
            );
        }
        output::say(&format!(
            "copying {} into an engine of its own",
            names.join(", ")
        ));
        let failed = |error| Error::io("cannot copy the agent image", &error);
        let mut save = machines()
            .arg("save")
            .args(&names)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let image = save.stdout.take().map_or_else(Stdio::null, Stdio::from);
        let mut load = Command::new("docker");
        let loaded = load
            .args(["--host", &self.host(), "load", "-q"])
            .stdin(image)
            .output();
        let saved = save.wait().map_err(failed)?;
        let loaded = loaded.map_err(failed)?;
        if saved.success() && loaded.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&loaded.stderr).into_owned();
        Err(Error::new(
            Exit::Failure,
            format!("the agent image was not copied: {}", said.trim()),
        ))
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            terminate(child);
            let _ = child.wait();
        }
    }
}

fn terminate(child: &Child) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}
