//! The script of `demo`: how the manager plans and merges, and how the workers build.
//!
//! Every rule looks at the checkout before it changes anything, and every step may come twice: a task
//! may be given again after a restart, and a Claude Code that is killed forgets what it did in the
//! last tenths of a second.

use std::fmt::Write as _;

use super::features::{AtFirst, FEATURES, Feature, WORKERS};
use crate::testing::scripted_model::{Condition, Pattern, Rule, Scenario, Step};

const DIRECTION: &str = "PROJECT_DIRECTION.md";
const NOTHING_TO_PLAN: &str =
    "Everything in PROJECT_DIRECTION.md is planned or done, so I leave the task lists as they are.";

/// The subject of the commit with the lists.
const PLANNED: &str = "Plan the features of the direction";

/// Tells whether there is anything left to plan. Lists that were written and not committed, because
/// the manager was cut off there, are written again.
const LOOK_AT_PLAN: &str = "ls; grep -n '^- \\[' WORKER_*_TASK_LIST.md 2>/dev/null
if git log --format=%s | grep -qx 'Plan the features of the direction' || [ -e textstats/sentences.py ]; then
  echo 'state: planned'
elif grep -qs '^- \\[' WORKER_*_TASK_LIST.md && [ -z \"$(git status --porcelain -- 'WORKER_*_TASK_LIST.md')\" ]; then
  echo 'state: planned'
else
  echo 'state: new'
fi";

/// Keeps both sides of every conflict, in the order ours, theirs; drops the base that diff3 shows.
/// An item of a task list stands there once, ticked if it is on either side. Made in `/tmp`, so that
/// a full disk of the checkout is waited for and costs nothing.
const KEEP_BOTH_SIDES: &str = r#"set -e
resolved=$(mktemp)
git diff --name-only --diff-filter=U | while IFS= read -r file; do
  awk '/^<<<<<<< / {next}
       index($0, "|||||||") == 1 {base = 1; next}
       /^=======$/ {base = 0; next}
       /^>>>>>>> / {next}
       !base' "$file" > "$resolved"
  case $file in WORKER_*_TASK_LIST.md)
    awk 'NR == FNR {item = $0; if (sub(/^- \[x\] /, "", item)) done[item] = 1; next}
         {item = $0}
         !sub(/^- \[[ x]\] /, "", item) {print; next}
         seen[item]++ {next}
         {print "- [" (item in done ? "x" : " ") "] " item}' "$resolved" "$resolved" > "$resolved.list"
    mv "$resolved.list" "$resolved" ;;
  esac
  until cat "$resolved" > "$file"; do sleep 2; done
  git add -- "$file"
done
git diff --cached --stat"#;

/// Shows the change and takes out a line that stands twice in a row: an edit that is repeated inserts
/// its lines next to the first ones.
const REVIEW: &str = r"awk 'NF && $0 == last {next} {last = $0; print}' PATH > .reviewed
cmp -s .reviewed PATH || cat .reviewed > PATH
rm .reviewed
git diff -- PATH";

/// What is staged, by a turn that was cut off, and task lists that were ticked meanwhile are committed
/// first: a merge refuses to start over them. One that stops, now or in an attempt before, leaves
/// `MERGE_HEAD` behind.
const MERGE: &str = r#"[ -e "$(git rev-parse --git-path MERGE_HEAD)" ] || git diff --cached --quiet ||
  git commit -q -m 'Keep what was staged'
[ -e "$(git rev-parse --git-path MERGE_HEAD)" ] ||
  [ -z "$(git status --porcelain -- 'WORKER_*_TASK_LIST.md')" ] ||
  git commit -q -m 'Keep the task lists' -- 'WORKER_*_TASK_LIST.md'
git merge --no-edit {{sha}} || {
  [ -e "$(git rev-parse --git-path MERGE_HEAD)" ] && echo 'state: merging'
  false
}"#;

const COMMIT_MERGE: &str =
    r#"[ ! -e "$(git rev-parse --git-path MERGE_HEAD)" ] || git commit --no-edit"#;

/// Claude Code shows a repository without an author as a failed commit.
const SET_AUTHOR: &str =
    "git config user.name Demo && git config user.email demo@orchestrator.invalid";

/// The name of a worker's task list; workers count from 1.
pub fn list_file(worker: u32) -> String {
    format!("WORKER_{worker}_TASK_LIST.md")
}

/// What the scripted model does in the demo, for the manager and all workers.
pub fn demo_script() -> Scenario {
    // A worker's task may name the direction and its list as well; the workers it does not speak of.
    // What is sent back holds the title of its task, and so would fit the task's own rule.
    let mend = || FEATURES.iter().filter_map(mend_rule);
    let mut rules: Vec<Rule> = mend().map(after_merge).collect();
    rules.extend([
        merge_rule(),
        plan_rule(&["plan again"]),
        plan_rule(&[DIRECTION, "WORKER_1_TASK_LIST.md", "3 workers"]),
    ]);
    rules.extend(mend());
    rules.extend(FEATURES.iter().map(feature_rule));
    rules.push(plan_rule(&[DIRECTION, "_TASK_LIST.md"]));
    Scenario {
        rules,
        ..Scenario::default()
    }
}

/// Merges first: their text may name anything else.
pub(super) fn merge_rule() -> Rule {
    let forms = ["", "--no-ff ", "--no-edit ", "--no-ff --no-edit "];
    let patterns = forms
        .iter()
        .filter_map(|form| Pattern::new(&format!("git merge {form}{{sha:hex}}")).ok());
    let resolve = vec![
        Step::say("Both sides belong in the result. Let me look at what they changed."),
        Step::bash("git status --short && git diff", "Show the conflict"),
        Step::bash(KEEP_BOTH_SIDES, "Keep the lines of both sides"),
        Step::bash("make test", "Run the tests on the resolution"),
        Step::if_error(
            vec![Step::say(
                "The tests fail on the resolution, so I do not commit it.",
            )],
            commit(
                COMMIT_MERGE,
                "Commit the merge",
                "I merged {{sha}}, kept both sides and the tests pass.",
            ),
        ),
    ];
    let merge = Step::bash(MERGE, "Merge the commit");
    let mut steps = vec![
        Step::say("I merge the commit and see what conflicts."),
        merge.clone(),
        Step::if_contains(
            "tell me who you are",
            vec![Step::bash(SET_AUTHOR, "Name an author"), merge],
            Vec::new(),
        ),
    ];
    steps.push(Step::if_error(
        vec![Step::if_contains(
            "state: merging",
            resolve,
            vec![Step::say("The merge of {{sha}} could not be started.")],
        )],
        vec![
            Step::bash("make test", "Run the tests on the merge"),
            Step::if_error(
                vec![Step::say("I merged {{sha}}, but the tests fail.")],
                vec![Step::say(
                    "I merged {{sha}} without a conflict and the tests pass.",
                )],
            ),
        ],
    ));
    rule(
        "merge",
        vec![Condition::Any(patterns.map(Condition::Text).collect())],
        steps,
    )
}

/// Planning, for an instruction that holds all these texts.
fn plan_rule(texts: &[&str]) -> Rule {
    let when = texts.iter().map(|text| Condition::text(text)).collect();
    rule("plan", when, plan_steps())
}

/// However it is asked, the manager looks at the checkout and plans only what is not planned.
fn plan_steps() -> Vec<Step> {
    let mut write = vec![Step::say(
        "The three workers can build these features side by side. I write their task lists.",
    )];
    for worker in 1..=WORKERS {
        write.extend(write_over(&list_file(worker), &list(worker)));
    }
    write.extend(commit(
        &commit_command("WORKER_*_TASK_LIST.md", PLANNED),
        "Commit the task lists",
        "The three task lists are written and committed.",
    ));
    vec![
        Step::say("I read the direction first."),
        Step::read(DIRECTION),
        Step::bash(LOOK_AT_PLAN, "See what is planned and built"),
        Step::if_contains("state: planned", vec![Step::say(NOTHING_TO_PLAN)], write),
    ]
}

fn list(worker: u32) -> String {
    let mut text = format!("# Worker {worker}\n\n");
    for feature in FEATURES.iter().filter(|feature| feature.worker == worker) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "- [ ] {}", feature.item);
    }
    text
}

/// What its worker does when it is told the task.
fn feature_rule(feature: &Feature) -> Rule {
    let steps = match feature.at_first {
        AtFirst::Careful | AtFirst::Careless { .. } => look_and_build(feature),
        AtFirst::OnlySaysSo => vec![
            Step::bash("ls textstats; git log --oneline -3", "Look at the project"),
            Step::say(&done(feature)),
        ],
    };
    rule(feature.name, vec![Condition::text(feature.item)], steps)
}

/// What its worker does when that was not believed.
fn mend_rule(feature: &Feature) -> Option<Rule> {
    let (lack, steps) = match feature.at_first {
        AtFirst::Careful => return None,
        AtFirst::OnlySaysSo => {
            let mut steps = vec![Step::say("There is no commit of mine for it: I do it now.")];
            steps.extend(look_and_build(feature));
            ("There is no new commit", steps)
        }
        AtFirst::Careless {
            right,
            wrong,
            mend_message,
        } => (
            "does not pass",
            mend_steps(feature, right, wrong, mend_message),
        ),
    };
    let when = vec![
        Condition::text("You said that this is done"),
        Condition::text(feature.item),
        Condition::text(lack),
    ];
    Some(rule(&format!("{} mended", feature.name), when, steps))
}

/// The same where something else was sent back with it that does not merge.
fn after_merge(mend: Rule) -> Rule {
    let merge = merge_rule();
    Rule {
        name: format!("merge, {}", mend.name),
        when: mend.when.into_iter().chain(merge.when).collect(),
        steps: merge.steps.into_iter().chain(mend.steps).collect(),
        finally: String::new(),
    }
}

/// Steps that may have been taken before change nothing: then there is nothing to edit and to commit.
fn mend_steps(feature: &Feature, right: &str, wrong: &str, message: &str) -> Vec<Step> {
    let mut steps = vec![
        Step::say("A gate fails with my work. I see what it is."),
        Step::bash("make test", "See what fails"),
    ];
    let module = feature.files().first().map_or("", |(path, _)| *path);
    steps.push(Step::read(module));
    steps.push(Step::edit(module, wrong, right));
    steps.push(Step::bash("make test", "Run the tests"));
    steps.push(Step::if_error(
        vec![Step::say("The tests still fail, so I do not commit this.")],
        commit(
            &commit_command("textstats tests", message),
            "Commit the mended code",
            &format!("{message}: mended, tested and committed."),
        ),
    ));
    steps
}

fn done(feature: &Feature) -> String {
    format!("{}: built, tested and committed.", feature.commit_message)
}

fn look_and_build(feature: &Feature) -> Vec<Step> {
    let message = feature.commit_message;
    let look = format!(
        "git log --oneline -3; ls textstats tests; git status --short -- textstats tests
if git log --format=%s | grep -qx '{message}'; then
  echo 'state: built'
elif [ -n \"$(git status --porcelain -- textstats tests)\" ]; then
  echo 'state: half done'
fi"
    );
    let built = vec![
        Step::bash("make test", "Run the tests"),
        Step::say("This feature is committed already; I ran the tests again."),
    ];
    let mut build = vec![Step::if_contains(
        "state: half done",
        vec![
            Step::say("Somebody was cut off here. I put the half-done work aside and start again."),
            Step::bash(
                "git stash push --include-untracked -m 'Half done' -- textstats tests",
                "Put the half-done work aside",
            ),
        ],
        Vec::new(),
    )];
    build.extend(build_steps(feature));
    vec![
        Step::say("I look at the project first."),
        Step::bash(&look, "See the project"),
        Step::if_contains("state: built", built, build),
    ]
}

/// New files, edits, tests, commit.
fn build_steps(feature: &Feature) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (path, text) in feature.files() {
        let text = match feature.at_first {
            AtFirst::Careless { right, wrong, .. } => text.replace(right, wrong),
            AtFirst::Careful | AtFirst::OnlySaysSo => text.to_owned(),
        };
        steps.push(Step::write(path, &text));
    }
    let mut read: Vec<&str> = Vec::new();
    for edit in feature.edits {
        if !read.contains(&edit.path) {
            steps.push(Step::read(edit.path));
            read.push(edit.path);
        }
        steps.push(Step::edit(edit.path, edit.old, edit.new));
    }
    for path in read {
        let command = REVIEW.replace("PATH", path);
        steps.push(Step::bash(&command, "Review the change"));
    }
    let commit = commit(
        &commit_command("textstats tests", feature.commit_message),
        "Commit the feature",
        &done(feature),
    );
    if matches!(feature.at_first, AtFirst::Careless { .. }) {
        steps.extend(commit);
        return steps;
    }
    steps.push(Step::bash("make test", "Run the tests"));
    steps.push(Step::if_error(
        vec![Step::say("The tests fail, so I do not commit this.")],
        commit,
    ));
    steps
}

/// Writes a file even where one is that was not read before, which Claude Code refuses at first.
fn write_over(path: &str, text: &str) -> Vec<Step> {
    let write = Step::write(path, text);
    vec![
        write.clone(),
        Step::if_error(vec![Step::read(path), write], Vec::new()),
    ]
}

/// Adds the paths and commits, unless that was done already.
fn commit_command(paths: &str, message: &str) -> String {
    format!(
        "git add -- {paths} && if git diff --cached --quiet; then git log -1 --oneline; else git commit -m '{message}'; fi"
    )
}

/// Commits, naming an author when git has none; then says `done`.
fn commit(command: &str, description: &str, done: &str) -> Vec<Step> {
    let commit = Step::bash(command, description);
    vec![
        commit.clone(),
        Step::if_contains(
            "tell me who you are",
            vec![Step::bash(SET_AUTHOR, "Name an author"), commit],
            Vec::new(),
        ),
        Step::if_error(vec![Step::say("The commit failed.")], vec![Step::say(done)]),
    ]
}

fn rule(name: &str, when: Vec<Condition>, steps: Vec<Step>) -> Rule {
    Rule {
        name: name.to_owned(),
        when,
        steps,
        finally: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::scripted_model::{
        Answer, Block, Conversation, ModelRequest, Script as _, ToolResult,
    };

    /// The name of the first rule that a text fits, seen by its first words.
    fn opening(instruction: &str) -> String {
        let request = ModelRequest {
            conversation: Conversation {
                instruction: Some(instruction.to_owned()),
                ..Conversation::default()
            },
            ..ModelRequest::default()
        };
        let Answer::Turn(turn) = demo_script().answer(&request) else {
            panic!("an error");
        };
        let Block::Text(text) = &turn.blocks[0] else {
            panic!("no words");
        };
        text.clone()
    }

    /// Places of the features that are not done at first.
    const RED: usize = 6;
    const FALSE: usize = 1;

    /// As the supervisor words it.
    fn sent_back(feature: usize, lack: &str) -> String {
        let item = FEATURES[feature].item;
        format!(
            "You said that this is done, and something is still missing:\n\nTask t ({item}):\n- {lack}\n"
        )
    }

    /// Plays a turn with a shell in the place of Claude Code; returns its last words.
    fn play(checkout: &std::path::Path, instruction: &str) -> String {
        let mut conversation = Conversation {
            instruction: Some(instruction.to_owned()),
            ..Conversation::default()
        };
        loop {
            let request = ModelRequest {
                conversation: conversation.clone(),
                ..ModelRequest::default()
            };
            let Answer::Turn(turn) = demo_script().answer(&request) else {
                panic!("an error");
            };
            let mut said = String::new();
            let mut called = false;
            for block in turn.blocks {
                let (name, input) = match block {
                    Block::Text(text) => {
                        said = text;
                        continue;
                    }
                    Block::ToolUse { name, input } => (name, input),
                };
                called = true;
                let (text, is_error) = use_tool(checkout, &name, &input);
                conversation.results.push(ToolResult { text, is_error });
            }
            if !called {
                return said;
            }
        }
    }

    fn use_tool(
        checkout: &std::path::Path,
        name: &str,
        input: &serde_json::Value,
    ) -> (String, bool) {
        let word = |key: &str| input[key].as_str().unwrap_or_default();
        let path = checkout.join(word("file_path"));
        match name {
            "Bash" => {
                let ran = std::process::Command::new("bash")
                    .args(["-c", word("command")])
                    .current_dir(checkout)
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&ran.stdout).into_owned();
                (text, !ran.status.success())
            }
            "Write" => {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, word("content")).unwrap();
                (String::new(), false)
            }
            "Edit" => {
                let text = std::fs::read_to_string(&path).unwrap();
                let found = text.contains(word("old_string"));
                let text = text.replace(word("old_string"), word("new_string"));
                std::fs::write(path, text).unwrap();
                (String::new(), !found)
            }
            _ => (String::new(), false),
        }
    }

    #[test]
    fn what_is_only_said_to_be_done_is_done_when_it_comes_back_and_then_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let shell =
            |command: &str| use_tool(path, "Bash", &serde_json::json!({"command": command}));
        let made = shell(
            "git init -q -b main; git config user.name T; git config user.email t@localhost
             mkdir tests textstats; touch tests/__init__.py textstats/__init__.py
             printf 'test:\n\ttrue\n' > Makefile; git add .; git commit -qm First",
        );
        assert!(!made.1);
        let subjects = || shell("git log --format=%s; git status --short").0;
        let only_said = play(path, FEATURES[FALSE].item);
        assert_eq!(subjects(), "First\n");
        for _ in 0..2 {
            play(path, &sent_back(FALSE, "There is no new commit of yours"));
            assert_eq!(subjects(), "List the most frequent words\nFirst\n");
        }
        let merge = "run `git merge 0123456789abcdef0123456789abcdef01234567`";
        let both = format!("{}- {merge}\n", sent_back(FALSE, "There is no new commit"));
        let said = play(path, &both);
        assert!(said.contains("committed already"), "{said}");
        assert_eq!(only_said, done(&FEATURES[FALSE]));

        let right = |wanted: bool| {
            let module = std::fs::read_to_string(path.join("textstats/longest.py")).unwrap();
            assert_eq!(module.contains("max("), wanted, "{module}");
        };
        play(path, FEATURES[RED].item);
        right(false);
        for _ in 0..2 {
            play(path, &sent_back(RED, "your work does not pass: test"));
            right(true);
            assert_eq!(subjects().lines().count(), 4, "{}", subjects());
        }
    }

    #[test]
    fn an_instruction_finds_its_rule_whatever_else_it_names() {
        let item = FEATURES[0].item;
        let sha = "0a".repeat(20);
        for (instruction, first) in [
            (
                format!("Your task: {item}. See PROJECT_DIRECTION.md, WORKER_1_TASK_LIST.md."),
                "I look",
            ),
            (
                "You lead 3 workers: PROJECT_DIRECTION.md, WORKER_1_TASK_LIST.md".to_owned(),
                "I read",
            ),
            (
                format!("Done: {item}. Read PROJECT_DIRECTION.md and plan again."),
                "I read",
            ),
            (
                format!("Conflict in {item}:\n    git merge {sha}\n"),
                "I merge",
            ),
            (format!("Run `git merge --no-ff {sha}`."), "I merge"),
            (sent_back(0, &format!("run `git merge {sha}`")), "I merge"),
            (sent_back(FALSE, "There is no new commit"), "There is no"),
            (sent_back(RED, "does not pass: test"), "A gate fails"),
            ("What now?".to_owned(), "Done."),
        ] {
            assert!(opening(&instruction).starts_with(first), "{instruction}");
        }
    }

    #[test]
    fn the_script_survives_a_trip_through_json() {
        let script = demo_script();
        let json = serde_json::to_string(&script).unwrap();
        assert_eq!(Scenario::from_json(&json).unwrap(), script);
    }

    #[test]
    fn a_review_takes_out_what_an_edit_did_twice_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.py");
        let text = "import a\n\n\nx = [\n    1,\n]\n";
        for before in [
            text.to_owned(),
            text.replace("    1,\n", "    1,\n    1,\n"),
        ] {
            std::fs::write(&file, before).unwrap();
            let ran = std::process::Command::new("sh")
                .args(["-c", &REVIEW.replace("PATH", "report.py")])
                .current_dir(dir.path())
                .output();
            ran.unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        assert!(!dir.path().join(".reviewed").exists());
    }

    #[test]
    fn both_sides_are_kept_and_an_item_of_a_list_stands_there_once() {
        let dir = tempfile::tempdir().unwrap();
        let run = |script: &str| {
            let ran = std::process::Command::new("sh")
                .args(["-c", script])
                .current_dir(dir.path())
                .output()
                .unwrap();
            assert!(ran.status.success(), "{ran:?}");
        };
        run("git init -q -b main; git config user.name T; git config user.email t@localhost
             printf -- '- [ ] a\\n' > WORKER_1_TASK_LIST.md; printf 'a\\n' > f; git add .; git commit -qm 1
             git switch -qc side; printf -- '- [ ] a\\n- [ ] b\\n' > WORKER_1_TASK_LIST.md
             printf 'a\\nb\\n' > f; git commit -qam 2; git switch -q main
             printf -- '- [x] a\\n- [ ] c\\n' > WORKER_1_TASK_LIST.md; printf 'a\\nc\\n' > f
             git commit -qam 3; ! git merge -q side");
        run(KEEP_BOTH_SIDES);
        let text = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(text("WORKER_1_TASK_LIST.md"), "- [x] a\n- [ ] c\n- [ ] b\n");
        assert_eq!(text("f"), "a\nc\nb\n");
    }

    #[test]
    fn the_look_at_the_plan_knows_the_commit_of_the_plan() {
        assert!(LOOK_AT_PLAN.contains(&format!("'{PLANNED}'")));
    }

    #[test]
    fn the_lists_are_checklists_of_all_features() {
        let lists: String = (1..=WORKERS).map(list).collect();
        assert_eq!(lists.matches("- [ ] ").count(), FEATURES.len());
        assert!(lists.starts_with("# Worker 1\n\n- [ ] "));
    }
}
