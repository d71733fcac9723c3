//! A disk that is full: at the start, and while the fleet works. The state directory lies on a
//! small file system of its own, which only root can mount.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use orchestrator::cli::Exit;
use orchestrator::model::Screen;

use orchestrator::testing::scripted_model::{Condition, Rule, Scenario, Step};

use crate::support::stage::agent;
use crate::support::{Ran, Setup, Stage, eventually, worker_script};

/// Unmounted when the test ends, before its directory is removed.
struct SmallDisk<'a> {
    stage: &'a Stage,
    path: PathBuf,
}

impl<'a> SmallDisk<'a> {
    fn mount(stage: &'a Stage, size: &str) -> Self {
        let path = stage.state();
        std::fs::create_dir_all(&path).unwrap();
        let options = format!("size={size},mode=0700");
        let mut mount = Command::new("mount");
        Ran::of(
            mount
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(&path),
        )
        .ok();
        Self { stage, path }
    }

    /// Takes all the room there is.
    fn fill(&self) -> PathBuf {
        let path = self.path.join("fills-the-disk");
        let mut file = std::fs::File::create(&path).unwrap();
        for block in [1 << 20, 1 << 12, 1] {
            let bytes = vec![b'x'; block];
            while file.write_all(&bytes).is_ok() {}
        }
        assert!(
            std::fs::write(self.path.join("more"), "x").is_err(),
            "it is full"
        );
        path
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stage.show_what_happened();
        }
        self.stage.clean_up();
        let _ = Ran::of(Command::new("umount").arg("--lazy").arg(&self.path));
    }
}

#[test]
fn a_full_disk_at_the_start_is_named_and_room_is_all_it_takes() {
    let stage = Stage::set(Setup::default());
    let disk = SmallDisk::mount(&stage, "64m");
    let filling = disk.fill();
    for args in [&["up"][..], &["up", "-d"]] {
        let ran = stage.run(args);
        assert!(
            ran.code == i32::from(Exit::Failure.code())
                || ran.code == i32::from(Exit::Prerequisite.code()),
            "{ran}"
        );
        let ran = ran.says(&["the disk is full", "hint: "]);
        assert!(!ran.stderr.contains("panicked"), "{ran}");
        stage.nothing_is_left();
    }
    let doctor = stage.run(&["doctor"]);
    assert_ne!(doctor.code, 0, "{doctor}");
    assert!(
        doctor.stdout.contains("disk") && doctor.stdout.contains("make room"),
        "{doctor}"
    );
    std::fs::remove_file(filling).unwrap();
    stage.up_and_ready();
    // There is room, but little: said before it is too late.
    let view = stage.until("little room is told", |view| view.disk.is_some());
    let told = |n: &orchestrator::model::view::Notice| n.text.contains("little room");
    assert!(view.notices.iter().any(told), "{:?}", view.notices);
    let table = stage.run(&["status"]).ok();
    assert!(table.contains("disk        little room"), "{table}");
    stage.down();
    drop(disk);
}

/// Two gates in one turn: between them a tool's hook cannot be stored.
fn two_gates() -> Scenario {
    let wait = |gate: &str| {
        let command = format!(
            "touch .gate-{gate}.waiting; until [ -e .gate-{gate}.open ]; do sleep 0.1; done; echo open"
        );
        Step::bash(&command, "Wait at the gate")
    };
    let mut script = worker_script();
    let rule = Rule {
        name: "two gates".into(),
        when: vec![Condition::text("two gates")],
        steps: vec![
            wait("a"),
            wait("b"),
            Step::bash(
                "mkdir -p work; echo ran >> work/two.txt; git add work; git commit -qm two",
                "Work",
            ),
        ],
        finally: "Went through both.".into(),
    };
    script.rules.insert(0, rule);
    script
}

#[test]
fn a_disk_that_is_full_for_a_while_in_a_turn_costs_no_work() {
    let list = "- [ ] go through two gates\n- [ ] and the next one\n";
    let stage = Stage::set(Setup {
        scenario: two_gates(),
        files: vec![("WORKER_1_TASK_LIST.md", list.into())],
        ..Setup::default()
    });
    let disk = SmallDisk::mount(&stage, "256m");
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "a");
    let before = stage.view();
    let filling = disk.fill();
    stage.run(&["status"]).ok();
    stage.open_gate("worker-1", "a");
    stage.until_at_gate("worker-1", "b");
    assert_eq!(agent(&stage.view(), "worker-1").state, "working");
    std::fs::remove_file(&filling).unwrap();
    stage.open_gate("worker-1", "b");
    let after = stage.until_done(2);
    let (before, after) = (agent(&before, "worker-1"), agent(&after, "worker-1"));
    assert_eq!(
        (&after.session, &after.container),
        (&before.session, &before.container)
    );
    assert_eq!(stage.runs_of("two"), 1);
    let list = stage.checkout("manager").join("WORKER_1_TASK_LIST.md");
    eventually("both are ticked", || {
        let text = std::fs::read_to_string(&list).ok()?;
        (text.matches("- [x] ").count() == 2).then_some(())
    });
    stage.down();
    stage.nothing_is_left();
    drop(disk);
}

/// Works once, however often it is told, and waits at a gate at the end of its turn.
fn one_gate() -> Scenario {
    let mut script = worker_script();
    let rule = Rule {
        name: "one gate".into(),
        when: vec![Condition::text("the last gate")],
        steps: vec![
            Step::bash(
                "[ -e work/last.txt ] || { mkdir -p work; echo ran >> work/last.txt; git add work; git commit -qm last; }",
                "Work, unless it is done",
            ),
            Step::bash(
                "touch .gate-z.waiting; until [ -e .gate-z.open ]; do sleep 0.1; done; echo open",
                "Wait at the gate",
            ),
        ],
        finally: "Went through the last one.".into(),
    };
    script.rules.insert(0, rule);
    script
}

#[test]
fn an_end_of_a_turn_that_nobody_could_store_is_found_when_there_is_room_again() {
    let list = "- [ ] go through the last gate\n- [ ] and the next one\n";
    let stage = Stage::set(Setup {
        scenario: one_gate(),
        files: vec![("WORKER_1_TASK_LIST.md", list.into())],
        ..Setup::default()
    });
    let disk = SmallDisk::mount(&stage, "256m");
    stage.up_and_ready();
    stage.until_at_gate("worker-1", "z");
    let filling = disk.fill();
    stage.open_gate("worker-1", "z");
    eventually("its turn is over on its screen", || {
        let screen = stage
            .tmux(&["capture-pane", "-p", "-t", "=worker-1:"])
            .stdout;
        let over = screen.contains("Went through the last one.")
            && orchestrator::claude::classify(&screen) == Screen::Ready;
        over.then_some(())
    });
    let view = stage.view();
    let stuck = agent(&view, "worker-1");
    assert_eq!(
        stuck.tasks_done, 0,
        "nothing was promised: {}",
        stuck.reason
    );
    std::fs::remove_file(&filling).unwrap();
    stage.until_done(2);
    assert_eq!(stage.runs_of("last"), 1);
    stage.down();
    stage.nothing_is_left();
    drop(disk);
}
