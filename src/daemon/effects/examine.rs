//! Looking at everything of an agent that may move, from outside: nothing is run in its container.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use super::{Effects, Shared};
use crate::claude::screen;
use crate::claude::session_file::{self, SessionFile};
use crate::daemon::handle::Input;
use crate::daemon::usage::transcript_files;
use crate::model::{AgentId, Incarnation, Screen, Timestamp};
use crate::ports::runtime::container_name;
use crate::supervisor::{Event, Examination, SessionSeen, TranscriptSeen, VitalsSeen};
use crate::worktree::{open_beneath, read_beneath};

/// For the engine and tmux to answer; what has not is missing from the examination.
const PATIENCE: Duration = Duration::from_secs(5);
/// One per process that ever ran and was killed.
const MOST_SESSIONS: usize = 1024;

/// When each agent's status line ran last.
#[derive(Debug, Default)]
pub(super) struct StatusLines(Mutex<BTreeMap<AgentId, Timestamp>>);

impl StatusLines {
    fn drawn(&self, agent: &AgentId, at: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(agent.clone(), at);
    }

    fn of(&self, agent: &AgentId) -> Option<Timestamp> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(agent).copied()
    }
}

impl Effects {
    pub(in crate::daemon) fn status_line_drawn(&self, agent: &AgentId, at: Timestamp) {
        self.shared.status_lines.drawn(agent, at);
    }

    /// Examines an agent, tells the driver, and puts `then` after that.
    pub(in crate::daemon) fn examine(
        &self,
        agent: AgentId,
        incarnation: Incarnation,
        then: Option<Input>,
    ) {
        let shared = self.shared.clone();
        self.tracker.spawn(async move {
            shared.examine(agent, incarnation).await;
            if let Some(then) = then {
                shared.driver.put(then).await;
            }
        });
    }
}

impl Shared {
    pub(super) async fn examine(&self, agent: AgentId, incarnation: Incarnation) {
        let home = self.house.paths.agent(&agent).home();
        let on_disk = tokio::task::spawn_blocking(move || (transcript(&home), newest(&home)));
        let (screen, vitals, on_disk) = tokio::join!(
            self.screen_of(&agent),
            self.vitals_of(&agent, incarnation),
            on_disk
        );
        let (transcript, session) = on_disk.map_or((None, None), |(t, s)| (Some(t), s));
        let seen = Box::new(Examination {
            screen,
            transcript,
            session,
            vitals,
            status_line: self.status_lines.of(&agent),
        });
        self.driver
            .tell(Event::Examined {
                agent,
                incarnation,
                seen,
            })
            .await;
    }

    async fn screen_of(&self, agent: &AgentId) -> Option<(Screen, u64)> {
        let captured = tokio::time::timeout(PATIENCE, self.house.panes.capture(agent)).await;
        match captured {
            Ok(Ok(text)) => {
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                Some((screen::classify(&text), hasher.finish()))
            }
            Ok(Err(error)) => {
                tracing::debug!(%agent, error = error.chain(), "its pane cannot be read");
                self.ensure_pane(agent).await;
                None
            }
            Err(_) => None,
        }
    }

    async fn vitals_of(&self, agent: &AgentId, incarnation: Incarnation) -> Option<VitalsSeen> {
        let name = container_name(&self.house.config.project, agent, incarnation);
        let measured = tokio::time::timeout(PATIENCE, self.house.runtime.vitals(&name)).await;
        match measured {
            Ok(Ok(vitals)) => Some(VitalsSeen {
                cpu_nanos: u64::try_from(vitals.cpu.as_nanos()).unwrap_or(u64::MAX),
                paused: vitals.paused,
            }),
            Ok(Err(error)) => {
                tracing::debug!(%agent, error = error.chain(), "its container cannot be measured");
                None
            }
            Err(_) => None,
        }
    }
}

/// The size of all its conversations, and when the newest was written to.
fn transcript(home: &Path) -> TranscriptSeen {
    // A conversation without a word has no file yet.
    let mut seen = TranscriptSeen {
        bytes: 0,
        changed: Timestamp(0),
    };
    for file in transcript_files(home) {
        if let Some((bytes, changed)) = size(home, &file) {
            seen.bytes = seen.bytes.saturating_add(bytes);
            seen.changed = seen.changed.max(changed);
        }
    }
    seen
}

fn size(home: &Path, file: &Path) -> Option<(u64, Timestamp)> {
    let found = open_beneath(home, file).ok()?.metadata().ok()?;
    let changed = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let changed = Timestamp(i64::try_from(changed.as_millis()).unwrap_or(i64::MAX));
    Some((found.len(), changed))
}

/// The session file that was written last: those of killed processes stay.
fn newest(home: &Path) -> Option<SessionSeen> {
    let directory = Path::new(session_file::DIRECTORY);
    let entries = std::fs::read_dir(home.join(directory)).ok()?;
    let files = entries.take(MOST_SESSIONS).flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok();
        let file: PathBuf = directory.join(name.filter(|name| session_file::is_name(name))?);
        let (_, changed) = size(home, &file)?;
        Some((changed, file))
    });
    let (changed, file) = files.max()?;
    let bytes = read_beneath(home, &file, session_file::MAX_BYTES).ok()?;
    let parsed = SessionFile::parse(&bytes).ok()?;
    Some(SessionSeen {
        status: parsed.status,
        waiting_for: parsed.waiting_for,
        changed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_are_summed_and_the_newest_session_file_counts() {
        let home = tempfile::tempdir().unwrap();
        let projects = home.path().join(".claude/projects/-workspace");
        std::fs::create_dir_all(projects.join("one/subagents")).unwrap();
        assert_eq!(transcript(home.path()).bytes, 0);
        std::fs::write(projects.join("one.jsonl"), "12345").unwrap();
        std::fs::write(projects.join("one/subagents/agent-1.jsonl"), "123").unwrap();
        let seen = transcript(home.path());
        assert_eq!(seen.bytes, 8);
        assert!(seen.changed > Timestamp(1_700_000_000_000));

        let recorded = include_str!("../../claude/samples/sessions/idle.json");
        let sessions = home.path().join(session_file::DIRECTORY);
        assert_eq!(newest(home.path()), None);
        std::fs::create_dir_all(&sessions).unwrap();
        for (pid, status, age) in [(7, "busy", 60), (9, "idle", 0)] {
            let path = sessions.join(format!("{pid}.json"));
            std::fs::write(&path, recorded.replace("idle", status)).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            let then = std::time::SystemTime::now() - Duration::from_secs(age);
            file.set_modified(then).unwrap();
        }
        assert_eq!(newest(home.path()).unwrap().status, "idle");
        // What an agent links to is not read.
        std::fs::remove_dir_all(&sessions).unwrap();
        std::os::unix::fs::symlink("/proc/self", &sessions).unwrap();
        assert_eq!(newest(home.path()), None);
    }
}
