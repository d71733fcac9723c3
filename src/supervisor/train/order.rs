//! Who is next: a pure function of who waits and of what has become of them before.
//!
//! Everybody's place is a point in time: since when it waits, and a little later for each time in a
//! row that it was red or in conflict, up to a bound. Places do not move while somebody waits, and
//! time does: after at most [`MAX_SETBACKS`] times [`SETBACK`] whoever comes new is behind everybody
//! who waits. So what fails again and again does not hold up what is good, and nobody waits for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{AgentId, Timestamp};
use crate::supervisor::state::Candidate;

/// A setback counts as so much less waiting.
pub(super) const SETBACK: Duration = Duration::from_secs(120);
/// More setbacks than this count for no more.
pub(super) const MAX_SETBACKS: u32 = 5;

/// Times in a row that an agent's work was red or in conflict.
pub type Setbacks = BTreeMap<AgentId, u32>;

/// The place in the line: the earliest is first.
pub(super) fn place(candidate: &Candidate, setbacks: &Setbacks) -> Timestamp {
    let times = setbacks.get(&candidate.agent).copied().unwrap_or(0);
    candidate.since + SETBACK * times.min(MAX_SETBACKS)
}

/// Everybody who waits, first to last, as indexes. Two of one agent keep their order.
pub(super) fn order(waiting: &[Candidate], setbacks: &Setbacks) -> Vec<usize> {
    let mut all: Vec<usize> = (0..waiting.len()).collect();
    all.sort_by_key(|index| {
        let candidate = &waiting[*index];
        (place(candidate, setbacks), &candidate.agent, *index)
    });
    all
}

/// The next to be tried together: the first of the line that `may`, at most one of each agent,
/// because the newer one of two contains the older.
pub(super) fn next_batch(
    waiting: &[Candidate],
    setbacks: &Setbacks,
    batch: usize,
    may: impl Fn(&Candidate) -> bool,
) -> Vec<usize> {
    let mut taken: Vec<usize> = Vec::new();
    for index in order(waiting, setbacks) {
        let candidate = &waiting[index];
        let other = |taken: &usize| waiting[*taken].agent != candidate.agent;
        if taken.len() < batch.max(1) && may(candidate) && taken.iter().all(other) {
            taken.push(index);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::CommitId;

    fn candidate(agent: u32, commit: usize, since: i64) -> Candidate {
        Candidate {
            agent: AgentId::worker(agent),
            commit: CommitId::new(format!("c{commit}")),
            title: String::new(),
            since: Timestamp(since),
            tasks: Vec::new(),
            by_hand: false,
            asked: 0,
        }
    }

    fn names(waiting: &[Candidate], order: &[usize]) -> Vec<String> {
        let name = |index: &usize| format!("{} {}", waiting[*index].agent, waiting[*index].commit);
        order.iter().map(name).collect()
    }

    #[test]
    fn the_oldest_is_first_and_setbacks_count_up_to_a_bound() {
        let waiting = [
            candidate(1, 1, 0),
            candidate(2, 2, 1000),
            candidate(3, 3, 700_000),
        ];
        let by = |setbacks: &Setbacks| names(&waiting, &order(&waiting, setbacks));
        let none = Setbacks::new();
        assert_eq!(by(&none), ["worker-1 c1", "worker-2 c2", "worker-3 c3"]);
        let once = Setbacks::from([(AgentId::worker(1), 1)]);
        assert_eq!(by(&once), ["worker-2 c2", "worker-1 c1", "worker-3 c3"]);
        let often = Setbacks::from([(AgentId::worker(1), 1000)]);
        assert_eq!(by(&often), ["worker-2 c2", "worker-1 c1", "worker-3 c3"]);
    }

    proptest! {
        #[test]
        fn the_order_depends_on_who_waits_and_not_on_how_they_are_kept(
            sinces in prop::collection::vec(0_i64..2_000_000, 1..12),
            setbacks in prop::collection::vec(0_u32..9, 12),
            turn in 0_usize..12,
        ) {
            let waiting: Vec<Candidate> = sinces
                .iter()
                .enumerate()
                .map(|(n, since)| candidate(n as u32 + 1, n, *since))
                .collect();
            let setbacks: Setbacks = (1..).map(AgentId::worker).zip(setbacks).collect();
            let mut turned = waiting.clone();
            turned.rotate_left(turn % waiting.len());
            turned.reverse();
            let one = names(&waiting, &order(&waiting, &setbacks));
            prop_assert_eq!(&one, &names(&turned, &order(&turned, &setbacks)));
            let batch = next_batch(&waiting, &setbacks, 5, |_| true);
            prop_assert_eq!(&one[..batch.len()], &names(&waiting, &batch)[..]);
            // Whoever comes when the penalty has passed is behind everybody who waits.
            let newest = waiting.iter().map(|c| c.since).max().unwrap();
            let mut more = waiting.clone();
            more.push(candidate(99, 99, (newest + SETBACK * MAX_SETBACKS).0 + 1));
            let last = order(&more, &setbacks).pop();
            prop_assert_eq!(last, Some(waiting.len()));
        }
    }
}
