//! What all benchmarks share: a directory, the engine, the model on a network of its own, and the
//! means to run programs. Everything made here is taken away again, also after an error.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use orchestrator::model::ProjectId;
use orchestrator::ports::Runtime as _;
use orchestrator::runtime::docker::DockerRuntime;
use orchestrator::testing::scripted_model::ScriptedModel;
use tempfile::TempDir;

use crate::model::{LONG, Stopwatch};

/// Between two looks at a condition that tells nobody when it holds.
const LOOK: Duration = Duration::from_millis(20);

pub struct Hall {
    /// Begins the name of everything made here.
    pub name: String,
    pub root: TempDir,
    pub tokio: tokio::runtime::Runtime,
    pub docker: DockerRuntime,
    pub watch: Stopwatch,
    model: Option<ScriptedModel>,
    /// `http://ADDRESS` of the model, as containers reach it.
    pub model_url: String,
    /// How often each comparison is made.
    pub repeat: usize,
    /// The smallest of everything: does it work at all?
    pub smoke: bool,
}

impl Hall {
    pub fn open(repeat: usize, smoke: bool) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("orc-bench-")
            .tempdir()
            .context("a directory for the benchmarks")?;
        let tail = root.path().file_name().and_then(|name| name.to_str());
        let tail = tail.unwrap_or("orc-bench-x");
        let name = tail.trim_start_matches("orc-").to_lowercase();
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let watch = Stopwatch::new()?;
        let project = ProjectId::new(format!("{name}-model"));
        let script = watch.script();
        let (docker, model) = tokio.block_on(async move {
            let docker = DockerRuntime::connect(None)
                .await
                .context("a Docker engine is needed; `make bench` starts one")?;
            let network = docker.ensure_network(&project).await?;
            let listener = tokio::net::TcpListener::bind((network.gateway.as_str(), 0)).await?;
            anyhow::Ok((docker, ScriptedModel::start(listener, script)?))
        })?;
        Ok(Self {
            name,
            root,
            tokio,
            docker,
            watch,
            model_url: format!("http://{}", model.address),
            model: Some(model),
            repeat,
            smoke,
        })
    }

    /// `full`, or `small` where only a look is wanted.
    pub fn size(&self, full: usize, small: usize) -> usize {
        if self.smoke { small } else { full }
    }

    /// A bare repository with one commit, as the remote of fleets and the source of plain clones.
    pub fn repository(&self, name: &str, files: &[(String, String)]) -> Result<PathBuf> {
        let remote = self.root.path().join(format!("{name}.git"));
        let seed = self.root.path().join(format!("{name}.seed"));
        let bare = path_text(&remote)?;
        std::fs::create_dir_all(&seed)?;
        self.git(
            self.root.path(),
            &["init", "-q", "--bare", "-b", "main", bare],
        )?;
        self.git(&seed, &["init", "-q", "-b", "main"])?;
        std::fs::write(seed.join("README.md"), "# Sample\n")?;
        std::fs::write(seed.join(".gitignore"), ".gate-*\n")?;
        for (name, text) in files {
            std::fs::write(seed.join(name), text)?;
        }
        self.git(&seed, &["add", "-A"])?;
        self.git(&seed, &["commit", "-q", "-m", "First"])?;
        self.git(&seed, &["push", "-q", bare, "main"])?;
        Ok(remote)
    }

    pub fn git(&self, directory: &Path, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=Bench", "-c", "user.email=bench@localhost"])
            .args(["-c", "safe.directory=*"])
            .args(arguments)
            .current_dir(directory)
            .env("HOME", self.root.path())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        ran(&mut command).map(drop)
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        if let Some(model) = self.model.take() {
            self.tokio.block_on(model.stop());
        }
        let project = ProjectId::new(format!("{}-model", self.name));
        // A network that stays says so itself: nobody is left to tell.
        if let Err(error) = self.tokio.block_on(self.docker.remove_network(&project)) {
            eprintln!("warning: {}", error.chain());
        }
    }
}

/// What it wrote to stdout; an error with its stderr when it did not end well.
pub fn ran(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Looks again and again until there is something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("never happened: {what}");
        }
        std::thread::sleep(LOOK);
    }
}

pub fn path_text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no text", path.display()))
}

pub fn write_private(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}
