//! Who is to have which credential now. Level-triggered: everything follows from the state.

use std::time::Duration;

use super::super::action::Action;
use super::super::lifecycle::jitter_of;
use super::super::state::{AfterStop, AgentState, Phase, Waits};
use super::super::{Supervisor, with_jitter};
use super::choose::Need;
use super::refresh::{LAST_RESORT, Remedy};
use super::standing::{Health, Lending, Standing};
use crate::model::{AgentId, CredentialId, Incarnation, Timestamp};

/// The name of the dialog Claude Code opens by itself at the limit of a login; the only one that is
/// ever closed for a person.
pub(in crate::supervisor) const LIMIT_DIALOG: &str = "rate-limit-options";
/// A credential that could not be put into an instance is tried there again after.
const NOT_LENT: Duration = Duration::from_secs(60);
/// Whose result is not back by then is asked for again.
const LENDING: Duration = Duration::from_secs(60);
/// Edition of what an instance has when nobody knows whether the newest lending reached it.
const UNCERTAIN: u64 = 0;
/// Nothing comes back by itself: looked at again.
const NOBODY_KNOWS: Duration = Duration::from_secs(600);

/// What is to become of one agent.
enum Verdict {
    /// As it is.
    Keep,
    Lend(CredentialId, Turn),
    /// It may go on with what it has, which cannot be lent anew.
    GoOn,
    /// There is nothing it could use.
    Nothing,
}

#[derive(Clone, Copy, PartialEq)]
enum Turn {
    /// The same credential, renewed: nobody new comes to it.
    AtOnce,
    /// After those who came before.
    InTurn,
}

/// Why a credential did not get into an instance, and whether a restart of that helps.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct NotLent {
    pub(in crate::supervisor) reason: String,
    pub(in crate::supervisor) restart: bool,
}

impl AgentState {
    /// What it has, or is about to have.
    pub(in crate::supervisor) fn next_credential(&self) -> Option<&CredentialId> {
        let lending = self.lease.lending.as_ref();
        lending
            .map(|lending| &lending.credential)
            .or(self.credential.as_ref())
    }
}

impl Supervisor {
    /// Everybody who can be helped is: moved, made to wait, or woken up.
    pub(in crate::supervisor) fn tend_pool(&mut self, now: Timestamp) {
        self.tidy(now);
        self.refresh_logins(now);
        if self.fleet.pool.credentials.is_empty() {
            return;
        }
        let mut ids: Vec<AgentId> = self.fleet.agents.keys().cloned().collect();
        ids.sort_by_key(|id| self.fleet.agents.get(id).map(urgency));
        for id in ids {
            self.place(now, &id);
        }
    }

    /// What has ended by now is forgotten.
    fn tidy(&mut self, now: Timestamp) {
        for standing in self.fleet.pool.credentials.values_mut() {
            standing.spent.take_if(|spent| spent.until <= now);
            standing.cooling.take_if(|cooling| cooling.until <= now);
        }
        self.last_resort(now);
        for agent in self.fleet.agents.values_mut() {
            agent.lease.avoid.retain(|_, until| *until > now);
        }
        let all = self.fleet.pool.credentials.iter();
        let over: Vec<CredentialId> = all
            .filter(|(_, standing)| standing.ends_for_good().is_some_and(|end| end <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            let hint =
                format!("put a new token in place of `{id}`, or a login that can be renewed");
            self.refuse(now, &id, Remedy::NewFile, "its token has expired", &hint);
        }
    }

    /// With nothing else to use, what was refused a while ago gets one more chance: a bill may have
    /// been paid, or an outage of the provider be over.
    fn last_resort(&mut self, now: Timestamp) {
        let mut others = self.fleet.pool.credentials.values().any(Standing::is_ready);
        for standing in self.fleet.pool.credentials.values_mut() {
            let Some(refused) = &mut standing.refused else {
                continue;
            };
            if refused.again_at.is_none_or(|at| at > now) {
                continue;
            }
            if others {
                refused.again_at = Some(now + LAST_RESORT);
            } else {
                standing.refused = None;
                others = true;
            }
        }
    }

    fn place(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let waits_for_time = matches!(
            agent.phase,
            Phase::Limited {
                waits: Waits::ForTime,
                ..
            }
        );
        if !agent.phase.has_session() || self.lending_holds(now, id) || waits_for_time {
            return;
        }
        match self.verdict(now, id) {
            Verdict::Keep => {}
            Verdict::Lend(credential, turn) => self.plan_lending(now, id, credential, turn),
            Verdict::GoOn => self.at_prompt(now, id),
            Verdict::Nothing => self.park(now, id),
        }
    }

    /// What is on its way is still right: sent when its turn has come. One that is not is dropped.
    fn lending_holds(&mut self, now: Timestamp, id: &AgentId) -> bool {
        let pool = &self.fleet.pool.credentials;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return false;
        };
        let Some(lending) = &mut agent.lease.lending else {
            return false;
        };
        let standing = pool.get(&lending.credential);
        let Some(standing) = standing.filter(|standing| standing.is_ready()) else {
            if lending.sent {
                agent.lease.edition = UNCERTAIN;
            }
            agent.lease.lending = None;
            return false;
        };
        if lending.edition != standing.edition {
            lending.edition = standing.edition;
            lending.sent = false;
        }
        let due = !lending.sent && lending.at <= now && self.ready;
        self.await_turn(now, id);
        if due {
            self.send(now, id);
        }
        true
    }

    fn verdict(&self, now: Timestamp, id: &AgentId) -> Verdict {
        let Some(agent) = self.fleet.agents.get(id) else {
            return Verdict::Keep;
        };
        let limited = agent.phase.wants_credential();
        let has = agent.credential.as_ref();
        let standing = has.and_then(|id| self.fleet.pool.credentials.get(id));
        let other = || {
            let best = self.best_for(now, id, Need::Any);
            best.map(|best| Verdict::Lend(best, Turn::InTurn))
        };
        let (Some(has), Some(standing)) = (has, standing) else {
            return other().unwrap_or(Verdict::Nothing);
        };
        let lags = agent.lease.edition != standing.edition;
        match standing.health() {
            Health::Renewing if limited => Verdict::Nothing,
            Health::Renewing => Verdict::Keep,
            Health::Ready if lags && !agent.lease.avoid.contains_key(has) => {
                Verdict::Lend(has.clone(), Turn::AtOnce)
            }
            Health::Ready if limited => other().unwrap_or(Verdict::Nothing),
            Health::Ready => self.better(now, agent, standing),
            Health::Gone if limited => other().unwrap_or(Verdict::GoOn),
            Health::Gone => other().unwrap_or(Verdict::Keep),
            Health::Refused(_) | Health::Spent(_) | Health::Cooling(_) => {
                other().unwrap_or(Verdict::Nothing)
            }
        }
    }

    /// A move before the limit, or away from what is paid by use; never twice in a short while.
    fn better(&self, now: Timestamp, agent: &AgentState, has: &Standing) -> Verdict {
        let percent = self.policy.switch_at_percent;
        let wanted = !has.info.subscription || has.nearly_spent(now, percent).is_some();
        let moved = agent.lease.moved_at;
        let rested = moved.is_none_or(|at| now >= at + self.policy.switch_cool_down);
        if !(wanted && rested) {
            return Verdict::Keep;
        }
        match self.best_for(now, &agent.id, Need::Better) {
            Some(best) => Verdict::Lend(best, Turn::InTurn),
            None => Verdict::Keep,
        }
    }

    fn plan_lending(&mut self, now: Timestamp, id: &AgentId, credential: CredentialId, turn: Turn) {
        let needed = self.why_not(now, id).is_some();
        let pace = self.policy.lend_pace;
        let Some(standing) = self.fleet.pool.credentials.get_mut(&credential) else {
            return;
        };
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let at = match turn {
            Turn::AtOnce => now,
            Turn::InTurn => {
                let at = standing.slot_at.max(now);
                standing.slot_at = at + with_jitter(pace, jitter_of(agent));
                at
            }
        };
        agent.lease.lending = Some(Lending {
            credential: credential.clone(),
            edition: standing.edition,
            at,
            sent: false,
        });
        let limited = agent.phase.wants_credential();
        if !needed && turn == Turn::InTurn && !limited {
            agent.lease.moved_at = Some(now);
        }
        self.await_turn(now, id);
        if at <= now && self.ready {
            self.send(now, id);
        }
    }

    /// A limited agent says what it waits for, and until when.
    fn await_turn(&mut self, now: Timestamp, id: &AgentId) {
        let why = self.why_not(now, id);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Phase::Limited {
            until,
            waits: Waits::ForCredential,
        } = agent.phase
        else {
            return;
        };
        let Some(lending) = &agent.lease.lending else {
            return;
        };
        let end = match lending.sent {
            false => lending.at,
            true if until > now => until,
            true => now + LENDING,
        };
        let waits_for_others = !lending.sent && lending.at > now;
        let when = if waits_for_others { " in its turn" } else { "" };
        let why = why.map_or_else(String::new, |why| format!("{why}; "));
        let reason = format!("{why}going on with \"{}\"{when}", lending.credential);
        let waits = Waits::ForCredential;
        agent.enter(now, Phase::Limited { until: end, waits }, reason);
    }

    fn send(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Some(lending) = &mut agent.lease.lending else {
            return;
        };
        lending.sent = true;
        let lend = Action::Lend {
            agent: id.clone(),
            incarnation: agent.incarnation,
            credential: lending.credential.clone(),
        };
        if agent.phase.wants_credential() {
            let (until, waits) = (now + LENDING, Waits::ForCredential);
            agent.phase = Phase::Limited { until, waits };
        }
        self.act(lend);
    }

    /// Without a credential it can use: it waits at its prompt until one is free. Whoever is in the
    /// middle of something goes on until it fails.
    fn park(&mut self, now: Timestamp, id: &AgentId) {
        let (end, reason) = self.when_free(now, id);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let present = match agent.phase {
            Phase::Limited {
                until,
                waits: Waits::ForCredential,
            } => Some(until),
            Phase::Idle => None,
            _ => return,
        };
        let until = end
            .or(present.filter(|until| *until > now))
            .unwrap_or(now + NOBODY_KNOWS);
        let waits = Waits::ForCredential;
        agent.enter(now, Phase::Limited { until, waits }, reason);
    }

    pub(in crate::supervisor) fn on_lent(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        credential: &CredentialId,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if agent.credential.as_ref() != Some(credential) {
            agent.lease.former = agent.credential.replace(credential.clone());
            agent.lease.since = now;
            agent.lease.in_use = false;
        }
        let expected = |lending: &mut Lending| lending.sent && lending.credential == *credential;
        let Some(lending) = agent.lease.lending.take_if(expected) else {
            return;
        };
        agent.lease.edition = lending.edition;
        if agent.phase.wants_credential() {
            self.free_its_prompt(id);
            self.at_prompt(now, id);
        }
    }

    /// Where nothing is to be pasted, the dialog of the limit would stay.
    fn free_its_prompt(&mut self, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        if agent.held.is_none() {
            let close = Action::CloseDialog {
                agent: id.clone(),
                incarnation: agent.incarnation,
                name: LIMIT_DIALOG.to_owned(),
            };
            self.act(close);
        }
    }

    pub(in crate::supervisor) fn on_lend_failed(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        credential: &CredentialId,
        why: &NotLent,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let ending = self.fleet.ending().is_some();
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let expected = |lending: &mut Lending| lending.sent && lending.credential == *credential;
        let Some(lending) = agent.lease.lending.take_if(expected) else {
            return;
        };
        let at_rest = matches!(agent.phase, Phase::Idle | Phase::Limited { .. });
        if why.restart && at_rest && !ending {
            return self.restart_to_lend(now, id, lending);
        }
        let avoid = &mut agent.lease.avoid;
        avoid.insert(credential.clone(), now + NOT_LENT);
        let text = format!(
            "\"{credential}\" could not be put into its instance: {}",
            why.reason
        );
        let hint = if why.restart {
            "it is restarted for it when it is at rest and needs it"
        } else {
            "trying again in a minute"
        };
        self.notice(now, Some(id), &text, Some(hint.into()));
    }

    /// At rest a restart costs a few seconds and nothing of the conversation. The launch takes the
    /// credential that is on its way.
    fn restart_to_lend(&mut self, now: Timestamp, id: &AgentId, lending: Lending) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let reason = format!(
            "restarted with \"{}\", a key it can use only from a start on",
            lending.credential
        );
        agent.lease.lending = Some(Lending {
            sent: false,
            ..lending
        });
        let incarnation = agent.incarnation;
        let then = AfterStop::Launch;
        agent.enter(now, Phase::Stopping { then }, reason);
        self.stop_life(id, incarnation);
    }

    /// The time of a limited agent is over.
    pub(in crate::supervisor) fn go_on_after_limit(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if agent.phase.wants_credential() {
            // No result of the lending came back, or nothing was lent.
            if let Some(lending) = &mut agent.lease.lending {
                lending.sent = false;
            }
        } else {
            self.at_prompt(now, id);
        }
    }

    pub(in crate::supervisor) fn pool_deadlines(
        &self,
    ) -> impl Iterator<Item = (Timestamp, String)> {
        let known = self.fleet.pool.credentials.iter().filter(|_| self.ready);
        let credentials = known.flat_map(|(id, standing)| {
            let renewing = self.refreshing.contains(id);
            [
                (
                    standing.spent.as_ref().map(|spent| spent.until),
                    "free again",
                ),
                (
                    standing.cooling.as_ref().map(|cooling| cooling.until),
                    "cooled down",
                ),
                (standing.refresh_due().filter(|_| !renewing), "is renewed"),
                (standing.ends_for_good(), "expires"),
                (
                    standing
                        .refused
                        .as_ref()
                        .and_then(|refused| refused.again_at),
                    "one more chance",
                ),
            ]
            .into_iter()
            .filter_map(move |(at, what)| Some((at?, format!("{id}: {what}"))))
        });
        let agents = self.fleet.agents.values().filter(|_| self.ready);
        let agents = agents.flat_map(|agent| {
            let lending = agent.lease.lending.as_ref();
            let lending = lending.filter(|lending| !lending.sent && agent.phase.has_session());
            let turn = lending.map(|lending| (lending.at, format!("{}: its turn", agent.id)));
            let avoids = agent.lease.avoid.iter();
            let avoids = avoids.map(|(id, at)| (*at, format!("{}: may have {id} again", agent.id)));
            turn.into_iter().chain(avoids)
        });
        credentials.chain(agents)
    }
}

/// Whose turn comes first, smallest first: work that stands still, work that is done, the rest.
fn urgency(agent: &AgentState) -> u8 {
    match (&agent.phase, &agent.held) {
        (Phase::Limited { .. }, Some(_)) => 0,
        (Phase::Idle | Phase::Limited { .. } | Phase::Starting { .. }, _) => 2,
        _ => 1,
    }
}
