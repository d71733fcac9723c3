//! One attachment: bytes both ways, and the size, until one side ends.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
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
/// pieces). So it is made to twice more, unless its [`Beginning`] was seen.
const REDRAWS: [(Duration, Duration); 3] = [
    (Duration::ZERO, Duration::from_millis(60)),
    (Duration::from_secs(2), Duration::from_millis(300)),
    (Duration::from_secs(5), Duration::from_secs(1)),
];

/// What an application says when it sets its terminal up, before it draws anything (bracketed paste on;
/// observed with Claude Code 2.1.197). Who has seen that has seen all of its screen.
const SET_UP: &[u8] = b"\x1b[?2004h";

/// Whether the beginning of what the application shows was seen. Then it need not draw it again: each
/// redraw costs an application that is starting, and all that start beside it, processor time.
#[derive(Default)]
pub(super) struct Beginning(AtomicBool);

impl Beginning {
    pub(super) fn was_seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// `tail`: the end of what came before, of which `bytes` are the next.
    fn look(&self, tail: &mut Vec<u8>, bytes: &[u8]) {
        if self.was_seen() {
            return;
        }
        tail.extend_from_slice(bytes);
        let seen = tail.windows(SET_UP.len()).any(|part| part == SET_UP);
        self.0.store(seen, Ordering::Relaxed);
        tail.drain(..tail.len().saturating_sub(SET_UP.len() - 1));
    }
}

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
    beginning: &Beginning,
) -> End {
    let mut tail = Vec::new();
    while let Some(Ok(bytes)) = output.next().await {
        beginning.look(&mut tail, &bytes);
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

/// Gives the container our size, first one column off so that it redraws where it must, and follows
/// ours.
pub(super) async fn keep_size(
    runtime: &dyn Runtime,
    container: &str,
    sizes: &mut watch::Receiver<TerminalSize>,
    beginning: &Beginning,
) -> Infallible {
    for (after, between) in REDRAWS {
        if !after.is_zero() {
            let _time_is_up = timeout(after, follow(runtime, container, sizes)).await;
        }
        if beginning.was_seen() {
            break;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_seen_wherever_it_is_cut() {
        let said = b"\x1b7\x1b[r\x1b8\x1b[?25l\x1b[?2004h\x1b[?1004h";
        for cut in 0..said.len() {
            let (beginning, mut tail) = (Beginning::default(), Vec::new());
            beginning.look(&mut tail, &said[..cut]);
            beginning.look(&mut tail, &said[cut..]);
            assert!(beginning.was_seen(), "{cut}");
        }
    }

    #[test]
    fn a_screen_that_is_drawn_on_has_no_beginning() {
        let (beginning, mut tail) = (Beginning::default(), Vec::new());
        for _ in 0..1000 {
            beginning.look(&mut tail, b"\x1b[?2026h\x1b[2Kworking\x1b[?2026l");
        }
        assert!(!beginning.was_seen());
        assert!(tail.len() < SET_UP.len());
    }
}
