//! Which callbacks may have an answer in the file: all others, nearly every one that comes, need not be
//! looked up.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

/// Beyond the rows that are kept: those of commits whose outcome nobody knows.
const SLACK: usize = 1024;

/// Hashes of callback ids, at least of those in the file.
pub(super) struct Answered {
    hasher: RandomState,
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    hashes: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Answered {
    /// With what the file holds; `keep`: how many rows it keeps.
    pub(super) fn read(connection: &Connection, keep: u64) -> rusqlite::Result<Self> {
        let answered = Self {
            hasher: RandomState::new(),
            most: usize::try_from(keep)
                .unwrap_or(usize::MAX)
                .saturating_add(SLACK),
            kept: Mutex::default(),
        };
        connection
            .prepare("SELECT id FROM callbacks ORDER BY rowid")?
            .query_map([], |row| row.get::<_, String>(0))?
            .try_for_each(|id| id.map(|id| answered.add(&id)))?;
        Ok(answered)
    }

    pub(super) fn add(&self, id: &str) {
        let hash = self.hasher.hash_one(id);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.hashes.insert(hash) {
            return;
        }
        kept.order.push_back(hash);
        if kept.order.len() > self.most
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.hashes.remove(&oldest);
        }
    }

    /// `false`: there is none for sure.
    pub(super) fn may_hold(&self, id: &str) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.hashes.contains(&self.hasher.hash_one(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_held_and_the_oldest_are_forgotten() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE callbacks(id TEXT); INSERT INTO callbacks VALUES ('old')")
            .unwrap();
        let answered = Answered::read(&connection, 2).unwrap();
        assert!(answered.may_hold("old") && !answered.may_hold("new"));
        for number in 0..SLACK {
            answered.add(&number.to_string());
            answered.add("0");
        }
        assert!(answered.may_hold("old") && answered.may_hold("0"));
        answered.add("one more");
        answered.add("two more");
        assert!(!answered.may_hold("old") && answered.may_hold("0"));
        assert!(answered.may_hold("two more"));
    }
}
