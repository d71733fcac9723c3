//! Retention: which records a later one has superseded is noted as it happens, so what may go is
//! known without looking through the log, however long that is.

use rusqlite::{Connection, params};

use super::sql_seq;

/// Records dropped in one statement: some milliseconds of the writer.
const STEP: i64 = 2_000;

/// `previous`: the record of the subject that a new one has just replaced; 0 if there was none.
pub(super) fn supersede(connection: &Connection, previous: i64) -> rusqlite::Result<()> {
    if previous > 0 {
        connection
            .prepare_cached("INSERT OR IGNORE INTO superseded(seq) VALUES (?1)")?
            .execute([previous])?;
    }
    Ok(())
}

/// Drops every superseded record but those among the newest `keep` numbers of the log. The last
/// record of each subject stays, so `list` plus `watch` still give the whole state.
pub(super) fn compact(connection: &Connection, keep: u64) -> rusqlite::Result<u64> {
    let mut dropped = 0;
    loop {
        let step = compact_some(connection, keep)?;
        dropped += step;
        if step < STEP as u64 {
            return Ok(dropped);
        }
    }
}

/// A bounded part of that; the oldest first.
pub(super) fn compact_some(connection: &Connection, keep: u64) -> rusqlite::Result<u64> {
    let newest: i64 =
        connection.query_row("SELECT coalesce(max(seq), 0) FROM records", [], |row| {
            row.get(0)
        })?;
    let until = newest.saturating_sub(sql_seq(keep));
    let last: Option<i64> = connection
        .prepare_cached(
            "SELECT max(seq) FROM \
             (SELECT seq FROM superseded WHERE seq <= ?1 ORDER BY seq LIMIT ?2)",
        )?
        .query_row(params![until, STEP], |row| row.get(0))?;
    let Some(last) = last else {
        return Ok(0);
    };
    let dropped = connection
        .prepare_cached(
            "DELETE FROM records WHERE seq IN (SELECT seq FROM superseded WHERE seq <= ?1)",
        )?
        .execute([last])?;
    connection
        .prepare_cached("DELETE FROM superseded WHERE seq <= ?1")?
        .execute([last])?;
    Ok(dropped as u64)
}
