//! A log file that is replaced when it grows too large: `NAME`, `NAME.1` (newer) … `NAME.K` (oldest).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// How large a log may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes after which the file is put aside. One write never spans two files.
    pub max_bytes: u64,
    /// How many put-aside files are kept beside the live one.
    pub keep: u32,
}

impl Default for Rotation {
    /// 10 MiB and five old files, as common log rotation set-ups have it.
    fn default() -> Self {
        Self {
            max_bytes: 10 * 1024 * 1024,
            keep: 5,
        }
    }
}

/// The path of the `number`th put-aside file; `0` is the live one.
pub fn rotated_path(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// A file opened for appending that rotates by size. Readable by its owner only.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    written: u64,
}

impl RotatingFile {
    /// Opens or creates the file and the directory it lies in.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation) -> io::Result<Self> {
        let path = path.into();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = append(&path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path,
            rotation,
            file,
            written,
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let RotatingFile { path, rotation, .. } = self;
        for number in (0..rotation.keep).rev() {
            let from = rotated_path(path, number);
            match fs::rename(&from, rotated_path(path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if rotation.keep == 0 {
            fs::remove_file(&*path)?;
        }
        self.file = append(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for RotatingFile {
    /// Writes all of `bytes` to one file, rotating first when they would not fit. When rotating
    /// fails, the line still goes to the old file: a log line is worth more than its limit.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        if self.written > 0 && self.written.saturating_add(length) > self.rotation.max_bytes {
            let _ = self.rotate();
        }
        self.file.write_all(bytes)?;
        self.written = self.written.saturating_add(length);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(keep: u32) -> Rotation {
        Rotation {
            max_bytes: 10,
            keep,
        }
    }

    #[test]
    fn the_file_rotates_by_size_and_only_so_many_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log/x.log");
        let mut file = RotatingFile::open(&path, small(2)).unwrap();
        for text in ["one 67\n", "two 67\n", "three7\n", "four67\n"] {
            file.write_all(text.as_bytes()).unwrap();
        }
        let read = |number| fs::read_to_string(rotated_path(&path, number));
        assert_eq!(read(0).unwrap(), "four67\n");
        assert_eq!(read(1).unwrap(), "three7\n");
        assert_eq!(read(2).unwrap(), "two 67\n");
        assert!(read(3).is_err());
    }

    #[test]
    fn a_restart_goes_on_in_the_same_file_and_counts_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        RotatingFile::open(&path, small(1))
            .unwrap()
            .write_all(b"12345\n")
            .unwrap();
        let mut again = RotatingFile::open(&path, small(1)).unwrap();
        again.write_all(b"678\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "12345\n678\n");
        again.write_all(b"9\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "9\n");
    }

    #[test]
    fn a_line_longer_than_the_limit_is_written_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let mut file = RotatingFile::open(&path, small(1)).unwrap();
        file.write_all(b"longer than ten bytes\n").unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "longer than ten bytes\n"
        );
    }

    #[test]
    fn with_nothing_to_keep_the_old_text_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let mut file = RotatingFile::open(&path, small(0)).unwrap();
        file.write_all(b"12345678\n").unwrap();
        file.write_all(b"abc\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc\n");
        assert!(!rotated_path(&path, 1).exists());
    }

    #[test]
    fn logs_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        RotatingFile::open(&path, small(1)).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}
