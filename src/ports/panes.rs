//! Terminals in which people watch agents, and through which text is pasted as a fallback.

use async_trait::async_trait;

use super::PortResult;
use crate::model::AgentId;

/// A pane session that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPane {
    pub agent: AgentId,
    /// Its command has ended and the pane shows only what was left.
    pub dead: bool,
}

/// One tmux server of our own; one session per agent, named after the agent.
#[async_trait]
pub trait Panes: Send + Sync {
    /// Makes sure a session for `agent` exists and runs `command`; respawns a dead pane.
    /// Idempotent: a live one is left alone, whatever its command.
    async fn ensure(&self, agent: &AgentId, command: &[String]) -> PortResult<()>;

    /// All sessions of ours; empty when the tmux server is not running.
    async fn list(&self) -> PortResult<Vec<ObservedPane>>;

    /// The visible screen as text, lines joined by `\n`.
    async fn capture(&self, agent: &AgentId) -> PortResult<String>;

    /// Pastes `text` as it is (bracketed, newlines kept) and presses Enter.
    async fn paste(&self, agent: &AgentId, text: &str) -> PortResult<()>;

    /// Presses keys by their tmux names (`Escape`, `C-u`, `Enter`).
    async fn keys(&self, agent: &AgentId, keys: &[&str]) -> PortResult<()>;

    /// Ends one session. `Ok` when it is not there.
    async fn remove(&self, agent: &AgentId) -> PortResult<()>;

    /// Ends the whole server of ours. `Ok` when it is not there.
    async fn shut_down(&self) -> PortResult<()>;
}
