//! `up`: run the supervisor, here or in the background, also in the place of one that runs.

mod take_over;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use self::take_over::Wish;
use super::context::Context;
use super::error::Result;
use super::wiring::{self, Mode, Settings};
use super::{Error, Exit, format, output};
use crate::client::Client;

/// How often the parent looks whether the child is up.
const LOOK: Duration = Duration::from_millis(100);

/// Start the fleet: in the foreground, or with `-d` in the background
///
/// Agents that run already, from an earlier supervisor, are adopted and not disturbed. In the
/// foreground Ctrl-C stops the fleet; a second Ctrl-C leaves the agents running.
///
/// If a supervisor of the fleet runs already and is another build of this program, this one takes
/// its place: it asks the other to detach, waits until it has gone, and adopts the agents, which
/// work on. A changed configuration is applied then as well; what a container is made from applies
/// when an agent is started next.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  orchestrator up --config ./fleet         the same as `orchestrator --config ./fleet`
  orchestrator up -d --config ./fleet      in the background; returns when it is up
  orchestrator up -d --take-over           after a change of the configuration: apply it")]
pub struct UpArgs {
    /// Run in the background
    #[arg(short = 'd', long)]
    detach: bool,
    /// With -d: how long to wait until it is up (the first start builds the image)
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = format::parse_duration, requires = "detach")]
    timeout: Option<Duration>,
    /// Take the place of a supervisor that runs, also if it is this build, or a newer version
    #[arg(long, conflicts_with_all = ["no_take_over", "background"])]
    take_over: bool,
    /// Leave a supervisor that runs alone, whatever it is
    #[arg(long)]
    no_take_over: bool,
    /// This process is the background supervisor
    #[arg(long, hide = true, conflicts_with = "detach")]
    background: bool,
    /// For `chaos`: milliseconds in this file are added to the wall clock, which jumps with them
    #[arg(long, hide = true, value_name = "FILE", requires = "background")]
    clock_offset_file: Option<PathBuf>,
}

impl UpArgs {
    /// In the background process: a session of its own, so that the end of the terminal is not
    /// its end. Fails only when it leads a session already, which is as good.
    pub(super) fn leave_the_terminal(&self) {
        if self.background {
            let _ = rustix::process::setsid();
        }
    }

    fn wish(&self) -> Wish {
        match (self.take_over, self.no_take_over || self.background) {
            (true, _) => Wish::Always,
            (_, true) => Wish::Never,
            _ => Wish::IfOther,
        }
    }
}

pub(super) async fn run(context: &Context, args: &UpArgs) -> Result<Exit> {
    let settings = context.settings()?;
    for warning in &settings.loaded.warnings {
        output::say(warning.as_warning().trim_end());
    }
    let client = Client::unix(&settings.control_socket)?;
    let predecessor = take_over::make_way(context, &settings, &client, args.wish()).await?;
    let directory = settings.loaded.config.directory.clone();
    let ended = start_it(context, settings, &client, args).await;
    if let (Err(_), Some(predecessor)) = (&ended, &predecessor) {
        predecessor.say_what_is_left(&directory);
    }
    ended
}

async fn start_it(
    context: &Context,
    settings: Settings,
    client: &Client,
    args: &UpArgs,
) -> Result<Exit> {
    if args.detach {
        let timeout = args.timeout.unwrap_or(Duration::from_secs(900));
        return in_background(context, &settings, client, timeout).await;
    }
    let mode = if args.background {
        Mode::Background
    } else {
        Mode::Foreground
    };
    let clock = args.clock_offset_file.clone();
    wiring::run_supervisor(settings, mode, context.registry(), clock).await
}

async fn in_background(
    context: &Context,
    settings: &Settings,
    client: &Client,
    timeout: Duration,
) -> Result<Exit> {
    let config = &settings.loaded.config;
    let log = start_log(&config.state_directory)?;
    let overrides = context.overrides.iter();
    let more: Vec<String> = overrides
        .map(|(key, value)| format!("--set={key}={value}"))
        .collect();
    let mut child = start(&config.directory, &more, &log)?;
    let mut relay = Relay::new(log);
    let deadline = Instant::now() + timeout;
    loop {
        relay.forward();
        if let Some(status) = child.try_wait().ok().flatten() {
            relay.forward();
            let exit = match status.code() {
                Some(0) | None => Exit::Failure,
                Some(code) => Exit::from_code(code),
            };
            return Err(Error::new(exit, "the supervisor ended while it started")
                .hint("the lines above say why; `orchestrator doctor` checks what it needs"));
        }
        if client.health().await.is_ok() {
            break;
        }
        if Instant::now() > deadline {
            return Err(Error::new(
                Exit::TimedOut,
                format!(
                    "it is not up after {}; it still tries",
                    format::age(timeout)
                ),
            )
            .hint("see `orchestrator logs supervisor -f`, or end it with `orchestrator down`"));
        }
        tokio::time::sleep(LOOK).await;
    }
    relay.forward();
    up(client, &child).await
}

async fn up(client: &Client, child: &Child) -> Result<Exit> {
    let view = client.status().await?;
    output::say(&format!(
        "`{}` is up: {} agents, process {}",
        view.project,
        view.agents.len(),
        child.id()
    ));
    output::say("  orchestrator status --watch     what every agent does");
    output::say("  orchestrator attach worker-1    watch one at work");
    output::say("  orchestrator down               stop the fleet");
    Ok(Exit::Done)
}

/// Where the background process says what goes wrong before its log is open.
pub(super) fn start_log(state: &Path) -> Result<PathBuf> {
    let directory = state.join("log");
    let failed = |error| Error::io(format!("cannot write to {}", directory.display()), &error);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(failed)?;
    let path = directory.join("start.log");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    // On a full disk the background process could not even say what is wrong.
    let room = file
        .write_all(&[b'\n'; 4096])
        .and_then(|()| file.set_len(0));
    match room {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            let what = format!("cannot write to {}: the disk is full", path.display());
            Err(Error::new(Exit::Prerequisite, what)
                .hint("free space there, or set `stateDirectory` to a larger disk"))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Starts the background process with these further arguments; it writes to `log`.
pub(super) fn start(config: &Path, more: &[String], log: &Path) -> Result<Child> {
    let failed = |error| Error::io("cannot start the supervisor in the background", &error);
    let program = std::env::current_exe().map_err(failed)?;
    let append = || OpenOptions::new().append(true).open(log);
    Command::new(program)
        .arg("up")
        .arg("--background")
        .arg("--config")
        .arg(config)
        .args(more)
        .stdin(Stdio::null())
        .stdout(append().map_err(failed)?)
        .stderr(append().map_err(failed)?)
        .spawn()
        .map_err(failed)
}

/// Shows what the background process writes while it starts.
#[derive(Debug)]
pub(super) struct Relay {
    path: PathBuf,
    position: u64,
}

impl Relay {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, position: 0 }
    }

    pub(super) fn forward(&mut self) {
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.position))?;
            file.read_to_string(&mut text)
        });
        if let Ok(length) = read.map(|length| length as u64)
            && length > 0
        {
            self.position += length;
            output::say(text.trim_end());
        }
    }
}
