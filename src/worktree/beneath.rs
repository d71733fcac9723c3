//! Reading one file in a directory an agent can write, without being led out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};

/// Reads the regular file `relative` below `root`. No symbolic link is followed anywhere below
/// `root`, `..` and absolute paths are refused, and so are pipes, devices and directories.
///
/// Errors: `InvalidInput` (a path that could leave `root`, not a regular file), `FileTooLarge`
/// (more than `max_bytes`), and what the system says, for example `NotFound` or a loop for a link.
pub fn read_beneath(root: &Path, relative: &Path, max_bytes: usize) -> io::Result<Vec<u8>> {
    read_regular(open(root, relative)?, max_bytes)
}

/// Opens the regular file `relative` below `root` for reading, under the same rules.
pub fn open_beneath(root: &Path, relative: &Path) -> io::Result<File> {
    let file = File::from(open(root, relative)?);
    if !file.metadata()?.is_file() {
        return Err(invalid("not a regular file"));
    }
    Ok(file)
}

/// Renames `from` to `to`, both in the directory `relative` below `root`, under the same rules. A
/// link itself is renamed, not what it leads to.
pub fn rename_beneath(root: &Path, relative: &Path, from: &str, to: &str) -> io::Result<()> {
    plain_names(Path::new(from))?;
    plain_names(Path::new(to))?;
    let directory = open(root, relative)?;
    rustix::fs::renameat(&directory, from, &directory, to).map_err(io::Error::from)
}

/// A directory that is being filled with paths somebody else chose. Every component is opened
/// without following links, and nothing that exists is opened for writing.
pub(super) struct NewTree {
    root: OwnedFd,
}

impl NewTree {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self {
            root: File::open(root)?.into(),
        })
    }

    pub(super) fn file(&self, path: &[u8], content: &[u8], executable: bool) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if executable { 0o755 } else { 0o644 };
        let file = openat(&directory, name, flags, Mode::from_raw_mode(mode))?;
        File::from(file).write_all(content)
    }

    pub(super) fn link(&self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        rustix::fs::symlinkat(OsStr::from_bytes(target), &directory, name).map_err(io::Error::from)
    }

    /// The directory of `path`, made where it is missing, and the last component.
    fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(OwnedFd, &'p OsStr)> {
        let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
        let harmless = |name: &&[u8]| {
            !matches!(**name, [] | [b'.'] | [b'.', b'.'])
                && !name.eq_ignore_ascii_case(b".git")
                && !name.contains(&0)
        };
        if !names.iter().all(harmless) {
            return Err(invalid("not a path that is written"));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = self.root.try_clone()?;
        let (last, above) = names
            .split_last()
            .ok_or_else(|| invalid("the path is empty"))?;
        for name in above {
            let name = OsStr::from_bytes(name);
            at = match openat(&at, name, flags, Mode::empty()) {
                Err(rustix::io::Errno::NOENT) => {
                    rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755))?;
                    openat(&at, name, flags, Mode::empty())?
                }
                other => other?,
            };
        }
        Ok((at, OsStr::from_bytes(last)))
    }
}

fn open(root: &Path, relative: &Path) -> io::Result<OwnedFd> {
    let names = plain_names(relative)?;
    let root: OwnedFd = File::open(root)?.into();
    // NONBLOCK: opening a pipe an agent left there must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, relative, flags, Mode::empty(), resolve) {
        // Before Linux 5.6, or forbidden by a seccomp profile that does not know it.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            by_component(root, &names, flags)
        }
        other => other.map_err(io::Error::from),
    }
}

fn plain_names(relative: &Path) -> io::Result<Vec<&std::ffi::OsStr>> {
    let mut names = Vec::new();
    for component in relative.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return Err(invalid("the path leads out of its directory")),
        }
    }
    if names.is_empty() {
        return Err(invalid("the path is empty"));
    }
    Ok(names)
}

fn by_component(root: OwnedFd, names: &[&std::ffi::OsStr], flags: OFlags) -> io::Result<OwnedFd> {
    let mut at = root;
    for (index, name) in names.iter().enumerate() {
        let kind = if index + 1 == names.len() {
            OFlags::empty()
        } else {
            OFlags::DIRECTORY
        };
        at = openat(&at, *name, flags | kind | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(at)
}

fn read_regular(opened: OwnedFd, max_bytes: usize) -> io::Result<Vec<u8>> {
    let file = File::from(opened);
    if !file.metadata()?.is_file() {
        return Err(invalid("not a regular file"));
    }
    let mut content = Vec::new();
    // One more than allowed, to see whether there is more; the size may change while we read.
    file.take(max_bytes as u64 + 1).read_to_end(&mut content)?;
    if content.len() > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("the file has more than {max_bytes} bytes"),
        ));
    }
    Ok(content)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn place() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        std::fs::create_dir_all(root.join("docs")).unwrap();
        std::fs::write(place.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("docs/list.md"), "- [ ] one\n").unwrap();
        symlink("../secret", root.join("link.md")).unwrap();
        symlink("docs/list.md", root.join("inner.md")).unwrap();
        symlink("..", root.join("up")).unwrap();
        place
    }

    fn by_hand(root: &Path, relative: &str) -> io::Result<Vec<u8>> {
        let names = plain_names(Path::new(relative))?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        read_regular(by_component(File::open(root)?.into(), &names, flags)?, 100)
    }

    #[test]
    fn a_file_below_is_read_and_nothing_else() {
        let place = place();
        let root = place.path().join("root");
        let read = |path: &str| read_beneath(&root, Path::new(path), 100);
        assert_eq!(read("docs/list.md").unwrap(), b"- [ ] one\n");
        assert_eq!(by_hand(&root, "docs/list.md").unwrap(), b"- [ ] one\n");
        for path in [
            "link.md",
            "inner.md",
            "up/secret",
            "../secret",
            "/etc/passwd",
            "",
            "docs",
            "none",
        ] {
            assert!(read(path).is_err(), "{path}");
            assert!(by_hand(&root, path).is_err(), "{path} without openat2");
        }
    }

    #[test]
    fn a_pipe_does_not_block_and_a_long_file_is_refused() {
        let place = place();
        let root = place.path().join("root");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(read_beneath(&root, Path::new("pipe"), 100).is_err());
        let error = read_beneath(&root, Path::new("docs/list.md"), 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
