//! `orchestrator-hook`: what an agent's Claude Code runs for its hooks and its status line.
//!
//! Std only and linked statically, so that it runs in any image. Called by Claude Code as the
//! managed settings say; talks to the supervisor over the Unix socket of its instance. Must never
//! block the agent: every wait has a deadline, every failure ends with exit code 0, and an event
//! that could not be delivered goes to the spool.
//!
//! ```text
//! orchestrator-hook hook              one callback; the answer goes to stdout
//! orchestrator-hook hook --evidence   the same for a sign of life: never spooled, never retried
//! orchestrator-hook hook --tree       the same at the end of a turn: what is uncommitted is told beside it
//! orchestrator-hook tree CALLBACK     tells it; begun by the line before
//! orchestrator-hook status            the status line
//! orchestrator-hook snapshot ...      keeps uncommitted work; for the supervisor, in the checkout
//! orchestrator-hook --version
//! ```
//!
//! Environment: `ORCHESTRATOR_INCARNATION` (a number), and for tests and external sessions
//! `ORCHESTRATOR_SOCKET`, `ORCHESTRATOR_SPOOL`, `ORCHESTRATOR_WORKSPACE`, `ORCHESTRATOR_BRING_UP`.

mod bring_up;
mod head;
mod hook;
mod http;
mod snapshot;
mod spool;
mod status;
mod tree;

use std::env;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// 1 MiB, the front door's limit for a body as well.
const MAX_PAYLOAD_BYTES: u64 = 1024 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["hook"] => hook::run(hook::Weight::Event),
        ["hook", "--tree"] => hook::run(hook::Weight::Turn),
        ["hook", "--evidence"] => hook::run(hook::Weight::Evidence),
        ["tree", callback] => tree::run(callback),
        ["status"] => status::run(),
        ["snapshot", rest @ ..] => return take_snapshot(rest),
        ["--version"] => {
            print(concat!("orchestrator-hook ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())
        }
        _ => {
            complain(
                "usage: orchestrator-hook hook [--tree | --evidence] | tree CALLBACK | status \
                 | snapshot ... | --version",
            );
            // Not 2: Claude Code takes 2 as "block this action".
            return ExitCode::from(1);
        }
    }
    ExitCode::SUCCESS
}

/// Where things are inside an instance, each with a variable that overrides it.
struct Places {
    socket: PathBuf,
    spool: PathBuf,
    workspace: PathBuf,
    bring_up: PathBuf,
    incarnation: Option<u64>,
}

impl Places {
    fn from_environment() -> Self {
        let path = |name: &str, default: &str| {
            env::var_os(name).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Self {
            socket: path("ORCHESTRATOR_SOCKET", "/run/orchestrator/socket/hooks.sock"),
            spool: path("ORCHESTRATOR_SPOOL", "/var/spool/orchestrator"),
            workspace: path("ORCHESTRATOR_WORKSPACE", "/workspace"),
            bring_up: path("ORCHESTRATOR_BRING_UP", "/opt/orchestrator/bring-up-to.sh"),
            incarnation: env::var("ORCHESTRATOR_INCARNATION")
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }
    }
}

/// In the current directory. Called by the supervisor, which has to know when it failed.
fn take_snapshot(words: &[&str]) -> ExitCode {
    let Some(order) = snapshot::Order::parse(words) else {
        complain("snapshot: an argument is not understood");
        return ExitCode::from(2);
    };
    match snapshot::run(Path::new("."), &order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("snapshot: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// All of stdin, or why not.
fn read_payload() -> Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_PAYLOAD_BYTES + 1)
        .read_to_end(&mut payload)
        .map_err(|e| format!("cannot read the payload from stdin: {e}"))?;
    if payload.len() as u64 > MAX_PAYLOAD_BYTES {
        return Err(format!(
            "the payload is larger than {MAX_PAYLOAD_BYTES} bytes; it was not sent"
        ));
    }
    Ok(payload)
}

/// A closed stdout means that Claude Code has given up waiting; there is nobody left to tell.
fn print(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Claude Code keeps stderr of a hook that exits 0 in its debug log.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "orchestrator-hook: {text}");
}
