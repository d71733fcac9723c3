//! What kind of credential a file is, by its content, and what an instance gets of it.
//!
//! The formats are those of Claude Code 2.1.197, as observed: `.credentials.json` without `scopes`
//! counts as not logged in; a login that was revoked is overwritten with empty tokens.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::secret::wipe;
use super::{Material, ProblemKind, Refusal, Secret};
use crate::model::{CredentialKind, Timestamp};

/// A file that is a usable credential.
#[derive(Debug)]
pub(super) struct Classified {
    pub kind: CredentialKind,
    pub plan: Option<String>,
    pub subscription: bool,
    /// Of a login that can be renewed.
    pub refresh_token: Option<Secret>,
    pub expires_at: Option<Timestamp>,
    pub notes: Vec<String>,
    pub material: Material,
}

/// Variables that are a credential by themselves when they are not empty.
const TOKENS: [&str; 5] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "ANTHROPIC_FOUNDRY_API_KEY",
];

/// Variables that choose a provider whose own credentials come from elsewhere.
const PROVIDERS: [&str; 3] = [
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
];

/// The scope without which a login may not call the model.
const INFERENCE: &str = "user:inference";

/// As many characters of an API key as Claude Code remembers of an approved one.
const SUFFIX: usize = 20;

const LOG_IN: &str = "log in again with `claude` and `/login`, or make a token with `claude setup-token`, and replace the file";

/// Tells a file's text apart. `now` decides whether a token has expired. `newer` is asked for the
/// login to use in place of the file's, given the file's.
pub(super) fn classify(
    text: &str,
    now: Timestamp,
    newer: impl FnOnce(&Map<String, Json>) -> Option<Map<String, Json>>,
) -> Result<Classified, Refusal> {
    let mut json: Json = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    if let Some(Json::Object(login)) = json.get_mut("claudeAiOauth")
        && let Some(newer) = newer(login)
    {
        // Plan and tier stay those of the user's file.
        login.extend(newer);
    }
    let result = match &json {
        Json::Object(root) => object(root, now),
        _ => Err(unknown("it is JSON, but not an object")),
    };
    wipe(&mut json);
    result
}

/// The parser's own message is left out: it may quote what it found.
fn not_json(error: &serde_json::Error) -> Refusal {
    Refusal::new(
        ProblemKind::NotJson,
        format!(
            "it is not valid JSON (line {}, column {})",
            error.line(),
            error.column()
        ),
        "a bare token goes into a settings file: {\"env\": {\"CLAUDE_CODE_OAUTH_TOKEN\": \"...\"}}",
    )
}

fn unknown(reason: &str) -> Refusal {
    Refusal::new(
        ProblemKind::Unknown,
        reason,
        "use a Claude Code settings.json with `env` or `apiKeyHelper`, or a .credentials.json; or narrow `claudeConfigs`",
    )
}

fn invalid(reason: impl Into<String>, hint: &str) -> Refusal {
    Refusal::new(ProblemKind::Invalid, reason, hint)
}

fn object(root: &Map<String, Json>, now: Timestamp) -> Result<Classified, Refusal> {
    let oauth = root.get("claudeAiOauth");
    let settings = root.contains_key("env") || root.contains_key("apiKeyHelper");
    match (oauth, settings) {
        (Some(_), true) => Err(invalid(
            "it is both a login (`claudeAiOauth`) and a settings file (`env` or `apiKeyHelper`)",
            "split it into two files",
        )),
        (Some(Json::Object(login)), false) => oauth_login(login, now),
        (Some(_), false) => Err(invalid("`claudeAiOauth` is not an object", LOG_IN)),
        (None, true) => settings_file(root),
        (None, false) => Err(unknown(not_a_credential(root))),
    }
}

fn not_a_credential(root: &Map<String, Json>) -> &'static str {
    let has = |name: &str| root.contains_key(name);
    if root.is_empty() {
        "it is an empty object"
    } else if has("repositoryUrl") {
        "it is the configuration of a fleet, no credential"
    } else if has("hasCompletedOnboarding") || has("oauthAccount") || has("projects") {
        "it is Claude Code's state file .claude.json, which holds no login; that is in .credentials.json beside it or under ~/.claude"
    } else if has("permissions") || has("hooks") || has("model") || has("statusLine") {
        "it is a Claude Code settings file without `env` and `apiKeyHelper`"
    } else {
        "it is JSON, but no kind of credential that is known"
    }
}

fn oauth_login(login: &Map<String, Json>, now: Timestamp) -> Result<Classified, Refusal> {
    let text = |name: &str| login.get(name).and_then(Json::as_str).unwrap_or_default();
    if !login.get("accessToken").is_none_or(Json::is_string) {
        return Err(invalid("`accessToken` is not text", LOG_IN));
    }
    let token = text("accessToken");
    if token.trim().is_empty() {
        return Err(Refusal::new(
            ProblemKind::Dead,
            "its access token is empty: the login was revoked or replaced",
            LOG_IN,
        ));
    }
    let scopes = scopes(login)?;
    let expires_at = login
        .get("expiresAt")
        .and_then(Json::as_i64)
        .filter(|millis| *millis > 0)
        .map(Timestamp);
    let mut notes = Vec::new();
    if expires_at.is_some_and(|at| at <= now) {
        if text("refreshToken").is_empty() {
            return Err(Refusal::new(
                ProblemKind::Dead,
                "its access token has expired and there is no refresh token",
                LOG_IN,
            ));
        }
        notes.push("its access token has expired; the supervisor renews it before use".to_owned());
    }
    let refresh_token = Some(text("refreshToken"))
        .filter(|token| !token.is_empty())
        .map(Secret::new);
    let plan = Some(text("subscriptionType"))
        .filter(|plan| !plan.is_empty() && plan.len() <= 40)
        .map(str::to_owned);
    let mut instance = json!({"accessToken": token, "scopes": scopes});
    for name in ["subscriptionType", "rateLimitTier"] {
        if let Some(value @ Json::String(_)) = login.get(name) {
            instance[name] = value.clone();
        }
    }
    let mut file = json!({ "claudeAiOauth": instance });
    let material = Material {
        oauth_file: Some(Secret::new(file.to_string())),
        ..Material::default()
    };
    wipe(&mut file);
    Ok(Classified {
        kind: CredentialKind::OauthLogin,
        plan,
        subscription: true,
        refresh_token,
        expires_at,
        notes,
        material,
    })
}

fn scopes(login: &Map<String, Json>) -> Result<Vec<&str>, Refusal> {
    let Some(Json::Array(items)) = login.get("scopes") else {
        return Err(invalid(
            "it has no `scopes`, and counts as not logged in without them",
            "add \"scopes\": [\"user:inference\"] beside the access token, or log in again",
        ));
    };
    let scopes: Vec<&str> = items.iter().filter_map(Json::as_str).collect();
    if !scopes.contains(&INFERENCE) {
        return Err(invalid(
            format!("its `scopes` lack {INFERENCE}, so it may not call the model"),
            "log in with a Claude subscription, or use an API key in a settings file",
        ));
    }
    Ok(scopes)
}

fn settings_file(root: &Map<String, Json>) -> Result<Classified, Refusal> {
    let env = match root.get("env") {
        None => BTreeMap::new(),
        Some(Json::Object(entries)) => variables(entries)?,
        Some(_) => {
            return Err(invalid(
                "`env` is not an object",
                "write {\"env\": {\"NAME\": \"value\"}}",
            ));
        }
    };
    let helper = match root.get("apiKeyHelper") {
        None => None,
        Some(Json::String(command)) if !command.trim().is_empty() => Some(Secret::new(command)),
        Some(_) => {
            return Err(invalid(
                "`apiKeyHelper` is empty or not text",
                "give the command that prints the key",
            ));
        }
    };
    let set = |name: &&&str| env.get(**name).is_some_and(|value| !value.is_empty());
    let has_credential = TOKENS.iter().chain(&PROVIDERS).any(|name| set(&name));
    if !has_credential && helper.is_none() {
        return Err(without_credential(&env));
    }
    let mut notes = Vec::new();
    if helper.is_some() {
        notes
            .push("`apiKeyHelper` runs inside the container: its program must be there".to_owned());
    }
    let approved_key_suffix = env
        .get("ANTHROPIC_API_KEY")
        .filter(|key| !key.is_empty())
        .map(suffix);
    // A key or another token switches a subscription's token off.
    let subscription = set(&&"CLAUDE_CODE_OAUTH_TOKEN")
        && TOKENS
            .iter()
            .chain(&PROVIDERS)
            .all(|name| *name == "CLAUDE_CODE_OAUTH_TOKEN" || !set(&name));
    Ok(Classified {
        plan: None,
        subscription,
        refresh_token: None,
        kind: if has_credential {
            CredentialKind::SettingsEnv
        } else {
            CredentialKind::ApiKeyHelper
        },
        expires_at: None,
        notes,
        material: Material {
            settings_env: env,
            api_key_helper: helper,
            oauth_file: None,
            approved_key_suffix,
        },
    })
}

fn without_credential(env: &BTreeMap<String, Secret>) -> Refusal {
    let empty = TOKENS.iter().find(|name| env.contains_key(**name));
    let one_of = "give one of ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN and CLAUDE_CODE_OAUTH_TOKEN a value under `env`, or set `apiKeyHelper`";
    match empty {
        Some(name) => Refusal::new(ProblemKind::Dead, format!("{name} is empty"), one_of),
        None if env.contains_key("ANTHROPIC_BASE_URL") => Refusal::new(
            ProblemKind::Invalid,
            "it names a server (ANTHROPIC_BASE_URL) but no credential, and Claude Code stays logged out",
            "add ANTHROPIC_AUTH_TOKEN; any text will do for a server that asks for none",
        ),
        None => Refusal::new(
            ProblemKind::Invalid,
            "its `env` holds no credential",
            one_of,
        ),
    }
}

fn variables(entries: &Map<String, Json>) -> Result<BTreeMap<String, Secret>, Refusal> {
    let mut variables = BTreeMap::new();
    for (name, value) in entries {
        if name.is_empty() || name.contains(['=', '\0']) || name.len() > 255 {
            return Err(invalid(
                "a name under `env` is not one for an environment variable",
                "use letters, digits and `_`",
            ));
        }
        // Claude Code takes numbers and booleans here too.
        let text = match value {
            Json::String(text) => text.clone(),
            Json::Number(number) => number.to_string(),
            Json::Bool(value) => value.to_string(),
            _ => {
                return Err(invalid(
                    format!("`env.{}` is not text", shown(name)),
                    "write the value as text",
                ));
            }
        };
        if text.contains('\0') {
            return Err(invalid(
                format!("`env.{}` holds a NUL character", shown(name)),
                "remove it",
            ));
        }
        variables.insert(name.clone(), Secret::new(text));
    }
    Ok(variables)
}

/// A name in a message, unless it looks like a token put on the wrong side of the colon.
fn shown(name: &str) -> &str {
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(plain) {
        name
    } else {
        "(a name)"
    }
}

fn suffix(key: &Secret) -> Secret {
    let text = key.expose();
    let skip = text.chars().count().saturating_sub(SUFFIX);
    Secret::new(text.chars().skip(skip).collect::<String>())
}
