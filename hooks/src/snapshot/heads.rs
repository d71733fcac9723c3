//! Commits that live only where the agent may lose them: its branches, tags, stash and logs, and
//! whatever a rebase or merge in progress refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use super::git::{Git, is_id};
use super::look::{Extra, Seen};

/// Our own references, one per snapshot that the supervisor may not have yet.
pub(super) const OWN: &str = "refs/orchestrator/rescue/";
/// Of a log of a reference: the newest lines.
const MAX_LOG_LINES: usize = 1000;
/// Parents of one snapshot.
const MAX_COMMITS: usize = 500;

/// Where a commit was found. The first place counts.
pub(super) struct Candidate {
    pub(super) name: Vec<u8>,
    pub(super) id: String,
}

#[derive(Default)]
pub(super) struct Heads {
    pub(super) candidates: Vec<Candidate>,
    /// Annotated tags, name and object.
    tags: Vec<(Vec<u8>, String)>,
    /// Snapshots in this checkout, oldest first: reference and commit.
    pub(super) own: Vec<(String, String)>,
}

/// Everything that may name a commit nobody else has.
pub(super) fn find(git: &Git, git_directory: &Path) -> io::Result<Heads> {
    let mut heads = Heads::default();
    let format = "--format=%(objectname) %(objecttype) %(refname)";
    for line in git
        .run(&["for-each-ref", format])?
        .split(|&byte| byte == b'\n')
    {
        let mut words = line.splitn(3, |&byte| byte == b' ');
        let (Some(id), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let id = String::from_utf8_lossy(id).into_owned();
        if name.starts_with(OWN.as_bytes()) {
            heads
                .own
                .push((String::from_utf8_lossy(name).into_owned(), id));
        } else if !name.starts_with(b"refs/remotes/") {
            if kind == b"tag" {
                heads.tags.push((name.to_vec(), id.clone()));
            }
            heads.add(name, id);
        }
    }
    for file in files(git_directory) {
        let Ok(text) = fs::read(git_directory.join(&file)) else {
            continue;
        };
        for id in ids(&text) {
            heads.add(file.as_bytes(), id);
        }
    }
    for log in ["HEAD", "refs/stash"] {
        let text = fs::read(git_directory.join("logs").join(log)).unwrap_or_default();
        let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
        let newest = lines.len().saturating_sub(MAX_LOG_LINES);
        let name = format!("log of {log}");
        for line in lines[newest..].iter().rev() {
            for id in line
                .splitn(3, |&byte| byte == b' ')
                .take(2)
                .filter(|id| is_id(id))
            {
                heads.add(name.as_bytes(), String::from_utf8_lossy(id).into_owned());
            }
        }
    }
    Ok(heads)
}

/// Files below the git directory with commits in them.
fn files(git_directory: &Path) -> Vec<String> {
    let mut files: Vec<String> = [
        "HEAD",
        "ORIG_HEAD",
        "MERGE_HEAD",
        "MERGE_AUTOSTASH",
        "CHERRY_PICK_HEAD",
        "REVERT_HEAD",
        "REBASE_HEAD",
        "BISECT_HEAD",
        "BISECT_EXPECTED_REV",
    ]
    .map(str::to_owned)
    .into();
    for directory in ["rebase-merge", "rebase-apply", "sequencer"] {
        let entries = fs::read_dir(git_directory.join(directory));
        for entry in entries.into_iter().flatten().flatten() {
            let small = entry
                .metadata()
                .is_ok_and(|about| about.is_file() && about.len() < 1 << 20);
            if let (true, Some(name)) = (small, entry.file_name().to_str()) {
                files.push(format!("{directory}/{name}"));
            }
        }
    }
    files.sort();
    files
}

/// Words of a text that are object ids in full.
fn ids(text: &[u8]) -> impl Iterator<Item = String> {
    text.split(|byte| byte.is_ascii_whitespace())
        .filter(|word| is_id(word))
        .map(|word| String::from_utf8_lossy(word).into_owned())
}

impl Heads {
    fn add(&mut self, name: &[u8], id: String) {
        if id.bytes().any(|byte| byte != b'0') {
            self.candidates.push(Candidate {
                name: name.to_vec(),
                id,
            });
        }
    }

    /// The candidates' commits, as `git rev-list` takes them; what is no commit, or not here, is
    /// left out.
    pub(super) fn tips(&self, objects: &Objects, seen: &Seen) -> BTreeMap<String, Vec<u8>> {
        let mut tips = BTreeMap::new();
        if let Some(head) = &seen.head {
            tips.insert(head.clone(), b"HEAD".to_vec());
        }
        for candidate in &self.candidates {
            if let Some(commit) = objects.commit(&candidate.id) {
                tips.entry(commit).or_insert_with(|| candidate.name.clone());
            }
        }
        tips
    }

    /// Annotated tags say something themselves; a snapshot's parents are commits only.
    pub(super) fn keep_tags(&self, git: &Git, seen: &mut Seen) {
        for (name, id) in self.tags.iter().take(MAX_COMMITS) {
            match git.run(&["cat-file", "tag", id]) {
                Ok(content) => seen.extras.push(Extra {
                    name: [b"tags/", name.strip_prefix(b"refs/tags/").unwrap_or(name)].concat(),
                    content,
                }),
                Err(error) => seen.leave_out(name, error.to_string()),
            }
        }
    }
}

/// What is known of object ids that were asked for.
#[derive(Default)]
pub(super) struct Objects {
    commits: BTreeMap<String, String>,
    plain: BTreeSet<String>,
}

impl Objects {
    /// Asks once for all: `commits` are followed to the commit they lead to, `plain` taken as they are.
    pub(super) fn ask<'a>(
        git: &Git,
        commits: impl Iterator<Item = &'a String>,
        plain: impl Iterator<Item = &'a String>,
    ) -> io::Result<Self> {
        let commits: Vec<&String> = commits.collect::<BTreeSet<_>>().into_iter().collect();
        let plain: Vec<&String> = plain.collect::<BTreeSet<_>>().into_iter().collect();
        let mut input = Vec::new();
        for id in &commits {
            input.extend(format!("{id}^{{commit}}\n").bytes());
        }
        for id in &plain {
            input.extend(format!("{id}\n").bytes());
        }
        let mut known = Self::default();
        if input.is_empty() {
            return Ok(known);
        }
        let said = git.fed(&["cat-file", "--batch-check=%(objectname)"], input)?;
        let asked = commits
            .iter()
            .map(|id| (id, true))
            .chain(plain.iter().map(|id| (id, false)));
        for (line, (id, is_commit)) in said.split(|&byte| byte == b'\n').zip(asked) {
            if !is_id(line) {
                continue;
            }
            if is_commit {
                let found = String::from_utf8_lossy(line).into_owned();
                known.commits.insert((*id).clone(), found);
            } else {
                known.plain.insert((*id).clone());
            }
        }
        Ok(known)
    }

    pub(super) fn commit(&self, id: &str) -> Option<String> {
        self.commits.get(id).cloned()
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.plain.contains(id)
    }
}

/// The youngest of `tips` that lead to a commit which none of `known` has, and whether there are any.
pub(super) fn unknown(
    git: &Git,
    tips: &BTreeMap<String, Vec<u8>>,
    known: &[String],
) -> io::Result<Vec<String>> {
    if tips.is_empty() {
        return Ok(Vec::new());
    }
    let mut input = String::new();
    for tip in tips.keys() {
        input.push_str(tip);
        input.push('\n');
    }
    for commit in known {
        input.push('^');
        input.push_str(commit);
        input.push('\n');
    }
    let listed = git.fed(&["rev-list", "--parents", "--stdin"], input.into_bytes())?;
    let (mut new, mut below) = (BTreeSet::new(), BTreeSet::new());
    for line in listed.split(|&byte| byte == b'\n') {
        let mut words = line
            .split(|&byte| byte == b' ')
            .map(String::from_utf8_lossy);
        if let Some(commit) = words.next() {
            new.insert(commit.into_owned());
            below.extend(words.map(std::borrow::Cow::into_owned));
        }
    }
    Ok(tips
        .keys()
        .filter(|tip| new.contains(*tip) && !below.contains(*tip))
        .take(MAX_COMMITS)
        .cloned()
        .collect())
}
