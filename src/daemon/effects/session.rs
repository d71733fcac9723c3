//! Reading what an agent's Claude Code notes about itself, in the home the agent can write.

use std::fs;
use std::io;
use std::path::Path;

use super::Shared;
use crate::claude::session_file::{self, SessionFile};
use crate::model::{AgentId, Incarnation, SessionNote, Timestamp};
use crate::supervisor::Event;
use crate::worktree::read_beneath;

/// Files that are looked at; each kill leaves one behind.
const MOST_FILES: usize = 256;

impl Shared {
    pub(super) async fn check_session(&self, agent: AgentId, incarnation: Incarnation) {
        let home = self.house.paths.agent(&agent).home();
        let read = tokio::task::spawn_blocking(move || newest(&home)).await;
        let note = read.unwrap_or_else(|error| SessionNote::Unreadable {
            problem: error.to_string(),
        });
        self.driver
            .tell(Event::SessionChecked {
                agent,
                incarnation,
                note,
            })
            .await;
    }
}

/// The note of the process that started last. Only names are taken from the listing; each file is
/// opened without following a link.
fn newest(home: &Path) -> SessionNote {
    let directory = Path::new(session_file::DIRECTORY);
    let Ok(entries) = fs::read_dir(home.join(directory)) else {
        return SessionNote::Missing;
    };
    let names = entries
        .take(MOST_FILES)
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| session_file::is_name(name));
    let mut newest = SessionNote::Missing;
    for name in names {
        let note = match read_beneath(home, &directory.join(name), session_file::MAX_BYTES) {
            Ok(bytes) => understood(&bytes),
            // It ended between the listing and now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => SessionNote::Unreadable {
                problem: error.to_string(),
            },
        };
        newest = later(newest, note);
    }
    newest
}

fn understood(bytes: &[u8]) -> SessionNote {
    match SessionFile::parse(bytes) {
        Ok(file) => SessionNote::Found {
            session: file.session,
            version: file.version,
            status: file.status,
            started_at: file.started_at.unwrap_or(Timestamp(i64::MAX)),
        },
        Err(error) => SessionNote::Unreadable {
            problem: error.to_string(),
        },
    }
}

/// A note that can be read before one that cannot, a later one before an earlier one.
fn later(one: SessionNote, other: SessionNote) -> SessionNote {
    let rank = |note: &SessionNote| match note {
        SessionNote::Missing => (0, Timestamp(0)),
        SessionNote::Unreadable { .. } => (1, Timestamp(0)),
        SessionNote::Found { started_at, .. } => (2, *started_at),
    };
    if rank(&other) > rank(&one) {
        other
    } else {
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../../claude/samples/sessions/idle.json");

    fn home_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(session_file::DIRECTORY);
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        home
    }

    fn started(at: i64) -> String {
        let mut file: serde_json::Value = serde_json::from_str(RECORDED).unwrap();
        file["startedAt"] = at.into();
        file.to_string()
    }

    #[test]
    fn the_process_that_started_last_counts_and_leftovers_do_not() {
        let home = home_with(&[
            ("7.json", &started(2000)),
            ("8.json", &started(3000)),
            ("9.json", "half a fi"),
            ("10.json.tmp", &started(9000)),
        ]);
        let SessionNote::Found {
            started_at,
            status,
            version,
            ..
        } = newest(home.path())
        else {
            panic!("nothing found");
        };
        assert_eq!(started_at, Timestamp(3000));
        assert_eq!((status.as_str(), version.as_str()), ("idle", "2.1.197"));
    }

    #[test]
    fn none_one_of_another_form_and_a_link_to_somewhere_else() {
        let nowhere = tempfile::tempdir().unwrap();
        assert_eq!(newest(nowhere.path()), SessionNote::Missing);
        let odd = home_with(&[(
            "7.json",
            "{\"sessionId\": \"s\", \"version\": \"3\", \"state\": \"idle\"}",
        )]);
        let SessionNote::Unreadable { problem } = newest(odd.path()) else {
            panic!("it was understood");
        };
        assert!(problem.contains("`status` is missing"), "{problem}");
        let linked = home_with(&[("8.json", &started(1))]);
        let directory = nowhere.path().join(session_file::DIRECTORY);
        fs::create_dir_all(&directory).unwrap();
        let target = linked.path().join(session_file::DIRECTORY).join("8.json");
        std::os::unix::fs::symlink(target, directory.join("7.json")).unwrap();
        assert!(matches!(
            newest(nowhere.path()),
            SessionNote::Unreadable { .. }
        ));
    }
}
