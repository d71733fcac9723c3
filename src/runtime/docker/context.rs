//! What is sent to the engine for a build, as a tar archive.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::ports::{ErrorKind, PortError, PortResult};
use crate::runtime::labels::hexadecimal;

/// The agent image's files, in the binary, because that runs outside of any checkout.
const BUNDLED: [(&str, &str); 3] = [
    ("Dockerfile", include_str!("../../../docker/Dockerfile")),
    (
        "prepare-base.sh",
        include_str!("../../../docker/prepare-base.sh"),
    ),
    (
        "fetch-claude.sh",
        include_str!("../../../docker/fetch-claude.sh"),
    ),
];

/// A user's build context larger than this is refused: it is held in memory while it is sent.
const MAX_CONTEXT_BYTES: u64 = 256 * 1024 * 1024;

/// Eight hexadecimal digits over the bundled files. Another binary with other files builds anew.
pub fn bundled_hash() -> String {
    let mut digest = Sha256::new();
    for (name, text) in BUNDLED {
        digest.update(name.as_bytes());
        digest.update([0]);
        digest.update(text.as_bytes());
        digest.update([0]);
    }
    hexadecimal(&digest.finalize(), 4)
}

/// The bundled context with the host's certificates in `ca/`.
pub(super) fn bundled(certificates: &[String]) -> PortResult<Bytes> {
    let pack = || -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in BUNDLED {
            add(&mut archive, name, text.as_bytes())?;
        }
        let mut directory = tar::Header::new_gnu();
        directory.set_entry_type(tar::EntryType::Directory);
        directory.set_mode(0o755);
        directory.set_size(0);
        archive.append_data(&mut directory, "ca/", io::empty())?;
        for (number, certificate) in certificates.iter().enumerate() {
            add(
                &mut archive,
                &format!("ca/host-{number:03}.crt"),
                certificate.as_bytes(),
            )?;
        }
        archive.into_inner()
    };
    pack().map(Bytes::from).map_err(|error| {
        PortError::new(ErrorKind::Broken, "packing the image's build context").because(error)
    })
}

/// The directory of a user's Dockerfile, and the Dockerfile's name in it. Symbolic links stay
/// links, so nothing outside of the directory is sent.
pub(super) fn of_dockerfile(dockerfile: &Path) -> PortResult<(Bytes, String)> {
    let wrong = |why: String| {
        PortError::new(
            ErrorKind::Refused,
            format!("the Dockerfile {}: {why}", dockerfile.display()),
        )
    };
    let dockerfile = fs::canonicalize(dockerfile).map_err(|error| {
        wrong("cannot be opened".to_owned())
            .hint("set `image.dockerfile` to the path of a Dockerfile")
            .because(error)
    })?;
    let (Some(directory), Some(name)) = (dockerfile.parent(), dockerfile.file_name()) else {
        return Err(wrong("is not a file".to_owned()));
    };
    let mut archive = tar::Builder::new(Bounded::default());
    archive.follow_symlinks(false);
    let packed = archive
        .append_dir_all(".", directory)
        .and_then(|()| archive.into_inner());
    match packed {
        Ok(bounded) => Ok((Bytes::from(bounded.0), name.to_string_lossy().into_owned())),
        Err(error) => Err(wrong(format!(
            "its directory cannot be sent as build context ({error})"
        ))
        .hint("put the Dockerfile in a directory of its own, with only what it copies")),
    }
}

fn add(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) -> io::Result<()> {
    // No times and no owners: the engine's build cache shall see the same files as the same.
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)
}

/// Memory with an end.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MAX_CONTEXT_BYTES {
            return Err(io::Error::other(format!(
                "it is larger than {} MB",
                MAX_CONTEXT_BYTES / 1024 / 1024
            )));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(archive: &[u8]) -> BTreeSet<String> {
        tar::Archive::new(archive)
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn the_bundled_context_has_what_the_dockerfile_copies() {
        let archive = bundled(&["certificate".to_owned()]).unwrap();
        let names = names(&archive);
        for wanted in [
            "Dockerfile",
            "prepare-base.sh",
            "fetch-claude.sh",
            "ca/host-000.crt",
        ] {
            assert!(names.contains(wanted), "{wanted} is missing in {names:?}");
        }
        let dockerfile = BUNDLED[0].1;
        for line in dockerfile
            .lines()
            .filter(|line| line.starts_with("COPY ") && !line.contains("--from"))
        {
            let source = line.split_whitespace().nth(1).unwrap();
            assert!(
                names.iter().any(|name| name.starts_with(source)),
                "{line} copies what is not sent"
            );
        }
    }

    #[test]
    fn a_users_context_is_the_dockerfiles_directory() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("My.Dockerfile"), "FROM scratch\n").unwrap();
        fs::write(directory.path().join("tool.sh"), "#!/bin/sh\n").unwrap();
        let (archive, name) = of_dockerfile(&directory.path().join("My.Dockerfile")).unwrap();
        assert_eq!(name, "My.Dockerfile");
        assert!(names(&archive).iter().any(|name| name.ends_with("tool.sh")));
    }

    #[test]
    fn a_missing_dockerfile_is_refused() {
        let error = of_dockerfile(Path::new("/nowhere/Dockerfile")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
    }
}
