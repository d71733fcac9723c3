//! Taking the control socket and the port.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};

/// The room in `sockaddr_un.sun_path` without its final zero (`man 7 unix`).
const MAX_SOCKET_PATH: usize = 107;

/// How long a socket that is there may take to accept; a full queue means somebody listens.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// Why a front door could not be opened. [`BindError::hint`] has the next step.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("a supervisor is already running on {path}")]
    AlreadyRunning { path: PathBuf },
    #[error(
        "the path of the control socket is too long ({length} bytes, at most {MAX_SOCKET_PATH}): {path}"
    )]
    PathTooLong { path: PathBuf, length: usize },
    #[error("{path} is not a socket")]
    NotASocket { path: PathBuf },
    #[error("the directory {path} is open to other users (mode {mode:o})")]
    OpenDirectory { path: PathBuf, mode: u32 },
    #[error("cannot open the control socket {path}")]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{address} is in use by another program")]
    PortInUse { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl BindError {
    /// The next step for a person.
    pub fn hint(&self) -> String {
        match self {
            Self::AlreadyRunning { .. } => {
                "see it with `orchestrator status`, end it with `orchestrator down`".to_owned()
            }
            Self::PathTooLong { .. } => "choose a state directory with a shorter path".to_owned(),
            Self::NotASocket { path } => format!("move {} away and start again", path.display()),
            Self::OpenDirectory { path, .. } => format!("chmod 700 {}", path.display()),
            Self::Socket { path, .. } => format!(
                "check that {} exists and is writable",
                path.parent().unwrap_or(path).display()
            ),
            Self::PortInUse { address } => format!(
                "find it with `ss -ltnp 'sport = :{}'`, or set `apiPort` to another one (0: any free one)",
                address.port()
            ),
            Self::Listen { .. } => "choose an address of this machine".to_owned(),
        }
    }
}

/// The control socket, listening. Its file goes when this is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// Removes the socket's file, unless another program put its own there since.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| now.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`, mode 0600 in a directory of mode 0700 (made if missing). A socket left by a
/// dead supervisor is replaced; one that answers is [`BindError::AlreadyRunning`].
pub async fn bind_unix(path: &Path) -> Result<UnixSocket, BindError> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(BindError::PathTooLong {
            path: path.to_owned(),
            length,
        });
    }
    let failed = |source| BindError::Socket {
        path: path.to_owned(),
        source,
    };
    private_directory(path)?;
    clear(path).await?;
    let listener = UnixListener::bind(path).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AlreadyRunning {
            path: path.to_owned(),
        },
        _ => failed(source),
    })?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
    Ok(UnixSocket {
        listener,
        file: SocketFile {
            path: path.to_owned(),
            inode,
        },
    })
}

fn private_directory(socket: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Socket {
        path: socket.to_owned(),
        source,
    };
    let Some(directory) = socket.parent().filter(|p| !p.as_os_str().is_empty()) else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed)?;
    let mode = fs::metadata(directory).map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(BindError::OpenDirectory {
            path: directory.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Removes what a dead supervisor left; refuses to touch anything else.
async fn clear(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket {
            path: path.to_owned(),
        });
    }
    match tokio::time::timeout(PROBE_DEADLINE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| BindError::Socket {
                path: path.to_owned(),
                source,
            }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(source)) => Err(BindError::Socket {
            path: path.to_owned(),
            source,
        }),
        Ok(Ok(_)) | Err(_) => Err(BindError::AlreadyRunning {
            path: path.to_owned(),
        }),
    }
}

/// Listens on a TCP address; port 0 takes any free one.
pub async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::PortInUse { address },
            _ => BindError::Listen { address, source },
        })
}
