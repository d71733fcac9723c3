//! Weight: memory and processor time of the supervisor and its pane clients while nothing happens.
//!
//! Memory is shown twice: as the sum of the resident sets, in which the program itself counts once for
//! each process although it is in memory once (10 of a pane client's 11 MB are such pages), and with
//! every shared page counted once (the kernel's proportional set). Processor time is what the kernel
//! counted within the watched time (`/proc/PID/stat`), scaled to a minute.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::fleet::Fleet;
use crate::hall::Hall;
use crate::stats::Sample;
use crate::table::Row;

/// MB: the supervisor by itself, and for each instance with its pane.
const BASE: f64 = 40.0;
const EACH: f64 = 8.0;
/// A thousandth of a core, in ms a minute: what is wished is that nobody can measure it beside an idle
/// Claude Code, which itself uses 350 (observed with 2.1.197).
const IDLE_CPU: f64 = 60.0;
/// Places in `/proc/PID/stat` after the name.
const USER: usize = 11;
const SYSTEM: usize = 12;
/// Milliseconds: Linux shows times to programs in hundredths of a second, whatever it counts in.
const TICK: f64 = 10.0;

pub fn run(hall: &Hall) -> Result<Vec<Row>> {
    let sizes: &[usize] = if hall.smoke { &[1] } else { &[1, 7] };
    let mut rows = Vec::new();
    for workers in sizes {
        rows.extend(weigh(hall, *workers)?);
    }
    Ok(rows)
}

fn weigh(hall: &Hall, workers: usize) -> Result<Vec<Row>> {
    let instances = workers + 1;
    let mut fleet = Fleet::set(hall, &format!("weight{workers}"), workers, &[])?;
    fleet.up()?;
    fleet.until_idle()?;
    let supervisor = vec![fleet.pid()?];
    let clients = pane_clients(&fleet.project)?;
    anyhow::ensure!(
        clients.len() == instances,
        "{} pane clients for {instances} instances",
        clients.len()
    );
    // The last of the start is over when the supervisor rests for a while; then it is watched.
    let watched = Duration::from_secs(hall.size(45, 10) as u64);
    std::thread::sleep(Duration::from_secs(hall.size(10, 2) as u64));
    let mut rows = Vec::new();
    let memory = |pids: &[u32], file, line| -> Result<f64> {
        pids.iter().map(|pid| megabytes(*pid, file, line)).sum()
    };
    let before = (processor(&supervisor)?, processor(&clients)?);
    let begun = Instant::now();
    std::thread::sleep(watched);
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let after = (processor(&supervisor)?, processor(&clients)?);
    let (own, panes) = (
        memory(&supervisor, "status", "VmRSS:")?,
        memory(&clients, "status", "VmRSS:")?,
    );
    let all: Vec<u32> = supervisor.iter().chain(&clients).copied().collect();
    let once = memory(&all, "smaps_rollup", "Pss:")?;
    // The floor of these is a stated limit.
    let limit = |case: String, unit, value: f64, allowed: f64| Row {
        benchmark: "weight",
        case,
        unit,
        ours: Sample(vec![value]),
        floor: Sample(vec![allowed]),
        aim: Some(1.0),
    };
    let allowed = BASE + EACH * instances as f64;
    rows.push(limit(
        format!("resident, {instances} instances: supervisor {own:.0} MB, panes {panes:.0}"),
        "MB",
        own + panes,
        allowed,
    ));
    rows.push(limit(
        format!("the same, shared pages counted once, {instances} instances"),
        "MB",
        once,
        allowed,
    ));
    let cpu = (after.0 - before.0 + after.1 - before.1) / minutes / instances as f64;
    rows.push(limit(
        format!("processor time of an idle minute, each of {instances} instances"),
        "ms",
        cpu,
        IDLE_CPU,
    ));
    fleet.down()?;
    Ok(rows)
}

/// The programs in the panes of this fleet.
fn pane_clients(project: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let ours = words.iter().any(|word| word.contains(project));
        let views = words.first().is_some_and(|program| {
            program.ends_with("/orchestrator-view")
                || program.ends_with("/orchestrator") && words.iter().any(|word| word == "view")
        });
        if views && ours {
            found.push(pid);
        }
    }
    Ok(found)
}

/// What a line of a file in `/proc/PID` says, in MB.
fn megabytes(pid: u32, file: &str, name: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib: f64 = line
        .and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok())
        .with_context(|| format!("no {name} in /proc/PID/{file}"))?;
    Ok(kib / 1024.0)
}

/// Milliseconds on a processor since the start, of all threads, ended ones included.
fn processor(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // After the name, which may hold anything but ends with the last bracket.
        let (_, numbers) = text
            .rsplit_once(") ")
            .context("no name in /proc/PID/stat")?;
        let fields: Vec<&str> = numbers.split_whitespace().collect();
        for field in [USER, SYSTEM] {
            let text = fields
                .get(field)
                .context("too few fields in /proc/PID/stat")?;
            ticks += text.parse::<u64>()?;
        }
    }
    Ok(ticks as f64 * TICK)
}
