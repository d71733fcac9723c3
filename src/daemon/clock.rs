//! The real clock and the real dice.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::Timestamp;
use crate::ports::{Clock, Entropy};

/// One wall-clock reading at start plus elapsed time, moved forward to the wall clock when that is
/// ahead (after a suspend), so that it never goes back during a run.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    anchor: Mutex<(i64, i64)>,
    /// Only where clock jumps are tried out.
    offset: Option<PathBuf>,
}

/// Ahead of the elapsed time by more than this, the wall clock wins.
const DRIFT_MS: i64 = 2_000;

impl SystemClock {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            anchor: Mutex::new((wall(), 0)),
            offset: None,
        }
    }

    /// A clock whose wall clock is off by as many milliseconds as the file holds, read each time it
    /// is asked; 0 while there is no such number. For trying out what jumps of the clock do.
    pub fn with_offset_file(file: PathBuf) -> Self {
        Self {
            started: Instant::now(),
            anchor: Mutex::new((wall() + offset(&file), 0)),
            offset: Some(file),
        }
    }

    fn wall(&self) -> i64 {
        wall() + self.offset.as_deref().map_or(0, offset)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let wall = self.wall();
        // A poisoned lock only means another reader panicked between two integers.
        let mut anchor = self
            .anchor
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut now = anchor.0 + (elapsed - anchor.1);
        if wall > now + DRIFT_MS {
            *anchor = (wall, elapsed);
            now = wall;
        }
        Timestamp(now)
    }
}

fn wall() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn offset(file: &Path) -> i64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The operating system's randomness, by way of UUIDs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn uuid(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn fraction(&self) -> f64 {
        // 32 random bits; 2^32 is exact in an f64.
        let bits = uuid::Uuid::new_v4().as_u128() & u128::from(u32::MAX);
        bits as f64 / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back_and_dice_stay_in_range() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!((0.0..=1.0).contains(&SystemEntropy.fraction()));
    }

    #[test]
    fn a_wall_clock_that_jumps_moves_time_forward_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("offset");
        let clock = SystemClock::with_offset_file(file.clone());
        let start = clock.now();
        std::fs::write(&file, "-3600000\n").unwrap();
        let back = clock.now();
        assert!(back >= start && back.since(start).as_secs() < 60);
        std::fs::write(&file, "3600000").unwrap();
        let ahead = clock.now();
        assert!(ahead.since(start).as_secs() >= 3600);
        std::fs::write(&file, "0").unwrap();
        assert!(clock.now() >= ahead);
    }
}
