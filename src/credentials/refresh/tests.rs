//! Against a token server on this machine.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use tempfile::TempDir;

use super::*;
use crate::credentials::{Pool, ProblemKind, load_pool};

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const HOUR: i64 = 3_600_000;

type Answers = Arc<Mutex<Vec<(u16, String)>>>;

/// Answers in the order told, the last one again and again; keeps the requests.
struct TokenServer {
    url: String,
    requests: Arc<Mutex<Vec<Json>>>,
    _task: tokio::task::JoinHandle<()>,
}

impl TokenServer {
    async fn start(answers: Vec<(u16, String)>, delay: Duration) -> Self {
        let requests: Arc<Mutex<Vec<Json>>> = Arc::default();
        let (kept, answers): (_, Answers) = (requests.clone(), Arc::new(Mutex::new(answers)));
        let handler = move |body: Bytes| {
            let (kept, answers) = (kept.clone(), answers.clone());
            async move {
                kept.lock()
                    .unwrap()
                    .push(serde_json::from_slice(&body).unwrap());
                let mut left = answers.lock().unwrap().clone();
                let (status, text) = left.remove(0);
                if !left.is_empty() {
                    *answers.lock().unwrap() = left;
                }
                tokio::time::sleep(delay).await;
                (StatusCode::from_u16(status).unwrap(), text)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let app = Router::new().route("/token", post(handler));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            requests,
            _task: task,
        }
    }

    async fn with(answers: Vec<(u16, String)>) -> Self {
        Self::start(answers, Duration::ZERO).await
    }

    fn requests(&self) -> Vec<Json> {
        self.requests.lock().unwrap().clone()
    }
}

fn token(number: u32) -> (u16, String) {
    let answer = json!({
        "access_token": format!("access-{number}-hush"), "refresh_token": format!("refresh-{number}-hush"),
        "expires_in": 28800, "scope": "user:inference user:profile", "token_type": "Bearer",
    });
    (200, answer.to_string())
}

fn refused(word: &str) -> (u16, String) {
    let answer = json!({"error": word, "error_description": "says hush"});
    (400, answer.to_string())
}

/// One login, expired, and the state directory.
struct Home {
    root: TempDir,
    logins: Logins,
}

impl Home {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let logins = Logins::new(&root.path().join("state"));
        let home = Self { root, logins };
        home.put("access-0-hush", "refresh-0-hush", NOW.0 - HOUR);
        home
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("login.json")
    }

    fn put(&self, access: &str, refresh: &str, expires_at: i64) {
        let json = json!({"claudeAiOauth": {
            "accessToken": access, "refreshToken": refresh, "expiresAt": expires_at,
            "scopes": ["user:inference"], "subscriptionType": "max",
        }, "other": 1});
        fs::write(self.file(), json.to_string()).unwrap();
        fs::set_permissions(self.file(), Permissions::from_mode(0o600)).unwrap();
    }

    fn users(&self) -> Json {
        serde_json::from_slice(&fs::read(self.file()).unwrap()).unwrap()
    }

    fn pool(&self) -> Pool {
        let pattern = format!("{}/*.json", self.root.path().display());
        load_pool(&pattern, NOW, &self.logins)
    }

    fn login(&self) -> Credential {
        let mut pool = self.pool();
        assert!(pool.problems.is_empty(), "{:?}", pool.problems);
        pool.credentials.remove(0)
    }

    /// What an instance would be given.
    fn lent(&self) -> String {
        let credential = self.login();
        let file = credential.material().oauth_file.clone().unwrap();
        assert!(!file.expose().contains("refresh-"), "no refresh token");
        let json: Json = serde_json::from_str(file.expose()).unwrap();
        json["claudeAiOauth"]["accessToken"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn copies(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.root.path().join("state/credentials")) else {
            return Vec::new();
        };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    async fn renew(&self, server: &TokenServer) -> Result<Renewed, RenewError> {
        self.renew_with(server, false).await
    }

    async fn renew_with(
        &self,
        server: &TokenServer,
        write_back: bool,
    ) -> Result<Renewed, RenewError> {
        let credential = self.login();
        let renewal = Renewal {
            logins: &self.logins,
            token_url: &server.url,
            write_back,
            now: NOW,
        };
        renew(&credential, renewal).await
    }
}

#[tokio::test]
async fn the_newer_login_is_kept_in_the_state_and_the_users_file_stays() {
    let (home, server) = (Home::new(), TokenServer::with(vec![token(1)]).await);
    let before = (home.users(), home.login().info());
    assert!(before.1.refreshable && before.1.subscription);
    assert_eq!(before.1.plan.as_deref(), Some("max"));
    let renewed = home.renew(&server).await.unwrap();
    let expires_at = Timestamp(NOW.0 + 8 * HOUR);
    assert_eq!(renewed.expires_at, Some(expires_at));
    assert_eq!(renewed.warning, None);
    assert_eq!(
        server.requests(),
        [json!({
            "grant_type": "refresh_token", "refresh_token": "refresh-0-hush",
            "client_id": CLIENT_ID, "scope": SCOPE,
        })]
    );
    assert_eq!(home.users(), before.0);
    assert_eq!(home.lent(), "access-1-hush");
    let after = home.login().info();
    assert_eq!(after.expires_at, Some(expires_at));
    assert_eq!(after.plan.as_deref(), Some("max"), "from the user's file");
    assert_ne!(after.fingerprint, before.1.fingerprint);
    let copies = home.copies();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(
        fs::metadata(&copies[0]).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn each_renewal_uses_the_refresh_token_of_the_one_before() {
    let (home, server) = (
        Home::new(),
        TokenServer::with(vec![token(1), token(2)]).await,
    );
    home.renew(&server).await.unwrap();
    home.renew(&server).await.unwrap();
    let used: Vec<Json> = server
        .requests()
        .iter()
        .map(|request| request["refresh_token"].clone())
        .collect();
    assert_eq!(used, ["refresh-0-hush", "refresh-1-hush"]);
    assert_eq!(home.lent(), "access-2-hush");
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_keeps_the_one_there_is() {
    let answer = json!({"access_token": "access-1-hush", "expires_in": 60}).to_string();
    let (home, server) = (
        Home::new(),
        TokenServer::with(vec![(200, answer), token(2)]).await,
    );
    home.renew(&server).await.unwrap();
    home.renew(&server).await.unwrap();
    assert_eq!(server.requests()[1]["refresh_token"], "refresh-0-hush");
}

#[tokio::test]
async fn a_failure_of_the_server_passes_and_changes_nothing() {
    let failures = vec![
        (500, "oops hush".to_owned()),
        (
            503,
            json!({"error": {"type": "overloaded_error"}}).to_string(),
        ),
        (200, "<html>hush</html>".to_owned()),
        (200, json!({"access_token": ""}).to_string()),
        (200, "x".repeat(MAX_ANSWER_BYTES + 1)),
        refused("invalid_scope"),
        (302, String::new()),
        token(1),
    ];
    let count = failures.len() - 1;
    let (home, server) = (Home::new(), TokenServer::with(failures).await);
    for number in 0..count {
        let error = home.renew(&server).await.unwrap_err();
        assert!(!error.dead, "{number}: {error}");
        assert!(!error.to_string().contains("hush"), "{error}");
        assert_eq!(home.lent(), "access-0-hush");
    }
    home.renew(&server).await.unwrap();
    assert_eq!(home.lent(), "access-1-hush");
    assert_eq!(home.copies().len(), 1, "no leftovers");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_no_end_of_the_login() {
    let home = Home::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    drop(listener);
    let renewal = Renewal {
        logins: &home.logins,
        token_url: &url,
        write_back: false,
        now: NOW,
    };
    let error = renew(&home.login(), renewal).await.unwrap_err();
    assert!(!error.dead);
    assert!(error.reason.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_login_that_is_refused_is_dead_and_its_file_stays_as_it_is() {
    for answer in [
        refused("invalid_grant"),
        (401, json!({"error": {"type": "invalid_grant"}}).to_string()),
    ] {
        let (home, server) = (Home::new(), TokenServer::with(vec![answer]).await);
        let before = home.users();
        let error = home.renew_with(&server, true).await.unwrap_err();
        assert!(error.dead, "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
        assert_eq!(home.users(), before);
        assert_eq!(home.lent(), "access-0-hush");
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_asked_for() {
    let (home, server) = (Home::new(), TokenServer::with(vec![token(1)]).await);
    // A file where the directory should be, as root could write anywhere else.
    fs::write(home.root.path().join("state"), "").unwrap();
    let error = home.renew(&server).await.unwrap_err();
    assert!(!error.dead && error.reason.contains("make room"), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_crash_between_answer_and_disk_is_found_out_and_leaves_the_users_file() {
    let answers = vec![token(1), refused("invalid_grant")];
    let home = Home::new();
    let server = TokenServer::start(answers, Duration::from_millis(300)).await;
    {
        let renewing = home.renew(&server);
        tokio::pin!(renewing);
        // Cut off when the server has rotated and its answer is on the way.
        loop {
            tokio::select! {
                done = &mut renewing => panic!("too fast: {done:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
            if !server.requests().is_empty() {
                break;
            }
        }
    }
    // As a crash leaves it: tempfile's own cleaning did not run.
    let directory = home.root.path().join("state/credentials");
    let copy = home.logins.reserve(&home.file()).unwrap();
    std::mem::forget(copy);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    assert_eq!(home.lent(), "access-0-hush");
    let error = home.renew(&server).await.unwrap_err();
    assert!(error.dead);
    assert_eq!(
        home.users()["claudeAiOauth"]["accessToken"],
        "access-0-hush"
    );
    assert_eq!(home.copies().len(), 0, "leftovers are removed");
}

#[tokio::test]
async fn two_at_once_ask_once() {
    let home = Home::new();
    let server = TokenServer::start(vec![token(1), token(2)], Duration::from_millis(100)).await;
    // Both know the login as it was.
    let credential = home.login();
    let renewal = Renewal {
        logins: &home.logins,
        token_url: &server.url,
        write_back: false,
        now: NOW,
    };
    let (one, two) = tokio::join!(renew(&credential, renewal), renew(&credential, renewal));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn two_fleets_that_write_back_share_a_login() {
    let home = Home::new();
    let other = Logins::new(&home.root.path().join("other"));
    let server = TokenServer::start(vec![token(1), token(2)], Duration::from_millis(100)).await;
    let credential = home.login();
    let with = |logins| Renewal {
        logins,
        token_url: &server.url,
        write_back: true,
        now: NOW,
    };
    let (one, two) = tokio::join!(
        renew(&credential, with(&home.logins)),
        renew(&credential, with(&other))
    );
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(server.requests().len(), 1);
    let users = home.users();
    assert_eq!(users["claudeAiOauth"]["refreshToken"], "refresh-1-hush");
    assert_eq!(users["other"], 1);
    let mode = fs::metadata(home.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_file_the_user_has_replaced_wins_over_the_copy() {
    let (home, server) = (
        Home::new(),
        TokenServer::with(vec![token(1), token(2)]).await,
    );
    home.renew(&server).await.unwrap();
    home.put("mine-hush", "mine-refresh-hush", NOW.0 + HOUR);
    assert_eq!(home.lent(), "mine-hush");
    // And it is the one that is renewed next.
    home.renew(&server).await.unwrap();
    assert_eq!(server.requests()[1]["refresh_token"], "mine-refresh-hush");
    assert_eq!(home.lent(), "access-2-hush");
}

#[tokio::test]
async fn a_file_that_was_emptied_by_a_refused_renewal_elsewhere_does_not_end_the_copy() {
    let (home, server) = (Home::new(), TokenServer::with(vec![token(1)]).await);
    home.put("", "", 0);
    assert_eq!(home.pool().problems[0].kind, ProblemKind::Dead);
    home.put("access-0-hush", "refresh-0-hush", NOW.0 - HOUR);
    home.renew(&server).await.unwrap();
    home.put("", "", 0);
    assert_eq!(home.lent(), "access-1-hush");
}

#[tokio::test]
async fn a_damaged_copy_is_not_used() {
    let (home, server) = (Home::new(), TokenServer::with(vec![token(1)]).await);
    home.renew(&server).await.unwrap();
    for damage in ["", "{", "[]", r#"{"login": 3}"#] {
        fs::write(&home.copies()[0], damage).unwrap();
        assert_eq!(home.lent(), "access-0-hush", "{damage}");
    }
}

#[tokio::test]
async fn a_link_and_its_target_are_one_login() {
    let (home, server) = (Home::new(), TokenServer::with(vec![token(1)]).await);
    let link = home.root.path().join("link.json");
    std::os::unix::fs::symlink(home.file(), &link).unwrap();
    let pool = home.pool();
    let linked = pool.credentials.iter().find(|c| c.path == link).unwrap();
    let renewal = Renewal {
        logins: &home.logins,
        token_url: &server.url,
        write_back: true,
        now: NOW,
    };
    renew(linked, renewal).await.unwrap();
    fs::remove_file(&link).unwrap();
    assert_eq!(home.lent(), "access-1-hush");
    assert_eq!(
        home.users()["claudeAiOauth"]["accessToken"],
        "access-1-hush",
        "written to where the link leads"
    );
}
