//! Boot: from the command to the first model request of the last of N instances.
//!
//! Ours is `up -d` in a new state directory: clone, network, checkouts, sockets, containers, panes,
//! first screens, first tasks. The floor is `docker run` of as many containers at once, with
//! everything they mount prepared before the clock starts, no hooks, and the prompt as an argument. The
//! first turns of both sides last until all have asked, as turns of real agents do.

use std::time::SystemTime;

use anyhow::Result;

use crate::fleet::{FIRST, Fleet};
use crate::hall::{Hall, ran};
use crate::model::millis_between;
use crate::plain::{PLAIN, Plain};
use crate::stats::Sample;
use crate::table::Row;

const AIM: f64 = 1.1;
const GATE: &str = "boot";

pub fn run(hall: &Hall) -> Result<Vec<Row>> {
    let sizes: &[usize] = if hall.smoke { &[1] } else { &[1, 4, 8] };
    sizes
        .iter()
        .map(|workers| compare(hall, *workers))
        .collect()
}

fn compare(hall: &Hall, workers: usize) -> Result<Row> {
    let (mut ours, mut floor) = (Sample::default(), Sample::default());
    for round in 0..hall.repeat {
        ours.0.push(fleet(hall, workers, round)?);
        floor.0.push(plain(hall, workers, round)?);
    }
    Ok(Row {
        benchmark: "boot",
        case: format!("{workers} workers and the manager"),
        unit: "ms",
        ours,
        floor,
        aim: Some(AIM),
    })
}

fn fleet(hall: &Hall, workers: usize, round: usize) -> Result<f64> {
    let item = |worker| (worker, format!("- [ ] wait {GATE}-{worker}\n"));
    let lists: Vec<(usize, String)> = (1..=workers).map(item).collect();
    let mut fleet = Fleet::set(hall, &format!("boot{workers}-{round}"), workers, &lists)?;
    let place = hall.watch.place();
    let begun = SystemTime::now();
    fleet.up()?;
    let asked = hall
        .watch
        .until("every worker asks the model", place, workers, |asked| {
            asked.credential == FIRST
        })?;
    let took = asked.iter().map(|asked| millis_between(begun, asked.at));
    let last = took.fold(0.0, f64::max);
    for worker in 1..=workers {
        fleet.open_gate(&format!("worker-{worker}"), &format!("{GATE}-{worker}"))?;
    }
    fleet.until_idle()?;
    fleet.down()?;
    Ok(last)
}

fn plain(hall: &Hall, workers: usize, round: usize) -> Result<f64> {
    let remote = hall.repository(&format!("boot{workers}-{round}-plain"), &[])?;
    let mut instances = Vec::new();
    for number in 0..=workers {
        let name = format!("boot{workers}-{round}-p{number}");
        instances.push(Plain::set(hall, &name, &remote, false)?);
    }
    let mut commands = Vec::new();
    for (number, instance) in instances.iter().enumerate() {
        let mut words = instance.claude(&format!("wait {GATE}-{number}"));
        if number == 0 {
            // As the manager, who has nothing to do yet.
            words.pop();
        }
        commands.push(instance.docker_run(&words)?);
    }
    let place = hall.watch.place();
    let begun = SystemTime::now();
    std::thread::scope(|scope| {
        let started: Vec<_> = commands
            .iter_mut()
            .map(|command| scope.spawn(move || ran(command)))
            .collect();
        for thread in started {
            match thread.join() {
                Ok(ran) => ran.map(drop)?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(())
    })?;
    let asked = hall
        .watch
        .until("every plain instance asks", place, workers, |asked| {
            asked.credential == PLAIN
        })?;
    let took = asked.iter().map(|asked| millis_between(begun, asked.at));
    Ok(took.fold(0.0, f64::max))
}
