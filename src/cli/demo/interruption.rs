//! Ctrl-C and its like, while a stage is set: its supervisor is a process of its own and must be
//! ended with us.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::super::error::Result;
use super::super::{Error, Exit};

/// The signals a person, a terminal or a script ends us with.
pub(in crate::cli) struct Interruption {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interruption {
    pub(in crate::cli) fn install() -> Result<Self> {
        let on = |kind| {
            signal(kind).map_err(|error| Error::io("cannot install signal handlers", &error))
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Until one of them comes.
    pub(in crate::cli) async fn came(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    pub(in crate::cli) fn error() -> Error {
        Error::new(Exit::Failure, "interrupted")
    }
}
