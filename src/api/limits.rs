//! A bound on open connections and on how long one may be silent.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// More than a person, a dashboard and a few scripts open at once.
pub(super) const MAX_CONNECTIONS: usize = 128;

/// Longer than the keep-alive of a stream and than a request's deadline.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(90);

/// A listener that takes the next connection only when one of `MAX_CONNECTIONS` places is free.
pub(super) struct Limited<L> {
    listener: L,
    places: Arc<Semaphore>,
    silence: Duration,
}

impl<L: Listener> Limited<L> {
    pub(super) fn new(listener: L) -> Self {
        Self::with(listener, MAX_CONNECTIONS, MAX_SILENCE)
    }

    pub(super) fn with(listener: L, connections: usize, silence: Duration) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(connections)),
            silence,
        }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = LimitedIo<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; without a place the connection is still served.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        let io = LimitedIo {
            io,
            silence: self.silence,
            end: Box::pin(tokio::time::sleep(self.silence)),
            _place: place,
        };
        (io, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends with an error after `silence` without a byte in either direction.
pub(super) struct LimitedIo<I> {
    io: I,
    silence: Duration,
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<I> LimitedIo<I> {
    fn heard(&mut self) {
        let end = Instant::now() + self.silence;
        self.end.as_mut().reset(end);
    }

    fn silent_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(cx).is_ready()
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for LimitedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                self.heard();
                Poll::Ready(result)
            }
            Poll::Pending if self.silent_too_long(cx) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for LimitedIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, bytes) {
            Poll::Ready(result) => {
                self.heard();
                Poll::Ready(result)
            }
            Poll::Pending if self.silent_too_long(cx) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
