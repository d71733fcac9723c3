//! Turns that failed: what that says about the credential, and what the agent waits for.

use std::time::Duration;

use super::super::state::{Phase, Waits};
use super::super::{Supervisor, texts, with_jitter};
use super::choose::Need;
use super::refresh::Remedy;
use super::standing::{Cooling, Spent, Standing};
use crate::model::{AgentId, AttemptEnd, CredentialId, Fault, QuotaWindow, Timestamp};

/// Clocks need not agree with the provider's.
pub(super) const AFTER_RESET: Duration = Duration::from_secs(5);
/// A quota that told no end is tried again after: doubling by repetition.
const QUOTA: Duration = Duration::from_secs(30 * 60);
pub(super) const QUOTA_AT_MOST: Duration = Duration::from_secs(5 * 3600);
/// A told end that has passed already: the text is cut to minutes.
const ENDED_ALREADY: Duration = Duration::from_secs(60);
/// Too many requests at once.
const TOO_FAST: Duration = Duration::from_secs(60);
/// Overload, network, or nobody knows what.
const PROVIDER: Duration = Duration::from_secs(30);
const WAIT_AT_MOST: Duration = Duration::from_secs(300);
/// A key whose limits nothing else reports. Claude Code had tried for three minutes by then.
const KEY_COOLS: Duration = Duration::from_secs(300);
pub(super) const KEY_COOLS_AT_MOST: Duration = Duration::from_secs(3600);
/// What only a person can change is tried again after.
pub(super) const REFUSED: Duration = Duration::from_secs(600);
/// A failed turn that ran already at the exchange may be of the credential the agent had until then: a
/// limit of a login is told at once, a key is kept while Claude Code tries again (observed: 185 s with
/// 2.1.197).
const LATE_LOGIN: Duration = Duration::from_secs(10);
const LATE_KEY: Duration = Duration::from_secs(200);
/// A login that was renewed because it was refused, and is refused again so soon, is given up.
const DOUBTED_JUST_NOW: Duration = Duration::from_secs(600);
/// Told end and known window are the same to the minute.
const SAME_MINUTE: i64 = 90_000;

impl Supervisor {
    /// `text` is what people are told.
    pub(in crate::supervisor) fn on_turn_failed(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        fault: Option<Fault>,
        text: &str,
    ) {
        let fault = fault.unwrap_or(Fault::Unclear);
        if fault != Fault::TaskRefused {
            self.cut_off(id, &fault);
        }
        let blamed = self.blame(now, id, &fault);
        match (fault, blamed) {
            (Fault::TaskRefused, _) => self.task_refused(now, id, text),
            (Fault::Overloaded | Fault::Unclear, _) => self.provider_failed(now, id, text),
            (Fault::TooFast, blamed) => self.too_fast(now, id, blamed, text),
            (Fault::ModelRefused, blamed) => self.model_refused(now, id, blamed, text),
            (Fault::QuotaSpent { window, resets_at }, Some(credential)) => {
                self.spend(now, &credential, window, resets_at);
                self.await_credential(now, id, text);
            }
            (Fault::LoginRefused | Fault::Billing, Some(credential))
                if self.has_older(id, &credential) =>
            {
                self.await_credential(now, id, text);
            }
            (Fault::LoginRefused, Some(credential)) => {
                self.login_refused(now, &credential, text);
                self.await_credential(now, id, text);
            }
            (Fault::Billing, Some(credential)) => {
                let hint = format!(
                    "put it right with the provider, then `orchestrator credentials retry {credential}`"
                );
                self.refuse(now, &credential, Remedy::Elsewhere, text, &hint);
                self.await_credential(now, id, text);
            }
            (Fault::QuotaSpent { resets_at, .. }, None) => {
                let end = resets_at.filter(|end| *end > now);
                let until = end.map_or(now + QUOTA, |end| end + AFTER_RESET);
                self.wait_until(now, id, until, text);
            }
            (Fault::LoginRefused | Fault::Billing, None) => {
                self.notice(now, Some(id), text, None);
                self.wait_for(now, id, REFUSED, text);
            }
        }
    }

    /// The conversation is whole: it is told to go on, not what its task was.
    fn cut_off(&mut self, id: &AgentId, fault: &Fault) {
        let agent = self.fleet.agents.get_mut(id);
        let held = agent.and_then(|agent| agent.held.as_mut());
        if let Some(held) = held.filter(|held| held.delivered) {
            held.delivered = false;
            held.cut_off = Some(texts::go_on(fault).to_owned());
        }
    }

    /// Whose failure it is: the credential the agent has, or the one it had when the request began.
    fn blame(&self, now: Timestamp, id: &AgentId, fault: &Fault) -> Option<CredentialId> {
        let agent = self.fleet.agents.get(id)?;
        let all = &self.fleet.pool.credentials;
        let has = agent.credential.as_ref().filter(|id| all.contains_key(*id));
        let Some(former) = &agent.lease.former else {
            return has.cloned();
        };
        let Some(standing) = all.get(former) else {
            return has.cloned();
        };
        let late = if standing.info.subscription {
            LATE_LOGIN
        } else {
            LATE_KEY
        };
        let mut of_former = !agent.lease.in_use && now.since(agent.lease.since) < late;
        if let Fault::QuotaSpent { window, resets_at } = fault {
            let ends = |id: &CredentialId| all.get(id)?.ends_then(now, window, *resets_at);
            of_former = match (ends(former), has.and_then(ends)) {
                (_, Some(true)) | (Some(false), _) => false,
                (Some(true), _) => true,
                // Only a key's limit has no window.
                (None, _) => {
                    of_former && standing.info.subscription == (*window != QuotaWindow::Account)
                }
            };
        }
        if of_former {
            Some(former.clone())
        } else {
            has.cloned()
        }
    }

    fn spend(
        &mut self,
        now: Timestamp,
        id: &CredentialId,
        window: QuotaWindow,
        resets_at: Option<Timestamp>,
    ) {
        let jitter = self.fraction();
        let Some(standing) = self.fleet.pool.credentials.get_mut(id) else {
            return;
        };
        if resets_at.is_none() && !standing.info.subscription {
            return standing.cool(now, jitter);
        }
        let known = standing.windows.end_of(&window, now);
        let told = match (resets_at, known) {
            // Texts are cut to minutes, status lines are not.
            (Some(told), Some(known)) if same_minute(told, known) => Some(known),
            (told, known) => told.or(known),
        };
        let end = match told {
            Some(end) if end > now => end,
            Some(_) => now + ENDED_ALREADY,
            None => {
                // Others that were on it say the same: the first estimate stands.
                if standing
                    .spent
                    .as_ref()
                    .is_some_and(|spent| spent.until > now)
                {
                    return;
                }
                let before = standing.strikes.strike(now);
                now + doubled(QUOTA, before, QUOTA_AT_MOST)
            }
        };
        standing.spent = Some(Spent {
            window,
            resets_at: end,
            until: end + AFTER_RESET + AFTER_RESET.mul_f64(jitter),
            told: told.is_some(),
        });
    }

    /// What the agent has of it is not the newest, which is on its way.
    fn has_older(&self, id: &AgentId, credential: &CredentialId) -> bool {
        let standing = self.fleet.pool.credentials.get(credential);
        let agent = self.fleet.agents.get(id);
        agent.zip(standing).is_some_and(|(agent, standing)| {
            agent.credential.as_ref() == Some(credential) && agent.lease.edition < standing.edition
        })
    }

    fn login_refused(&mut self, now: Timestamp, id: &CredentialId, text: &str) {
        let Some(standing) = self.fleet.pool.credentials.get_mut(id) else {
            return;
        };
        let within = |at: Option<Timestamp>, time| at.is_some_and(|at| now.since(at) < time);
        let can_renew = standing.info.refreshable && !standing.gone && standing.refused.is_none();
        // A request from before a renewal: what is new is on its way to the agent.
        if can_renew && (standing.doubted || within(standing.refreshed_at, LATE_LOGIN)) {
            return;
        }
        if can_renew && !within(standing.doubted_at, DOUBTED_JUST_NOW) {
            standing.doubted = true;
            standing.doubted_at = Some(now);
            standing.refresh_at = Some(now);
            return;
        }
        let hint = if standing.info.refreshable {
            format!("log in again with `claude`, then put the new login file in place of `{id}`")
        } else {
            format!(
                "put a valid key or token in place of `{id}`; it is tried again when its file changes"
            )
        };
        self.refuse(now, id, Remedy::Elsewhere, text, &hint);
    }

    fn too_fast(&mut self, now: Timestamp, id: &AgentId, blamed: Option<CredentialId>, text: &str) {
        let jitter = self.fraction();
        let standing = blamed.and_then(|id| self.fleet.pool.credentials.get_mut(&id));
        let Some(standing) = standing else {
            return self.wait_for(now, id, TOO_FAST, text);
        };
        if standing.info.subscription {
            let before = standing.strikes.strike(now);
            let delay = doubled(TOO_FAST, before, WAIT_AT_MOST);
            return self.wait_for(now, id, delay, text);
        }
        standing.cool(now, jitter);
        self.await_credential(now, id, text);
    }

    fn provider_failed(&mut self, now: Timestamp, id: &AgentId, text: &str) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let delay = doubled(PROVIDER, agent.lease.faults, WAIT_AT_MOST);
        agent.lease.faults = agent.lease.faults.saturating_add(1);
        self.wait_for(now, id, delay, text);
    }

    fn model_refused(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        blamed: Option<CredentialId>,
        text: &str,
    ) {
        let hint =
            "name a model that all credentials may use with the key `model`, or leave it out";
        self.notice(now, Some(id), text, Some(hint.into()));
        let agent = self.fleet.agents.get_mut(id);
        if let (Some(credential), Some(agent)) = (blamed, agent) {
            agent.lease.avoid.insert(credential, now + REFUSED);
        }
        if self.best_for(now, id, Need::Any).is_some() {
            self.await_credential(now, id, text);
        } else {
            self.wait_for(now, id, REFUSED, text);
        }
    }

    /// It would fail with any credential: counts against the task.
    fn task_refused(&mut self, now: Timestamp, id: &AgentId, text: &str) {
        if !self.attempt_ended(now, id, AttemptEnd::FailedTurn, text) {
            return self.provider_failed(now, id, text);
        }
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.enter(now, Phase::Idle, "its task failed");
        }
    }

    /// The provider and the credential did what they should.
    pub(in crate::supervisor) fn turn_went_well(&mut self, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.lease.faults = 0;
        let has = agent.credential.as_ref();
        if let Some(standing) = has.and_then(|id| self.fleet.pool.credentials.get_mut(id)) {
            standing.strikes.count = 0;
        }
    }

    fn wait_for(&mut self, now: Timestamp, id: &AgentId, delay: Duration, text: &str) {
        let until = now + with_jitter(delay, self.fraction());
        self.wait_until(now, id, until, text);
    }

    fn wait_until(&mut self, now: Timestamp, id: &AgentId, until: Timestamp, text: &str) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            let waits = Waits::ForTime;
            agent.enter(now, Phase::Limited { until, waits }, text);
        }
    }

    /// Which it gets, and when, follows from the state of the pool.
    pub(in crate::supervisor) fn await_credential(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        text: &str,
    ) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            let waits = Waits::ForCredential;
            agent.enter(now, Phase::Limited { until: now, waits }, text);
        }
    }
}

impl Standing {
    /// Whether this window is known to end at that time; `None` if nobody knows.
    fn ends_then(
        &self,
        now: Timestamp,
        window: &QuotaWindow,
        at: Option<Timestamp>,
    ) -> Option<bool> {
        let spent = self.spent.as_ref().filter(|spent| spent.told);
        let spent = spent.filter(|spent| spent.window == *window);
        let known = spent.map(|spent| spent.resets_at);
        let known = known.or_else(|| self.windows.end_of(window, now))?;
        Some(same_minute(known, at?))
    }

    /// A key whose limit nobody tells the end of.
    fn cool(&mut self, now: Timestamp, jitter: f64) {
        let before = self.strikes.strike(now);
        let delay = doubled(KEY_COOLS, before, KEY_COOLS_AT_MOST);
        self.cooling = Some(Cooling {
            until: now + with_jitter(delay, jitter),
            reason: "too many requests; nothing tells when its limit ends".into(),
        });
    }
}

fn same_minute(a: Timestamp, b: Timestamp) -> bool {
    (a.0 - b.0).abs() <= SAME_MINUTE
}

fn doubled(first: Duration, times: u32, at_most: Duration) -> Duration {
    first
        .saturating_mul(2_u32.saturating_pow(times.min(16)))
        .min(at_most)
}
