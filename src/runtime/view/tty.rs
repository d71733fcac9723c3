//! Our own terminal: raw mode, size, and bytes without a thread per direction.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::TerminalSize;
use crate::ports::{ErrorKind, PortError, PortResult};

/// One direction of the terminal.
pub(super) struct Tty(AsyncFd<OwnedFd>);

/// Both directions. Opened anew: not blocking is a property of the open file, and the shell that
/// started us shares the one on standard input.
pub(super) fn open() -> PortResult<(Tty, Tty)> {
    if !isatty(io::stdin()) {
        return Err(PortError::new(
            ErrorKind::Refused,
            "the view needs a terminal to show the agent on",
        )
        .hint("run it in a terminal, or attach to the agent's tmux session"));
    }
    let both = direction(OFlags::RDONLY, Interest::READABLE)
        .and_then(|input| Ok((input, direction(OFlags::WRONLY, Interest::WRITABLE)?)));
    both.map_err(|error| {
        PortError::new(ErrorKind::Broken, "cannot open our own terminal").because(error)
    })
}

#[expect(
    deprecated,
    reason = "the replacement is an unsafe function, for types whose descriptor may change; \
              an OwnedFd that nobody else holds keeps its own"
)]
fn direction(flags: OFlags, interest: Interest) -> io::Result<Tty> {
    Ok(Tty(AsyncFd::with_interest(open_again(flags)?, interest)?))
}

fn open_again(direction: OFlags) -> io::Result<OwnedFd> {
    let flags = direction | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // The first is Linux's; the second is anywhere, but only for a controlling terminal.
    let fd = rustix::fs::open("/proc/self/fd/0", flags, Mode::empty())
        .or_else(|_| rustix::fs::open("/dev/tty", flags, Mode::empty()))?;
    Ok(fd)
}

/// The terminal's size now.
pub(super) fn size() -> TerminalSize {
    tcgetwinsize(io::stdin()).map_or_else(
        |_| TerminalSize::default(),
        |size| TerminalSize {
            columns: size.ws_col,
            rows: size.ws_row,
        },
    )
}

/// Raw mode until dropped: every key, also Ctrl-C, is a byte for the agent.
pub(super) struct RawMode(Termios);

impl RawMode {
    pub(super) fn enter() -> PortResult<Self> {
        let failed = |error: rustix::io::Errno| {
            PortError::new(ErrorKind::Broken, "cannot put the terminal into raw mode")
                .because(error)
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // When the terminal is gone there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

impl AsyncRead for Tty {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd, space)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_not_ready) => {}
            }
        }
    }
}

impl AsyncWrite for Tty {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_not_ready) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
