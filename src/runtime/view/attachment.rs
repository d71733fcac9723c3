//! One attachment: bytes both ways, and the size, until one side ends.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::TerminalSize;
use super::screen::Screen;
use crate::ports::{PortResult, Runtime};

/// Read at once from the terminal, in bytes.
const CHUNK: usize = 16 * 1024;

/// How long the engine may take to change a size.
const RESIZE_DEADLINE: Duration = Duration::from_secs(10);
/// A container that has just started may not have its terminal yet: so often it is tried again,
const RESIZE_TRIES: u32 = 10;
/// and after so long, times the number of the try.
const RESIZE_WAIT: Duration = Duration::from_millis(50);

/// When the application is made to redraw, from the attachment on, and how long it has the other size
/// then. Node looks at the size when it gets round to the signal: two changes at once look to it like
/// none, and a busy machine needs longer (seen: 60 ms were not enough, and the screen stayed in
/// pieces). So it is made to twice more.
const REDRAWS: [(Duration, Duration); 3] = [
    (Duration::ZERO, Duration::from_millis(60)),
    (Duration::from_secs(2), Duration::from_millis(300)),
    (Duration::from_secs(5), Duration::from_secs(1)),
];

/// Why an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The container's side: it ended, was replaced, or the engine went away.
    Theirs,
    /// Our own terminal is gone.
    Ours,
}

/// Shows what the container prints. An error of the stream is its end.
pub(super) async fn copy_output<O: AsyncWrite + Unpin>(
    mut output: BoxStream<'static, PortResult<Bytes>>,
    screen: &mut Screen<O>,
) -> End {
    while let Some(Ok(bytes)) = output.next().await {
        if screen.write(&bytes).await.is_err() {
            return End::Ours;
        }
    }
    End::Theirs
}

/// Every key goes to the container, whatever it is.
pub(super) async fn copy_input<I: AsyncRead + Unpin>(
    keyboard: &mut I,
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
) -> End {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match keyboard.read(&mut buffer).await {
            Ok(0) | Err(_) => return End::Ours,
            Ok(count) => count,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if input.write_all(bytes).await.is_err() || input.flush().await.is_err() {
            // The container takes no keys any more; its output says when it is really over.
            return drain(keyboard).await;
        }
    }
}

/// Reads keys that nobody can take until the terminal is gone.
pub(super) async fn drain<I: AsyncRead + Unpin>(keyboard: &mut I) -> End {
    let mut buffer = vec![0; CHUNK];
    while keyboard
        .read(&mut buffer)
        .await
        .is_ok_and(|count| count > 0)
    {}
    End::Ours
}

/// Gives the container our size, first one column off so that it redraws, and follows ours.
pub(super) async fn keep_size(
    runtime: &dyn Runtime,
    container: &str,
    sizes: &mut watch::Receiver<TerminalSize>,
) -> Infallible {
    for (after, between) in REDRAWS {
        if !after.is_zero() {
            let _time_is_up = timeout(after, follow(runtime, container, sizes)).await;
        }
        let size = *sizes.borrow_and_update();
        let columns = match size.columns {
            0 | 1 => size.columns.saturating_add(1),
            columns => columns - 1,
        };
        if resize(runtime, container, TerminalSize { columns, ..size }).await {
            sleep(between).await;
        }
        let size = *sizes.borrow_and_update();
        resize(runtime, container, size).await;
    }
    follow(runtime, container, sizes).await
}

/// Each change of our size becomes one of the container's.
async fn follow(
    runtime: &dyn Runtime,
    container: &str,
    sizes: &mut watch::Receiver<TerminalSize>,
) -> Infallible {
    while sizes.changed().await.is_ok() {
        let size = *sizes.borrow_and_update();
        resize(runtime, container, size).await;
    }
    pending().await
}

async fn resize(runtime: &dyn Runtime, container: &str, size: TerminalSize) -> bool {
    if size.columns == 0 || size.rows == 0 {
        return false;
    }
    for attempt in 1..=RESIZE_TRIES {
        let change = runtime.resize(container, size.columns, size.rows);
        if matches!(timeout(RESIZE_DEADLINE, change).await, Ok(Ok(()))) {
            return true;
        }
        sleep(RESIZE_WAIT * attempt).await;
    }
    false
}
