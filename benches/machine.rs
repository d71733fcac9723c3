//! What the numbers were measured on, in words: no name of a host, no path.

use std::fs;
use std::process::Command;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Machine {
    cores: usize,
    memory_gib: u64,
    kernel: String,
    engine: String,
    tmux: String,
    claude: String,
    /// Runnable processes on average over the last minute, before the first benchmark.
    load: String,
}

impl Machine {
    pub fn look() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory_kib().div_ceil(1024 * 1024),
            kernel: said("uname", &["-r"]),
            engine: said("docker", &["version", "--format", "{{.Server.Version}}"]),
            tmux: said("tmux", &["-V"]),
            claude: orchestrator::config::keys::CLAUDE_VERSION.to_owned(),
            load: first_word("/proc/loadavg"),
        }
    }

    pub fn in_words(&self) -> String {
        format!(
            "Measured on a virtual machine with {} cores and {} GiB of memory, Linux {}, Docker \
             engine {}, {}, Claude Code {}. Load when it began: {}.",
            self.cores,
            self.memory_gib,
            self.kernel,
            self.engine,
            self.tmux,
            self.claude,
            self.load
        )
    }
}

fn memory_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn first_word(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
