//! What each agent has used so far: tokens from its transcripts, cost from its status line.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::claude::launch::WORKSPACE;
use crate::claude::transcript::{self, Tokens};
use crate::control::StatusReport;
use crate::model::view::{AgentView, UsageView};
use crate::model::{AgentId, Incarnation, Timestamp, Window, Windows};
use crate::supervisor::Event;
use crate::worktree::open_beneath;

/// Longer lines (pasted images, huge tool results) are passed over; an answer's own line is small.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;
/// Transcripts of one agent that are read; each conversation and each subagent has one.
const MOST_FILES: usize = 4096;

/// Reads on where it stopped the last time. An agent can write everything it reads.
#[derive(Debug, Default)]
pub(super) struct TokenCount {
    /// Bytes read per file, whole lines only.
    read: BTreeMap<PathBuf, u64>,
    /// By the answer's id.
    answers: BTreeMap<String, Tokens>,
}

impl TokenCount {
    /// The sum over all transcripts in `home`, an agent's home directory.
    pub(super) fn update(&mut self, home: &Path) -> Tokens {
        let projects = PathBuf::from(".claude/projects").join(transcript::slug(WORKSPACE));
        for file in transcripts(home, &projects) {
            if let Err(error) = self.read_on(home, &file) {
                tracing::debug!(file = %file.display(), %error, "a transcript was not read");
            }
        }
        self.answers
            .values()
            .fold(Tokens::default(), |sum, one| sum.plus(*one))
    }

    fn read_on(&mut self, home: &Path, relative: &Path) -> io::Result<()> {
        let mut file = open_beneath(home, relative)?;
        let at = self.read.entry(relative.to_owned()).or_default();
        if file.metadata()?.len() < *at {
            *at = 0;
        }
        file.seek(SeekFrom::Start(*at))?;
        let mut reader = BufReader::new(file);
        loop {
            let mut line = Vec::new();
            let length =
                io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line)? as u64;
            // A line that is still being written is read the next time.
            if length == 0 || (line.last() != Some(&b'\n') && length < LONGEST_LINE) {
                return Ok(());
            }
            *at += length;
            if let Some((id, tokens)) = transcript::answer_usage(&line) {
                self.answers.insert(id, tokens);
            }
        }
    }
}

/// Transcripts of conversations and of their subagents, relative to `home`. Only names are taken
/// from the listing; each file is opened without following a link.
fn transcripts(home: &Path, projects: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names(&home.join(projects)) {
        let path = projects.join(&name);
        if has_transcripts_name(&name) {
            found.push(path);
        } else {
            let subagents = path.join("subagents");
            let inner = names(&home.join(&subagents));
            found.extend(
                inner
                    .into_iter()
                    .filter(|n| has_transcripts_name(n))
                    .map(|n| subagents.join(n)),
            );
        }
        if found.len() >= MOST_FILES {
            break;
        }
    }
    found.truncate(MOST_FILES);
    found
}

fn has_transcripts_name(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|end| end == "jsonl")
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.take(MOST_FILES).flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The token counts of all agents, each behind its own lock: reading is done on other threads.
#[derive(Debug, Default)]
pub(super) struct TokenCounts {
    agents: Mutex<BTreeMap<AgentId, Arc<Mutex<TokenCount>>>>,
}

impl TokenCounts {
    /// Blocking. What was left by a panic elsewhere is at worst a count that lacks a line.
    pub(super) fn update(&self, agent: &AgentId, home: &Path) -> Tokens {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let count = agents.entry(agent.clone()).or_default().clone();
        drop(agents);
        count
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .update(home)
    }
}

/// What is known of every agent's use; the driver's.
#[derive(Debug, Default)]
pub(super) struct UsageBook {
    told: BTreeMap<AgentId, (UsageView, Option<String>)>,
    costs: BTreeMap<AgentId, CostCount>,
    tokens: BTreeMap<AgentId, Tokens>,
}

impl UsageBook {
    /// True if something was used since the last time, so that a count is worth it. Transcripts are
    /// written a moment later than the hooks come, so the count at a turn's end may be short.
    pub(super) fn told(
        &mut self,
        agent: AgentId,
        mut usage: UsageView,
        model: Option<String>,
    ) -> bool {
        let before = self.told.get(&agent).map(|(usage, _)| usage.cost_usd);
        let counted = self
            .tokens
            .get(&agent)
            .is_some_and(|tokens| tokens.input > 0);
        usage.cost_usd = self
            .costs
            .entry(agent.clone())
            .or_default()
            .update(usage.cost_usd);
        let worth_it = before != Some(usage.cost_usd) || (!counted && usage.cost_usd > 0.0);
        self.told.insert(agent, (usage, model));
        worth_it
    }

    pub(super) fn counted(&mut self, agent: AgentId, tokens: Tokens) {
        self.tokens.insert(agent, tokens);
    }

    /// Until the first turn has ended, tokens are what the status line tells of the context.
    pub(super) fn fill(&self, agent: &mut AgentView) {
        if let Some((usage, model)) = self.told.get(&agent.id) {
            agent.usage = usage.clone();
            agent.model.clone_from(model);
        }
        if let Some(tokens) = self.tokens.get(&agent.id) {
            agent.usage.input_tokens = tokens.input;
            agent.usage.output_tokens = tokens.output;
        }
    }
}

/// Just after an exchange of credentials nobody can tell whose numbers these are; once it is over,
/// the same ones mean something.
const TELL_AGAIN: Duration = Duration::from_secs(15);

/// Which usage windows were told last, so that the same ones are not told all the time.
#[derive(Debug, Default)]
pub(super) struct WindowBook {
    last: BTreeMap<AgentId, (Told, Timestamp)>,
}

/// Whole per cents and resets.
type Told = (Incarnation, [Option<(i64, Timestamp)>; 2]);

impl WindowBook {
    /// An event when a window has moved by a whole per cent or has another reset, and now and then.
    pub(super) fn told(&mut self, now: Timestamp, report: &StatusReport) -> Option<Event> {
        let incarnation = report.incarnation?;
        let usage = &report.usage;
        let window = |percent: Option<f64>, resets_at: Option<Timestamp>| {
            Some(Window {
                used_percent: percent?,
                resets_at: resets_at?,
            })
        };
        let windows = Windows {
            five_hour: window(usage.five_hour_percent, usage.five_hour_resets_at),
            seven_day: window(usage.seven_day_percent, usage.seven_day_resets_at),
        };
        let whole = [windows.five_hour, windows.seven_day]
            .map(|window| window.map(|w| (w.used_percent.floor() as i64, w.resets_at)));
        if whole == [None, None] {
            return None;
        }
        let told = (incarnation, whole);
        if let Some((known, at)) = self.last.get(&report.agent)
            && *known == told
            && now.since(*at) < TELL_AGAIN
        {
            return None;
        }
        self.last.insert(report.agent.clone(), (told, now));
        Some(Event::WindowsTold {
            agent: report.agent.clone(),
            incarnation,
            windows,
        })
    }
}

/// Cost over several processes of one agent: each counts from nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CostCount {
    ended: f64,
    last: f64,
}

impl CostCount {
    pub(super) fn update(&mut self, told: f64) -> f64 {
        if told < self.last {
            self.ended += self.last;
        }
        self.last = told;
        self.ended + told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, output: u64) -> String {
        format!(
            "{{\"type\":\"assistant\",\"message\":{{\"id\":\"{id}\",\"usage\":{{\"input_tokens\":10,\"output_tokens\":{output}}}}}}}\n"
        )
    }

    #[test]
    fn answers_count_once_however_often_and_in_how_many_pieces_they_are_read() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".claude/projects/-workspace");
        fs::create_dir_all(directory.join("s/subagents")).unwrap();
        let main = directory.join("s.jsonl");
        fs::write(&main, line("a", 1) + &line("a", 5) + "{\"type\":\"ass").unwrap();
        let mut count = TokenCount::default();
        assert_eq!(
            count.update(home.path()),
            Tokens {
                input: 10,
                output: 5
            }
        );
        fs::write(&main, line("a", 1) + &line("a", 5) + &line("b", 2)).unwrap();
        fs::write(directory.join("s/subagents/agent-1.jsonl"), line("c", 1)).unwrap();
        assert_eq!(
            count.update(home.path()),
            Tokens {
                input: 30,
                output: 8
            }
        );
        assert_eq!(
            count.update(home.path()),
            Tokens {
                input: 30,
                output: 8
            }
        );
    }

    #[test]
    fn a_link_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        fs::write(elsewhere.path(), line("a", 1)).unwrap();
        let directory = home.path().join(".claude/projects/-workspace");
        fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), directory.join("s.jsonl")).unwrap();
        assert_eq!(TokenCount::default().update(home.path()), Tokens::default());
    }

    #[test]
    fn windows_are_told_when_they_have_moved() {
        const NOW: Timestamp = Timestamp(1_795_000_000_000);
        let mut book = WindowBook::default();
        let mut report = StatusReport {
            agent: AgentId::worker(1),
            incarnation: Some(Incarnation(1)),
            session: None,
            model: None,
            claude_version: None,
            usage: UsageView::default(),
        };
        assert_eq!(book.told(NOW, &report), None, "a key tells no windows");
        report.usage.five_hour_percent = Some(41.2);
        report.usage.five_hour_resets_at = Some(Timestamp(1000));
        let Some(Event::WindowsTold { windows, .. }) = book.told(NOW, &report) else {
            panic!("told");
        };
        assert_eq!(windows.five_hour.unwrap().resets_at, Timestamp(1000));
        assert_eq!(windows.seven_day, None);
        report.usage.five_hour_percent = Some(41.9);
        assert_eq!(book.told(NOW, &report), None, "less than a per cent");
        let later = Timestamp(NOW.0 + 15_000);
        assert!(book.told(later, &report).is_some(), "once more");
        assert_eq!(book.told(later, &report), None);
        report.usage.five_hour_percent = Some(42.0);
        assert!(book.told(NOW, &report).is_some());
        report.usage.five_hour_resets_at = Some(Timestamp(2000));
        assert!(book.told(NOW, &report).is_some());
        report.incarnation = Some(Incarnation(2));
        assert!(book.told(NOW, &report).is_some(), "a new life");
        report.incarnation = None;
        assert_eq!(book.told(NOW, &report), None);
    }

    #[test]
    fn cost_goes_on_over_a_restart() {
        let mut cost = CostCount::default();
        for (told, sum) in [(1.0, 1.0), (1.5, 1.5), (0.25, 1.75), (0.5, 2.0)] {
            assert!((cost.update(told) - sum).abs() < 1e-9);
        }
    }
}
