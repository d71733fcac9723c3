//! Credentials as they really are: quotas, tokens, billing. What the supervisor knows of them it
//! learns by events alone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::World;
use super::mind::Doing;
use crate::model::{
    AgentId, CredentialId, CredentialInfo, CredentialKind, Fault, Incarnation, QuotaWindow,
    Timestamp, Windows,
};
use crate::supervisor::{Action, Event, Supervisor};

pub(super) const LIMIT_DIALOG: &str = "rate-limit-options";

/// All of them, by name.
pub type Accounts = BTreeMap<CredentialId, Account>;

/// One credential and what its provider thinks of it.
#[derive(Clone, Debug)]
pub struct Account {
    pub info: CredentialInfo,
    /// Its file is there.
    pub there: bool,
    /// Its quota is spent until then.
    pub spent_until: Option<Timestamp>,
    /// The text of the limit says when it ends.
    pub tells: bool,
    /// Edition of the token in its file.
    pub token: u64,
    /// Older tokens are not accepted.
    pub accepted: u64,
    /// The refresh token is not accepted any more.
    pub dead: bool,
    /// Renewals that do not get through.
    pub refresh_faults: u32,
    pub unpaid: bool,
}

impl Account {
    /// `key:NAME` is an API key, `login:NAME` a login that can be renewed, else a subscription's
    /// token.
    pub fn named(word: &str) -> (CredentialId, Self) {
        let (what, name) = word.split_once(':').unwrap_or(("token", word));
        let id = CredentialId::new(name);
        let login = what == "login";
        let info = CredentialInfo {
            id: id.clone(),
            kind: if login {
                CredentialKind::OauthLogin
            } else {
                CredentialKind::SettingsEnv
            },
            plan: None,
            subscription: what != "key",
            refreshable: login,
            expires_at: None,
            fingerprint: "1".into(),
        };
        let account = Self {
            info,
            there: true,
            spent_until: None,
            tells: true,
            token: 1,
            accepted: 1,
            dead: false,
            refresh_faults: 0,
            unpaid: false,
        };
        (id, account)
    }

    fn fault(&self, now: Timestamp, token: u64) -> Option<(&'static str, &'static str, Fault)> {
        let over = self.info.expires_at.is_some_and(|end| end <= now);
        if over || token < self.accepted {
            let message = "Please run /login";
            return Some(("authentication_failed", message, Fault::LoginRefused));
        }
        if self.unpaid {
            let message = "Credit balance is too low";
            return Some(("billing_error", message, Fault::Billing));
        }
        let end = self.spent_until.filter(|end| *end > now)?;
        if !self.info.subscription {
            let message = "Request rejected (429)";
            let fault = Fault::QuotaSpent {
                window: QuotaWindow::Account,
                resets_at: None,
            };
            return Some(("rate_limit", message, fault));
        }
        let fault = Fault::QuotaSpent {
            window: QuotaWindow::FiveHour,
            resets_at: Some(end).filter(|_| self.tells),
        };
        Some(("rate_limit", "You've hit your session limit", fault))
    }
}

impl World {
    /// The daemon reads the files.
    pub fn read_pool(&mut self) {
        let there = self.accounts.values().filter(|account| account.there);
        let credentials: Vec<CredentialInfo> = there.map(|account| account.info.clone()).collect();
        if !self.accounts.is_empty() {
            self.observe(Event::PoolRead { credentials });
        }
    }

    /// What a login or a person puts into the file of a credential.
    pub fn new_file(&mut self, id: &CredentialId) -> bool {
        let Some(account) = self.accounts.get_mut(id) else {
            return false;
        };
        account.there = true;
        account.dead = false;
        account.unpaid = false;
        account.token += 1;
        account.accepted = account.token;
        account.info.expires_at = None;
        account.info.fingerprint = account.token.to_string();
        self.read_pool();
        true
    }

    /// Its quota is spent from now on.
    pub fn limit(&mut self, id: &CredentialId, time: Duration, tells: bool) -> bool {
        let end = self.now + time;
        let Some(account) = self.accounts.get_mut(id) else {
            return false;
        };
        account.spent_until = Some(end);
        account.tells = tells;
        true
    }

    /// The agent's status line shows these windows.
    pub fn tells_windows(&mut self, agent: &AgentId, windows: Windows) -> bool {
        let Some(incarnation) = self.live(agent) else {
            return false;
        };
        self.observe(Event::WindowsTold {
            agent: agent.clone(),
            incarnation,
            windows,
        });
        true
    }

    /// Why a turn of this agent would fail now.
    pub(super) fn credential_fault(
        &self,
        agent: &AgentId,
    ) -> Option<(&'static str, &'static str, Fault)> {
        let (id, token) = self.minds[agent].credential.as_ref()?;
        self.accounts.get(id)?.fault(self.now, *token)
    }

    pub(super) fn turn_fails_as(
        &mut self,
        agent: &AgentId,
        (error, message, fault): (&str, &str, Fault),
    ) -> bool {
        let limit = matches!(
            fault,
            Fault::QuotaSpent {
                window: QuotaWindow::FiveHour,
                ..
            }
        );
        if let Some(mind) = self.minds.get_mut(agent)
            && limit
            && std::mem::take(&mut mind.dialog_at_limit)
        {
            mind.dialog = Some(LIMIT_DIALOG.to_owned());
        }
        self.turn_fails_with(agent, error, message, fault)
    }

    /// The token of this credential as its file has it now goes into the instance.
    pub(super) fn equip(&mut self, agent: &AgentId, id: Option<CredentialId>) {
        let token = |id: CredentialId| {
            let account = self.accounts.get(&id)?;
            Some((id, account.token))
        };
        let credential = id.and_then(token);
        if let Some(mind) = self.minds.get_mut(agent) {
            mind.credential = credential;
        }
    }

    /// Every key there is may be used by the instance that starts now.
    pub(super) fn approve(&mut self, agent: &AgentId) {
        let keys = self.accounts.iter().filter(|(_, account)| account.there);
        let keys = keys
            .map(|(id, account)| (id.clone(), account.token))
            .collect();
        if let Some(mind) = self.minds.get_mut(agent) {
            mind.approved = keys;
        }
    }

    /// A key that came after its start is asked about, and nobody answers.
    fn accepts(&self, agent: &AgentId, id: &CredentialId) -> bool {
        self.accounts.get(id).is_some_and(|account| {
            let approved = &self.minds[agent].approved;
            account.info.subscription || approved.contains(&(id.clone(), account.token))
        })
    }

    pub(super) fn lend(
        &mut self,
        agent: AgentId,
        incarnation: Incarnation,
        credential: CredentialId,
    ) -> Event {
        let there = self.accounts.get(&credential).is_some_and(|a| a.there);
        if !there || self.live(&agent) != Some(incarnation) {
            return Event::LendFailed {
                agent,
                incarnation,
                credential,
                reason: "its container is not there".into(),
                restart: false,
            };
        }
        if self.lend_faults > 0 {
            self.lend_faults -= 1;
            return Event::LendFailed {
                agent,
                incarnation,
                credential,
                reason: "its file could not be written".into(),
                restart: false,
            };
        }
        if !self.accepts(&agent, &credential) {
            return Event::LendFailed {
                agent,
                incarnation,
                credential,
                reason: "it is a new key".into(),
                restart: true,
            };
        }
        self.equip(&agent, Some(credential.clone()));
        Event::Lent {
            agent,
            incarnation,
            credential,
        }
    }

    pub(super) fn refresh(&mut self, credential: CredentialId) -> Event {
        let end = self.now + Duration::from_secs(8 * 3600);
        let failed = |credential, reason: &str, dead| Event::RefreshFailed {
            credential,
            reason: reason.to_owned(),
            dead,
        };
        let Some(account) = self.accounts.get_mut(&credential) else {
            return failed(credential, "there is no such file", false);
        };
        if account.dead {
            return failed(credential, "invalid_grant", true);
        }
        if account.refresh_faults > 0 {
            account.refresh_faults -= 1;
            return failed(credential, "connection refused", false);
        }
        account.token += 1;
        account.accepted = account.accepted.min(account.token);
        account.info.expires_at = Some(end);
        account.info.fingerprint = account.token.to_string();
        Event::Refreshed {
            credential,
            expires_at: Some(end),
        }
    }

    /// Nobody is given work with a credential that could only fail, as far as is known; and what is
    /// believed to be in an instance is there, or on its way.
    pub(super) fn check_work(&self, actions: &[Action]) {
        let Some(fleet) = self.supervisor().map(Supervisor::fleet) else {
            return;
        };
        for action in actions {
            let Action::Paste { agent, .. } = action else {
                continue;
            };
            let state = &fleet.agents[agent];
            let unusable = fleet.pool.blocks(state);
            assert!(
                unusable.is_none(),
                "{agent} is given work although {unusable:?}:\n{}",
                self.tail()
            );
        }
        for (id, agent) in &fleet.agents {
            let mind = &self.minds[id];
            let working = matches!(mind.doing, Doing::Working { .. });
            let Some((has, _)) = mind.credential.as_ref().filter(|_| working) else {
                continue;
            };
            let lending = agent
                .lease
                .lending
                .as_ref()
                .map(|lending| &lending.credential);
            let certain = agent.lease.edition > 0;
            let known = !certain || agent.credential.as_ref() == Some(has) || lending == Some(has);
            assert!(
                known || agent.incarnation != self.live(id).unwrap_or_default(),
                "{id} works with {has}, and nobody knows:\n{}",
                self.tail()
            );
        }
    }
}
