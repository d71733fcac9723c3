//! The floors that serve: processes of their own, as the supervisor is one.
//!
//! `constant`: answers each Stop hook with the next text, at once and without remembering anything, or
//! after one SQLite commit.
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

use crate::claims::Weigh;
use crate::hall::eventually;

#[derive(Clone, Debug, Subcommand)]
pub enum Serve {
    /// Stop hooks are answered with a constant; for the benchmarks themselves
    #[command(hide = true)]
    Constant { socket: PathBuf, database: PathBuf },
    /// One commit for each callback; for the benchmarks themselves
    #[command(hide = true)]
    Commits { socket: PathBuf, database: PathBuf },
    /// A queue is opened and weighed; for the benchmarks themselves
    #[command(hide = true)]
    Weigh(Weigh),
}

impl Serve {
    /// Until it is killed, or nobody holds its stdin any more.
    pub fn run(self) -> Result<()> {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        match self {
            Self::Constant { socket, database } => {
                let floor = Constant {
                    turns: Arc::default(),
                    database: open(&database)?,
                };
                let turns = floor.turns.clone();
                std::thread::spawn(move || follow_orders(&turns));
                tokio.block_on(serve(&socket, constant(floor)))
            }
            Self::Commits { socket, database } => {
                std::thread::spawn(|| follow_orders(&Mutex::default()));
                let router = commits(open(&database)?);
                tokio.block_on(serve(&socket, router))
            }
            Self::Weigh(weigh) => weigh.run(),
        }
    }
}

async fn serve(socket: &Path, router: Router) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    Ok(axum::serve(listener, router).await?)
}

/// What an answer to a Stop hook waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    #[default]
    Nothing,
    /// The callback is on disk.
    Commit,
}

/// How many Stop hooks are still to be answered with a text, with which, and after what.
#[derive(Default)]
struct Turns {
    left: usize,
    after: After,
    text: String,
}

#[derive(Clone)]
struct Constant {
    turns: Arc<Mutex<Turns>>,
    database: Database,
}

type Database = Arc<Mutex<Connection>>;

/// `COUNT AFTER TEXT` a line, from whoever started us; the end of the lines is our end.
fn follow_orders(turns: &Mutex<Turns>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let mut words = line.splitn(3, ' ');
        if let (Some(count), Some(after), Some(text)) = (words.next(), words.next(), words.next()) {
            let after = if after == "commit" {
                After::Commit
            } else {
                After::Nothing
            };
            *turns.lock().unwrap_or_else(PoisonError::into_inner) = Turns {
                left: count.parse().unwrap_or(0),
                after,
                text: text.to_owned(),
            };
        }
    }
    std::process::exit(0);
}

fn constant(floor: Constant) -> Router {
    Router::new()
        .route("/hooks/v1/callback", post(answer_constant))
        .route("/hooks/v1/status", post(|| async { "plain" }))
        .with_state(floor)
}

async fn answer_constant(State(floor): State<Constant>, body: String) -> Response {
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
    let (text, after) = {
        let mut turns = floor.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = turns.left.checked_sub(1) else {
            return StatusCode::NO_CONTENT.into_response();
        };
        turns.left = left;
        (format!("{}-{left}", turns.text), turns.after)
    };
    if after == After::Commit && !stored(floor.database, body).await {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    axum::Json(json!({"decision": "block", "reason": text})).into_response()
}

fn commits(database: Database) -> Router {
    Router::new()
        .route("/hooks/v1/callback", post(commit))
        .with_state(database)
}

async fn commit(State(database): State<Database>, body: String) -> StatusCode {
    if stored(database, body).await {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

fn open(database: &Path) -> Result<Database> {
    let connection = Connection::open(database)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection
        .execute_batch("CREATE TABLE callbacks(id INTEGER PRIMARY KEY, json TEXT NOT NULL)")?;
    Ok(Arc::new(Mutex::new(connection)))
}

/// One durable commit.
async fn stored(database: Database, body: String) -> bool {
    let stored = tokio::task::spawn_blocking(move || {
        let connection = database.lock().unwrap_or_else(PoisonError::into_inner);
        connection
            .prepare_cached("INSERT INTO callbacks(json) VALUES (?1)")?
            .execute([body])
    });
    matches!(stored.await, Ok(Ok(_)))
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
        let database = socket.with_extension("db");
        let words = [
            "constant".as_ref(),
            socket.as_os_str(),
            database.as_os_str(),
        ];
        Self::start(&words, socket)
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
    pub fn answer_next(&mut self, count: usize, after: After, text: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the server's stdin")?;
        let after = match after {
            After::Nothing => "nothing",
            After::Commit => "commit",
        };
        writeln!(orders, "{count} {after} {text}")?;
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
