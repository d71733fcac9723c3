//! [`Panes`] in memory. Remembers what was typed, as text and as the bytes the program in the
//! pane would read; screens are the test's to set.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::model::AgentId;
use crate::ports::{ErrorKind, ObservedPane, Panes, PortError, PortResult};
use crate::runtime::tmux::{MAX_PASTE_BYTES, printable};

/// One pane as a test sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakePane {
    pub command: Vec<String>,
    pub dead: bool,
    pub screen: String,
    /// How often its command was started: 1 after the first `ensure`.
    pub starts: usize,
    /// Texts, in order.
    pub pastes: Vec<String>,
    /// Key names, in order, without the Enter of a paste.
    pub keys: Vec<String>,
    /// All input as the program reads it, with bracketed paste.
    pub input: Vec<u8>,
}

#[derive(Default)]
struct State {
    panes: BTreeMap<AgentId, FakePane>,
    failure: Option<(ErrorKind, String)>,
}

/// A tmux server that is none.
#[derive(Default)]
pub struct FakePanes {
    state: Mutex<State>,
}

impl FakePanes {
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of the pane, or `None` when there is none.
    pub fn pane(&self, agent: &AgentId) -> Option<FakePane> {
        self.lock().panes.get(agent).cloned()
    }

    /// What was pasted into the agent's pane so far; empty when it has none.
    pub fn pastes(&self, agent: &AgentId) -> Vec<String> {
        self.pane(agent).map(|pane| pane.pastes).unwrap_or_default()
    }

    /// What `capture` shows from now on. Does nothing when there is no pane.
    pub fn set_screen(&self, agent: &AgentId, screen: impl Into<String>) {
        if let Some(pane) = self.lock().panes.get_mut(agent) {
            pane.screen = screen.into();
        }
    }

    /// The pane's command ends; the pane stays, with what it shows.
    pub fn end_command(&self, agent: &AgentId) {
        if let Some(pane) = self.lock().panes.get_mut(agent) {
            pane.dead = true;
        }
    }

    /// The whole server dies, as by `kill -9`.
    pub fn kill_server(&self) {
        self.lock().panes.clear();
    }

    /// Every call fails like this until [`FakePanes::heal`].
    pub fn fail(&self, kind: ErrorKind, message: impl Into<String>) {
        self.lock().failure = Some((kind, message.into()));
    }

    pub fn heal(&self) {
        self.lock().failure = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn working(&self) -> PortResult<MutexGuard<'_, State>> {
        let state = self.lock();
        match &state.failure {
            Some((kind, message)) => Err(PortError::new(*kind, message.clone())),
            None => Ok(state),
        }
    }

    fn type_into(&self, agent: &AgentId, act: impl FnOnce(&mut FakePane)) -> PortResult<()> {
        match self.working()?.panes.get_mut(agent) {
            None => Err(no_pane(agent)),
            Some(pane) if pane.dead => Err(PortError::new(
                ErrorKind::Transient,
                format!("the pane of {agent} has ended, so nothing was typed"),
            )),
            Some(pane) => {
                act(pane);
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Panes for FakePanes {
    async fn ensure(&self, agent: &AgentId, command: &[String]) -> PortResult<()> {
        let name = agent.as_str();
        let named = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !named || command.first().is_none_or(String::is_empty) {
            return Err(PortError::new(
                ErrorKind::Refused,
                format!("bad name or command: `{agent}`"),
            ));
        }
        let mut state = self.working()?;
        let fresh = !state.panes.contains_key(agent);
        let pane = state.panes.entry(agent.clone()).or_default();
        if fresh || pane.dead {
            pane.command = command.to_vec();
            pane.dead = false;
            pane.starts += 1;
            pane.screen.clear();
        }
        Ok(())
    }

    async fn list(&self) -> PortResult<Vec<ObservedPane>> {
        let state = self.working()?;
        let seen = state.panes.iter().map(|(agent, pane)| ObservedPane {
            agent: agent.clone(),
            dead: pane.dead,
        });
        Ok(seen.collect())
    }

    async fn capture(&self, agent: &AgentId) -> PortResult<String> {
        let state = self.working()?;
        state
            .panes
            .get(agent)
            .map(|pane| pane.screen.clone())
            .ok_or_else(|| no_pane(agent))
    }

    async fn paste(&self, agent: &AgentId, text: &str) -> PortResult<()> {
        if text.len() > MAX_PASTE_BYTES || matches!(printable(text), Cow::Owned(_)) {
            return Err(PortError::new(
                ErrorKind::Refused,
                "too long, or holds control characters",
            ));
        }
        self.type_into(agent, |pane| {
            if !text.is_empty() {
                pane.input
                    .extend_from_slice(format!("\x1b[200~{text}\x1b[201~").as_bytes());
            }
            pane.input.push(b'\r');
            pane.pastes.push(text.to_owned());
        })
    }

    async fn keys(&self, agent: &AgentId, keys: &[&str]) -> PortResult<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.type_into(agent, |pane| {
            for key in keys {
                pane.keys.push((*key).to_owned());
                pane.input.extend_from_slice(&bytes_of(key));
            }
        })
    }

    async fn remove(&self, agent: &AgentId) -> PortResult<()> {
        self.working()?.panes.remove(agent);
        Ok(())
    }

    async fn shut_down(&self) -> PortResult<()> {
        self.working()?.panes.clear();
        Ok(())
    }
}

fn no_pane(agent: &AgentId) -> PortError {
    PortError::new(ErrorKind::NotFound, format!("{agent} has no pane"))
}

/// The bytes of the keys that are used here; text that names no key is typed as it is, as tmux does.
fn bytes_of(key: &str) -> Vec<u8> {
    match (key, key.as_bytes()) {
        ("Enter", _) => vec![b'\r'],
        ("Escape", _) => vec![0x1b],
        ("Tab", _) => vec![b'\t'],
        ("Space", _) => vec![b' '],
        ("BSpace", _) => vec![0x7f],
        (_, [b'C', b'-', letter]) => vec![letter.to_ascii_uppercase() & 0x1f],
        (text, _) => text.as_bytes().to_vec(),
    }
}
