//! What is put into the directory that instances have mounted read-only at `/opt/orchestrator`.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

/// The static helper, compiled by `build.rs` from `hooks/src`.
pub const HELPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/orchestrator-hook"));
/// Its name in the directory.
pub const HELPER_NAME: &str = "orchestrator-hook";

/// Whose the files shall be; `None` leaves them the daemon's own, which is right for a read-only
/// mount: everyone may read and run them.
pub type Owner = Option<(u32, u32)>;

/// Writes the helper and `scripts` (name and content, for example `bring-up-to.sh`) with mode 0755,
/// each by rename: an instance that runs the old one goes on with it, and none sees half a file.
pub fn install(directory: &Path, owner: Owner, scripts: &[(&str, &str)]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    put(directory, HELPER_NAME, HELPER, owner)?;
    for (name, content) in scripts {
        put(directory, name, content.as_bytes(), owner)?;
    }
    File::open(directory)?.sync_all()
}

fn put(directory: &Path, name: &str, content: &[u8], owner: Owner) -> io::Result<()> {
    let wanted = directory.join(name);
    if fs::read(&wanted).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(0o755))?;
    if let Some((uid, gid)) = owner {
        chown(file.path(), Some(uid), Some(gid))?;
    }
    file.as_file().sync_all()?;
    // Closed before the rename: a file that is open for writing cannot be run.
    file.into_temp_path().persist(wanted)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    /// A process that another test starts at this moment may still hold the file open for writing.
    fn run(path: &Path, arguments: &[&str]) -> io::Result<Output> {
        loop {
            match Command::new(path).args(arguments).output() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                result => return result,
            }
        }
    }

    #[test]
    fn what_is_installed_runs_and_is_replaced_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("opt");
        install(&path, None, &[("bring-up-to.sh", "#!/bin/sh\n")]).unwrap();
        let output = run(&path.join(HELPER_NAME), &["--version"]).unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            concat!("orchestrator-hook ", env!("CARGO_PKG_VERSION"), "\n")
        );
        install(&path, None, &[("bring-up-to.sh", "#!/bin/sh\nexit 3\n")]).unwrap();
        let script = path.join("bring-up-to.sh");
        assert_eq!(run(&script, &[]).unwrap().status.code(), Some(3));
        assert_eq!(
            fs::metadata(script).unwrap().permissions().mode() & 0o7777,
            0o755
        );
        assert_eq!(
            fs::read_dir(path).unwrap().count(),
            2,
            "nothing temporary is left"
        );
    }

    #[test]
    fn the_helper_needs_no_library() {
        // An ELF file without a program interpreter is static (PT_INTERP is 3).
        let offset =
            usize::try_from(u64::from_le_bytes(HELPER[32..40].try_into().unwrap())).unwrap();
        let size = usize::from(u16::from_le_bytes(HELPER[54..56].try_into().unwrap()));
        let count = usize::from(u16::from_le_bytes(HELPER[56..58].try_into().unwrap()));
        for n in 0..count {
            let header = &HELPER[offset + n * size..];
            assert_ne!(header[..4], 3_u32.to_le_bytes());
        }
        assert!(count > 0);
    }
}
