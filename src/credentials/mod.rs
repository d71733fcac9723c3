//! Claude credentials: found by a glob, told apart by content, kept secret, put into instances.
//!
//! Called by the daemon, which leases them to agents and swaps them, and by `doctor`, which shows
//! the problems. Parsing of settings happens here and not in `claude`, because nothing outside
//! this room should hold these files' text.
//!
//! Must never: put a byte of a secret into a message, `Debug` or `Display`; hand a refresh token to
//! an instance; refresh a login (several holders of one refresh token log each other out); change
//! a file of the user's.

mod classify;
mod identity;
mod pool;
mod read;
mod secret;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use pool::load_pool;
pub use secret::Secret;
pub use write::{CREDENTIALS_FILE, WriteError, write};

use crate::model::{CredentialId, CredentialKind, Timestamp};

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
    /// When the access token expires, if the file says so. A time in the past does not make the
    /// credential unusable: it is refreshed when its owner uses the login.
    pub expires_at: Option<Timestamp>,
    /// Worth telling a person; no reason against using it.
    pub notes: Vec<String>,
    material: Material,
}

impl Credential {
    /// What an instance is given.
    pub fn material(&self) -> &Material {
        &self.material
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
