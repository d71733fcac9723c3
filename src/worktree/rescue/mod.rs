//! Rescue snapshots: what was in a checkout and in no commit, kept in the store.
//!
//! A snapshot is made in the sandbox ([`sandbox::snapshot`](super::sandbox::snapshot)) and arrives as
//! a bundle. What the agent's side says about it is not believed: the store makes a commit of its own
//! around the arrived tree, with the same parents, and names it
//! `refs/orchestrator/rescue/<agent>/<milliseconds>-<id>`. Its message is a line for people and one
//! line of JSON ([`Note`]).

mod manifest;
mod restore;
mod retention;

pub use restore::Restored;
pub use retention::{Retention, Thinned};

use git2::{Commit, Oid, Patch, Repository, Signature, Time, Tree};
use serde::{Deserialize, Serialize};

use super::bundle::BundleSource;
use super::read;
use super::sandbox::{RescueKnown, Snapshot, SnapshotOutcome};
use super::store::{GitStore, broken, check_name, commit_id, find, head_name, oid};
use crate::model::{AgentId, CommitId, LeftOut, RescueFile, RescueView, Timestamp};
use crate::ports::{ErrorKind, PortError, PortResult};
use manifest::{Manifest, Mode, What, shown};

pub(super) const PREFIX: &str = "refs/orchestrator/rescue/";
/// Snapshots one agent's checkout is told of, so that it sends nothing twice.
const MAX_KNOWN: usize = 32;
/// Left-out paths in a view.
const MAX_LEFT_OUT: usize = 20;
const ID_DIGITS: usize = 12;

/// Why a snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RescueReason<'a> {
    /// `before a stop`, `at an interval`, ...
    pub cause: &'a str,
    pub at: Timestamp,
    /// Taken before something that may destroy work: never thinned out before its time.
    pub keep: bool,
}

/// In the message of a snapshot's commit. A field is only ever added; another `version` is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    version: u32,
    agent: AgentId,
    at: Timestamp,
    cause: String,
    keep: bool,
    /// The commit as made in the checkout.
    made: CommitId,
    head: Option<CommitId>,
    files: u32,
    left_out: Vec<LeftOut>,
}

/// One snapshot of the store.
struct Kept {
    note: Note,
    commit: Oid,
    reference: String,
}

impl Kept {
    fn view(&self) -> RescueView {
        let commit = commit_id(self.commit);
        RescueView {
            id: commit.as_str().chars().take(ID_DIGITS).collect(),
            agent: self.note.agent.clone(),
            at: self.note.at,
            cause: self.note.cause.clone(),
            commit,
            reference: self.reference.clone(),
            head: self.note.head.clone(),
            files: self.note.files,
            left_out: self.note.left_out.clone(),
        }
    }
}

impl GitStore {
    /// What the agent's checkout need not send.
    pub fn rescue_known(&self, agent: &AgentId) -> PortResult<RescueKnown> {
        let repository = self.repository()?;
        let mut commits: Vec<CommitId> = find(&repository, &head_name(&self.branch))?
            .map(commit_id)
            .into_iter()
            .collect();
        commits.extend(self.worker_head(agent)?);
        let mut rescues: Vec<(CommitId, CommitId)> = all(&repository)?
            .into_iter()
            .filter(|kept| kept.note.agent == *agent)
            .map(|kept| (kept.note.made.clone(), commit_id(kept.commit)))
            .take(MAX_KNOWN)
            .collect();
        rescues.reverse();
        Ok(RescueKnown { commits, rescues })
    }

    /// Takes a snapshot in, with the checks of [`GitStore::import_bundle`], and gives it a reference.
    /// `None`: there was nothing to keep. What the store has already is given as it is, and from now
    /// on kept if `reason` says so.
    ///
    /// Errors: as [`GitStore::import_bundle`]; the snapshot then stays in the checkout, and comes
    /// with the next one.
    pub fn import_rescue(
        &self,
        agent: &AgentId,
        reason: &RescueReason<'_>,
        snapshot: &Snapshot,
        max_bytes: u64,
    ) -> PortResult<Option<RescueView>> {
        check_name(&format!("{PREFIX}{agent}"), "agent", agent.as_str())?;
        let newest = match &snapshot.outcome {
            SnapshotOutcome::Nothing => None,
            SnapshotOutcome::Same(made) => Some((made, false)),
            SnapshotOutcome::Taken(made) => Some((made, true)),
        };
        let mut arriving = snapshot.also.clone();
        arriving.extend(newest.filter(|(_, new)| *new).map(|(made, _)| made.clone()));
        for made in &arriving {
            oid(made)?;
        }
        if !arriving.is_empty() {
            let bundle = BundleSource::Bytes(&snapshot.bundle);
            self.admit(agent, bundle, &arriving, max_bytes)?;
        }
        let repository = self.repository()?;
        for (before, made) in (1..).zip(snapshot.also.iter().rev()) {
            // Oldest first, a millisecond apart: the newest must sort as the newest.
            let late = RescueReason {
                cause: "made earlier, arrived with this one",
                at: Timestamp(reason.at.0 - before),
                ..*reason
            };
            self.keep(&repository, agent, &late, made)?;
        }
        let Some((made, _)) = newest else {
            return Ok(None);
        };
        self.keep(&repository, agent, reason, made).map(Some)
    }

    fn keep(
        &self,
        repository: &Repository,
        agent: &AgentId,
        reason: &RescueReason<'_>,
        made: &CommitId,
    ) -> PortResult<RescueView> {
        let same = |kept: &Kept| kept.note.agent == *agent && kept.note.made == *made;
        if let Some(kept) = all(repository)?.into_iter().find(same) {
            if reason.keep && !kept.note.keep {
                retention::hold(repository, &kept)?;
            }
            return Ok(kept.view());
        }
        let arrived = read::commit(repository, oid(made)?)?;
        let kept = self.wrap(repository, agent, reason, &arrived)?;
        self.share_objects(kept.commit)?;
        repository
            .reference(&kept.reference, kept.commit, false, reason.cause)
            .map_err(|cause| broken("could not name a snapshot", cause))?;
        Ok(kept.view())
    }

    /// Our commit around an arrived one. Its tree must be a snapshot.
    fn wrap(
        &self,
        repository: &Repository,
        agent: &AgentId,
        reason: &RescueReason<'_>,
        arrived: &Commit<'_>,
    ) -> PortResult<Kept> {
        let tree = snapshot_tree(arrived)?;
        let manifest = Manifest::read(repository, snapshot_tree(arrived)?)?;
        let head = manifest
            .records
            .iter()
            .find_map(|record| match &record.what {
                What::Commit(id) if record.path == b"HEAD" => Some(id.clone()),
                _ => None,
            });
        // It is the first parent, or it is not ours to say.
        let head = head.filter(|id| arrived.parent_ids().any(|parent| parent.to_string() == *id));
        let note = Note {
            version: 1,
            agent: agent.clone(),
            at: reason.at,
            cause: reason.cause.chars().take(200).collect(),
            keep: reason.keep,
            made: commit_id(arrived.id()),
            head: head.map(CommitId::new),
            files: manifest.files().len() as u32,
            left_out: manifest.left_out(MAX_LEFT_OUT),
        };
        let line = serde_json::to_string(&note).map_err(|cause| {
            PortError::new(ErrorKind::Broken, "a snapshot cannot be described").because(cause)
        })?;
        let message = format!("Rescue of {agent}: {}\n\n{line}\n", note.cause);
        let by = Signature::new(
            &self.identity.name,
            &self.identity.email,
            &Time::new(reason.at.0 / 1000, 0),
        )
        .map_err(|cause| broken("the identity of commits is not one", cause))?;
        let parents: Vec<Commit<'_>> = arrived.parents().collect();
        let parents: Vec<&Commit<'_>> = parents.iter().collect();
        let commit = repository
            .commit(None, &by, &by, &message, &tree, &parents)
            .map_err(|cause| broken("could not write a snapshot's commit", cause))?;
        let short: String = commit.to_string().chars().take(ID_DIGITS).collect();
        let reference = format!("{PREFIX}{agent}/{:013}-{short}", reason.at.0.max(0));
        Ok(Kept {
            note,
            commit,
            reference,
        })
    }

    /// Every snapshot, newest first.
    pub fn rescues(&self) -> PortResult<Vec<RescueView>> {
        Ok(all(&self.repository()?)?.iter().map(Kept::view).collect())
    }

    /// The snapshot whose commit begins with `id`.
    ///
    /// Errors: `NotFound`; `Refused` where several do.
    pub fn rescue(&self, id: &str) -> PortResult<RescueView> {
        Ok(kept(&self.repository()?, id)?.view())
    }

    /// What is in it, by path.
    pub fn rescue_files(&self, id: &str) -> PortResult<Vec<RescueFile>> {
        let repository = self.repository()?;
        let kept = kept(&repository, id)?;
        Ok(manifest_of(&repository, &kept)?.files())
    }

    /// How its files differ from `HEAD` of then, as `git diff` shows it, at most about `max_bytes`.
    pub fn rescue_diff(&self, id: &str, max_bytes: usize) -> PortResult<String> {
        let repository = self.repository()?;
        let kept = kept(&repository, id)?;
        let manifest = manifest_of(&repository, &kept)?;
        let head = head_tree(&repository, &kept)?;
        let mut text = String::new();
        for record in &manifest.records {
            let place = match record.what {
                What::File { place, .. } => Some(place),
                What::Gone => None,
                _ => continue,
            };
            if text.len() >= max_bytes {
                text.push_str("... and more\n");
                break;
            }
            let old = head
                .as_ref()
                .and_then(|tree| blob_at(&repository, tree, &record.path));
            let new = place.map(|place| manifest.content(place)).transpose()?;
            let path = shown(&record.path);
            let patch = Patch::from_buffers(
                old.as_ref().map_or(&[], |blob| blob.content()),
                Some(path.as_ref()),
                new.as_ref().map_or(&[], |blob| blob.content()),
                Some(path.as_ref()),
                None,
            );
            let shown = patch.and_then(|mut patch| patch.to_buf());
            let shown = shown.map_err(|cause| broken("could not compare a file", cause))?;
            let lines = String::from_utf8_lossy(&shown).into_owned();
            let left = max_bytes.saturating_sub(text.len());
            text.extend(lines.chars().take(left));
            if !text.ends_with('\n') && !text.is_empty() {
                text.push('\n');
            }
        }
        Ok(text)
    }
}

/// Newest first. What cannot be read, or was written by a later version, is not among them.
fn all(repository: &Repository) -> PortResult<Vec<Kept>> {
    let references = repository
        .references_glob(&format!("{PREFIX}*"))
        .map_err(|cause| broken("could not list the snapshots", cause))?;
    let mut all = Vec::new();
    for reference in references {
        let reference = reference.map_err(|cause| broken("could not list the snapshots", cause))?;
        let (Ok(name), Some(commit)) = (reference.name(), reference.target()) else {
            continue;
        };
        if let Some(note) = note_of(repository, commit) {
            all.push(Kept {
                note,
                commit,
                reference: name.to_owned(),
            });
        } else {
            tracing::warn!(reference = name, "a snapshot that cannot be read");
        }
    }
    all.sort_by(|a, b| (b.note.at, &b.reference).cmp(&(a.note.at, &a.reference)));
    Ok(all)
}

fn note_of(repository: &Repository, commit: Oid) -> Option<Note> {
    let commit = repository.find_commit(commit).ok()?;
    let (_, line) = commit.message().ok()?.split_once("\n\n")?;
    let note: Note = serde_json::from_str(line).ok()?;
    (note.version == 1).then_some(note)
}

fn kept(repository: &Repository, id: &str) -> PortResult<Kept> {
    let mut found: Vec<Kept> = all(repository)?
        .into_iter()
        .filter(|kept| id.len() >= 4 && kept.commit.to_string().starts_with(id))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(PortError::new(
            ErrorKind::Refused,
            format!("several snapshots begin with {id:?}"),
        )
        .hint("give more digits")),
        (None, _) => Err(PortError::new(
            ErrorKind::NotFound,
            format!("there is no snapshot {id:?}"),
        )
        .hint("list them; old ones are thinned out")),
    }
}

fn snapshot_tree<'r>(commit: &Commit<'r>) -> PortResult<Tree<'r>> {
    commit
        .tree()
        .map_err(|cause| broken("a snapshot has no readable tree", cause))
}

fn manifest_of<'r>(repository: &'r Repository, kept: &Kept) -> PortResult<Manifest<'r>> {
    let commit = read::commit(repository, kept.commit)?;
    Manifest::read(repository, snapshot_tree(&commit)?)
}

fn head_tree<'r>(repository: &'r Repository, kept: &Kept) -> PortResult<Option<Tree<'r>>> {
    match &kept.note.head {
        None => Ok(None),
        Some(head) => snapshot_tree(&read::commit(repository, oid(head)?)?).map(Some),
    }
}

/// The regular file or link at a path of any bytes.
fn blob_at<'r>(repository: &'r Repository, tree: &Tree<'_>, path: &[u8]) -> Option<git2::Blob<'r>> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    let entry = tree.get_path(path).ok()?;
    Mode::of_git(entry.filemode())?;
    repository.find_blob(entry.id()).ok()
}
