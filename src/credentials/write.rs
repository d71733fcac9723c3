//! Putting `.credentials.json` into an instance's directory, which its container sees read-only.
//!
//! A running Claude Code looks at the file before each request and takes a renamed-over one at
//! once, even in the middle of a turn; so the file is always whole, and always replaced.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::Material;

/// The file's name in the instance's directory.
pub const CREDENTIALS_FILE: &str = ".credentials.json";

/// What stands in the file when the credential is of another kind: valid, and logged out.
const NO_LOGIN: &str = "{}";

/// What temporary files beside it begin with.
const TEMPORARY: &str = ".credentials.json.new-";

/// The swap failed; the former file is whole and in place.
#[derive(Debug, thiserror::Error)]
#[error("{} {}", step, path.display())]
pub struct WriteError {
    /// What was being done, for example `create the directory`.
    pub step: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Makes `directory` (mode 0700) hold `.credentials.json` (mode 0600) with the login of
/// `material`, or with none. `owner` is the agent's uid and gid; giving files away needs root,
/// `None` leaves them with this process's user. The swap is one rename, safe against a crash at any point.
///
/// `directory` must be out of the agent's reach for writing. Variables and helpers go
/// into the instance's settings, which is not this room's work.
pub fn write(
    directory: &Path,
    material: &Material,
    owner: Option<(u32, u32)>,
) -> Result<(), WriteError> {
    let at = |step, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { step, path, source }
    };
    prepare(directory, owner).map_err(at("prepare the directory", directory))?;
    sweep(directory).map_err(at("remove leftovers in", directory))?;
    let target = directory.join(CREDENTIALS_FILE);
    let text = material
        .oauth_file
        .as_ref()
        .map_or(NO_LOGIN, |secret| secret.expose());
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(at("create a file in", directory))?;
    let fill = |file: &mut File| {
        file.write_all(text.as_bytes())?;
        if let Some((uid, gid)) = owner {
            fchown(&*file, Some(uid), Some(gid))?;
        }
        file.sync_all()
    };
    fill(temporary.as_file_mut()).map_err(at("write a file in", directory))?;
    temporary
        .persist(&target)
        .map_err(|error| at("replace", &target)(error.error))?;
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(at("store the directory", directory))
}

fn prepare(directory: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)?;
    if !fs::symlink_metadata(directory)?.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            "it is a symbolic link or not a directory",
        ));
    }
    let opened = File::open(directory)?;
    if let Some((uid, gid)) = owner {
        fchown(&opened, Some(uid), Some(gid))?;
    }
    opened.set_permissions(Permissions::from_mode(0o700))
}

/// Removes what a crash between writing and renaming left behind: it holds a token.
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
