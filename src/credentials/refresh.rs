//! Renewing the access token of a login: one at a time, stored before it is used.
//!
//! The request is the one Claude Code 2.1.197 sends, as observed. A refresh token works once, so
//! from the moment the server has answered, the answer exists only here: room for it on the disk is
//! made before the server is asked, and it is on the disk before anybody uses it. What is lost all
//! the same (a crash in the milliseconds between) ends the login, which the next try finds out
//! as `invalid_grant` and tells.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use zeroize::Zeroizing;

use super::login::{self, Logins, Reserved, word};
use super::secret::wipe;
use super::{Credential, Refusal};
use crate::model::Timestamp;
use crate::ports::tls;

/// Claude Code's own, public.
const CLIENT_ID: &str = "9d1c250a-e61b-44d9-88ed-5944d1962f5e";
const SCOPE: &str =
    "user:profile user:inference user:sessions:claude_code user:mcp_servers user:file_upload";

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Long: an answer that comes after we gave up is a login lost.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Another process renews the same login.
const LOCK_DEADLINE: Duration = Duration::from_secs(90);
const LOCK_AGAIN: Duration = Duration::from_millis(50);
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// A login somebody else has renewed is good for this long at least, or we renew it again.
const GOOD_FOR: i64 = 5 * 60_000;

/// Where and how logins are renewed.
#[derive(Clone, Copy, Debug)]
pub struct Renewal<'a> {
    pub logins: &'a Logins,
    /// https, or http on this machine: the configuration sees to it.
    pub token_url: &'a str,
    /// Also into the user's own file, unless that has changed.
    pub write_back: bool,
    pub now: Timestamp,
}

/// The newer login is on the disk. The pool has to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    pub expires_at: Option<Timestamp>,
    /// Renewed, but something beside it did not work.
    pub warning: Option<String>,
}

/// Holds no byte of a secret. The login is what it was, here and in the user's file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RenewError {
    pub reason: String,
    /// The login is not accepted any more: a person must log in again.
    pub dead: bool,
}

impl RenewError {
    fn passing(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            dead: false,
        }
    }

    fn io(step: &str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::passing(format!("could not {step}: {error}"))
    }
}

/// Renews the login of `credential`, unless somebody else just has. At most one process at a time
/// does so for one login file: it is locked meanwhile (`flock`, gone with the process). Two fleets
/// may share a file if both have `write_back`; else the second finds its refresh token used.
pub async fn renew(credential: &Credential, renewal: Renewal<'_>) -> Result<Renewed, RenewError> {
    let path = &credential.path;
    let _lock = lock(path).await?;
    let refused = |refusal: Refusal| RenewError::passing(refusal.reason);
    let login::Current { users, login } = login::current(path, renewal.logins).map_err(refused)?;
    let had = credential.material().oauth_file.as_ref();
    let has_changed = had.is_none_or(|file| !holds(file.expose(), word(&login, "accessToken")));
    let expires_at = login::expires_at(&login);
    if has_changed && expires_at > renewal.now.0.saturating_add(GOOD_FOR) {
        return Ok(Renewed {
            expires_at: Some(Timestamp(expires_at)),
            warning: None,
        });
    }
    let refresh_token = Zeroizing::new(word(&login, "refreshToken").to_owned());
    if refresh_token.is_empty() {
        return Err(RenewError {
            reason: "it has no refresh token".to_owned(),
            dead: true,
        });
    }
    let reserved = renewal
        .logins
        .reserve(path)
        .map_err(RenewError::io("make room for the renewed login"))?;
    let mut answer = ask(renewal.token_url, &refresh_token).await?;
    let stored = keep(path, &users, &login, &answer, reserved, renewal);
    wipe(&mut answer);
    for login in [users, login] {
        wipe(&mut Json::Object(login));
    }
    stored
}

fn holds(file: &str, token: &str) -> bool {
    serde_json::from_str::<Json>(file).is_ok_and(|mut json| {
        let same = json["claudeAiOauth"]["accessToken"] == token;
        wipe(&mut json);
        same
    })
}

/// The answer on the disk, first of all.
fn keep(
    path: &Path,
    users: &Map<String, Json>,
    login: &Map<String, Json>,
    answer: &Json,
    reserved: Reserved,
    renewal: Renewal<'_>,
) -> Result<Renewed, RenewError> {
    let text = |key: &str| answer[key].as_str().filter(|text| !text.is_empty());
    let Some(access_token) = text("access_token") else {
        return Err(RenewError::passing("the answer holds no access token"));
    };
    let expires_at = answer["expires_in"]
        .as_i64()
        .filter(|seconds| *seconds > 0)
        .and_then(|seconds| seconds.checked_mul(1000)?.checked_add(renewal.now.0));
    let scopes = text("scope").map(|scope| scope.split_whitespace().collect());
    let refresh_token = text("refresh_token");
    let renewed = login::renewed(login, access_token, refresh_token, expires_at, scopes);
    reserved
        .store(path, users, &renewed)
        .map_err(RenewError::io("store the renewed login"))?;
    let warning = if renewal.write_back {
        match login::write_back(path, users, &renewed) {
            Ok(true) => None,
            Ok(false) => Some("its file has changed meanwhile and was not written".to_owned()),
            Err(error) => Some(format!("its file could not be written: {error}")),
        }
    } else {
        None
    };
    let mut renewed = Json::Object(renewed);
    wipe(&mut renewed);
    Ok(Renewed {
        expires_at: expires_at.map(Timestamp),
        warning,
    })
}

async fn ask(url: &str, refresh_token: &str) -> Result<Json, RenewError> {
    let client = client(url).map_err(|error| passing("set up the connection", error))?;
    let mut body = json!({
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": CLIENT_ID,
        "scope": SCOPE,
    });
    let request = client.post(url).json(&body);
    wipe(&mut body);
    let mut response = request
        .send()
        .await
        .map_err(|error| passing("reach the server that renews logins", error))?;
    let status = response.status();
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| passing("read the server's answer", error))?
    {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(RenewError::passing("the server's answer is too large"));
        }
        bytes.extend_from_slice(&chunk);
    }
    let json: Option<Json> = serde_json::from_slice(&bytes).ok();
    if status.is_success() {
        return json.ok_or_else(|| RenewError::passing("the server's answer is no JSON"));
    }
    Err(refusal(status.as_u16(), json.as_ref()))
}

/// `{"error": "invalid_grant"}`, or `{"error": {"type": "invalid_grant"}}`. Of other texts of the
/// server nothing is repeated.
fn refusal(status: u16, json: Option<&Json>) -> RenewError {
    let word = json.and_then(|json| json["error"].as_str().or(json["error"]["type"].as_str()));
    let plain = |word: &&str| {
        (1..=40).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    match word.filter(plain) {
        Some("invalid_grant") if (400..500).contains(&status) => RenewError {
            reason: "the login is not accepted any more (invalid_grant): it was logged out, or its refresh token was used elsewhere".to_owned(),
            dead: true,
        },
        Some(word) => RenewError::passing(format!("the server answered {status} ({word})")),
        None => RenewError::passing(format!("the server answered {status}")),
    }
}

/// No redirects: the token goes where the configuration says and nowhere else.
fn client(url: &str) -> reqwest::Result<reqwest::Client> {
    tls::choose_provider();
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(ANSWER_DEADLINE);
    if url.starts_with("http://") {
        // On this machine: neither a proxy nor the system's certificates have a part in it.
        builder = builder.no_proxy().tls_certs_only([]);
    }
    builder.build()
}

/// The address is left out, the causes are told.
fn passing(step: &str, error: reqwest::Error) -> RenewError {
    let error = error.without_url();
    let mut text = format!("could not {step}: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    RenewError::passing(text)
}

/// The lock on the login's file. A file that is replaced meanwhile is another one: then again.
async fn lock(path: &Path) -> Result<File, RenewError> {
    let locking = async {
        loop {
            let file = File::open(path).map_err(RenewError::io("open the login's file"))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, path) => return Ok(file),
                Ok(()) | Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_AGAIN).await,
                Err(TryLockError::Error(error)) => {
                    return Err(RenewError::io("lock the login's file")(error));
                }
            }
        }
    };
    tokio::time::timeout(LOCK_DEADLINE, locking)
        .await
        .unwrap_or_else(|_| Err(RenewError::passing("another process is renewing it")))
}

fn is_at(file: &File, path: &Path) -> bool {
    let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => of(ours) == of(there),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
