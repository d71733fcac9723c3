//! The directories of an instance and what lies in them before its container starts.
//!
//! Everything mounted read-only is written by rename, so that a running instance never reads half
//! a file; everything an agent can write is made once and then left alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::claude::launch::WORKSPACE;
use crate::claude::seed::{self, Seed};
use crate::claude::settings::{
    MANAGED_FILE, ManagedSettings, PresentSettings, ROUTING_VARIABLES, managed_settings,
};
use crate::claude::transcript;
use crate::credentials::Material;
use crate::daemon::house::House;
use crate::model::{AgentId, CredentialId, SessionId};
use crate::ports::{ErrorKind, PortError, PortResult};
use crate::worktree::{open_beneath, read_beneath, rename_beneath};

/// Where an instance finds its login file; `.credentials.json` in its home is a link to it.
pub(super) const CREDENTIALS_INSIDE: &str = "/run/orchestrator/credentials";
const SEED_LIMIT: usize = 32 * 1024 * 1024;

/// A conversation has its first message within its first few kilobytes; a larger file has one.
const TRANSCRIPT_HEAD: u64 = 1024 * 1024;

/// Whether this conversation has begun on disk: `--resume` needs a transcript with a message in it,
/// and `--session-id` refuses an id that has a transcript (both seen with 2.1.197). A session without
/// a prompt has none yet. One that was killed right after its first prompt has a title and no
/// message, with which neither flag starts: such a file is set aside.
pub(super) fn has_transcript(house: &House, agent: &AgentId, session: &SessionId) -> bool {
    let home = house.paths.agent(agent).home();
    let name = format!("{session}.jsonl");
    let directory = Path::new(".claude/projects").join(transcript::slug(WORKSPACE));
    let Ok(file) = open_beneath(&home, &directory.join(&name)) else {
        return false;
    };
    if has_message(file) {
        return true;
    }
    let aside = format!("{name}.without-a-message");
    match rename_beneath(&home, &directory, &name, &aside) {
        Ok(()) => tracing::info!(%agent, %session, "a transcript without a message was set aside"),
        Err(error) => tracing::warn!(%agent, %session, %error, "a transcript cannot be set aside"),
    }
    false
}

fn has_message(file: fs::File) -> bool {
    let mut head = Vec::new();
    let Ok(length) = file.take(TRANSCRIPT_HEAD).read_to_end(&mut head) else {
        return true;
    };
    let user = br#""type":"user""#;
    length as u64 == TRANSCRIPT_HEAD || head.windows(user.len()).any(|bytes| bytes == user)
}

/// Idempotent; run before every launch.
pub(in crate::daemon) fn prepare(
    house: &House,
    agent: &AgentId,
    credential: Option<&CredentialId>,
) -> PortResult<()> {
    let paths = house.paths.agent(agent);
    for private in [paths.root(), &paths.quarantine()] {
        directory(private, 0o700, None)?;
    }
    // Mounted; the parent is closed to everybody else.
    for shown in [paths.managed(), paths.credentials(), paths.socket()] {
        directory(&shown, 0o755, None)?;
    }
    for owned in [paths.home(), paths.spool()] {
        directory(&owned, 0o700, house.owner)?;
    }
    if let Some(lent) = credential.and_then(|id| house.pool.get(id)) {
        let settings = wanted_settings(house, lent.material());
        write_settings(house, &paths.managed(), &settings)?;
        write_login(house, agent, lent.material())?;
    } else {
        // Its file is gone: it goes on with what it has.
        let present = present_settings(&paths.managed());
        let settings = ManagedSettings {
            environment: present.credential_environment(),
            api_key_helper: present.api_key_helper,
            ..ManagedSettings::default()
        };
        write_settings(house, &paths.managed(), &settings)?;
    }
    seed(house, &paths.home())
}

/// What a credential puts into the managed settings. Where requests go is said there in any case,
/// so the configuration's word on it is repeated: a gateway for all, where the credential has none.
pub(super) fn wanted_settings(house: &House, material: &Material) -> ManagedSettings {
    let mut environment = routing(house);
    let own = material.settings_env.iter();
    environment.extend(own.map(|(name, secret)| (name.clone(), secret.expose().to_owned())));
    let helper = material.api_key_helper.as_ref();
    ManagedSettings {
        environment,
        api_key_helper: helper.map(|secret| secret.expose().to_owned()),
        ..ManagedSettings::default()
    }
}

/// Secrets are left out: those of `environment` would take every login's place.
fn routing(house: &House) -> BTreeMap<String, String> {
    let environment = house.config.environment.iter();
    environment
        .filter(|(name, _)| {
            ROUTING_VARIABLES.contains(&name.as_str())
                && !name.ends_with("_KEY")
                && !name.ends_with("_TOKEN")
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The managed settings as they lie there; nothing where there are none yet.
pub(super) fn present_settings(managed: &Path) -> PresentSettings {
    fs::read(managed.join(MANAGED_FILE))
        .ok()
        .and_then(|bytes| PresentSettings::read(&bytes))
        .unwrap_or_default()
}

pub(super) fn write_login(house: &House, agent: &AgentId, material: &Material) -> PortResult<()> {
    let directory = house.paths.agent(agent).credentials();
    crate::credentials::write(&directory, material, house.owner).map_err(|error| {
        PortError::new(
            ErrorKind::Transient,
            format!("could not write the credential of {agent}"),
        )
        .because(error)
    })
}

pub(super) fn write_settings(
    house: &House,
    managed: &Path,
    wanted: &ManagedSettings,
) -> PortResult<()> {
    let text = managed_settings(wanted).to_string();
    // Readable by the agent's user: Claude Code itself reads it.
    replace(
        &managed.join(MANAGED_FILE),
        text.as_bytes(),
        0o600,
        house.owner,
    )
    .map_err(failed("write", MANAGED_FILE))
}

/// Whether the key that ends like this may be used by an instance that runs: Claude Code has asked
/// nobody about it otherwise, and counts as logged out.
pub(super) fn is_approved(house: &House, agent: &AgentId, suffix: &str) -> bool {
    let home = house.paths.agent(agent).home();
    let file = Path::new(".claude").join(SEEDED);
    read_beneath(&home, &file, SEED_LIMIT)
        .is_ok_and(|bytes| seed::is_approved(&String::from_utf8_lossy(&bytes), suffix))
}

/// `.claude.json` and the link to the login file, in the home the agent can write.
fn seed(house: &House, home: &Path) -> PortResult<()> {
    let seed = Seed {
        approved_keys: house
            .pool
            .all()
            .values()
            .filter_map(|credential| credential.material().approved_key_suffix.as_ref())
            .map(|secret| secret.expose().to_owned())
            .collect(),
        ..Seed::default()
    };
    let own = Own::open(home, house.owner).map_err(failed("open", ".claude"))?;
    let existing = match read_beneath(&own.path(), Path::new(SEEDED), SEED_LIMIT) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if own.is_regular(SEEDED) => return Err(failed("read", SEEDED)(error)),
        Err(error) => {
            tracing::warn!(%error, "an agent's .claude.json was no file; set aside");
            own.set_aside(SEEDED).map_err(failed("set aside", SEEDED))?;
            None
        }
    };
    let text = match seed.merge(existing.as_deref()) {
        Ok(text) => text,
        Err(problem) => {
            tracing::warn!(%problem, "an agent's .claude.json was damaged; set aside");
            own.set_aside(SEEDED).map_err(failed("set aside", SEEDED))?;
            seed.merge(None)
                .map_err(|error| PortError::new(ErrorKind::Broken, error.to_string()))?
        }
    };
    if existing.as_deref() != Some(text.as_str()) {
        let target = own.path().join(SEEDED);
        replace(&target, text.as_bytes(), 0o600, house.owner).map_err(failed("write", SEEDED))?;
    }
    let link = own.path().join(".credentials.json");
    match symlink(format!("{CREDENTIALS_INSIDE}/.credentials.json"), &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("link", ".credentials.json")(error))
        }
        _ => Ok(()),
    }
}

const SEEDED: &str = ".claude.json";

/// `.claude` in a home that its agent can write, held by its descriptor: whatever the agent puts in
/// its place, we write into this directory and nowhere else.
struct Own {
    fd: OwnedFd,
}

impl Own {
    /// Makes it when it is not there. What is there and is no directory is set aside.
    fn open(home: &Path, owner: Option<(u32, u32)>) -> io::Result<Self> {
        const NAME: &str = ".claude";
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let home = rustix::fs::open(home, flags, Mode::empty())?;
        match rustix::fs::openat(&home, NAME, flags, Mode::empty()) {
            Ok(fd) => return Ok(Self { fd }),
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP | Errno::NOTDIR) => {
                tracing::warn!("an agent's .claude was no directory; set aside");
                rustix::fs::renameat(&home, NAME, &home, aside(NAME))?;
            }
            Err(error) => return Err(error.into()),
        }
        rustix::fs::mkdirat(&home, NAME, Mode::RWXU)?;
        let fd = rustix::fs::openat(&home, NAME, flags, Mode::empty())?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&fd, Some(uid), Some(gid))?;
        }
        Ok(Self { fd })
    }

    /// Leads to the directory itself, by its descriptor.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    fn is_regular(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    fn set_aside(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, name, &self.fd, aside(name))?)
    }
}

/// A name that is not there yet, whoever tries to be first.
fn aside(name: &str) -> String {
    format!("{name}.damaged-{}", uuid::Uuid::now_v7())
}

/// Makes a directory, or checks that what is there is a directory and not a link to somewhere.
fn directory(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> PortResult<()> {
    let shown = path.display().to_string();
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            let text = format!("{shown} is not a directory");
            return Err(PortError::new(ErrorKind::Broken, text).hint("move it aside and try again"));
        }
        Err(_) => {}
    }
    fs::create_dir_all(path).map_err(failed("create", &shown))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("open", &shown))?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .map_err(failed("give away", &shown))?;
    }
    Ok(())
}

fn replace(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(file.as_file(), Some(uid), Some(gid))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn failed(what: &str, path: &str) -> impl FnOnce(io::Error) -> PortError {
    let text = format!("could not {what} {path}");
    move |cause| {
        let full = cause.kind() == io::ErrorKind::StorageFull;
        let error = PortError::new(ErrorKind::Transient, text).because(cause);
        if full {
            error.hint("free some disk space")
        } else {
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_place_of_the_own_directory_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (home, outside) = (root.path().join("home"), root.path().join("outside"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, home.join(".claude")).unwrap();
        let own = Own::open(&home, None).unwrap();
        replace(&own.path().join(SEEDED), b"{}", 0o600, None).unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read(home.join(".claude").join(SEEDED)).unwrap(), b"{}");
    }

    #[test]
    fn what_replaces_the_directory_later_gets_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (home, outside) = (root.path().join("home"), root.path().join("outside"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&outside).unwrap();
        let own = Own::open(&home, None).unwrap();
        fs::rename(home.join(".claude"), home.join("moved")).unwrap();
        symlink(&outside, home.join(".claude")).unwrap();
        replace(&own.path().join(SEEDED), b"{}", 0o600, None).unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(home.join("moved").join(SEEDED).is_file());
    }

    #[test]
    fn a_link_in_place_of_a_file_is_set_aside_and_not_written_through() {
        let root = tempfile::tempdir().unwrap();
        let (home, outside) = (root.path().join("home"), root.path().join("outside"));
        fs::create_dir(&home).unwrap();
        fs::write(&outside, "theirs").unwrap();
        let own = Own::open(&home, None).unwrap();
        symlink(&outside, own.path().join(SEEDED)).unwrap();
        assert!(read_beneath(&own.path(), Path::new(SEEDED), SEED_LIMIT).is_err());
        assert!(!own.is_regular(SEEDED));
        own.set_aside(SEEDED).unwrap();
        replace(&own.path().join(SEEDED), b"{}", 0o600, None).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"theirs");
    }
}
