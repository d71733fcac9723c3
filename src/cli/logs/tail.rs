//! The last lines of a log that may have been put aside in part.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::telemetry::rotated_path;

/// Put-aside files beyond this are not looked for.
pub(super) const MAX_ROTATED: u32 = 1000;

/// At most so much text is printed, however long the lines are.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A place in a file, whatever the file is called by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) inode: u64,
    pub(super) offset: u64,
}

/// The last `lines` lines over the live file and the older ones, and where the live one was read to.
pub(super) fn last_lines(path: &Path, lines: usize) -> io::Result<(String, Position)> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let position = Position {
        inode: file.metadata()?.ino(),
        offset: bytes.len() as u64,
    };
    let mut number = 1;
    while line_count(&bytes) < lines && bytes.len() < MAX_BYTES && number <= MAX_ROTATED {
        let Ok(mut older) = std::fs::read(rotated_path(path, number)) else {
            break;
        };
        older.append(&mut bytes);
        bytes = older;
        number += 1;
    }
    let text = String::from_utf8_lossy(keep_last(&bytes, lines)).into_owned();
    Ok((text, position))
}

fn line_count(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}

fn keep_last(bytes: &[u8], lines: usize) -> &[u8] {
    let skip = line_count(bytes).saturating_sub(lines);
    if skip == 0 {
        return bytes;
    }
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let start = ends.map(|(at, _)| at + 1).nth(skip - 1);
    start
        .and_then(|start| bytes.get(start..))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found_across_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        std::fs::write(rotated_path(&path, 2), "1\n2\n").unwrap();
        std::fs::write(rotated_path(&path, 1), "3\n4\n").unwrap();
        std::fs::write(&path, "5\n").unwrap();
        let last = |lines| last_lines(&path, lines).unwrap().0;
        assert_eq!(last(0), "");
        assert_eq!(last(1), "5\n");
        assert_eq!(last(2), "4\n5\n");
        assert_eq!(last(4), "2\n3\n4\n5\n");
        assert_eq!(last(100), "1\n2\n3\n4\n5\n");
        assert_eq!(last_lines(&path, 1).unwrap().1.offset, 2);
    }
}
