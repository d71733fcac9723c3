//! The stage's supervisor: a process of its own, as `up -d` starts it, so that it can be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use super::super::error::Result;
use super::super::{Error, Exit, up};
use crate::client::Client;
use crate::daemon::FleetPaths;

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(50);

/// One supervisor at a time. Dropping it kills what still runs; its agents outlive it.
pub(in crate::cli) struct SupervisorProcess {
    config: PathBuf,
    state: PathBuf,
    /// Arguments beside the configuration.
    more: Vec<String>,
    client: Client,
    child: Option<Child>,
}

impl SupervisorProcess {
    /// Not started yet.
    pub(in crate::cli) fn of(config: &Path, state: &Path, more: Vec<String>) -> Result<Self> {
        Ok(Self {
            config: config.to_owned(),
            state: state.to_owned(),
            more,
            client: Client::unix(&FleetPaths::new(state).control_socket())?,
            child: None,
        })
    }

    /// Starts it and waits until its control socket answers. What it says meanwhile, for example
    /// while it builds the image, is shown.
    pub(in crate::cli) async fn start(&mut self, limit: Duration) -> Result<()> {
        let log = up::start_log(&self.state)?;
        self.child = Some(up::start(&self.config, &self.more, &log)?);
        let mut relay = up::Relay::new(log);
        let deadline = Instant::now() + limit;
        loop {
            if self.client.health().await.is_ok() {
                return Ok(());
            }
            relay.forward();
            if let Some(status) = self.status()? {
                relay.forward();
                let exit = status.code().map_or(Exit::Failure, Exit::from_code);
                return Err(Error::new(exit, "the supervisor ended while it started"));
            }
            if Instant::now() > deadline {
                let what = format!("the supervisor is not up after {} s", limit.as_secs());
                return Err(Error::new(Exit::TimedOut, what));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Was it started, and not killed by us since?
    pub(in crate::cli) fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL; returns when the process is gone.
    pub(in crate::cli) fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child
            .kill()
            .and_then(|()| child.wait())
            .map_err(|error| Error::io("cannot kill the supervisor", &error))?;
        Ok(())
    }

    /// How it ended, if it has.
    pub(in crate::cli) fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .as_mut()
            .map_or(Ok(None), Child::try_wait)
            .map_err(|error| Error::io("cannot look after the supervisor's process", &error))
    }

    /// Waits for its end, for ever or so long.
    pub(in crate::cli) async fn until_ended(&mut self, limit: Option<Duration>) -> Result<()> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        while self.child.is_some() {
            if let Some(status) = self.status()? {
                self.child = None;
                if status.success() {
                    return Ok(());
                }
                let what = format!("the supervisor ended badly ({status})");
                return Err(Error::new(Exit::Failure, what));
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Err(Error::new(Exit::TimedOut, "the supervisor does not end")
                    .hint("end it with `orchestrator down`"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for SupervisorProcess {
    fn drop(&mut self) {
        // Nobody could be told of an error here.
        let _ = self.kill();
    }
}
