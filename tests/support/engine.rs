//! A Docker engine of a test's own, for tests that stop and kill it. It takes root, or `sudo` that
//! asks for no password.

use std::io::{BufRead as _, BufReader, IoSliceMut, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

use super::run::Ran;

const KEEPER: &str = include_str!("engine.py");
/// The engine's own address, on its default bridge; nobody else is in its namespace.
const BRIDGE: &str = "10.123.0.1";

const NEEDS_ROOT: &str = "an engine of the test's own takes root: run the tests as root, or let \
     `sudo` ask for no password";

/// What becomes of containers when their engine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containers {
    EndWithIt,
    LiveOn,
}

pub struct Engine {
    directory: PathBuf,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    process: Child,
    /// `None` once it was told to end.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Engine {
    /// Its socket and logs lie in `directory`; nothing runs yet but its keeper.
    pub fn new(directory: PathBuf) -> Self {
        std::fs::create_dir(&directory).unwrap();
        let group = rustix::process::getegid().as_raw().to_string();
        let mut command = as_root();
        command
            .args(["unshare", "--net", "python3", "-c", KEEPER])
            .arg(&directory)
            .args([&group, BRIDGE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command
            .spawn()
            .unwrap_or_else(|error| panic!("{NEEDS_ROOT}: {error}"));
        let keeper = Keeper {
            commands: process.stdin.take(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
        };
        Self {
            directory,
            keeper: Mutex::new(keeper),
        }
    }

    /// As in `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.directory.display())
    }

    /// Starts dockerd, for the first time or again, and waits until it answers.
    #[track_caller]
    pub fn start(&self, containers: Containers) {
        self.order(match containers {
            Containers::EndWithIt => "start",
            Containers::LiveOn => "start --live-restore",
        });
    }

    /// SIGTERM, and its end.
    #[track_caller]
    pub fn terminate(&self) {
        self.order("terminate");
    }

    /// SIGKILL, and its end.
    #[track_caller]
    pub fn kill(&self) {
        self.order("kill");
    }

    /// A socket that its containers reach at the address of its default bridge, and that address.
    #[track_caller]
    pub fn listen(&self) -> (TcpListener, String) {
        let path = self.directory.join("handover.sock");
        let handover = UnixListener::bind(&path).unwrap();
        self.order(&format!("listen {}", path.display()));
        let (connection, _) = handover.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(
            &connection,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        let listener = ancillary
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            })
            .expect("a socket");
        let listener = TcpListener::from(listener);
        let port = listener.local_addr().unwrap().port();
        (listener, format!("{BRIDGE}:{port}"))
    }

    /// Copies an image of the machine's engine, flat: half the time of `save` and `load`.
    #[track_caller]
    pub fn copy_image(&self, tag: &str) {
        let machine = |args: &[&str]| Ran::of(Command::new("docker").args(args)).ok();
        let config = machine(&["image", "inspect", "--format", "{{json .Config}}", tag]);
        let config: Value = serde_json::from_str(&config).unwrap();
        let mut changes = vec![
            format!("CMD {}", config["Cmd"]),
            format!("USER {}", config["User"].as_str().unwrap()),
            format!("WORKDIR {}", config["WorkingDir"].as_str().unwrap()),
        ];
        let environment = config["Env"].as_array().into_iter().flatten();
        changes.extend(environment.map(|pair| format!("ENV {}", pair.as_str().unwrap())));
        let container = machine(&["create", tag]);
        let mut export = Command::new("docker")
            .args(["export", container.trim()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut import = Command::new("docker");
        import.args(["--host", &self.host(), "import"]);
        for change in &changes {
            import.args(["--change", change]);
        }
        let import = import
            .args(["-", tag])
            .stdin(export.stdout.take().unwrap())
            .output()
            .unwrap();
        let exported = export.wait().unwrap();
        machine(&["rm", container.trim()]);
        Ran::from(import).ok();
        assert!(exported.success(), "docker export: {exported}");
    }

    pub fn docker(&self, args: &[&str]) -> Ran {
        Ran::of(
            Command::new("docker")
                .args(["--host", &self.host()])
                .args(args),
        )
    }

    #[track_caller]
    fn order(&self, line: &str) {
        let mut keeper = self.keeper.lock().unwrap();
        let mut answer = String::new();
        let told = keeper
            .commands
            .as_mut()
            .is_some_and(|commands| writeln!(commands, "{line}").is_ok());
        if told {
            keeper.answers.read_line(&mut answer).unwrap();
        }
        // Nothing at all where sudo asked for a password.
        assert_eq!(answer.trim(), "ok", "`{line}`: {NEEDS_ROOT}");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Ok(keeper) = self.keeper.get_mut() else {
            return;
        };
        drop(keeper.commands.take());
        let ended = keeper.process.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.join("dockerd.log"));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- dockerd.log (its keeper: {ended:?})");
            for line in &lines[lines.len().saturating_sub(40)..] {
                eprintln!("{line}");
            }
        } else {
            assert!(
                ended.is_ok_and(|status| status.success()),
                "the engine's keeper failed"
            );
            assert!(!self.directory.join("data").exists(), "its data is left");
        }
    }
}

fn as_root() -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new("env");
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--non-interactive");
    sudo
}
