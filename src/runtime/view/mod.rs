//! The view of an agent: what runs inside its pane.
//!
//! Called by the hidden command `orchestrator view`. Shows the terminal of the agent's newest
//! running container and finds the next one by itself, for ever. Must never end because an agent,
//! or the whole engine, went away; never take a key for itself; never change anything but the
//! size of the container's terminal: that a view is killed is nothing to the agent.

mod attachment;
mod follow;
mod screen;
mod tty;
mod watcher;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::follow::{Terminal, follow};
use crate::model::{AgentId, ProjectId};
use crate::ports::{ErrorKind, PortError, PortResult, Runtime};

/// Whom to show, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewOptions {
    pub project: ProjectId,
    pub agent: AgentId,
    /// The first wait between two looks for a container; doubles up to `longest_wait`. An event
    /// of the engine ends a wait early.
    pub first_wait: Duration,
    pub longest_wait: Duration,
}

impl ViewOptions {
    /// Looks after 250 ms, and in the end every 5 s.
    pub fn new(project: ProjectId, agent: AgentId) -> Self {
        Self {
            project,
            agent,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(5),
        }
    }
}

/// The size of a terminal, in characters. Zero where the terminal does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    pub columns: u16,
    pub rows: u16,
}

/// Shows the agent on our own terminal until SIGHUP, SIGTERM, SIGINT or SIGQUIT, or until the
/// terminal is gone; all of these are `Ok`. Puts the terminal into raw mode and back.
///
/// `Refused` when standard input is no terminal. Runs on any tokio runtime with IO and time; one
/// thread is enough.
pub async fn run(runtime: Arc<dyn Runtime>, options: ViewOptions) -> PortResult<()> {
    let (input, output) = tty::open()?;
    let raw = tty::RawMode::enter()?;
    let (sizes, size) = watch::channel(tty::size());
    let stop = CancellationToken::new();
    let signals = Signals::listen()?;
    let terminal = Terminal {
        input,
        output,
        size,
    };
    let result = tokio::select! {
        result = follow(runtime, &options, terminal, stop.clone()) => result,
        never = signals.forward(&sizes, &stop) => match never {},
    };
    drop(raw);
    result
}

struct Signals {
    window: Signal,
    ends: [Signal; 4],
}

impl Signals {
    fn listen() -> PortResult<Self> {
        let on = |kind| {
            signal(kind).map_err(|error| {
                PortError::new(ErrorKind::Broken, "cannot listen for signals").because(error)
            })
        };
        Ok(Self {
            window: on(SignalKind::window_change())?,
            ends: [
                on(SignalKind::hangup())?,
                on(SignalKind::terminate())?,
                // In raw mode the keyboard sends neither of these; a person's `kill` may.
                on(SignalKind::interrupt())?,
                on(SignalKind::quit())?,
            ],
        })
    }

    async fn forward(
        mut self,
        sizes: &watch::Sender<TerminalSize>,
        stop: &CancellationToken,
    ) -> Infallible {
        let [hangup, terminate, interrupt, quit] = &mut self.ends;
        loop {
            tokio::select! {
                _ = self.window.recv() => {
                    sizes.send_replace(tty::size());
                }
                _ = hangup.recv() => stop.cancel(),
                _ = terminate.recv() => stop.cancel(),
                _ = interrupt.recv() => stop.cancel(),
                _ = quit.recv() => stop.cancel(),
            }
        }
    }
}
