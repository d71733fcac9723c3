//! Taking away what a test made, whatever became of it.

use std::process::Command;

use super::Stage;
use super::run::Ran;

const SOON: std::time::Duration = std::time::Duration::from_secs(5);

impl Stage {
    /// By the label that every container of ours carries.
    fn containers(&self) -> Vec<String> {
        let filter = format!("label=dev.orchestrator.project={}", self.project);
        let listed = self.docker(&["ps", "-aq", "--filter", &filter]);
        listed.stdout.lines().map(str::to_owned).collect()
    }

    fn networks(&self) -> Vec<String> {
        let filter = format!("name={}", self.project);
        let listed = self.docker(&["network", "ls", "-q", "--filter", &filter]);
        listed.stdout.lines().map(str::to_owned).collect()
    }

    /// Nothing of this fleet is left but its directory. The views of panes end with tmux, a moment
    /// after it.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        let mut left = Vec::new();
        let deadline = std::time::Instant::now() + SOON;
        while std::time::Instant::now() < deadline {
            left = self.left_behind();
            if left.is_empty() {
                return;
            }
        }
        panic!("left behind: {left:?}");
    }

    /// What of this fleet is outside its directory: containers, networks, a tmux server, processes.
    fn left_behind(&self) -> Vec<String> {
        let project = &self.project;
        let mut left = Vec::new();
        left.extend(
            self.containers()
                .into_iter()
                .map(|id| format!("container {id}")),
        );
        let own = format!("{project}-model");
        let name = |id: &String| {
            self.docker(&["network", "inspect", "-f", "{{.Name}}", id])
                .stdout
        };
        left.extend(
            self.networks()
                .into_iter()
                .filter(|id| !name(id).contains(&own))
                .map(|id| format!("network {id}")),
        );
        let server = self.tmux(&["list-sessions"]);
        if server.code == 0 {
            left.push(format!("a tmux server with {}", server.stdout));
        }
        left.extend(self.processes().into_iter().map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!(
                "process {pid}: {}",
                String::from_utf8_lossy(&line).replace('\0', " ")
            )
        }));
        left
    }

    /// Processes of the binary that were started with this fleet's configuration or name.
    pub fn processes(&self) -> Vec<i32> {
        let mine = self.root().display().to_string();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let ours = line.contains(&mine) || line.contains(&self.project);
            (line.contains("orchestrator") && ours).then_some(pid)
        })
        .collect()
    }

    /// The newest lines of what the supervisor wrote, for a test that failed.
    pub fn show_what_happened(&self) {
        let view = self.run(&["status", "--json"]);
        eprintln!("--- status: {view}");
        for log in [
            "supervisor.log",
            "start.log",
            "agents/worker-1.log",
            "agents/manager.log",
        ] {
            let text = std::fs::read_to_string(self.state().join("log").join(log));
            let Ok(text) = text else { continue };
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {log}");
            for line in &lines[lines.len().saturating_sub(60)..] {
                eprintln!("{line}");
            }
        }
        let projects = self
            .state()
            .join("agents/worker-1/home/.claude/projects/-workspace");
        for file in std::fs::read_dir(projects).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            eprintln!("--- {}", file.path().display());
            for line in text.lines().take(20) {
                eprintln!("{}", line.chars().take(200).collect::<String>());
            }
        }
        for record in self.model().requests().iter().rev().take(8).rev() {
            eprintln!("--- asked: {record:?}");
        }
    }

    pub fn clean_up(&self) {
        for pid in self.processes() {
            let _ = Ran::of(Command::new("kill").args(["-9", &pid.to_string()]));
        }
        let _ = self.tmux(&["kill-server"]);
        let containers = self.containers();
        let containers: Vec<&str> = containers.iter().map(String::as_str).collect();
        if !containers.is_empty() {
            let _ = self.docker(&[&["rm", "-f", "-v"], &containers[..]].concat());
        }
        let networks = self.networks();
        let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
        if !networks.is_empty() {
            let _ = self.docker(&[&["network", "rm"], &networks[..]].concat());
        }
    }
}
