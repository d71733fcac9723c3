//! Snapshot: how long it takes to keep an agent's uncommitted work, which happens every few minutes.
//!
//! Ours is the helper as it runs in an instance, up to the last byte of the bundle; the floor is `git
//! stash create` in the same checkout, which looks for changes and writes them, and sends nothing. The
//! 20 files get new content before each run. "As it was" is a dirty tree in which nothing changed since
//! the last snapshot: what most looks at a working agent find.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use orchestrator::model::{AgentId, Timestamp};
use orchestrator::worktree::sandbox::{self, SnapshotOutcome};
use orchestrator::worktree::{CheckoutSpec, GitStore, Identity, RescueReason};

use crate::hall::{Hall, path_text};
use crate::stats::Sample;
use crate::table::Row;

const FILES: [usize; 2] = [10_000, 100_000];
const CHANGED: usize = 20;
const LIMIT: usize = 256 * 1024 * 1024;
/// Files that changed later than this are read again.
const SETTLED: Duration = Duration::from_secs(4);

pub fn run(hall: &Hall) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for files in FILES {
        let place = Place::set(hall, hall.size(files, files / 50))?;
        let mut sides = [(); 4].map(|()| Sample::default());
        for round in 0..hall.repeat {
            let [clean, clean_floor, dirty, dirty_floor] = &mut sides;
            clean.0.push(place.snapshot(&[SnapshotOutcome::Nothing])?);
            clean_floor.0.push(place.stash()?);
            place.change(&format!("ours {round}"))?;
            dirty.0.push(place.snapshot(&[])?);
            place.change(&format!("floor {round}"))?;
            dirty_floor.0.push(place.stash()?);
            place.clean(hall)?;
        }
        let still = place.as_it_was(hall.repeat)?;
        let [clean, clean_floor, dirty, dirty_floor] = sides;
        for (case, ours, floor) in [
            ("clean", clean, clean_floor),
            ("20 files changed", dirty, dirty_floor.clone()),
            ("as it was", still, dirty_floor),
        ] {
            rows.push(Row {
                benchmark: "snapshot",
                case: format!("{} files, {case}", place.files),
                unit: "ms",
                ours,
                floor,
                aim: None,
            });
        }
    }
    Ok(rows)
}

struct Place {
    files: usize,
    helper: PathBuf,
    store: GitStore,
    checkout: PathBuf,
}

impl Place {
    fn set(hall: &Hall, files: usize) -> Result<Self> {
        let root = hall.root.path().join(format!("snapshot-{files}"));
        let seed = root.join("seed");
        for number in 0..files {
            let directory = seed.join(format!("d{}", number / 100));
            std::fs::create_dir_all(&directory)?;
            std::fs::write(
                directory.join(format!("f{number}.txt")),
                text(number, "first"),
            )?;
        }
        let remote = root.join("remote.git");
        let bare = path_text(&remote)?;
        hall.git(&root, &["init", "-q", "--bare", "-b", "main", bare])?;
        for words in [
            &["init", "-q", "-b", "main"][..],
            &["add", "-A"],
            &["commit", "-q", "-m", "First"],
            &["push", "-q", bare, "main"],
        ] {
            hall.git(&seed, words)?;
        }
        let identity = Identity {
            name: "Bench".to_owned(),
            email: "bench@localhost".to_owned(),
        };
        let path = root.join("store.git");
        let store = GitStore::open_or_clone(&path, bare, "main", identity.clone(), &|_| {})?;
        let checkout = root.join("checkout");
        store.ensure_checkout(&CheckoutSpec {
            agent: agent(),
            directory: checkout.clone(),
            branch: agent().to_string(),
            base: store.branch_head()?,
            owner: None,
            identity,
        })?;
        orchestrator::hooks::install::install(&root.join("opt"), None, &[])?;
        let helper = root
            .join("opt")
            .join(orchestrator::hooks::install::HELPER_NAME);
        // Else git reads every file again, because it was written in the same tick as the index.
        thread::sleep(SETTLED);
        hall.git(&checkout, &["update-index", "-q", "--refresh"])?;
        Ok(Self {
            files,
            helper,
            store,
            checkout,
        })
    }

    fn change(&self, word: &str) -> Result<()> {
        for number in (0..self.files).step_by(self.files.div_ceil(CHANGED)) {
            let path = format!("d{}/f{number}.txt", number / 100);
            std::fs::write(self.checkout.join(path), text(number, word))?;
        }
        Ok(())
    }

    fn clean(&self, hall: &Hall) -> Result<()> {
        hall.git(&self.checkout, &["reset", "-q", "--hard"])?;
        thread::sleep(SETTLED);
        hall.git(&self.checkout, &["update-index", "-q", "--refresh"])
    }

    /// Milliseconds of one run; taking it in comes after and does not count. Any outcome but nothing
    /// is right where none is expected.
    fn snapshot(&self, expected: &[SnapshotOutcome]) -> Result<f64> {
        let known = self.store.rescue_known(&agent())?;
        let spec = sandbox::snapshot(path_text(&self.checkout)?, &known, false, LIMIT);
        let mut command = Command::new(&self.helper);
        command.args(&spec.command[1..]).envs(&spec.environment);
        let (took, output) = timed(command.current_dir(&self.checkout))?;
        let snapshot = sandbox::parse_snapshot(output)?;
        let nothing = snapshot.outcome == SnapshotOutcome::Nothing;
        ensure!(
            expected.contains(&snapshot.outcome) || (expected.is_empty() && !nothing),
            "the snapshot said {:?}",
            snapshot.outcome
        );
        let reason = RescueReason {
            cause: "bench",
            at: Timestamp(0),
            keep: false,
        };
        self.store
            .import_rescue(&agent(), &reason, &snapshot, LIMIT as u64)?;
        Ok(took)
    }

    fn stash(&self) -> Result<f64> {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=Bench", "-c", "user.email=bench@localhost"])
            .args(["-c", "safe.directory=*", "stash", "create"])
            .env("GIT_CONFIG_NOSYSTEM", "1");
        Ok(timed(command.current_dir(&self.checkout))?.0)
    }

    fn as_it_was(&self, repeat: usize) -> Result<Sample> {
        self.change("still")?;
        thread::sleep(SETTLED);
        self.snapshot(&[])?;
        let took: Result<Vec<f64>> = (0..repeat).map(|_| self.snapshot(&[])).collect();
        Ok(Sample(took?))
    }
}

fn agent() -> AgentId {
    AgentId::worker(1)
}

/// About 200 bytes, different for each file.
fn text(number: usize, word: &str) -> String {
    format!("{word} {number}\n").repeat(12)
}

fn timed(command: &mut Command) -> Result<(f64, Vec<u8>)> {
    let begun = Instant::now();
    let output = command.output().context("a command of the benchmark")?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "it failed: {said}");
    Ok((took, output.stdout))
}
