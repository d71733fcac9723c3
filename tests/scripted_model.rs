//! The demo's script on the real Claude Code, before any container is involved: it plans, builds,
//! tests, commits and resolves a conflict with its own tools, against the scripted model.
//!
//! Needs git, make, python3, and Docker for the agent image, from which Claude Code is taken.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use orchestrator::model::{AgentId, CommitId, Incarnation, ProjectId};
use orchestrator::ports::{ContainerSpec, ExecSpec, Mount, Runtime as _};
use orchestrator::runtime::docker::{DockerRuntime, image};
use orchestrator::testing::sample::{
    self, AtFirst, FEATURES, Feature, WORKERS, demo_script, list_file,
};
use orchestrator::testing::scripted_model::{
    Answer, Answered, ModelRequest, Scenario, Script, ScriptedModel,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

const VERSION: &str = "2.1.197";
/// Results of a worker's first task once its edits are done: look, two writes, read, two edits.
const AFTER_EDITS: usize = 6;
/// Far more than one turn takes, even on a loaded machine.
const TURN_LIMIT: Duration = Duration::from_secs(120);
const PLAN: &str = "You are the manager of 3 workers. Read PROJECT_DIRECTION.md and divide the work: \
    write WORKER_1_TASK_LIST.md to WORKER_3_TASK_LIST.md as checklists and commit them.";

/// A scripted model, and a home for Claude Code that knows nothing of this machine.
struct Stage {
    model: ScriptedModel,
    binary: PathBuf,
    dir: TempDir,
}

impl Stage {
    async fn set(script: Arc<dyn Script>) -> Result<Arc<Self>> {
        static BINARY: OnceCell<PathBuf> = OnceCell::const_new();
        let binary = BINARY.get_or_try_init(take_out_of_the_image).await?.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let model = ScriptedModel::start(listener, script)?;
        let dir = tempfile::tempdir()?;
        for home in ["manager", "worker-1", "worker-2", "worker-3"] {
            let home = dir.path().join("homes").join(home);
            std::fs::create_dir_all(&home)?;
            // No author anywhere: the script has to notice and name one, as it would in a bare image.
            std::fs::write(home.join(".gitconfig"), "[user]\n\tuseConfigOnly = true\n")?;
        }
        sample::create(&dir.path().join("sample.git"))?;
        Ok(Arc::new(Self { model, binary, dir }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn clone_for(&self, agent: &str) -> Result<PathBuf> {
        let checkout = self.path(agent);
        let target = checkout.to_string_lossy().into_owned();
        git(
            self.dir.path(),
            &["clone", "--quiet", "sample.git", &target],
        )
        .await?;
        Ok(checkout)
    }

    /// One headless session: the prompt, and whatever its Stop hook adds. Returns the last words.
    async fn turn(&self, agent: &str, prompt: &str, more: &[&str]) -> Result<String> {
        let output = run(self.claude(agent, prompt, more), "claude").await?;
        let result: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("claude printed no JSON: {}", both(&output)))?;
        ensure!(
            output.status.success() && result["is_error"] == false,
            "claude failed: {}",
            both(&output)
        );
        Ok(result["result"].as_str().unwrap_or_default().to_owned())
    }

    fn claude(&self, agent: &str, prompt: &str, more: &[&str]) -> Command {
        let home = self.path("homes").join(agent);
        let mut command = Command::new(&self.binary);
        command
            .args(["-p", prompt, "--output-format", "json"])
            .args(["--model", "claude-sonnet-5"])
            .args(["--permission-mode", "bypassPermissions"])
            .args(more)
            .current_dir(self.path(agent))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("CLAUDE_CONFIG_DIR", home.join(".claude"))
            .env(
                "ANTHROPIC_BASE_URL",
                format!("http://{}", self.model.address),
            )
            .env("ANTHROPIC_AUTH_TOKEN", "sk-scripted-no-account")
            .env("IS_SANDBOX", "1")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .env("DISABLE_AUTOUPDATER", "1");
        command
    }
}

/// The demo's script, except that the model hangs once, right after a worker's edits.
struct Stalls {
    script: Scenario,
    stalled: Arc<AtomicBool>,
}

impl Script for Stalls {
    fn answer(&self, request: &ModelRequest) -> Answer {
        let mut answer = self.script.answer(request);
        let here = request.conversation.results.len() == AFTER_EDITS;
        if let Answer::Turn(turn) = &mut answer
            && here
            && !self.stalled.swap(true, Ordering::SeqCst)
        {
            turn.pacing.first_ms = 3_600_000;
        }
        answer
    }
}

/// Claude Code out of the agent image, kept below `target/`: the host needs no npm. A finished copy
/// appears by rename, so a run that is cut off leaves nothing half done.
async fn take_out_of_the_image() -> Result<PathBuf> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let ready = cache.join(format!("claude-code-{VERSION}"));
    if ready.is_file() {
        return Ok(ready);
    }
    let docker = DockerRuntime::connect(std::env::var("DOCKER_HOST").ok().as_deref()).await?;
    let image = image::bundled_image(VERSION, 1000);
    docker
        .ensure_image(&image, &|line| println!("{line}"))
        .await?;
    let fresh = tempfile::tempdir_in(cache)?;
    // The container's user is not this one.
    std::fs::set_permissions(fresh.path(), std::fs::Permissions::from_mode(0o777))?;
    let project = ProjectId::new(format!("binary-{}", std::process::id()));
    let network = docker.ensure_network(&project).await?;
    let spec = ContainerSpec {
        project: project.clone(),
        agent: AgentId::worker(1),
        incarnation: Incarnation(1),
        image: image.tag,
        command: Vec::new(),
        environment: BTreeMap::new(),
        mounts: vec![Mount {
            host: fresh.path().to_owned(),
            container: "/out".to_owned(),
            read_only: false,
        }],
        working_directory: "/out".to_owned(),
        uid: 1000,
        gid: 1000,
        network: network.name,
        memory_bytes: None,
        milli_cpus: None,
        pids: 64,
        tmp_bytes: 1 << 20,
        state_directory: fresh.path().to_owned(),
        settings_hash: String::new(),
    };
    let copy = ExecSpec {
        command: ["cp", "/usr/local/bin/claude", "/out/claude"]
            .map(str::to_owned)
            .to_vec(),
        working_directory: None,
        environment: BTreeMap::new(),
        stdin: Vec::new(),
        max_output_bytes: 64 * 1024,
        deadline: TURN_LIMIT,
    };
    let copied = docker.run_once(&spec, &copy).await;
    docker.remove_network(&project).await?;
    let copied = copied?;
    ensure!(
        copied.exit_code == 0,
        "copying Claude Code out of the image: {}",
        String::from_utf8_lossy(&copied.stderr)
    );
    std::fs::rename(fresh.path().join("claude"), &ready)?;
    Ok(ready)
}

async fn run(mut command: Command, name: &str) -> Result<Output> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(TURN_LIMIT, command.output())
        .await
        .with_context(|| format!("{name} took longer than {TURN_LIMIT:?}"))?
        .with_context(|| format!("{name} could not be started; is it installed?"))
}

fn both(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// A git command of the test itself, as the supervisor would run it.
async fn try_git(dir: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new("git");
    command
        .args([
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@orchestrator.invalid",
        ])
        .args(arguments)
        .current_dir(dir);
    run(command, "git").await
}

async fn git(dir: &Path, arguments: &[&str]) -> Result<String> {
    let output = try_git(dir, arguments).await?;
    ensure!(
        output.status.success(),
        "git {arguments:?}: {}",
        both(&output)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn assert_clean(checkout: &Path) -> Result<()> {
    let status = git(checkout, &["status", "--porcelain"]).await?;
    ensure!(
        status.is_empty(),
        "{} is dirty: {status}",
        checkout.display()
    );
    Ok(())
}

/// The open items of a list that the manager wrote.
fn items(checkout: &Path, worker: u32) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(checkout.join(list_file(worker)))?;
    let items = text.lines().filter_map(|line| line.strip_prefix("- [ ] "));
    Ok(items.map(str::to_owned).collect())
}

/// The first turn: lists on disk, committed, pushed to the bare repository.
async fn plan(stage: &Stage) -> Result<PathBuf> {
    let manager = stage.clone_for("manager").await?;
    let said = stage.turn("manager", PLAN, &[]).await?;
    ensure!(said.contains("written and committed"), "{said}");
    assert_clean(&manager).await?;
    let mut planned = 0;
    for worker in 1..=WORKERS {
        planned += items(&manager, worker)?.len();
    }
    assert_eq!(planned, FEATURES.len());
    git(&manager, &["push", "--quiet", "origin", "main"]).await?;
    Ok(manager)
}

/// All tasks of one worker, one session each. Returns the tip of its branch.
async fn build(stage: Arc<Stage>, worker: u32) -> Result<(u32, String)> {
    let agent = format!("worker-{worker}");
    let checkout = stage.clone_for(&agent).await?;
    for item in items(&checkout, worker)? {
        let feature = sample::item(&item).context("the item is of no feature")?;
        let prompt = format!("You are worker {worker}. Your task:\n\n{item}\n\nCommit when done.");
        let said = stage.turn(&agent, &prompt, &[]).await?;
        ensure!(
            said.contains("built, tested and committed"),
            "{item}: {said}"
        );
        let mut newest = feature.commit_message;
        if feature.at_first != AtFirst::Careful {
            newest = mended(&stage, &agent, feature).await?;
        }
        let subject = git(&checkout, &["log", "-1", "--format=%s"]).await?;
        assert_eq!(subject, newest);
        assert_clean(&checkout).await?;
    }
    Ok((worker, git(&checkout, &["rev-parse", "HEAD"]).await?))
}

/// Sends back what is not done yet, as the supervisor words it. Returns the subject of the commit that
/// then is the newest.
async fn mended(stage: &Stage, agent: &str, feature: &Feature) -> Result<&'static str> {
    let (lack, subject) = match feature.at_first {
        AtFirst::Careless { mend_message, .. } => {
            ("Merged, your work does not pass: test.", mend_message)
        }
        _ => ("There is no new commit of yours.", feature.commit_message),
    };
    let item = feature.item;
    let prompt = format!(
        "You said that this is done, and something is still missing:\n\nTask t ({item}):\n- {lack}"
    );
    let said = stage.turn(agent, &prompt, &[]).await?;
    ensure!(said.contains("tested and committed"), "{item}: {said}");
    Ok(subject)
}

/// Merges one tip in the manager's checkout, with the manager's help if it conflicts.
/// Returns the paths that did.
async fn merge(stage: &Stage, manager: &Path, worker: u32, tip: &str) -> Result<String> {
    let from = stage.path(&format!("worker-{worker}"));
    let from = from.to_string_lossy();
    git(manager, &["fetch", "--quiet", &from, "HEAD"]).await?;
    if try_git(manager, &["merge", "--quiet", "--no-edit", tip])
        .await?
        .status
        .success()
    {
        return Ok(String::new());
    }
    let paths = git(manager, &["diff", "--name-only", "--diff-filter=U"]).await?;
    git(manager, &["merge", "--abort"]).await?;
    let prompt = format!(
        "Merging the work of worker-{worker} conflicts in {paths}. Run `git merge {tip}`, \
         resolve the conflict so that both changes survive, run the tests and commit."
    );
    let said = stage.turn("manager", &prompt, &[]).await?;
    ensure!(
        said.contains("kept both sides and the tests pass"),
        "{said}"
    );
    assert_clean(manager).await?;
    let parents = git(manager, &["log", "-1", "--format=%P"]).await?;
    ensure!(
        parents.ends_with(tip),
        "HEAD is no merge of {tip}: {parents}"
    );
    Ok(paths)
}

#[tokio::test]
async fn the_demo_plays_out_on_the_real_claude_code() -> Result<()> {
    let stage = Stage::set(demo_script().script()).await?;
    let manager = plan(&stage).await?;

    let mut workers = JoinSet::new();
    for worker in 1..=WORKERS {
        workers.spawn(build(Arc::clone(&stage), worker));
    }
    let mut tips = Vec::new();
    while let Some(tip) = workers.join_next().await {
        tips.push(tip??);
    }
    tips.sort();

    let mut conflicts = Vec::new();
    for (worker, tip) in &tips {
        conflicts.push(merge(&stage, &manager, *worker, tip).await?);
    }
    assert_eq!(conflicts, ["", "textstats/report.py", ""]);
    let mut make = Command::new("make");
    make.arg("test").current_dir(&manager);
    let tests = run(make, "make").await?;
    ensure!(tests.status.success(), "{}", both(&tests));

    git(&manager, &["push", "--quiet", "origin", "main"]).await?;
    let head = git(&manager, &["rev-parse", "HEAD"]).await?;
    let verified = sample::verify(&stage.path("sample.git"), &CommitId::new(head.clone()))?;
    assert_eq!(verified.features.len(), FEATURES.len());

    let said = stage
        .turn("manager", "All lists are empty. Please plan again.", &[])
        .await?;
    ensure!(said.contains("planned or done"), "{said}");
    assert_eq!(git(&manager, &["rev-parse", "HEAD"]).await?, head);
    assert_clean(&manager).await?;
    Ok(())
}

/// How the supervisor feeds a worker: the Stop hook answers with the next task.
#[tokio::test]
async fn a_stop_hook_gives_the_next_task_to_the_same_session() -> Result<()> {
    let stage = Stage::set(demo_script().script()).await?;
    let checkout = stage.clone_for("worker-3").await?;
    let [first, second] = [FEATURES[4], FEATURES[6]];
    let block = json!({"decision": "block", "reason": format!("Your next task:\n{}", second.item)});
    std::fs::write(stage.path("next"), block.to_string())?;
    // Hands out the task once: the second Stop finds no file and lets go.
    let hook = stage.path("hook");
    std::fs::write(&hook, "cat \"$1\" 2>/dev/null && rm \"$1\"\nexit 0\n")?;
    let command = format!("sh '{}' '{}'", hook.display(), stage.path("next").display());
    let settings =
        json!({"hooks": {"Stop": [{"hooks": [{"type": "command", "command": command}]}]}});

    let settings = settings.to_string();
    let said = stage
        .turn("worker-3", first.item, &["--settings", &settings])
        .await?;
    ensure!(said.starts_with(second.commit_message), "{said}");
    let log = git(&checkout, &["log", "-2", "--format=%s"]).await?;
    let subjects: Vec<&str> = log.lines().collect();
    assert_eq!(subjects, [second.commit_message, first.commit_message]);

    let requests = stage.model.requests();
    assert!(requests.iter().all(|request| request.attempt == 0));
    assert!(
        requests
            .iter()
            .all(|request| request.credential == "ccount")
    );
    let sessions: std::collections::BTreeSet<_> = requests
        .iter()
        .map(|request| request.session.clone())
        .collect();
    assert_eq!(sessions.len(), 1);
    let wrote = requests.iter().any(
        |request| matches!(&request.answered, Answered::Turn { tools, .. } if tools == &["Write"]),
    );
    assert!(wrote, "no file was written with a tool of Claude Code");
    Ok(())
}

/// The conversation is all the state there is: a killed session goes on where it was, and what it did
/// just before, which its transcript may have lost, is not done twice.
#[tokio::test]
async fn a_turn_that_was_killed_goes_on_and_does_nothing_twice() -> Result<()> {
    const SESSION: &str = "3d5ad0c8-4a53-4b43-9a51-6a0f2d9d1c11";
    let stalled = Arc::new(AtomicBool::new(false));
    let script = Stalls {
        script: demo_script(),
        stalled: Arc::clone(&stalled),
    };
    let stage = Stage::set(Arc::new(script)).await?;
    let checkout = stage.clone_for("worker-1").await?;
    let feature = &FEATURES[0];
    let mut claude = stage
        .claude("worker-1", feature.item, &["--session-id", SESSION])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    tokio::time::timeout(TURN_LIMIT, async {
        while !stalled.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .context("the worker never came to the end of its edits")?;
    claude.kill().await?;
    let report = std::fs::read_to_string(checkout.join("textstats/report.py"))?;
    assert!(report.contains("import count_sentences"));

    let said = stage
        .turn("worker-1", "Continue.", &["--resume", SESSION])
        .await?;
    ensure!(said.contains("built, tested and committed"), "{said}");
    let report = std::fs::read_to_string(checkout.join("textstats/report.py"))?;
    assert_eq!(report.matches("count_sentences").count(), 2, "{report}");
    assert_clean(&checkout).await?;
    let log = git(&checkout, &["log", "--format=%s"]).await?;
    assert_eq!(log.lines().count(), 2, "{log}");
    let requests = stage.model.requests();
    let starts = requests.iter().filter(|request| request.step == 0);
    assert_eq!(starts.count(), 1, "the turn started again");
    Ok(())
}
