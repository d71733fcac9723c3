//! The configuration in effect, each key with its origin.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::gate::Gate;
use super::keys::KEYS;
use super::types::{
    Config, Container, Credentials, GitIdentity, ImageChoice, Logs, Planning, Rescue, Restart,
    Tasks,
};
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
        credentials,
        project,
        state_directory,
        model,
        claude_version,
        image,
        container,
        environment,
        gates,
        merge_by,
        merge_batch,
        api_port,
        planning,
        fetch_interval,
        push,
        tasks,
        git,
        restart,
        rescue,
        stop_grace,
        logs,
    } = config;
    let mut values = vec![
        ("repositoryUrl", json!(repository::redact(repository_url))),
        ("branch", json!(branch)),
        ("workerCount", json!(worker_count)),
        ("claudeConfigs", json!(claude_configs)),
    ];
    values.extend(credentials_values(credentials));
    values.extend([
        ("project", json!(project)),
        ("stateDirectory", json!(state_directory.to_string_lossy())),
        ("model", json!(model)),
        ("claudeVersion", json!(claude_version)),
    ]);
    values.extend(image_values(image));
    values.extend(container_values(container));
    values.push(("environment", hidden(environment)));
    let gates: Vec<Json> = gates.iter().map(Gate::shown).collect();
    values.push(("gates", json!(gates)));
    values.push(("mergeBy", json!(merge_by.as_str())));
    values.push(("mergeBatch", json!(merge_batch)));
    values.push(("apiPort", json!(api_port)));
    let Planning {
        empty_rounds,
        cool_down,
    } = planning;
    values.push(("planning.emptyRounds", json!(empty_rounds)));
    values.push(("planning.coolDown", json!(format_duration(*cool_down))));
    values.push(("fetchInterval", json!(format_duration(*fetch_interval))));
    values.push(("push", json!(push)));
    let Tasks {
        attempts,
        lease,
        proof,
        send_back,
    } = tasks;
    values.push(("tasks.attempts", json!(attempts)));
    values.push(("tasks.lease", json!(format_duration(*lease))));
    values.push(("tasks.proof", json!(proof.as_str())));
    values.push(("tasks.sendBack", json!(send_back)));
    let GitIdentity { name, email } = git;
    values.push(("git.name", json!(name)));
    values.push(("git.email", json!(email)));
    values.extend(restart_values(restart));
    values.extend(rescue_values(rescue));
    values.push(("stopGrace", json!(format_duration(*stop_grace))));
    let Logs { level, size, files } = logs;
    values.push(("logs.level", json!(level.as_str())));
    values.push(("logs.size", json!(format_size(*size))));
    values.push(("logs.files", json!(files)));
    debug_assert!(
        values
            .iter()
            .map(|(key, _)| *key)
            .eq(KEYS.iter().map(|key| key.path)),
        "every key is shown once, in the order of the table"
    );
    values
}

fn credentials_values(credentials: &Credentials) -> [(&'static str, Json); 3] {
    let Credentials {
        switch_at,
        write_back,
        token_url,
    } = credentials;
    [
        ("credentials.switchAt", json!(switch_at)),
        ("credentials.writeBack", json!(write_back)),
        ("credentials.tokenUrl", json!(token_url)),
    ]
}

fn image_values(image: &ImageChoice) -> [(&'static str, Json); 2] {
    let (image, dockerfile) = match image {
        ImageChoice::Bundled => (Json::Null, Json::Null),
        ImageChoice::Named(image) => (json!(image), Json::Null),
        ImageChoice::Dockerfile(path) => (Json::Null, json!(path.to_string_lossy())),
    };
    [("image", image), ("dockerfile", dockerfile)]
}

fn container_values(container: &Container) -> [(&'static str, Json); 5] {
    let Container {
        uid,
        memory,
        cpus,
        pids,
        tmp_size,
    } = container;
    [
        ("container.uid", json!(uid)),
        ("container.memory", json!(format_size(*memory))),
        ("container.cpus", number(*cpus)),
        ("container.pids", json!(pids)),
        ("container.tmpSize", json!(format_size(*tmp_size))),
    ]
}

/// Whole numbers as they are written, without `.0`.
fn number(value: f64) -> Json {
    if value.fract() == 0.0 {
        json!(value as u64)
    } else {
        json!(value)
    }
}

fn restart_values(restart: &Restart) -> [(&'static str, Json); 6] {
    let Restart {
        burst,
        window,
        per_day,
        backoff,
        maximum_backoff,
        hung_after,
    } = restart;
    let maximum = format_duration(*maximum_backoff);
    [
        ("restart.burst", json!(burst)),
        ("restart.window", json!(format_duration(*window))),
        ("restart.perDay", json!(per_day)),
        ("restart.backoff", json!(format_duration(*backoff))),
        ("restart.maximumBackoff", json!(maximum)),
        ("restart.hungAfter", json!(format_duration(*hung_after))),
    ]
}

fn rescue_values(rescue: &Rescue) -> [(&'static str, Json); 3] {
    let Rescue {
        interval,
        ignored,
        keep,
    } = rescue;
    [
        ("rescue.interval", json!(format_duration(*interval))),
        ("rescue.ignored", json!(ignored)),
        ("rescue.keep", json!(format_duration(*keep))),
    ]
}

/// The names alone.
fn hidden(environment: &BTreeMap<String, String>) -> Json {
    let entry = |name: &String| (name.clone(), json!(HIDDEN));
    Json::Object(environment.keys().map(entry).collect())
}
