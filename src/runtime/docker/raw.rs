//! Terminals as plain bytes, past bollard.
//!
//! bollard decodes these two streams by looking at each chunk's first byte: a terminal that
//! prints a NUL is taken for a frame header, and a log line without a newline is held back for
//! ever. A full-screen program does both. So the two requests are written here by hand, as
//! HTTP/1.0, where a body ends with the connection and is not cut in chunks.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

use super::error::{from_io, from_status, too_late};
use crate::ports::{AttachedTerminal, ErrorKind, PortError, PortResult};

/// The engine answers these at once.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// The engine's heads are a few hundred bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest error text read, in bytes.
const MAX_ERROR_BYTES: u64 = 16 * 1024;

/// `Runtime::attach`: output from now on, and input. The stream ends with the container.
pub(super) async fn attach(socket: &Path, name: &str) -> PortResult<AttachedTerminal> {
    let attempt = format!("attaching to container {name}");
    let target = format!(
        "/containers/{}/attach?stream=1&stdin=1&stdout=1&stderr=1",
        path_part(name)?
    );
    let (first, connection) = open(socket, "POST", &target, &attempt).await?;
    let (read, write) = connection.into_split();
    Ok(AttachedTerminal {
        output: output(first, read, attempt),
        input: Box::pin(write),
    })
}

/// `Runtime::logs`.
pub(super) async fn logs(
    socket: &Path,
    name: &str,
    tail: Option<usize>,
    follow: bool,
) -> PortResult<BoxStream<'static, PortResult<Bytes>>> {
    let attempt = format!("reading the log of container {name}");
    let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let target = format!(
        "/containers/{}/logs?stdout=1&stderr=1&follow={}&tail={tail}",
        path_part(name)?,
        u8::from(follow)
    );
    let (first, connection) = open(socket, "GET", &target, &attempt).await?;
    Ok(output(first, connection, attempt))
}

fn output<R>(first: Bytes, read: R, attempt: String) -> BoxStream<'static, PortResult<Bytes>>
where
    R: tokio::io::AsyncRead + Send + Unpin + 'static,
{
    let first = stream::iter((!first.is_empty()).then_some(Ok(first)));
    let rest =
        ReaderStream::new(read).map(move |chunk| chunk.map_err(|error| from_io(&attempt, error)));
    first.chain(rest).boxed()
}

/// Sends the request and reads the head; returns what of the body came with it.
async fn open(
    socket: &Path,
    method: &str,
    target: &str,
    attempt: &str,
) -> PortResult<(Bytes, UnixStream)> {
    let exchange = async {
        let mut connection = UnixStream::connect(socket).await?;
        let request =
            format!("{method} {target} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut received = Vec::with_capacity(1024);
        loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                let body = received.split_off(end + 4);
                let head = String::from_utf8_lossy(&received).into_owned();
                return Ok((head, body, connection));
            }
            if received.len() > MAX_HEAD_BYTES || connection.read_buf(&mut received).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
    };
    let (head, mut body, mut connection) = tokio::time::timeout(HEAD_DEADLINE, exchange)
        .await
        .map_err(|_| too_late(attempt, HEAD_DEADLINE.as_secs()))?
        .map_err(|error| from_io(attempt, error))?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse::<u16>().ok())
        .ok_or_else(|| {
            PortError::new(
                ErrorKind::Broken,
                format!("{attempt}: the engine did not answer in HTTP"),
            )
        })?;
    if (200..300).contains(&status) || status == 101 {
        return Ok((Bytes::from(body), connection));
    }
    let read = (&mut connection)
        .take(MAX_ERROR_BYTES)
        .read_to_end(&mut body)
        .await;
    read.map_err(|error| from_io(attempt, error))?;
    Err(from_status(attempt, status, &message(&body)))
}

/// The engine's errors are `{"message": "..."}`.
fn message(body: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| Some(value.get("message")?.as_str()?.to_owned()))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

/// The name goes into a request line, so it may hold only what the engine allows in names.
fn path_part(name: &str) -> PortResult<&str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !name.is_empty() && name.chars().all(allowed) {
        return Ok(name);
    }
    Err(PortError::new(
        ErrorKind::Refused,
        format!("{name:?} is not a container's name"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_smuggle_a_request() {
        assert!(path_part("orchestrator-demo-worker-1-3").is_ok());
        for name in ["", "a/b", "a b", "a\r\nX: y", "a?b"] {
            assert_eq!(path_part(name).unwrap_err().kind, ErrorKind::Refused);
        }
    }

    #[test]
    fn an_error_body_is_read_with_or_without_json() {
        assert_eq!(
            message(br#"{"message":"No such container: x"}"#),
            "No such container: x"
        );
        assert_eq!(message(b"plain"), "plain");
    }
}
