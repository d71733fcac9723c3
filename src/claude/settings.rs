//! Managed settings: the file that carries hooks, permissions and credentials into an instance,
//! mounted read-only as `/etc/claude-code/managed-settings.json`. They win over everything a
//! repository or an agent may write.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

/// Where the helper is inside an instance.
pub const HELPER_PATH: &str = "/opt/orchestrator/orchestrator-hook";
/// Where the directory with the file is mounted.
pub const MANAGED_DIRECTORY: &str = "/etc/claude-code";
/// The file in it.
pub const MANAGED_FILE: &str = "managed-settings.json";

/// Tools that would open a dialog nobody answers, switch the session's mode, move it to another
/// directory, wake it at times of its own, or start agents nobody counts. Names as version
/// 2.1.197 offers them to the model.
pub const DENIED_TOOLS: &[&str] = &[
    "AskUserQuestion",
    "EnterPlanMode",
    "ExitPlanMode",
    "EnterWorktree",
    "ExitWorktree",
    "CronCreate",
    "CronDelete",
    "CronList",
    "ScheduleWakeup",
    "Workflow",
];

/// Variables that say where requests go and with which secret. Each is set, to nothing if need be:
/// a repository's own settings could name another server otherwise, and a variable that is taken
/// out of the settings of a running session keeps its old value.
pub const ROUTING_VARIABLES: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_BEDROCK_BASE_URL",
    "ANTHROPIC_CUSTOM_HEADERS",
    "ANTHROPIC_FOUNDRY_BASE_URL",
    "ANTHROPIC_VERTEX_BASE_URL",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_VERTEX",
];

/// Above the helper's own 20 s for an answer and 30 s for bringing the worktree up.
const STOP_TIMEOUT_SECONDS: u32 = 60;
/// Above the helper's 20 s for an answer.
const EVENT_TIMEOUT_SECONDS: u32 = 30;
/// The helper's second of patience and the spool; a stopping container waits for it.
const SESSION_END_TIMEOUT_SECONDS: u32 = 10;
const EVIDENCE_TIMEOUT_SECONDS: u32 = 10;

/// What differs from instance to instance.
#[derive(Clone, PartialEq, Eq)]
pub struct ManagedSettings {
    /// The helper's path inside the instance.
    pub helper: String,
    /// The credential's variables and anything else; wins over what this room sets. Holds secrets.
    pub environment: BTreeMap<String, String>,
    /// A command whose output is the key (`apiKeyHelper`).
    pub api_key_helper: Option<String>,
    /// Denied besides [`DENIED_TOOLS`].
    pub denied_tools: Vec<String>,
    /// Between two runs of the status line while nothing happens.
    pub status_refresh_seconds: u32,
}

impl Default for ManagedSettings {
    fn default() -> Self {
        Self {
            helper: HELPER_PATH.to_owned(),
            environment: BTreeMap::new(),
            api_key_helper: None,
            denied_tools: Vec::new(),
            status_refresh_seconds: 10,
        }
    }
}

/// Shows the names of variables, never their values.
impl fmt::Debug for ManagedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedSettings")
            .field("helper", &self.helper)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .field("api_key_helper", &self.api_key_helper.is_some())
            .field("denied_tools", &self.denied_tools)
            .field("status_refresh_seconds", &self.status_refresh_seconds)
            .finish()
    }
}

/// The file's content.
pub fn managed_settings(wanted: &ManagedSettings) -> Value {
    let denied: Vec<&str> = DENIED_TOOLS
        .iter()
        .copied()
        .chain(wanted.denied_tools.iter().map(String::as_str))
        .collect();
    json!({
        "allowManagedHooksOnly": true,
        "skipDangerousModePermissionPrompt": true,
        "permissions": {"defaultMode": "bypassPermissions", "deny": denied},
        // A visible spinner costs 15 % of a core for each instance.
        "prefersReducedMotion": true,
        "statusLine": {
            "type": "command",
            "command": format!("{} status", wanted.helper),
            "padding": 0,
            "refreshInterval": wanted.status_refresh_seconds,
        },
        // Nothing rather than absent: a repository's own helper was seen to replace the credential.
        "apiKeyHelper": wanted.api_key_helper.as_deref().unwrap_or_default(),
        "env": environment(wanted),
        "hooks": hooks(&wanted.helper),
    })
}

fn environment(wanted: &ManagedSettings) -> Map<String, Value> {
    let mut map = Map::new();
    for name in ROUTING_VARIABLES {
        map.insert((*name).to_owned(), json!(""));
    }
    for (name, value) in [
        // Without it the ninth "go on" in a row is dropped together with its task.
        ("CLAUDE_CODE_STOP_HOOK_BLOCK_CAP", "0"),
        // Suggested text in the prompt looks like a draft; the survey and the cost warning ask.
        ("CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION", "false"),
        ("CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY", "1"),
        ("DISABLE_COST_WARNINGS", "1"),
    ] {
        map.insert(name.to_owned(), json!(value));
    }
    for (name, value) in &wanted.environment {
        map.insert(name.clone(), json!(value));
    }
    map
}

/// What an instance's settings hold of a credential now. Holds secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PresentSettings {
    environment: BTreeMap<String, String>,
    pub api_key_helper: Option<String>,
}

impl PresentSettings {
    /// `None` for anything but settings.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let json: Value = serde_json::from_slice(bytes).ok()?;
        let environment = json.get("env")?.as_object()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Self {
            environment: environment
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
                .collect(),
            api_key_helper: json
                .get("apiKeyHelper")
                .and_then(text)
                .filter(|helper| !helper.is_empty()),
        })
    }

    /// The variables that a credential has set.
    pub fn credential_environment(&self) -> BTreeMap<String, String> {
        let own = environment(&ManagedSettings::default());
        let set = self.environment.iter().filter(|(name, value)| {
            !value.is_empty() && own.get(*name).and_then(Value::as_str) != Some(value)
        });
        set.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Adds to `next` an empty value for each variable that is set now and would not be: taking it
    /// out of the settings would leave it set in a running session.
    pub fn unset_in(&self, next: &mut ManagedSettings) {
        let written = environment(next);
        for name in self.environment.keys() {
            if !written.contains_key(name) {
                next.environment.insert(name.clone(), String::new());
            }
        }
    }

    /// Whether `next` would change anything of these.
    pub fn equals(&self, next: &ManagedSettings) -> bool {
        let written = environment(next);
        let helper = next.api_key_helper.as_deref().unwrap_or_default();
        self.api_key_helper.as_deref().unwrap_or_default() == helper
            && written.len() == self.environment.len()
            && written.iter().all(|(name, value)| {
                self.environment.get(name).map(String::as_str) == value.as_str()
            })
    }
}

fn hooks(helper: &str) -> Value {
    let event = |timeout: u32| {
        json!([{"hooks": [
            {"type": "command", "command": format!("{helper} hook"), "timeout": timeout}
        ]}])
    };
    // What is uncommitted is told beside it, without holding it up.
    let turn = json!([{"hooks": [{
        "type": "command",
        "command": format!("{helper} hook --tree"),
        "timeout": STOP_TIMEOUT_SECONDS,
    }]}]);
    // Signs of life: nobody waits for them and none is kept for later.
    let evidence = json!([{"hooks": [{
        "type": "command",
        "command": format!("{helper} hook --evidence"),
        "timeout": EVIDENCE_TIMEOUT_SECONDS,
        "async": true,
    }]}]);
    json!({
        "SessionStart": event(EVENT_TIMEOUT_SECONDS),
        "UserPromptSubmit": event(EVENT_TIMEOUT_SECONDS),
        "Stop": turn,
        "StopFailure": event(EVENT_TIMEOUT_SECONDS),
        "Notification": event(EVENT_TIMEOUT_SECONDS),
        "PermissionRequest": event(EVENT_TIMEOUT_SECONDS),
        "SessionEnd": event(SESSION_END_TIMEOUT_SECONDS),
        // Says that new settings were read: from then on a swapped key is used.
        "ConfigChange": evidence,
        "PreCompact": evidence,
        "PostCompact": evidence,
        "SubagentStop": evidence,
        "PostToolUse": evidence,
        "PostToolUseFailure": evidence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token() -> ManagedSettings {
        ManagedSettings {
            environment: BTreeMap::from([(
                "ANTHROPIC_AUTH_TOKEN".to_owned(),
                "top-secret".to_owned(),
            )]),
            ..ManagedSettings::default()
        }
    }

    #[test]
    fn every_hook_is_a_command_with_a_timeout_the_timer_can_hold() {
        let settings = managed_settings(&ManagedSettings::default());
        let hooks = settings["hooks"].as_object().unwrap();
        for needed in [
            "SessionStart",
            "UserPromptSubmit",
            "Stop",
            "StopFailure",
            "Notification",
            "SessionEnd",
        ] {
            assert!(hooks.contains_key(needed), "{needed}");
        }
        for (event, entries) in hooks {
            let hook = &entries[0]["hooks"][0];
            assert_eq!(hook["type"], "command", "{event}");
            let command = hook["command"].as_str().unwrap();
            assert!(command.starts_with("/opt/orchestrator/orchestrator-hook hook"));
            assert!(hook["timeout"].as_u64().unwrap() <= 60, "{event}");
            assert_eq!(
                hook["async"] == json!(true),
                command.ends_with("--evidence"),
                "{event}"
            );
        }
        assert_eq!(hooks["Stop"][0]["hooks"][0]["timeout"], 60);
    }

    #[test]
    fn a_repository_cannot_redirect_requests() {
        let env = &managed_settings(&with_token())["env"];
        assert_eq!(env["ANTHROPIC_BASE_URL"], "");
        assert_eq!(managed_settings(&with_token())["apiKeyHelper"], "");
        assert_eq!(env["ANTHROPIC_API_KEY"], "");
        assert_eq!(env["ANTHROPIC_AUTH_TOKEN"], "top-secret");
        assert_eq!(env["CLAUDE_CODE_STOP_HOOK_BLOCK_CAP"], "0");
    }

    #[test]
    fn what_is_handed_in_wins() {
        let mut wanted = with_token();
        wanted
            .environment
            .insert("CLAUDE_CODE_MAX_RETRIES".to_owned(), "9".to_owned());
        wanted.api_key_helper = Some("/opt/key".to_owned());
        wanted.denied_tools = vec!["WebSearch".to_owned()];
        let settings = managed_settings(&wanted);
        assert_eq!(settings["env"]["CLAUDE_CODE_MAX_RETRIES"], "9");
        assert_eq!(settings["apiKeyHelper"], "/opt/key");
        let denied = settings["permissions"]["deny"].as_array().unwrap();
        assert!(denied.contains(&json!("AskUserQuestion")));
        assert!(denied.contains(&json!("WebSearch")));
    }

    #[test]
    fn what_a_former_credential_has_set_is_emptied_and_not_only_left_out() {
        let mut former = with_token();
        former
            .environment
            .insert("MY_GATEWAY".to_owned(), "x".to_owned());
        let file = managed_settings(&former).to_string();
        let present = PresentSettings::read(file.as_bytes()).unwrap();
        assert!(present.equals(&former));
        assert_eq!(present.credential_environment(), former.environment);
        let mut next = ManagedSettings {
            environment: BTreeMap::from([("ANTHROPIC_API_KEY".to_owned(), "k".to_owned())]),
            ..ManagedSettings::default()
        };
        assert!(!present.equals(&next));
        present.unset_in(&mut next);
        let env = &managed_settings(&next)["env"];
        assert_eq!(env["MY_GATEWAY"], "");
        assert_eq!(env["ANTHROPIC_AUTH_TOKEN"], "");
        assert_eq!(env["ANTHROPIC_API_KEY"], "k");
        assert_eq!(env["DISABLE_COST_WARNINGS"], "1");
        assert!(PresentSettings::read(b"no").is_none());
        assert!(PresentSettings::read(b"{}").is_none());
    }

    #[test]
    fn no_secret_is_shown() {
        let text = format!("{:?}", with_token());
        assert!(
            text.contains("ANTHROPIC_AUTH_TOKEN") && !text.contains("top-secret"),
            "{text}"
        );
    }
}
