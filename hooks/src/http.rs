//! One HTTP/1.1 exchange over a Unix socket, with one deadline over everything.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A next task may be long (120 kB went through a Stop hook whole); this is far above.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// What to send. Header values must be free of line breaks; [`Request::header`] drops them.
pub(crate) struct Request {
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn post(path: &'static str, body: Vec<u8>) -> Self {
        Self {
            path,
            headers: Vec::new(),
            body,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        self.headers.push((name, value));
        self
    }

    fn render(&self) -> Vec<u8> {
        let mut text = format!(
            "POST {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n",
            self.path,
            self.body.len()
        );
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// How long to try.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// Pauses between connection attempts; empty: one attempt.
    pub(crate) pauses: &'static [Duration],
    /// For everything together.
    pub(crate) deadline: Duration,
}

/// Sends and waits for the whole answer. Runs on a thread of its own, because connecting to a
/// Unix socket whose backlog is full blocks and takes no timeout.
pub(crate) fn exchange(socket: &Path, request: &Request, patience: Patience) -> io::Result<Answer> {
    let until = Instant::now() + patience.deadline;
    let (tell, told) = mpsc::channel();
    let socket: PathBuf = socket.to_owned();
    let bytes = request.render();
    thread::Builder::new().spawn(move || {
        let _ = tell.send(attempt(&socket, &bytes, patience.pauses, until));
    })?;
    match told.recv_timeout(patience.deadline) {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} ms", patience.deadline.as_millis()),
        )),
    }
}

fn attempt(socket: &Path, bytes: &[u8], pauses: &[Duration], until: Instant) -> io::Result<Answer> {
    let mut stream = connect(socket, pauses, until)?;
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))?;
    // A server that refuses a large body answers and closes early; its answer still counts.
    let sent = stream.write_all(bytes);
    let mut raw = Vec::new();
    let received = (&mut stream).take(MAX_ANSWER_BYTES).read_to_end(&mut raw);
    match parse(&raw) {
        Ok(answer) => Ok(answer),
        Err(unreadable) => {
            sent?;
            received?;
            Err(unreadable)
        }
    }
}

fn connect(socket: &Path, pauses: &[Duration], until: Instant) -> io::Result<UnixStream> {
    let mut pauses = pauses.iter();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) => match pauses.next() {
                Some(pause) if Instant::now() + *pause < until => thread::sleep(*pause),
                _ => return Err(error),
            },
        }
    }
}

/// Splits an answer. A body shorter than its `content-length` is an error: the server died.
fn parse(raw: &[u8]) -> io::Result<Answer> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let end = raw
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or_else(|| broken("the answer ended before its headers did"))?;
    let (head, rest) = raw.split_at(end);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| broken("the answer is not HTTP"))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let answer = Answer {
        status,
        headers,
        body: rest.get(4..).unwrap_or_default().to_vec(),
    };
    if let Some(length) = answer.header("content-length")
        && length.parse() != Ok(answer.body.len())
    {
        return Err(broken("the answer was cut off"));
    }
    if answer.header("transfer-encoding").is_some() {
        return Err(broken(
            "the answer is chunked, which the supervisor never does",
        ));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_into_status_headers_and_body() {
        let answer =
            parse(b"HTTP/1.1 200 OK\r\nX-Bring-Up-To: abc main\r\ncontent-length: 2\r\n\r\n{}")
                .expect("a good answer");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-bring-up-to"), Some("abc main"));
        assert_eq!(answer.body, b"{}");
    }

    #[test]
    fn a_cut_answer_is_an_error_not_a_shorter_answer() {
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{}").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-le").is_err());
        assert!(parse(b"").is_err());
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_err());
    }

    #[test]
    fn a_header_value_cannot_start_a_new_header() {
        let bytes = Request::post("/x", b"body".to_vec())
            .header("x-head", "abc\r\nx-evil: 1")
            .render();
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.contains("x-head: abcx-evil: 1\r\n\r\nbody"), "{text}");
    }

    #[test]
    fn a_missing_socket_fails_at_once_without_pauses() {
        let error = exchange(
            Path::new("/nonexistent/hooks.sock"),
            &Request::post("/x", Vec::new()),
            Patience {
                pauses: &[],
                deadline: Duration::from_secs(30),
            },
        )
        .expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
