//! The step from settings without problems to [`Config`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::gate::Gate;
use super::layers::Settings;
use super::types::{
    Config, Container, Credentials, GitIdentity, ImageChoice, LogLevel, Logs, MergeBy, Planning,
    Rescue, Restart, TaskProof, Tasks,
};
use super::value::Value;
use crate::model::ProjectId;

/// Builds the configuration. Every key has its value here: required ones were asked for, the
/// others have defaults, and each value was read by its own kind.
pub(super) fn config(directory: &Path, settings: &Settings) -> Config {
    let read = Read(settings);
    Config {
        directory: directory.to_owned(),
        repository_url: read.text("repositoryUrl"),
        branch: read.text("branch"),
        worker_count: read.integer("workerCount"),
        claude_configs: read.text("claudeConfigs"),
        credentials: Credentials {
            switch_at: read.integer("credentials.switchAt"),
            write_back: read.boolean("credentials.writeBack"),
            token_url: read.text("credentials.tokenUrl"),
        },
        project: ProjectId::new(read.text("project")),
        state_directory: PathBuf::from(read.text("stateDirectory")),
        model: read.text("model"),
        claude_version: read.text("claudeVersion"),
        image: image(settings),
        container: Container {
            uid: read.integer("container.uid"),
            memory: read.size("container.memory"),
            cpus: read.number("container.cpus"),
            pids: read.integer("container.pids"),
            tmp_size: read.size("container.tmpSize"),
        },
        environment: match settings.get("environment") {
            Some(Value::Map(map)) => map.clone(),
            _ => unreachable(),
        },
        gates: match settings.get("gates") {
            Some(Value::List(entries)) => entries.iter().map(Gate::from_entry).collect(),
            _ => unreachable(),
        },
        merge_by: MergeBy::from_word(&read.text("mergeBy")).unwrap_or(MergeBy::Train),
        merge_batch: read.integer("mergeBatch"),
        api_port: read.integer("apiPort"),
        planning: Planning {
            empty_rounds: read.integer("planning.emptyRounds"),
            cool_down: read.duration("planning.coolDown"),
        },
        fetch_interval: read.duration("fetchInterval"),
        push: read.boolean("push"),
        tasks: Tasks {
            attempts: read.integer("tasks.attempts"),
            lease: read.duration("tasks.lease"),
            proof: TaskProof::from_word(&read.text("tasks.proof")).unwrap_or(TaskProof::Commit),
            send_back: read.integer("tasks.sendBack"),
        },
        git: GitIdentity {
            name: read.text("git.name"),
            email: read.text("git.email"),
        },
        restart: Restart {
            burst: read.integer("restart.burst"),
            window: read.duration("restart.window"),
            per_day: read.integer("restart.perDay"),
            backoff: read.duration("restart.backoff"),
            maximum_backoff: read.duration("restart.maximumBackoff"),
            hung_after: read.duration("restart.hungAfter"),
        },
        rescue: Rescue {
            interval: read.duration("rescue.interval"),
            ignored: read.boolean("rescue.ignored"),
            keep: read.duration("rescue.keep"),
        },
        stop_grace: read.duration("stopGrace"),
        logs: Logs {
            level: LogLevel::from_word(&read.text("logs.level")).unwrap_or(LogLevel::Info),
            size: read.size("logs.size"),
            files: read.integer("logs.files"),
        },
    }
}

fn image(settings: &Settings) -> ImageChoice {
    match (settings.text("image"), settings.text("dockerfile")) {
        (Some(image), _) => ImageChoice::Named(image.to_owned()),
        (None, Some(path)) => ImageChoice::Dockerfile(PathBuf::from(path)),
        (None, None) => ImageChoice::Bundled,
    }
}

struct Read<'a>(&'a Settings);

impl Read<'_> {
    fn text(&self, path: &str) -> String {
        match self.0.get(path) {
            Some(Value::Text(text)) => text.clone(),
            _ => unreachable(),
        }
    }

    /// The table's bounds keep every number within the type it is read into.
    fn integer<T: TryFrom<u64>>(&self, path: &str) -> T {
        match self.0.get(path) {
            Some(Value::Integer(number)) => T::try_from(*number).unwrap_or_else(|_| unreachable()),
            _ => unreachable(),
        }
    }

    fn boolean(&self, path: &str) -> bool {
        matches!(self.0.get(path), Some(Value::Boolean(true)))
    }

    fn number(&self, path: &str) -> f64 {
        match self.0.get(path) {
            Some(Value::Number(number)) => *number,
            _ => unreachable(),
        }
    }

    fn duration(&self, path: &str) -> Duration {
        match self.0.get(path) {
            Some(Value::Duration(duration)) => *duration,
            _ => unreachable(),
        }
    }

    fn size(&self, path: &str) -> u64 {
        match self.0.get(path) {
            Some(Value::Size(bytes)) => *bytes,
            _ => unreachable(),
        }
    }
}

/// Not reachable by input: one successful load goes through every line above, and a test loads.
fn unreachable() -> ! {
    unreachable!("each key of the table is read by the kind the table gives it")
}
