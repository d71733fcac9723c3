//! What gates printed, kept: one bounded file for each gate that was run, both its tries in it.

use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::Timestamp;
use crate::model::gate::{GateRecord, LoggedGate};

/// The newest logs that are kept.
pub const LOGS_KEPT: usize = 200;

/// Of a log, the first bytes that are written as they come, and the last ones that are written at the
/// end; what is between is left out. Together at most 1 GiB for all that are kept.
const HEAD: u64 = 4 << 20;
const REST: usize = 1 << 20;
/// Of a try, what its tail is made from, in bytes.
const RECENT: usize = 16 << 10;

pub(super) struct Logs {
    directory: PathBuf,
}

impl Logs {
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        Ok(Self { directory })
    }

    /// A new log and its name, which sorts by time.
    pub(super) fn begin(&self, now: Timestamp, gate: &str) -> io::Result<(String, LogWriter)> {
        let second = jiff::Timestamp::from_millisecond(now.0)
            .unwrap_or_default()
            .strftime("%Y%m%d-%H%M%S");
        // Two in one second: a gate that was known to fail at once, tried again.
        for number in 1_u32.. {
            let id = match number {
                1 => format!("{second}-{gate}"),
                _ => format!("{second}-{gate}-{number}"),
            };
            let path = self.directory.join(format!("{id}.log"));
            match File::create_new(&path) {
                Ok(file) => return Ok((id, LogWriter::new(file))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Lists a log with what came of its gate, and removes the oldest of too many.
    pub(super) fn keep(&self, at: Timestamp, record: &GateRecord) -> io::Result<()> {
        if !record.log.is_empty() {
            let run = LoggedGate {
                at,
                record: record.clone(),
            };
            let path = self.directory.join(format!("{}.json", record.log));
            replace(&path, &serde_json::to_vec(&run)?)?;
        }
        let mut ids = ids(&self.directory)?;
        let too_many = ids.len().saturating_sub(LOGS_KEPT);
        for id in ids.drain(..too_many) {
            for ending in ["log", "json"] {
                match fs::remove_file(self.directory.join(format!("{id}.{ending}"))) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Writes a file of ours whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Of all logs, oldest first.
fn ids(directory: &Path) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".log")) {
            ids.push(id.to_owned());
        }
    }
    ids.sort();
    Ok(ids)
}

/// What is kept in a `gates` directory, newest first. One whose gate still runs is not among them.
pub fn logged_runs(gates: &Path) -> io::Result<Vec<LoggedGate>> {
    let directory = gates.join("log");
    let ids = match ids(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        ids => ids?,
    };
    let read = |id: &String| {
        let bytes = fs::read(directory.join(format!("{id}.json"))).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    Ok(ids.iter().rev().filter_map(read).collect())
}

/// A log by its name; `None` when there is none.
pub fn read_log(gates: &Path, id: &str) -> io::Result<Option<Vec<u8>>> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if id.is_empty() || !id.chars().all(plain) {
        return Ok(None);
    }
    match fs::read(gates.join("log").join(format!("{id}.log"))) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A log that is being written. What cannot be written is left out: it must not end the gate.
pub(super) struct LogWriter(Mutex<Writing>);

struct Writing {
    file: File,
    written: u64,
    /// What comes after [`HEAD`], the newest of it.
    rest: VecDeque<u8>,
    left_out: u64,
    /// The newest of this try.
    recent: VecDeque<u8>,
    /// The last byte was no line end.
    within_line: bool,
}

impl LogWriter {
    fn new(file: File) -> Self {
        Self(Mutex::new(Writing {
            file,
            written: 0,
            rest: VecDeque::new(),
            left_out: 0,
            recent: VecDeque::new(),
            within_line: false,
        }))
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin_try(&self) {
        self.writing().recent.clear();
    }

    /// What the gate prints. A few kilobytes to a local file at a time.
    pub(super) fn write(&self, bytes: &[u8]) {
        let mut writing = self.writing();
        writing.write(bytes);
        push(&mut writing.recent, bytes, RECENT);
    }

    /// A line of ours.
    pub(super) fn note(&self, text: &str) {
        self.writing().note(text);
    }

    /// The newest bytes of this try.
    pub(super) fn recent(&self) -> Vec<u8> {
        self.writing().recent.iter().copied().collect()
    }

    /// The end, with a last line of ours.
    pub(super) fn finish(self, text: &str) {
        let mut writing = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        writing.note(text);
        let rest: Vec<u8> = writing.rest.drain(..).collect();
        let left_out = match writing.left_out {
            0 => String::new(),
            bytes => format!("\n[orchestrator: {bytes} bytes are left out here]\n"),
        };
        let done = writing
            .file
            .write_all(left_out.as_bytes())
            .and_then(|()| writing.file.write_all(&rest));
        if let Err(error) = done {
            tracing::warn!(%error, "the end of a gate's log could not be written");
        }
    }
}

impl Writing {
    fn write(&mut self, bytes: &[u8]) {
        let room = usize::try_from(HEAD.saturating_sub(self.written)).unwrap_or(usize::MAX);
        let (now, later) = bytes.split_at(bytes.len().min(room));
        if self.file.write_all(now).is_err() {
            self.left_out += now.len() as u64;
        }
        self.written += now.len() as u64;
        self.left_out += push(&mut self.rest, later, REST);
        if let Some(last) = bytes.last() {
            self.within_line = *last != b'\n';
        }
    }

    fn note(&mut self, text: &str) {
        let line_end = if self.within_line { "\n" } else { "" };
        self.write(format!("{line_end}[orchestrator: {text}]\n").as_bytes());
    }
}

/// Keeps the newest `most` bytes; how many went.
fn push(ring: &mut VecDeque<u8>, bytes: &[u8], most: usize) -> u64 {
    ring.extend(bytes);
    let gone = ring.len().saturating_sub(most);
    ring.drain(..gone);
    gone as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CommitId;
    use crate::model::gate::GateOutcome;

    const NOW: Timestamp = Timestamp(1_795_273_200_000);

    fn record(log: &str) -> GateRecord {
        GateRecord {
            name: "test".into(),
            outcome: GateOutcome::Failed,
            flaky: false,
            cached: false,
            commit: CommitId::new("c"),
            tree: "t".into(),
            milliseconds: 1,
            log: log.into(),
            tail: String::new(),
        }
    }

    fn logs() -> (tempfile::TempDir, Logs) {
        let root = tempfile::tempdir().unwrap();
        let logs = Logs::open(root.path().join("log")).unwrap();
        (root, logs)
    }

    #[test]
    fn a_log_has_its_beginning_and_its_end_and_says_what_is_missing() {
        let (root, logs) = logs();
        let (id, log) = logs.begin(NOW, "test").unwrap();
        log.write(b"first line\n");
        for _ in 0..7 {
            log.write(&vec![b'x'; 1 << 20]);
        }
        log.write(b"\nlast line");
        assert!(log.recent().ends_with(b"x\nlast line"));
        log.begin_try();
        assert!(log.recent().is_empty());
        log.finish("it failed");
        let text = read_log(root.path(), &id).unwrap().unwrap();
        assert!(text.starts_with(b"first line\n"));
        assert!(text.ends_with(b"\nlast line\n[orchestrator: it failed]\n"));
        let note = b"bytes are left out here";
        assert!(text.windows(note.len()).any(|bytes| bytes == note));
        assert!(text.len() as u64 <= HEAD + REST as u64 + 200);
    }

    #[test]
    fn the_newest_are_kept_and_found_again() {
        let (root, logs) = logs();
        for number in 0..(LOGS_KEPT as i64 + 3) {
            let at = Timestamp(NOW.0 + number * 1000);
            let (id, log) = logs.begin(at, "test").unwrap();
            log.finish("done");
            logs.keep(at, &record(&id)).unwrap();
        }
        let runs = logged_runs(root.path()).unwrap();
        assert_eq!(runs.len(), LOGS_KEPT);
        assert!(runs[0].at > runs[1].at);
        let files = fs::read_dir(root.path().join("log")).unwrap().count();
        assert_eq!(files, 2 * LOGS_KEPT);
    }

    #[test]
    fn two_of_one_second_have_names_of_their_own() {
        let (root, logs) = logs();
        let (first, _) = logs.begin(NOW, "test").unwrap();
        let (second, _) = logs.begin(NOW, "test").unwrap();
        assert_ne!(first, second);
        // Neither is listed before it has ended.
        assert_eq!(logged_runs(root.path()).unwrap(), []);
        logs.keep(NOW, &record(&second)).unwrap();
        fs::write(root.path().join(format!("log/{first}.json")), "{").unwrap();
        assert_eq!(logged_runs(root.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_name_that_is_none_leads_nowhere() {
        let (root, _logs) = logs();
        fs::write(root.path().join("secret.log"), "x").unwrap();
        for id in ["../secret", "", "a/b", "nothing"] {
            assert_eq!(read_log(root.path(), id).unwrap(), None, "{id}");
        }
        let none = tempfile::tempdir().unwrap();
        assert_eq!(logged_runs(none.path()).unwrap(), []);
    }
}
