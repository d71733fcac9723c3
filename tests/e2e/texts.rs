//! Texts that a shell, a terminal or Claude Code could take for something else reach the model as
//! they were written, by paste and in the answer to a Stop hook.

use std::io::Write as _;

use crate::support::{Setup, Stage, eventually};

/// As a person writes it in the list, and as the model must hear it. Claude Code composes what is
/// pasted (Unicode NFC), so nothing here is decomposed.
fn traps() -> Vec<(String, String)> {
    let plain = [
        "/clear everything, /exit and /compact",
        "!rm -rf / is what must not run",
        "@README.md and @nobody are mentioned",
        "# not a memory, & not a background",
        "quotes: ' \" '' \"\" and \\' and \\\" and a backslash \\\\ in it",
        "`backticks`, ``two``, $HOME, ${HOME}, $(id), %s, {{id}}, {}",
        "tmux: #{pane_id} #(id) ; kill-server \\; C-c Enter ~.",
        "äöü ß € 漢字 😀 👩‍👩‍👧 é עברית →",
        "<system-reminder>not one</system-reminder> <b>&amp;</b>",
        "[Pasted text #1] and [Image #1] are only words",
    ];
    let mut all: Vec<(String, String)> = plain
        .iter()
        .map(|text| (format!("- [ ] {text}\n"), (*text).to_owned()))
        .collect();
    let long = "a long item of many words "
        .repeat(200)
        .trim_end()
        .to_owned();
    all.push((format!("- [ ] {long}\n"), long));
    all.push((
        "- [ ] several lines\n  and one more\n\n  - a nested bullet\n    - and a deeper one\n\n  the end\n".into(),
        "several lines\nand one more\n\n- a nested bullet\n  - and a deeper one\n\nthe end".into(),
    ));
    all
}

#[track_caller]
fn was_heard(heard: &[String], text: &str) {
    let wanted = format!(":\n\n{text}\n\nYou are worker-");
    let times = heard.iter().filter(|told| told.contains(&wanted)).count();
    assert_eq!(times, 1, "{text:?} in {heard:#?}");
}

#[test]
fn texts_with_traps_reach_the_model_as_they_are() {
    let lines: String = traps().iter().map(|(line, _)| line.as_str()).collect();
    let stage = Stage::set(Setup {
        workers: 2,
        files: vec![("WORKER_1_TASK_LIST.md", lines.into_bytes())],
        ..Setup::default()
    });
    let traps = traps();
    let count = u32::try_from(traps.len()).unwrap();
    stage.up_and_ready();
    // One after the other, each to an idle worker: by paste.
    let list = stage.checkout("manager").join("WORKER_2_TASK_LIST.md");
    for (number, (line, _)) in traps.iter().enumerate() {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&list)
            .unwrap();
        writeln!(file, "{line}").unwrap();
        drop(file);
        stage.until("the pasted item is done", |view| {
            let worker = view
                .agents
                .iter()
                .find(|agent| agent.id.as_str() == "worker-2")
                .unwrap();
            worker.tasks_done as usize == number + 1 && worker.state == "idle"
        });
    }
    stage.until("everything is done", |view| view.tasks.done == 2 * count);
    let heard = stage.heard.all();
    let of = |name: &str| -> Vec<String> {
        let mark = format!("You are {name},");
        heard
            .iter()
            .filter(|told| told.contains(&mark))
            .cloned()
            .collect()
    };
    for (_, text) in &traps {
        was_heard(&of("worker-1"), text);
        was_heard(&of("worker-2"), text);
    }
    let pastes = |name: &str| {
        let log = stage.run(&["logs", name, "-n", "100000"]).ok();
        log.lines().filter(|line| line.contains(" paste: ")).count()
    };
    assert_eq!(pastes("worker-2"), traps.len());
    assert_eq!(
        pastes("worker-1"),
        1,
        "all but the first come with the Stop answer"
    );
    let view = stage.view();
    assert!(view.agents.iter().all(|agent| agent.restarts == 0));
    eventually("every box is ticked", || {
        let text = std::fs::read_to_string(&list).unwrap();
        (text.matches("- [x] ").count() == traps.len()).then_some(())
    });
}
