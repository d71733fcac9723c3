//! From the pattern in the configuration to the pool.

use std::path::{Path, PathBuf};

use super::classify::classify;
use super::identity::ids;
use super::read::read;
use super::{Credential, CredentialProblem, Logins, Pool, ProblemKind};
use crate::model::{CredentialId, Timestamp};

/// More matches than this are a pattern that is too wide.
const MAX_FILES: usize = 256;

/// Loads every file that `pattern` matches (absolute, `~` expanded: `Config::claude_configs`).
/// `logins`: where renewed logins are kept. Never fails as a whole: what is wrong stands in
/// `problems`, also a pattern without a match.
pub fn load_pool(pattern: &str, now: Timestamp, logins: &Logins) -> Pool {
    let mut pool = Pool::default();
    let paths = matches(pattern, &mut pool.problems);
    for (path, id) in paths.iter().zip(ids(&paths)) {
        match load(path, id, now, logins) {
            Ok(credential) => pool.credentials.push(credential),
            Err(problem) => pool.problems.push(problem),
        }
    }
    pool.credentials.sort_by(|a, b| a.id.cmp(&b.id));
    note_doubles(&mut pool.credentials);
    pool
}

fn load(
    path: &Path,
    id: CredentialId,
    now: Timestamp,
    logins: &Logins,
) -> Result<Credential, CredentialProblem> {
    let classified = read(path)
        .and_then(|text| classify(&text, now, |login| logins.newer(path, login)))
        .map_err(|refusal| CredentialProblem {
            kind: refusal.kind,
            path: path.to_owned(),
            reason: refusal.reason,
            hint: refusal.hint,
        })?;
    Ok(Credential {
        id,
        kind: classified.kind,
        path: path.to_owned(),
        plan: classified.plan,
        subscription: classified.subscription,
        refresh_token: classified.refresh_token,
        expires_at: classified.expires_at,
        notes: classified.notes,
        material: classified.material,
    })
}

fn matches(pattern: &str, problems: &mut Vec<CredentialProblem>) -> Vec<PathBuf> {
    let problem = |kind, path: &Path, reason: String, hint: &str| CredentialProblem {
        kind,
        path: path.to_owned(),
        reason,
        hint: hint.to_owned(),
    };
    let whole = Path::new(pattern);
    let found = match glob::glob(pattern) {
        Ok(found) => found,
        Err(error) => {
            let reason = format!("not a glob pattern: {} at {}", error.msg, error.pos);
            let hint = "correct `claudeConfigs`";
            problems.push(problem(ProblemKind::Pattern, whole, reason, hint));
            return Vec::new();
        }
    };
    let mut paths = Vec::new();
    for entry in found {
        match entry {
            Ok(_) if paths.len() == MAX_FILES => {
                let reason =
                    format!("it matches more than {MAX_FILES} files; the rest is not used");
                let hint = "narrow `claudeConfigs`";
                problems.push(problem(ProblemKind::Pattern, whole, reason, hint));
                break;
            }
            Ok(path) => paths.push(path),
            Err(error) => {
                let reason = format!("it cannot be searched: {}", error.error());
                let hint = "let the user who runs the supervisor read the directory";
                problems.push(problem(ProblemKind::Unreadable, error.path(), reason, hint));
            }
        }
    }
    if paths.is_empty() && problems.is_empty() {
        let reason = "no file matches `claudeConfigs`".to_owned();
        let hint = "put a credential file there with mode 600, or correct the pattern";
        problems.push(problem(ProblemKind::Pattern, whole, reason, hint));
    }
    paths
}

/// Two files with one credential share its limits: rotating between them gains nothing.
fn note_doubles(credentials: &mut [Credential]) {
    for at in 1..credentials.len() {
        let (before, rest) = credentials.split_at_mut(at);
        let Some(this) = rest.first_mut() else {
            continue;
        };
        if let Some(same) = before.iter().find(|other| other.material == this.material) {
            this.notes.push(format!(
                "it is the same credential as {}, so both share its limits",
                same.id
            ));
        }
    }
}
