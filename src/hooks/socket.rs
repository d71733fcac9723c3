//! One listening Unix socket per instance, in a directory that is mounted into it read-only.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use rustix::fs::{AtFlags, Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The name in the directory; the helper looks for it there.
pub const SOCKET_NAME: &str = "hooks.sock";
const NEW_NAME: &str = ".hooks.sock.new";
/// An instance that opens more waits for itself, and leaves the daemon its file descriptors.
const MAX_CONNECTIONS: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
#[error("listen for hooks in {directory}")]
pub struct ListenError {
    pub directory: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Binds `directory/hooks.sock` and serves `router` on it until `stop`. The socket is there when
/// this returns. Drain the spool before, so that older events come first.
///
/// The directory must exist and belong to the caller alone; an old socket in it is replaced
/// without a moment in which there is none. After `stop` running requests are finished.
pub fn serve_socket(
    directory: &Path,
    router: Router,
    stop: CancellationToken,
) -> Result<JoinHandle<io::Result<()>>, ListenError> {
    let listener = bind(directory).map_err(|source| ListenError {
        directory: directory.to_owned(),
        source,
    })?;
    let bounded = Bounded {
        listener,
        slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
    };
    Ok(tokio::spawn(async move {
        axum::serve(bounded, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }))
}

/// Under a temporary name and renamed. Through the directory's descriptor, because a socket's path
/// may have no more than 107 bytes and state directories are often deeper.
fn bind(directory: &Path) -> io::Result<UnixListener> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::empty())?;
    match rustix::fs::unlinkat(&fd, NEW_NAME, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let listener = UnixListener::bind(short.join(NEW_NAME))?;
    // The container's uid must be able to connect; the directory keeps everyone else out.
    std::fs::set_permissions(short.join(NEW_NAME), PermissionsExt::from_mode(0o666))?;
    rustix::fs::renameat(&fd, NEW_NAME, &fd, SOCKET_NAME)?;
    Ok(listener)
}

/// A listener with a limit on open connections.
struct Bounded {
    listener: UnixListener,
    slots: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Before accepting: who is too many waits in the backlog.
            let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    return (
                        Connection {
                            stream,
                            _slot: slot,
                        },
                        address,
                    );
                }
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to come back.
                    tracing::warn!(%error, "cannot accept a hook connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that gives its slot back when it ends.
struct Connection {
    stream: UnixStream,
    _slot: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
