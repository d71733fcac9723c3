//! The errands handed out, and what became of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::super::Error;
use super::super::error::Result;
use super::dice::Dice;
use crate::coordination::tasklist;
use crate::model::AgentId;
use crate::model::view::FleetView;
use crate::testing::sample;

/// Open errands that each worker has at least.
const OPEN: usize = 2;

/// How many come at a time.
const AT_A_TIME: usize = 2;

/// What was handed out, by worker.
pub(super) struct Ledger {
    handed_out: BTreeMap<u32, Vec<Errand>>,
    /// How often a line had to be added again: see [`Ledger::put_back`].
    pub(super) put_back: usize,
}

struct Errand {
    id: String,
    /// As it stands in the list, without the box.
    line: String,
    signs: bool,
}

/// What is wrong in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) lost: Vec<String>,
    pub(super) doubled: Vec<String>,
}

impl Ledger {
    pub(super) fn new(workers: u32) -> Self {
        let handed_out = (1..=workers).map(|worker| (worker, Vec::new())).collect();
        Self {
            handed_out,
            put_back: 0,
        }
    }

    pub(super) fn total(&self) -> usize {
        self.handed_out.values().map(Vec::len).sum()
    }

    pub(super) fn of(&self, agent: &AgentId) -> usize {
        let worker = agent.worker_number().and_then(|n| self.handed_out.get(&n));
        worker.map_or(0, Vec::len)
    }

    /// The first task lists, each with its first errands, as files of the first commit.
    pub(super) fn first_lists(&mut self, dice: &mut Dice) -> Vec<(String, String)> {
        let workers: Vec<u32> = self.handed_out.keys().copied().collect();
        let mut files = Vec::new();
        for worker in workers {
            let lines = self.more(worker, dice);
            let text = format!("# Worker {worker}\n\n{lines}");
            files.push((sample::list_file(worker), text));
        }
        files
    }

    /// Adds to the lists of workers who run out, at the end of the file, as a person with an editor
    /// would.
    pub(super) fn top_up(
        &mut self,
        directory: &Path,
        view: &FleetView,
        dice: &mut Dice,
    ) -> Result<()> {
        for agent in &view.agents {
            let Some(worker) = agent.id.worker_number() else {
                continue;
            };
            let open = self.of(&agent.id).saturating_sub(agent.tasks_done as usize);
            if open >= OPEN {
                continue;
            }
            let lines = self.more(worker, dice);
            append(directory, worker, &lines)?;
        }
        Ok(())
    }

    /// Adds once more what is in no list although it was added. The lists lie in the manager's
    /// checkout, and a `git merge` that fails there puts back the files as it found them (it resets
    /// them and applies a stash): a line that somebody adds in that tenth of a second is gone, as it
    /// is for a person. Counted, because it must stay rare.
    pub(super) fn put_back(&mut self, directory: &Path) -> Result<()> {
        for (worker, errands) in &self.handed_out {
            let path = directory.join(sample::list_file(*worker));
            let text = fs::read_to_string(&path)
                .map_err(|error| Error::io(format!("cannot read {}", path.display()), &error))?;
            let list = tasklist::parse(&text);
            if list.unread {
                continue;
            }
            let there: BTreeSet<&str> = list.items.iter().map(|item| item.text.as_str()).collect();
            let gone: Vec<&str> = errands
                .iter()
                .map(|errand| errand.line.as_str())
                .filter(|line| !there.contains(line))
                .collect();
            self.put_back += gone.len();
            let lines = gone
                .iter()
                .fold(String::new(), |lines, line| lines + &open_item(line));
            if !lines.is_empty() {
                append(directory, *worker, &lines)?;
            }
        }
        Ok(())
    }

    fn more(&mut self, worker: u32, dice: &mut Dice) -> String {
        let errands = self.handed_out.entry(worker).or_default();
        let mut lines = String::new();
        for _ in 0..AT_A_TIME {
            let id = format!("w{worker}-{}", errands.len() + 1);
            let signs = dice.one_in(4);
            let line = sample::errand(&id, signs);
            lines.push_str(&open_item(&line));
            errands.push(Errand { id, line, signs });
        }
        lines
    }

    /// Every errand is one line in its file on the branch, one name in the register if it signs, and
    /// one ticked line of its list. It is a commit of its own, too, or part of the next one where
    /// there was no room on the disk to commit it: then its work is not lost.
    pub(super) fn compare(&self, found: &Found) -> Outcome {
        let mut outcome = Outcome::default();
        for (worker, errands) in &self.handed_out {
            for errand in errands {
                let id = &errand.id;
                let commits = count(&found.subjects, &sample::errand_subject(id));
                let runs = found.runs.get(id).copied().unwrap_or(0);
                let signed = count(&found.register, id);
                let ticked = found
                    .ticked
                    .get(worker)
                    .map_or(0, |items| count(items, &errand.line));
                let told = format!(
                    "{id}: {commits} commits, {runs} runs, {signed} signatures{}, {ticked} ticks",
                    if errand.signs { " (signs)" } else { "" }
                );
                let signs = usize::from(errand.signs);
                if commits > 1 || runs > 1 || signed > signs || ticked > 1 {
                    outcome.doubled.push(told);
                } else if runs < 1 || signed < signs || ticked < 1 {
                    outcome.lost.push(told);
                }
            }
        }
        outcome
    }
}

fn open_item(line: &str) -> String {
    format!("- [ ] {line}\n")
}

fn append(directory: &Path, worker: u32, lines: &str) -> Result<()> {
    let path = directory.join(sample::list_file(worker));
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut list| list.write_all(lines.as_bytes()))
        .map_err(|error| Error::io(format!("cannot add to {}", path.display()), &error))
}

fn count(lines: &[String], wanted: &str) -> usize {
    lines.iter().filter(|line| *line == wanted).count()
}

/// What lies on the remote's branch and in the lists.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Subjects of all its commits.
    subjects: Vec<String>,
    /// Lines in each errand's own file.
    runs: BTreeMap<String, usize>,
    /// Lines of the register.
    register: Vec<String>,
    /// Ticked items by worker, in the lists that people edit.
    ticked: BTreeMap<u32, Vec<String>>,
}

impl Found {
    pub(super) fn read(remote: &Path, lists: &Path, workers: u32) -> Result<Self> {
        let mut found = Self::default();
        found.read_remote(remote).map_err(|error| {
            Error::new(super::super::Exit::Failure, "reading the remote").because(&error)
        })?;
        for worker in 1..=workers {
            let path = lists.join(sample::list_file(worker));
            let text = fs::read_to_string(&path)
                .map_err(|error| Error::io(format!("cannot read {}", path.display()), &error))?;
            let ticked = tasklist::parse(&text).items.into_iter();
            let ticked = ticked.filter(|item| item.checked).map(|item| item.text);
            found.ticked.insert(worker, ticked.collect());
        }
        Ok(found)
    }

    fn read_remote(&mut self, remote: &Path) -> std::result::Result<(), git2::Error> {
        let repository = git2::Repository::open_bare(remote)?;
        let reference = format!("refs/heads/{}", sample::BRANCH);
        let mut walk = repository.revwalk()?;
        walk.push_ref(&reference)?;
        for id in walk {
            let commit = repository.find_commit(id?)?;
            let subject = commit.summary().ok().flatten().unwrap_or_default();
            self.subjects.push(subject.to_owned());
        }
        let tree = repository.find_reference(&reference)?.peel_to_tree()?;
        if let Ok(entry) = tree.get_path(Path::new(sample::REGISTER)) {
            let blob = entry.to_object(&repository)?.peel_to_blob()?;
            let text = String::from_utf8_lossy(blob.content()).into_owned();
            self.register = text.lines().map(str::to_owned).collect();
        }
        let Ok(directory) = tree.get_path(Path::new(sample::ERRANDS)) else {
            return Ok(());
        };
        let directory = directory.to_object(&repository)?.peel_to_tree()?;
        for entry in &directory {
            let blob = entry.to_object(&repository)?.peel_to_blob()?;
            let lines = String::from_utf8_lossy(blob.content()).lines().count();
            let name = entry.name().unwrap_or_default().trim_end_matches(".txt");
            self.runs.insert(name.to_owned(), lines);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ledger: &Ledger) -> Found {
        let mut found = Found::default();
        for (worker, errands) in &ledger.handed_out {
            for errand in errands {
                found.subjects.push(sample::errand_subject(&errand.id));
                found.runs.insert(errand.id.clone(), 1);
                if errand.signs {
                    found.register.push(errand.id.clone());
                }
                let ticked = found.ticked.entry(*worker).or_default();
                ticked.push(errand.line.clone());
            }
        }
        found
    }

    #[test]
    fn the_lists_hold_what_was_handed_out() {
        let mut ledger = Ledger::new(2);
        let files = ledger.first_lists(&mut Dice::new(1));
        assert_eq!(files.len(), 2);
        assert_eq!(ledger.total(), 4);
        assert_eq!(ledger.of(&AgentId::worker(1)), 2);
        assert_eq!(ledger.of(&AgentId::manager()), 0);
        let items = tasklist::parse(&files[0].1).items;
        let lines: Vec<&String> = ledger.handed_out[&1].iter().map(|e| &e.line).collect();
        assert_eq!(
            items.iter().map(|item| &item.text).collect::<Vec<_>>(),
            lines
        );
    }

    #[test]
    fn what_is_gone_from_a_list_is_put_back_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new(1);
        let files = ledger.first_lists(&mut Dice::new(1));
        let path = directory.path().join(&files[0].0);
        let whole = &files[0].1;
        let short = &whole[..=whole.trim_end().rfind('\n').unwrap()];
        fs::write(&path, short).unwrap();
        for _ in 0..2 {
            ledger.put_back(directory.path()).unwrap();
            assert_eq!(&fs::read_to_string(&path).unwrap(), whole);
        }
        assert_eq!(ledger.put_back, 1);
    }

    #[test]
    fn what_is_lost_or_doubled_is_named() {
        let mut ledger = Ledger::new(2);
        ledger.first_lists(&mut Dice::new(1));
        assert_eq!(ledger.compare(&found(&ledger)), Outcome::default());

        let mut lost = found(&ledger);
        lost.subjects.retain(|subject| subject != "errand w1-2");
        assert_eq!(
            ledger.compare(&lost),
            Outcome::default(),
            "in another commit"
        );
        lost.runs.remove("w1-2");
        let outcome = ledger.compare(&lost);
        assert_eq!((outcome.lost.len(), outcome.doubled.len()), (1, 0));
        assert!(
            outcome.lost[0].starts_with("w1-2: 0 commits, 0 runs"),
            "{outcome:?}"
        );

        let mut unticked = found(&ledger);
        unticked.ticked.clear();
        assert_eq!(ledger.compare(&unticked).lost.len(), 4);

        let mut twice = found(&ledger);
        twice.runs.insert("w2-1".into(), 2);
        let outcome = ledger.compare(&twice);
        assert_eq!((outcome.lost.len(), outcome.doubled.len()), (0, 1));

        let mut signed = found(&ledger);
        signed.register = vec!["w1-1".into(); 3];
        assert!(!ledger.compare(&signed).doubled.is_empty());
    }
}
