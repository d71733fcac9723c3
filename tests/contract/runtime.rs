//! What every `Runtime` does, on the fake with local processes and on a real Docker engine.
//! The Docker half needs an engine: `docker/engine.sh ensure` provides one.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use orchestrator::model::{AgentId, Incarnation, ProjectId};
use orchestrator::ports::runtime::ImageBuild;
use orchestrator::ports::{
    ContainerSpec, ErrorKind, ExecSpec, ImageSpec, Job, JobEnd, Mount, NO_NETWORK,
    ObservedContainer, PortResult, Runtime, RuntimeEvent, RuntimeEventKind,
};
use orchestrator::runtime::docker::{DockerRuntime, image};
use orchestrator::runtime::labels;
use orchestrator::testing::fake_runtime::FakeRuntime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// The version the facts were observed on; every test that needs the agent image uses this one.
const CLAUDE_VERSION: &str = "2.1.197";
/// Longest wait for something that takes well under a second.
const LONG: Duration = Duration::from_secs(60);

/// A runtime, and a project of its own on it.
struct World {
    runtime: Arc<dyn Runtime>,
    docker: Option<DockerRuntime>,
    spec: ContainerSpec,
    _directory: tempfile::TempDir,
}

impl World {
    async fn fake() -> Self {
        Self::new(
            Arc::new(FakeRuntime::with_local_processes()),
            None,
            "any:1".to_owned(),
        )
        .await
    }

    async fn docker() -> Self {
        let docker = DockerRuntime::connect(std::env::var("DOCKER_HOST").ok().as_deref())
            .await
            .unwrap_or_else(|error| {
                panic!(
                    "{}\nthese tests need an engine: run docker/engine.sh ensure",
                    error.chain()
                )
            });
        let image = agent_image(&docker).await;
        Self::new(Arc::new(docker.clone()), Some(docker), image).await
    }

    async fn new(runtime: Arc<dyn Runtime>, docker: Option<DockerRuntime>, image: String) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let project = ProjectId::new(format!("contract-{}-{number}", std::process::id()));
        let directory = tempfile::tempdir().unwrap();
        // The container's user is not this one.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let network = runtime.ensure_network(&project).await.unwrap();
        let spec = ContainerSpec {
            project,
            agent: AgentId::worker(1),
            incarnation: Incarnation(1),
            image,
            command: words(&["sleep", "600"]),
            environment: BTreeMap::from([("WORKER_ID".to_owned(), "1".to_owned())]),
            mounts: vec![Mount {
                host: directory.path().to_owned(),
                container: "/workspace".to_owned(),
                read_only: false,
            }],
            working_directory: "/workspace".to_owned(),
            uid: 1000,
            gid: 1000,
            network: network.name,
            memory_bytes: Some(64 << 20),
            milli_cpus: Some(1000),
            pids: 64,
            tmp_bytes: 8 << 20,
            state_directory: directory.path().to_owned(),
            settings_hash: "of-its-settings".to_owned(),
        };
        Self {
            runtime,
            docker,
            spec,
            _directory: directory,
        }
    }

    fn running(&self, command: &[&str]) -> ContainerSpec {
        ContainerSpec {
            command: words(command),
            ..self.spec.clone()
        }
    }

    fn host(&self, name: &str) -> std::path::PathBuf {
        self.spec.mounts[0].host.join(name)
    }

    async fn the_one(&self) -> ObservedContainer {
        let mut all = self.runtime.list(&self.spec.project).await.unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    async fn ended(&self) -> ObservedContainer {
        let wait = async {
            loop {
                let seen = self.the_one().await;
                if !seen.running {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("it ends")
    }

    async fn clean_up(self) {
        if let Some(docker) = &self.docker {
            assert_eq!(
                docker.remove_leftovers(&self.spec.project).await.unwrap(),
                0
            );
        }
        remove_all(&*self.runtime, &self.spec.project)
            .await
            .unwrap();
    }
}

async fn remove_all(runtime: &dyn Runtime, project: &ProjectId) -> PortResult<()> {
    for container in runtime.list(project).await? {
        runtime.stop(&container.name, Duration::ZERO).await?;
        runtime.remove(&container.name).await?;
    }
    runtime.remove_network(project).await
}

/// A failed test leaves nothing on the engine either.
impl Drop for World {
    fn drop(&mut self) {
        let Some(docker) = self.docker.take().filter(|_| std::thread::panicking()) else {
            return;
        };
        let project = self.spec.project.clone();
        let clean_up = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                docker.remove_leftovers(&project).await?;
                remove_all(&docker, &project).await
            })?;
            anyhow::Ok(())
        };
        if !matches!(std::thread::spawn(clean_up).join(), Ok(Ok(()))) {
            eprintln!("the containers of {} stay behind", self.spec.project);
        }
    }
}

/// Builds the bundled agent image once for all tests, or finds it.
async fn agent_image(docker: &DockerRuntime) -> String {
    static BUILT: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
    let build = async {
        let spec = image::bundled_image(CLAUDE_VERSION, 1000);
        let built = docker.ensure_image(&spec, &|line| println!("{line}")).await;
        built.unwrap_or_else(|error| panic!("{}\nhint: {:?}", error.chain(), error.hint));
        spec.tag
    };
    BUILT.get_or_init(|| build).await.clone()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn shell(script: &str) -> ExecSpec {
    ExecSpec {
        command: words(&["sh", "-c", script]),
        working_directory: None,
        environment: BTreeMap::new(),
        stdin: Vec::new(),
        max_output_bytes: 64 * 1024,
        deadline: LONG,
    }
}

async fn starting_twice_adopts(world: World) {
    let first = world.runtime.start(&world.spec).await.unwrap();
    assert!(first.running);
    assert_eq!(first.exit_code, None);
    let second = world.runtime.start(&world.spec).await.unwrap();
    assert_eq!(first.id, second.id);
    let seen = world.the_one().await;
    assert_eq!(seen.name, world.spec.name());
    assert_eq!(
        (seen.agent.as_str(), seen.incarnation),
        ("worker-1", Incarnation(1))
    );
    assert_eq!(seen.spec_hash, labels::spec_hash(&world.spec));
    world.clean_up().await;
}

async fn an_ended_container_is_seen_and_not_started_again(world: World) {
    let spec = world.running(&["sh", "-c", "exit 3"]);
    let started = world.runtime.start(&spec).await.unwrap();
    let ended = world.ended().await;
    assert_eq!((ended.exit_code, ended.oom_killed), (Some(3), false));
    let again = world.runtime.start(&spec).await.unwrap();
    assert_eq!((again.id, again.running), (started.id, false));
    world.clean_up().await;
}

async fn a_missing_mount_is_refused_and_not_made(world: World) {
    let mut spec = world.spec.clone();
    spec.mounts[0].host = world.host("not-there");
    let error = world.runtime.start(&spec).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(!world.host("not-there").exists());
    assert!(world.runtime.list(&spec.project).await.unwrap().is_empty());
    world.clean_up().await;
}

async fn stopping_asks_first(world: World) {
    let script = "trap 'exit 7' TERM; touch ready; while :; do sleep 0.05; done";
    let name = world
        .runtime
        .start(&world.running(&["sh", "-c", script]))
        .await
        .unwrap()
        .name;
    appears(&world.host("ready")).await;
    world.runtime.stop(&name, LONG).await.unwrap();
    assert_eq!(world.ended().await.exit_code, Some(7));
    world.runtime.stop(&name, LONG).await.unwrap();
    world.clean_up().await;
}

async fn stopping_kills_after_the_grace(world: World) {
    let script = "trap '' TERM; touch ready; while :; do sleep 0.05; done";
    let name = world
        .runtime
        .start(&world.running(&["sh", "-c", script]))
        .await
        .unwrap()
        .name;
    appears(&world.host("ready")).await;
    world
        .runtime
        .stop(&name, Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(world.ended().await.exit_code, Some(137));
    world.clean_up().await;
}

async fn what_is_not_there_is_stopped_and_removed(world: World) {
    world
        .runtime
        .stop("orchestrator-nobody-1", LONG)
        .await
        .unwrap();
    world.runtime.remove("orchestrator-nobody-1").await.unwrap();
    world
        .runtime
        .remove_network(&ProjectId::new("contract-nobody"))
        .await
        .unwrap();
    world.clean_up().await;
}

async fn a_running_container_is_not_removed(world: World) {
    let name = world.runtime.start(&world.spec).await.unwrap().name;
    let error = world.runtime.remove(&name).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(world.the_one().await.running);
    world.clean_up().await;
}

async fn a_command_gets_input_and_gives_both_outputs(world: World) {
    let name = world.runtime.start(&world.spec).await.unwrap().name;
    let mut command =
        shell("cat; echo \"$WORKER_ID $EXTRA\"; pwd >/workspace/where; echo no >&2; exit 5");
    command.stdin = b"in\n".to_vec();
    command
        .environment
        .insert("EXTRA".to_owned(), "more".to_owned());
    fs::create_dir(world.host("sub")).unwrap();
    fs::set_permissions(world.host("sub"), fs::Permissions::from_mode(0o777)).unwrap();
    command.working_directory = Some("/workspace/sub".to_owned());
    let output = world.runtime.exec(&name, &command).await.unwrap();
    assert_eq!(output.exit_code, 5);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in\n1 more\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "no\n");
    let place = fs::read_to_string(world.host("where")).unwrap();
    assert!(place.trim_end().ends_with("/sub"), "{place}");
    world.clean_up().await;
}

async fn large_input_does_not_block(world: World) {
    let name = world.runtime.start(&world.spec).await.unwrap().name;
    let mut command = shell("cat");
    command.stdin = vec![b'x'; 1 << 20];
    command.max_output_bytes = 2 << 20;
    let output = world.runtime.exec(&name, &command).await.unwrap();
    assert_eq!(output.stdout.len(), 1 << 20);
    command.command = words(&["true"]);
    assert_eq!(
        world.runtime.exec(&name, &command).await.unwrap().exit_code,
        0
    );
    world.clean_up().await;
}

async fn too_much_output_is_an_error(world: World) {
    let name = world.runtime.start(&world.spec).await.unwrap().name;
    let mut command = shell("yes");
    command.max_output_bytes = 10_000;
    let error = world.runtime.exec(&name, &command).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    world.clean_up().await;
}

async fn a_late_command_is_killed_with_its_children(world: World) {
    let name = world.runtime.start(&world.spec).await.unwrap().name;
    let mut command = shell("sleep 600 & echo $! >child; echo $$ >parent; wait");
    command.deadline = Duration::from_secs(1);
    let error = world.runtime.exec(&name, &command).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    // A killed process may stay for a moment until its parent has looked at it.
    let look = shell(
        "for f in child parent; do read -r p <$f; \
         grep -q '^State:[[:space:]]*[^ZX[:space:]]' /proc/$p/status 2>/dev/null && echo $f; done; true",
    );
    let wait = async {
        loop {
            let left = world.runtime.exec(&name, &look).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&left.stderr), "");
            if left.stdout.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, wait)
        .await
        .expect("they are gone");
    world.clean_up().await;
}

async fn commands_need_a_running_container(world: World) {
    let error = world
        .runtime
        .exec("orchestrator-nobody-1", &shell("true"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    let name = world
        .runtime
        .start(&world.running(&["true"]))
        .await
        .unwrap()
        .name;
    world.ended().await;
    let error = world.runtime.exec(&name, &shell("true")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    world.clean_up().await;
}

async fn a_throwaway_works_on_the_checkout(world: World) {
    fs::write(world.host("seed"), "42").unwrap();
    let mut command = shell("cat seed -; echo made >made; echo bad >&2; exit 4");
    command.stdin = b" in".to_vec();
    let output = world.runtime.run_once(&world.spec, &command).await.unwrap();
    assert_eq!(
        (output.exit_code, output.stdout.as_slice()),
        (4, b"42 in".as_slice())
    );
    assert_eq!(output.stderr, b"bad\n");
    assert_eq!(fs::read_to_string(world.host("made")).unwrap(), "made\n");
    assert!(
        world
            .runtime
            .list(&world.spec.project)
            .await
            .unwrap()
            .is_empty()
    );
    world.clean_up().await;
}

async fn a_late_throwaway_is_gone(world: World) {
    let mut command = shell("sleep 600");
    command.deadline = Duration::from_secs(2);
    let error = world
        .runtime
        .run_once(&world.spec, &command)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    // `clean_up` looks for leftovers.
    world.clean_up().await;
}

fn job(world: &World, script: &str) -> Job {
    Job {
        spec: ContainerSpec {
            network: NO_NETWORK.to_owned(),
            ..world.running(&["sh", "-c", script])
        },
        deadline: LONG,
        stop: CancellationToken::new(),
    }
}

/// How it ends, and what it prints.
async fn run_job(world: &World, job: &Job) -> PortResult<(JobEnd, String)> {
    let printed = std::sync::Mutex::new(Vec::new());
    let take = |bytes: &[u8]| printed.lock().unwrap().extend_from_slice(bytes);
    let end = world.runtime.run_job(job, &take).await?;
    let printed = printed.lock().unwrap().clone();
    Ok((end, String::from_utf8(printed).unwrap()))
}

fn exited(exit_code: i64) -> JobEnd {
    JobEnd::Exited {
        exit_code,
        out_of_memory: false,
    }
}

async fn a_job_runs_to_its_end_and_is_gone(world: World) {
    fs::write(world.host("seed"), "42\n").unwrap();
    // The two outputs have no order between them, so that each line is one write.
    let job = job(
        &world,
        "cat seed; echo \"$WORKER_ID\" >made; echo bad >&2; exit 4",
    );
    let (end, printed) = run_job(&world, &job).await.unwrap();
    assert_eq!(end, exited(4));
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["42", "bad"]);
    assert_eq!(fs::read_to_string(world.host("made")).unwrap(), "1\n");
    let all = world.runtime.list(&world.spec.project).await.unwrap();
    assert!(all.is_empty());
    world.clean_up().await;
}

async fn the_output_of_a_job_comes_while_it_runs(world: World) {
    let job = job(
        &world,
        "echo first; while ! test -e go; do sleep 0.05; done",
    );
    let go = world.host("go");
    let take = |bytes: &[u8]| {
        assert_eq!(bytes, b"first\n");
        fs::write(&go, "").unwrap();
    };
    let end = tokio::time::timeout(LONG, world.runtime.run_job(&job, &take)).await;
    assert_eq!(end.expect("it ends").unwrap(), exited(0));
    world.clean_up().await;
}

async fn a_job_may_close_its_outputs_and_go_on(world: World) {
    let job = job(&world, "exec >/dev/null 2>&1; sleep 1; touch made; exit 3");
    let (end, printed) = run_job(&world, &job).await.unwrap();
    assert_eq!((end, printed.as_str()), (exited(3), ""));
    assert!(world.host("made").exists());
    world.clean_up().await;
}

async fn a_late_job_is_killed(world: World) {
    let mut job = job(&world, "echo begun; sleep 600");
    job.deadline = Duration::from_secs(2);
    let (end, printed) = run_job(&world, &job).await.unwrap();
    assert_eq!((end, printed.as_str()), (JobEnd::TimedOut, "begun\n"));
    // `clean_up` looks for leftovers.
    world.clean_up().await;
}

async fn a_job_is_stopped(world: World) {
    let job = job(&world, "touch begun; sleep 600");
    let begun = world.host("begun");
    let stop = async {
        appears(&begun).await;
        job.stop.cancel();
    };
    let (ended, ()) = tokio::join!(run_job(&world, &job), stop);
    assert_eq!(ended.unwrap().0, JobEnd::Stopped);
    world.clean_up().await;
}

async fn a_job_that_cannot_be_run_is_an_error(world: World) {
    let mut missing = job(&world, "true");
    missing.spec.mounts[0].host = world.host("not-there");
    let error = run_job(&world, &missing).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    // That its program is not there is an end like any other: a shell would say the same.
    let mut nothing = job(&world, "true");
    nothing.spec.command = words(&["no-such-program"]);
    let (end, printed) = run_job(&world, &nothing).await.unwrap();
    assert_eq!(end, exited(127));
    assert!(printed.contains("no-such-program"), "{printed}");
    world.clean_up().await;
}

async fn an_image_is_known_once_it_is_there(world: World) {
    let nothing = world.runtime.image_id("orchestrator-nobody:none").await;
    assert_eq!(nothing.unwrap(), None);
    let spec = ImageSpec {
        tag: world.spec.image.clone(),
        build: ImageBuild::Named,
    };
    let id = world.runtime.ensure_image(&spec, &|_| {}).await.unwrap();
    let known = world.runtime.image_id(&spec.tag).await.unwrap();
    assert_eq!(known, Some(id));
    world.clean_up().await;
}

async fn events_tell_start_and_death(world: World) {
    let mut events = world
        .runtime
        .events(&world.spec.project, None)
        .await
        .unwrap();
    let spec = world.running(&["sh", "-c", "exit 9"]);
    world.runtime.start(&spec).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        let next = tokio::time::timeout(LONG, events.next())
            .await
            .expect("an event");
        told.push(next.expect("no end").unwrap());
    }
    assert_eq!(told[0].kind, RuntimeEventKind::Started);
    assert_eq!(told[1].kind, RuntimeEventKind::Died { exit_code: 9 });
    assert!(
        told.iter()
            .all(|event| event.name == spec.name() && event.agent == spec.agent)
    );
    assert!(told[1].at >= told[0].at);
    // Asked later for the past, it tells the same.
    let since = Some(told[0].at);
    let past = world
        .runtime
        .events(&world.spec.project, since)
        .await
        .unwrap();
    let past: Vec<_> = past.take(2).map(Result::unwrap).collect().await;
    assert_eq!(past, told);
    world.clean_up().await;
}

async fn the_log_keeps_the_terminal(world: World) {
    let script = "echo one; echo two; printf three; exit 0";
    let name = world
        .runtime
        .start(&world.running(&["sh", "-c", script]))
        .await
        .unwrap()
        .name;
    world.ended().await;
    assert_eq!(
        read(world.runtime.logs(&name, None, false).await.unwrap()).await,
        "one\ntwo\nthree"
    );
    let tail = read(world.runtime.logs(&name, Some(1), true).await.unwrap()).await;
    assert_eq!(tail, "three");
    let error = world
        .runtime
        .logs("orchestrator-nobody-1", None, false)
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    world.clean_up().await;
}

/// The whole output until it ends, as text with the terminal's line ends undone.
async fn read<S>(stream: S) -> String
where
    S: futures_util::Stream<Item = orchestrator::ports::PortResult<bytes::Bytes>>,
{
    let all = stream.map(Result::unwrap).collect::<Vec<_>>();
    let all = tokio::time::timeout(LONG, all).await.expect("the log ends");
    String::from_utf8(all.concat())
        .unwrap()
        .replace("\r\n", "\n")
}

async fn an_attached_terminal_takes_input_and_ends(world: World) {
    let script = r"touch ready; read line; printf '\000\001<%s>\n' $line; exit 0";
    let name = world
        .runtime
        .start(&world.running(&["sh", "-c", script]))
        .await
        .unwrap()
        .name;
    let mut terminal = world.runtime.attach(&name).await.unwrap();
    world.runtime.resize(&name, 100, 30).await.unwrap();
    terminal.input.write_all(b"hello\n").await.unwrap();
    terminal.input.flush().await.unwrap();
    let shown = read(terminal.output).await;
    assert!(shown.contains("\0\u{1}<hello>"), "{shown:?}");
    world.ended().await;
    assert_eq!(
        world.runtime.attach(&name).await.err().unwrap().kind,
        ErrorKind::Refused
    );
    let missing = world
        .runtime
        .attach("orchestrator-nobody-1")
        .await
        .err()
        .unwrap();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    world.clean_up().await;
}

async fn the_network_is_made_once(world: World) {
    let first = world
        .runtime
        .ensure_network(&world.spec.project)
        .await
        .unwrap();
    let second = world
        .runtime
        .ensure_network(&world.spec.project)
        .await
        .unwrap();
    assert_eq!(first, second);
    assert_eq!(first.name, format!("orchestrator-{}", world.spec.project));
    assert!(first.gateway.parse::<std::net::Ipv4Addr>().is_ok());
    world.clean_up().await;
}

async fn projects_do_not_see_each_other(world: World) {
    world.runtime.start(&world.spec).await.unwrap();
    let other = ProjectId::new(format!("{}-other", world.spec.project));
    assert!(world.runtime.list(&other).await.unwrap().is_empty());
    world.clean_up().await;
}

async fn a_running_container_is_measured(world: World) {
    let name = world.spec.name();
    let error = world.runtime.vitals(&name).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    let busy = world.running(&["sh", "-c", "while :; do :; done"]);
    world.runtime.start(&busy).await.unwrap();
    let first = world.runtime.vitals(&name).await.unwrap();
    assert!(!first.paused);
    let grows = async {
        while world.runtime.vitals(&name).await.unwrap().cpu <= first.cpu {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, grows)
        .await
        .expect("it computes");
    world.runtime.stop(&name, Duration::ZERO).await.unwrap();
    let error = world.runtime.vitals(&name).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    world.clean_up().await;
}

async fn appears(path: &std::path::Path) {
    let wait = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, wait)
        .await
        .expect("the file appears");
}

fake_and_docker! {
    starting_twice_adopts
    an_ended_container_is_seen_and_not_started_again
    a_missing_mount_is_refused_and_not_made
    stopping_asks_first
    stopping_kills_after_the_grace
    what_is_not_there_is_stopped_and_removed
    a_running_container_is_not_removed
    a_command_gets_input_and_gives_both_outputs
    large_input_does_not_block
    too_much_output_is_an_error
    a_late_command_is_killed_with_its_children
    commands_need_a_running_container
    a_throwaway_works_on_the_checkout
    a_late_throwaway_is_gone
    a_job_runs_to_its_end_and_is_gone
    the_output_of_a_job_comes_while_it_runs
    a_job_may_close_its_outputs_and_go_on
    a_late_job_is_killed
    a_job_is_stopped
    a_job_that_cannot_be_run_is_an_error
    an_image_is_known_once_it_is_there
    events_tell_start_and_death
    the_log_keeps_the_terminal
    an_attached_terminal_takes_input_and_ends
    the_network_is_made_once
    projects_do_not_see_each_other
    a_running_container_is_measured
}

// What only one of the two can show.

#[tokio::test]
async fn the_fakes_engine_goes_away_and_comes_back() {
    let fake = FakeRuntime::new();
    let world = World::new(Arc::new(fake.clone()), None, "any:1".to_owned()).await;
    let project = world.spec.project.clone();
    let name = fake.start(&world.spec).await.unwrap().name;
    let mut events = fake.events(&project, None).await.unwrap();
    fake.set_reachable(false);
    assert_eq!(
        events.next().await.unwrap().unwrap_err().kind,
        ErrorKind::Transient
    );
    assert_eq!(
        fake.list(&project).await.unwrap_err().kind,
        ErrorKind::Transient
    );
    assert!(fake.run_out_of_memory(&name, true));
    fake.set_reachable(true);
    let seen = world.the_one().await;
    assert_eq!(
        (seen.running, seen.exit_code, seen.oom_killed),
        (false, Some(137), true)
    );
}

#[tokio::test]
async fn a_lost_answer_of_the_fake_is_read_back_by_the_next_start() {
    let fake = FakeRuntime::new();
    let world = World::new(Arc::new(fake.clone()), None, "any:1".to_owned()).await;
    fake.lose_next_answer();
    assert_eq!(
        fake.start(&world.spec).await.unwrap_err().kind,
        ErrorKind::Transient
    );
    assert!(fake.start(&world.spec).await.unwrap().running);
    assert_eq!(fake.list(&world.spec.project).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_engine_that_is_away_is_transient_and_tells_how_to_start_it() {
    let error = DockerRuntime::connect(Some("unix:///nowhere/docker.sock"))
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    assert!(error.hint.unwrap().contains("systemctl start docker"));
    let error = DockerRuntime::connect(Some("tcp://10.0.0.1:2375"))
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
}

/// Passes connections on to the real engine until it is dropped, which looks like an engine that
/// went away.
fn passage(socket: &std::path::Path) -> tokio::task::JoinSet<()> {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            connections.spawn(async move {
                let engine = tokio::net::UnixStream::connect("/var/run/docker.sock").await;
                tokio::io::copy_bidirectional(&mut near, &mut engine.unwrap()).await
            });
        }
    });
    tasks
}

#[tokio::test]
async fn an_engine_that_goes_away_is_noticed_and_found_again() {
    let world = World::docker().await;
    let socket = world.host("docker.sock");
    let engine = passage(&socket);
    let address = format!("unix://{}", socket.display());
    let docker = DockerRuntime::connect(Some(&address)).await.unwrap();
    let name = docker.start(&world.spec).await.unwrap().name;
    let mut events = docker.events(&world.spec.project, None).await.unwrap();
    let mut terminal = docker.attach(&name).await.unwrap();
    // Only once something came through is the subscription certainly there.
    docker.stop(&name, Duration::ZERO).await.unwrap();
    let event = tokio::time::timeout(LONG, events.next())
        .await
        .expect("an event");
    assert!(event.unwrap().is_ok());
    drop(engine);
    let last = async {
        loop {
            if let Err(error) = events.next().await.expect("it ends with an error") {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(LONG, last).await.expect("an end");
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    let end = async { while let Some(Ok(_)) = terminal.output.next().await {} };
    tokio::time::timeout(LONG, end).await.expect("an end");
    let error = docker.list(&world.spec.project).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    assert!(error.hint.unwrap().contains("docker/engine.sh"));
    fs::remove_file(&socket).unwrap();
    let error = docker.start(&world.spec).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    let _engine = passage(&socket);
    docker.probe().await.unwrap();
    assert_eq!(docker.list(&world.spec.project).await.unwrap().len(), 1);
    world.clean_up().await;
}

/// Who answers a connection that is opened after an engine has begun to go away.
#[derive(Clone, Copy, Debug)]
enum Answers {
    /// Nobody, as with an engine that listens itself.
    Nobody,
    /// The next engine, as where systemd holds the socket: it remembers nothing.
    TheNext,
}

/// Passes connections on to the real engine; those that are open then stay open.
fn closing_passage(
    socket: &std::path::Path,
    closed: tokio::sync::watch::Receiver<Option<Answers>>,
) -> tokio::task::JoinSet<()> {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let closed = *closed.borrow();
            connections.spawn(async move {
                match closed {
                    None => {
                        let engine = tokio::net::UnixStream::connect("/var/run/docker.sock").await;
                        tokio::io::copy_bidirectional(&mut near, &mut engine.unwrap()).await?;
                    }
                    Some(Answers::Nobody) => {}
                    Some(Answers::TheNext) => {
                        let mut request = Vec::new();
                        near.read_buf(&mut request).await?;
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                            Content-Length: 0\r\nConnection: close\r\n\r\n";
                        near.write_all(answer).await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    tasks
}

#[tokio::test]
async fn a_death_that_the_engine_causes_on_its_way_out_is_not_told() {
    for answers in [Answers::Nobody, Answers::TheNext] {
        let world = World::docker().await;
        let socket = world.host("docker.sock");
        let (close, closed) = tokio::sync::watch::channel(None);
        let _engine = closing_passage(&socket, closed);
        let address = format!("unix://{}", socket.display());
        let docker = DockerRuntime::connect(Some(&address)).await.unwrap();
        let mut events = docker.events(&world.spec.project, None).await.unwrap();
        docker.start(&world.spec).await.unwrap();
        let next = async |events: &mut BoxStream<'static, PortResult<RuntimeEvent>>| {
            let next = tokio::time::timeout(LONG, events.next()).await;
            next.expect("an event or an end")
        };
        let first = next(&mut events).await.unwrap().unwrap();
        assert_eq!(first.kind, RuntimeEventKind::Started);
        close.send_replace(Some(answers));
        let name = world.spec.name();
        world.runtime.stop(&name, Duration::ZERO).await.unwrap();
        let error = next(&mut events).await.unwrap().expect_err("no death");
        assert_eq!(error.kind, ErrorKind::Transient, "{answers:?}: {error}");
        assert!(next(&mut events).await.is_none(), "{answers:?}");
        world.clean_up().await;
    }
}

#[tokio::test]
async fn docker_locks_an_agent_in() {
    let world = World::docker().await;
    let name = world.runtime.start(&world.spec).await.unwrap().name;
    let look = shell(
        "id -u; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '; \
         touch /etc/x 2>/dev/null && echo writable; \
         cp /bin/true /tmp/t && /tmp/t && echo runs in tmp; \
         cat /proc/1/comm; ulimit -n; hostname",
    );
    let output = world.runtime.exec(&name, &look).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1000\nCapEff: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\nruns in tmp\ndocker-init\n16384\nworker-1\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    world.clean_up().await;
}

#[tokio::test]
async fn a_throwaway_of_docker_has_no_network() {
    let world = World::docker().await;
    let output = world
        .runtime
        .run_once(&world.spec, &shell("ls /sys/class/net"))
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "lo\n");
    world.clean_up().await;
}

#[tokio::test]
async fn a_job_of_docker_has_the_network_it_is_given() {
    let world = World::docker().await;
    let look = "ls /sys/class/net";
    let (_, seen) = run_job(&world, &job(&world, look)).await.unwrap();
    assert_eq!(seen, "lo\n");
    let mut open = job(&world, look);
    open.spec.network.clone_from(&world.spec.network);
    let (_, seen) = run_job(&world, &open).await.unwrap();
    assert_eq!(seen, "eth0\nlo\n");
    world.clean_up().await;
}

#[tokio::test]
async fn a_job_of_docker_that_runs_out_of_memory_is_told() {
    let world = World::docker().await;
    let hungry = job(&world, "tail /dev/zero");
    let (end, _) = run_job(&world, &hungry).await.unwrap();
    let starved = JobEnd::Exited {
        exit_code: 137,
        out_of_memory: true,
    };
    assert_eq!(end, starved);
    world.clean_up().await;
}

#[tokio::test]
async fn a_throwaway_nobody_waits_for_is_removed_too() {
    let world = World::docker().await;
    let docker = world.docker.clone().unwrap();
    let script = shell("touch started; sleep 600");
    let started = world.host("started");
    let dropped = tokio::select! {
        _ = docker.run_once(&world.spec, &script) => false,
        () = appears(&started) => true,
    };
    assert!(dropped);
    let engine = bollard::Docker::connect_with_unix_defaults().unwrap();
    let filters = [(
        "label",
        vec![format!("{}={}", labels::PROJECT, world.spec.project)],
    )];
    let options = bollard::query_parameters::ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters.into())
        .build();
    let wait = async {
        while !engine
            .list_containers(Some(options.clone()))
            .await
            .unwrap()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, wait)
        .await
        .expect("it is removed");
    world.clean_up().await;
}

#[tokio::test]
async fn docker_tells_what_is_frozen() {
    let world = World::docker().await;
    let name = world.spec.name();
    world.runtime.start(&world.spec).await.unwrap();
    let pause = |verb: &str| {
        let done = std::process::Command::new("docker")
            .args([verb, &name])
            .output();
        assert!(done.unwrap().status.success(), "{verb}");
    };
    pause("pause");
    let frozen = world.runtime.vitals(&name).await.unwrap();
    assert!(frozen.paused);
    let later = world.runtime.vitals(&name).await.unwrap();
    assert_eq!(later.cpu, frozen.cpu, "what is frozen uses nothing");
    pause("unpause");
    assert!(!world.runtime.vitals(&name).await.unwrap().paused);
    world.clean_up().await;
}

#[tokio::test]
async fn docker_tells_of_an_out_of_memory_kill() {
    let world = World::docker().await;
    let mut events = world
        .runtime
        .events(&world.spec.project, None)
        .await
        .unwrap();
    let spec = world.running(&["tail", "/dev/zero"]);
    world.runtime.start(&spec).await.unwrap();
    let ended = world.ended().await;
    assert_eq!((ended.exit_code, ended.oom_killed), (Some(137), true));
    let told = async {
        loop {
            if events.next().await.unwrap().unwrap().kind == RuntimeEventKind::OutOfMemory {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, told)
        .await
        .expect("an oom event");
    world.clean_up().await;
}

#[tokio::test]
async fn an_agent_reaches_the_hosts_address_on_the_bridge() {
    let world = World::docker().await;
    let gateway = world
        .runtime
        .ensure_network(&world.spec.project)
        .await
        .unwrap()
        .gateway;
    let listener = tokio::net::TcpListener::bind((gateway.as_str(), 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let name = world.runtime.start(&world.spec).await.unwrap().name;
    let call = ExecSpec {
        command: words(&[
            "bash",
            "-c",
            &format!("echo hello >/dev/tcp/{gateway}/{port}"),
        ]),
        ..shell("")
    };
    let (output, accepted) = tokio::join!(
        world.runtime.exec(&name, &call),
        tokio::time::timeout(LONG, listener.accept())
    );
    assert_eq!(output.unwrap().exit_code, 0);
    assert!(accepted.expect("a connection").is_ok());
    world.clean_up().await;
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_not_found() {
    let world = World::docker().await;
    let tag = "localhost:1/nowhere/nothing:none".to_owned();
    let image = ImageSpec {
        tag: tag.clone(),
        build: ImageBuild::Named,
    };
    let error = world
        .runtime
        .ensure_image(&image, &|_| {})
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    let spec = ContainerSpec {
        image: tag,
        ..world.spec.clone()
    };
    let error = world.runtime.start(&spec).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    world.clean_up().await;
}

#[tokio::test]
async fn a_users_dockerfile_is_built_and_its_failure_explained() {
    let world = World::docker().await;
    let path = world.host("Dockerfile");
    let spec = ImageSpec {
        tag: format!("orchestrator-contract:{}", world.spec.project),
        build: ImageBuild::Dockerfile {
            path: path.clone(),
            claude_version: CLAUDE_VERSION.to_owned(),
            uid: 1000,
        },
    };
    let from = &world.spec.image;
    let recipe = |run: &str| format!("FROM {from}\nARG CLAUDE_VERSION\nRUN {run}\n");
    fs::write(&path, recipe("echo \"version $CLAUDE_VERSION\"")).unwrap();
    let lines = std::sync::Mutex::new(Vec::new());
    let progress = |line: &str| lines.lock().unwrap().push(line.to_owned());
    world.runtime.ensure_image(&spec, &progress).await.unwrap();
    let expected = format!("version {CLAUDE_VERSION}");
    assert!(lines.lock().unwrap().contains(&expected), "{lines:?}");
    fs::write(&path, recipe("echo because of this; exit 3")).unwrap();
    let error = world
        .runtime
        .ensure_image(&spec, &progress)
        .await
        .unwrap_err();
    assert!(error.message.contains("because of this"), "{error}");
    let engine = bollard::Docker::connect_with_unix_defaults().unwrap();
    let options = None::<bollard::query_parameters::RemoveImageOptions>;
    engine.remove_image(&spec.tag, options, None).await.unwrap();
    world.clean_up().await;
}

#[tokio::test]
async fn an_agent_runs_claude_code() {
    let world = World::docker().await;
    let name = world.runtime.start(&world.spec).await.unwrap().name;
    let output = world
        .runtime
        .exec(&name, &shell("claude --version"))
        .await
        .unwrap();
    let version = String::from_utf8_lossy(&output.stdout);
    assert!(version.starts_with(CLAUDE_VERSION), "{version}");
    world.clean_up().await;
}
