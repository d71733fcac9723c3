//! Reading one file, unless others could have read it too.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::{ProblemKind, Refusal};

/// A credential file is a few kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// Any right of group or others.
const OTHERS: u32 = 0o077;

/// The file's text. What is checked is the file that was opened, so that it cannot be exchanged
/// in between. Symbolic links are followed: pointing at `~/.claude/.credentials.json` is fine.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, Refusal> {
    // Without blocking: opening a named pipe would otherwise wait for a writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "it is a directory"
        } else {
            "it is not a regular file"
        };
        return Err(Refusal::new(
            ProblemKind::NotAFile,
            what,
            "let `claudeConfigs` match files only, for example DIRECTORY/*.json",
        ));
    }
    let mode = metadata.mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(Refusal::new(
            ProblemKind::Exposed,
            format!("others than its owner may read or write it (mode {mode:o})"),
            format!("run: chmod 600 {}", quoted(path)),
        ));
    }
    contents(path, file)
}

fn contents(path: &Path, file: File) -> Result<Zeroizing<String>, Refusal> {
    let size = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
    // One allocation: growing would leave copies behind that are not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() > size {
        return Err(Refusal::new(
            ProblemKind::TooLarge,
            "it is larger than 1MiB, so no credential file",
            "narrow `claudeConfigs`, or move the file away",
        ));
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(Refusal::new(
            ProblemKind::NotJson,
            "it is not UTF-8 text",
            "save it as UTF-8, or move it away",
        ));
    };
    if text.trim().is_empty() {
        return Err(Refusal::new(
            ProblemKind::Empty,
            "it is empty",
            "put a credential into it, or remove it",
        ));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => {
            format!(
                "let the user who runs the supervisor own it: chown $(id -u) {}",
                quoted(path)
            )
        }
        ErrorKind::NotFound => "it went away, or is a link to nothing: put it back".to_owned(),
        _ => "see whether the file can be opened at all".to_owned(),
    };
    Refusal::new(
        ProblemKind::Unreadable,
        format!("it cannot be read: {error}"),
        hint,
    )
}

/// The path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,=:".contains(c);
    if text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_the_shell_where_needed() {
        assert_eq!(quoted(Path::new("/a/b.json")), "/a/b.json");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
