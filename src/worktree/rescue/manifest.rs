//! What a snapshot's tree says: written inside the sandbox, so it may say anything. The form is
//! described where it is made, in `hooks/src/snapshot/write.rs`.

use std::path::PathBuf;

use git2::{Blob, Oid, Repository, Tree};

use crate::model::{LeftOut, RescueFile, RescueKind};
use crate::ports::{ErrorKind, PortError, PortResult};
use crate::worktree::store::broken;

const SIGNATURE: &[u8] = b"orchestrator-rescue 1";
/// A manifest of 50,000 long paths.
const MAX_BYTES: usize = 64 * 1024 * 1024;
const MAX_RECORDS: usize = 400_000;
/// As the kernel allows them.
const MAX_PATH: usize = 4095;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) path: Vec<u8>,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    File {
        kind: RescueKind,
        mode: Mode,
        size: u64,
        place: usize,
    },
    Gone,
    /// An entry of the index; `place`: none for a deletion or a submodule's commit.
    Index {
        stage: u8,
        mode: Option<Mode>,
        place: Option<usize>,
    },
    Extra {
        place: usize,
    },
    Commit(String),
    Left(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Executable,
    Link,
}

impl Mode {
    pub(super) fn of_git(mode: i32) -> Option<Self> {
        match mode {
            0o100_644 | 0o100_664 => Some(Self::Plain),
            0o100_755 => Some(Self::Executable),
            0o120_000 => Some(Self::Link),
            _ => None,
        }
    }
}

pub(super) struct Manifest<'r> {
    repository: &'r Repository,
    tree: Tree<'r>,
    pub(super) records: Vec<Record>,
}

impl<'r> Manifest<'r> {
    /// Of a snapshot's tree. `Broken` if it is none.
    pub(super) fn read(repository: &'r Repository, tree: Tree<'r>) -> PortResult<Self> {
        let id = tree
            .get_name("manifest")
            .map(|entry| entry.id())
            .ok_or_else(|| unreadable("it has no manifest"))?;
        let (size, _) = repository
            .odb()
            .and_then(|odb| odb.read_header(id))
            .map_err(|cause| broken("could not read a snapshot's manifest", cause))?;
        if size > MAX_BYTES {
            return Err(unreadable("its manifest is too long"));
        }
        let blob = blob(repository, id)?;
        let records =
            records(blob.content()).ok_or_else(|| unreadable("its manifest is not one"))?;
        Ok(Self {
            repository,
            tree,
            records,
        })
    }

    /// The content at a place; loaded whole.
    pub(super) fn content(&self, place: usize) -> PortResult<Blob<'r>> {
        let path = PathBuf::from(format!("c/{:03}/{:03}", place / 1000, place % 1000));
        let entry = self
            .tree
            .get_path(&path)
            .map_err(|cause| broken("a snapshot lacks one of its contents", cause))?;
        blob(self.repository, entry.id())
    }

    /// Working tree first; an entry of the index only where no file of that path is there.
    pub(super) fn files(&self) -> Vec<RescueFile> {
        let mut files = std::collections::BTreeMap::new();
        for record in &self.records {
            let (kind, size) = match record.what {
                What::File { kind, size, .. } => (kind, size),
                What::Gone => (RescueKind::Deleted, 0),
                What::Index { place: Some(_), .. } => (RescueKind::Staged, 0),
                _ => continue,
            };
            let file = RescueFile {
                path: shown(&record.path),
                kind,
                size,
            };
            files.entry(&record.path).or_insert(file);
        }
        files.into_values().collect()
    }

    /// The first `most`, and how many there are.
    pub(super) fn left_out(&self, most: usize) -> Vec<LeftOut> {
        let left = self.records.iter().filter_map(|record| match &record.what {
            What::Left(why) => Some(LeftOut {
                path: shown(&record.path),
                why: why.clone(),
            }),
            _ => None,
        });
        left.take(most).collect()
    }
}

fn blob(repository: &Repository, id: Oid) -> PortResult<Blob<'_>> {
    repository
        .find_blob(id)
        .map_err(|cause| broken("could not read a snapshot's content", cause))
}

pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(1000).collect()
}

fn unreadable(why: &str) -> PortError {
    PortError::new(
        ErrorKind::Broken,
        format!("this is no snapshot that can be read: {why}"),
    )
}

fn records(bytes: &[u8]) -> Option<Vec<Record>> {
    let mut parts = bytes.strip_suffix(b"\0")?.split(|&byte| byte == 0);
    if parts.next()? != SIGNATURE {
        return None;
    }
    let (mut records, mut places) = (Vec::new(), 0);
    while let Some(words) = parts.next() {
        let path = parts.next()?;
        if path.is_empty() || path.len() > MAX_PATH || records.len() >= MAX_RECORDS {
            return None;
        }
        let what = what(std::str::from_utf8(words).ok()?, &mut places)?;
        records.push(Record {
            path: path.to_vec(),
            what,
        });
    }
    Some(records)
}

fn what(words: &str, places: &mut usize) -> Option<What> {
    let mut next_place = || {
        *places += 1;
        *places - 1
    };
    let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(match (word, fields.as_slice()) {
        ("file", &[kind, mode, size]) => What::File {
            kind: kind_of(kind)?,
            mode: mode_of(mode)?,
            size: size.parse().ok()?,
            place: next_place(),
        },
        ("gone", _) => What::Gone,
        ("index", &[mode, stage, _]) => What::Index {
            stage: stage.parse().ok().filter(|&stage: &u8| stage <= 3)?,
            mode: mode_of(mode),
            place: mode_of(mode).map(|_| next_place()),
        },
        ("extra", &[_]) => What::Extra {
            place: next_place(),
        },
        ("commit", &[id]) => What::Commit(id.chars().take(64).collect()),
        ("left", _) => What::Left(rest.chars().take(200).collect()),
        _ => return None,
    })
}

fn mode_of(text: &str) -> Option<Mode> {
    Mode::of_git(i32::from_str_radix(text, 8).ok()?)
}

fn kind_of(word: &str) -> Option<RescueKind> {
    Some(match word {
        "staged" => RescueKind::Staged,
        "changed" => RescueKind::Changed,
        "untracked" => RescueKind::Untracked,
        "nested" => RescueKind::Nested,
        "ignored" => RescueKind::Ignored,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_contents_counted_in_their_order() {
        let text = b"orchestrator-rescue 1\0file changed 100755 3\0a b\nc\0gone\0x\0\
                     index 000000 0 00\0y\0index 100644 2 00\0z\0index 160000 0 11\0sub\0\
                     extra 4\0MERGE_MSG\0commit abc\0HEAD\0left larger than 5 bytes\0big\0";
        let records = records(text).unwrap();
        assert_eq!(records[0].path, b"a b\nc");
        let places: Vec<usize> = records
            .iter()
            .filter_map(|record| match record.what {
                What::File { place, .. } | What::Extra { place } => Some(place),
                What::Index { place, .. } => place,
                _ => None,
            })
            .collect();
        assert_eq!(places, [0, 1, 2]);
        assert_eq!(
            records[7].what,
            What::Left("larger than 5 bytes".to_owned())
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            &b""[..],
            b"orchestrator-rescue 2\0gone\0x\0",
            b"orchestrator-rescue 1\0gone\0",
            b"orchestrator-rescue 1\0gone\0\0",
            b"orchestrator-rescue 1\0what\0x\0",
            b"orchestrator-rescue 1\0file changed 040000 3\0x\0",
            b"orchestrator-rescue 1\0index 100644 9 00\0x\0",
        ] {
            assert_eq!(records(text), None, "{text:?}");
        }
    }
}
