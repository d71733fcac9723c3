//! The base image: pulled, or, where no registry serves it, made from Debian's package servers.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::io::ReaderStream;

use super::error::classify;
use super::host::HostSetup;
use super::image::{id_of, pull};
use crate::ports::{ErrorKind, PortError, PortResult, ProgressLine};

/// What `docker/Dockerfile` is made `FROM`.
pub const BASE_IMAGE: &str = "debian:bookworm-slim";
const REPOSITORY: &str = "debian";
const TAG: &str = "bookworm-slim";
const SUITE: &str = "bookworm";
/// It took 21 to 37 s where the package servers are near.
const DEBOOTSTRAP_DEADLINE: Duration = Duration::from_secs(20 * 60);
const IMPORT_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// Makes sure [`BASE_IMAGE`] exists.
pub(super) async fn ensure(
    docker: &Docker,
    host: &HostSetup,
    progress: ProgressLine<'_>,
) -> PortResult<()> {
    if id_of(docker, BASE_IMAGE).await?.is_some() {
        return Ok(());
    }
    let Err(no_pull) = pull(docker, BASE_IMAGE, progress).await else {
        return Ok(());
    };
    progress(&format!(
        "{}; making it with debootstrap instead",
        no_pull.chain()
    ));
    let root = Privilege::find().await.ok_or_else(|| cannot(
        "making it here needs root",
        "let the engine reach a registry (`docker pull debian:bookworm-slim`), or run this once as root",
        &no_pull,
    ))?;
    let Some(debootstrap) = find_debootstrap() else {
        return Err(cannot(
            "debootstrap, which could make it here, is not installed",
            "`apt-get install debootstrap`, or let the engine reach a registry",
            &no_pull,
        ));
    };
    make(docker, root, &debootstrap, host, progress).await
}

fn cannot(why: &str, hint: &str, no_pull: &PortError) -> PortError {
    PortError::new(
        ErrorKind::Refused,
        format!(
            "the base image {BASE_IMAGE} cannot be had: {}; {why}",
            no_pull.message
        ),
    )
    .hint(hint)
}

/// How to run something as root.
#[derive(Clone, Copy)]
enum Privilege {
    Root,
    Sudo,
}

impl Privilege {
    async fn find() -> Option<Self> {
        if rustix::process::geteuid().is_root() {
            return Some(Self::Root);
        }
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        sudo.status()
            .await
            .is_ok_and(|status| status.success())
            .then_some(Self::Sudo)
    }

    fn command(self, program: &Path, host: &HostSetup) -> Command {
        // sudo drops the environment, so the proxies go through env(1).
        let mut command = match self {
            Self::Root => Command::new("env"),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", "env"]);
                command
            }
        };
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Some(value) = host.arguments.get(name) {
                command.arg(format!("{name}={value}"));
            }
        }
        command.arg(program).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// It lies in `sbin`, which is not in everyone's path.
fn find_debootstrap() -> Option<PathBuf> {
    [
        "/usr/sbin/debootstrap",
        "/usr/bin/debootstrap",
        "/usr/local/sbin/debootstrap",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|path| path.is_file())
}

async fn make(
    docker: &Docker,
    root: Privilege,
    debootstrap: &Path,
    host: &HostSetup,
    progress: ProgressLine<'_>,
) -> PortResult<()> {
    // Not in /tmp, which is often mounted nodev and in memory.
    let directory = tempfile::Builder::new()
        .prefix("orchestrator-base-")
        .tempdir_in("/var/tmp")
        .map_err(|error| {
            PortError::new(
                ErrorKind::Transient,
                "making a directory in /var/tmp for the base image",
            )
            .because(error)
        })?;
    let tree = directory.path().join("root");
    let made = async {
        bootstrap(root, debootstrap, &tree, host, progress).await?;
        import(docker, root, &tree, host, progress).await
    }
    .await;
    // Its files are root's: under sudo the directory's own clean-up could not.
    let mut remove = root.command(Path::new("rm"), host);
    remove.args(["-rf", "--one-file-system"]).arg(&tree);
    let _ = remove.status().await;
    made
}

async fn bootstrap(
    root: Privilege,
    debootstrap: &Path,
    tree: &Path,
    host: &HostSetup,
    progress: ProgressLine<'_>,
) -> PortResult<()> {
    let mut command = root.command(debootstrap, host);
    command.args(["--variant=minbase", SUITE]).arg(tree);
    if let Some(mirror) = host.arguments.get("APT_MIRROR") {
        command.arg(mirror);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let failed = |why: String| {
        PortError::new(ErrorKind::Transient, format!("making {BASE_IMAGE} with debootstrap: {why}"))
            .hint("is a Debian mirror within reach? `debootstrap --variant=minbase bookworm DIRECTORY` shows more")
    };
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let mut last = String::new();
    let run = async {
        if let Some(output) = child.stdout.take() {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                progress(&line);
                last = line;
            }
        }
        child.wait().await
    };
    match tokio::time::timeout(DEBOOTSTRAP_DEADLINE, run).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("{status}, after `{last}`"))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "not done within {} s",
            DEBOOTSTRAP_DEADLINE.as_secs()
        ))),
    }
}

/// Streams the tree to the engine under the base image's name.
async fn import(
    docker: &Docker,
    root: Privilege,
    tree: &Path,
    host: &HostSetup,
    progress: ProgressLine<'_>,
) -> PortResult<()> {
    let attempt = format!("importing {BASE_IMAGE}");
    progress(&attempt);
    let mut command = root.command(Path::new("tar"), host);
    command.args(["--numeric-owner", "--create"]);
    // What the official slim image leaves out, and what is only there because of the making.
    for path in ["doc", "man", "info", "locale"] {
        command.arg(format!("--exclude=./usr/share/{path}/*"));
    }
    for path in [
        "./var/cache/apt/*",
        "./var/lib/apt/lists/*",
        "./var/log/*",
        "./dev/*",
        "./debootstrap",
    ] {
        command.arg(format!("--exclude={path}"));
    }
    command.arg("-C").arg(tree).arg(".");
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let broken = |why: String| PortError::new(ErrorKind::Transient, format!("{attempt}: {why}"));
    let mut child: Child = command.spawn().map_err(|error| broken(error.to_string()))?;
    let output = child
        .stdout
        .take()
        .ok_or_else(|| broken("tar has no output".to_owned()))?;
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(REPOSITORY)
        .tag(TAG)
        .message("made by debootstrap")
        .changes(vec!["CMD [\"bash\"]".to_owned()])
        .build();
    let body = bollard::body_try_stream(ReaderStream::with_capacity(output, 256 * 1024));
    let send = async {
        let mut stream = std::pin::pin!(docker.create_image(Some(options), Some(body), None));
        while let Some(next) = stream.next().await {
            next.map_err(|error| classify(&attempt, error))?;
        }
        child
            .wait()
            .await
            .map_err(|error| broken(error.to_string()))
    };
    match tokio::time::timeout(IMPORT_DEADLINE, send).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            // Half an image under that name would be worse than none.
            let _ = docker
                .remove_image(
                    BASE_IMAGE,
                    None::<bollard::query_parameters::RemoveImageOptions>,
                    None,
                )
                .await;
            Err(broken(format!("tar ended with {status}")))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(broken(format!(
            "not done within {} s",
            IMPORT_DEADLINE.as_secs()
        ))),
    }
}
