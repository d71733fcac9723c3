//! Outcomes that are known: by tree, gate and image.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::log::replace;
use crate::config::{Container, Gate};
use crate::model::gate::GateRecord;
use crate::runtime::labels::hexadecimal;

/// The newest that are kept.
const KEPT: usize = 1000;
/// How many more there may be before the oldest are removed.
const SLACK: usize = 100;
/// Goes into each key: what an earlier version ran in another way is not known.
const FORMAT: u32 = 1;

pub(super) struct Results {
    directory: PathBuf,
}

/// Everything an outcome hangs on, as far as it can be known.
pub(super) fn key(tree: &str, gate: &Gate, image: &str, limits: &Container) -> String {
    let Container {
        uid,
        memory,
        cpus,
        pids,
        tmp_size,
    } = limits;
    let all = json!([
        FORMAT,
        tree,
        gate.definition(),
        image,
        [
            json!(uid),
            json!(memory),
            json!(cpus),
            json!(pids),
            json!(tmp_size)
        ],
    ]);
    let digest = Sha256::digest(all.to_string().as_bytes());
    hexadecimal(&digest, digest.len())
}

impl Results {
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    /// `None` also when the file is damaged: it is run again, and written anew.
    pub(super) fn get(&self, key: &str) -> Option<GateRecord> {
        let path = self.path(key);
        let bytes = fs::read(&path).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a known outcome is unreadable");
                None
            }
        }
    }

    pub(super) fn put(&self, key: &str, record: &GateRecord) -> io::Result<()> {
        replace(&self.path(key), &serde_json::to_vec(record)?)?;
        self.prune()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }

    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let at = entry
                .metadata()?
                .modified()
                .unwrap_or(SystemTime::UNIX_EPOCH);
            files.push((at, entry.path()));
        }
        if files.len() <= KEPT + SLACK {
            return Ok(());
        }
        files.sort();
        for (_, path) in &files[..files.len() - KEPT] {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::config::{GateCommand, GatePlace};
    use crate::model::CommitId;
    use crate::model::gate::GateOutcome;

    fn gate() -> Gate {
        Gate {
            name: "test".into(),
            command: GateCommand::Shell("true".into()),
            timeout: Duration::from_secs(60),
            place: GatePlace::Agent,
            network: false,
            cache: false,
            environment: BTreeMap::new(),
        }
    }

    fn limits() -> Container {
        Container {
            uid: 1000,
            memory: 1 << 30,
            cpus: 2.0,
            pids: 100,
            tmp_size: 1 << 20,
        }
    }

    fn record() -> GateRecord {
        GateRecord {
            name: "test".into(),
            outcome: GateOutcome::Passed,
            flaky: true,
            cached: false,
            commit: CommitId::new("c"),
            tree: "t".into(),
            milliseconds: 7,
            log: "l".into(),
            tail: "ok".into(),
        }
    }

    #[test]
    fn a_key_follows_the_tree_the_gate_the_image_and_the_limits() {
        let of = |tree: &str, gate: &Gate, image: &str, limits: &Container| {
            key(tree, gate, image, limits)
        };
        let same = of("t", &gate(), "i", &limits());
        assert_eq!(same, of("t", &gate(), "i", &limits()));
        let mut secret = gate();
        secret.environment.insert("A".into(), "1".into());
        let mut other = secret.clone();
        other.environment.insert("A".into(), "2".into());
        let mut words = gate();
        words.command = GateCommand::Words(vec!["true".into()]);
        let mut more = limits();
        more.memory += 1;
        let all = [
            same,
            of("u", &gate(), "i", &limits()),
            of("t", &gate(), "j", &limits()),
            of("t", &secret, "i", &limits()),
            of("t", &other, "i", &limits()),
            of("t", &words, "i", &limits()),
            of("t", &gate(), "i", &more),
        ];
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn what_is_damaged_is_not_known_and_is_written_anew() {
        let root = tempfile::tempdir().unwrap();
        let results = Results::open(root.path().join("results")).unwrap();
        assert_eq!(results.get("k"), None);
        results.put("k", &record()).unwrap();
        assert_eq!(results.get("k"), Some(record()));
        fs::write(results.path("k"), "{\"name\":").unwrap();
        assert_eq!(results.get("k"), None);
        results.put("k", &record()).unwrap();
        assert_eq!(results.get("k"), Some(record()));
    }

    #[test]
    fn the_oldest_go() {
        let root = tempfile::tempdir().unwrap();
        let results = Results::open(root.path().to_owned()).unwrap();
        for number in 0..=(KEPT + SLACK) {
            let path = results.path(&number.to_string());
            fs::write(&path, "{}").unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(at).unwrap();
        }
        results.put("new", &record()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), KEPT);
        assert_eq!(results.get("new"), Some(record()));
        assert!(!results.path("0").exists());
    }
}
