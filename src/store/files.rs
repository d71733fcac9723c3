//! The directory `.coordination/`: files that sessions share without a server, under one lock.
//!
//! Called by the commands `leader` and `worker` (through the wiring). Knows where things lie and how to
//! change them so that nobody's writing is lost; what the files say is decided elsewhere. Agents and
//! editors write the same files without the lock: `tasks.json` is exchanged with its new version, and
//! if what comes out is not what was read, it goes back and the change is made anew on it. A program
//! that had the file open before, and writes into it afterwards, writes into what was replaced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

/// The lock is held for milliseconds, so this is a program that hangs.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const LOCK_AGAIN: Duration = Duration::from_millis(10);
/// A larger task list is not read.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
const TASKS: &str = "tasks.json";
const GOOD: &str = ".tasks.good.json";
const LOCK: &str = ".lock";

/// The directory, locked until this is dropped.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    _lock: File,
}

/// What the task list said, and said when it was fine the last time.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// `None`: there is no task list.
    pub tasks: Option<String>,
    pub good: Option<String>,
}

/// What became of a new task list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// Somebody wrote it meanwhile, and that is in place: read it again.
    Raced,
}

impl Directory {
    /// Makes the directory where there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn create(root: &Path) -> io::Result<Self> {
        for name in ["context", "logs", "results"] {
            fs::create_dir_all(root.join(name))?;
        }
        Self::open(root)
    }

    /// Waits for the lock.
    ///
    /// # Errors
    ///
    /// `NotFound` (no such directory), `TimedOut` (somebody held the lock for ten seconds), and those
    /// of the file system.
    pub fn open(root: &Path) -> io::Result<Self> {
        if !root.is_dir() {
            let text = format!("{} is no directory", root.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        let path = root.join(LOCK);
        let mut options = OpenOptions::new();
        let lock = options.create(true).append(true).open(&path)?;
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_AGAIN);
                }
                Err(TryLockError::WouldBlock) => {
                    let text = format!("another program holds {} locked", path.display());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// # Errors
    ///
    /// `InvalidData` (larger than 16 MiB), and those of the file system.
    pub fn read(&self) -> io::Result<Found> {
        Ok(Found {
            tasks: text_of(&self.root.join(TASKS))?,
            good: text_of(&self.root.join(GOOD))?,
        })
    }

    /// Puts `after` in the place of the task list, if that still is `before`.
    ///
    /// # Errors
    ///
    /// Those of the file system. The task list is as it was then.
    pub fn write(&self, before: Option<&str>, after: &str) -> io::Result<Written> {
        let (path, new) = (self.root.join(TASKS), self.root.join(".tasks.new.json"));
        write_synced(&new, after)?;
        let flags = match before {
            Some(_) => RenameFlags::EXCHANGE,
            None => RenameFlags::NOREPLACE,
        };
        match rustix::fs::renameat_with(CWD, &new, CWD, &path, flags) {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOENT) => return Ok(Written::Raced),
            // File systems of networks know no exchange: a look just before is all there is.
            Err(Errno::INVAL | Errno::NOSYS) => {
                if text_of(&path)?.as_deref() != before {
                    return Ok(Written::Raced);
                }
                fs::rename(&new, &path)?;
                return self.remember(after).map(|()| Written::Done);
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(before) = before {
            // A text that cannot be read is not what was read.
            if !text_of(&new).is_ok_and(|out| out.as_deref() == Some(before)) {
                rustix::fs::renameat_with(CWD, &new, CWD, &path, RenameFlags::EXCHANGE)?;
                return Ok(Written::Raced);
            }
            fs::remove_file(&new)?;
        }
        self.remember(after).map(|()| Written::Done)
    }

    /// Keeps a text of the task list as the one to come back to.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn remember(&self, text: &str) -> io::Result<()> {
        let new = self.root.join(".tasks.good.new.json");
        write_synced(&new, text)?;
        fs::rename(&new, self.root.join(GOOD))?;
        File::open(&self.root)?.sync_all()
    }

    /// Writes a text that is in no other file any more under `logs/`; nothing is written over.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn keep_aside(&self, stem: &str, text: &str) -> io::Result<PathBuf> {
        fs::create_dir_all(self.root.join("logs"))?;
        for number in 1_u32.. {
            let path = self.root.join(format!("logs/{stem}-{number}.json"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    file.write_all(text.as_bytes())?;
                    file.sync_all()?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("every name is taken"))
    }

    /// Writes a file that is not there yet. `false`: it is, and stays as it is.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn write_new(&self, name: &str, text: &str) -> io::Result<bool> {
        let path = self.root.join(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                file.sync_all().map(|()| true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds to the end of a file, which is made where there is none.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn append(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.root.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// A file's text; `None`: there is no such file.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn text(&self, name: &str) -> io::Result<Option<String>> {
        text_of(&self.root.join(name))
    }
}

/// What is not UTF-8 is read with marks in the place of what is none, so that it can be kept aside.
fn text_of(path: &Path) -> io::Result<Option<String>> {
    use std::io::Read as _;
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let text = format!("{} has more than {MAX_BYTES} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_saves_meanwhile_wins_and_is_told() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("board");
        assert_eq!(
            Directory::open(&root).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let directory = Directory::create(&root).unwrap();
        assert_eq!(directory.write(None, "one").unwrap(), Written::Done);
        assert_eq!(directory.write(None, "other").unwrap(), Written::Raced);
        fs::write(root.join(TASKS), "by hand").unwrap();
        assert_eq!(directory.write(Some("one"), "two").unwrap(), Written::Raced);
        let found = directory.read().unwrap();
        assert_eq!(found.tasks.as_deref(), Some("by hand"));
        assert_eq!(found.good.as_deref(), Some("one"));
        assert_eq!(
            directory.write(Some("by hand"), "two").unwrap(),
            Written::Done
        );
        let found = directory.read().unwrap();
        assert_eq!(
            (found.tasks, found.good),
            (Some("two".into()), Some("two".into()))
        );
        fs::remove_file(root.join(TASKS)).unwrap();
        assert_eq!(directory.write(Some("two"), "3").unwrap(), Written::Raced);
    }

    #[test]
    fn nothing_that_is_kept_aside_is_written_over() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::create(place.path()).unwrap();
        let first = directory.keep_aside("broken", "a").unwrap();
        let second = directory.keep_aside("broken", "b").unwrap();
        assert_eq!(fs::read_to_string(first).unwrap(), "a");
        assert_eq!(fs::read_to_string(second).unwrap(), "b");
        assert!(directory.write_new("x.md", "x").unwrap());
        assert!(!directory.write_new("x.md", "y").unwrap());
        assert_eq!(directory.text("x.md").unwrap().as_deref(), Some("x"));
    }
}
