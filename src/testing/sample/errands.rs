//! The script of `chaos`: small errands that leave a trace each time they are run, so that one that
//! is lost or done twice shows in the history.
//!
//! An agent that is told it was interrupted looks first, as any agent should. One that is told
//! nothing of the kind runs the errand, whatever is there.
//!
//! Each errand also takes notes: lines of random digits that nobody can make a second time, in one of
//! five states of git by the errand's number (untracked, staged and then changed, a change of a tracked
//! file, untracked and forgotten at the end of the turn, ignored). No step ever takes a note away, so
//! one that is gone was taken away by somebody else.

use super::demo::merge_rule;
use crate::testing::scripted_model::{Condition, Pattern, Rule, Scenario, Step};

/// The file that errands of all workers sign, and conflict in.
pub const REGISTER: &str = "register.txt";

/// The directory of the errands' own files.
pub const ERRANDS: &str = "errands";

/// The directory of the notes.
pub const NOTES: &str = "notes";

/// What begins the line with which a note is told, before its path and its digits.
pub const NOTED: &str = "noted: ";

/// Hexadecimal digits of a note.
pub const NOTE_DIGITS: usize = 64;

/// What the repository of the errands ignores.
pub const IGNORED: &str = "__pycache__/\n*.pyc\n*.ignored\n";

/// The text of a task: plain, so that no Markdown reader changes it.
pub fn errand(id: &str, signs: bool) -> String {
    if signs {
        format!("Run errand {id} and sign the register")
    } else {
        format!("Run errand {id} in a file of its own")
    }
}

/// The subject of the errand's one commit.
pub fn errand_subject(id: &str) -> String {
    format!("errand {id}")
}

/// Repeats a command while the disk is full, for at most a minute.
const WITH_PATIENCE: &str = "for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 \
     21 22 23 24 25 26 27 28 29 30; do COMMAND && break; [ $try = 30 ] && exit 1; sleep 2; done";

const LOOK: &str = "git log --oneline -1; git status --short | head -5; sleep 0.3";

/// A try that fails, for want of room, has left what it noted where it is: each begins a file of its own.
const NOTE: &str = "{ id={{id}} && mkdir -p notes && file=notes/$id-$(date +%s%N) \
     && note() { digits=$(od -An -v -N32 -tx1 /dev/urandom | tr -d ' \\n') \
        && echo $digits >> \"$1\" && echo \"noted: $1 $digits\"; } \
     && case $((${id##*-} % 5)) in \
     0) note $file.txt ;; \
     1) note $file.txt && git add -- $file.txt && rm $file.txt && note $file.txt ;; \
     2) note notes/${id%-*}.txt ;; \
     3) note $file.left ;; \
     4) note $file.ignored ;; esac; }";

/// A Claude Code that is killed and resumed does its last command once more, by itself: what is there
/// and not committed was made by this very turn.
const RUN: &str = "{ { [ -s errands/{{id}}.txt ] && [ -n \"$(git status --short -- errands/{{id}}.txt)\" ]; } \
     || { mkdir -p errands && echo {{id}} >> errands/{{id}}.txt; }; }";

/// By what the file and the last commit say, and not by the index: a full disk, or a lock that a killed
/// git left, keeps it as it was.
const SIGN: &str = "{ [ $(grep -cx {{id}} register.txt 2>/dev/null || true) -gt \
     $(git show HEAD:register.txt 2>/dev/null | grep -cx {{id}} || true) ] 2>/dev/null \
     || echo {{id}} >> register.txt; }";

const CHECK: &str = "sleep 0.4; cat errands/{{id}}.txt";

const COMMIT: &str = "{ git add -A -- errands \
     && { [ ! -e register.txt ] || git add -- register.txt; } \
     && { git diff --cached --quiet -- errands register.txt \
     || git commit -q -m 'errand '{{id}}; } \
     && git add -A -- . ':!*.left' \
     && { git diff --cached --quiet || git commit -q -m 'notes of '{{id}}; }; }";

/// What an interrupted agent does first: is it done? If not, what is half done is taken back.
const LOOK_AGAIN: &str = "if git log --format=%s | grep -qx 'errand '{{id}}; then echo 'state: done'; \
     else rm -f .git/index.lock errands/{{id}}.txt; git reset -q -- errands; \
     if git cat-file -e HEAD:register.txt 2>/dev/null; then git checkout -q HEAD -- register.txt; \
     else git rm -q -f --cached --ignore-unmatch -- register.txt; rm -f register.txt; fi; echo 'state: to do'; fi";

/// What is staged first: it may differ from what is in the tree.
const LEFTOVERS: &str = "{ git diff --cached --quiet || git commit -q -m 'What was staged'; } \
     && git add -A -- . && { git diff --cached --quiet \
     || git commit -q -m 'What was left'; }; git status --short";

/// What the scripted model does for errands, and for conflicts between them.
pub fn errands_script() -> Scenario {
    let mut rules = vec![merge_rule()];
    for (name, text, signs) in [
        ("signed", "Run errand {id:word} and sign", true),
        ("own", "Run errand {id:word} in a file", false),
    ] {
        // Both are constants that a test reads.
        let Ok(pattern) = Pattern::new(text) else {
            continue;
        };
        let task = Condition::Text(pattern);
        let mut again = vec![Step::bash(LOOK_AGAIN, "See what is done of it")];
        again.push(Step::if_contains(
            "state: done",
            vec![Step::say("Errand {{id}} was done already.")],
            run_steps(signs),
        ));
        // Asked to mend what it said was done: done once it stays, and what is left is committed.
        let mut mend = vec![Step::bash(LOOK_AGAIN, "See what is done of it")];
        mend.push(Step::if_contains(
            "state: done",
            vec![
                Step::bash(LEFTOVERS, "Commit what is left"),
                Step::say("Errand {{id}} was done already."),
            ],
            run_steps(signs),
        ));
        rules.push(Rule {
            name: format!("{name} mended"),
            when: vec![Condition::text("You said that this is done"), task.clone()],
            steps: mend,
            finally: String::new(),
        });
        rules.push(Rule {
            name: format!("{name} again"),
            when: vec![Condition::text("You were interrupted"), task.clone()],
            steps: again,
            finally: String::new(),
        });
        let mut steps = vec![Step::bash(LOOK, "Look around")];
        steps.extend(run_steps(signs));
        rules.push(Rule {
            name: name.to_owned(),
            when: vec![task],
            steps,
            finally: String::new(),
        });
    }
    rules.push(Rule {
        name: "leftovers".to_owned(),
        when: vec![Condition::text("ended with uncommitted changes")],
        steps: vec![Step::bash(LEFTOVERS, "Commit what is left")],
        finally: "Committed.".to_owned(),
    });
    Scenario {
        rules,
        ..Scenario::default()
    }
}

fn run_steps(signs: bool) -> Vec<Step> {
    let patiently = |command: &str| WITH_PATIENCE.replace("COMMAND", command);
    let mut steps = vec![
        Step::bash(&patiently(NOTE), "Take notes"),
        Step::bash(&patiently(RUN), "Run the errand"),
    ];
    if signs {
        steps.push(Step::bash(&patiently(SIGN), "Sign the register"));
    }
    steps.push(Step::bash(CHECK, "Check it"));
    steps.push(Step::bash(&patiently(COMMIT), "Commit it"));
    steps.push(Step::if_error(
        vec![Step::say("Errand {{id}} could not be committed.")],
        vec![Step::say("Errand {{id}} is done.")],
    ));
    steps
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::testing::scripted_model::{
        Answer, Block, Conversation, ModelRequest, Script as _, ToolResult,
    };

    /// Plays a turn with a shell in the place of Claude Code; returns its last words.
    fn play(checkout: &Path, instruction: &str) -> String {
        play_all(checkout, instruction).0
    }

    /// With what its commands printed.
    fn play_all(checkout: &Path, instruction: &str) -> (String, String) {
        let mut conversation = Conversation {
            ordinal: 1,
            instruction: Some(instruction.to_owned()),
            results: Vec::new(),
        };
        loop {
            let request = ModelRequest {
                conversation: conversation.clone(),
                ..ModelRequest::default()
            };
            let Answer::Turn(turn) = errands_script().answer(&request) else {
                panic!("an error");
            };
            let mut said = String::new();
            let mut called = false;
            for block in turn.blocks {
                match block {
                    Block::Text(text) => said = text,
                    Block::ToolUse { input, .. } => {
                        called = true;
                        let command = input["command"].as_str().unwrap();
                        let ran = Command::new("bash")
                            .args(["-c", command])
                            .current_dir(checkout)
                            .output()
                            .unwrap();
                        conversation.results.push(ToolResult {
                            text: String::from_utf8_lossy(&ran.stdout).into_owned(),
                            is_error: !ran.status.success(),
                        });
                    }
                }
            }
            if !called {
                let printed = conversation.results.iter().map(|result| &*result.text);
                return (said, printed.collect());
            }
        }
    }

    fn git(checkout: &Path, args: &[&str]) -> String {
        let ran = Command::new("git")
            .args(args)
            .current_dir(checkout)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{args:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    fn checkout() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        git(path, &["init", "-q", "-b", "main"]);
        git(path, &["config", "user.name", "Test"]);
        git(path, &["config", "user.email", "test@localhost"]);
        git(path, &["commit", "-q", "--allow-empty", "-m", "First"]);
        directory
    }

    #[test]
    fn an_errand_that_is_told_twice_shows_and_one_told_again_does_not() {
        for signs in [false, true] {
            let directory = checkout();
            let path = directory.path();
            let text = errand("w1-1", signs);
            assert_eq!(play(path, &text), "Errand w1-1 is done.");
            let again = format!("You were interrupted, look.\n\n{text}");
            assert_eq!(play(path, &again), "Errand w1-1 was done already.");
            let mend =
                format!("You said that this is done.\n\nTask t ({text}):\n- uncommitted: left");
            std::fs::write(path.join("left"), "left\n").unwrap();
            assert_eq!(play(path, &mend), "Errand w1-1 was done already.");
            assert_eq!(git(path, &["status", "--short"]), "");
            let log = git(path, &["log", "--format=%s"]);
            assert_eq!(log.matches(&errand_subject("w1-1")).count(), 1, "{log}");
            play(path, &text);
            let log = git(path, &["log", "--format=%s"]);
            assert_eq!(log.matches(&errand_subject("w1-1")).count(), 2, "{log}");
            assert_eq!(git(path, &["status", "--short"]), "");
        }
    }

    /// Digits of the notes in some text, by their path.
    fn noted(text: &str) -> Vec<(String, String)> {
        let notes = text.lines().filter_map(|line| line.strip_prefix(NOTED));
        let split = |note: &str| {
            note.split_once(' ')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        };
        notes.filter_map(split).collect()
    }

    #[test]
    fn notes_are_taken_in_every_state_and_stay_whatever_comes() {
        let directory = checkout();
        let path = directory.path();
        std::fs::write(path.join(".gitignore"), IGNORED).unwrap();
        git(path, &["add", ".gitignore"]);
        git(path, &["commit", "-q", "-m", "Ignore"]);
        let mut all = Vec::new();
        // Each is begun, cut off after its first command, and told again.
        for number in 5..10 {
            let id = format!("w1-{number}");
            let Step::Bash { command, .. } = &run_steps(false)[0] else {
                panic!("no command");
            };
            let ran = Command::new("bash")
                .args(["-c", &command.replace("{{id}}", &id)])
                .current_dir(path)
                .output()
                .unwrap();
            all.extend(noted(&String::from_utf8_lossy(&ran.stdout)));
            let text = errand(&id, number % 2 == 0);
            let again = format!("You were interrupted, look.\n\n{text}");
            all.extend(noted(&play_all(path, &again).1));
        }
        let kinds = |end: &str| all.iter().filter(|(path, _)| path.ends_with(end)).count();
        assert_eq!(
            (kinds(".txt"), kinds(".left"), kinds(".ignored")),
            (8, 2, 2)
        );
        let status = git(path, &["status", "--short"]);
        assert_eq!(status.lines().count(), 2, "{status}");
        assert!(
            status.lines().all(|line| line.contains(".left")),
            "{status}"
        );
        let there = |ignored: bool| {
            let mut text = git(path, &["log", "-p", "--format="]);
            for file in std::fs::read_dir(path.join(NOTES)).unwrap() {
                let file = file.unwrap().path();
                if ignored || file.extension().is_none_or(|end| end != "ignored") {
                    text.push_str(&std::fs::read_to_string(file).unwrap());
                }
            }
            all.iter()
                .filter(|(_, digits)| text.contains(digits.as_str()))
                .count()
        };
        assert_eq!((there(true), there(false)), (all.len(), all.len() - 2));
        let (_, digits) = &all[0];
        assert_eq!(digits.len(), NOTE_DIGITS);
        let mend = format!(
            "You said that this is done.\n\nTask t ({}):\n",
            errand("w1-8", true)
        );
        play(path, &mend);
        assert_eq!(git(path, &["status", "--short"]), "");
        assert_eq!(there(true), all.len());
    }

    #[test]
    fn a_command_that_is_repeated_changes_nothing() {
        let directory = checkout();
        let path = directory.path();
        for signs in [false, true] {
            let id = if signs { "w1-2" } else { "w1-1" };
            for step in run_steps(signs) {
                let Step::Bash { command, .. } = step else {
                    continue;
                };
                for _ in 0..2 {
                    let command = command.replace("{{id}}", id);
                    let ran = Command::new("bash")
                        .args(["-c", &command])
                        .current_dir(path)
                        .output()
                        .unwrap();
                    assert!(ran.status.success(), "{command}: {ran:?}");
                }
            }
            let own = std::fs::read_to_string(path.join(format!("errands/{id}.txt"))).unwrap();
            assert_eq!(own, format!("{id}\n"));
        }
        let register = std::fs::read_to_string(path.join(REGISTER)).unwrap();
        assert_eq!(register, "w1-2\n");
        let log = git(path, &["log", "--format=%s"]);
        assert_eq!(log.matches("errand").count(), 2, "{log}");
    }

    #[test]
    fn half_an_errand_is_taken_back_and_run_once() {
        let directory = checkout();
        let path = directory.path();
        play(path, &errand("w1-1", true));
        std::fs::write(path.join("errands/w1-2.txt"), "w1-2\n").unwrap();
        std::fs::write(path.join(REGISTER), "w1-1\nw1-2\n").unwrap();
        git(path, &["add", "errands"]);
        let again = format!("You were interrupted, look.\n\n{}", errand("w1-2", true));
        assert_eq!(play(path, &again), "Errand w1-2 is done.");
        let own = std::fs::read_to_string(path.join(ERRANDS).join("w1-2.txt")).unwrap();
        assert_eq!(own, "w1-2\n");
        let register = std::fs::read_to_string(path.join(REGISTER)).unwrap();
        assert_eq!(register, "w1-1\nw1-2\n");
        let log = git(path, &["log", "--format=%s"]);
        assert_eq!(log.matches("errand").count(), 2, "{log}");
    }
}
