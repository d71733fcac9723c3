use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;

const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// In every secret of these tests.
const HUSH: &str = "hush";

fn put(directory: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

fn pool(directory: &Path, pattern: &str) -> Pool {
    let logins = Logins::new(&directory.join("state"));
    load_pool(&format!("{}/{pattern}", directory.display()), NOW, &logins)
}

/// The pool of one file with this content.
fn one(text: impl AsRef<[u8]>) -> Pool {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), "one.json", text);
    pool(directory.path(), "*.json")
}

fn good(json: Json) -> Credential {
    let mut pool = one(json.to_string());
    assert!(pool.problems.is_empty(), "{:?}", pool.problems);
    pool.credentials.remove(0)
}

fn bad(json: Json) -> CredentialProblem {
    let mut pool = one(json.to_string());
    assert!(pool.credentials.is_empty(), "{:?}", pool.credentials);
    pool.problems.remove(0)
}

fn login() -> Json {
    json!({"claudeAiOauth": {
        "accessToken": "sk-ant-oat01-hush", "refreshToken": "sk-ant-ort01-hush",
        "expiresAt": NOW.0 + 3_600_000, "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max", "rateLimitTier": "default_claude_max_20x",
    }, "mcpOAuth": {"x": {"accessToken": "hush"}}})
}

#[test]
fn a_login_is_known_by_its_content_and_loses_its_refresh_token() {
    let credential = good(login());
    assert_eq!(credential.kind, CredentialKind::OauthLogin);
    assert_eq!(credential.id.as_str(), "one");
    assert_eq!(credential.expires_at, Some(Timestamp(NOW.0 + 3_600_000)));
    assert!(credential.notes.is_empty());
    let material = credential.material();
    let file: Json = serde_json::from_str(material.oauth_file.as_ref().unwrap().expose()).unwrap();
    let expected = json!({"claudeAiOauth": {
        "accessToken": "sk-ant-oat01-hush", "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max", "rateLimitTier": "default_claude_max_20x",
    }});
    assert_eq!(file, expected);
    assert!(material.settings_env.is_empty());
    assert_eq!(material.approved_key_suffix, None);
}

#[test]
fn every_variable_of_a_settings_file_goes_to_the_instance() {
    let credential = good(json!({"env": {
        "ANTHROPIC_API_KEY": "sk-ant-api03-0123456789-hush-ABCDEFGHIJ",
        "ANTHROPIC_BASE_URL": "https://gateway", "MAX_THINKING_TOKENS": 8000, "FLAG": true,
    }, "permissions": {"allow": ["x"]}}));
    assert_eq!(credential.kind, CredentialKind::SettingsEnv);
    let material = credential.material();
    let env: Vec<_> = material
        .settings_env
        .iter()
        .map(|(k, v)| (k.as_str(), v.expose()))
        .collect();
    assert_eq!(
        env,
        [
            (
                "ANTHROPIC_API_KEY",
                "sk-ant-api03-0123456789-hush-ABCDEFGHIJ"
            ),
            ("ANTHROPIC_BASE_URL", "https://gateway"),
            ("FLAG", "true"),
            ("MAX_THINKING_TOKENS", "8000"),
        ]
    );
    let suffix = material.approved_key_suffix.as_ref().unwrap().expose();
    assert_eq!(
        suffix,
        "789-hush-ABCDEFGHIJ"
            .chars()
            .fold("6".to_owned(), |mut s, c| {
                s.push(c);
                s
            })
    );
    assert_eq!(suffix.len(), 20);
}

#[test]
fn tokens_and_providers_are_credentials_too() {
    for name in [
        "ANTHROPIC_AUTH_TOKEN",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
        "AWS_BEARER_TOKEN_BEDROCK",
    ] {
        let credential = good(json!({"env": {name: "1"}}));
        assert_eq!(credential.kind, CredentialKind::SettingsEnv, "{name}");
        assert_eq!(credential.material().approved_key_suffix, None);
    }
}

#[test]
fn a_helper_is_a_kind_of_its_own_and_keeps_its_variables() {
    let credential =
        good(json!({"apiKeyHelper": "echo hush", "env": {"ANTHROPIC_BASE_URL": "http://x"}}));
    assert_eq!(credential.kind, CredentialKind::ApiKeyHelper);
    let material = credential.material();
    assert_eq!(
        material.api_key_helper.as_ref().unwrap().expose(),
        "echo hush"
    );
    assert!(material.settings_env.contains_key("ANTHROPIC_BASE_URL"));
    assert!(credential.notes[0].contains("inside the container"));
}

#[test]
fn an_expired_login_is_dead_only_without_a_way_to_refresh() {
    let mut json = login();
    json["claudeAiOauth"]["expiresAt"] = json!(NOW.0);
    assert!(good(json.clone()).notes[0].contains("expired"));
    json["claudeAiOauth"]["refreshToken"] = json!("");
    let problem = bad(json);
    assert_eq!(problem.kind, ProblemKind::Dead);
    assert!(problem.hint.contains("/login"), "{}", problem.hint);
}

#[test]
fn a_revoked_login_is_dead() {
    let problem = bad(
        json!({"claudeAiOauth": {"accessToken": "", "refreshToken": "", "expiresAt": 0, "scopes": ["user:inference"]}}),
    );
    assert_eq!(problem.kind, ProblemKind::Dead);
    assert!(problem.reason.contains("revoked"));
}

#[test]
fn what_is_no_working_credential_is_refused_with_its_reason() {
    use ProblemKind::{Dead, Invalid, Unknown};
    let cases = [
        (
            json!({"claudeAiOauth": {"accessToken": HUSH}}),
            Invalid,
            "no `scopes`",
        ),
        (
            json!({"claudeAiOauth": {"accessToken": HUSH, "scopes": ["user:profile"]}}),
            Invalid,
            "user:inference",
        ),
        (json!({"claudeAiOauth": HUSH}), Invalid, "not an object"),
        (
            json!({"claudeAiOauth": {"accessToken": 5}}),
            Invalid,
            "not text",
        ),
        (json!({"claudeAiOauth": {}, "env": {}}), Invalid, "both"),
        (
            json!({"env": {"ANTHROPIC_API_KEY": ""}}),
            Dead,
            "ANTHROPIC_API_KEY is empty",
        ),
        (
            json!({"env": {"ANTHROPIC_BASE_URL": "http://x"}}),
            Invalid,
            "names a server",
        ),
        (
            json!({"env": {"EDITOR": "vi"}}),
            Invalid,
            "holds no credential",
        ),
        (json!({"env": [HUSH]}), Invalid, "`env` is not an object"),
        (
            json!({"env": {"ANTHROPIC_API_KEY": [HUSH]}}),
            Invalid,
            "env.ANTHROPIC_API_KEY",
        ),
        (json!({"env": {"sk-hush": [HUSH]}}), Invalid, "(a name)"),
        (json!({"env": {"a=hush": "x"}}), Invalid, "name under `env`"),
        (
            json!({"env": {"ANTHROPIC_API_KEY": "hush\u{0}"}}),
            Invalid,
            "NUL",
        ),
        (json!({"apiKeyHelper": ""}), Invalid, "`apiKeyHelper`"),
        (json!({}), Unknown, "empty object"),
        (json!([HUSH]), Unknown, "not an object"),
        (
            json!({"repositoryUrl": "x"}),
            Unknown,
            "configuration of a fleet",
        ),
        (
            json!({"oauthAccount": {}, "projects": {}}),
            Unknown,
            ".claude.json",
        ),
        (json!({"hooks": {}}), Unknown, "without `env`"),
        (json!({"token": HUSH}), Unknown, "no kind of credential"),
    ];
    for (json, kind, part) in cases {
        let problem = bad(json);
        assert_eq!(problem.kind, kind, "{problem}");
        assert!(problem.reason.contains(part), "{problem}");
        assert!(!problem.hint.is_empty());
        let printed = format!("{problem} {problem:?}");
        assert!(!printed.contains(HUSH), "{printed}");
    }
}

#[test]
fn what_is_no_json_is_refused_without_quoting_it() {
    for (bytes, kind) in [
        (&b""[..], ProblemKind::Empty),
        (b" \n", ProblemKind::Empty),
        (b"sk-ant-hush", ProblemKind::NotJson),
        (b"{\"hush\": hush}", ProblemKind::NotJson),
        (b"\xffhush", ProblemKind::NotJson),
        (
            &" ".repeat((1 << 20) + 1).into_bytes(),
            ProblemKind::TooLarge,
        ),
    ] {
        let pool = one(bytes);
        assert_eq!(pool.problems[0].kind, kind);
        assert!(!format!("{pool:?}").contains(HUSH), "{pool:?}");
    }
}

#[test]
fn files_that_others_may_read_are_refused_with_the_command_to_run() {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), "a b.json", login().to_string());
    let path = directory.path().join("a b.json");
    for mode in [0o644, 0o640, 0o660, 0o602, 0o610] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let pool = pool(directory.path(), "*.json");
        let problem = &pool.problems[0];
        assert_eq!(problem.kind, ProblemKind::Exposed, "{mode:o}");
        assert_eq!(problem.hint, format!("run: chmod 600 '{}'", path.display()));
        assert!(pool.credentials.is_empty());
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    assert_eq!(pool(directory.path(), "*.json").credentials.len(), 1);
}

#[test]
fn only_regular_files_are_read_and_links_to_them() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    put(directory.path(), "real/login", login().to_string());
    symlink(at("real/login"), at("a-link.json")).unwrap();
    symlink(at("nothing"), at("b-broken.json")).unwrap();
    fs::create_dir(at("c-directory.json")).unwrap();
    let fifo = rustix::fs::CWD;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(fifo, at("d-pipe.json"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let pool = pool(directory.path(), "*.json");
    let names: Vec<_> = pool.credentials.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(names, ["a-link"]);
    let kinds: Vec<_> = pool.problems.iter().map(|p| p.kind).collect();
    assert_eq!(
        kinds,
        [
            ProblemKind::Unreadable,
            ProblemKind::NotAFile,
            ProblemKind::NotAFile
        ]
    );
}

#[test]
fn a_pool_is_sorted_with_distinct_ids_and_tells_doubles() {
    let directory = tempfile::tempdir().unwrap();
    let key = |text: &str| json!({"env": {"ANTHROPIC_API_KEY": text}}).to_string();
    put(directory.path(), "z/key.json", key("one"));
    put(directory.path(), "b/key.json", key("two"));
    put(directory.path(), "b/again.json", key("one"));
    put(directory.path(), "b/broken.json", "{");
    let pool = pool(directory.path(), "*/*.json");
    let names: Vec<_> = pool.credentials.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(names, ["again", "key-b", "key-z"]);
    let notes: Vec<_> = pool.credentials.iter().map(|c| c.notes.len()).collect();
    assert_eq!(notes, [0, 0, 1]);
    assert!(pool.credentials[2].notes[0].contains("again"));
    assert_eq!(pool.problems.len(), 1);
}

#[test]
fn a_pattern_without_a_match_or_that_is_none_is_a_problem() {
    let directory = tempfile::tempdir().unwrap();
    for pattern in ["*.json", "***"] {
        let pool = pool(directory.path(), pattern);
        assert_eq!(pool.problems[0].kind, ProblemKind::Pattern, "{pattern}");
        assert!(pool.credentials.is_empty());
    }
}

#[test]
fn no_secret_is_in_any_printed_form_of_a_pool() {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), "a.json", login().to_string());
    put(
        directory.path(),
        "b.json",
        json!({"env": {"ANTHROPIC_API_KEY": "hush-hush-hush-hush-hush"}}).to_string(),
    );
    put(
        directory.path(),
        "c.json",
        json!({"apiKeyHelper": "echo hush"}).to_string(),
    );
    let pool = pool(directory.path(), "*.json");
    assert_eq!(pool.credentials.len(), 3);
    let printed = format!("{pool:?} {pool:#?} {:?}", pool.credentials[1].material());
    assert!(!printed.contains(HUSH), "{printed}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn instance() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let instance = directory.path().join("w1/credentials");
    (directory, instance)
}

#[test]
fn a_login_is_written_for_its_owner_alone_and_replaced_by_an_empty_state() {
    let (_keep, instance) = instance();
    let file = instance.join(CREDENTIALS_FILE);
    let material = good(login()).material().clone();
    write(&instance, &material, None).unwrap();
    assert_eq!(mode(&instance), 0o700);
    assert_eq!(mode(&file), 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text, material.oauth_file.as_ref().unwrap().expose());
    assert!(!text.contains("refresh") && !text.contains("sk-ant-ort"));

    let open_before = fs::File::open(&file).unwrap();
    write(&instance, &Material::default(), None).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
    assert_eq!(
        std::io::read_to_string(open_before).unwrap(),
        text,
        "the former file was replaced, not edited"
    );
}

#[test]
fn leftovers_of_a_crash_are_swept_and_nothing_else() {
    let (_keep, instance) = instance();
    fs::create_dir_all(&instance).unwrap();
    fs::write(instance.join(".credentials.json.new-x1"), HUSH).unwrap();
    fs::write(instance.join("other"), "x").unwrap();
    write(&instance, &Material::default(), None).unwrap();
    let mut names: Vec<_> = fs::read_dir(&instance)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, [CREDENTIALS_FILE, "other"]);
}

#[test]
fn a_link_in_place_of_the_directory_is_refused_naming_it() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    symlink(directory.path(), &link).unwrap();
    let error = write(&link, &good(login()).material().clone(), None).unwrap_err();
    assert!(error.to_string().contains("link"), "{error}");
    assert!(!format!("{error} {error:?}").contains(HUSH));
    assert!(!directory.path().join(CREDENTIALS_FILE).exists());
}

#[test]
fn files_are_given_to_the_agents_user() {
    use std::os::unix::fs::MetadataExt;
    let (_keep, instance) = instance();
    let uid = rustix::process::getuid();
    let gid = rustix::process::getgid().as_raw();
    // Only root may give files away; another user can only "give" them to itself.
    let owner = if uid.is_root() {
        (4711, 4712)
    } else {
        (uid.as_raw(), gid)
    };
    write(&instance, &Material::default(), Some(owner)).unwrap();
    for path in [&instance, &instance.join(CREDENTIALS_FILE)] {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner);
    }
}

proptest::proptest! {
    /// Whatever stands in a file, classifying ends, and what is printed holds nothing of it.
    #[test]
    fn no_text_makes_it_panic_or_talk(
        field in proptest::sample::select(vec![
            "claudeAiOauth", "env", "apiKeyHelper", "other",
        ]),
        inner in proptest::sample::select(vec![
            "accessToken", "scopes", "expiresAt", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL",
        ]),
        value in proptest::sample::select(vec![
            json!("qqhushqq"), json!(["qqhushqq"]), json!({"qqhushqq": "qqhushqq"}), json!(null),
            json!(-1), json!(1e300), json!(""), json!("\u{0}qqhushqq"),
        ]),
        cut in 0_usize..80,
        cut_at_all: bool,
    ) {
        let mut text = json!({field: {inner: value}}).to_string();
        if cut_at_all && text.is_char_boundary(cut.min(text.len())) {
            text.truncate(cut);
        }
        let printed = format!("{:?}", classify::classify(&text, NOW, |_| None));
        proptest::prop_assert!(!printed.contains("qqhushqq"), "{printed}");
    }
}
