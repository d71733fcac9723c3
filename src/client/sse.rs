//! Reading server-sent events (the WHATWG HTML standard, "Server-sent events"), as far as our
//! own server sends them.

/// Larger than any snapshot of a fleet that fits one machine; beyond it the stream is broken.
const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// One event with data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    pub(super) event: String,
    pub(super) data: String,
}

/// The event is larger than any of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {MAX_EVENT_BYTES} bytes")]
pub(super) struct TooLarge;

/// Takes bytes as they come and gives whole events.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    line: Vec<u8>,
    event: SseEvent,
    has_data: bool,
}

impl SseParser {
    /// The events that `bytes` completes. Comments and fields unknown to us are skipped.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, TooLarge> {
        let mut done = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() + self.event.data.len() > MAX_EVENT_BYTES {
                    return Err(TooLarge);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line));
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.has_data) {
                    done.push(event);
                }
            } else {
                self.field(&line);
            }
        }
        Ok(done)
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event.event),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text = b"event: status\nid: 7\ndata: {\"a\":\ndata: 1}\n\n: keep\n\ndata: x\r\n\r\n";
        for cut in 0..text.len() {
            let mut parser = SseParser::default();
            let mut events = parser.feed(&text[..cut]).unwrap();
            events.extend(parser.feed(&text[cut..]).unwrap());
            assert_eq!(events.len(), 2, "cut at {cut}");
            assert_eq!(events[0].event, "status");
            assert_eq!(events[0].data, "{\"a\":\n1}");
            assert_eq!(events[1].data, "x");
            assert_eq!(events[1].event, "");
        }
    }

    #[test]
    fn an_endless_line_is_an_error_and_no_endless_memory() {
        let mut parser = SseParser::default();
        let chunk = vec![b'x'; 1024 * 1024];
        let mut result = Ok(Vec::new());
        for _ in 0..17 {
            result = parser.feed(&chunk);
        }
        assert_eq!(result, Err(TooLarge));
    }
}
