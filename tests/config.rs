//! The example configurations: each loads without a problem or warning, together they mention every
//! key, and the published schema is the one the program prints.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use orchestrator::config::keys::{KEYS, Kind};
use orchestrator::config::{self, FILE_NAME, Inputs};
use orchestrator::credentials;
use orchestrator::model::{CredentialKind, Timestamp};
use serde_json::Value;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config-example")
}

/// A copy outside any work tree, with the modes that real credential files must have.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// Every directory below the examples with a configuration in it.
fn directories(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join(FILE_NAME).is_file())
        .collect();
    found.sort();
    found
}

fn inputs() -> Inputs {
    Inputs {
        home: Some("/home/somebody".into()),
        uid: 1000,
        ..Inputs::default()
    }
}

const NOW: Timestamp = Timestamp(1_795_000_000_000);

#[test]
fn every_example_loads_without_problems_or_warnings_and_so_do_its_credentials() {
    let copied = tempfile::tempdir().unwrap();
    copy(&examples(), copied.path());
    let directories = directories(copied.path());
    assert!(directories.len() >= 2, "{directories:?}");
    let mut kinds = BTreeSet::new();
    for directory in directories {
        let loaded = config::load(&directory, &inputs())
            .unwrap_or_else(|problems| panic!("{}:\n{problems}", directory.display()));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let logins = credentials::Logins::new(&copied.path().join("state"));
        let pool = credentials::load_pool(&loaded.config.claude_configs, NOW, &logins);
        assert!(pool.problems.is_empty(), "{:?}", pool.problems);
        let files = fs::read_dir(directory.join("credentials")).unwrap().count();
        assert_eq!(pool.credentials.len(), files, "{}", directory.display());
        kinds.extend(pool.credentials.iter().map(|credential| credential.kind));
    }
    let all = [
        CredentialKind::OauthLogin,
        CredentialKind::SettingsEnv,
        CredentialKind::ApiKeyHelper,
    ];
    assert_eq!(kinds, BTreeSet::from(all), "one example of each kind");
}

#[test]
fn every_key_is_in_an_example() {
    let files: Vec<Value> = directories(&examples())
        .iter()
        .map(|directory| fs::read_to_string(directory.join(FILE_NAME)).unwrap())
        .map(|text| serde_json::from_str(&text).unwrap())
        .collect();
    let missing: Vec<&str> = KEYS
        .iter()
        .map(|key| key.path)
        .filter(|path| {
            let pointer = format!("/{}", path.replace('.', "/"));
            files.iter().all(|file| file.pointer(&pointer).is_none())
        })
        .collect();
    assert!(missing.is_empty(), "no example mentions {missing:?}");
    for key in KEYS {
        let Kind::List(entries) = &key.kind else {
            continue;
        };
        let objects = || {
            files
                .iter()
                .filter_map(|file| file[key.path].as_array())
                .flatten()
        };
        for inner in entries.keys {
            let mentioned = objects().any(|object| object.get(inner.path).is_some());
            assert!(
                mentioned,
                "no example mentions {}[].{}",
                key.path, inner.path
            );
        }
    }
}

#[test]
fn the_published_schema_is_the_one_that_is_printed() {
    let printed = format!("{:#}\n", config::schema());
    let file = examples().join("orchestrator.schema.json");
    let published = fs::read_to_string(&file).unwrap_or_default();
    if published != printed {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("orchestrator.schema.json");
        fs::write(&fresh, &printed).unwrap();
        panic!(
            "the schema has changed: cp {} {}",
            fresh.display(),
            file.display()
        );
    }
}

#[test]
fn samples_hold_no_real_looking_secret() {
    fn texts(json: &Value, into: &mut Vec<String>) {
        match json {
            Value::String(text) => into.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
            Value::Object(entries) => entries.values().for_each(|value| texts(value, into)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    for directory in directories(&examples()) {
        for entry in fs::read_dir(directory.join("credentials")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            texts(&serde_json::from_str(&text).unwrap(), &mut all);
        }
    }
    let tokens: Vec<&String> = all
        .iter()
        .filter(|text| text.starts_with("sk-") || text.contains("TOKEN"))
        .collect();
    assert!(tokens.len() >= 5, "{tokens:?}");
    for token in tokens {
        assert!(token.contains("EXAMPLE-NOT-A-REAL"), "{token}");
    }
}
