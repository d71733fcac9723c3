//! Ours: a fleet as a user starts it, by the binary, in a home of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use orchestrator::model::view::FleetView;
use serde_json::{Value, json};

use crate::hall::{Hall, eventually, ran, write_private};

/// Where the bench's instances, ours and plain ones, have their limits from.
pub const MEMORY: &str = "2GiB";
pub const CPUS: f64 = 2.0;

pub const MODEL: &str = "sonnet";

/// Keys of fleets and plain instances begin with it.
pub const KEY: &str = "sk-ant-bench-000000000000000000";

/// How the only key of most fleets ends: the model tells requests apart by six characters.
pub const FIRST: &str = "-ours1";

/// How the key of this number ends.
pub fn key_ending(number: usize) -> String {
    format!("-ours{number}")
}

pub struct Fleet<'h> {
    hall: &'h Hall,
    pub project: String,
    root: PathBuf,
    up: bool,
}

impl<'h> Fleet<'h> {
    /// Writes the configuration; nothing runs yet. `lists`: the first text of each worker's list.
    pub fn set(
        hall: &'h Hall,
        name: &str,
        workers: usize,
        lists: &[(usize, String)],
    ) -> Result<Self> {
        let project = format!("{}-{name}", hall.name);
        let root = hall.root.path().join(name);
        for directory in ["home", "run", "tmux", "config/credentials"] {
            std::fs::create_dir_all(root.join(directory))?;
        }
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(root.join("run"), closed)?;
        let files: Vec<(String, String)> = lists
            .iter()
            .map(|(worker, text)| (format!("WORKER_{worker}_TASK_LIST.md"), text.clone()))
            .collect();
        let remote = hall.repository(&format!("{name}-remote"), &files)?;
        let config = json!({
            "repositoryUrl": remote,
            "workerCount": workers,
            "claudeConfigs": "credentials/*.json",
            "project": project,
            "stateDirectory": root.join("state"),
            "model": MODEL,
            "container": {"memory": MEMORY, "cpus": CPUS},
            "stopGrace": "1s",
            // Most turns here change nothing, and end their task all the same.
            "tasks": {"proof": "none"},
            // Each kill of the benchmark is the first after a long life.
            "restart": {"window": "1s", "perDay": 1000},
        });
        write_private(
            &root.join("config/orchestrator.json"),
            &format!("{config:#}\n"),
        )?;
        let fleet = Self {
            hall,
            project,
            root,
            up: false,
        };
        fleet.write_key(1)?;
        Ok(fleet)
    }

    /// A credential `keyN` that only the scripted model takes.
    pub fn write_key(&self, number: usize) -> Result<()> {
        let settings = json!({"env": {
            "ANTHROPIC_BASE_URL": self.hall.model_url,
            "ANTHROPIC_API_KEY": format!("{KEY}{}", key_ending(number)),
        }});
        let path = format!("config/credentials/key{number}.json");
        write_private(&self.root.join(path), &format!("{settings}\n"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root.join("home"))
            .env("XDG_RUNTIME_DIR", self.root.join("run"))
            .env("TMUX_TMPDIR", self.root.join("tmux"))
            .env("ORCHESTRATOR_CONFIG", self.root.join("config"))
            .current_dir(&self.root);
        for name in ["DOCKER_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        ran(&mut self.command(arguments))
    }

    /// `up -d`: returns when the supervisor answers.
    pub fn up(&mut self) -> Result<()> {
        self.up = true;
        self.run(&["up", "-d"]).map(drop)
    }

    pub fn down(&mut self) -> Result<()> {
        self.run(&["down"])?;
        self.up = false;
        Ok(())
    }

    pub fn view(&self) -> Result<FleetView> {
        let text = self.run(&["status", "--json"])?;
        serde_json::from_str(&text).context("the answer of `status --json`")
    }

    /// Until every agent is at its prompt with nothing to do.
    pub fn until_idle(&self) -> Result<FleetView> {
        eventually("every agent of the fleet idles", || {
            let view = self.view().ok()?;
            let idle = view.agents.iter().all(|agent| agent.state == "idle");
            (idle && view.merges.waiting == 0).then_some(view)
        })
    }

    pub fn checkout(&self, agent: &str) -> PathBuf {
        self.agent(agent).join("checkout")
    }

    /// Its directory of sockets, as mounted into the instance.
    pub fn socket(&self, agent: &str) -> PathBuf {
        self.agent(agent).join("socket/hooks.sock")
    }

    fn agent(&self, agent: &str) -> PathBuf {
        self.root.join("state/agents").join(agent)
    }

    /// Appends items to a worker's list, as a person with an editor does.
    pub fn add_tasks(&self, worker: usize, items: &[String]) -> Result<()> {
        let name = format!("WORKER_{worker}_TASK_LIST.md");
        let list = self.checkout("manager").join(name);
        let mut text = std::fs::read_to_string(&list).unwrap_or_default();
        for item in items {
            text.push_str("- [ ] ");
            text.push_str(item);
            text.push('\n');
        }
        std::fs::write(&list, text).context("the worker's task list")
    }

    pub fn open_gate(&self, agent: &str, gate: &str) -> Result<()> {
        open_gate(&self.checkout(agent), gate)
    }

    /// Process id of the supervisor.
    pub fn pid(&self) -> Result<u32> {
        let entry = self
            .root
            .join(format!("run/orchestrator/running/{}.json", self.project));
        let entry: Value = serde_json::from_slice(&std::fs::read(entry)?)?;
        let pid = entry["pid"].as_u64().context("the registry names no pid")?;
        Ok(u32::try_from(pid)?)
    }

    fn clean_up(&self) -> Result<()> {
        if let Ok(pid) = self.pid() {
            ran(Command::new("kill").args(["-9", &pid.to_string()])).ok();
        }
        let socket = format!("orchestrator-{}", self.project);
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &socket, "kill-server"])
            .env("TMUX_TMPDIR", self.root.join("tmux"));
        ran(&mut tmux).ok();
        remove_containers(&format!("label=dev.orchestrator.project={}", self.project))?;
        let project = orchestrator::model::ProjectId::new(&self.project);
        let docker = &self.hall.docker;
        let removing = orchestrator::ports::Runtime::remove_network(docker, &project);
        self.hall.tokio.block_on(removing)?;
        Ok(())
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        if self.up
            && let Err(error) = self.clean_up()
        {
            eprintln!("warning: not all of {} was removed: {error}", self.project);
        }
    }
}

/// Lets a turn that waits there go on.
pub fn open_gate(checkout: &Path, gate: &str) -> Result<()> {
    std::fs::write(checkout.join(format!(".gate-{gate}.open")), "").context("opening a gate")
}

/// Until a turn waits there.
pub fn until_at_gate(checkout: &Path, gate: &str) -> Result<()> {
    let waiting = checkout.join(format!(".gate-{gate}.waiting"));
    eventually(&format!("a turn waits at gate {gate}"), || {
        waiting.exists().then_some(())
    })
}

/// All that a filter of `docker ps` shows, running or not.
pub fn remove_containers(filter: &str) -> Result<()> {
    let listed = ran(Command::new("docker").args(["ps", "-aq", "--filter", filter]))?;
    let names: Vec<&str> = listed.lines().collect();
    if !names.is_empty() {
        ran(Command::new("docker").args(["rm", "-f", "-v"]).args(names))?;
    }
    Ok(())
}
