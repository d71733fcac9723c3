//! Fills in defaults and works out what depends on the machine: absolute paths, the fleet's name,
//! the state directory, the user id.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::keys::{self, DefaultValue, KEYS};
use super::layers::Settings;
use super::paths::{self, PathError};
use super::problem::{Place, Problem};
use super::value::{self, Value};
use super::{FILE_NAME, Inputs, env, repository};

/// The user id agents get when the supervisor is root: the first ordinary user's.
const UID_FOR_ROOT: u32 = 1000;

/// After this every key has a value, except required ones that are missing, those that were
/// wrong (a problem each), and `image` and `dockerfile` where unset.
pub(super) fn run(
    directory: &Path,
    inputs: &Inputs,
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
) {
    for key in KEYS {
        if let (None, DefaultValue::Text(text)) = (settings.get(key.path), &key.default)
            && let Ok(value) = value::read_text(key, text)
        {
            settings.rewrite(key.path, value);
        }
    }
    let home = inputs.home.as_deref();
    let absolute = |text: &str| {
        let path = paths::absolute(text, directory, home)?;
        Ok(path.to_string_lossy().into_owned())
    };
    rewrite(directory, settings, problems, "claudeConfigs", |text| {
        paths::absolute_glob(text, directory, home)
    });
    rewrite(directory, settings, problems, "dockerfile", absolute);
    rewrite(
        directory,
        settings,
        problems,
        "repositoryUrl",
        |url| match repository::local_path(url) {
            Some(path) => absolute(path),
            None => Ok(url.to_owned()),
        },
    );
    if settings.get("project").is_none() {
        let url = settings.text("repositoryUrl").unwrap_or_default();
        let name = project_name(url, directory);
        settings.rewrite("project", Value::Text(name));
    }
    if settings.get("stateDirectory").is_none() {
        default_state_directory(directory, inputs, settings, problems);
    } else {
        rewrite(directory, settings, problems, "stateDirectory", absolute);
    }
    if settings.get("container.uid").is_none() {
        let uid = if inputs.uid == 0 {
            UID_FOR_ROOT
        } else {
            inputs.uid
        };
        settings.rewrite("container.uid", Value::Integer(u64::from(uid)));
    }
}

fn rewrite(
    directory: &Path,
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
    path: &'static str,
    work_out: impl Fn(&str) -> Result<String, PathError>,
) {
    let Some(text) = settings.text(path) else {
        return;
    };
    match work_out(text) {
        Ok(text) => settings.rewrite(path, Value::Text(text)),
        Err(error) => {
            let place = settings.place(path, Place::whole(&directory.join(FILE_NAME)));
            let problem = match error {
                PathError::NoHome => {
                    Problem::new(place, "`~` is used and no home directory is known")
                        .hint("set HOME, or write the path out")
                }
                PathError::OtherHome => {
                    Problem::new(place, "the home directory of another user is not looked up")
                        .allowed("`~` alone or `~/...`")
                        .hint("write the path out")
                }
            };
            problems.push(problem.key(path).found(format!("{text:?}")));
        }
    }
}

fn default_state_directory(
    directory: &Path,
    inputs: &Inputs,
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
) {
    // The XDG specification: a relative path there is to be ignored.
    let base = inputs
        .environment
        .get(env::STATE_HOME_VARIABLE)
        .map(Path::new)
        .filter(|path| path.is_absolute())
        .map(Path::to_owned)
        .or_else(|| Some(inputs.home.as_ref()?.join(".local/state")));
    let Some(base) = base else {
        problems.push(
            Problem::new(
                Place::whole(&directory.join(FILE_NAME)),
                "no home directory is known to keep the state in",
            )
            .key("stateDirectory")
            .hint("set HOME or XDG_STATE_HOME, or set the key"),
        );
        return;
    };
    let project = settings.text("project").unwrap_or_default();
    let path = base.join("orchestrator").join(project);
    let text = path.to_string_lossy().into_owned();
    settings.rewrite("stateDirectory", Value::Text(text));
}

/// `NAME-HASH`: readable, and distinct for two config directories of one repository.
fn project_name(url: &str, directory: &Path) -> String {
    /// 8 of 40 characters are the hash, one the dash.
    const LONGEST: usize = 31;
    let mut slug = String::new();
    for c in repository::name(url).chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(LONGEST);
    let slug = slug.trim_matches('-');
    let slug = if slug.is_empty() { "fleet" } else { slug };
    let hash = Sha256::digest(directory.as_os_str().as_encoded_bytes());
    let short = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let name = format!("{slug}-{short:08x}");
    debug_assert!(
        keys::find("project").is_some_and(|key| value::read_text(key, &name).is_ok()),
        "a derived project name is a valid one"
    );
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_project_names_are_valid_whatever_the_repository_is_called() {
        for url in [
            "https://h/org/My Repo!.git",
            "git@h:---",
            "",
            &format!("/x/{}", "long-".repeat(20)),
        ] {
            let name = project_name(url, Path::new("/etc/fleet"));
            let key = keys::find("project").unwrap();
            assert!(value::read_text(key, &name).is_ok(), "{name}");
        }
        assert_ne!(
            project_name("/x", Path::new("/a")),
            project_name("/x", Path::new("/b"))
        );
    }
}
