//! Events that could not be delivered, one file each, for the supervisor to read later.
//!
//! A file is complete or not there: written under a temporary name, synced, renamed. Its name
//! begins with the time of the event, so that the order of names is the order of events.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Days of hooks of an agent that nobody supervises: it goes idle after its turn.
pub(crate) const MAX_FILES: usize = 4096;
/// Together.
pub(crate) const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What is kept of an event besides its payload.
pub(crate) struct Envelope<'a> {
    pub(crate) callback: &'a str,
    pub(crate) incarnation: Option<u64>,
    pub(crate) head: Option<&'a str>,
    /// Nanoseconds since the Unix epoch, when the hook ran.
    pub(crate) at_nanos: u128,
    /// As it came. Kept as a JSON *string*: whatever it holds, the file stays valid JSON.
    pub(crate) payload: &'a [u8],
}

/// Keeps an event, or says why it could not.
pub(crate) fn keep(directory: &Path, event: &Envelope<'_>) -> io::Result<()> {
    check_room(directory, event.payload.len() as u64)?;
    let temporary = directory.join(format!(".{}.tmp", event.callback));
    let result = write_synced(&temporary, render(event).as_bytes()).and_then(|()| {
        let name = format!("{:020}-{}.json", event.at_nanos, event.callback);
        fs::rename(&temporary, directory.join(name))
    });
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result?;
    // The rename itself must survive a crash too.
    File::open(directory)?.sync_all()
}

fn check_room(directory: &Path, more: u64) -> io::Result<()> {
    let mut files = 1;
    let mut bytes = more;
    for entry in fs::read_dir(directory)? {
        files += 1;
        bytes = bytes.saturating_add(entry?.metadata().map_or(0, |m| m.len()));
        if files > MAX_FILES || bytes > MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!("the spool is full ({MAX_FILES} events or {MAX_BYTES} bytes)"),
            ));
        }
    }
    Ok(())
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn render(event: &Envelope<'_>) -> String {
    let incarnation = event
        .incarnation
        .map_or_else(|| "null".to_owned(), |n| n.to_string());
    let head = event.head.map_or_else(|| "null".to_owned(), quote);
    format!(
        "{{\"callback\":{},\"incarnation\":{incarnation},\"head\":{head},\"at\":{},\"payload\":{}}}\n",
        quote(event.callback),
        event.at_nanos / 1_000_000,
        quote(&String::from_utf8_lossy(event.payload)),
    )
}

/// A JSON string (RFC 8259, section 7).
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> std::path::PathBuf {
        let path =
            std::env::temp_dir().join(format!("orchestrator-spool-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("directory");
        path
    }

    fn event(payload: &[u8]) -> Envelope<'_> {
        Envelope {
            callback: "11111111-2222-4333-8444-555555555555",
            incarnation: Some(3),
            head: None,
            at_nanos: 1_795_199_865_000_000_001,
            payload,
        }
    }

    #[test]
    fn an_event_becomes_one_complete_file_named_by_time() {
        let path = directory("one");
        keep(&path, &event(b"{\"a\":\"b\n\"}")).expect("room");
        let names: Vec<_> = fs::read_dir(&path)
            .expect("directory")
            .map(|e| e.expect("entry").file_name().into_string().expect("name"))
            .collect();
        assert_eq!(
            names,
            ["01795199865000000001-11111111-2222-4333-8444-555555555555.json"]
        );
        assert_eq!(
            fs::read_to_string(path.join(&names[0])).expect("file"),
            "{\"callback\":\"11111111-2222-4333-8444-555555555555\",\"incarnation\":3,\"head\":null,\
             \"at\":1795199865000,\"payload\":\"{\\\"a\\\":\\\"b\\n\\\"}\"}\n"
        );
        fs::remove_dir_all(path).expect("clean");
    }

    #[test]
    fn a_full_spool_refuses_and_keeps_what_it_has() {
        let path = directory("full");
        for n in 0..MAX_FILES {
            File::create(path.join(format!("{n}"))).expect("file");
        }
        let error = keep(&path, &event(b"{}")).expect_err("full");
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(fs::read_dir(&path).expect("directory").count(), MAX_FILES);
        fs::remove_dir_all(path).expect("clean");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(quote("\u{1b}[0m\t\"\\é"), "\"\\u001b[0m\\u0009\\\"\\\\é\"");
    }
}
