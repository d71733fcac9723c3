//! What an agent's own commits are, and what they changed.
//!
//! An agent's branch holds more than its own work: it is brought up to the target branch between
//! turns, by a fast-forward or a merge. Its own commits lie on the first-parent line of its branch
//! before that meets the first-parent line of the target branch, on which there are only merges of
//! ours and commits from the remote.

use std::collections::BTreeSet;

use git2::{Commit, DiffOptions, Oid, Repository, Sort};
use glob::{MatchOptions, Pattern};

use super::read::{commit, descends};
use super::store::{GitStore, broken, commit_id, find, head_name, oid};
use crate::model::receipt::COMMITS_KEPT;
use crate::model::{CommitId, CommitNote, Span, Work};
use crate::ports::PortResult;

/// Commits looked at along one line; what is older is not found.
const MAX_LINE: usize = 50_000;
/// Paths looked at, and kept.
const MAX_FILES: usize = 5_000;
const FILES_KEPT: usize = 200;
const OUTSIDE_KEPT: usize = 20;
/// Of a subject, in characters.
const SUBJECT: usize = 120;
/// The commit in which `bring-up-to.sh` keeps task lists that differ; no work of the agent.
const KEPT_LISTS: &str = "Keep the task lists as they are";

impl GitStore {
    /// The work in these spans of an agent's branch, whose newest imported commit is `imported`.
    /// Where the head of a span was rewritten before it was taken, `imported` stands for it. A span
    /// ends where one of its `after` is met, or the target branch. `scope`: globs of the paths it
    /// may change; empty: any.
    pub fn work(&self, imported: &CommitId, spans: &[Span], scope: &[String]) -> PortResult<Work> {
        let repository = self.repository()?;
        let imported = oid(imported)?;
        let tip = find(&repository, &head_name(&self.branch))?.unwrap_or(imported);
        let mut own: Vec<Oid> = Vec::new();
        for span in spans {
            let head = span.head.as_ref().and_then(|head| oid(head).ok());
            let head = head.filter(|head| repository.find_commit(*head).is_ok());
            let after: Vec<Oid> = span.after.iter().filter_map(|id| oid(id).ok()).collect();
            let line = own_commits(&repository, head.unwrap_or(imported), &after, tip)?;
            let new: Vec<Oid> = line.into_iter().filter(|id| !own.contains(id)).collect();
            own.extend(new);
        }
        let mut files = BTreeSet::new();
        for id in &own {
            let commit = commit(&repository, *id)?;
            let parent = commit.parents().next();
            changed(&repository, parent.as_ref(), &commit, &mut files)?;
        }
        let mut outside = outside_of(scope, &files);
        if !outside.is_empty() {
            outside.retain({
                let differs = differing(&repository, imported, tip)?;
                move |path| differs.contains(path)
            });
        }
        outside.truncate(OUTSIDE_KEPT);
        let kept = own.iter().skip(own.len().saturating_sub(COMMITS_KEPT));
        let commits = kept
            .map(|id| note(&repository, *id))
            .collect::<PortResult<_>>()?;
        Ok(Work {
            commits,
            commit_count: u32::try_from(own.len()).unwrap_or(u32::MAX),
            files: files.into_iter().take(FILES_KEPT).collect(),
            outside,
        })
    }
}

/// Oldest first.
fn own_commits(
    repository: &Repository,
    head: Oid,
    after: &[Oid],
    tip: Oid,
) -> PortResult<Vec<Oid>> {
    let trunk: BTreeSet<Oid> = line(repository, tip, after)?.into_iter().collect();
    let mut own = Vec::new();
    for id in line(repository, head, after)? {
        if trunk.contains(&id) {
            break;
        }
        let commit = commit(repository, id)?;
        if !is_bring_up(repository, &commit, tip)? {
            own.push(id);
        }
    }
    own.reverse();
    Ok(own)
}

/// From `start` along first parents, without what `after` has.
fn line(repository: &Repository, start: Oid, after: &[Oid]) -> PortResult<Vec<Oid>> {
    let failed = |cause| broken("could not walk the history", cause);
    let mut walk = repository.revwalk().map_err(failed)?;
    walk.set_sorting(Sort::TOPOLOGICAL).map_err(failed)?;
    walk.simplify_first_parent().map_err(failed)?;
    walk.push(start).map_err(failed)?;
    for id in after {
        // One that the store never got cannot be part of it.
        if repository.find_commit(*id).is_ok() {
            walk.hide(*id).map_err(failed)?;
        }
    }
    walk.take(MAX_LINE)
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// A merge of what the target branch has, or the commit that comes before it.
fn is_bring_up(repository: &Repository, commit: &Commit<'_>, tip: Oid) -> PortResult<bool> {
    let mut others = commit.parent_ids().skip(1).peekable();
    if others.peek().is_none() {
        return Ok(commit.message().is_ok_and(|text| text.trim() == KEPT_LISTS));
    }
    for other in others {
        if other != tip && !descends(repository, tip, other)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn changed(
    repository: &Repository,
    from: Option<&Commit<'_>>,
    to: &Commit<'_>,
    files: &mut BTreeSet<String>,
) -> PortResult<()> {
    let failed = |cause| broken("could not compare commits", cause);
    let from = from.map(Commit::tree).transpose().map_err(failed)?;
    let to = to.tree().map_err(failed)?;
    let mut options = DiffOptions::new();
    let diff = repository
        .diff_tree_to_tree(from.as_ref(), Some(&to), Some(&mut options))
        .map_err(failed)?;
    for delta in diff.deltas() {
        if files.len() >= MAX_FILES {
            break;
        }
        let paths = [delta.old_file().path_bytes(), delta.new_file().path_bytes()];
        let named = paths.into_iter().flatten();
        files.extend(named.map(|path| String::from_utf8_lossy(path).into_owned()));
    }
    Ok(())
}

/// Paths in which the agent's branch differs from where it left the target branch.
fn differing(repository: &Repository, head: Oid, tip: Oid) -> PortResult<BTreeSet<String>> {
    let base = repository
        .merge_base(head, tip)
        .map_err(|cause| broken("could not find where the branches parted", cause))?;
    let mut files = BTreeSet::new();
    let (base, head) = (commit(repository, base)?, commit(repository, head)?);
    changed(repository, Some(&base), &head, &mut files)?;
    Ok(files)
}

fn outside_of(scope: &[String], files: &BTreeSet<String>) -> Vec<String> {
    if scope.is_empty() {
        return Vec::new();
    }
    let patterns: Vec<(&str, Option<Pattern>)> = scope
        .iter()
        .map(|text| (text.trim_end_matches('/'), Pattern::new(text).ok()))
        .collect();
    let options = MatchOptions {
        require_literal_separator: true,
        ..MatchOptions::default()
    };
    let within = |file: &str| {
        patterns.iter().any(|(text, pattern)| {
            // A directory stands for everything in it.
            let beneath = file
                .strip_prefix(text)
                .is_some_and(|rest| rest.starts_with('/'));
            let matches = |pattern: &Pattern| pattern.matches_with(file, options);
            beneath || pattern.as_ref().is_some_and(matches)
        })
    };
    let outside = files.iter().filter(|file| !within(file) && !is_list(file));
    outside.cloned().collect()
}

/// Task lists are ticked by whoever holds them.
fn is_list(path: &str) -> bool {
    path.starts_with("WORKER_") && path.ends_with("_TASK_LIST.md") && !path.contains('/')
}

fn note(repository: &Repository, id: Oid) -> PortResult<CommitNote> {
    let commit = commit(repository, id)?;
    let subject = String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default());
    Ok(CommitNote {
        id: commit_id(id),
        subject: subject.chars().take(SUBJECT).collect(),
    })
}
