//! The floors that serve: processes of their own, as the supervisor is one.
//!
//! `constant`: answers each Stop hook with the next text, at once and without remembering anything.
//! `commits`: the least that a durable callback can cost, an axum route and one SQLite commit.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use clap::Subcommand;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::hall::eventually;

#[derive(Clone, Debug, Subcommand)]
pub enum Serve {
    /// Stop hooks are answered with a constant; for the benchmarks themselves
    #[command(hide = true)]
    Constant { socket: PathBuf },
    /// One commit for each callback; for the benchmarks themselves
    #[command(hide = true)]
    Commits { socket: PathBuf, database: PathBuf },
}

impl Serve {
    /// Until it is killed, or nobody holds its stdin any more.
    pub fn run(self) -> Result<()> {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        match self {
            Self::Constant { socket } => {
                let turns: Turns = Arc::default();
                let counted = turns.clone();
                std::thread::spawn(move || follow_orders(&counted));
                tokio.block_on(serve(&socket, constant(turns)))
            }
            Self::Commits { socket, database } => {
                std::thread::spawn(|| follow_orders(&Turns::default()));
                let router = commits(&database)?;
                tokio.block_on(serve(&socket, router))
            }
        }
    }
}

async fn serve(socket: &Path, router: Router) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    Ok(axum::serve(listener, router).await?)
}

/// How many Stop hooks are still to be answered with a text, and with which.
type Turns = Arc<Mutex<(usize, String)>>;

/// `COUNT TEXT` a line, from whoever started us; the end of the lines is our end.
fn follow_orders(turns: &Turns) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if let Some((count, text)) = line.split_once(' ') {
            let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
            *turns = (count.parse().unwrap_or(0), text.to_owned());
        }
    }
    std::process::exit(0);
}

fn constant(turns: Turns) -> Router {
    Router::new()
        .route("/hooks/v1/callback", post(answer_constant))
        .route("/hooks/v1/status", post(|| async { "plain" }))
        .with_state(turns)
}

async fn answer_constant(State(turns): State<Turns>, body: String) -> Response {
    let at = SystemTime::now();
    let payload: Value = serde_json::from_str(&body).unwrap_or_default();
    let event = payload["hook_event_name"].as_str().unwrap_or_default();
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    {
        let mut out = std::io::stdout().lock();
        let told = writeln!(out, "{event} {}", since.as_micros()).and_then(|()| out.flush());
        if told.is_err() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    if event != "Stop" {
        return StatusCode::NO_CONTENT.into_response();
    }
    let text = {
        let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = turns.0.checked_sub(1) else {
            return StatusCode::NO_CONTENT.into_response();
        };
        turns.0 = left;
        format!("{}-{left}", turns.1)
    };
    axum::Json(json!({"decision": "block", "reason": text})).into_response()
}

fn commits(database: &Path) -> Result<Router> {
    let connection = Connection::open(database)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection
        .execute_batch("CREATE TABLE callbacks(id INTEGER PRIMARY KEY, json TEXT NOT NULL)")?;
    let connection = Arc::new(Mutex::new(connection));
    Ok(Router::new()
        .route("/hooks/v1/callback", post(commit))
        .with_state(connection))
}

async fn commit(State(connection): State<Arc<Mutex<Connection>>>, body: String) -> StatusCode {
    let stored = tokio::task::spawn_blocking(move || {
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection
            .prepare_cached("INSERT INTO callbacks(json) VALUES (?1)")?
            .execute([body])
    });
    match stored.await {
        Ok(Ok(_)) => StatusCode::NO_CONTENT,
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// One of these, running.
pub struct Server {
    child: Child,
    orders: Option<ChildStdin>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// A hook that came to the server.
#[derive(Clone, Debug)]
pub struct Heard {
    pub event: String,
    pub at: SystemTime,
}

impl Server {
    pub fn constant(socket: &Path) -> Result<Self> {
        Self::start(&["constant".as_ref(), socket.as_os_str()], socket)
    }

    pub fn commits(socket: &Path, database: &Path) -> Result<Self> {
        let words = ["commits".as_ref(), socket.as_os_str(), database.as_os_str()];
        Self::start(&words, socket)
    }

    fn start(arguments: &[&std::ffi::OsStr], socket: &Path) -> Result<Self> {
        let myself = std::env::current_exe().context("where this program is")?;
        let mut child = Command::new(myself)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the floor's server")?;
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        if let Some(out) = child.stdout.take() {
            let all = heard.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if let Some((event, micros)) = line.split_once(' ')
                        && let Ok(micros) = micros.parse()
                    {
                        let at = UNIX_EPOCH + Duration::from_micros(micros);
                        let event = event.to_owned();
                        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                        all.push(Heard { event, at });
                    }
                }
            });
        }
        let server = Self {
            orders: child.stdin.take(),
            child,
            heard,
        };
        eventually("the floor's server listens", || {
            socket.exists().then_some(())
        })?;
        Ok(server)
    }

    /// The next Stop hooks get a text each, `TEXT-LEFT`.
    pub fn answer_next(&mut self, count: usize, text: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the server's stdin")?;
        writeln!(orders, "{count} {text}")?;
        Ok(orders.flush()?)
    }

    /// Every hook so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to wait for.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
