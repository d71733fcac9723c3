//! The notes that agents take, and where each of them is in the end: none may be lost.
//!
//! A note is a line of random digits in a file of an agent's checkout; the script of the errands puts
//! them there in every state that git knows and never takes one away. It counts from the moment its
//! agent told of it, or from when it lay in the checkout right before a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use git2::{ObjectType, Oid, Repository, TreeWalkMode, TreeWalkResult};
use serde::Serialize;

use super::super::error::Result;
use super::super::{Error, Exit};
use crate::daemon::FleetPaths;
use crate::testing::sample;
use crate::testing::scripted_model::{Answer, ModelRequest, Script};
use crate::worktree::read_beneath;

/// Of one file of notes.
const MAX_FILE: usize = 1024 * 1024;

/// What begins the references of snapshots: by agent, and those that are held.
const SNAPSHOTS: &str = "refs/orchestrator/rescue";

/// Where everything of it lies.
pub(super) struct Places<'a> {
    pub(super) state: &'a Path,
    pub(super) remote: &'a Path,
}

/// Digits and path of a note.
type Told = BTreeMap<String, String>;

/// A script that remembers which notes its agents told of. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Witness {
    script: Arc<dyn Script>,
    told: Arc<Mutex<Told>>,
}

impl Witness {
    pub(super) fn over(script: Arc<dyn Script>) -> Self {
        Self {
            script,
            told: Arc::default(),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Entries are added whole: a panic elsewhere leaves nothing half done.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script for Witness {
    fn answer(&self, request: &ModelRequest) -> Answer {
        let results = request.conversation.results.iter();
        let notes = results
            .flat_map(|result| result.text.lines())
            .filter_map(|line| {
                let (path, digits) = line.strip_prefix(sample::NOTED)?.split_once(' ')?;
                is_note(digits.as_bytes()).then(|| (digits.to_owned(), path.to_owned()))
            });
        self.told().extend(notes);
        self.script.answer(request)
    }
}

fn is_note(line: &[u8]) -> bool {
    line.len() == sample::NOTE_DIGITS && line.iter().all(u8::is_ascii_hexdigit)
}

/// The whole lines that are notes.
fn notes_in(content: &[u8]) -> impl Iterator<Item = String> + '_ {
    let whole = content.split_inclusive(|byte| *byte == b'\n');
    whole
        .filter_map(|line| line.strip_suffix(b"\n"))
        .filter(|line| is_note(line))
        .map(|line| String::from_utf8_lossy(line).into_owned())
}

/// All notes, and where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Kept {
    pub(super) notes: usize,
    pub(super) bytes: usize,
    /// Looks into all checkouts, one right before each fault.
    pub(super) looks: usize,
    /// Notes that were in no commit of the store right before a fault.
    pub(super) uncommitted_at_a_fault: usize,
    /// On the remote's branch.
    pub(super) in_the_branch: usize,
    /// Not there, and in another commit of the store.
    pub(super) in_other_commits: usize,
    /// In no commit of the branch or an agent's, and in a rescue snapshot.
    pub(super) in_snapshots: usize,
    /// Only in a checkout or in the trash.
    pub(super) in_checkouts: usize,
    /// Nowhere.
    pub(super) lost: Vec<String>,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} notes of agents ({} bytes), {} of them in no commit right before a fault ({} looks): {} are \
             on the branch, {} in other commits, {} in rescue snapshots, {} in checkouts, {} lost",
            self.notes,
            self.bytes,
            self.uncommitted_at_a_fault,
            self.looks,
            self.in_the_branch,
            self.in_other_commits,
            self.in_snapshots,
            self.in_checkouts,
            self.lost.len(),
        )
    }
}

pub(super) struct Notes {
    witness: Witness,
    /// Seen in a checkout right before a fault, beside those that were told of.
    seen: Told,
    /// Of all of them, what no commit of the store had at such a moment.
    uncommitted: BTreeSet<String>,
    looks: usize,
    committed: Scan,
}

impl Notes {
    pub(super) fn new(witness: Witness) -> Self {
        Self {
            witness,
            seen: Told::new(),
            uncommitted: BTreeSet::new(),
            looks: 0,
            committed: Scan::default(),
        }
    }

    /// What lies in the checkouts now counts from now on.
    pub(super) fn look(&mut self, state: &Path) -> Result<()> {
        let present = in_checkouts(state)?;
        let store = FleetPaths::new(state).store();
        self.committed
            .read(&store, |name| !name.starts_with(SNAPSHOTS))?;
        let new = present.keys().filter(|digits| !self.committed.has(digits));
        self.uncommitted.extend(new.cloned());
        self.seen.extend(present);
        self.looks += 1;
        Ok(())
    }

    /// Looks for every note there was.
    pub(super) fn find(&self, places: &Places<'_>) -> Result<Kept> {
        // Agents may take notes meanwhile: what is looked for comes first.
        let mut all = self.seen.clone();
        all.extend(self.witness.told().clone());
        let scan = |path: &Path, wanted: fn(&str) -> bool| {
            let mut scan = Scan::default();
            scan.read(path, wanted).map(|()| scan)
        };
        let store = FleetPaths::new(places.state).store();
        let branch = scan(places.remote, |_| true)?;
        let commits = scan(&store, |name| !name.starts_with(SNAPSHOTS))?;
        let snapshots = scan(&store, |name| name.starts_with(SNAPSHOTS))?;
        let checkouts = in_checkouts(places.state)?;
        let mut kept = Kept {
            notes: all.len(),
            // And the end of each line.
            bytes: all.len() * (sample::NOTE_DIGITS + 1),
            looks: self.looks,
            uncommitted_at_a_fault: self.uncommitted.len(),
            ..Kept::default()
        };
        for (digits, path) in &all {
            if branch.has(digits) {
                kept.in_the_branch += 1;
            } else if commits.has(digits) {
                kept.in_other_commits += 1;
            } else if snapshots.has(digits) {
                kept.in_snapshots += 1;
            } else if checkouts.contains_key(digits) {
                kept.in_checkouts += 1;
            } else {
                let seen = self.seen.contains_key(digits);
                let how = if seen {
                    "seen before a fault"
                } else {
                    "told of"
                };
                kept.lost
                    .push(format!("the note {digits} of {path}, {how}"));
            }
        }
        Ok(kept)
    }
}

/// The notes in all checkouts, and in those that were put into the trash.
fn in_checkouts(state: &Path) -> Result<Told> {
    let paths = FleetPaths::new(state);
    let agents = paths.agents_on_disk().into_iter();
    let mut checkouts: Vec<_> = agents.map(|agent| paths.agent(&agent).checkout()).collect();
    for entry in fs::read_dir(state.join("trash"))
        .into_iter()
        .flatten()
        .flatten()
    {
        checkouts.push(entry.path().join("content"));
        checkouts.push(entry.path().join("content/checkout"));
    }
    let mut found = Told::new();
    for checkout in checkouts {
        // Not there before the first note, and never a link: the agents are our own script.
        for entry in fs::read_dir(checkout.join(sample::NOTES))
            .into_iter()
            .flatten()
        {
            let failed = |error| Error::io("cannot read the notes in a checkout", &error);
            let path = Path::new(sample::NOTES).join(entry.map_err(failed)?.file_name());
            match read_beneath(&checkout, &path, MAX_FILE) {
                Ok(content) => {
                    let named = |digits| (digits, path.display().to_string());
                    found.extend(notes_in(&content).map(named));
                }
                // Its agent is at work on it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(found)
}

/// The notes in everything that references of a repository reach. Read again, only what is new is read.
#[derive(Default)]
struct Scan {
    known: BTreeSet<Oid>,
    notes: BTreeSet<String>,
}

impl Scan {
    fn has(&self, digits: &str) -> bool {
        self.notes.contains(digits)
    }

    fn read(&mut self, repository: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
        self.read_git(repository, wanted).map_err(|error| {
            let what = format!("reading the commits of {}", repository.display());
            Error::new(Exit::Failure, what).because(&error)
        })
    }

    fn read_git(
        &mut self,
        path: &Path,
        wanted: impl Fn(&str) -> bool,
    ) -> std::result::Result<(), git2::Error> {
        let repository = Repository::open_bare(path)?;
        let mut walk = repository.revwalk()?;
        for reference in repository.references()? {
            let reference = reference?;
            if reference.name().is_ok_and(&wanted)
                && let Ok(commit) = reference.peel_to_commit()
                && !self.known.contains(&commit.id())
            {
                walk.push(commit.id())?;
            }
        }
        for id in walk {
            let id = id?;
            if self.known.insert(id) {
                self.tree(&repository, &repository.find_commit(id)?.tree()?)?;
            }
        }
        Ok(())
    }

    fn tree(
        &mut self,
        repository: &Repository,
        tree: &git2::Tree<'_>,
    ) -> std::result::Result<(), git2::Error> {
        let mut blobs = Vec::new();
        tree.walk(TreeWalkMode::PreOrder, |_, entry| {
            let new = self.known.insert(entry.id());
            if new && entry.kind() == Some(ObjectType::Blob) {
                blobs.push(entry.id());
            }
            // What is in a tree that is known is known.
            if new || entry.kind() != Some(ObjectType::Tree) {
                TreeWalkResult::Ok
            } else {
                TreeWalkResult::Skip
            }
        })?;
        for id in blobs {
            let blob = repository.find_blob(id)?;
            self.notes.extend(notes_in(blob.content()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use git2::{RepositoryInitOptions, Signature};

    use super::*;
    use crate::testing::scripted_model::{Conversation, Scenario, ToolResult};

    fn note(number: u8) -> String {
        format!("{number:02x}").repeat(sample::NOTE_DIGITS / 2)
    }

    /// A commit of one file `notes/a`, without parents.
    fn commit(path: &Path, reference: &str, text: &str) {
        let mut options = RepositoryInitOptions::new();
        let repository = Repository::init_opts(path, options.bare(true)).unwrap();
        let mut inner = repository.treebuilder(None).unwrap();
        let blob = repository.blob(text.as_bytes()).unwrap();
        inner.insert("a", blob, 0o100_644).unwrap();
        let mut outer = repository.treebuilder(None).unwrap();
        outer
            .insert("notes", inner.write().unwrap(), 0o040_000)
            .unwrap();
        let tree = repository.find_tree(outer.write().unwrap()).unwrap();
        let by = Signature::now("T", "t@localhost").unwrap();
        repository
            .commit(Some(reference), &by, &by, "c", &tree, &[])
            .unwrap();
    }

    #[test]
    fn a_note_is_found_wherever_it_is_and_one_that_is_nowhere_is_lost() {
        let root = tempfile::tempdir().unwrap();
        let (state, remote) = (root.path().join("state"), root.path().join("remote.git"));
        let checkout = state.join("agents/worker-1/checkout");
        let directory = checkout.join(sample::NOTES);
        fs::create_dir_all(&directory).unwrap();
        let line = |number| format!("{}\n", note(number));
        commit(&remote, "refs/heads/main", &line(1));
        let store = state.join("store.git");
        commit(&store, "refs/workers/worker-1/head", &line(2));
        commit(&store, "refs/orchestrator/rescue/worker-1/1", &line(3));
        let half = &note(7)[..20];
        let all: String = (1..=6).map(line).collect();
        fs::write(directory.join("x.txt"), format!("{all}not a note\n{half}")).unwrap();

        let mut notes = Notes::new(Witness::over(Scenario::default().script()));
        notes.look(&state).unwrap();
        let places = Places {
            state: &state,
            remote: &remote,
        };
        assert_eq!(notes.find(&places).unwrap().lost, Vec::<String>::new());
        let trash = state.join("trash/1-worker-9/content/notes");
        fs::create_dir_all(&trash).unwrap();
        fs::write(trash.join("x"), line(5)).unwrap();
        fs::write(directory.join("x.txt"), line(4)).unwrap();
        let kept = notes.find(&places).unwrap();
        assert_eq!((kept.notes, kept.bytes, kept.looks), (6, 6 * 65, 1));
        assert_eq!(kept.uncommitted_at_a_fault, 5);
        assert_eq!((kept.in_the_branch, kept.in_other_commits), (1, 1));
        assert_eq!((kept.in_snapshots, kept.in_checkouts), (1, 2));
        assert_eq!(kept.lost.len(), 1);
        assert!(kept.lost[0].contains(&note(6)) && kept.lost[0].contains("notes/x.txt"));
    }

    #[test]
    fn what_an_agent_told_of_counts_without_being_seen() {
        let root = tempfile::tempdir().unwrap();
        let (state, remote) = (root.path().join("state"), root.path().join("remote.git"));
        commit(&remote, "refs/heads/main", "");
        commit(&state.join("store.git"), "refs/heads/main", "");
        let witness = Witness::over(Scenario::default().script());
        let text = format!("noted: notes/w1-1.txt {}\nnoted: notes/x short\n", note(9));
        witness.answer(&ModelRequest {
            conversation: Conversation {
                results: vec![ToolResult {
                    text,
                    is_error: false,
                }],
                ..Conversation::default()
            },
            ..ModelRequest::default()
        });
        let kept = Notes::new(witness).find(&Places {
            state: &state,
            remote: &remote,
        });
        let lost = kept.unwrap().lost;
        assert_eq!(lost.len(), 1);
        assert!(lost[0].ends_with("notes/w1-1.txt, told of"), "{lost:?}");
    }
}
