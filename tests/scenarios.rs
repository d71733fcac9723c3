//! Scenario scripts against the decision core: `tests/scenarios/NAME.txt` in, `NAME.out` committed.
//! `UPDATE_SCENARIOS=1` writes the outputs anew; the diff is what a reviewer reads.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use orchestrator::testing::world::run_script;

fn scripts() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the scenarios are there")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    found.sort();
    found
}

/// Lines that differ, with the place where they do.
fn difference(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[same..]
        .iter()
        .rev()
        .zip(new[same..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let mut text = format!("from line {}:\n", same + 1);
    for line in &old[same.saturating_sub(3)..same] {
        let _ = writeln!(text, "  {line}");
    }
    for line in &old[same..old.len() - tail] {
        let _ = writeln!(text, "- {line}");
    }
    for line in &new[same..new.len() - tail] {
        let _ = writeln!(text, "+ {line}");
    }
    text
}

#[test]
fn every_scenario_goes_as_committed() {
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let scripts = scripts();
    assert!(scripts.len() >= 12, "only {} scenarios", scripts.len());
    let mut problems = Vec::new();
    for path in scripts {
        let name = path.display().to_string();
        let script = fs::read_to_string(&path).expect("a script is text");
        let actual = match run_script(&script) {
            Ok(actual) => actual,
            Err(problem) => {
                problems.push(format!("{name}: {problem}"));
                continue;
            }
        };
        let kept = path.with_extension("out");
        if update {
            fs::write(&kept, &actual).expect("the output can be written");
            continue;
        }
        let expected = fs::read_to_string(&kept).unwrap_or_default();
        if expected != actual {
            problems.push(format!("{name}: {}", difference(&expected, &actual)));
        }
    }
    assert!(
        problems.is_empty(),
        "{}\nif this is as it should be: UPDATE_SCENARIOS=1",
        problems.join("\n\n")
    );
}

#[test]
fn a_difference_shows_both_sides() {
    assert_eq!(
        difference("a\nb\nc\n", "a\nx\nc\n"),
        "from line 2:\n  a\n- b\n+ x\n"
    );
}

#[test]
fn a_line_that_is_no_command_is_named() {
    let problem = run_script("workers 1\nfly worker-1\n").expect_err("there is no such command");
    assert!(problem.contains("line 2"), "{problem}");
}
