use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A config directory with this file, and inputs of an ordinary user.
fn fleet(text: &str) -> (TempDir, Inputs) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE_NAME), text).unwrap();
    let inputs = Inputs {
        home: Some("/home/me".into()),
        uid: 1234,
        ..Inputs::default()
    };
    (directory, inputs)
}

const MINIMAL: &str = r#"{
  "repositoryUrl": "https://github.com/org/repo.git",
  "workerCount": 3,
  "claudeConfigs": "~/claude-configs/*.json"
}"#;

fn problems(text: &str) -> Vec<Problem> {
    let (directory, inputs) = fleet(text);
    load(directory.path(), &inputs).unwrap_err().0
}

/// `line:column key` of each problem.
fn spots(problems: &[Problem]) -> Vec<String> {
    let spot = |problem: &Problem| match &problem.place {
        Place::File { line, column, .. } => format!(
            "{}:{} {}",
            line.unwrap_or(0),
            column.unwrap_or(0),
            problem.key.as_deref().unwrap_or("-")
        ),
        other => format!("{other} {}", problem.key.as_deref().unwrap_or("-")),
    };
    problems.iter().map(spot).collect()
}

/// [`MINIMAL`] with more keys.
fn with(more: &str) -> String {
    MINIMAL.replace("\n}", &format!(",\n  {more}\n}}"))
}

#[test]
fn three_keys_are_enough_and_the_rest_has_the_stated_defaults() {
    let (directory, inputs) = fleet(MINIMAL);
    let loaded = load(directory.path(), &inputs).unwrap();
    let shown = rows(&loaded);
    let cpus = shown
        .iter()
        .find(|row| row.key == "container.cpus")
        .unwrap();
    assert_eq!(cpus.value_text(), "2");
    let config = loaded.config;
    assert_eq!(config.branch, "main");
    assert_eq!(config.worker_count, 3);
    assert_eq!(config.claude_configs, "/home/me/claude-configs/*.json");
    assert!(config.project.as_str().starts_with("repo-"));
    let state = format!("/home/me/.local/state/orchestrator/{}", config.project);
    assert_eq!(config.state_directory, Path::new(&state));
    assert_eq!(config.model, "sonnet");
    assert_eq!(config.claude_version, "2.1.197");
    assert_eq!(config.image, ImageChoice::Bundled);
    assert_eq!(config.container.uid, 1234);
    assert_eq!(config.container.memory, 4 << 30);
    assert_eq!(config.container.milli_cpus(), 2000);
    assert_eq!(config.container.pids, 2048);
    assert_eq!(config.container.tmp_size, 1 << 30);
    assert_eq!(config.gates, []);
    assert_eq!(config.merge_by, MergeBy::Train);
    assert_eq!(config.merge_batch, 5);
    assert_eq!(config.api_port, 0);
    assert_eq!(config.planning.empty_rounds, 2);
    assert_eq!(config.planning.cool_down.as_secs(), 60);
    assert_eq!(config.fetch_interval.as_secs(), 30);
    assert!(config.push);
    assert_eq!(config.tasks.attempts, 3);
    assert_eq!(config.tasks.lease.as_secs(), 6 * 3600);
    assert_eq!(config.restart.burst, 5);
    assert_eq!(config.restart.window.as_secs(), 600);
    assert_eq!(config.restart.backoff.as_secs(), 2);
    assert_eq!(config.restart.maximum_backoff.as_secs(), 120);
    assert_eq!(config.stop_grace.as_secs(), 20);
    assert_eq!(config.logs.level, LogLevel::Info);
    assert_eq!(config.logs.size, 10 << 20);
    assert_eq!(config.logs.files, 5);
}

#[test]
fn root_gives_its_agents_another_user_and_xdg_moves_the_state() {
    let (directory, mut inputs) = fleet(MINIMAL);
    inputs.uid = 0;
    inputs
        .environment
        .insert("XDG_STATE_HOME".into(), "/var/lib/x".into());
    let config = load(directory.path(), &inputs).unwrap().config;
    assert_eq!(config.container.uid, 1000);
    assert!(
        config
            .state_directory
            .starts_with("/var/lib/x/orchestrator")
    );
}

#[test]
fn all_problems_come_at_once_each_with_its_place() {
    let text = r#"{
  "repositoryUrl": "--upload-pack=sh",
  "workercount": 3,
  "claudeConfigs": ["a"],
  "branch": "a..b",
  "container": {"memory": 4, "cpu": 1, "cpus": 0},
  "stopGrace": "20",
  "planning": true,
  "push": "yes",
  "push": false,
  "environment": {"A": "x", "B": 1}
}"#;
    let problems = problems(text);
    assert_eq!(
        spots(&problems),
        [
            "2:20 repositoryUrl",
            "3:3 workercount",
            "4:20 claudeConfigs",
            "5:13 branch",
            "6:27 container.memory",
            "6:30 container.cpu",
            "6:48 container.cpus",
            "7:16 stopGrace",
            "8:15 planning",
            "9:11 push",
            "10:3 push",
            "11:29 environment.B",
            "0:0 workerCount",
        ]
    );
    assert_eq!(problems[1].nearest.as_deref(), Some("workerCount"));
    assert_eq!(problems[5].nearest.as_deref(), Some("container.cpus"));
    assert_eq!(problems[2].found.as_deref(), Some("an array"));
    assert!(
        problems[6]
            .allowed
            .as_deref()
            .is_some_and(|a| a.contains("0.1"))
    );
}

#[test]
fn a_problem_reads_well_and_its_json_has_the_same() {
    let (directory, inputs) = fleet(&with(r#""aplPort": 1"#));
    let problems = load(directory.path(), &inputs).unwrap_err();
    let text = problems.to_string();
    let path = directory.path().canonicalize().unwrap().join(FILE_NAME);
    let first = format!("error: {}:5:3: aplPort: unknown key\n", path.display());
    assert!(text.starts_with(&first), "{text}");
    assert!(text.contains("\n  nearest known key: apiPort\n"), "{text}");
    let json = problems.to_json();
    assert_eq!(json["problems"][0]["place"]["line"], json!(5));
    assert_eq!(json["problems"][0]["place"]["source"], json!("file"));
    assert_eq!(json["problems"][0]["nearest"], json!("apiPort"));
}

#[test]
fn a_key_in_the_wrong_section_is_led_home() {
    let problems = problems(&with(r#""tmpSize": "1GiB""#));
    assert_eq!(problems[0].nearest.as_deref(), Some("container.tmpSize"));
}

#[test]
fn later_layers_win_and_every_value_knows_its_origin() {
    let (directory, mut inputs) = fleet(&with(
        r#""branch": "file", "model": "file", "stopGrace": "1s""#,
    ));
    inputs.environment = BTreeMap::from([
        ("ORCHESTRATOR_MODEL".into(), "environment".into()),
        ("ORCHESTRATOR_STOP_GRACE".into(), "2s".into()),
        ("ORCHESTRATOR_CONTAINER_CPUS".into(), "0.5".into()),
    ]);
    inputs.overrides = vec![
        ("stopGrace".into(), "9s".into()),
        ("stopGrace".into(), "3s".into()),
        ("environment.CI".into(), "1".into()),
        ("push".into(), "false".into()),
    ];
    let loaded = load(directory.path(), &inputs).unwrap();
    assert_eq!(loaded.config.branch, "file");
    assert_eq!(loaded.config.model, "environment");
    assert_eq!(loaded.config.stop_grace.as_secs(), 3);
    assert_eq!(loaded.config.container.milli_cpus(), 500);
    assert_eq!(loaded.config.environment["CI"], "1");
    assert!(!loaded.config.push);
    let origin = |key: &str| loaded.origins[key].to_string();
    assert!(origin("branch").ends_with("orchestrator.json:5:13"));
    assert_eq!(origin("model"), "environment variable ORCHESTRATOR_MODEL");
    assert_eq!(origin("stopGrace"), "--set stopGrace");
    assert_eq!(origin("logs.level"), "default");
    let json = rows_json(&loaded);
    assert_eq!(json.as_array().map(Vec::len), Some(keys::KEYS.len()));
    assert_eq!(json[0]["origin"]["line"], json!(2));
    let rows = rows(&loaded);
    let row = |key| rows.iter().find(|row| row.key == key).unwrap();
    assert_eq!(row("container.cpus").value_text(), "0.5");
    assert_eq!(
        row("container.cpus").variable,
        "ORCHESTRATOR_CONTAINER_CPUS"
    );
    assert_eq!(row("image").value_text(), "-");
    assert_eq!(row("stopGrace").value_text(), "3s");
}

#[test]
fn layers_above_the_file_are_checked_like_it() {
    let (directory, mut inputs) = fleet(MINIMAL);
    inputs.environment = BTreeMap::from([
        ("ORCHESTRATOR_WORKER_COUNT".into(), "many".into()),
        ("ORCHESTRATOR_ENVIRONMENT".into(), "{\"A\": 1}".into()),
        ("ORCHESTRATOR_BRANCHES".into(), "x".into()),
    ]);
    inputs.overrides = vec![
        ("container.mem".into(), "1GiB".into()),
        ("environment.1".into(), "x".into()),
    ];
    let problems = load(directory.path(), &inputs).unwrap_err().0;
    assert_eq!(
        spots(&problems),
        [
            "environment variable ORCHESTRATOR_WORKER_COUNT workerCount",
            "environment variable ORCHESTRATOR_ENVIRONMENT environment.A",
            "--set container.mem container.mem",
            "--set environment.1 environment.1",
        ]
    );
    assert_eq!(problems[2].nearest.as_deref(), Some("container.memory"));
}

#[test]
fn what_is_no_readable_file_is_said_clearly() {
    let inputs = fleet("").1;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE_NAME);
    let message = |path: &Path| load(path, &inputs).unwrap_err().0[0].message.clone();
    assert_eq!(
        message(&directory.path().join("none")),
        "no such config directory"
    );
    assert_eq!(message(directory.path()), "no such file");
    fs::create_dir(&file).unwrap();
    assert_eq!(message(directory.path()), "not a regular file");
    fs::remove_dir(&file).unwrap();
    for (bytes, expected) in [
        (&b""[..], "the file is empty"),
        (b"[]", "must hold one JSON object"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"{\n \"a\xff\"", "not UTF-8"),
        (b"{} // x", "comments"),
        (b"{\"a\": 1,}", "trailing commas"),
        (b"{\"a\": 1 \"b\": 2}", "comma"),
        (b"{\"a\": \"\\x41\"}", "not valid JSON"),
        (b"{\"a\": \"\x01\"}", "not valid JSON"),
        (b"{a: 1}", "not valid JSON"),
        (b"{\"a\": 0x1}", "not valid JSON"),
        (b"{\"a\": 01}", "not valid JSON"),
        (b"{", "not valid JSON"),
    ] {
        fs::write(&file, bytes).unwrap();
        let message = message(directory.path());
        assert!(
            message.to_lowercase().contains(&expected.to_lowercase()),
            "{message}"
        );
    }
    assert_eq!(message(&file), "this is the file, not its directory");
    fs::write(&file, vec![b' '; (1 << 20) + 1]).unwrap();
    assert_eq!(message(directory.path()), "the file is too large");
    fs::write(&file, "[".repeat(100_000)).unwrap();
    assert!(message(directory.path()).starts_with("not valid JSON"));
}

#[test]
fn syntax_errors_have_line_and_column() {
    let problems = problems("{\n  \"branch\": \"x\",\n  \"model\" \"y\"\n}");
    assert_eq!(spots(&problems), ["3:11 -"]);
}

#[test]
fn image_and_dockerfile_exclude_each_other_and_the_file_must_exist() {
    let problems = problems(&with(r#""image": "a", "dockerfile": "none""#));
    let keys: Vec<_> = problems
        .iter()
        .map(|p| (p.key.as_deref(), p.message.contains("exclude")))
        .collect();
    assert_eq!(
        keys,
        [(Some("dockerfile"), true), (Some("dockerfile"), false)]
    );
    let (directory, inputs) = fleet(&with(r#""dockerfile": "Dockerfile""#));
    let path = directory.path().canonicalize().unwrap().join("Dockerfile");
    fs::write(&path, "FROM scratch").unwrap();
    let config = load(directory.path(), &inputs).unwrap().config;
    assert_eq!(config.image, ImageChoice::Dockerfile(path));
}

#[test]
fn repository_config_and_state_lie_apart() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let inputs = fleet("").1;
    let attempt = |config: &str, repository: &str, state: &str| {
        let directory = root.join(config);
        fs::create_dir_all(&directory).unwrap();
        let text = json!({
            "repositoryUrl": repository.replace("ROOT", &root.to_string_lossy()),
            "workerCount": 1, "claudeConfigs": "*.json",
            "stateDirectory": state.replace("ROOT", &root.to_string_lossy()),
        });
        fs::write(directory.join(FILE_NAME), text.to_string()).unwrap();
        let problems = load(&directory, &inputs)
            .err()
            .map(|p| p.0)
            .unwrap_or_default();
        problems
            .iter()
            .filter_map(|p| p.key.clone())
            .collect::<Vec<_>>()
    };
    assert!(attempt("a", "ROOT/r", "ROOT/s").is_empty());
    assert_eq!(attempt("r/inside", "ROOT/r", "ROOT/s"), ["repositoryUrl"]);
    assert_eq!(attempt("b", "./repo", "ROOT/s"), ["repositoryUrl"]);
    assert_eq!(
        attempt("c", "file://ROOT", "ROOT/s"),
        ["repositoryUrl", "stateDirectory"]
    );
    assert_eq!(attempt("d", "ROOT/r", "state"), ["stateDirectory"]);
    assert_eq!(
        attempt("e", "ROOT/r", "ROOT/r/.orchestrator"),
        ["stateDirectory"]
    );
    assert_eq!(
        attempt("f", "ROOT/r", "ROOT/f/orchestrator.json"),
        ["stateDirectory"]
    );
}

#[test]
fn a_config_directory_in_a_clone_of_the_repository_is_refused_naming_both() {
    let root = tempfile::tempdir().unwrap();
    let clone = root.path().canonicalize().unwrap();
    fs::create_dir_all(clone.join(".git")).unwrap();
    let git = "[remote \"origin\"]\n\turl = git@github.com:org/repo.git\n";
    fs::write(clone.join(".git/config"), git).unwrap();
    let directory = clone.join("ops");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join(FILE_NAME), MINIMAL).unwrap();
    let inputs = fleet("").1;
    let problems = load(&directory, &inputs).unwrap_err().0;
    let found = problems[0].found.clone().unwrap();
    assert!(found.contains(&*directory.to_string_lossy()), "{found}");
    assert!(found.contains("git@github.com:org/repo.git"), "{found}");
    fs::write(
        directory.join(FILE_NAME),
        MINIMAL.replace("org/repo", "org/other"),
    )
    .unwrap();
    assert!(
        load(&directory, &inputs).is_ok(),
        "a work tree of something else is fine"
    );
}

#[test]
fn gates_are_read_with_their_defaults_and_shown_without_secrets() {
    let gates = r#""gates": [
    {"name": "lint", "command": "make lint"},
    {
      "name": "test", "command": ["make", "test"], "timeout": "1h", "where": {"image": "rust:1.90"},
      "network": true, "cache": true, "environment": {"TOKEN": "hush-3"}
    }
  ]"#;
    let (directory, inputs) = fleet(&with(gates));
    let loaded = load(directory.path(), &inputs).unwrap();
    let [lint, test] = &loaded.config.gates[..] else {
        panic!("{:?}", loaded.config.gates)
    };
    assert_eq!(lint.name, "lint");
    assert_eq!(lint.command.words(), ["sh", "-c", "make lint"]);
    assert_eq!(lint.timeout.as_secs(), 600);
    assert_eq!(lint.place, GatePlace::Agent);
    assert!(!lint.network && !lint.cache && lint.environment.is_empty());
    assert_eq!(test.command.words(), ["make", "test"]);
    assert_eq!(test.timeout.as_secs(), 3600);
    assert_eq!(test.place, GatePlace::Image("rust:1.90".into()));
    assert!(test.network && test.cache);
    assert_eq!(test.environment["TOKEN"], "hush-3");
    let rows = rows(&loaded);
    let row = rows.iter().find(|row| row.key == "gates").unwrap();
    assert_eq!(row.value[0]["where"], json!("agent"));
    assert_eq!(row.value[1]["where"], json!({"image": "rust:1.90"}));
    assert_eq!(row.value[1]["environment"]["TOKEN"], json!(HIDDEN));
    let everything = format!("{loaded:?} {} {test:?}", rows_json(&loaded));
    assert!(!everything.contains("hush"), "{everything}");
    // What is hidden is compared all the same.
    let told = settings(&loaded.config, "salt");
    let mut other = loaded.config.clone();
    other.gates[1]
        .environment
        .insert("TOKEN".into(), "hush-4".into());
    let found = changes(&told, "salt", &other);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].key.as_str(), found[0].applies),
        ("gates", Applies::AtOnce)
    );
}

#[test]
fn every_problem_of_every_gate_is_named_with_its_place() {
    let text = with(
        r#""gates": [
    {"name": "Lint", "comand": "make lint", "timeout": 600},
    {"name": "test", "command": "  ", "where": {"imge": "x"}, "name": "test"},
    {"name": "test", "command": ["make", 1], "where": "worker", "network": "yes"},
    7,
    {"name": "e2e", "command": "x", "environment": {"ANTHROPIC_API_KEY": "hush", "A": "1", "A": "2"}},
    {"command": "x", "where": {"image": "a b"}}
  ]"#,
    );
    let problems = problems(&text);
    assert_eq!(
        spots(&problems),
        [
            "6:5 gates[0].command",
            "6:14 gates[0].name",
            "6:22 gates[0].comand",
            "6:56 gates[0].timeout",
            "7:33 gates[1].command",
            "7:48 gates[1].where.image",
            "7:49 gates[1].where.imge",
            "7:63 gates[1].name",
            "8:14 gates[2].name",
            "8:33 gates[2].command",
            "8:55 gates[2].where",
            "8:76 gates[2].network",
            "9:5 gates[3]",
            "10:53 gates[4].environment.ANTHROPIC_API_KEY",
            "10:92 gates[4].environment.A",
            "11:5 gates[5].name",
            "11:41 gates[5].where.image",
        ]
    );
    assert_eq!(problems[2].nearest.as_deref(), Some("gates[0].command"));
    assert_eq!(problems[6].nearest.as_deref(), Some("gates[1].where.image"));
    assert!(problems[3].hint.as_deref().unwrap().contains("unit"));
    assert!(problems[8].message.contains("number 2 has this name too"));
    let everything: String = problems.iter().map(ToString::to_string).collect();
    assert!(!everything.contains("hush"), "{everything}");
}

#[test]
fn gates_may_come_from_layers_above_the_file() {
    let (directory, mut inputs) = fleet(&with(r#""gates": {"name": "a", "command": "b"}"#));
    let alone = load(directory.path(), &inputs).unwrap_err().0;
    assert_eq!(spots(&alone), ["5:12 gates"]);
    assert_eq!(
        alone[0].hint.as_deref(),
        Some("put it into square brackets")
    );
    let (directory, _) = fleet(MINIMAL);
    inputs.environment.insert(
        "ORCHESTRATOR_GATES".into(),
        r#"[{"name": "a", "command": "b"}]"#.into(),
    );
    // A supervisor that itself runs within a gate.
    inputs
        .environment
        .insert("ORCHESTRATOR_GATE".into(), "test".into());
    let loaded = load(directory.path(), &inputs).unwrap();
    assert_eq!(loaded.config.gates[0].name, "a");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    inputs.overrides = vec![("gates".into(), r#"[{"name": "a", "comand": "b"}]"#.into())];
    let problems = load(directory.path(), &inputs).unwrap_err().0;
    assert_eq!(
        spots(&problems),
        [
            "--set gates gates[0].comand",
            "--set gates gates[0].command"
        ]
    );
    let many: Vec<_> = (0..33)
        .map(|n| json!({"name": format!("g{n}"), "command": "x"}))
        .collect();
    inputs.overrides = vec![("gates".into(), json!(many).to_string())];
    let problems = load(directory.path(), &inputs).unwrap_err().0;
    assert_eq!(problems[0].found.as_deref(), Some("33"));
}

#[test]
fn backoff_must_fit_below_its_maximum() {
    let problems = problems(&with(r#""restart": {"backoff": "5m"}"#));
    assert_eq!(problems[0].key.as_deref(), Some("restart.backoff"));
    assert!(problems[0].allowed.as_deref().unwrap().contains("2m"));
}

#[test]
fn without_a_home_the_tilde_and_the_default_state_are_problems() {
    let (directory, mut inputs) = fleet(MINIMAL);
    inputs.home = None;
    let problems = load(directory.path(), &inputs).unwrap_err().0;
    assert_eq!(
        spots(&problems),
        ["4:20 claudeConfigs", "0:0 stateDirectory"]
    );
}

#[test]
fn secrets_are_in_no_text() {
    let text = with(r#""environment": {"NPM_TOKEN": "hush-1"}"#)
        .replace("https://", "https://bot:hush-2@");
    let (directory, inputs) = fleet(&text);
    let loaded = load(directory.path(), &inputs).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    let everything = format!(
        "{loaded:?} {} {}",
        rows_json(&loaded),
        loaded.warnings[0].as_warning()
    );
    assert!(everything.contains("NPM_TOKEN"));
    assert!(!everything.contains("hush"), "{everything}");
    assert!(loaded.config.repository_url.contains("hush-2"));
}

#[test]
fn the_process_environment_gives_home_and_variables() {
    let inputs = Inputs::new(
        [("HOME", "/home/x"), ("ORCHESTRATOR_MODEL", "opus")].map(|(k, v)| (k.into(), v.into())),
        Vec::new(),
        7,
    );
    assert_eq!(inputs.home.as_deref(), Some(Path::new("/home/x")));
    assert_eq!(inputs.environment["ORCHESTRATOR_MODEL"], "opus");
    assert_eq!(inputs.uid, 7);
}

#[test]
fn only_root_gives_files_to_another_user() {
    let (directory, mut inputs) = fleet(&with(r#""container": {"uid": 1000}"#));
    let problems = load(directory.path(), &inputs).unwrap_err().0;
    assert_eq!(spots(&problems), ["5:24 container.uid"]);
    inputs.uid = 0;
    assert_eq!(
        load(directory.path(), &inputs)
            .unwrap()
            .config
            .container
            .uid,
        1000
    );
}

#[test]
fn a_tmp_as_large_as_the_memory_is_warned_of() {
    let (directory, inputs) = fleet(&with(r#""container": {"memory": "1GiB"}"#));
    let warnings = load(directory.path(), &inputs).unwrap().warnings;
    assert!(
        warnings[0].as_warning().starts_with("warning: "),
        "{warnings:?}"
    );
    assert_eq!(warnings[0].key.as_deref(), Some("container.tmpSize"));
}

#[test]
fn a_variable_of_ours_that_is_not_utf8_is_a_problem() {
    use std::os::unix::ffi::OsStringExt;
    let (directory, inputs) = fleet(MINIMAL);
    let broken = OsString::from_vec(b"x\xff".to_vec());
    let variables = [
        ("ORCHESTRATOR_MODEL", broken.clone()),
        ("HOME", "/home/me".into()),
        ("LS_COLORS", broken),
    ]
    .map(|(name, value)| (name.into(), value));
    let inputs = Inputs::new(variables, Vec::new(), inputs.uid);
    assert!(!inputs.environment.contains_key("LS_COLORS"));
    let problems = load(directory.path(), &inputs).unwrap_err().0;
    assert_eq!(
        spots(&problems),
        ["environment variable ORCHESTRATOR_MODEL model"]
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Whatever stands in the file, loading ends with a configuration or with problems that have a
    /// place in it, never with a panic.
    #[test]
    fn no_file_makes_it_panic(
        at in 0_usize..400,
        insert in "[{}\\[\\],:\"0-9a-z.\\\\ \n\u{e9}\u{1f600}-]{0,6}",
        remove in 0_usize..12,
    ) {
        let full = include_str!("../../config-example/full/orchestrator.json");
        let mut bytes = full.as_bytes().to_vec();
        let start = at.min(bytes.len());
        let end = (start + remove).min(bytes.len());
        bytes.splice(start..end, insert.bytes());
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join(FILE_NAME), &bytes)?;
        fs::write(directory.path().join("agent.Dockerfile"), "FROM scratch")?;
        let inputs = Inputs { home: Some("/home/me".into()), uid: 1000, ..Inputs::default() };
        if let Err(problems) = load(directory.path(), &inputs) {
            proptest::prop_assert!(!problems.0.is_empty());
            let lines = String::from_utf8_lossy(&bytes).matches('\n').count() + 1;
            for problem in &problems.0 {
                if let Place::File { line: Some(line), .. } = problem.place {
                    proptest::prop_assert!((1..=lines).contains(&line), "{problem}");
                }
            }
        }
    }
}
