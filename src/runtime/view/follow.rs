//! The loop: find the agent's newest container, show it, and look again when it is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::attachment::{Beginning, End, copy_input, copy_output, drain, keep_size};
use super::screen::Screen;
use super::watcher::Watcher;
use super::{TerminalSize, ViewOptions};
use crate::ports::{
    AttachedTerminal, ErrorKind, ObservedContainer, PortError, PortResult, Runtime,
};

/// How long the engine may take to list or to attach.
const DEADLINE: Duration = Duration::from_secs(15);
/// An attachment that lasted so long was a real one: the next wait is short again.
const LASTING: Duration = Duration::from_secs(2);
/// How long a terminal that takes no bytes may hold up our end.
const CLOSING: Duration = Duration::from_secs(1);

/// Where to show an agent: a person's terminal, or streams in memory.
pub struct Terminal<I, O> {
    /// Keys. Its end, or an error, ends the view.
    pub input: I,
    pub output: O,
    pub size: watch::Receiver<TerminalSize>,
}

/// Shows the agent on `terminal` until `stop` is cancelled or the terminal is gone; both are `Ok`,
/// and nothing else ends it. Keys typed while no container runs are dropped: a line typed at an
/// agent that is away must not reach the next one.
pub async fn follow<I, O>(
    runtime: Arc<dyn Runtime>,
    options: &ViewOptions,
    terminal: Terminal<I, O>,
    stop: CancellationToken,
) -> PortResult<()>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
{
    let mut follower = Follower {
        watcher: Watcher::new(Arc::clone(&runtime), options),
        runtime,
        options,
        keyboard: terminal.input,
        screen: Screen::new(terminal.output),
        size: terminal.size,
        wait: options.first_wait,
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follower.run() => {}
    }
    // On a terminal that is gone, or hangs, there is nothing to tidy.
    let _ = timeout(CLOSING, follower.screen.close()).await;
    Ok(())
}

struct Follower<'a, I, O> {
    runtime: Arc<dyn Runtime>,
    options: &'a ViewOptions,
    watcher: Watcher,
    keyboard: I,
    screen: Screen<O>,
    size: watch::Receiver<TerminalSize>,
    /// The next wait.
    wait: Duration,
}

impl<I: AsyncRead + Unpin, O: AsyncWrite + Unpin> Follower<'_, I, O> {
    /// Returns when our terminal is gone.
    async fn run(&mut self) {
        let mut left: Option<String> = None;
        loop {
            self.watcher.listen().await;
            let agent = &self.options.agent;
            let status = match self.newest().await {
                // Its stream ended, but the engine still calls it running: dying, most likely.
                Ok(Some(found)) if left.take().as_ref() == Some(&found.id) => {
                    format!("orchestrator: the terminal of {agent} was closed; reconnecting...")
                }
                Ok(Some(found)) => match self.attach(&found).await {
                    Ok(attached) => {
                        if self.show(&found, attached).await == End::Ours {
                            return;
                        }
                        left = Some(found.id);
                        continue;
                    }
                    Err(_) => format!("orchestrator: cannot reach {agent} yet; waiting..."),
                },
                Ok(None) => format!("orchestrator: {agent} is not running; waiting..."),
                Err(_) => {
                    // That is why the stream ended; the container may well run.
                    left = None;
                    format!(
                        "orchestrator: the container engine is away, {agent} may well be running; waiting..."
                    )
                }
            };
            if self.pause(&status).await == End::Ours {
                return;
            }
        }
    }

    async fn newest(&mut self) -> PortResult<Option<ObservedContainer>> {
        within(
            self.runtime
                .newest_running(&self.options.project, &self.options.agent),
        )
        .await
    }

    async fn attach(&mut self, container: &ObservedContainer) -> PortResult<AttachedTerminal> {
        within(self.runtime.attach(&container.name)).await
    }

    async fn show(&mut self, container: &ObservedContainer, attached: AttachedTerminal) -> End {
        let start = Instant::now();
        if self.screen.attach().await.is_err() {
            return End::Ours;
        }
        let (runtime, beginning) = (self.runtime.as_ref(), Beginning::default());
        let end = tokio::select! {
            end = copy_output(attached.output, &mut self.screen, &beginning) => end,
            end = copy_input(&mut self.keyboard, attached.input) => end,
            () = self.watcher.over(container.incarnation) => End::Theirs,
            never = keep_size(runtime, &container.name, &mut self.size, &beginning) => match never {},
        };
        if start.elapsed() >= LASTING {
            self.wait = self.options.first_wait;
        }
        match self.screen.detach().await {
            Ok(()) => end,
            Err(_) => End::Ours,
        }
    }

    /// Says why, and waits: for an event, or for a while.
    async fn pause(&mut self, status: &str) -> End {
        let columns = self.size.borrow().columns;
        if self.screen.status(status, columns).await.is_err() {
            return End::Ours;
        }
        let wait = self.wait;
        self.wait = wait.saturating_mul(2).min(self.options.longest_wait);
        tokio::select! {
            // First the keys: what was typed before the wait ends must not outlive it.
            biased;
            end = drain(&mut self.keyboard) => end,
            () = self.watcher.started() => End::Theirs,
            () = sleep(wait) => End::Theirs,
        }
    }
}

async fn within<T>(call: impl Future<Output = PortResult<T>>) -> PortResult<T> {
    timeout(DEADLINE, call).await.unwrap_or_else(|_| {
        Err(PortError::new(
            ErrorKind::Transient,
            format!(
                "the container engine did not answer within {} s",
                DEADLINE.as_secs()
            ),
        ))
    })
}
