//! What is kept: snapshots of uncommitted work, checkouts.

use std::path::Path;

use reqwest::Method;
use serde_json::json;

use super::Result;
use super::http::{Client, Done};
use crate::model::{AgentId, CleanedUp, RescueContent, RescueView, Restored, WorktreeView};

impl Client {
    /// Newest first; of one agent, or of all.
    pub async fn rescues(&self, agent: Option<&AgentId>) -> Result<Vec<RescueView>> {
        let mut url = self.url(&["rescues"]);
        if let Some(agent) = agent {
            url.query_pairs_mut().append_pair("agent", agent.as_str());
        }
        self.json(self.get(url)).await
    }

    pub async fn rescue(&self, id: &str) -> Result<RescueContent> {
        self.json(self.request(Method::GET, &["rescues", id])).await
    }

    /// Takes a snapshot of this agent's uncommitted work, or of everybody's. Its result shows in the
    /// status.
    pub async fn rescue_now(&self, agent: Option<&AgentId>) -> Result<Done> {
        let request = self.request(Method::POST, &["rescues"]);
        self.json(request.json(&json!({ "agent": agent }))).await
    }

    /// `into`: an absolute path on the supervisor's machine, where nothing is yet.
    pub async fn restore(&self, id: &str, into: &Path) -> Result<Restored> {
        let request = self.request(Method::POST, &["rescues", id, "restore"]);
        self.json(request.json(&json!({ "into": into }))).await
    }

    pub async fn worktrees(&self) -> Result<Vec<WorktreeView>> {
        self.json(self.request(Method::GET, &["worktrees"])).await
    }

    /// Puts a checkout into the trash; `dry_run` says what would be done.
    pub async fn clean_up(&self, agent: &AgentId, force: bool, dry_run: bool) -> Result<CleanedUp> {
        let request = self.request(Method::POST, &["worktrees", agent.as_str(), "cleanup"]);
        let body = json!({ "force": force, "dry_run": dry_run });
        self.json(request.json(&body)).await
    }
}
