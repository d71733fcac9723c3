//! Words about agents and credentials that more than one room needs.

use serde::{Deserialize, Serialize};

/// What an agent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Manager,
    Worker,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
        }
    }
}

/// What a credential file turned out to be, told apart by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// A `.credentials.json` with `claudeAiOauth`.
    OauthLogin,
    /// A Claude Code `settings.json` whose `env` carries a key, a token or a provider's variables.
    SettingsEnv,
    /// A Claude Code `settings.json` with `apiKeyHelper`.
    ApiKeyHelper,
}

impl CredentialKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OauthLogin => "oauth-login",
            Self::SettingsEnv => "settings-env",
            Self::ApiKeyHelper => "api-key-helper",
        }
    }
}
