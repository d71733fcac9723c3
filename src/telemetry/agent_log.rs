//! One log per agent, for people: what happened to it, line by line.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{Redactor, RotatingFile, Rotation};
use crate::model::{AgentId, Timestamp};

/// `<state>/log/agents/NAME.log`.
pub fn agent_log_path(state_directory: &Path, agent: &AgentId) -> PathBuf {
    state_directory
        .join("log/agents")
        .join(format!("{agent}.log"))
}

/// Plain lines with a time in UTC, rotated by size, without known secrets.
#[derive(Debug)]
pub struct AgentLog {
    file: RotatingFile,
    redactor: Redactor,
}

impl AgentLog {
    pub fn open(
        state_directory: &Path,
        agent: &AgentId,
        rotation: Rotation,
        redactor: Redactor,
    ) -> io::Result<Self> {
        let file = RotatingFile::open(agent_log_path(state_directory, agent), rotation)?;
        Ok(Self { file, redactor })
    }

    /// Writes `text`; each of its lines gets the time. Control characters (terminal escapes) are
    /// left out, so that reading the log never drives the reader's terminal.
    pub fn write(&mut self, at: Timestamp, text: &str) -> io::Result<()> {
        let clean = self.redactor.redact(text);
        let time = format_time(at);
        let mut out = String::with_capacity(clean.len() + time.len() + 2);
        for line in clean.lines() {
            out.push_str(&time);
            out.push(' ');
            out.extend(line.chars().filter(|c| *c == '\t' || !c.is_control()));
            out.push('\n');
        }
        self.file.write_all(out.as_bytes())
    }
}

/// RFC 3339 in UTC with milliseconds; the bare number for a time no calendar has.
fn format_time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| at.0.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_the_time_and_no_secret_and_no_escape() {
        let state = tempfile::tempdir().unwrap();
        let agent = AgentId::worker(1);
        let redactor = Redactor::new(["sk-secret".to_owned()]);
        let mut log = AgentLog::open(state.path(), &agent, Rotation::default(), redactor).unwrap();
        log.write(
            Timestamp(1_700_000_000_123),
            "first\nkey sk-secret \u{1b}[31mred",
        )
        .unwrap();
        let text = std::fs::read_to_string(state.path().join("log/agents/worker-1.log")).unwrap();
        assert_eq!(
            text,
            "2023-11-14T22:13:20.123Z first\n2023-11-14T22:13:20.123Z key [redacted] [31mred\n"
        );
    }

    #[test]
    fn a_time_out_of_range_is_written_as_its_number() {
        assert_eq!(format_time(Timestamp(i64::MAX)), i64::MAX.to_string());
    }
}
