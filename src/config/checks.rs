//! What must hold between keys, and between them and the machine.

use std::path::Path;

use super::keys::{DefaultValue, KEYS};
use super::layers::Settings;
use super::problem::{Place, Problem};
use super::value::{self, Value};
use super::{FILE_NAME, paths, repository, units};

/// Required keys that no layer sets. One that is there with a bad value is named already.
pub(super) fn missing(directory: &Path, settings: &Settings, problems: &mut Vec<Problem>) {
    let place = Place::whole(&directory.join(FILE_NAME));
    for key in KEYS {
        let named = |problem: &Problem| problem.key.as_deref() == Some(key.path);
        if matches!(key.default, DefaultValue::Required)
            && settings.get(key.path).is_none()
            && !problems.iter().any(named)
        {
            problems.push(
                Problem::new(place.clone(), "required key is missing")
                    .key(key.path)
                    .allowed(value::allowed(&key.kind))
                    .hint(format!("for example {}", example(key.path, key.example))),
            );
        }
    }
}

fn example(path: &str, example: &str) -> String {
    let quotes = if example.parse::<u64>().is_ok() {
        ""
    } else {
        "\""
    };
    format!("\"{path}\": {quotes}{example}{quotes}")
}

/// Everything that needs more than one key or a look at the file system.
pub(super) fn run(
    directory: &Path,
    uid: u32,
    settings: &Settings,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    let check = Check {
        directory,
        uid,
        settings,
        file: Place::whole(&directory.join(FILE_NAME)),
    };
    problems.extend(check.image());
    problems.extend(check.dockerfile());
    problems.extend(check.container_uid());
    problems.extend(check.backoff());
    problems.extend(check.config_directory());
    problems.extend(check.state_directory());
    warnings.extend(check.password());
    warnings.extend(check.memory());
}

struct Check<'a> {
    directory: &'a Path,
    /// Of this process.
    uid: u32,
    settings: &'a Settings,
    file: Place,
}

impl Check<'_> {
    fn problem(&self, key: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(self.settings.place(key, self.file.clone()), message).key(key)
    }

    fn image(&self) -> Option<Problem> {
        let image = self.settings.text("image")?;
        let dockerfile = self.settings.text("dockerfile")?;
        let other = self.settings.origin("image");
        Some(
            self.problem(
                "dockerfile",
                format!("`image` and `dockerfile` exclude each other; `image` is set at {other}"),
            )
            .found(format!("{dockerfile:?} and {image:?}"))
            .allowed("one of the two, or none")
            .hint("remove one of the two"),
        )
    }

    fn dockerfile(&self) -> Option<Problem> {
        let path = self.settings.text("dockerfile")?;
        if Path::new(path).is_file() {
            return None;
        }
        Some(
            self.problem("dockerfile", "no such file")
                .found(format!("{path:?}"))
                .allowed("a Dockerfile; relative paths start at the config directory"),
        )
    }

    /// Files for the agent, credentials among them, are for its user alone; only root can give
    /// files to somebody else.
    fn container_uid(&self) -> Option<Problem> {
        let key = "container.uid";
        let Some(Value::Integer(wanted)) = self.settings.get(key) else {
            return None;
        };
        if self.uid == 0 || u64::from(self.uid) == *wanted {
            return None;
        }
        Some(
            self.problem(key, "files cannot be given to that user")
                .found(wanted.to_string())
                .allowed(format!("{}, your own user id; root may name any", self.uid))
                .hint("leave the key out"),
        )
    }

    fn backoff(&self) -> Option<Problem> {
        let first = self.settings.get("restart.backoff")?;
        let last = self.settings.get("restart.maximumBackoff")?;
        let (Value::Duration(first), Value::Duration(last)) = (first, last) else {
            return None;
        };
        if first <= last {
            return None;
        }
        Some(
            self.problem("restart.backoff", "longer than `restart.maximumBackoff`")
                .found(units::format_duration(*first))
                .allowed(format!(
                    "at most {}, the value of `restart.maximumBackoff`",
                    units::format_duration(*last)
                )),
        )
    }

    /// Secrets must not be one `git add` away from the repository the agents publish.
    fn config_directory(&self) -> Option<Problem> {
        let url = self.settings.text("repositoryUrl")?;
        let directory = self.directory.display();
        let hint = "keep it outside, for example in ~/.config/orchestrator/<project>";
        if let Some(path) = repository::local_path(url)
            && paths::nested(Path::new(path), self.directory)
        {
            let message = "the config directory and the repository must not contain each other";
            return Some(
                self.problem("repositoryUrl", message)
                    .found(format!("config directory {directory}, repository {path}"))
                    .hint(hint),
            );
        }
        let tree = paths::work_tree_around(self.directory)?;
        let remote = tree
            .remotes
            .iter()
            .find(|remote| repository::same(remote, url))?;
        Some(
            self.problem(
                "repositoryUrl",
                "the config directory lies in a work tree of the repository itself",
            )
            .found(format!(
                "config directory {directory}, work tree {} of {}",
                tree.toplevel.display(),
                repository::redact(remote)
            ))
            .hint(hint),
        )
    }

    /// What removes state must not reach anything else, and nothing else reaches the state.
    fn state_directory(&self) -> Option<Problem> {
        let key = "stateDirectory";
        let text = self.settings.text(key)?;
        let state = Path::new(text);
        if state.exists() && !state.is_dir() {
            return Some(
                self.problem(key, "not a directory")
                    .found(format!("{text:?}"))
                    .allowed("a directory, or a path that does not exist yet"),
            );
        }
        let repository = self
            .settings
            .text("repositoryUrl")
            .and_then(repository::local_path);
        let others = [
            ("config directory", Some(self.directory)),
            ("repository", repository.map(Path::new)),
        ];
        let (name, other) = others
            .into_iter()
            .filter_map(|(name, path)| Some((name, path?)))
            .find(|(_, path)| paths::nested(state, path))?;
        Some(
            self.problem(
                key,
                format!("the state directory and the {name} must not contain each other"),
            )
            .found(format!(
                "state directory {}, {name} {}",
                state.display(),
                other.display()
            ))
            .hint("choose a directory of its own, or leave the key out"),
        )
    }

    fn memory(&self) -> Option<Problem> {
        let memory = self.settings.get("container.memory")?;
        let tmp = self.settings.get("container.tmpSize")?;
        let (Value::Size(memory), Value::Size(tmp)) = (memory, tmp) else {
            return None;
        };
        if tmp < memory {
            return None;
        }
        Some(
            self.problem(
                "container.tmpSize",
                "a full /tmp counts as memory and would use up all of `container.memory`",
            )
            .found(units::format_size(*tmp))
            .allowed(format!("less than {}", units::format_size(*memory)))
            .hint("raise `container.memory`, or lower this"),
        )
    }

    fn password(&self) -> Option<Problem> {
        let url = self.settings.text("repositoryUrl")?;
        let shown = repository::redact(url);
        if shown == url {
            return None;
        }
        Some(
            self.problem(
                "repositoryUrl",
                "the address holds a password or token, in clear text in this file",
            )
            .found(shown)
            .hint("use an ssh address, or a git credential helper on this machine"),
        )
    }
}
