//! Rotation: the model answers with a spent quota; when does the next request come with another
//! credential?
//!
//! Both sides use API keys in managed settings, which Claude Code reads again by itself (observed with
//! 2.1.197: within 3 s). The floor is a script's worth of work without any memory: at the StopFailure
//! hook it writes the settings with the other key, at the ConfigChange hook it types "continue".

use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::fleet::{Fleet, key_ending};
use crate::hall::{Hall, eventually};
use crate::model::{Asked, millis_between};
use crate::plain::{OTHER, PLAIN, Plain};
use crate::servers::Server;
use crate::stats::Sample;
use crate::table::Row;

/// A key's quota stays spent, so each round needs a new one; their names have one digit.
const MOST_KEYS: usize = 9;

pub fn run(hall: &Hall) -> Result<Vec<Row>> {
    let rounds = hall.repeat.min(MOST_KEYS - 1);
    let mut fleet = Fleet::set(hall, "rotation", 1, &[])?;
    for number in 2..=rounds + 1 {
        fleet.write_key(number)?;
    }
    fleet.up()?;
    fleet.until_idle()?;
    let remote = hall.repository("rotation-plain", &[])?;
    let plain = Plain::set(hall, "rotation-floor", &remote, true)?;
    let server = Server::constant(&plain.socket())?;
    let place = hall.watch.place();
    plain.start(&plain.claude("say hello"))?;
    hall.watch
        .until("the plain instance asks", place, 1, |asked| {
            asked.credential == PLAIN
        })?;
    let (mut ours, mut floor) = (Sample::default(), Sample::default());
    for round in 0..rounds {
        ours.0.push(rotate_ours(hall, &fleet, round)?);
        let (from, to) = if round % 2 == 0 {
            (PLAIN, OTHER)
        } else {
            (OTHER, PLAIN)
        };
        floor.0.push(rotate_plain(hall, &plain, &server, from, to)?);
    }
    fleet.down()?;
    Ok(vec![Row {
        benchmark: "rotation",
        case: "quota spent, API keys".to_owned(),
        unit: "ms",
        ours,
        floor,
        aim: None,
    }])
}

fn rotate_ours(hall: &Hall, fleet: &Fleet, round: usize) -> Result<f64> {
    let view = fleet.view()?;
    let worker = view
        .agents
        .iter()
        .find(|agent| agent.id.as_str() == "worker-1");
    let name = worker.and_then(|worker| worker.credential.as_ref());
    let name = name.context("worker-1 has no credential")?.as_str();
    let number: usize = name.trim_start_matches("key").parse()?;
    let ending = key_ending(number);
    hall.watch.spend(Some(&ending));
    let place = hall.watch.place();
    fleet.add_tasks(1, &[format!("say rotation-{round}")])?;
    let ours = |asked: &Asked| asked.credential.starts_with("-our");
    let took = limit_to_next(hall, place, &ending, ours)?;
    fleet.until_idle()?;
    hall.watch.spend(None);
    Ok(took)
}

fn rotate_plain(hall: &Hall, plain: &Plain, server: &Server, from: &str, to: &str) -> Result<f64> {
    hall.watch.spend(Some(from));
    let place = hall.watch.place();
    let before = server.heard().len();
    plain.type_line("say rotation")?;
    until_heard(server, before, "StopFailure")?;
    plain.write_settings(to, true)?;
    until_heard(server, before, "ConfigChange")?;
    plain.type_line("continue")?;
    let took = limit_to_next(hall, place, from, |asked| asked.credential == to)?;
    hall.watch.spend(None);
    Ok(took)
}

fn until_heard(server: &Server, before: usize, event: &str) -> Result<()> {
    eventually(&format!("the hook {event} comes"), || {
        let all = server.heard();
        all[before..]
            .iter()
            .any(|heard| heard.event == event)
            .then_some(())
    })
}

/// From the first refusal of the spent credential to the first request that another one was good for.
fn limit_to_next(
    hall: &Hall,
    place: usize,
    spent: &str,
    side: impl Fn(&Asked) -> bool,
) -> Result<f64> {
    let refused = hall.watch.until("the limit is met", place, 1, |asked| {
        asked.refused && asked.credential == spent
    })?;
    let next = hall
        .watch
        .until("another credential is used", place, 1, |asked| {
            side(asked) && !asked.refused && asked.credential != spent
        })?;
    let (from, to): (SystemTime, SystemTime) = (refused[0].at, next[0].at);
    Ok(millis_between(from, to))
}
