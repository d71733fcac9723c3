//! A file in a checkout, reached without following a link.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::MAX_BYTES;

pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) modified: SystemTime,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
}

/// A file in a checkout, by the directory it is in.
pub(super) struct Target {
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
}

pub(super) const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

impl Target {
    pub(super) fn open(root: &Path, relative: &Path) -> io::Result<(Self, File)> {
        let name = relative
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, directory, Mode::empty())?;
        let parent = match relative.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let target = Self {
            directory: rustix::fs::openat2(root, parent, directory, Mode::empty(), RESOLVE)?,
            name: name.to_owned(),
        };
        let file = target.file(OFlags::RDONLY)?;
        Ok((target, file))
    }

    pub(super) fn file(&self, access: OFlags) -> io::Result<File> {
        // NONBLOCK: a pipe in the file's place must not hang us.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(
            &self.directory,
            self.name.as_os_str(),
            flags,
            Mode::empty(),
            RESOLVE,
        )?;
        Ok(File::from(file))
    }

    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file(OFlags::WRONLY | OFlags::APPEND)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        rustix::fs::fsync(&self.directory).map_err(io::Error::from)
    }
}

/// Not being there is an answer.
pub(super) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn read(mut file: File) -> io::Result<Content> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    let read = (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {MAX_BYTES} bytes"),
        ));
    }
    Ok(Content {
        bytes,
        modified: file.metadata()?.modified()?,
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
    })
}
