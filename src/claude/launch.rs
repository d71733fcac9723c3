//! The command and environment of an instance's Claude Code.

use std::collections::BTreeMap;

use crate::model::{AgentId, Incarnation, Role, SessionId};

/// `CLAUDE_CONFIG_DIR` inside an instance: writable, kept over restarts, holds the conversations.
pub const CONFIG_DIRECTORY: &str = "/home/agent/.claude";
/// The agent's checkout inside an instance. `--resume` works only from the same directory.
pub const WORKSPACE: &str = "/workspace";
/// The helper's socket inside an instance. The *directory* is mounted.
pub const SOCKET_DIRECTORY: &str = "/run/orchestrator/socket";
/// Where the helper keeps what it could not deliver.
pub const SPOOL_DIRECTORY: &str = "/var/spool/orchestrator";

/// Without it a resumed session is idle, also one whose last turn was cut off.
const GO_ON: &str = "CLAUDE_CODE_RESUME_INTERRUPTED_TURN";

/// Which conversation the process takes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversation {
    /// The first time. Using an id again is refused by the CLI.
    New(SessionId),
    /// From then on. It waits at its prompt, whatever its last turn was.
    Resume(SessionId),
    /// As [`Self::Resume`], but an unfinished turn goes on by itself.
    GoOn(SessionId),
}

/// What makes one instance different from the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub role: Role,
    pub total_workers: u32,
    /// The agent's own branch.
    pub branch: String,
    /// Always given: the credential's plan would choose another one otherwise.
    pub model: String,
    pub conversation: Conversation,
    /// The user's additions; they win. No secrets: a process environment shows in `docker inspect`.
    pub environment: BTreeMap<String, String>,
}

impl Launch {
    /// The main process of the container, started in [`WORKSPACE`]. Bypass mode, hooks and
    /// credentials come from the managed settings, which win over a repository's own. There is no
    /// `--setting-sources user`: it was tried, and it drops the repository's `CLAUDE.md` and
    /// commands as well, without which an agent does not know the project.
    pub fn command(&self) -> Vec<String> {
        let (flag, session) = match &self.conversation {
            Conversation::New(session) => ("--session-id", session),
            Conversation::Resume(session) | Conversation::GoOn(session) => ("--resume", session),
        };
        ["claude", "--model", &self.model, flag, session.as_str()]
            .map(str::to_owned)
            .to_vec()
    }

    pub fn environment(&self) -> BTreeMap<String, String> {
        let worker = self.agent.worker_number().unwrap_or(0);
        let mut map: BTreeMap<String, String> = [
            ("CLAUDE_CONFIG_DIR", CONFIG_DIRECTORY.to_owned()),
            ("HOME", "/home/agent".to_owned()),
            // Reset times on the screen are in the process's zone.
            ("TZ", "UTC".to_owned()),
            ("TERM", "xterm-256color".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
            (
                "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL",
                "1".to_owned(),
            ),
            ("DISABLE_AUTOUPDATER", "1".to_owned()),
            ("DISABLE_INSTALLATION_CHECKS", "1".to_owned()),
            // Of the default of ten, a key's 429 or 401 makes three minutes of silence on the old
            // key before a hook tells of it; of four, about ten seconds.
            ("CLAUDE_CODE_MAX_RETRIES", "4".to_owned()),
            // The manager is 0: scripts may count on a number.
            ("WORKER_ID", worker.to_string()),
            ("TOTAL_WORKERS", self.total_workers.to_string()),
            ("ORCHESTRATOR_AGENT", self.agent.to_string()),
            ("ORCHESTRATOR_ROLE", self.role.as_str().to_owned()),
            ("ORCHESTRATOR_BRANCH", self.branch.clone()),
            ("ORCHESTRATOR_INCARNATION", self.incarnation.to_string()),
            (
                "ORCHESTRATOR_SOCKET",
                format!("{SOCKET_DIRECTORY}/hooks.sock"),
            ),
            (
                "ORCHESTRATOR_CALLBACK",
                format!("unix:{SOCKET_DIRECTORY}/hooks.sock:/hooks/v1/callback"),
            ),
            ("ORCHESTRATOR_SPOOL", SPOOL_DIRECTORY.to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        if let Conversation::GoOn(_) = self.conversation {
            map.insert(GO_ON.to_owned(), "1".to_owned());
        }
        map.extend(self.environment.clone());
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(conversation: Conversation) -> Launch {
        Launch {
            agent: AgentId::worker(3),
            incarnation: Incarnation(7),
            role: Role::Worker,
            total_workers: 10,
            branch: "agent/worker-3".to_owned(),
            model: "opus".to_owned(),
            conversation,
            environment: BTreeMap::from([("TZ".to_owned(), "Europe/Paris".to_owned())]),
        }
    }

    #[test]
    fn the_first_start_names_the_session_and_the_next_resumes_it() {
        let id = SessionId::new("u");
        assert_eq!(
            launch(Conversation::New(id.clone())).command().join(" "),
            "claude --model opus --session-id u"
        );
        assert_eq!(
            launch(Conversation::Resume(id.clone())).command().join(" "),
            "claude --model opus --resume u"
        );
        assert_eq!(
            launch(Conversation::GoOn(id)).command().join(" "),
            "claude --model opus --resume u"
        );
    }

    #[test]
    fn only_one_that_shall_goes_on_by_itself() {
        let id = SessionId::new("u");
        let goes_on = |conversation| launch(conversation).environment().contains_key(GO_ON);
        assert!(!goes_on(Conversation::New(id.clone())));
        assert!(!goes_on(Conversation::Resume(id.clone())));
        assert!(goes_on(Conversation::GoOn(id)));
    }

    #[test]
    fn an_instance_knows_who_it_is() {
        let env = launch(Conversation::New(SessionId::new("u"))).environment();
        assert_eq!(env["WORKER_ID"], "3");
        assert_eq!(env["TOTAL_WORKERS"], "10");
        assert_eq!(env["ORCHESTRATOR_ROLE"], "worker");
        assert_eq!(env["ORCHESTRATOR_INCARNATION"], "7");
        assert_eq!(env["TZ"], "Europe/Paris", "the user's word wins");
        let manager = Launch {
            agent: AgentId::manager(),
            role: Role::Manager,
            ..launch(Conversation::New(SessionId::new("u")))
        };
        assert_eq!(manager.environment()["WORKER_ID"], "0");
    }
}
