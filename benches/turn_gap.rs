//! Turn gap: Claude Code sends its Stop hook; when does it ask the model for the next turn?
//!
//! Ours decides, writes to disk, brings the checkout up and answers with the next task. The floor is
//! the same Claude Code, container and helper with a server that answers a constant. A second floor
//! makes one SQLite commit (WAL, synchronous FULL) before each answer: what stands between the two is
//! the disk's, and no supervisor that remembers its answers is below it.
//!
//! What Claude Code does between the model's last word and its Stop hook is its own; it is measured at
//! the floors and taken off all sides.

use std::time::SystemTime;

use anyhow::Result;

use crate::fleet::{FIRST, Fleet};
use crate::hall::{Hall, eventually};
use crate::model::{Asked, millis_between};
use crate::plain::{PLAIN, Plain};
use crate::servers::{After, Server};
use crate::stats::Sample;
use crate::table::Row;

const AIM: f64 = 1.05;
/// Turns one after the other, before the other side has its turn.
const BATCH: usize = 6;

pub fn run(hall: &Hall) -> Result<Vec<Row>> {
    let mut fleet = Fleet::set(hall, "gap", 1, &[])?;
    fleet.up()?;
    fleet.until_idle()?;
    let remote = hall.repository("gap-plain", &[])?;
    let plain = Plain::set(hall, "gap-floor", &remote, true)?;
    let mut server = Server::constant(&plain.socket())?;
    let place = hall.watch.place();
    plain.start(&plain.claude("say hello"))?;
    hall.watch
        .until("the plain instance asks", place, 1, |asked| {
            asked.credential == PLAIN
        })?;
    let mut rows = Vec::new();
    for (case, words) in [
        ("the turn changed nothing", "say"),
        ("the turn made a commit, which is merged", "commit"),
    ] {
        let [mut whole, mut floor, mut stored, mut own] = [(); 4].map(|()| Sample::default());
        for round in 0..hall.repeat {
            let word = format!("{words} r{round}");
            whole.0.extend(ours(hall, &fleet, &word)?);
            for (after, gaps) in [(After::Nothing, &mut floor), (After::Commit, &mut stored)] {
                let word = format!("{word}{after:?}");
                let (found, before) = constant(hall, &plain, &mut server, after, &word)?;
                gaps.0.extend(found);
                own.0.extend(before);
            }
        }
        let claude = own.median();
        let ours: Sample = whole.0.iter().map(|gap| gap - claude).collect();
        let durable = format!("{case}; the floor commits once to SQLite");
        for (case, floor, aim) in [(case.to_owned(), floor, Some(AIM)), (durable, stored, None)] {
            rows.push(Row {
                benchmark: "turn gap",
                case,
                unit: "ms",
                ours: ours.clone(),
                floor,
                aim,
            });
        }
    }
    fleet.down()?;
    Ok(rows)
}

/// From each last word of the model to the next turn's request.
fn ours(hall: &Hall, fleet: &Fleet, word: &str) -> Result<Vec<f64>> {
    let tasks: Vec<String> = (0..=BATCH).map(|turn| format!("{word}-{turn}")).collect();
    let place = hall.watch.place();
    fleet.add_tasks(1, &tasks)?;
    let turns = |asked: &Asked| asked.credential == FIRST;
    hall.watch
        .until("the fleet's turns end", place, BATCH + 1, |asked| {
            turns(asked) && asked.ends_turn
        })?;
    fleet.until_idle()?;
    let asked = hall.watch.since(place, turns);
    Ok(gaps(&asked)
        .map(|(last, next)| millis_between(last.at, next.at))
        .collect())
}

/// From each Stop hook to the next turn's request, and from the model's last word to the Stop hook.
fn constant(
    hall: &Hall,
    plain: &Plain,
    server: &mut Server,
    after: After,
    word: &str,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let place = hall.watch.place();
    let before = server.heard().len();
    server.answer_next(BATCH, after, word)?;
    plain.type_line(&format!("{word}-start"))?;
    let turns = |asked: &Asked| asked.credential == PLAIN;
    hall.watch
        .until("the plain turns end", place, BATCH + 1, |asked| {
            turns(asked) && asked.ends_turn
        })?;
    let asked = hall.watch.since(place, turns);
    // The last one, which nobody answers, comes after the last request; what is ordered before it came
    // would be its answer.
    let stops: Vec<SystemTime> = eventually("the last Stop hook of the floor comes", || {
        let all = server.heard();
        let stops = all[before..].iter().filter(|heard| heard.event == "Stop");
        let stops: Vec<SystemTime> = stops.map(|heard| heard.at).collect();
        (stops.len() > BATCH).then_some(stops)
    })?;
    let pairs = gaps(&asked).zip(&stops);
    Ok(pairs
        .map(|((last, next), stop)| {
            (
                millis_between(*stop, next.at),
                millis_between(last.at, *stop),
            )
        })
        .unzip())
}

/// The ends of turns with what was asked next.
fn gaps(asked: &[Asked]) -> impl Iterator<Item = (&Asked, &Asked)> {
    asked
        .windows(2)
        .filter(|pair| pair[0].ends_turn)
        .map(|pair| (&pair[0], &pair[1]))
}
