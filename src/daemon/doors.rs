//! The doors others come in by: one hook socket per agent, the control socket, loopback HTTP.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::DaemonError;
use super::handle::DriverHandle;
use super::house::House;
use super::start::write_private;
use crate::api::{self, Access};
use crate::client::registry;
use crate::control::Control;
use crate::hooks::{self, Identity, Spool};
use crate::model::AgentId;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Doors {
    house: Arc<House>,
    control: Control,
    driver: DriverHandle,
    end: CancellationToken,
    tracker: TaskTracker,
    /// Agents whose socket is open.
    open: Arc<Mutex<BTreeMap<AgentId, CancellationToken>>>,
}

/// The supervisor is listed as running until this is dropped.
pub(super) struct Announced {
    entry: Option<(PathBuf, crate::model::ProjectId)>,
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some((directory, project)) = &self.entry
            && let Err(error) = registry::remove(directory, project, std::process::id())
        {
            tracing::warn!(%error, "the entry of this supervisor was not removed");
        }
    }
}

impl Doors {
    pub(super) fn new(
        house: Arc<House>,
        driver: DriverHandle,
        end: CancellationToken,
        tracker: TaskTracker,
    ) -> Self {
        let control: Control = Arc::new(driver.clone());
        Self {
            house,
            control,
            driver,
            end,
            tracker,
            open: Arc::default(),
        }
    }

    /// Cancelled when the supervisor ends.
    pub(super) fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// Reads what an agent spooled while nobody listened, then listens. Idempotent.
    ///
    /// Called from one agent's own queue only, so one agent's spool never holds up another's door.
    pub(super) async fn open(&self, agent: &AgentId) -> io::Result<()> {
        if self.open.lock().await.contains_key(agent) {
            return Ok(());
        }
        let paths = self.house.paths.agent(agent);
        let spool = Arc::new(Spool::new(
            self.control.clone(),
            agent.clone(),
            paths.spool(),
            paths.quarantine(),
        ));
        self.drain(agent, &spool).await;
        let identity = Identity::Fixed {
            agent: agent.clone(),
            branch: self.house.config.branch.clone(),
            spool: Some(spool),
        };
        let router = hooks::router(self.control.clone(), identity);
        let stop = self.end.child_token();
        let serving =
            hooks::serve_socket(&paths.socket(), router, stop.clone()).map_err(io::Error::other)?;
        self.tracker.spawn(async move {
            if let Ok(Err(error)) = serving.await {
                tracing::error!(%error, "a hook socket ended");
            }
        });
        self.open.lock().await.insert(agent.clone(), stop);
        Ok(())
    }

    pub(super) fn ended(&self) -> bool {
        self.end.is_cancelled()
    }

    /// True when everything ends before `delay` is over.
    pub(super) async fn wait_or_end(&self, delay: std::time::Duration) -> bool {
        tokio::time::timeout(delay, self.end.cancelled())
            .await
            .is_ok()
    }

    async fn drain(&self, agent: &AgentId, spool: &Spool) {
        match spool.drain().await {
            Ok(drained) => tracing::debug!(%agent, ?drained, "spool read"),
            Err(error) => {
                tracing::warn!(%agent, %error, "its spool could not be read yet");
                let text = format!("its spooled hook events could not be taken yet: {error}");
                let hint = Some("they are kept and taken with its next hook event".to_owned());
                let agent = Some(agent.clone());
                self.driver
                    .tell(crate::supervisor::Event::Noticed { agent, text, hint })
                    .await;
            }
        }
    }

    /// The control socket, loopback HTTP for the API and for hooks of sessions outside our
    /// containers, and the entry that makes this supervisor known.
    pub(super) async fn open_front(
        &self,
        announce: Option<&Path>,
    ) -> Result<Announced, DaemonError> {
        let token = self.token()?;
        let socket_path = self.house.paths.control_socket();
        let socket = api::bind_unix(&socket_path)
            .await
            .map_err(|cause| bind_failed(&cause))?;
        // Both before either is served: who gets an answer may take it that the fleet is up.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.house.config.api_port));
        let listener = api::bind_tcp(address)
            .await
            .map_err(|cause| bind_failed(&cause))?;
        let bound = listener
            .local_addr()
            .map_err(DaemonError::io("reading the address of", &socket_path))?;
        // Who gets an answer may also take it that this supervisor can be found.
        let announced = self.announce(announce, socket_path, bound)?;
        let local = api::router(self.control.clone(), Access::Local);
        let end = self.end.clone();
        self.tracker.spawn(async move {
            if let Err(error) = api::serve_unix(socket, local, end).await {
                tracing::error!(%error, "the control socket ended");
            }
        });
        let known: Vec<AgentId> = super::prepare::agents(&self.house.config);
        let shared = token.clone();
        let lookup = Arc::new(move |agent: &AgentId| known.contains(agent).then(|| shared.clone()));
        let routes = hooks::router(self.control.clone(), Identity::Token(lookup))
            .fallback_service(api::router(self.control.clone(), Access::Token(token)));
        let end = self.end.clone();
        self.tracker.spawn(async move {
            if let Err(error) = api::serve_tcp(listener, routes, end).await {
                tracing::error!(%error, "loopback HTTP ended");
            }
        });
        Ok(announced)
    }

    /// Made once per state directory; readable by its owner only.
    fn token(&self) -> Result<String, DaemonError> {
        let path = self.house.paths.token();
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DaemonError::io("reading", &path)(error)),
        }
        let token =
            format!("{}{}", self.house.entropy.uuid(), self.house.entropy.uuid()).replace('-', "");
        write_private(&path, &token).map_err(DaemonError::io("writing", &path))?;
        Ok(token)
    }

    fn announce(
        &self,
        directory: Option<&Path>,
        control_socket: PathBuf,
        api: SocketAddr,
    ) -> Result<Announced, DaemonError> {
        let Some(directory) = directory else {
            return Ok(Announced { entry: None });
        };
        let entry = registry::Entry {
            project: self.house.config.project.clone(),
            pid: std::process::id(),
            state_directory: self.house.paths.root().to_owned(),
            control_socket,
            api_address: Some(api.to_string()),
            config_directory: self.house.config.directory.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.house.clock.now(),
        };
        registry::write(directory, &entry)
            .map_err(DaemonError::io("announcing this supervisor in", directory))?;
        Ok(Announced {
            entry: Some((directory.to_owned(), entry.project)),
        })
    }
}

fn bind_failed(cause: &api::BindError) -> DaemonError {
    DaemonError::Door {
        text: cause.to_string(),
        hint: cause.hint(),
    }
}
