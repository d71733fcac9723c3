//! Looking at an agent's screen, and typing into it: only into a prompt that is free.

use std::time::Duration;

use super::Shared;
use crate::claude::launch::WORKSPACE;
use crate::claude::{prompt, screen};
use crate::model::{AgentId, CommitId, Incarnation, RescueCause, Screen};
use crate::ports::PortResult;
use crate::ports::runtime::container_name;
use crate::supervisor::Event;
use crate::worktree::sandbox;

/// For the screen to show the cleared line, and how often it is looked at.
const CLEARED: Duration = Duration::from_millis(200);
const LOOKS_AT_CLEARED: u32 = 10;

impl Shared {
    pub(super) async fn check_screen(&self, agent: AgentId, incarnation: Incarnation) {
        let screen = match self.look(&agent).await {
            Ok(screen) => screen,
            Err(error) => {
                tracing::debug!(%agent, error = error.chain(), "its pane cannot be read");
                self.ensure_pane(&agent).await;
                Screen::Blank
            }
        };
        self.driver
            .tell(Event::ScreenSeen {
                agent,
                incarnation,
                screen,
            })
            .await;
    }

    pub(super) async fn look(&self, agent: &AgentId) -> PortResult<Screen> {
        let text = self.house.panes.capture(agent).await?;
        Ok(screen::classify(&text))
    }

    /// Pastes, or says what is on the screen instead.
    pub(super) async fn paste(
        &self,
        agent: AgentId,
        incarnation: Incarnation,
        text: &str,
        bring_up_to: Option<CommitId>,
        clear: bool,
    ) {
        if let Some(target) = bring_up_to {
            self.rescue(&agent, incarnation, RescueCause::BringUp).await;
            self.bring_up(&agent, incarnation, &target).await;
        }
        let event = match self.try_paste(&agent, text, clear).await {
            Ok(None) => Event::Pasted { agent, incarnation },
            Ok(Some(screen)) => Event::ScreenSeen {
                agent,
                incarnation,
                screen,
            },
            Err(error) => Event::PasteFailed {
                agent,
                incarnation,
                reason: error.chain(),
            },
        };
        self.driver.tell(event).await;
    }

    async fn try_paste(
        &self,
        agent: &AgentId,
        text: &str,
        clear: bool,
    ) -> PortResult<Option<Screen>> {
        // It was there a moment ago, when it was looked at.
        let screen = if let Ok(screen) = self.look(agent).await {
            screen
        } else {
            let view = self.house.view_of(agent);
            self.house.panes.ensure(agent, &view).await?;
            self.look(agent).await?
        };
        match screen {
            Screen::Ready => {}
            Screen::Draft if clear => {
                self.house.panes.keys(agent, &["C-u"]).await?;
                let now = self.look_at_cleared(agent).await?;
                if now != Screen::Ready {
                    return Ok(Some(now));
                }
            }
            other => return Ok(Some(other)),
        }
        self.house.panes.paste(agent, &prompt::wrap(text)).await?;
        Ok(None)
    }

    async fn look_at_cleared(&self, agent: &AgentId) -> PortResult<Screen> {
        let mut seen = Screen::Draft;
        for _ in 0..LOOKS_AT_CLEARED {
            tokio::time::sleep(CLEARED).await;
            seen = self.look(agent).await?;
            if seen != Screen::Draft {
                break;
            }
        }
        Ok(seen)
    }

    /// The checkout of an idle agent, brought up to the branch where that touches nothing of its own.
    async fn bring_up(&self, agent: &AgentId, incarnation: Incarnation, target: &CommitId) {
        let name = container_name(&self.house.config.project, agent, incarnation);
        let command = sandbox::bring_up_to(WORKSPACE, target, &self.house.config.branch);
        match self.house.runtime.exec(&name, &command).await {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                tracing::info!(%agent, target = target.short(), said, "checkout brought up");
            }
            Err(error) => {
                tracing::warn!(%agent, error = error.chain(), "its checkout was not brought up");
            }
        }
    }
}
