//! What is remembered of each credential, and of each agent's right to use one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::state::{AgentState, Fleet};
use crate::model::{CredentialId, CredentialInfo, QuotaWindow, Timestamp, Windows};

/// Every credential there is or was, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    #[serde(default)]
    pub credentials: BTreeMap<CredentialId, Standing>,
}

impl Pool {
    /// The credential with which this agent could only fail, as far as is known.
    pub fn blocks(&self, agent: &AgentState) -> Option<&Standing> {
        let has = agent.credential.as_ref()?;
        self.credentials
            .get(has)
            .filter(|standing| !standing.lets_work())
    }
}

/// One credential: what it is, how far it is used, why it is not used now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub info: CredentialInfo,
    /// Its file is not there, or not usable, any more.
    #[serde(default)]
    pub gone: bool,
    /// Grows when what an instance would be given changes.
    #[serde(default)]
    pub edition: u64,
    #[serde(default)]
    pub windows: Windows,
    #[serde(default)]
    pub windows_at: Option<Timestamp>,
    #[serde(default)]
    pub spent: Option<Spent>,
    #[serde(default)]
    pub cooling: Option<Cooling>,
    #[serde(default)]
    pub refused: Option<Refused>,
    /// Its access token was not accepted, or has expired: it is being renewed.
    #[serde(default)]
    pub doubted: bool,
    /// When a turn was last refused its token.
    #[serde(default)]
    pub doubted_at: Option<Timestamp>,
    #[serde(default)]
    pub strikes: Strikes,
    /// When its access token is to be renewed.
    #[serde(default)]
    pub refresh_at: Option<Timestamp>,
    #[serde(default)]
    pub refresh_failures: u32,
    #[serde(default)]
    pub refreshed_at: Option<Timestamp>,
    /// The next agent may come to it then.
    #[serde(default)]
    pub slot_at: Timestamp,
}

/// A quota is spent until then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    pub window: QuotaWindow,
    /// When it is free again.
    pub resets_at: Timestamp,
    /// When it is used again: a little later, so that clocks need not agree.
    pub until: Timestamp,
    /// False: nobody said when it ends, it is tried again then.
    pub told: bool,
}

/// Not used for a short while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooling {
    pub until: Timestamp,
    pub reason: String,
}

/// Not used until a person does something: a changed file lifts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub at: Timestamp,
    pub reason: String,
    pub hint: String,
    /// What the file was like then.
    pub fingerprint: String,
    /// It may be mended without a new file: tried again then, if nothing else can be used.
    #[serde(default)]
    pub again_at: Option<Timestamp>,
}

/// Failures in a row whose end nobody told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strikes {
    pub count: u32,
    pub at: Timestamp,
}

/// Several agents meet the same burst: within this it is one strike.
const ONE_STRIKE: Duration = Duration::from_secs(20);

impl Strikes {
    /// One more; returns how many there were before it.
    pub(super) fn strike(&mut self, now: Timestamp) -> u32 {
        if self.count == 0 || now.since(self.at) > ONE_STRIKE {
            self.count = self.count.saturating_add(1);
            self.at = now;
        }
        self.count.saturating_sub(1)
    }
}

/// What an agent has to do with credentials, besides the one it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// On its way to it.
    #[serde(default)]
    pub lending: Option<Lending>,
    /// Edition of what it has.
    #[serde(default)]
    pub edition: u64,
    /// When it got what it has.
    #[serde(default)]
    pub since: Timestamp,
    /// What it had before: a request that was running then still used that.
    #[serde(default)]
    pub former: Option<CredentialId>,
    /// A turn has begun since: what fails from now on is of what it has.
    #[serde(default)]
    pub in_use: bool,
    /// When it was last moved without need.
    #[serde(default)]
    pub moved_at: Option<Timestamp>,
    /// Failures of the provider in a row.
    #[serde(default)]
    pub faults: u32,
    /// Credentials that are of no use to this agent alone until then: its model is refused, or they
    /// could not be put into its instance.
    #[serde(default)]
    pub avoid: BTreeMap<CredentialId, Timestamp>,
}

/// A credential on its way to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lending {
    pub credential: CredentialId,
    pub edition: u64,
    /// Its turn: several agents do not come to a credential at once.
    pub at: Timestamp,
    pub sent: bool,
}

/// Whether a credential can be used now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Health<'a> {
    Ready,
    Refused(&'a Refused),
    Spent(&'a Spent),
    Cooling(&'a Cooling),
    /// Its access token is being renewed.
    Renewing,
    /// Whoever has it may go on; nobody new gets it.
    Gone,
}

impl Standing {
    pub(super) fn new(info: CredentialInfo) -> Self {
        Self {
            info,
            gone: false,
            edition: 1,
            windows: Windows::default(),
            windows_at: None,
            spent: None,
            cooling: None,
            refused: None,
            doubted: false,
            doubted_at: None,
            strikes: Strikes::default(),
            refresh_at: None,
            refresh_failures: 0,
            refreshed_at: None,
            slot_at: Timestamp(0),
        }
    }

    pub(super) fn health(&self) -> Health<'_> {
        if let Some(refused) = &self.refused {
            return Health::Refused(refused);
        }
        if let Some(spent) = &self.spent {
            return Health::Spent(spent);
        }
        if let Some(cooling) = &self.cooling {
            return Health::Cooling(cooling);
        }
        match (self.gone, self.doubted) {
            (true, _) => Health::Gone,
            (false, true) => Health::Renewing,
            (false, false) => Health::Ready,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.health(), Health::Ready)
    }

    /// What it has may be used on, by those who have it.
    pub(super) fn lets_work(&self) -> bool {
        matches!(self.health(), Health::Ready | Health::Gone)
    }

    /// When it can be used again by itself; `None` if nobody knows.
    pub(super) fn free_at(&self) -> Option<Timestamp> {
        match self.health() {
            Health::Spent(spent) => {
                let cooling = self.cooling.as_ref().map(|cooling| cooling.until);
                Some(cooling.map_or(spent.until, |until| until.max(spent.until)))
            }
            Health::Cooling(cooling) => Some(cooling.until),
            Health::Ready => Some(Timestamp(0)),
            Health::Refused(refused) => refused.again_at,
            Health::Renewing | Health::Gone => None,
        }
    }
}

impl AgentState {
    /// It may be given work with what it has.
    pub(in crate::supervisor) fn may_work(&self, pool: &Pool) -> bool {
        if pool.credentials.is_empty() {
            return true;
        }
        let has = self.credential.as_ref();
        has.and_then(|id| pool.credentials.get(id))
            .is_some_and(Standing::lets_work)
    }
}

impl Fleet {
    /// Nobody is left with a credential that is of no use while another could be had.
    pub(in crate::supervisor) fn check_leases(&self) -> Result<(), String> {
        let all = &self.pool.credentials;
        for agent in self.agents.values() {
            let lease = &agent.lease;
            if agent.phase.wants_credential() && all.is_empty() {
                return Err(format!(
                    "{} waits for a credential, without a pool",
                    agent.id
                ));
            }
            let stuck = agent.phase.has_session()
                && !agent.may_work(&self.pool)
                && lease.lending.is_none()
                && !waits_for_renewal(agent, self)
                && !waits_for_time(agent);
            let free = || {
                all.iter()
                    .find(|(id, standing)| standing.is_ready() && !lease.avoid.contains_key(*id))
            };
            if stuck && let Some((id, _)) = free() {
                return Err(format!(
                    "{} is left without a credential beside {id}",
                    agent.id
                ));
            }
        }
        Ok(())
    }
}

/// A renewal takes a second; rotating takes longer.
fn waits_for_renewal(agent: &AgentState, fleet: &Fleet) -> bool {
    let has = agent.credential.as_ref();
    let standing = has.and_then(|id| fleet.pool.credentials.get(id));
    standing.is_some_and(|standing| matches!(standing.health(), Health::Renewing))
}

fn waits_for_time(agent: &AgentState) -> bool {
    agent.phase.word() == "limited" && !agent.phase.wants_credential()
}
