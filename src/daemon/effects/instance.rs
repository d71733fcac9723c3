//! The directories of an instance and what lies in them before its container starts.
//!
//! Everything mounted read-only is written by rename, so that a running instance never reads half
//! a file; everything an agent can write is made once and then left alone.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::claude::seed::Seed;
use crate::claude::settings::{MANAGED_FILE, ManagedSettings, managed_settings};
use crate::daemon::house::House;
use crate::model::{AgentId, CredentialId};
use crate::ports::{ErrorKind, PortError, PortResult};
use crate::worktree::read_beneath;

/// Where an instance finds its login file; `.credentials.json` in its home is a link to it.
pub(super) const CREDENTIALS_INSIDE: &str = "/run/orchestrator/credentials";
const SEED_LIMIT: usize = 32 * 1024 * 1024;

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
    for owned in [paths.home(), paths.spool(), paths.home().join(".claude")] {
        directory(&owned, 0o700, house.owner)?;
    }
    let lent = credential.and_then(|id| house.credentials.get(id));
    let material = lent.map(crate::credentials::Credential::material);
    write_settings(house, &paths.managed(), material)?;
    if let Some(material) = material {
        crate::credentials::write(&paths.credentials(), material, house.owner).map_err(
            |error| {
                PortError::new(
                    ErrorKind::Transient,
                    format!("could not write the credential of {agent}"),
                )
                .because(error)
            },
        )?;
    }
    seed(house, &paths.home())
}

fn write_settings(
    house: &House,
    managed: &Path,
    material: Option<&crate::credentials::Material>,
) -> PortResult<()> {
    let mut wanted = ManagedSettings::default();
    if let Some(material) = material {
        for (name, secret) in &material.settings_env {
            wanted
                .environment
                .insert(name.clone(), secret.expose().to_owned());
        }
        wanted.api_key_helper = material
            .api_key_helper
            .as_ref()
            .map(|secret| secret.expose().to_owned());
    }
    let text = managed_settings(&wanted).to_string();
    // Readable by the agent's user: Claude Code itself reads it.
    replace(
        &managed.join(MANAGED_FILE),
        text.as_bytes(),
        0o600,
        house.owner,
    )
    .map_err(failed("write", MANAGED_FILE))
}

/// `.claude.json` and the link to the login file, in the home the agent can write.
fn seed(house: &House, home: &Path) -> PortResult<()> {
    let seed = Seed {
        approved_keys: house
            .credentials
            .values()
            .filter_map(|credential| credential.material().approved_key_suffix.as_ref())
            .map(|secret| secret.expose().to_owned())
            .collect(),
        ..Seed::default()
    };
    let relative = Path::new(".claude/.claude.json");
    let existing = match read_beneath(home, relative, SEED_LIMIT) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", ".claude.json")(error)),
    };
    let target = home.join(relative);
    let text = match seed.merge(existing.as_deref()) {
        Ok(text) => text,
        Err(problem) => {
            tracing::warn!(%problem, "an agent's .claude.json was damaged; set aside");
            fs::rename(&target, home.join(".claude/.claude.json.damaged"))
                .map_err(failed("set aside", ".claude.json"))?;
            seed.merge(None)
                .map_err(|error| PortError::new(ErrorKind::Broken, error.to_string()))?
        }
    };
    if existing.as_deref() != Some(text.as_str()) {
        replace(&target, text.as_bytes(), 0o600, house.owner)
            .map_err(failed("write", ".claude.json"))?;
    }
    let link = home.join(".claude/.credentials.json");
    match symlink(format!("{CREDENTIALS_INSIDE}/.credentials.json"), &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("link", ".credentials.json")(error))
        }
        _ => Ok(()),
    }
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
