//! Writing a snapshot: one commit, made by `git fast-import` from the bytes as they are. No filter,
//! no index, nothing of the working tree is touched.
//!
//! Its tree holds `manifest` and the contents in the manifest's order, `c/000/000`, `c/000/001`, ...
//! Paths stand in the manifest only, because git refuses some of those that a file system takes.
//! The manifest is `orchestrator-rescue 1`, then records, each `WORDS` NUL `PATH` NUL:
//!
//! ```text
//! file KIND MODE SIZE     a path of the working tree; its content is the next one
//! gone                    a path of HEAD that is not in the working tree
//! index MODE STAGE ID     an entry of the index; MODE 000000: staged for deletion. Content follows,
//!                         except with 000000 and 160000 (a submodule's commit)
//! extra SIZE              something beside the files, with content
//! commit ID               a commit that was named by PATH, among the snapshot's parents
//! left WHY                what could not be taken
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{ChildStdin, Stdio};

use super::git::{self, Git, path_of};
use super::heads::Objects;
use super::look::{Item, Kind, MAX_FILES, Seen, Staged};

/// Larger files are handed to git as files, so that they need no memory.
const IN_MEMORY: u64 = 32 * 1024 * 1024;
/// Records of what was left out; the rest is counted.
const MAX_LEFT_OUT: usize = 1000;
/// A file that changes while it is read is read again this often.
const TRIES: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) file: u64,
    pub(super) total: u64,
}

pub(super) struct Order<'a> {
    pub(super) workspace: &'a Path,
    pub(super) reference: &'a str,
    pub(super) seconds: u64,
    /// `HEAD` first, if there is one.
    pub(super) parents: Vec<(String, Vec<u8>)>,
    pub(super) limits: Limits,
}

/// Contents on their way to `git fast-import`.
struct Import {
    input: BufWriter<ChildStdin>,
    manifest: Vec<u8>,
    /// How each content is named to it, in order.
    contents: Vec<String>,
    marks: usize,
    total: u64,
}

/// Makes the snapshot and gives it `reference`. Returns the number of files in it.
pub(super) fn write(
    git: &Git,
    order: &Order<'_>,
    seen: &mut Seen,
    objects: &Objects,
) -> io::Result<usize> {
    let arguments = ["fast-import", "--quiet", "--done", "--date-format=raw"];
    let mut child = git
        .command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(git::no_git)?;
    let written = match child.stdin.take() {
        Some(input) => fill(git, BufWriter::new(input), order, seen, objects),
        None => Err(io::Error::other("no way to git fast-import")),
    };
    let output = child.wait_with_output()?;
    match written {
        // It gave up first: its own words say why.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ if !output.status.success() => Err(git::failed(&arguments, &output.stderr)),
        written => written,
    }
}

fn fill(
    git: &Git,
    input: BufWriter<ChildStdin>,
    order: &Order<'_>,
    seen: &mut Seen,
    objects: &Objects,
) -> io::Result<usize> {
    let mut import = Import {
        input,
        manifest: b"orchestrator-rescue 1\0".to_vec(),
        contents: Vec::new(),
        marks: 0,
        total: 0,
    };
    let mut items = std::mem::take(&mut seen.items);
    in_order_of_worth(order.workspace, &mut items);
    let mut files = 0;
    for item in &items {
        files += usize::from(import.file(git, order, item, files, seen)?);
    }
    for staged in std::mem::take(&mut seen.staged) {
        import.staged(order, &staged, seen, objects)?;
    }
    for extra in std::mem::take(&mut seen.extras) {
        let words = format!("extra {}", extra.content.len());
        import.record(&words, &extra.name);
        import.blob(&extra.content)?;
    }
    for (id, name) in &order.parents {
        import.record(&format!("commit {id}"), name);
    }
    for (path, why) in seen.left_out.iter().take(MAX_LEFT_OUT) {
        import.record(&format!("left {why}"), path);
    }
    if let Some(more) = seen
        .left_out
        .len()
        .checked_sub(MAX_LEFT_OUT)
        .filter(|&more| more > 0)
    {
        import.record(&format!("left and {more} more"), b"...");
    }
    import.finish(order)?;
    Ok(files)
}

/// What is worth most comes first, small before large: the limits cut off the end.
fn in_order_of_worth(workspace: &Path, items: &mut [Item]) {
    let class = |kind: Kind| match kind {
        Kind::Staged | Kind::Changed => 0,
        Kind::Untracked => 1,
        Kind::Nested => 2,
        Kind::Ignored => 3,
    };
    items.sort_by_cached_key(|item| {
        let about = workspace.join(path_of(&item.path)).symlink_metadata();
        let size = about.map_or(0, |about| about.len());
        // By powers of two, so that an edit of a few bytes changes no order.
        (class(item.kind), size.checked_ilog2(), item.path.clone())
    });
}

impl Import {
    fn record(&mut self, words: &str, path: &[u8]) {
        self.manifest
            .extend(words.bytes().filter(|&byte| byte != 0));
        self.manifest.push(0);
        self.manifest.extend(path);
        self.manifest.push(0);
    }

    /// Whether the path counts as a file that differs.
    fn file(
        &mut self,
        git: &Git,
        order: &Order<'_>,
        item: &Item,
        files: usize,
        seen: &mut Seen,
    ) -> io::Result<bool> {
        let path = order.workspace.join(path_of(&item.path));
        let about = match path.symlink_metadata() {
            Ok(about) => about,
            Err(error) if gone(&error) => {
                if matches!(item.kind, Kind::Staged | Kind::Changed) {
                    self.record("gone", &item.path);
                    return Ok(true);
                }
                return Ok(false);
            }
            Err(error) => {
                seen.leave_out(&item.path, format!("cannot be read: {error}"));
                return Ok(false);
            }
        };
        let kind = about.file_type();
        let why_not = if kind.is_dir() {
            // A directory where a file was: what is in it is listed by itself.
            self.record("gone", &item.path);
            return Ok(true);
        } else if files >= MAX_FILES {
            format!("the snapshot has {MAX_FILES} files already")
        } else if kind.is_symlink() {
            return self.link(&path, item, seen);
        } else if !kind.is_file() {
            "neither a file nor a link".to_owned()
        } else if about.len() > order.limits.file {
            format!("larger than {} bytes", order.limits.file)
        } else if self.total + about.len() > order.limits.total {
            format!("the snapshot has {} bytes already", self.total)
        } else {
            return self.content(git, &path, item, order.limits, seen);
        };
        seen.leave_out(&item.path, why_not);
        Ok(false)
    }

    fn link(&mut self, path: &Path, item: &Item, seen: &mut Seen) -> io::Result<bool> {
        match fs::read_link(path) {
            Ok(target) => {
                let target = target.as_os_str().as_bytes();
                let words = format!("file {} 120000 {}", item.kind.word(), target.len());
                self.record(&words, &item.path);
                self.blob(target)?;
                Ok(true)
            }
            Err(error) => {
                seen.leave_out(&item.path, format!("cannot be read: {error}"));
                Ok(false)
            }
        }
    }

    fn content(
        &mut self,
        git: &Git,
        path: &Path,
        item: &Item,
        limits: Limits,
        seen: &mut Seen,
    ) -> io::Result<bool> {
        let (mode, content) = match read(git, path, limits.file) {
            Ok(read) => read,
            Err(error) => {
                seen.leave_out(&item.path, format!("cannot be read: {error}"));
                return Ok(false);
            }
        };
        let size = match &content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Object(_, size) => *size,
        };
        let words = format!("file {} {mode} {size}", item.kind.word());
        self.record(&words, &item.path);
        self.total += size;
        match content {
            Content::Bytes(bytes) => self.blob(&bytes)?,
            Content::Object(id, _) => self.contents.push(id),
        }
        Ok(true)
    }

    fn staged(
        &mut self,
        order: &Order<'_>,
        staged: &Staged,
        seen: &mut Seen,
        objects: &Objects,
    ) -> io::Result<()> {
        let words = format!("index {} {} {}", staged.mode, staged.stage, staged.id);
        if matches!(staged.mode.as_str(), "000000" | "160000")
            || staged.id.bytes().all(|b| b == b'0')
        {
            let bare = if staged.mode == "160000" {
                words
            } else {
                words.replacen(&staged.mode, "000000", 1)
            };
            self.record(&bare, &staged.path);
        } else if !staged.repository.is_empty() {
            let nested = Git::nested(order.workspace.join(path_of(&staged.repository)));
            match nested.run(&["cat-file", "blob", &staged.id]) {
                Ok(content) if self.total + content.len() as u64 <= order.limits.total => {
                    self.total += content.len() as u64;
                    self.record(&words, &staged.path);
                    self.blob(&content)?;
                }
                Ok(_) => seen.leave_out(&staged.path, "staged: the snapshot is full"),
                Err(error) => seen.leave_out(&staged.path, format!("staged: {error}")),
            }
        } else if objects.has(&staged.id) {
            self.record(&words, &staged.path);
            self.contents.push(staged.id.clone());
        } else {
            seen.leave_out(
                &staged.path,
                "staged: its content is missing from the repository",
            );
        }
        Ok(())
    }

    fn blob(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mark = self.mark_blob(bytes)?;
        self.contents.push(mark);
        Ok(())
    }

    fn mark_blob(&mut self, bytes: &[u8]) -> io::Result<String> {
        self.marks += 1;
        let mark = format!(":{}", self.marks);
        write!(self.input, "blob\nmark {mark}\ndata {}\n", bytes.len())?;
        self.input.write_all(bytes)?;
        self.input.write_all(b"\n")?;
        Ok(mark)
    }

    fn finish(mut self, order: &Order<'_>) -> io::Result<()> {
        let manifest = std::mem::take(&mut self.manifest);
        let manifest = self.mark_blob(&manifest)?;
        let message = "Rescue snapshot\n";
        let input = &mut self.input;
        writeln!(input, "commit {}", order.reference)?;
        writeln!(
            input,
            "committer orchestrator <orchestrator@localhost> {} +0000",
            order.seconds
        )?;
        write!(input, "data {}\n{message}", message.len())?;
        for (at, (id, _)) in order.parents.iter().enumerate() {
            writeln!(input, "{} {id}", if at == 0 { "from" } else { "merge" })?;
        }
        input.write_all(b"deleteall\n")?;
        writeln!(input, "M 100644 {manifest} manifest")?;
        for (at, content) in self.contents.iter().enumerate() {
            writeln!(
                input,
                "M 100644 {content} c/{:03}/{:03}",
                at / 1000,
                at % 1000
            )?;
        }
        input.write_all(b"\ndone\n")?;
        input.flush()
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

enum Content {
    Bytes(Vec<u8>),
    /// In the repository already, with its size.
    Object(String, u64),
}

/// Mode and content of a regular file.
fn read(git: &Git, path: &Path, max: u64) -> io::Result<(&'static str, Content)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let named = path.symlink_metadata()?;
        if !named.is_file() {
            return Err(io::Error::other("it is no file any more"));
        }
        let mut file = File::open(path)?;
        let before = file.metadata()?;
        if (before.dev(), before.ino()) != (named.dev(), named.ino()) {
            if tries < TRIES {
                continue;
            }
            return Err(io::Error::other("it is replaced all the time"));
        }
        let mode = if before.permissions().mode() & 0o100 == 0 {
            "100644"
        } else {
            "100755"
        };
        if before.len() > IN_MEMORY {
            let id = store(git, file)?;
            return Ok((mode, Content::Object(id, before.len())));
        }
        let mut bytes = Vec::with_capacity(before.len() as usize + 1);
        (&mut file).take(max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(io::Error::other(format!("it has grown beyond {max} bytes")));
        }
        let after = file.metadata()?;
        let stamp = |about: &fs::Metadata| (about.len(), about.mtime(), about.mtime_nsec());
        if stamp(&before) == stamp(&after) || tries >= TRIES {
            return Ok((mode, Content::Bytes(bytes)));
        }
    }
}

fn store(git: &Git, file: File) -> io::Result<String> {
    let arguments = ["hash-object", "-w", "--no-filters", "--stdin"];
    let output = git
        .command(&arguments)
        .stdin(file)
        .output()
        .map_err(git::no_git)?;
    let id = output.stdout.trim_ascii();
    if output.status.success() && git::is_id(id) {
        return Ok(String::from_utf8_lossy(id).into_owned());
    }
    Err(git::failed(&arguments, &output.stderr))
}
