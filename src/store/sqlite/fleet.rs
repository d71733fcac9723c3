//! The supervisor's own rows: agents, answers given to hook callbacks, and the bounded journal.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::writer::Job;
use super::{SqliteOptions, SqliteStore, check_size, sql_seq};
use crate::model::{AgentId, CallbackId, Timestamp};
use crate::ports::{Append, PortResult};

/// The kind of journal entries that tell of a change of an agent's state.
pub const STATE: &str = "state";

/// What one decision changed; written as a whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// When the decision was made; the age of the callbacks below.
    pub at: Timestamp,
    /// New state of agents, as JSON.
    pub agents: Vec<(AgentId, String)>,
    /// Agents that are no more.
    pub removed_agents: Vec<AgentId>,
    pub meta: Vec<(String, String)>,
    pub journal: Vec<JournalEntry>,
    /// Answers given, as JSON. The first answer to a callback stays.
    pub callbacks: Vec<(CallbackId, AgentId, String)>,
}

/// What became of a transaction with appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// All of it was written; the sequence numbers of the appended records, in their order.
    All(Vec<u64>),
    /// A subject's last record is not the expected one, or a record is too large: nothing at all
    /// was written.
    Nothing,
}

/// One line of the journal. `seq` is given by the store and ignored on the way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    pub seq: u64,
    pub at: Timestamp,
    pub agent: Option<AgentId>,
    pub kind: String,
    pub json: String,
}

/// Everything the supervisor had written, at start-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedState {
    pub agents: BTreeMap<AgentId, String>,
    pub meta: BTreeMap<String, String>,
    /// The newest journal entry's number; 0 if there is none.
    pub journal_head: u64,
}

/// A handle on those rows; shares the store's file, writer thread and readers.
#[derive(Clone)]
pub struct FleetState {
    store: SqliteStore,
}

impl FleetState {
    pub(super) fn new(store: SqliteStore) -> Self {
        Self { store }
    }

    /// One durable transaction. An error means that nothing of it was written.
    pub async fn commit(&self, changes: Changes) -> PortResult<()> {
        self.commit_with(changes, Vec::new()).await.map(drop)
    }

    /// As [`Self::commit`], with records of the log in the same transaction, at most one of a
    /// subject.
    pub async fn commit_with(
        &self,
        changes: Changes,
        appends: Vec<Append>,
    ) -> PortResult<Committed> {
        let fits = |append: &Append| check_size(&append.subject, &append.data).is_ok();
        if !appends.iter().all(fits) {
            return Ok(Committed::Nothing);
        }
        self.store
            .inner
            .writer
            .run(move |reply| Job::Commit {
                changes,
                appends,
                reply,
            })
            .await
    }

    /// The file these rows are in.
    pub fn path(&self) -> &Path {
        self.store.path()
    }

    pub async fn load(&self) -> PortResult<LoadedState> {
        self.store.read_with("load the fleet's state", load).await
    }

    /// The answer given to this callback before, as JSON.
    pub async fn callback(&self, id: &CallbackId) -> PortResult<Option<String>> {
        if !self.store.inner.answered.may_hold(id.as_str()) {
            return Ok(None);
        }
        let id = id.as_str().to_owned();
        self.store
            .read_with("look up a callback", move |connection| {
                connection
                    .prepare_cached("SELECT answer FROM callbacks WHERE id = ?1")?
                    .query_row([id], |row| row.get(0))
                    .optional()
            })
            .await
    }

    /// Entries after `after`, oldest first, at most `limit` (and [`super::MAX_READ`]).
    pub async fn journal(
        &self,
        after: u64,
        limit: usize,
        agent: Option<&AgentId>,
    ) -> PortResult<Vec<JournalEntry>> {
        let limit = limit.min(super::MAX_READ) as i64;
        let agent = agent.map(|agent| agent.as_str().to_owned());
        self.store
            .read_with("read the journal", move |connection| match agent {
                Some(agent) => connection
                    .prepare_cached(
                        "SELECT seq, at, agent, kind, json FROM journal \
                         WHERE agent = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
                    )?
                    .query_map(params![agent, sql_seq(after), limit], entry)?
                    .collect(),
                None => connection
                    .prepare_cached(
                        "SELECT seq, at, agent, kind, json FROM journal \
                         WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                    )?
                    .query_map(params![sql_seq(after), limit], entry)?
                    .collect(),
            })
            .await
    }

    /// The newest changes of an agent's state, oldest first; as far back as the journal reaches.
    pub async fn states(&self, agent: &AgentId, limit: usize) -> PortResult<Vec<JournalEntry>> {
        let limit = limit.min(super::MAX_READ) as i64;
        let agent = agent.as_str().to_owned();
        self.store
            .read_with("read an agent's history", move |connection| {
                let mut entries: Vec<JournalEntry> = connection
                    .prepare_cached(
                        "SELECT seq, at, agent, kind, json FROM journal \
                         WHERE agent = ?1 AND kind = ?2 ORDER BY seq DESC LIMIT ?3",
                    )?
                    .query_map(params![agent, STATE, limit], entry)?
                    .collect::<rusqlite::Result<_>>()?;
                entries.reverse();
                Ok(entries)
            })
            .await
    }

    /// The newest entries, oldest first.
    pub async fn journal_tail(
        &self,
        limit: usize,
        agent: Option<&AgentId>,
    ) -> PortResult<Vec<JournalEntry>> {
        let limit = limit.min(super::MAX_READ) as i64;
        let agent = agent.map(|agent| agent.as_str().to_owned());
        self.store
            .read_with("read the journal", move |connection| {
                let mut entries: Vec<JournalEntry> = match agent {
                    Some(agent) => connection
                        .prepare_cached(
                            "SELECT seq, at, agent, kind, json FROM journal \
                             WHERE agent = ?1 ORDER BY seq DESC LIMIT ?2",
                        )?
                        .query_map(params![agent, limit], entry)?
                        .collect::<rusqlite::Result<_>>()?,
                    None => connection
                        .prepare_cached(
                            "SELECT seq, at, agent, kind, json FROM journal \
                             ORDER BY seq DESC LIMIT ?1",
                        )?
                        .query_map([limit], entry)?
                        .collect::<rusqlite::Result<_>>()?,
                };
                entries.reverse();
                Ok(entries)
            })
            .await
    }
}

/// One transaction: agents and meta of the same decision.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<LoadedState> {
    let snapshot = connection.unchecked_transaction()?;
    let agents = snapshot
        .prepare("SELECT id, json FROM agent_state")?
        .query_map([], |row| {
            Ok((AgentId::new(row.get::<_, String>(0)?), row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let meta = snapshot
        .prepare("SELECT key, value FROM meta")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let head: i64 = snapshot.query_row("SELECT coalesce(max(seq), 0) FROM journal", [], |row| {
        row.get(0)
    })?;
    Ok(LoadedState {
        agents,
        meta,
        journal_head: u64::try_from(head).unwrap_or(0),
    })
}

/// Runs in the writer's transaction.
pub(super) fn write(
    connection: &Connection,
    changes: &Changes,
    options: &SqliteOptions,
) -> rusqlite::Result<()> {
    for (id, json) in &changes.agents {
        connection
            .prepare_cached(
                "INSERT INTO agent_state(id, json) VALUES (?1, ?2) \
                 ON CONFLICT(id) DO UPDATE SET json = excluded.json",
            )?
            .execute(params![id.as_str(), json])?;
    }
    for id in &changes.removed_agents {
        connection
            .prepare_cached("DELETE FROM agent_state WHERE id = ?1")?
            .execute([id.as_str()])?;
    }
    for (key, value) in &changes.meta {
        connection
            .prepare_cached(
                "INSERT INTO meta(key, value) VALUES (?1, ?2) \
                 ON CONFLICT(key) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![key, value])?;
    }
    for (id, agent, answer) in &changes.callbacks {
        connection
            .prepare_cached(
                "INSERT OR IGNORE INTO callbacks(id, agent, at, answer) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![id.as_str(), agent.as_str(), changes.at.0, answer])?;
    }
    for entry in &changes.journal {
        connection
            .prepare_cached("INSERT INTO journal(at, agent, kind, json) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                entry.at.0,
                entry.agent.as_ref().map(AgentId::as_str),
                entry.kind,
                entry.json
            ])?;
    }
    prune(connection, changes, options)
}

fn prune(
    connection: &Connection,
    changes: &Changes,
    options: &SqliteOptions,
) -> rusqlite::Result<()> {
    if !changes.callbacks.is_empty() {
        connection
            .prepare_cached(
                "DELETE FROM callbacks WHERE at < ?1 \
                 OR rowid <= (SELECT max(rowid) FROM callbacks) - ?2",
            )?
            .execute(params![
                changes.at.0.saturating_sub(options.callback_age_ms),
                sql_seq(options.keep_callbacks)
            ])?;
    }
    if !changes.journal.is_empty() {
        connection
            .prepare_cached("DELETE FROM journal WHERE seq <= (SELECT max(seq) FROM journal) - ?1")?
            .execute([sql_seq(options.keep_journal)])?;
    }
    Ok(())
}

fn entry(row: &Row<'_>) -> rusqlite::Result<JournalEntry> {
    Ok(JournalEntry {
        seq: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
        at: Timestamp(row.get(1)?),
        agent: row.get::<_, Option<String>>(2)?.map(AgentId::new),
        kind: row.get(3)?,
        json: row.get(4)?,
    })
}
