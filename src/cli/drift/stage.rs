//! What all scenes share: the image, a network, the scripted model, a tmux server, a directory.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::super::error::Result;
use super::super::{Error, Exit, output, wiring};
use super::script::{DriftScript, Tools};
use crate::config::keys::CLAUDE_VERSION;
use crate::daemon::FleetPaths;
use crate::model::ProjectId;
use crate::ports::runtime::ImageBuild;
use crate::ports::{ImageSpec, NetworkInfo, Panes as _, Runtime as _};
use crate::runtime::docker::DockerRuntime;
use crate::runtime::docker::image::bundled_image;
use crate::runtime::tmux::TmuxPanes;
use crate::testing::scripted_model::ScriptedModel;

/// The bundled image's user where we are root ourselves.
const AGENT_UID: u32 = 1000;
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Resets far enough away that they are told as a time of day, and as a date.
const FIVE_HOURS: i64 = 3 * 3600;
const SEVEN_DAYS: i64 = 4 * 24 * 3600;

pub(super) struct Stage {
    pub(super) directory: TempDir,
    pub(super) project: ProjectId,
    pub(super) runtime: Arc<DockerRuntime>,
    pub(super) panes: TmuxPanes,
    pub(super) model: ScriptedModel,
    pub(super) tools: Tools,
    pub(super) network: NetworkInfo,
    pub(super) image: String,
    /// What must be in it; `None`: whatever is.
    pub(super) version: Option<String>,
    pub(super) uid: u32,
    pub(super) view_command: Vec<String>,
}

impl Stage {
    /// `version`: of the bundled image; `None` with an image of the user's own.
    pub(super) async fn set(version: Option<&str>, image: Option<&str>) -> Result<Self> {
        let runtime = Arc::new(wiring::connect().await.map_err(wiring::prerequisite)?);
        let uid = match rustix::process::geteuid() {
            root if root.is_root() => AGENT_UID,
            own => own.as_raw(),
        };
        let wanted = match image {
            Some(tag) => ImageSpec {
                tag: tag.to_owned(),
                build: ImageBuild::Named,
            },
            None => bundled_image(version.unwrap_or(CLAUDE_VERSION), uid),
        };
        let say = |line: &str| output::say(line);
        runtime
            .ensure_image(&wanted, &say)
            .await
            .map_err(wiring::prerequisite)?;
        let directory = tempfile::Builder::new()
            .prefix("orchestrator-drift-")
            .tempdir()
            .map_err(|error| Error::io("cannot create a directory", &error))?;
        let project = project_name(directory.path());
        install_helper(&FleetPaths::new(directory.path()))?;
        let program = std::env::current_exe()
            .map_err(|error| Error::io("cannot find this program's own file", &error))?;
        let network = runtime
            .ensure_network(&project)
            .await
            .map_err(wiring::prerequisite)?;
        let tools = Tools::default();
        let model = match start_model(&network.gateway, &tools).await {
            Ok(model) => model,
            Err(error) => {
                let _ = runtime.remove_network(&project).await;
                return Err(error);
            }
        };
        Ok(Self {
            panes: TmuxPanes::new(format!("orchestrator-{project}"), project.clone()),
            view_command: vec![
                program.display().to_string(),
                "--project".to_owned(),
                project.to_string(),
                "view".to_owned(),
            ],
            directory,
            project,
            runtime,
            model,
            tools,
            network,
            image: wanted.tag,
            version: version.map(str::to_owned),
            uid,
        })
    }

    /// Files can only be given away by root; else the instances run with our own uid.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        let root = rustix::process::geteuid().is_root();
        root.then_some((self.uid, self.uid))
    }

    pub(super) fn paths(&self) -> FleetPaths {
        FleetPaths::new(self.directory.path())
    }

    /// Takes everything away again, also after a scene that broke off.
    pub(super) async fn strike(self) -> Result<()> {
        let left = self.runtime.list(&self.project).await;
        for container in left.unwrap_or_default() {
            let stopped = self.runtime.stop(&container.name, STOP_GRACE).await;
            let gone = match stopped {
                Ok(()) => self.runtime.remove(&container.name).await,
                failed => failed,
            };
            gone.map_err(wiring::port_error)?;
        }
        self.panes.shut_down().await.map_err(wiring::port_error)?;
        self.model.stop().await;
        self.runtime
            .remove_network(&self.project)
            .await
            .map_err(wiring::port_error)?;
        let path = self.directory.path().to_owned();
        self.directory
            .close()
            .map_err(|error| Error::io(format!("cannot remove {}", path.display()), &error))
    }
}

async fn start_model(gateway: &str, tools: &Tools) -> Result<ScriptedModel> {
    let address: SocketAddr = format!("{gateway}:0").parse().map_err(|error| {
        Error::new(Exit::Failure, "the network's gateway is no address").because(&error)
    })?;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| Error::io(format!("cannot listen on {address}"), &error))?;
    let now = jiff::Timestamp::now().as_second();
    let script = DriftScript::new(now + FIVE_HOURS, now + SEVEN_DAYS, tools)
        .map_err(|error| Error::new(Exit::Failure, "the script of the model").because(&error))?;
    ScriptedModel::start(listener, Arc::new(script))
        .map_err(|error| Error::io("cannot start the scripted model", &error))
}

fn install_helper(paths: &FleetPaths) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let tools = paths.tools();
    crate::hooks::install::install(&tools, None, &[])
        .and_then(|()| std::fs::set_permissions(&tools, std::fs::Permissions::from_mode(0o755)))
        .map_err(|error| Error::io("cannot install the hook helper", &error))
}

/// `drift-` and the random end of the directory's name.
fn project_name(directory: &Path) -> ProjectId {
    let name = directory.file_name().and_then(|name| name.to_str());
    let tail = name.and_then(|name| name.rsplit('-').next());
    ProjectId::new(format!("drift-{}", tail.unwrap_or("x").to_lowercase()))
}
