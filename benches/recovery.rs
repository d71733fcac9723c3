//! Recovery: a container is killed in the middle of a turn; when does its conversation go on?
//!
//! The floor is `docker wait; docker start` in a shell loop, of a container that resumes what it finds.
//! The first restart after a while is without a wait, and only such are measured: the fleet's
//! configuration forgets a crash after a second.

use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::fleet::{FIRST, Fleet, open_gate, until_at_gate};
use crate::hall::{Hall, ran};
use crate::model::millis_between;
use crate::plain::{PLAIN, Plain};
use crate::servers::{After, Server};
use crate::stats::Sample;
use crate::table::Row;

const AIM: f64 = 1.1;

pub fn run(hall: &Hall) -> Result<Vec<Row>> {
    let mut fleet = Fleet::set(hall, "recovery", 1, &[])?;
    fleet.up()?;
    fleet.until_idle()?;
    let remote = hall.repository("recovery-plain", &[])?;
    let plain = Plain::set(hall, "recovery-floor", &remote, true)?;
    let mut server = Server::constant(&plain.socket())?;
    // Each turn that ends is followed by one that waits at the next gate.
    let rounds = hall.repeat;
    server.answer_next(rounds, After::Nothing, "wait gate")?;
    plain.start(&plain.claude_again(&format!("wait gate-{rounds}")))?;
    let _loop = RestartLoop::start(&plain.name)?;
    let (mut ours, mut floor) = (Sample::default(), Sample::default());
    for round in (1..=rounds).rev() {
        ours.0
            .push(kill_ours(hall, &fleet, &format!("gate-{round}"))?);
        floor
            .0
            .push(kill_plain(hall, &plain, &format!("gate-{round}"))?);
    }
    fleet.down()?;
    Ok(vec![Row {
        benchmark: "recovery",
        case: "container killed in a turn".to_owned(),
        unit: "ms",
        ours,
        floor,
        aim: Some(AIM),
    }])
}

fn kill_ours(hall: &Hall, fleet: &Fleet, gate: &str) -> Result<f64> {
    fleet.add_tasks(1, &[format!("wait {gate}")])?;
    until_at_gate(&fleet.checkout("worker-1"), gate)?;
    let view = fleet.view()?;
    let worker = view
        .agents
        .iter()
        .find(|agent| agent.id.as_str() == "worker-1");
    let container = worker.and_then(|worker| worker.container.clone());
    let took = kill(
        hall,
        &container.context("worker-1 has no container")?,
        FIRST,
    )?;
    fleet.open_gate("worker-1", gate)?;
    fleet.until_idle()?;
    Ok(took)
}

fn kill_plain(hall: &Hall, plain: &Plain, gate: &str) -> Result<f64> {
    until_at_gate(&plain.checkout(), gate)?;
    let took = kill(hall, &plain.name, PLAIN)?;
    open_gate(&plain.checkout(), gate)?;
    Ok(took)
}

/// With the signal that cannot be caught, to the container's first process.
fn kill(hall: &Hall, container: &str, credential: &str) -> Result<f64> {
    let mut ask = Command::new("docker");
    ask.args(["inspect", "-f", "{{.State.Pid}}", container]);
    let pid: i32 = ran(&mut ask)?.trim().parse()?;
    let pid = rustix::process::Pid::from_raw(pid).context("the container does not run")?;
    let place = hall.watch.place();
    let begun = SystemTime::now();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)
        .context("killing a container takes root")?;
    let asked = hall
        .watch
        .until("the conversation goes on", place, 1, |asked| {
            asked.credential == credential
        })?;
    Ok(millis_between(begun, asked[0].at))
}

struct RestartLoop(Child);

impl RestartLoop {
    fn start(name: &str) -> Result<Self> {
        let script = "while docker wait \"$0\"; do docker start \"$0\"; done";
        let child = Command::new("sh")
            .args(["-c", script, name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for RestartLoop {
    fn drop(&mut self) {
        // Its `docker wait` ends with the container.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}
