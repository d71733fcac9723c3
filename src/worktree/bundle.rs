//! Taking an agent's commits in, as data.
//!
//! A bundle is made by the agent and may be anything. It is unpacked into a throwaway repository
//! that borrows the store's objects, checked there, and only then fetched into the store: what is
//! refused leaves nothing behind.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use git2::{ErrorCode, Repository};

use super::command::{Git, last_lines};
use super::read::descends;
use super::store::{GitStore, agent_prefix, broken, find, oid};
use super::{making, read};
use crate::model::{AgentId, CommitId};
use crate::ports::{ErrorKind, PortError, PortResult};

/// Unpacking and checking; a small bundle that inflates without end is ended by this.
const DEADLINE: Duration = Duration::from_secs(300);
/// The part of a bundle before the pack: a signature and a few references.
const MAX_HEADER: usize = 64 * 1024;
const ARRIVED: &str = "refs/arrived/";

/// Where the bundle is.
#[derive(Clone, Copy, Debug)]
pub enum BundleSource<'a> {
    Bytes(&'a [u8]),
    /// A file of the supervisor's own. It is copied before it is looked at.
    File(&'a Path),
}

impl GitStore {
    /// Imports the agent's commits up to `expected_head` and moves `refs/workers/<agent>/head`
    /// there by compare-and-set. An older head that the new one does not contain stays reachable
    /// under `refs/workers/<agent>/previous/`. An empty bundle means "nothing new": the store must
    /// know the commit already.
    ///
    /// Errors: `Refused` (larger than `max_bytes`, or another head than expected), `Broken` (a
    /// bundle that does not pass git's checks or lacks objects), `Transient` (another import of
    /// the same agent won). In every case nothing has moved.
    pub fn import_bundle(
        &self,
        agent: &AgentId,
        bundle: BundleSource<'_>,
        expected_head: &CommitId,
        max_bytes: u64,
    ) -> PortResult<()> {
        let prefix = agent_prefix(agent)?;
        let expected = oid(expected_head)?;
        let wanted = std::slice::from_ref(expected_head);
        if !self.admit(agent, bundle, wanted, max_bytes)? && !self.contains(expected_head)? {
            return Err(PortError::new(
                ErrorKind::Broken,
                format!("{agent} sent an empty bundle, but {expected_head} is not in the store"),
            ));
        }
        let repository = self.repository()?;
        read::commit(&repository, expected)?;
        move_worker(&repository, &prefix, expected)
    }

    /// Takes the objects of `expected` into the store through the quarantine; no reference moves.
    /// False: the bundle was empty.
    pub(super) fn admit(
        &self,
        agent: &AgentId,
        bundle: BundleSource<'_>,
        expected: &[CommitId],
        max_bytes: u64,
    ) -> PortResult<bool> {
        let private = tempfile::Builder::new()
            .prefix(".import-")
            .tempdir_in(self.path.parent().unwrap_or(&self.path))
            .map_err(|cause| making::failed("make a directory beside", &self.path, cause))?;
        let file = private.path().join("work.bundle");
        if copy(bundle, &file, max_bytes)? == 0 {
            return Ok(false);
        }
        let references = check_header(agent, &file, expected)?;
        self.unpack(agent, private.path(), &file, &references, expected)?;
        Ok(true)
    }

    fn unpack(
        &self,
        agent: &AgentId,
        private: &Path,
        file: &Path,
        references: &[String],
        expected: &[CommitId],
    ) -> PortResult<()> {
        let quarantine = private.join("quarantine.git");
        Git::bare_of_repository()
            .args([
                "init",
                "--quiet",
                "--bare",
                "--template=",
                "--object-format=sha1",
                "--",
            ])
            .arg(&quarantine)
            .run("git init of a quarantine")?;
        let alternates = quarantine.join("objects/info");
        fs::create_dir_all(&alternates)
            .and_then(|()| {
                let mut line = self
                    .objects_directory()
                    .into_os_string()
                    .into_encoded_bytes();
                line.push(b'\n');
                fs::write(alternates.join("alternates"), line)
            })
            .map_err(|cause| making::failed("write", &alternates, cause))?;
        let arrived: Vec<String> = (0..references.len())
            .map(|number| format!("{ARRIVED}{number}"))
            .collect();
        let pairs = references.iter().zip(&arrived);
        let refspecs: Vec<String> = pairs.map(|(from, to)| format!("+{from}:{to}")).collect();
        if let Some(said) = fetch(&quarantine, file, &refspecs)? {
            return Err(malicious(agent, &said));
        }
        let repository = Repository::open_bare(&quarantine)
            .map_err(|cause| broken("the quarantine cannot be opened", cause))?;
        for (name, expected) in arrived.iter().zip(expected) {
            let found = repository
                .refname_to_id(name)
                .map_err(|cause| broken("the bundle brought no commit", cause))?;
            if found.to_string() != expected.as_str() {
                let said = format!("it delivered {found} instead of {expected}");
                return Err(malicious(agent, &said));
            }
        }
        // Checked a second time on the way in, by the transport that honours the setting in every
        // version of git, and for connectivity: every object the commits need must be there.
        if let Some(said) = fetch(&self.path, &quarantine, &arrived)? {
            return Err(malicious(agent, &said));
        }
        Ok(())
    }
}

/// Returns the references of the bundle that name the expected commits.
fn check_header(agent: &AgentId, file: &Path, expected: &[CommitId]) -> PortResult<Vec<String>> {
    let mut start = Vec::new();
    File::open(file)
        .and_then(|f| f.take(MAX_HEADER as u64).read_to_end(&mut start))
        .map_err(|cause| making::failed("read", file, cause))?;
    let references =
        header(&start).ok_or_else(|| malicious(agent, "it is not a git bundle of version 2"))?;
    let named =
        |expected: &CommitId| match references.iter().find(|(id, _)| id == expected.as_str()) {
            Some((_, name)) => Ok(name.clone()),
            None => Err(PortError::new(
                ErrorKind::Refused,
                format!(
                    "the bundle of {agent} holds {} and not {expected}",
                    references.first().map_or("nothing", |(id, _)| id.as_str())
                ),
            )
            .hint("its branch moved meanwhile; look at its head again and export anew")),
        };
    expected.iter().map(named).collect()
}

fn move_worker(repository: &Repository, prefix: &str, new: git2::Oid) -> PortResult<()> {
    let head = format!("{prefix}/head");
    let moved = match find(repository, &head)? {
        Some(old) if old == new => return Ok(()),
        Some(old) => {
            if !descends(repository, new, old)? {
                repository
                    .reference(
                        &format!("{prefix}/previous/{old}"),
                        old,
                        true,
                        "rewritten by the agent",
                    )
                    .map_err(|cause| broken("could not keep the agent's older work", cause))?;
            }
            repository.reference_matching(&head, new, true, old, "import")
        }
        None => repository.reference(&head, new, false, "import"),
    };
    match moved {
        Ok(_) => Ok(()),
        Err(cause)
            if matches!(
                cause.code(),
                ErrorCode::Modified | ErrorCode::Locked | ErrorCode::Exists | ErrorCode::NotFound
            ) =>
        {
            Err(PortError::new(
                ErrorKind::Transient,
                format!("{head} moved during the import"),
            )
            .because(cause))
        }
        Err(cause) => Err(broken(&format!("could not move {head}"), cause)),
    }
}

/// Fetches with every check on. `Some`: git refused, with its words.
fn fetch(into: &Path, from: &Path, refspecs: &[String]) -> PortResult<Option<String>> {
    let output = Git::local(into)
        .deadline(DEADLINE)
        .args([
            "-c",
            "fetch.fsckObjects=true",
            "-c",
            "transfer.fsckObjects=true",
        ])
        // Larger files are streamed, so what a small bundle inflates to does not fill the memory.
        .args(["-c", "core.bigFileThreshold=32m"])
        .args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"])
        .args(["--no-recurse-submodules", "--no-auto-maintenance", "--"])
        .arg(from)
        .args(refspecs)
        .output()?;
    Ok((!output.status.success()).then(|| last_lines(&output.stderr)))
}

fn malicious(agent: &AgentId, said: &str) -> PortError {
    PortError::new(
        ErrorKind::Broken,
        format!("the bundle of {agent} was refused: {said}"),
    )
    .hint("nothing was taken over; look at the repository in the agent's container with `git fsck`")
}

/// Copies at most `max_bytes`; returns how many there were.
fn copy(bundle: BundleSource<'_>, to: &Path, max_bytes: u64) -> PortResult<u64> {
    let mut source: Box<dyn Read + '_> = match bundle {
        BundleSource::Bytes(bytes) => Box::new(bytes),
        BundleSource::File(path) => {
            Box::new(File::open(path).map_err(|cause| making::failed("open", path, cause))?)
        }
    };
    let size = File::create_new(to)
        .and_then(|mut file| {
            let size = io::copy(
                &mut source.by_ref().take(max_bytes.saturating_add(1)),
                &mut file,
            )?;
            file.flush()?;
            Ok(size)
        })
        .map_err(|cause| making::failed("write", to, cause))?;
    if size > max_bytes {
        return Err(PortError::new(
            ErrorKind::Refused,
            format!("the bundle has more than {max_bytes} bytes"),
        )
        .hint("are large generated files committed? Raise the limit if they belong there"));
    }
    Ok(size)
}

/// The references of a version 2 bundle (gitformat-bundle): a signature, `-<id> <comment>` lines
/// for what it builds on, `<id> <name>` lines for what it brings, an empty line, the pack.
fn header(start: &[u8]) -> Option<Vec<(String, String)>> {
    let end = start.windows(2).position(|pair| pair == b"\n\n")?;
    let text = std::str::from_utf8(&start[..end]).ok()?;
    let mut lines = text.lines();
    if lines.next()? != "# v2 git bundle" {
        return None;
    }
    let mut references = Vec::new();
    for line in lines.filter(|line| !line.starts_with('-')) {
        let (id, name) = line.split_once(' ')?;
        let plain =
            name == "HEAD" || (name.starts_with("refs/") && git2::Reference::is_valid_name(name));
        if id.len() != 40 || !plain {
            return None;
        }
        references.push((id.to_owned(), name.to_owned()));
    }
    Some(references)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn a_header_is_read_and_prerequisites_are_skipped() {
        let text = format!("# v2 git bundle\n-{ID} a comment\n{ID} refs/heads/x\n\nPACK");
        assert_eq!(
            header(text.as_bytes()),
            Some(vec![(ID.to_owned(), "refs/heads/x".to_owned())])
        );
    }

    #[test]
    fn other_headers_are_refused() {
        for text in [
            "PACK".to_owned(),
            "# v3 git bundle\n@object-format=sha256\n\n".to_owned(),
            format!("# v2 git bundle\n{ID} --upload-pack=x\n\n"),
            format!("# v2 git bundle\n{ID} refs/../x\n\n"),
            format!("# v2 git bundle\n{ID} refs/x"),
        ] {
            assert_eq!(header(text.as_bytes()), None, "{text}");
        }
    }
}
