//! Access tokens of logins: renewed early, one at a time per credential, given up when dead.

use std::time::Duration;

use super::super::action::Action;
use super::super::{Supervisor, with_jitter};
use super::standing::{Cooling, Refused, Standing};
use crate::model::{CredentialId, Timestamp};

const RETRY: Duration = Duration::from_secs(60);
pub(super) const RETRY_AT_MOST: Duration = Duration::from_secs(900);
/// A token that lives shorter than `refresh_ahead` is not renewed without end.
const NOT_SOONER: Duration = Duration::from_secs(300);

/// With nothing else to use, a refused credential is tried once in so long.
pub(super) const LAST_RESORT: Duration = Duration::from_secs(3600);

/// How a refused credential can be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// By a changed file alone.
    NewFile,
    /// With the provider as well: a bill paid, an outage over.
    Elsewhere,
}

impl Standing {
    /// Renews early from now on, as far as that can be done.
    pub(super) fn plan_refresh(&mut self, now: Timestamp, ahead: Duration) {
        self.refresh_at = None;
        if !self.info.refreshable {
            self.doubted = false;
            return;
        }
        if let Some(end) = self.info.expires_at {
            let soonest = self.refreshed_at.map_or(Timestamp(0), |at| at + NOT_SOONER);
            self.refresh_at = Some((end - ahead).max(soonest));
            self.doubted |= end <= now;
        }
        if self.doubted {
            self.refresh_at = Some(now);
        }
    }

    /// Its next renewal, if there will be one.
    pub(super) fn refresh_due(&self) -> Option<Timestamp> {
        let wanted = self.info.refreshable && !self.gone && self.refused.is_none();
        self.refresh_at.filter(|_| wanted)
    }

    /// When a token that nobody can renew ends.
    pub(super) fn ends_for_good(&self) -> Option<Timestamp> {
        let lost = !self.info.refreshable && !self.gone && self.refused.is_none();
        self.info.expires_at.filter(|_| lost)
    }
}

impl Supervisor {
    /// Asks for what is due.
    pub(in crate::supervisor) fn refresh_logins(&mut self, now: Timestamp) {
        let due: Vec<CredentialId> = self
            .fleet
            .pool
            .credentials
            .iter()
            .filter(|(id, _)| !self.refreshing.contains(*id))
            .filter(|(_, standing)| standing.refresh_due().is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for credential in due {
            self.refreshing.insert(credential.clone());
            self.act(Action::Refresh { credential });
        }
    }

    pub(in crate::supervisor) fn on_refreshed(
        &mut self,
        now: Timestamp,
        credential: &CredentialId,
        expires_at: Option<Timestamp>,
    ) {
        // Told twice, or of a daemon before this one.
        if !self.refreshing.remove(credential) {
            return;
        }
        let ahead = self.policy.refresh_ahead;
        let Some(standing) = self.fleet.pool.credentials.get_mut(credential) else {
            return;
        };
        standing.edition += 1;
        standing.refreshed_at = Some(now);
        standing.refresh_failures = 0;
        standing.info.expires_at = expires_at;
        if standing.doubted {
            standing.doubted = false;
            standing.cooling = None;
        }
        standing.refresh_at = expires_at.map(|end| (end - ahead).max(now + NOT_SOONER));
    }

    pub(in crate::supervisor) fn on_refresh_failed(
        &mut self,
        now: Timestamp,
        credential: &CredentialId,
        reason: &str,
        dead: bool,
    ) {
        if !self.refreshing.remove(credential) {
            return;
        }
        if dead {
            let reason = format!("its login is not accepted any more: {reason}");
            let hint = format!(
                "log in again with `claude`, then put the new login file in place of `{credential}`"
            );
            self.refuse(now, credential, Remedy::NewFile, &reason, &hint);
            return;
        }
        let jitter = self.fraction();
        let Some(standing) = self.fleet.pool.credentials.get_mut(credential) else {
            return;
        };
        let doublings = standing.refresh_failures.min(8);
        standing.refresh_failures += 1;
        let delay = (RETRY * 2_u32.pow(doublings)).min(RETRY_AT_MOST);
        let until = now + with_jitter(delay, jitter);
        standing.refresh_at = Some(until);
        let over = standing.info.expires_at.is_some_and(|end| end <= now);
        standing.doubted |= over;
        if standing.doubted {
            let reason = format!("its login could not be renewed: {reason}");
            standing.cooling = Some(Cooling { until, reason });
        }
    }

    /// Not used any more until a person does something; says so, once.
    pub(super) fn refuse(
        &mut self,
        now: Timestamp,
        credential: &CredentialId,
        remedy: Remedy,
        reason: &str,
        hint: &str,
    ) {
        let Some(standing) = self.fleet.pool.credentials.get_mut(credential) else {
            return;
        };
        let known = standing.refused.is_some();
        standing.refused = Some(Refused {
            at: now,
            reason: reason.to_owned(),
            hint: hint.to_owned(),
            fingerprint: standing.info.fingerprint.clone(),
            again_at: (remedy == Remedy::Elsewhere).then(|| now + LAST_RESORT),
        });
        standing.doubted = false;
        if !known {
            let text = format!("credential `{credential}` is not used any more: {reason}");
            self.notice(now, None, &text, Some(hint.to_owned()));
        }
    }
}
