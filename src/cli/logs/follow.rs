//! New lines as they come, also when the file is put aside meanwhile.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::tail::{MAX_ROTATED, Position};
use crate::cli::error::Result;
use crate::cli::{Error, Exit};
use crate::telemetry::rotated_path;

/// Should a notification be lost (a network file system sends none), it is looked anyway.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);

/// Hands new text to `print` until that fails, which it does when the reader goes away, or
/// until Ctrl-C ends the process.
pub(super) async fn follow(
    path: &Path,
    position: Position,
    mut print: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let (changed, mut changes) = mpsc::channel::<()>(1);
    // Full means that a look is due already.
    let mut watcher = notify::recommended_watcher(move |_| {
        let _ = changed.try_send(());
    })
    .map_err(|error| unwatchable(path, &error))?;
    let directory = path.parent().unwrap_or(path);
    watcher
        .watch(directory, RecursiveMode::NonRecursive)
        .map_err(|error| unwatchable(path, &error))?;
    let mut reader = Reader::new(path, position);
    loop {
        let text = reader
            .read()
            .map_err(|error| Error::io(format!("cannot read {}", path.display()), &error))?;
        if !text.is_empty() {
            print(&text)?;
        }
        let _ = tokio::time::timeout(LOOK_ANYWAY, changes.recv()).await;
    }
}

fn unwatchable(path: &Path, error: &notify::Error) -> Error {
    Error::new(Exit::Failure, format!("cannot watch {}", path.display()))
        .because(error)
        .hint("the limit of watches may be reached: see `sysctl fs.inotify`")
}

/// Reads on from a position, through put-aside files up to the live one.
struct Reader<'a> {
    path: &'a Path,
    position: Position,
    /// The bytes of a character that is not complete yet.
    rest: Vec<u8>,
    /// The file read last, kept open so that its inode number is not given to a new file.
    held: Option<File>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, position: Position) -> Self {
        Self {
            path,
            position,
            rest: Vec::new(),
            held: None,
        }
    }

    /// What is new since the last time.
    fn read(&mut self) -> io::Result<String> {
        let mut bytes = std::mem::take(&mut self.rest);
        let mut number = self.number_of_ours();
        loop {
            match File::open(rotated_path(self.path, number)) {
                Ok(file) => self.read_file(file, &mut bytes)?,
                // Between the renaming of the old file and the making of the new one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            if number == 0 {
                break;
            }
            number -= 1;
        }
        Ok(self.whole_characters(bytes))
    }

    /// Which of the files is the one read last; the live one, when that was thrown away.
    fn number_of_ours(&self) -> u32 {
        (0..=MAX_ROTATED)
            .map(|number| (number, std::fs::metadata(rotated_path(self.path, number))))
            // The live file may be missing for a moment; a gap further on is the end.
            .take_while(|(number, metadata)| *number == 0 || metadata.is_ok())
            .find(|(_, metadata)| {
                metadata
                    .as_ref()
                    .is_ok_and(|metadata| metadata.ino() == self.position.inode)
            })
            .map_or(0, |(number, _)| number)
    }

    fn read_file(&mut self, mut file: File, bytes: &mut Vec<u8>) -> io::Result<()> {
        let metadata = file.metadata()?;
        let same = metadata.ino() == self.position.inode;
        // A shorter file was emptied by somebody: begin again.
        let offset = if same && metadata.len() >= self.position.offset {
            self.position.offset
        } else {
            0
        };
        file.seek(SeekFrom::Start(offset))?;
        let read = file.read_to_end(bytes)?;
        self.position = Position {
            inode: metadata.ino(),
            offset: offset + read as u64,
        };
        self.held = Some(file);
        Ok(())
    }

    fn whole_characters(&mut self, mut bytes: Vec<u8>) -> String {
        if let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
        {
            self.rest = bytes.split_off(error.valid_up_to());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::tail::last_lines;
    use super::*;
    use crate::telemetry::{RotatingFile, Rotation};

    #[test]
    fn no_line_is_lost_or_repeated_however_often_the_file_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let rotation = Rotation {
            max_bytes: 20,
            keep: 5,
        };
        let mut log = RotatingFile::open(&path, rotation).unwrap();
        log.write_all(b"old\n").unwrap();
        let (_, position) = last_lines(&path, 10).unwrap();
        let mut reader = Reader::new(&path, position);
        let mut seen = String::new();
        let mut written = String::new();
        for number in 0..60 {
            let line = format!("line {number}\n");
            log.write_all(line.as_bytes()).unwrap();
            written.push_str(&line);
            if number % 7 == 0 {
                seen.push_str(&reader.read().unwrap());
            }
        }
        seen.push_str(&reader.read().unwrap());
        assert_eq!(seen, written);
        assert_eq!(reader.read().unwrap(), "");
    }

    #[test]
    fn a_character_cut_in_two_comes_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        std::fs::write(&path, "").unwrap();
        let (_, position) = last_lines(&path, 1).unwrap();
        let mut reader = Reader::new(&path, position);
        std::fs::write(&path, b"a\xc3").unwrap();
        assert_eq!(reader.read().unwrap(), "a");
        std::fs::write(&path, b"a\xc3\xa4\n").unwrap();
        assert_eq!(reader.read().unwrap(), "ä\n");
    }

    #[tokio::test]
    async fn following_ends_with_its_reader() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        std::fs::write(&path, "old\n").unwrap();
        let (_, position) = last_lines(&path, 1).unwrap();
        let other = path.clone();
        let writer = std::thread::spawn(move || {
            let mut log = RotatingFile::open(&other, Rotation::default()).unwrap();
            log.write_all(b"new\n").unwrap();
        });
        let mut seen = String::new();
        let result = tokio::time::timeout(
            Duration::from_secs(20),
            follow(&path, position, |text| {
                seen.push_str(text);
                Err(Error::rendered(Exit::Done, ""))
            }),
        );
        assert_eq!(result.await.unwrap().unwrap_err().exit, Exit::Done);
        assert_eq!(seen, "new\n");
        writer.join().unwrap();
    }
}
