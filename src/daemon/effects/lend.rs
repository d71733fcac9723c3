//! Another credential for an instance that runs, without a restart of Claude Code.
//!
//! A login file is looked at before each request, so a new one counts from the next request on.
//! Variables come through the managed settings, which a running Claude Code 2.1.197 reads about
//! three seconds after they change, and says so with a ConfigChange hook. Until then it would use the
//! old ones: only afterwards is the credential reported as lent.

use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::instance::{
    is_approved, present_settings, wanted_settings, write_login, write_settings,
};
use crate::credentials::{Credential, Renewal, renew};
use crate::model::{AgentId, CredentialId, Incarnation, Screen};
use crate::ports::{ErrorKind, PortError, PortResult};
use crate::supervisor::Event;

/// Seen: 3.0 s. An instance that says nothing for this long has read them, or reads nothing.
const SETTINGS_READ: Duration = Duration::from_secs(8);
/// From the hook, which runs beside, to the values in use.
const SETTINGS_USED: Duration = Duration::from_millis(250);
/// For the screen to show the prompt after Escape.
const DIALOG_CLOSED: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Shared {
    pub(super) async fn lend(&self, agent: AgentId, incarnation: Incarnation, id: CredentialId) {
        let event = match self.try_lend(&agent, &id).await {
            Ok(()) => {
                tracing::info!(%agent, %incarnation, credential = %id, "credential lent");
                Event::Lent {
                    agent,
                    incarnation,
                    credential: id,
                }
            }
            Err(error) => Event::LendFailed {
                agent,
                incarnation,
                credential: id,
                // Nothing but a key that is not approved is refused.
                restart: error.kind == ErrorKind::Refused,
                reason: error.chain(),
            },
        };
        self.driver.tell(event).await;
    }

    async fn try_lend(&self, agent: &AgentId, id: &CredentialId) -> PortResult<()> {
        let Some(credential) = self.house.pool.get(id) else {
            let text = format!("the file of {id} is not usable any more");
            return Err(PortError::new(ErrorKind::NotFound, text));
        };
        self.check_approval(agent, &credential).await?;
        let readings = self.readings(agent);
        let (house, owner) = (self.house.clone(), agent.clone());
        let lent = credential.clone();
        // A login first: it does nothing while a variable has precedence, and is there when that goes.
        let changed = super::super::join(move || {
            let material = lent.material();
            if material.oauth_file.is_some() {
                write_login(&house, &owner, material)?;
            }
            let managed = house.paths.agent(&owner).managed();
            let present = present_settings(&managed);
            let mut settings = wanted_settings(&house, material);
            present.unset_in(&mut settings);
            if present.equals(&settings) {
                return Ok(false);
            }
            write_settings(&house, &managed, &settings).map(|()| true)
        })
        .await?;
        if changed {
            self.wait_until_read(agent, readings).await;
        }
        if credential.material().oauth_file.is_none() {
            // Last: the former login carries the requests until the variables are read.
            let (house, owner) = (self.house.clone(), agent.clone());
            super::super::join(move || write_login(&house, &owner, credential.material())).await?;
        }
        Ok(())
    }

    /// `.claude.json` is Claude Code's while it runs, which writes it as a whole: a key that is not
    /// approved there can be added at the next start only.
    async fn check_approval(&self, agent: &AgentId, credential: &Credential) -> PortResult<()> {
        let Some(suffix) = credential.material().approved_key_suffix.clone() else {
            return Ok(());
        };
        let (house, owner) = (self.house.clone(), agent.clone());
        let approved =
            super::super::join(move || Ok(is_approved(&house, &owner, suffix.expose()))).await?;
        if approved {
            return Ok(());
        }
        let text = format!(
            "{} holds a new API key, which {agent} can use from its next start on",
            credential.id
        );
        Err(PortError::new(ErrorKind::Refused, text))
    }

    fn readings(&self, agent: &AgentId) -> u64 {
        let counts = self.settings_read.borrow();
        counts.get(agent).copied().unwrap_or_default()
    }

    async fn wait_until_read(&self, agent: &AgentId, before: u64) {
        let mut counts = self.settings_read.subscribe();
        let read = counts.wait_for(|counts| counts.get(agent).is_some_and(|n| *n > before));
        let in_time = tokio::time::timeout(SETTINGS_READ, read).await.is_ok();
        if in_time {
            tokio::time::sleep(SETTINGS_USED).await;
        } else {
            tracing::debug!(%agent, "no word that its settings were read");
        }
    }

    pub(super) async fn close_dialog(
        &self,
        agent: AgentId,
        incarnation: Incarnation,
        name: String,
    ) {
        match self.try_close_dialog(&agent, &name).await {
            Ok(screen) => {
                self.driver
                    .tell(Event::ScreenSeen {
                        agent,
                        incarnation,
                        screen,
                    })
                    .await;
            }
            Err(error) => {
                tracing::debug!(%agent, error = error.chain(), "its dialog was not closed");
                self.check_screen(agent, incarnation).await;
            }
        }
    }

    async fn try_close_dialog(&self, agent: &AgentId, name: &str) -> PortResult<Screen> {
        let panes = &self.house.panes;
        panes.ensure(agent, &self.house.view_of(agent)).await?;
        let is_it =
            |screen: &Screen| matches!(screen, Screen::Dialog { name: shown } if shown == name);
        let mut screen = self.look(agent).await?;
        if !is_it(&screen) {
            return Ok(screen);
        }
        panes.keys(agent, &["Escape"]).await?;
        let deadline = Instant::now() + DIALOG_CLOSED;
        while is_it(&screen) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_AGAIN).await;
            screen = self.look(agent).await?;
        }
        Ok(screen)
    }

    pub(super) async fn refresh(&self, id: CredentialId) {
        let Some(credential) = self.house.pool.get(&id) else {
            let reason = "its file is not usable any more".to_owned();
            let event = Event::RefreshFailed {
                credential: id,
                reason,
                dead: false,
            };
            return self.driver.tell(event).await;
        };
        let wanted = &self.house.config.credentials;
        let renewal = Renewal {
            logins: &self.house.logins,
            token_url: &wanted.token_url,
            write_back: wanted.write_back,
            now: self.house.clock.now(),
        };
        match renew(&credential, renewal).await {
            Ok(renewed) => {
                tracing::info!(credential = %id, "login renewed");
                // First of all: what is lent from now on is the new one.
                super::super::pool::read_again(&self.house, &self.driver).await;
                if let Some(warning) = renewed.warning {
                    self.notice(format!("{id} was renewed, but {warning}"))
                        .await;
                }
                self.driver
                    .tell(Event::Refreshed {
                        credential: id,
                        expires_at: renewed.expires_at,
                    })
                    .await;
            }
            Err(error) => {
                tracing::warn!(credential = %id, %error, dead = error.dead, "login not renewed");
                self.driver
                    .tell(Event::RefreshFailed {
                        credential: id,
                        reason: error.reason,
                        dead: error.dead,
                    })
                    .await;
            }
        }
    }

    async fn notice(&self, text: String) {
        self.driver
            .tell(Event::Noticed {
                agent: None,
                text,
                hint: None,
            })
            .await;
    }
}
