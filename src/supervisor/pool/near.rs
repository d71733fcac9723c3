//! Saved times that the present clock makes impossible, see `clock` of the room. What a provider
//! told stays.

use std::time::Duration;

use super::limits::{KEY_COOLS_AT_MOST, QUOTA_AT_MOST, REFUSED};
use super::refresh::{LAST_RESORT, RETRY_AT_MOST};
use super::standing::{Lease, Pool};
use crate::model::Timestamp;

/// More agents than this do not wait for one credential's turns.
const TURNS: Duration = Duration::from_secs(120);

impl Pool {
    pub(in crate::supervisor) fn bring_near(&mut self, now: Timestamp) {
        for standing in self.credentials.values_mut() {
            standing.slot_at = standing.slot_at.min(now + TURNS);
            standing.strikes.at = standing.strikes.at.min(now);
            let longest = now + KEY_COOLS_AT_MOST + KEY_COOLS_AT_MOST / 4;
            if let Some(cooling) = &mut standing.cooling {
                cooling.until = cooling.until.min(longest);
            }
            if let Some(spent) = standing.spent.as_mut().filter(|spent| !spent.told) {
                spent.until = spent.until.min(now + QUOTA_AT_MOST);
                spent.resets_at = spent.resets_at.min(spent.until);
            }
            if let Some(refused) = &mut standing.refused {
                refused.again_at = refused.again_at.map(|at| at.min(now + LAST_RESORT));
            }
            let ago = |at: &mut Option<Timestamp>| *at = at.map(|at| at.min(now));
            ago(&mut standing.refreshed_at);
            ago(&mut standing.doubted_at);
            if standing.refresh_failures > 0 || standing.doubted {
                let retry = now + RETRY_AT_MOST;
                standing.refresh_at = standing.refresh_at.map(|at| at.min(retry));
            }
        }
    }
}

impl Lease {
    pub(in crate::supervisor) fn bring_near(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.moved_at = self.moved_at.map(|at| at.min(now));
        for until in self.avoid.values_mut() {
            *until = (*until).min(now + REFUSED);
        }
        if let Some(lending) = &mut self.lending {
            lending.at = lending.at.min(now + TURNS);
        }
    }
}
