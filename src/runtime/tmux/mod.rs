//! Panes in tmux: one server of ours on its own socket, one session per agent.
//!
//! Called by the daemon (through [`Panes`]) and by the CLI commands that tell people how to attach.
//! Must never touch a tmux server that is not ours, read the user's tmux configuration, hand the
//! daemon's secrets to the server, or type into a pane that is dead: a pane is only a *view* of an
//! agent, and closing it, or the whole server, ends no agent.
//!
//! What is ours carries marks: user options on the session (project, agent, schema) and one on the
//! pane, so that windows and splits a person opens beside it are never mistaken for the agent's.

mod client;
mod environment;
mod error;
mod layout;
mod observe;
mod paste;
mod version;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tmux_interface::{
    CapturePane, CopyMode, KillServer, KillSession, ListSessions, SendKeys, TmuxCommand,
    TmuxCommands,
};
use tokio::sync::OnceCell;

use self::client::Client;
use self::error::TmuxError;
use self::observe::{PaneRow, Place};
pub use self::paste::{MAX_PASTE_BYTES, printable};
use crate::model::{AgentId, ProjectId};
use crate::ports::{ErrorKind, ObservedPane, Panes, PortError, PortResult};

/// A server that was told to end has gone within milliseconds; five seconds are for loaded machines.
const LOOKS_FOR_THE_END: u32 = 250;
const LOOK_FOR_THE_END: Duration = Duration::from_millis(20);

/// The tmux server of one fleet.
pub struct TmuxPanes {
    client: Client,
    project: ProjectId,
    version: OnceCell<String>,
    /// Where each agent's pane was when it was last looked for: tried first, proved each time.
    known: Mutex<BTreeMap<AgentId, String>>,
}

impl TmuxPanes {
    /// `socket_name` is tmux's `-L`: a file name inside its socket directory
    /// (`$TMUX_TMPDIR` or `/tmp`, then `tmux-UID`). Starts nothing.
    pub fn new(socket_name: impl Into<String>, project: ProjectId) -> Self {
        Self {
            client: Client::new(socket_name.into()),
            project,
            version: OnceCell::new(),
            known: Mutex::default(),
        }
    }

    /// The version of the tmux program, for example `3.3a`.
    ///
    /// `Refused`, with what to install, when there is none or it is older than 3.0.
    pub async fn probe(&self) -> PortResult<String> {
        self.version
            .get_or_try_init(|| async {
                let answer = self.client.version().await.map_err(|e| e.during("ask"))?;
                version::check(&answer)
            })
            .await
            .cloned()
    }

    /// What a person types to watch `agent`. Without `=`, which some shells expand; tmux prefers
    /// the exact name anyway.
    pub fn attach_command(&self, agent: &AgentId) -> Vec<String> {
        [
            "tmux",
            "-L",
            self.client.socket(),
            "attach",
            "-t",
            agent.as_str(),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    async fn rows(&self) -> PortResult<Vec<PaneRow>> {
        match self.client.run(observe::list_panes(), None).await {
            Ok(text) => Ok(observe::parse(&text)),
            Err(TmuxError::NoServer) => Ok(Vec::new()),
            Err(error) => Err(error.during("list the panes")),
        }
    }

    async fn place(&self, agent: &AgentId) -> PortResult<Place> {
        let place = observe::find(&self.rows().await?, &self.project, agent);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &place {
            Place::Live { pane, .. } | Place::Dead { pane } => {
                known.insert(agent.clone(), pane.clone());
            }
            Place::Absent | Place::Foreign | Place::Unmarked => {
                known.remove(agent);
            }
        }
        Ok(place)
    }

    /// The screen of the pane that was the agent's when it was last looked for, if it still is: one
    /// process instead of two.
    async fn capture_known(&self, agent: &AgentId) -> Option<String> {
        let pane = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(agent).cloned()?
        };
        let look = CapturePane::new()
            .stdout()
            .target_pane(pane.clone())
            .build();
        let text = self
            .client
            .run(
                observe::list_panes()
                    .add_command(observe::end_of_list())
                    .add_command(look),
                None,
            )
            .await;
        let text = text.ok()?;
        let (rows, screen) = observe::split_list(&text)?;
        match observe::find(&observe::parse(rows), &self.project, agent) {
            Place::Live { pane: now, .. } | Place::Dead { pane: now } if now == pane => {
                Some(screen.to_owned())
            }
            _ => None,
        }
    }

    /// The id of the agent's own live pane, out of copy mode: keys typed into copy mode would move
    /// a cursor, and a paste would lose its brackets.
    async fn ready_pane(&self, agent: &AgentId) -> PortResult<String> {
        match self.place(agent).await? {
            Place::Live { pane, in_mode } => {
                if in_mode {
                    self.leave_mode(&pane).await?;
                }
                Ok(pane)
            }
            Place::Dead { .. } => Err(PortError::new(
                ErrorKind::Transient,
                format!("the pane of {agent} has ended, so nothing was typed"),
            )
            .hint("it is started again by the next reconciliation")),
            other => Err(no_pane(agent, &other)),
        }
    }

    async fn leave_mode(&self, pane: &str) -> PortResult<()> {
        let quit = CopyMode::new().target_pane(pane.to_owned()).build();
        let mut quit = quit;
        quit.push_flag("-q");
        match self.client.run(one(quit), None).await {
            Ok(_) => Ok(()),
            // `copy-mode -q` is tmux 3.2's; before it only this one ends copy mode.
            Err(TmuxError::Other(_)) => self
                .client
                .run(
                    one(SendKeys::new()
                        .target_pane(pane.to_owned())
                        .reset()
                        .key("cancel")
                        .build()),
                    None,
                )
                .await
                .map(drop)
                .map_err(|e| e.during(&format!("leave copy mode in pane {pane}"))),
            Err(error) => Err(error.during(&format!("leave copy mode in pane {pane}"))),
        }
    }

    async fn create(&self, agent: &AgentId, command: &[String]) -> Result<(), TmuxError> {
        let sequence = layout::new_session(&self.project, agent, command);
        match self.client.run(sequence, None).await {
            // Somebody else made it between our look and our step: the same outcome.
            Ok(_) | Err(TmuxError::Duplicate) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Panes for TmuxPanes {
    async fn ensure(&self, agent: &AgentId, command: &[String]) -> PortResult<()> {
        layout::check_name(agent)?;
        layout::check_command(agent, command)?;
        self.probe().await?;
        let doing = format!("open the pane of {agent}");
        match self.place(agent).await? {
            Place::Live { .. } => Ok(()),
            Place::Dead { pane } => {
                match self.client.run(layout::respawn(&pane, command), None).await {
                    // Somebody else was faster; without `-k` tmux leaves a live pane alone.
                    Ok(_) | Err(TmuxError::StillActive) => Ok(()),
                    Err(error) => Err(error.during(&doing)),
                }
            }
            Place::Unmarked => {
                let sequence = layout::new_window(agent, command);
                self.client
                    .run(sequence, None)
                    .await
                    .map(drop)
                    .map_err(|e| e.during(&doing))
            }
            foreign @ Place::Foreign => Err(no_pane(agent, &foreign)),
            Place::Absent => match self.create(agent, command).await {
                // A server that was just ending takes its new client with it; the next try
                // starts a fresh one.
                Err(TmuxError::NoServer) => self.create(agent, command).await,
                result => result,
            }
            .map_err(|e| e.during(&doing)),
        }
    }

    async fn list(&self) -> PortResult<Vec<ObservedPane>> {
        Ok(observe::ours(&self.rows().await?, &self.project))
    }

    async fn capture(&self, agent: &AgentId) -> PortResult<String> {
        if let Some(text) = self.capture_known(agent).await {
            return Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned());
        }
        let place = self.place(agent).await?;
        let (Place::Live { pane, .. } | Place::Dead { pane }) = place else {
            return Err(no_pane(agent, &place));
        };
        let command = CapturePane::new().stdout().target_pane(pane).build();
        let text = self
            .client
            .run(one(command), None)
            .await
            .map_err(|e| e.during(&format!("read the pane of {agent}")))?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }

    async fn paste(&self, agent: &AgentId, text: &str) -> PortResult<()> {
        paste::check(text)?;
        let pane = self.ready_pane(agent).await?;
        paste::paste(&self.client, &pane, text)
            .await
            .map_err(|e| e.during(&format!("paste into the pane of {agent}")))
    }

    async fn keys(&self, agent: &AgentId, keys: &[&str]) -> PortResult<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let pane = self.ready_pane(agent).await?;
        self.client
            .run(one(paste::send_keys(&pane, keys)), None)
            .await
            .map(drop)
            .map_err(|e| e.during(&format!("press keys in the pane of {agent}")))
    }

    async fn remove(&self, agent: &AgentId) -> PortResult<()> {
        match self.place(agent).await? {
            Place::Absent => return Ok(()),
            foreign @ Place::Foreign => return Err(no_pane(agent, &foreign)),
            _ => {}
        }
        let command = KillSession::new()
            .target_session(format!("={agent}"))
            .build();
        match self.client.run(one(command), None).await {
            Ok(_) | Err(TmuxError::NoServer | TmuxError::NoTarget(_)) => Ok(()),
            Err(error) => Err(error.during(&format!("close the session of {agent}"))),
        }
    }

    async fn shut_down(&self) -> PortResult<()> {
        match self.client.run(one(KillServer::new().build()), None).await {
            Ok(_) => self.until_gone().await,
            Err(TmuxError::NoServer) => Ok(()),
            Err(error) => Err(error.during("end the tmux server")),
        }
    }
}

impl TmuxPanes {
    /// `kill-server` answers before the server has ended, and a session made meanwhile would be
    /// lost with it.
    async fn until_gone(&self) -> PortResult<()> {
        for _ in 0..LOOKS_FOR_THE_END {
            match self
                .client
                .run(one(ListSessions::new().build()), None)
                .await
            {
                Err(TmuxError::NoServer) => return Ok(()),
                Ok(_) | Err(_) => tokio::time::sleep(LOOK_FOR_THE_END).await,
            }
        }
        Err(PortError::new(
            ErrorKind::Transient,
            "the tmux server was told to end and is still there",
        ))
    }
}

fn one(command: TmuxCommand<'static>) -> TmuxCommands<'static> {
    TmuxCommands::new().add_command(command)
}

fn no_pane(agent: &AgentId, place: &Place) -> PortError {
    if matches!(place, Place::Foreign) {
        return PortError::new(
            ErrorKind::Refused,
            format!("the tmux session {agent} on our socket is not this fleet's"),
        )
        .hint("rename or close that session, or use another socket name for this fleet");
    }
    PortError::new(ErrorKind::NotFound, format!("{agent} has no pane"))
        .hint("it is opened by the next reconciliation")
}
