//! Writing a snapshot out, into a directory that is new.
//!
//! ```text
//! DIRECTORY/worktree/...        the files as they were, byte by byte: HEAD's and what differed
//! DIRECTORY/index/...           what was staged, where the index differed from HEAD
//! DIRECTORY/index-stage-N/...   in a conflict: 1 the base, 2 ours, 3 theirs
//! DIRECTORY/extra/...           state of a rebase or merge, tags, commits of nested repositories
//!                               (nested/PATH.bundle, for `git fetch`), an index that was damaged
//! DIRECTORY/rescue.json         what it is, what was deleted, what was left out
//! ```
//!
//! HEAD's unchanged files are written as git stores them, without its conversions. Every path came
//! from the agent's side: each is opened component by component, no link is followed, links are
//! written last, and a `.git` is never made.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use git2::{ObjectType, Oid, Repository, Tree};
use serde::Serialize;

use super::manifest::{Manifest, Mode, What, shown};
use super::{Kept, head_tree, kept, manifest_of};
use crate::model::{LeftOut, RescueView};
use crate::ports::{ErrorKind, PortError, PortResult};
use crate::worktree::beneath::NewTree;
use crate::worktree::making::{failed, is_taken};
use crate::worktree::store::{GitStore, broken};

/// Files of one working tree.
const MAX_FILES: usize = 1_000_000;
const MAX_DEPTH: usize = 256;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    pub rescue: RescueView,
    /// Files and links below `worktree/`.
    pub files: usize,
    /// Entries below `index/` and `index-stage-N/`.
    pub staged: usize,
    pub extras: usize,
    /// Paths of `HEAD` that were not in the working tree.
    pub deleted: Vec<String>,
    /// What the snapshot does not have, and paths that are not written anywhere.
    pub left_out: Vec<LeftOut>,
}

enum Source {
    Blob(Oid),
    Place(usize),
}

type Plan = BTreeMap<Vec<u8>, (Mode, Source)>;

impl GitStore {
    /// Writes the snapshot `id` into `directory`, which must not exist or be empty.
    ///
    /// Errors: `AlreadyExists`, `NotFound` (no such snapshot). A directory that was begun and could
    /// not be finished is left as it is.
    pub fn restore_rescue(&self, id: &str, directory: &Path) -> PortResult<Restored> {
        let repository = self.repository()?;
        let kept = kept(&repository, id)?;
        let manifest = manifest_of(&repository, &kept)?;
        let tree = begin(directory)?;
        let mut restoring = Restoring {
            repository: &repository,
            manifest: &manifest,
            tree,
            directory,
            restored: Restored {
                rescue: kept.view(),
                files: 0,
                staged: 0,
                extras: 0,
                deleted: Vec::new(),
                left_out: manifest.left_out(usize::MAX),
            },
        };
        restoring.all(&kept)?;
        let restored = restoring.restored;
        let text = serde_json::to_vec_pretty(&restored).map_err(|cause| {
            PortError::new(ErrorKind::Broken, "what was restored cannot be described")
                .because(cause)
        })?;
        let note = directory.join("rescue.json");
        fs::write(&note, text).map_err(|cause| failed("write", &note, cause))?;
        Ok(restored)
    }
}

fn begin(directory: &Path) -> PortResult<NewTree> {
    if is_taken(directory) {
        return Err(PortError::new(
            ErrorKind::AlreadyExists,
            format!("{} is there already", directory.display()),
        )
        .hint("name a directory that does not exist: nothing is ever written over"));
    }
    if !directory.is_dir() {
        DirBuilder::new()
            .mode(0o700)
            .create(directory)
            .map_err(|cause| failed("create", directory, cause))?;
    }
    NewTree::open(directory).map_err(|cause| failed("open", directory, cause))
}

struct Restoring<'r> {
    repository: &'r Repository,
    manifest: &'r Manifest<'r>,
    tree: NewTree,
    directory: &'r Path,
    restored: Restored,
}

impl Restoring<'_> {
    fn all(&mut self, kept: &Kept) -> PortResult<()> {
        let mut files = Plan::new();
        if let Some(head) = head_tree(self.repository, kept)? {
            self.below(&head, &mut Vec::new(), 0, &mut files)?;
        }
        let mut staged: BTreeMap<&str, Plan> = BTreeMap::new();
        let mut extras = Plan::new();
        for record in &self.manifest.records {
            let path = record.path.clone();
            match &record.what {
                What::File { mode, place, .. } => {
                    make_room(&mut files, &path);
                    files.insert(path, (*mode, Source::Place(*place)));
                }
                What::Gone => {
                    files.remove(&path);
                    self.restored.deleted.push(shown(&path));
                }
                What::Index {
                    stage,
                    mode: Some(mode),
                    place: Some(place),
                } => {
                    let area = ["index", "index-stage-1", "index-stage-2", "index-stage-3"]
                        [usize::from(*stage).min(3)];
                    staged
                        .entry(area)
                        .or_default()
                        .insert(path, (*mode, Source::Place(*place)));
                }
                What::Extra { place } => {
                    extras.insert(path, (Mode::Plain, Source::Place(*place)));
                }
                What::Index { .. } | What::Commit(_) | What::Left(_) => {}
            }
        }
        self.restored.files = self.write("worktree", &files)?;
        for (area, plan) in &staged {
            self.restored.staged += self.write(area, plan)?;
        }
        self.restored.extras = self.write("extra", &extras)?;
        Ok(())
    }

    /// Files of a commit's tree.
    fn below(
        &self,
        tree: &Tree<'_>,
        at: &mut Vec<u8>,
        depth: usize,
        plan: &mut Plan,
    ) -> PortResult<()> {
        for entry in tree {
            let length = at.len();
            at.extend(entry.name_bytes());
            match (entry.kind(), Mode::of_git(entry.filemode())) {
                (Some(ObjectType::Blob), Some(mode)) if plan.len() < MAX_FILES => {
                    plan.insert(at.clone(), (mode, Source::Blob(entry.id())));
                }
                (Some(ObjectType::Tree), _) if depth < MAX_DEPTH => {
                    let inner = self
                        .repository
                        .find_tree(entry.id())
                        .map_err(|cause| broken("a commit lacks one of its trees", cause))?;
                    at.push(b'/');
                    self.below(&inner, at, depth + 1, plan)?;
                }
                // A submodule's commit: there is nothing to write.
                (Some(ObjectType::Commit), _) => {}
                _ => {
                    let text = "the tree is deeper or larger than anybody's";
                    return Err(PortError::new(ErrorKind::Refused, text));
                }
            }
            at.truncate(length);
        }
        Ok(())
    }

    /// Returns how many were written. Links come last, so that nothing is written through one.
    fn write(&mut self, area: &str, plan: &Plan) -> PortResult<usize> {
        let mut count = 0;
        for links in [false, true] {
            for (path, (mode, source)) in plan {
                if (*mode == Mode::Link) != links {
                    continue;
                }
                let blob = match source {
                    Source::Place(place) => self.manifest.content(*place)?,
                    Source::Blob(id) => self
                        .repository
                        .find_blob(*id)
                        .map_err(|cause| broken("a commit lacks one of its files", cause))?,
                };
                let full = [area.as_bytes(), b"/", path].concat();
                let written = match mode {
                    Mode::Link => self.tree.link(&full, blob.content()),
                    Mode::Plain => self.tree.file(&full, blob.content(), false),
                    Mode::Executable => self.tree.file(&full, blob.content(), true),
                };
                match written {
                    Ok(()) => count += 1,
                    Err(error) if is_about_the_path(&error) => {
                        self.restored.left_out.push(LeftOut {
                            path: shown(&full),
                            why: format!("cannot be written: {error}"),
                        });
                    }
                    Err(error) => return Err(failed("write in", self.directory, error)),
                }
            }
        }
        Ok(count)
    }
}

/// A path that no file system takes, or that two records claim.
fn is_about_the_path(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::InvalidInput
            | Kind::AlreadyExists
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::InvalidFilename
    ) || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// A file takes the place of a directory, and a directory that of a file.
fn make_room(plan: &mut Plan, path: &[u8]) {
    let below = [path, b"/"].concat();
    let inside: Vec<Vec<u8>> = plan
        .range(below.clone()..)
        .take_while(|(other, _)| other.starts_with(&below))
        .map(|(other, _)| other.clone())
        .collect();
    for other in inside {
        plan.remove(&other);
    }
    for (at, _) in path.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
        plan.remove(&path[..at]);
    }
}
