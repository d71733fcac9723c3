//! Renewed logins: the newer copy in the state directory, and which of two copies counts.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::hex;
use super::read::read;
use super::secret::wipe;

/// The keys that a renewal changes; plan and tier stay as the user's file has them.
const RENEWED: [&str; 4] = ["accessToken", "refreshToken", "expiresAt", "scopes"];
/// Reserved before the server is asked. A login has about 1 KiB.
const ROOM: usize = 16 * 1024;
const TEMPORARY: &str = ".new-";

/// The directory of the newer copies, `STATE/credentials`, mode 0700. Each holds a refresh token.
#[derive(Clone, Debug)]
pub struct Logins {
    directory: PathBuf,
}

impl Logins {
    pub fn new(state_directory: &Path) -> Self {
        Self {
            directory: state_directory.join("credentials"),
        }
    }

    /// Keyed by where the login really lies, so that a link and its target are one login.
    fn copy_of(&self, path: &Path) -> PathBuf {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let hash = Sha256::digest(real.as_os_str().as_encoded_bytes());
        self.directory.join(format!("{}.json", hex(&hash[..8])))
    }

    /// The copy, where it counts: it is newer, and the user's file still is what it was made from.
    /// A file that a refused renewal elsewhere has emptied is no wish of the user's either.
    pub(super) fn newer(
        &self,
        path: &Path,
        login: &Map<String, Json>,
    ) -> Option<Map<String, Json>> {
        let file = self.copy_of(path);
        if !file.exists() {
            return None;
        }
        let text = match read(&file) {
            Ok(text) => text,
            Err(refusal) => {
                let reason = refusal.reason;
                tracing::warn!(file = %file.display(), reason, "a renewed login cannot be read");
                return None;
            }
        };
        let Ok(Json::Object(mut copy)) = serde_json::from_str(&text) else {
            tracing::warn!(file = %file.display(), "a renewed login is damaged");
            return None;
        };
        let made_from_this = copy.get("origin").and_then(Json::as_str) == Some(&origin(login));
        let emptied = word(login, "accessToken").is_empty();
        let Some(Json::Object(renewed)) = copy.remove("login") else {
            return None;
        };
        let newer = expires_at(&renewed) >= expires_at(login);
        (emptied || (made_from_this && newer)).then_some(renewed)
    }

    /// Makes sure, before the server is asked, that its answer can be stored: room on the disk, and
    /// the right to write. Leftovers of a crash are removed.
    pub(super) fn reserve(&self, path: &Path) -> io::Result<Reserved> {
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        fs::set_permissions(&self.directory, Permissions::from_mode(0o700))?;
        let target = self.copy_of(path);
        let mut prefix = target.file_stem().unwrap_or_default().to_os_string();
        prefix.push(TEMPORARY);
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name
                .as_encoded_bytes()
                .starts_with(prefix.as_encoded_bytes())
            {
                fs::remove_file(entry.path())?;
            }
        }
        let mut file = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.directory)?;
        file.write_all(&[b' '; ROOM])?;
        file.as_file().sync_all()?;
        Ok(Reserved { file, target })
    }
}

/// A file of the right size that waits for its content.
#[derive(Debug)]
pub(super) struct Reserved {
    file: NamedTempFile,
    target: PathBuf,
}

impl Reserved {
    /// On disk when this returns.
    pub(super) fn store(
        mut self,
        path: &Path,
        before: &Map<String, Json>,
        renewed: &Map<String, Json>,
    ) -> io::Result<()> {
        let mut copy = json!({
            "note": "renewed by orchestrator; holds a secret",
            "path": path.display().to_string(),
            "origin": origin(before),
            "login": renewed,
        });
        let text = Zeroizing::new(copy.to_string());
        if let Some(login) = copy.get_mut("login") {
            wipe(login);
        }
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.as_file().set_len(text.len() as u64)?;
        self.file.as_file().sync_all()?;
        self.file
            .persist(&self.target)
            .map_err(|error| error.error)?;
        sync_directory(&self.target)
    }
}

/// The user's own file with the renewed login in it, unless its login is not `before` any more.
/// `Ok(false)`: it had changed, and was left alone.
pub(super) fn write_back(
    path: &Path,
    before: &Map<String, Json>,
    renewed: &Map<String, Json>,
) -> io::Result<bool> {
    let real = fs::canonicalize(path)?;
    let text = read(&real).map_err(|refusal| io::Error::other(refusal.reason))?;
    let Ok(mut json) = serde_json::from_str::<Json>(&text) else {
        return Ok(false);
    };
    let Some(Json::Object(login)) = json.get_mut("claudeAiOauth") else {
        return Ok(false);
    };
    if origin(login) != origin(before) {
        wipe(&mut json);
        return Ok(false);
    }
    login.extend(renewed.clone());
    let text = Zeroizing::new(json.to_string());
    wipe(&mut json);
    let now = fs::metadata(&real)?;
    let directory = real.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".credentials-")
        .permissions(Permissions::from_mode(now.mode() & 0o777))
        .tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    if now.uid() != file.as_file().metadata()?.uid() {
        fchown(file.as_file(), Some(now.uid()), Some(now.gid()))?;
    }
    file.as_file().sync_all()?;
    file.persist(&real).map_err(|error| error.error)?;
    sync_directory(&real)?;
    Ok(true)
}

fn sync_directory(file: &Path) -> io::Result<()> {
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A login in the user's file, and the one that counts.
pub(super) struct Current {
    pub(super) users: Map<String, Json>,
    pub(super) login: Map<String, Json>,
}

/// The login in a file, with the newer copy where that counts.
pub(super) fn current(path: &Path, logins: &Logins) -> Result<Current, super::Refusal> {
    let text = read(path)?;
    let unknown = || {
        super::Refusal::new(
            super::ProblemKind::Invalid,
            "it holds no login any more",
            "log in again with `claude` and `/login`, and replace the file",
        )
    };
    let mut json: Json = serde_json::from_str(&text).map_err(|_| unknown())?;
    let Some(Json::Object(users)) = json.get_mut("claudeAiOauth").map(Json::take) else {
        return Err(unknown());
    };
    let mut login = users.clone();
    if let Some(newer) = logins.newer(path, &users) {
        login.extend(newer);
    }
    Ok(Current { users, login })
}

/// What a renewal changes, out of a login and the server's answer.
pub(super) fn renewed(
    login: &Map<String, Json>,
    access_token: &str,
    refresh_token: Option<&str>,
    expires_at: Option<i64>,
    scopes: Option<Vec<&str>>,
) -> Map<String, Json> {
    let mut renewed: Map<String, Json> = login
        .iter()
        .filter(|(key, _)| RENEWED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    renewed.insert("accessToken".to_owned(), json!(access_token));
    if let Some(token) = refresh_token {
        renewed.insert("refreshToken".to_owned(), json!(token));
    }
    // Without an answer to it, unknown is right and the old time is not.
    renewed.insert("expiresAt".to_owned(), json!(expires_at.unwrap_or(0)));
    if let Some(scopes) = scopes {
        renewed.insert("scopes".to_owned(), json!(scopes));
    }
    renewed
}

pub(super) fn word<'a>(login: &'a Map<String, Json>, key: &str) -> &'a str {
    login.get(key).and_then(Json::as_str).unwrap_or_default()
}

pub(super) fn expires_at(login: &Map<String, Json>) -> i64 {
    login
        .get("expiresAt")
        .and_then(Json::as_i64)
        .unwrap_or_default()
}

/// Tells one login from the next; stands only in files that hold a login themselves.
fn origin(login: &Map<String, Json>) -> String {
    let mut hash = Sha256::new();
    for key in ["accessToken", "refreshToken"] {
        let token = word(login, key);
        hash.update((token.len() as u64).to_le_bytes());
        hash.update(token.as_bytes());
    }
    hex(&hash.finalize()[..16])
}
