//! Gates on a real store: with local processes in place of containers, and on a real Docker engine.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator::config::{self, Inputs};
use orchestrator::daemon::{
    GateOrder, GateSetup, Gates, Known, SystemClock, logged_runs, read_log,
};
use orchestrator::model::{CommitId, GateEvent, GateOutcome, GateRecord, ProjectId};
use orchestrator::ports::{ErrorKind, Runtime};
use orchestrator::runtime::docker::{DockerRuntime, image};
use orchestrator::testing::fake_runtime::{Call, FakeRuntime};
use orchestrator::worktree::{GitStore, Identity};
use serde_json::{Value, json};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(120);

/// A store with one commit, and a fleet's gates on it.
struct World {
    directory: TempDir,
    runtime: Arc<dyn Runtime>,
    docker: Option<DockerRuntime>,
    fake: Option<FakeRuntime>,
    project: ProjectId,
    git: Arc<GitStore>,
    network: String,
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=A", "-c", "user.email=a@example.com"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl World {
    async fn fake() -> Self {
        let fake = FakeRuntime::with_local_processes();
        let mut world = Self::new(Arc::new(fake.clone())).await;
        world.fake = Some(fake);
        world
    }

    async fn docker() -> Self {
        let docker = DockerRuntime::connect(std::env::var("DOCKER_HOST").ok().as_deref())
            .await
            .unwrap_or_else(|error| panic!("{}\nrun docker/engine.sh ensure", error.chain()));
        let spec = image::bundled_image(config::CLAUDE_VERSION, 1000);
        let built = docker.ensure_image(&spec, &|line| println!("{line}")).await;
        built.unwrap_or_else(|error| panic!("{}\nhint: {:?}", error.chain(), error.hint));
        let mut world = Self::new(Arc::new(docker.clone())).await;
        world.docker = Some(docker);
        world
    }

    async fn new(runtime: Arc<dyn Runtime>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let project = ProjectId::new(format!("gates-{}-{number}", std::process::id()));
        let directory = tempfile::tempdir().unwrap();
        let seed = directory.path().join("seed");
        fs::create_dir(&seed).unwrap();
        git(&seed, &["init", "-q", "-b", "main"]);
        fs::write(seed.join("file"), "content\n").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", seed.join("link")).unwrap();
        git(&seed, &["add", "-A"]);
        git(&seed, &["commit", "-qm", "first"]);
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        let identity = Identity {
            name: "A".into(),
            email: "a@example.com".into(),
        };
        let url = seed.display().to_string();
        let path = state.join("store.git");
        let store = GitStore::open_or_clone(&path, &url, "main", identity, &|_| {}).unwrap();
        let network = runtime.ensure_network(&project).await.unwrap();
        Self {
            directory,
            runtime,
            docker: None,
            fake: None,
            project,
            git: Arc::new(store),
            network: network.name,
        }
    }

    fn gates(&self, gates: &Value) -> Gates {
        let at = |name: &str| self.directory.path().join(name);
        fs::create_dir_all(at("config")).unwrap();
        let document = json!({
            "project": self.project,
            "repositoryUrl": "https://example.com/r.git",
            "workerCount": 1,
            "claudeConfigs": at("keys/*.json"),
            "stateDirectory": at("state"),
            "container": {"memory": "256MiB", "tmpSize": "64MiB"},
            "gates": gates,
        });
        fs::write(at("config/orchestrator.json"), document.to_string()).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let inputs = Inputs {
            home: Some(at("home")),
            uid,
            ..Inputs::default()
        };
        let config = config::load(&at("config"), &inputs).unwrap().config;
        // A local process runs as this user.
        let given = uid == 0 && self.docker.is_some();
        let owner = given.then_some((config.container.uid, config.container.uid));
        let setup = GateSetup {
            config,
            runtime: self.runtime.clone(),
            git: self.git.clone(),
            clock: Arc::new(SystemClock::new()),
            network: self.network.clone(),
            owner,
        };
        Gates::open(setup).unwrap()
    }

    /// One gate called `test`.
    fn gate(&self, command: &str) -> Gates {
        self.gates(&json!([{"name": "test", "command": command}]))
    }

    fn head(&self) -> CommitId {
        self.git.branch_head().unwrap()
    }

    async fn run(&self, gates: &Gates) -> Vec<GateRecord> {
        let records = tokio::time::timeout(LONG, gates.run(&self.head())).await;
        let records = records.expect("it ends").unwrap();
        self.nothing_is_left().await;
        records
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("state/gates")
    }

    fn log(&self, record: &GateRecord) -> String {
        let log = read_log(&self.root(), &record.log).unwrap().unwrap();
        String::from_utf8(log).unwrap()
    }

    /// Tries that were made in containers.
    fn tries(&self) -> Option<usize> {
        let calls = self.fake.as_ref()?.calls();
        let job = |call: &&Call| matches!(call, Call::RunJob { .. });
        Some(calls.iter().filter(job).count())
    }

    async fn nothing_is_left(&self) {
        let runs = fs::read_dir(self.root().join("runs")).unwrap();
        let left: Vec<_> = runs.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
        if let Some(docker) = &self.docker {
            assert_eq!(docker.remove_leftovers(&self.project).await.unwrap(), 0);
        }
    }

    async fn clean_up(self) {
        self.runtime.remove_network(&self.project).await.unwrap();
    }
}

/// A failed test leaves nothing on the engine either.
impl Drop for World {
    fn drop(&mut self) {
        let Some(docker) = self.docker.take().filter(|_| std::thread::panicking()) else {
            return;
        };
        let project = self.project.clone();
        let clean_up = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                docker.remove_leftovers(&project).await?;
                docker.remove_network(&project).await
            })?;
            anyhow::Ok(())
        };
        if !matches!(std::thread::spawn(clean_up).join(), Ok(Ok(()))) {
            eprintln!("the containers of {} stay behind", self.project);
        }
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let wait = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect(what);
}

fn outcomes(records: &[GateRecord]) -> Vec<(&str, GateOutcome, bool, bool)> {
    let seen = |r: &'_ GateRecord| (r.outcome, r.flaky, r.cached);
    records
        .iter()
        .map(|record| {
            let (outcome, flaky, cached) = seen(record);
            (record.name.as_str(), outcome, flaky, cached)
        })
        .collect()
}

use GateOutcome::{Broken, Failed, Passed, TimedOut};

async fn a_gate_sees_exactly_the_tree_with_its_history(world: World) {
    // The branch is ahead of what `origin` had: a gate can see what is new.
    let gates = world.gate(
        // One output: the order between two is not kept.
        r#"exec 2>&1; set -ex
        test "$ORCHESTRATOR_GATE" = test; test "$ORCHESTRATOR_BRANCH" = main; test "$CI" = true
        test "$(git rev-parse HEAD)" = "$ORCHESTRATOR_COMMIT"
        test "$(git rev-parse --abbrev-ref HEAD)" = main
        git diff --exit-code origin/main
        test -z "$(git status --porcelain)"; test -L link; test "$(cat file)" = content
        touch "$HOME/writable" written
        echo all is well"#,
    );
    let records = world.run(&gates).await;
    assert_eq!(
        outcomes(&records),
        [("test", Passed, false, false)],
        "{records:?}"
    );
    let record = &records[0];
    assert!(record.tail.ends_with("all is well"), "{}", record.tail);
    assert_eq!(record.commit, world.head());
    assert_eq!(record.tree, world.git.tree_id(&world.head()).unwrap());
    assert!(
        world
            .log(record)
            .contains("+ echo all is well\nall is well\n[orchestrator: it passed")
    );
    world.clean_up().await;
}

async fn what_is_known_of_a_tree_is_not_run_again(world: World) {
    let gates = world.gate("true");
    let first = world.run(&gates).await;
    let again = world.run(&gates).await;
    assert_eq!(outcomes(&again), [("test", Passed, false, true)]);
    assert_eq!(again[0].log, first[0].log);
    let order = GateOrder {
        commit: world.head(),
        only: None,
        known: Known::RunAnew,
    };
    let anew = gates.run_order(order, Arc::new(|_| {})).await.unwrap();
    assert_eq!(outcomes(&anew), [("test", Passed, false, false)]);
    // Another supervisor knows it too, and another definition is another gate.
    let later = world.gate("true");
    assert!(world.run(&later).await[0].cached);
    let other = world.gate("true # really");
    assert!(!world.run(&other).await[0].cached);
    let counts = other.views()[0].counts;
    assert_eq!((counts.passed, counts.cached), (3, 2));
    assert_eq!(logged_runs(&world.root()).unwrap().len(), 3);
    world.clean_up().await;
}

async fn the_first_red_one_ends_the_run(world: World) {
    let gates = world.gates(&json!([
        {"name": "one", "command": ["true"]},
        {"name": "two", "command": "echo what is wrong; echo and why >&2; exit 3"},
        {"name": "three", "command": "true"},
    ]));
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let told = told.clone();
        Arc::new(move |event: GateEvent| told.lock().unwrap().push(event))
    };
    let order = GateOrder {
        commit: world.head(),
        only: None,
        known: Known::Use,
    };
    let records = gates.run_order(order, listener).await.unwrap();
    assert_eq!(
        outcomes(&records),
        [("one", Passed, false, false), ("two", Failed, false, false)]
    );
    let tail = &records[1].tail;
    assert!(
        tail.contains("what is wrong") && tail.contains("and why"),
        "{tail}"
    );
    assert!(tail.ends_with("[it failed with status 3]"), "{tail}");
    let log = world.log(&records[1]);
    assert_eq!(log.matches("what is wrong").count(), 2, "{log}");
    assert!(log.contains("tried once more"), "{log}");
    if let Some(tries) = world.tries() {
        assert_eq!(tries, 3);
    }
    let told = told.lock().unwrap().clone();
    let not_run = vec!["three".to_owned()];
    assert_eq!(told.last(), Some(&GateEvent::Ended { not_run }));
    let started = |event: &&GateEvent| matches!(event, GateEvent::Started(_));
    assert_eq!(told.iter().filter(started).count(), 3);
    // A failure that was confirmed is known, too.
    let again = world.run(&gates).await;
    assert_eq!(
        outcomes(&again),
        [("one", Passed, false, true), ("two", Failed, false, true)]
    );
    world.clean_up().await;
}

async fn a_flake_passes_and_is_recorded(world: World) {
    let gates = world.gates(&json!([{
        "name": "test", "cache": true,
        "command": "test -e /cache/seen && exit 0; touch /cache/seen; echo flaked; exit 1",
    }]));
    let records = world.run(&gates).await;
    assert_eq!(
        outcomes(&records),
        [("test", Passed, true, false)],
        "{records:?}"
    );
    assert!(
        world
            .log(&records[0])
            .contains("flaked\n[orchestrator: it failed with status 1; tried")
    );
    let counts = gates.views()[0].counts;
    assert_eq!((counts.passed, counts.flaky, counts.failed), (1, 1, 0));
    assert_eq!(
        outcomes(&world.run(&gates).await),
        [("test", Passed, true, true)]
    );
    world.clean_up().await;
}

async fn each_try_has_a_fresh_directory(world: World) {
    let gates = world
        .gate("test -e made -o -e \"$HOME/made\" && exit 0; touch made \"$HOME/made\"; exit 1");
    assert_eq!(
        outcomes(&world.run(&gates).await),
        [("test", Failed, false, false)]
    );
    world.clean_up().await;
}

async fn what_hangs_is_killed_and_not_tried_again(world: World) {
    let gates = world.gates(&json!([
        {"name": "test", "timeout": "2s", "command": "echo begun; sleep 600"},
    ]));
    let records = world.run(&gates).await;
    assert_eq!(outcomes(&records), [("test", TimedOut, false, false)]);
    assert!(records[0].tail.contains("longer than 2s"), "{records:?}");
    assert_eq!(world.log(&records[0]).matches("begun").count(), 1);
    // A machine under load says little about the tree: it is not remembered.
    assert!(!world.run(&gates).await[0].cached);
    world.clean_up().await;
}

async fn directories_that_were_closed_are_removed(world: World) {
    let gates = world.gate("mkdir -p a/b && touch a/b/c && chmod 0500 a/b && chmod 0 a");
    assert_eq!(
        outcomes(&world.run(&gates).await),
        [("test", Passed, false, false)]
    );
    world.clean_up().await;
}

async fn nobody_who_waits_leaves_nothing(world: World) {
    let gates = world.gate("touch begun; sleep 600");
    let mut progress = gates.progress();
    let (head, asked) = (world.head(), gates.clone());
    let begun = world.root().join("runs");
    {
        let run = asked.run(&head);
        tokio::pin!(run);
        let running = eventually("it runs", || {
            let begun = fs::read_dir(&begun).unwrap();
            let found = begun
                .flatten()
                .any(|run| run.path().join("tree/begun").exists());
            std::future::ready(found)
        });
        tokio::select! {
            _ = &mut run => panic!("it does not end"),
            () = running => {}
        }
        let shown = progress.borrow_and_update().clone().unwrap();
        assert_eq!(
            (shown.gate.as_str(), shown.number, shown.of),
            ("test", 1, 1)
        );
        assert_eq!(shown.commit, world.head());
    }
    eventually("it is no longer shown", || {
        std::future::ready(progress.borrow().is_none())
    })
    .await;
    world.nothing_is_left().await;
    // The next one does not wait for it.
    let next = world.gate("true");
    assert_eq!(
        outcomes(&world.run(&next).await),
        [("test", Passed, false, false)]
    );
    world.clean_up().await;
}

async fn the_end_of_the_daemon_ends_a_run(world: World) {
    let gates = world.gate("sleep 600");
    let mut progress = gates.progress();
    let (asked, head) = (gates.clone(), world.head());
    let run = tokio::spawn(async move { asked.run(&head).await });
    progress.wait_for(Option::is_some).await.unwrap();
    gates.shut_down().await;
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    world.nothing_is_left().await;
    let error = gates.run(&world.head()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    world.clean_up().await;
}

async fn one_run_at_a_time(world: World) {
    let gates = world.gate("sleep 600");
    let mut progress = gates.progress();
    let (asked, head) = (gates.clone(), world.head());
    let first = tokio::spawn(async move { asked.run(&head).await });
    progress.wait_for(Option::is_some).await.unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let listener = Arc::new(move |event: GateEvent| {
        if event == GateEvent::Waiting {
            let tell = tell.lock().unwrap().take();
            tell.unwrap().send(()).unwrap();
        }
    });
    let order = GateOrder {
        commit: world.head(),
        only: Some("test".into()),
        known: Known::Use,
    };
    let asked = gates.clone();
    let second = tokio::spawn(async move { asked.run_order(order, listener).await });
    told.await.unwrap();
    gates.shut_down().await;
    assert!(first.await.unwrap().is_err() && second.await.unwrap().is_err());
    world.clean_up().await;
}

async fn what_is_not_there_is_said(world: World) {
    let gates = world.gate("true");
    let nothing = CommitId::new("0123456789012345678901234567890123456789");
    let error = gates.run(&nothing).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    let order = GateOrder {
        commit: world.head(),
        only: Some("tset".into()),
        known: Known::Use,
    };
    let error = gates.run_order(order, Arc::new(|_| {})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    assert_eq!(error.hint.as_deref(), Some("there are: test"));
    let head = world.head();
    let found = |text: &str| world.git.resolve(text);
    assert_eq!(found("main").unwrap(), head);
    assert_eq!(found(&head.as_str()[..7]).unwrap(), head);
    for nothing in ["trunk", "--all", "012345", "", "../main"] {
        assert_eq!(
            found(nothing).unwrap_err().kind,
            ErrorKind::NotFound,
            "{nothing}"
        );
    }
    world.clean_up().await;
}

async fn what_an_earlier_supervisor_left_is_removed(world: World) {
    let left = world.root().join("runs/20260101-000000-test-1/tree");
    fs::create_dir_all(left.join("deep")).unwrap();
    let gates = world.gate("true");
    assert!(!left.exists());
    assert_eq!(world.run(&gates).await.len(), 1);
    world.clean_up().await;
}

fake_and_docker! {
    a_gate_sees_exactly_the_tree_with_its_history
    what_is_known_of_a_tree_is_not_run_again
    the_first_red_one_ends_the_run
    a_flake_passes_and_is_recorded
    each_try_has_a_fresh_directory
    what_hangs_is_killed_and_not_tried_again
    directories_that_were_closed_are_removed
    nobody_who_waits_leaves_nothing
    the_end_of_the_daemon_ends_a_run
    one_run_at_a_time
    what_is_not_there_is_said
    what_an_earlier_supervisor_left_is_removed
}

// What only one of the two can show.

#[tokio::test]
async fn an_engine_that_is_away_says_nothing_about_the_tree() {
    let world = World::fake().await;
    let fake = world.fake.clone().unwrap();
    let gates = world.gates(&json!([
        {"name": "test", "command": "true"},
        {"name": "other", "command": "true"},
    ]));
    fake.set_reachable(false);
    let records = gates.run(&world.head()).await.unwrap();
    assert_eq!(outcomes(&records), [("test", Broken, false, false)]);
    assert!(
        records[0].tail.contains("the engine does not answer"),
        "{records:?}"
    );
    fake.set_reachable(true);
    let records = world.run(&gates).await;
    assert_eq!(
        outcomes(&records),
        [
            ("test", Passed, false, false),
            ("other", Passed, false, false)
        ]
    );
    // It goes away while one runs.
    let gates = world.gate("touch begun; sleep 600");
    let runs = world.root().join("runs");
    let away = async {
        eventually("it runs", || {
            let runs = fs::read_dir(&runs).unwrap().flatten();
            let mut begun = runs.map(|run| run.path().join("tree/begun").exists());
            std::future::ready(begun.any(|begun| begun))
        })
        .await;
        fake.set_reachable(false);
    };
    let head = world.head();
    let (records, ()) = tokio::join!(gates.run(&head), away);
    assert_eq!(
        outcomes(&records.unwrap()),
        [("test", Broken, false, false)]
    );
}

#[tokio::test]
async fn docker_gives_a_gate_nothing_but_its_tree() {
    let world = World::docker().await;
    let network = world.runtime.ensure_network(&world.project).await.unwrap();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address = format!(
        "{}/{}",
        network.gateway,
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let reach = format!("timeout 10 bash -c ': </dev/tcp/{address}'");
    let locked = format!(
        r#"set -ex
        test "$(id -u)" != 0; test "$(ls /sys/class/net)" = lo
        ! {reach}
        objects=$(cat .git/objects/info/alternates)
        ! touch "$objects/planted"; ! rm -rf "$objects"/pack; ! touch /etc/planted
        test ! -e /run/orchestrator; test ! -e /opt/orchestrator; test ! -e /cache
        grep -q '^CapEff:.0000000000000000$' /proc/self/status
        git -c user.name=A -c user.email=a@b commit --allow-empty -qm planted
        ! env | grep -i -e anthropic -e claude_code -e token"#
    );
    let gates = world.gates(&json!([
        {"name": "locked", "command": locked},
        {"name": "open", "command": reach, "network": true},
    ]));
    let before = world.head();
    let records = world.run(&gates).await;
    assert_eq!(
        outcomes(&records),
        [
            ("locked", Passed, false, false),
            ("open", Passed, false, false)
        ],
        "{}",
        world.log(records.last().unwrap())
    );
    assert_eq!(world.head(), before);
    world.clean_up().await;
}

#[tokio::test]
async fn an_image_that_docker_cannot_have_says_nothing_about_the_tree() {
    let world = World::docker().await;
    let gates = world.gates(&json!([
        {"name": "test", "command": "true", "where": {"image": "localhost:1/no-such-image:1"}},
    ]));
    let records = world.run(&gates).await;
    assert_eq!(outcomes(&records), [("test", Broken, false, false)]);
    let tail = &records[0].tail;
    assert!(
        tail.contains("no-such-image") && tail.contains("hint: "),
        "{tail}"
    );
    assert!(world.log(&records[0]).contains("it could not be run"));
    world.clean_up().await;
}

#[tokio::test]
async fn lack_of_memory_in_docker_is_said() {
    let world = World::docker().await;
    let gates = world.gate("tail /dev/zero");
    let records = world.run(&gates).await;
    assert_eq!(outcomes(&records), [("test", Failed, false, false)]);
    assert!(
        records[0].tail.contains("256MiB (container.memory)"),
        "{records:?}"
    );
    world.clean_up().await;
}
