//! The README says what the program does: its table of keys is the program's, every command and
//! exit code is in it, and what it links to is there.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use orchestrator::config;

const BEGIN: &str = "<!-- configuration table: begin";
const END: &str = "<!-- configuration table: end -->";

/// Documents for people, below the repository's root.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "config-example/README.md",
    "hooks/README.md",
    "compose/README.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The indented lines below a heading of the help text.
fn section<'a>(help: &'a str, heading: &str) -> Vec<&'a str> {
    help.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.is_empty())
        .collect()
}

#[test]
fn the_table_of_keys_is_the_programs() {
    let text = readme();
    let (_, rest) = text.split_once(BEGIN).unwrap();
    let (_, rest) = rest.split_once("-->\n").unwrap();
    let (table, _) = rest.split_once(END).unwrap();
    for (shown, wanted) in table.lines().zip(config::markdown_table().lines()) {
        assert_eq!(shown, wanted, "README.md: copy this row of the table anew");
    }
    assert_eq!(table, config::markdown_table(), "rows are missing or left");
}

#[test]
fn every_command_is_mentioned() {
    let (text, help) = (readme(), help());
    let commands: Vec<&str> = section(&help, "Commands:")
        .into_iter()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        let mentioned = ["`", " ", ","].iter().any(|end| {
            text.contains(&format!("| `{command}{end}"))
                || text.contains(&format!("`, `{command}{end}"))
        });
        assert!(
            mentioned,
            "README.md: `{command}` is not in the table of commands"
        );
    }
}

#[test]
fn every_exit_code_is_explained() {
    let (text, help) = (readme(), help());
    let codes = section(&help, "Exit codes:");
    assert!(codes.len() > 5, "{codes:?}");
    for line in codes {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        let row = format!("| {code} | {meaning} |");
        assert!(text.contains(&row), "README.md: no row `{row}`");
    }
}

#[test]
fn what_documents_link_to_is_there() {
    for document in DOCUMENTS {
        let path = root().join(document);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{document}: {error}"));
        for target in links(&text) {
            let file = target.split('#').next().unwrap_or_default();
            let there = path.parent().unwrap().join(file).exists();
            assert!(there, "{document}: `{target}` leads nowhere");
        }
    }
}

/// Targets of `[text](target)` inside the repository.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .collect()
}

#[test]
fn links_are_found() {
    let text = "[a](b.md) and [c](https://x) and ![d](e/f.png#g)";
    assert_eq!(links(text), ["b.md", "e/f.png#g"]);
}
