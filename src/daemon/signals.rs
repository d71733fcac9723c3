//! Signals and what they ask for.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::model::{Ending, Request};

use super::handle::{DriverHandle, Input};

/// SIGTERM and SIGHUP detach: an upgrade or a closed terminal never ends the agents. The first
/// Ctrl-C asks for a stop, the second detaches instead of waiting for it.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Installs the handlers. Errors are the operating system's.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Until any of them comes.
    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Turns signals into requests, for ever. `say` tells the person what was asked for.
    pub(super) async fn follow(mut self, driver: DriverHandle, say: impl Fn(&str) + Send) {
        let mut interrupts = 0_u32;
        loop {
            let ending = tokio::select! {
                _ = self.interrupt.recv() => {
                    interrupts += 1;
                    if interrupts == 1 {
                        say("stopping the agents; Ctrl-C again leaves them running and detaches");
                        Ending::Stop
                    } else {
                        say("detaching; agents that still run go on working");
                        Ending::Detach
                    }
                }
                _ = self.terminate.recv() => Ending::Detach,
                _ = self.hangup.recv() => Ending::Detach,
            };
            let (reply, _unread) = tokio::sync::oneshot::channel();
            driver
                .put(Input::Request {
                    request: Request::End { ending },
                    reply,
                })
                .await;
        }
    }
}
