//! Hook latency: how long a callback waits for its answer, which is given after the commit.
//!
//! Both sides are processes of their own behind a Unix socket, called as the helper calls: a
//! connection for each callback. Calls are sent by the clock, whether earlier ones were answered or
//! not, and their latency counts from the moment they were due. The floor is one axum route and one
//! SQLite commit (WAL, synchronous FULL).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::fleet::Fleet;
use crate::hall::Hall;
use crate::servers::Server;
use crate::stats::Sample;
use crate::table::Row;

/// Callbacks a second, and how many of them in one round.
const RATES: [(u32, usize); 3] = [(1, 10), (100, 400), (1000, 3000)];

pub fn run(hall: &Hall) -> Result<Vec<Row>> {
    let mut fleet = Fleet::set(hall, "latency", 1, &[])?;
    fleet.up()?;
    fleet.until_idle()?;
    let ours = fleet.socket("worker-1");
    let floor = hall.root.path().join("commits.sock");
    let _server = Server::commits(&floor, &hall.root.path().join("commits.db"))?;
    let mut rows = Vec::new();
    for (rate, count) in RATES {
        let count = hall.size(count, count / 5);
        let mut sides = [(); 4].map(|()| Sample::default());
        for _ in 0..hall.repeat {
            let (mine, theirs) = hall.tokio.block_on(round(&ours, &floor, rate, count))?;
            for (kept, value) in sides.iter_mut().zip([
                mine.quantile(0.5),
                theirs.quantile(0.5),
                mine.quantile(0.99),
                theirs.quantile(0.99),
            ]) {
                kept.0.push(value);
            }
        }
        let [ours_50, floor_50, ours_99, floor_99] = sides;
        for (which, ours, floor) in [("p50", ours_50, floor_50), ("p99", ours_99, floor_99)] {
            rows.push(Row {
                benchmark: "hook latency",
                case: format!("{which} at {rate} a second"),
                unit: "ms",
                ours,
                floor,
                aim: None,
            });
        }
    }
    fleet.down()?;
    Ok(rows)
}

/// Slow rates side by side, so that a minute is not spent twice; fast ones one after the other.
async fn round(ours: &Path, floor: &Path, rate: u32, count: usize) -> Result<(Sample, Sample)> {
    if rate < 10 {
        return tokio::try_join!(send(ours, rate, count), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            send(floor, rate, count).await
        });
    }
    let mine = send(ours, rate, count).await?;
    Ok((mine, send(floor, rate, count).await?))
}

async fn send(socket: &Path, rate: u32, count: usize) -> Result<Sample> {
    let every = Duration::from_secs(1) / rate;
    let begun = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..count {
        let due = begun + every * u32::try_from(number)?;
        tokio::time::sleep_until(due).await;
        let socket = socket.to_owned();
        calls.spawn(async move { call(socket).await.map(|()| due.elapsed()) });
    }
    let mut sample = Sample::default();
    while let Some(call) = calls.join_next().await {
        sample.0.push(call??.as_secs_f64() * 1000.0);
    }
    Ok(sample)
}

/// A sign of life as Claude Code sends most of: a tool was used.
async fn call(socket: PathBuf) -> Result<()> {
    let payload = json!({
        "session_id": "bench", "transcript_path": "/home/agent/bench.jsonl", "cwd": "/workspace",
        "permission_mode": "bypassPermissions", "hook_event_name": "PostToolUse",
        "tool_name": "Bash", "tool_use_id": "toolu_bench", "duration_ms": 126,
        "tool_input": {"command": "cargo test --lib", "description": "Run the tests"},
        "tool_response": {"stdout": "x".repeat(400), "stderr": "", "interrupted": false},
    })
    .to_string();
    let request = format!(
        "POST /hooks/v1/callback HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\nx-callback-id: {}\r\ncontent-length: {}\r\n\r\n{payload}",
        uuid::Uuid::new_v4(),
        payload.len()
    );
    let mut stream = UnixStream::connect(&socket)
        .await
        .with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if !answer.starts_with("HTTP/1.1 204") {
        bail!("a callback was answered with: {answer}");
    }
    Ok(())
}
