//! Serving until told to end.

use std::io;
use std::time::Duration;

use axum::serve::Listener;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::UnixSocket;
use super::limits::Limited;
use super::stream::Closing;

/// How long open requests may take to finish once the end was asked for.
const ENDING_GRACE: Duration = Duration::from_secs(5);

/// Serves on the control socket until `shutdown`, then finishes open requests (5 s at most) and
/// removes the socket's file.
pub async fn serve_unix(
    socket: UnixSocket,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let UnixSocket { listener, file } = socket;
    let result = serve(Limited::new(listener), router, shutdown).await;
    drop(file);
    result
}

/// Serves on a TCP port until `shutdown`. The router must have been made with a token: this
/// function does not look.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve(Limited::new(listener), router, shutdown).await
}

pub(super) async fn serve<L>(
    listener: Limited<L>,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let router = router.layer(Extension(Closing(shutdown.clone())));
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let too_late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(ENDING_GRACE).await;
    };
    tokio::select! {
        result = serving.into_future() => result,
        () = too_late => {
            tracing::warn!("requests were still open {} s after the end", ENDING_GRACE.as_secs());
            Ok(())
        }
    }
}
