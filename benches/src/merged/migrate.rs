//! Migrates a store with the index in place to the merged index.

use std::time::{Duration, Instant};

use es_framework::{Position, Version};
use es_sqlite::rusqlite::Connection;

use super::{Key, State, state};
use crate::Result;
use crate::floor::Sum;

/// The name in `write_requires`.
pub(super) const FEATURE: &str = "merged-index";

/// Fills the table from the index in place, slice by slice: it is the first run, and its entries come from the index
/// instead of from memory. Others may write meanwhile, because the index stays; what they write is above the run. The
/// tables must exist. Returns how long each transaction took.
pub fn migrate(connection: &Connection, slice: usize) -> Result<Vec<Duration>> {
    let head = "SELECT coalesce(max(position), 0) FROM es_event";
    let mut state = State::read(connection)?;
    if state.upto == Position::ZERO {
        let upto: i64 = connection.query_row(head, [], |row| row.get(0))?;
        state.upto = Position::new(upto.unsigned_abs());
    }
    let mut taken = Vec::new();
    while state.complete < state.upto {
        let begun = Instant::now();
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let entries = next(connection, &state, slice)?;
        state::insert(connection, &entries, super::ROWS)?;
        state = match entries.last() {
            Some((cursor, _)) if entries.len() == slice => State { cursor: *cursor, ..state },
            _ => State { complete: state.upto, cursor: State::START, ..state },
        };
        state.write(connection)?;
        connection.execute_batch("COMMIT")?;
        taken.push(begun.elapsed());
    }
    Ok(taken)
}

/// The entries of the run that follow the cursor.
fn next(connection: &Connection, state: &State, slice: usize) -> Result<Vec<(Key, Position)>> {
    let mut statement = connection.prepare_cached(
        "SELECT stream, version, position FROM es_event INDEXED BY es_event_version
         WHERE (stream, version) > (?1, ?2) AND position <= ?3 ORDER BY stream, version LIMIT ?4",
    )?;
    let (stream, version): (i64, Version) = state.cursor;
    let limit = i64::try_from(slice)?;
    let rows = statement.query_map((stream, version.as_i64(), state.upto.as_i64(), limit), super::read::entry)?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// Drops the index in place, and sets the marker that keeps builds without the merged index from writing. All in one
/// transaction, which blocks writers for as long as it takes to read the index.
pub fn switch(connection: &Connection) -> Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE; DROP INDEX es_event_version")?;
    let generation = "SELECT value + 1 FROM es_meta WHERE key = 'generation'";
    let generation: i64 = connection.query_row(generation, [], |row| row.get(0))?;
    let mut set = connection.prepare("INSERT OR REPLACE INTO es_meta (key, value, checksum) VALUES (?1, ?2, ?3)")?;
    set.execute(("write_requires", FEATURE, Sum::of("meta").text("write_requires").text(FEATURE).stored()))?;
    // Processes that have the store open read the other facts again when this one changes.
    set.execute(("generation", generation, Sum::of("meta").text("generation").integer(generation).stored()))?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}
