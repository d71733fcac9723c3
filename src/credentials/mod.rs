//! Claude credentials: found by a glob, told apart by content, kept secret, put into instances.
//!
//! Called by the daemon, which leases them to agents, swaps and renews them, and by `doctor` and
//! `credentials`, which show them. Parsing of settings happens here and not in `claude`, because
//! nothing outside this room should hold these files' text.
//!
//! Refresh tokens work once: several holders of one log each other out. So the supervisor alone
//! renews a login ([`renew`]), under a lock on the login's file, and keeps the newer one in the state
//! directory ([`Logins`]). The user's file is written only when they ask for it.
//!
//! Must never: put a byte of a secret into a message, `Debug` or `Display`; hand a refresh token to
//! an instance; write a login that is worse than the one it replaces.

mod classify;
mod identity;
mod login;
mod pool;
mod read;
mod refresh;
mod secret;
mod write;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

pub use login::Logins;
pub use pool::load_pool;
pub use refresh::{RenewError, Renewal, Renewed, renew};
pub use secret::Secret;
pub use write::{CREDENTIALS_FILE, WriteError, write};

use crate::model::{CredentialId, CredentialInfo, CredentialKind, Timestamp};

/// What a glob gave: usable credentials and everything that is not, with the reason.
#[derive(Debug, Default)]
pub struct Pool {
    /// Sorted by id; ids are distinct.
    pub credentials: Vec<Credential>,
    pub problems: Vec<CredentialProblem>,
}

/// One usable credential.
#[derive(Clone, Debug)]
pub struct Credential {
    pub id: CredentialId,
    pub kind: CredentialKind,
    pub path: PathBuf,
    /// `max`, `pro`, `team`, as a login's file says.
    pub plan: Option<String>,
    /// A login or a subscription's token, with a 5-hour and a weekly window.
    pub subscription: bool,
    /// When the access token expires, if the file says so. A time in the past does not make the
    /// credential unusable: the supervisor renews it.
    pub expires_at: Option<Timestamp>,
    /// Worth telling a person; no reason against using it.
    pub notes: Vec<String>,
    material: Material,
    /// Never leaves the supervisor.
    refresh_token: Option<Secret>,
}

impl Credential {
    /// What an instance is given.
    pub fn material(&self) -> &Material {
        &self.material
    }

    /// Whether the supervisor can renew it.
    pub fn refreshable(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// Everything that must not be seen, for a redactor.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let material = &self.material;
        material
            .settings_env
            .values()
            .chain(&material.api_key_helper)
            .chain(&material.oauth_file)
            .chain(&self.refresh_token)
    }

    /// What may be told of it.
    pub fn info(&self) -> CredentialInfo {
        CredentialInfo {
            id: self.id.clone(),
            kind: self.kind,
            plan: self.plan.clone(),
            subscription: self.subscription,
            refreshable: self.refreshable(),
            expires_at: self.expires_at,
            fingerprint: self.material.fingerprint(),
        }
    }
}

/// What an instance is given to be logged in. Two equal materials need no swap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material {
    /// Every variable under `env` of a settings file. Removing one from an instance's settings does
    /// not unset it in a running Claude Code: set those of the former credential to `""`.
    pub settings_env: BTreeMap<String, Secret>,
    /// A command, run inside the container; may hold a secret itself.
    pub api_key_helper: Option<Secret>,
    /// JSON text of `.credentials.json`: access token, scopes, plan and tier. No refresh token, and
    /// no expiry, which without one would only be ignored.
    pub oauth_file: Option<Secret>,
    /// The last 20 characters of an `ANTHROPIC_API_KEY`, for `customApiKeyResponses.approved`.
    pub approved_key_suffix: Option<Secret>,
}

impl Material {
    /// Changes with the material. So short (40 bits) that many guesses would fit it: it confirms
    /// none.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        part("orchestrator credential material");
        for (name, value) in &self.settings_env {
            part(name);
            part(value.expose());
        }
        for other in [&self.api_key_helper, &self.oauth_file] {
            part(other.as_ref().map_or("", |secret| secret.expose()));
        }
        hex(&hash.finalize()[..5])
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Why a file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// The glob is no pattern, matches nothing, or matches too much.
    Pattern,
    Unreadable,
    NotAFile,
    /// Others than its owner may read or write it.
    Exposed,
    Empty,
    TooLarge,
    NotJson,
    /// JSON, and no kind of credential.
    Unknown,
    /// A credential of a known kind with something wrong in it.
    Invalid,
    /// A credential that cannot log in any more.
    Dead,
}

/// A file, or a pattern, that gives no credential. Never holds a byte of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct CredentialProblem {
    pub kind: ProblemKind,
    /// The file, or the pattern for [`ProblemKind::Pattern`].
    pub path: PathBuf,
    pub reason: String,
    /// The next step.
    pub hint: String,
}

/// A reason against a file, before its path is added.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    kind: ProblemKind,
    reason: String,
    hint: String,
}

impl Refusal {
    fn new(kind: ProblemKind, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            hint: hint.into(),
        }
    }
}

#[cfg(test)]
mod tests;
