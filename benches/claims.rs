//! Claims: what the next task costs however many wait, how soon a long queue is there after a start, and
//! what it takes of memory.
//!
//! *Claim* is what an agent waits for: the best task is found, claimed by the rules, and the claim is on
//! the disk. Its floor is the bare compare-and-set of a row that is known already, in a SQLite table with
//! as many rows and the same durability. *Flat* compares a long queue with a short one. *Start* is the
//! opening of the store, its check of every page, and the view of all tasks, in a process of its own; its
//! floor opens the same file, checks it the same way and reads the same bytes. The floor of *memory* are
//! those bytes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use orchestrator::coordination::{NewTask, Queue, rules};
use orchestrator::model::{AgentId, Incarnation, TaskContext, TaskId, TaskSource, Timestamp};
use orchestrator::ports::Append;
use orchestrator::store::sqlite::{Changes, Committed, SqliteStore};
use rusqlite::{Connection, params};

use crate::hall::{Hall, ran};
use crate::stats::Sample;
use crate::table::Row;

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Claims of each side in one round.
const CLAIMS: usize = 100;
/// Claimers at the same time.
const CLAIMERS: u32 = 16;
/// Records in one transaction while the queue is filled.
const FILLED_AT_ONCE: usize = 5_000;
const LEASE: Duration = Duration::from_secs(3600);
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Against the bare compare-and-set: the rules, a record of the whole task, the log and its heads.
const CLAIM_AIM: f64 = 3.0;
/// A claim in the longest queue against one in the shortest.
const FLAT_AIM: f64 = 1.5;
const START_AIM: f64 = 4.0;
const MEMORY_AIM: f64 = 4.0;
/// Fewer tasks weigh nothing beside the program itself.
const WEIGHED_FROM: usize = 5_000;

pub fn run(hall: &Hall) -> Result<Vec<Row>> {
    let place = Place::set(hall)?;
    let (mut rows, mut flat) = (Vec::new(), Vec::new());
    let mut there = 0;
    for size in SIZES {
        let size = hall.size(size, size / 100);
        place.fill(hall, there..size)?;
        there = size;
        let claimed = place.claims(hall, size)?;
        flat.push((size, claimed.ours.clone()));
        rows.push(claimed);
        rows.extend(place.race(hall, size)?);
        rows.extend(place.starts(hall, size)?);
    }
    if let (Some((few, floor)), Some((many, ours))) = (flat.first(), flat.last()) {
        rows.push(Row {
            benchmark: "claims",
            case: format!("flat: a claim of {many} against one of {few}"),
            unit: "ms",
            ours: ours.clone(),
            floor: floor.clone(),
            aim: Some(FLAT_AIM),
        });
    }
    Ok(rows)
}

struct Place {
    ours: PathBuf,
    floor: PathBuf,
}

fn new_task(number: usize) -> NewTask {
    NewTask {
        id: TaskId::new(format!("task-{number:07}")),
        description: format!(
            "Item {number}: write the function that the module needs, its documentation and a test."
        ),
        // Not the order in which they were made.
        priority: (number * 7_919 % 1_000_003) as i64,
        owner: None,
        dependencies: Vec::new(),
        labels: vec!["bench".to_owned()],
        context: TaskContext::default(),
        scope: Vec::new(),
        source: TaskSource::Direct,
    }
}

impl Place {
    fn set(hall: &Hall) -> Result<Self> {
        let place = Self {
            ours: hall.root.path().join("claims.db"),
            floor: hall.root.path().join("claims-floor.db"),
        };
        plain(&place.floor)?.execute_batch(
            "CREATE TABLE tasks(id TEXT PRIMARY KEY, holder TEXT, version INTEGER NOT NULL, \
             data BLOB NOT NULL) WITHOUT ROWID",
        )?;
        Ok(place)
    }

    /// Both sides get the same tasks, in large transactions: creating them is not what is measured.
    fn fill(&self, hall: &Hall, numbers: std::ops::Range<usize>) -> Result<()> {
        let store = SqliteStore::open(&self.ours).map_err(chain)?;
        let fleet = store.fleet_state();
        let floor = plain(&self.floor)?;
        let numbers: Vec<usize> = numbers.collect();
        for part in numbers.chunks(FILLED_AT_ONCE) {
            let mut appends = Vec::with_capacity(part.len());
            for number in part {
                let task = rules::create(&new_task(*number), NOW)?;
                appends.push(Append {
                    subject: format!("task/{}", task.id),
                    expected: 0,
                    data: serde_json::to_vec(&task)?,
                });
            }
            floor.execute_batch("BEGIN IMMEDIATE")?;
            for append in &appends {
                floor
                    .prepare_cached("INSERT INTO tasks VALUES (?1, NULL, 0, ?2)")?
                    .execute(params![append.subject, append.data])?;
            }
            floor.execute_batch("COMMIT")?;
            let written = fleet.commit_with(Changes::default(), appends);
            let written = hall.tokio.block_on(written).map_err(chain)?;
            ensure!(written != Committed::Nothing, "the tasks were not taken");
        }
        Ok(())
    }

    fn queue(&self, hall: &Hall) -> Result<Queue> {
        hall.tokio.block_on(open(&self.ours))
    }

    fn claims(&self, hall: &Hall, size: usize) -> Result<Row> {
        let queue = self.queue(hall)?;
        let floor = plain(&self.floor)?;
        let ids: Vec<String> = floor
            .prepare("SELECT id FROM tasks WHERE version = 0 LIMIT ?1")?
            .query_map([(hall.repeat * CLAIMS) as i64], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut row = Row {
            benchmark: "claims",
            case: format!("a claim, {size} queued"),
            unit: "ms",
            ours: Sample::default(),
            floor: Sample::default(),
            aim: Some(CLAIM_AIM),
        };
        // They take turns, one by one: neither has a quieter machine.
        for id in &ids {
            let begun = Instant::now();
            let claimed = hall
                .tokio
                .block_on(claim_best(&queue, &AgentId::worker(1)))?;
            row.ours.0.push(millis(begun));
            ensure!(claimed, "there were no tasks left");
            let begun = Instant::now();
            let changed = floor
                .prepare_cached(
                    "UPDATE tasks SET holder = 'worker-1', version = version + 1 \
                     WHERE id = ?1 AND version = 0",
                )?
                .execute([id])?;
            row.floor.0.push(millis(begun));
            ensure!(changed == 1, "{id} was changed before");
        }
        Ok(row)
    }

    /// All at once, on queues of their own as several processes have them: milliseconds for each task
    /// that somebody got. The floor: as many threads, each with a connection, each task tried by whoever
    /// comes to it.
    fn race(&self, hall: &Hall, size: usize) -> Result<Option<Row>> {
        let each = (size / 4).min(CLAIMS * CLAIMERS as usize / 4) / CLAIMERS as usize;
        if each == 0 {
            return Ok(None);
        }
        let wanted = each * CLAIMERS as usize;
        let mut row = Row {
            benchmark: "claims",
            case: format!("{CLAIMERS} claimers, {size} queued, for each task"),
            unit: "ms",
            ours: Sample::default(),
            floor: Sample::default(),
            aim: None,
        };
        // One view serves them all: sixteen of a million tasks do not fit into a small machine.
        let queue = self.queue(hall)?;
        let begun = Instant::now();
        hall.tokio.block_on(race(&queue, wanted))?;
        row.ours.0.push(millis(begun) / wanted as f64);
        let begun = Instant::now();
        race_plain(&self.floor, wanted)?;
        row.floor.0.push(millis(begun) / wanted as f64);
        Ok(Some(row))
    }

    fn starts(&self, hall: &Hall, size: usize) -> Result<Vec<Row>> {
        let (mut took, mut read) = (Sample::default(), Sample::default());
        let (mut weighs, mut bytes) = (Sample::default(), Sample::default());
        let share = size as f64 / 100_000.0;
        for _ in 0..hall.repeat.min(3) {
            let ours = weigh(&self.ours, false)?;
            took.0.push(ours.took);
            weighs.0.push(ours.grew / share);
            let plain = weigh(&self.ours, true)?;
            read.0.push(plain.took);
            bytes.0.push(plain.grew / share);
        }
        let row = |case: &str, unit, ours, floor, aim| Row {
            benchmark: "claims",
            case: format!("{case}, {size} queued"),
            unit,
            ours,
            floor,
            aim: Some(aim),
        };
        let mut rows = vec![row("start", "ms", took, read, START_AIM)];
        if size >= WEIGHED_FROM {
            let case = "memory for 100 000 tasks";
            rows.push(row(case, "MB", weighs, bytes, MEMORY_AIM));
        }
        Ok(rows)
    }
}

async fn open(path: &Path) -> Result<Queue> {
    let store = SqliteStore::open(path).map_err(chain)?;
    Queue::open(Arc::new(store)).await.map_err(chain)
}

/// True if it got one, false if there is none left.
async fn claim_best(queue: &Queue, agent: &AgentId) -> Result<bool> {
    loop {
        let Some(best) = queue.candidate_ids(agent, 1).pop() else {
            return Ok(false);
        };
        let claimed = queue.claim(&best, agent, Incarnation(1), NOW, LEASE).await;
        match claimed {
            Ok(_) => return Ok(true),
            Err(error) if error.code() == "TASK_CLAIMED" => {}
            Err(error) => bail!("{error}"),
        }
    }
}

async fn race(queue: &Queue, wanted: usize) -> Result<()> {
    let each = wanted / CLAIMERS as usize;
    let claimers = (1..=CLAIMERS).map(|number| {
        let queue = queue.clone();
        tokio::spawn(async move {
            let agent = AgentId::worker(number);
            for _ in 0..each {
                ensure!(claim_best(&queue, &agent).await?, "nothing is left");
            }
            Ok(())
        })
    });
    for claimer in claimers.collect::<Vec<_>>() {
        claimer.await??;
    }
    Ok(())
}

fn race_plain(path: &Path, wanted: usize) -> Result<()> {
    let ids: Vec<String> = plain(path)?
        .prepare("SELECT id FROM tasks WHERE version = 0 LIMIT ?1")?
        .query_map([wanted as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let ids = Arc::new(ids);
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let claimers = (1..=CLAIMERS).map(|number| {
        let (path, ids, next) = (path.to_owned(), Arc::clone(&ids), Arc::clone(&next));
        std::thread::spawn(move || -> Result<()> {
            let connection = plain(&path)?;
            while let Some(id) = ids.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                connection
                    .prepare_cached(
                        "UPDATE tasks SET holder = ?2, version = version + 1 \
                         WHERE id = ?1 AND version = 0",
                    )?
                    .execute(params![id, format!("worker-{number}")])?;
            }
            Ok(())
        })
    });
    for claimer in claimers.collect::<Vec<_>>() {
        match claimer.join() {
            Ok(done) => done?,
            Err(_) => bail!("a claimer died"),
        }
    }
    Ok(())
}

/// As durable as ours.
fn plain(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// A queue opened in a process that has nothing else, or its bytes read there.
#[derive(Clone, Debug, Args)]
pub struct Weigh {
    database: PathBuf,
    #[arg(long)]
    plain: bool,
}

/// Milliseconds, and MB.
struct Weighed {
    took: f64,
    grew: f64,
}

impl Weigh {
    pub fn run(&self) -> Result<()> {
        let weighed = if self.plain {
            self.read()?
        } else {
            let tokio = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            let before = resident()?;
            let begun = Instant::now();
            let queue = tokio.block_on(open(&self.database))?;
            let took = millis(begun);
            let grew = resident()? - before;
            drop(queue);
            Weighed { took, grew }
        };
        println!("{} {}", weighed.took, weighed.grew);
        Ok(())
    }

    fn read(&self) -> Result<Weighed> {
        let begun = Instant::now();
        let connection = plain(&self.database)?;
        let verdict: String =
            connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        ensure!(verdict == "ok", "{verdict}");
        let mut bytes = 0;
        let mut statement = connection.prepare("SELECT data FROM records ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            bytes += row.get_ref(0)?.as_blob()?.len();
        }
        Ok(Weighed {
            took: millis(begun),
            grew: bytes as f64 / 1e6,
        })
    }
}

fn weigh(database: &Path, plain: bool) -> Result<Weighed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("weigh").arg(database);
    if plain {
        command.arg("--plain");
    }
    let said = ran(&mut command)?;
    let mut numbers = said.split_whitespace().map(str::parse::<f64>);
    let mut next = || {
        numbers
            .next()
            .context("two numbers are said")?
            .context("a number")
    };
    Ok(Weighed {
        took: next()?,
        grew: next()?,
    })
}

/// MB of this process.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("VmRSS")?.parse::<f64>()? * 1024.0 / 1e6)
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn chain(error: orchestrator::ports::PortError) -> anyhow::Error {
    anyhow::anyhow!(error.chain())
}
