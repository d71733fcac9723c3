//! The configuration in effect, each key with its origin.

use serde_json::{Map, Value as Json, json};

use super::keys::KEYS;
use super::types::{Config, Container, GitIdentity, ImageChoice, Logs, Planning, Restart, Tasks};
use super::units::{format_duration, format_size};
use super::value::HIDDEN;
use super::{Loaded, Origin, env, repository};

/// One line of `config show`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: &'static str,
    /// As it would be written in the file; `null` where unset. Secrets are hidden.
    pub value: Json,
    pub origin: Origin,
    /// The environment variable that would set it.
    pub variable: String,
}

impl Row {
    /// The value for a table: text without quotes, `-` where unset.
    pub fn value_text(&self) -> String {
        match &self.value {
            Json::String(text) => text.clone(),
            Json::Null => "-".to_owned(),
            other => other.to_string(),
        }
    }
}

/// All keys in the order of the table.
pub fn rows(loaded: &Loaded) -> Vec<Row> {
    values(&loaded.config)
        .into_iter()
        .map(|(key, value)| Row {
            key,
            value,
            origin: loaded.origins.get(key).cloned().unwrap_or(Origin::Default),
            variable: env::variable(key),
        })
        .collect()
}

/// `[{"key", "value", "origin": {"source", ...}, "variable"}]`.
pub fn rows_json(loaded: &Loaded) -> Json {
    let row = |row: Row| {
        json!({
            "key": row.key,
            "value": row.value,
            "origin": row.origin.to_json(),
            "variable": row.variable,
        })
    };
    rows(loaded).into_iter().map(row).collect()
}

/// Every key with its value as it would be written, in the order of the table. No `..` here: a
/// new field that is not shown does not compile.
pub(super) fn values(config: &Config) -> Vec<(&'static str, Json)> {
    let Config {
        directory: _,
        repository_url,
        branch,
        worker_count,
        claude_configs,
        project,
        state_directory,
        model,
        claude_version,
        image,
        container,
        environment,
        api_port,
        planning: Planning {
            empty_rounds,
            cool_down,
        },
        fetch_interval,
        push,
        tasks: Tasks { attempts, lease },
        git: GitIdentity { name, email },
        restart:
            Restart {
                burst,
                window,
                backoff,
                maximum_backoff,
            },
        stop_grace,
        logs: Logs { level, size, files },
    } = config;
    let Container {
        uid,
        memory,
        cpus,
        pids,
        tmp_size,
    } = container;
    let (image, dockerfile) = match image {
        ImageChoice::Bundled => (Json::Null, Json::Null),
        ImageChoice::Named(image) => (json!(image), Json::Null),
        ImageChoice::Dockerfile(path) => (Json::Null, json!(path.to_string_lossy())),
    };
    let hidden: Map<String, Json> = environment
        .keys()
        .map(|name| (name.clone(), json!(HIDDEN)))
        .collect();
    let values = vec![
        ("repositoryUrl", json!(repository::redact(repository_url))),
        ("branch", json!(branch)),
        ("workerCount", json!(worker_count)),
        ("claudeConfigs", json!(claude_configs)),
        ("project", json!(project)),
        ("stateDirectory", json!(state_directory.to_string_lossy())),
        ("model", json!(model)),
        ("claudeVersion", json!(claude_version)),
        ("image", image),
        ("dockerfile", dockerfile),
        ("container.uid", json!(uid)),
        ("container.memory", json!(format_size(*memory))),
        ("container.cpus", json!(cpus)),
        ("container.pids", json!(pids)),
        ("container.tmpSize", json!(format_size(*tmp_size))),
        ("environment", Json::Object(hidden)),
        ("apiPort", json!(api_port)),
        ("planning.emptyRounds", json!(empty_rounds)),
        ("planning.coolDown", json!(format_duration(*cool_down))),
        ("fetchInterval", json!(format_duration(*fetch_interval))),
        ("push", json!(push)),
        ("tasks.attempts", json!(attempts)),
        ("tasks.lease", json!(format_duration(*lease))),
        ("git.name", json!(name)),
        ("git.email", json!(email)),
        ("restart.burst", json!(burst)),
        ("restart.window", json!(format_duration(*window))),
        ("restart.backoff", json!(format_duration(*backoff))),
        (
            "restart.maximumBackoff",
            json!(format_duration(*maximum_backoff)),
        ),
        ("stopGrace", json!(format_duration(*stop_grace))),
        ("logs.level", json!(level.as_str())),
        ("logs.size", json!(format_size(*size))),
        ("logs.files", json!(files)),
    ];
    debug_assert!(
        values
            .iter()
            .map(|(key, _)| *key)
            .eq(KEYS.iter().map(|key| key.path)),
        "every key is shown once, in the order of the table"
    );
    values
}
