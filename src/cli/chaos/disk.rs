//! A small disk for the state directory, so that it can be full without anybody else's being so.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::Error;
use super::super::error::Result;
use super::run::ran;

/// Holds the store, four checkouts and homes; in memory, and only what is used of it.
const SIZE: &str = "768m";

/// Unmounted when it is dropped.
pub(super) struct SmallDisk {
    path: PathBuf,
    mounted: bool,
}

impl SmallDisk {
    /// Mounts it at a directory, which is made. Only for root.
    pub(super) fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)
            .map_err(|error| Error::io(format!("cannot make {}", path.display()), &error))?;
        let options = format!("size={SIZE},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "orchestrator-chaos"]);
        ran(mount.arg(&path), "mounting a small disk")?;
        Ok(Self {
            path,
            mounted: true,
        })
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Takes all the room there is.
    pub(super) fn fill(&self) -> Result<()> {
        let path = self.ballast();
        let failed = |error: &std::io::Error| Error::io("cannot fill the small disk", error);
        let mut file = File::create(&path).map_err(|error| failed(&error))?;
        for block in [1 << 20, 1 << 12, 1] {
            let bytes = vec![b'x'; block];
            loop {
                match file.write_all(&bytes) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(failed(&error)),
                }
            }
        }
        Ok(())
    }

    /// Makes room again.
    pub(super) fn free(&self) -> Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io("cannot free the small disk", &error))
            }
            _ => Ok(()),
        }
    }

    /// Copies everything to a directory of the machine's own disk, beside the mounted one.
    pub(super) fn copy_to(&self, target: &Path) -> Result<()> {
        self.free()?;
        let mut copy = Command::new("cp");
        ran(
            copy.arg("-a").arg(&self.path).arg(target),
            "keeping the state",
        )
    }

    pub(super) fn unmount(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.mounted) {
            return Ok(());
        }
        // Lazily: a pane's client may still have its log open for a moment.
        ran(
            Command::new("umount").arg("--lazy").arg(&self.path),
            "unmounting the small disk",
        )
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nobody could be told of an error here.
        let _ = self.unmount();
    }
}
