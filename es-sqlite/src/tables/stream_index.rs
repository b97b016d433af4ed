//! Finds the events of a stream: the only file that queries the index over (`stream`, `version`).

use es_framework::{StoreError, Version};
use tokio_rusqlite::rusqlite::{self, Connection, OptionalExtension, Row};

use crate::connection::errors;
use crate::tables::meta;
use crate::tables::rows::natural;

/// Selects the rows of the stream number `?3` beyond version `?1`; `beyond` is `>` forward and `<` backward. It names
/// no index: a later feature may drop the one that SQLite uses, and this build can still read.
pub(crate) fn rows(columns: &str, beyond: char, conditions: &str) -> String {
    format!("SELECT {columns} FROM es_event WHERE stream = ?3 AND version {beyond} ?1{conditions} ORDER BY version")
}

/// The end of a stream, according to the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// The version of the last event.
    pub(crate) version: Version,
    /// Whether the last two entries are consecutive. If they are not, the version of one of them is damaged, or entries
    /// between them are missing.
    pub(crate) follows: bool,
    /// Whether nothing indicates that there was an event after the last one.
    pub(crate) ends_there: bool,
}

/// Finds the end of the stream with this number, even if the index is damaged.
///
/// An index entry has no checksum, so its neighbours are checked. The last two entries of the stream must be
/// consecutive, or the version of one of them is damaged. The entry after them is either the first of another stream,
/// or one of this stream's with a damaged number. A stream that has a number has an event.
pub(crate) fn find(connection: &Connection, stream: i64) -> Result<Found, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT version FROM es_event WHERE stream = ?1 ORDER BY version DESC LIMIT 2")
        .map_err(errors::store)?;
    let mut rows = statement.query([stream]).map_err(errors::store)?;
    let mut next = || -> Result<i64, StoreError> {
        let Some(row) = rows.next().map_err(errors::store)? else { return Ok(0) };
        row.get(0).map_err(errors::store)
    };
    let (last, before) = (next()?, next()?);
    let (follows, ends_there) = match last {
        1.. => (last == before.saturating_add(1), ends_there(connection, stream, last)?),
        _ => (true, before == 0 && last == 0 && were_deleted(connection)?),
    };
    Ok(Found { version: Version::new(natural(last.max(0), None)?), follows, ends_there })
}

/// Returns the version of the stream with this number.
pub(crate) fn version(connection: &Connection, stream: i64) -> Result<Version, StoreError> {
    let Found { version, follows, ends_there } = find(connection, stream)?;
    if follows && ends_there { Ok(version) } else { Err(unsound(stream)) }
}

/// The error for an end that cannot be trusted.
pub(crate) fn unsound(stream: i64) -> StoreError {
    errors::damaged(None, format!("the index over the versions of stream number {stream} is damaged at its end"))
}

/// Returns the version and the position in the last entry of a stream, as stored; 0 if there is none.
pub(crate) fn last_entry(connection: &Connection, stream: i64) -> Result<(i64, i64), StoreError> {
    let last = connection
        .prepare_cached("SELECT version, position FROM es_event WHERE stream = ?1 ORDER BY version DESC LIMIT 1")
        .and_then(|mut statement| statement.query_row([stream], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(errors::store)?;
    Ok(last.unwrap_or_default())
}

/// Whether what follows the entries of a stream is valid there: the first entry of another stream, or the end of the
/// index.
fn ends_there(connection: &Connection, stream: i64, version: i64) -> Result<bool, StoreError> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT version FROM es_event WHERE stream > ?1 ORDER BY stream, version LIMIT 1")
        .and_then(|mut statement| statement.query_row([stream], |row| row.get(0)).optional())
        .map_err(errors::store)?;
    let can_be_there = match first {
        Some(first) => first == 1,
        // No stream has a higher number, and if the last event of the log belongs to this one, it is its last.
        None => connection
            .prepare_cached(
                "SELECT (SELECT max(id) FROM es_stream), stream, version FROM es_event NOT INDEXED
                 ORDER BY position DESC LIMIT 1",
            )
            .and_then(|mut statement| {
                let ends = |row: &Row<'_>| -> rusqlite::Result<(i64, i64, i64)> {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                };
                statement.query_row([], ends).optional()
            })
            .map_err(errors::store)?
            .is_some_and(|(highest, of, at)| highest == stream && (of != stream || at == version)),
    };
    Ok(can_be_there || were_deleted(connection)?)
}

/// Whether events were deleted, so that a stream may start after version 1, or have no events left.
pub(crate) fn were_deleted(connection: &Connection) -> Result<bool, StoreError> {
    Ok(meta::integer(connection, meta::GENERATION)?.is_some_and(|generation| generation > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opening::open;

    #[test]
    fn a_stream_is_read_by_its_index_in_either_direction() {
        let connection = open::memory(1 << 20).unwrap();
        for conditions in ["", " AND (+type NOT IN (1,2) OR version > ?2)"] {
            for (beyond, order) in [('>', ""), ('<', " DESC")] {
                let explain = format!("EXPLAIN QUERY PLAN {}{order} LIMIT ?2", rows("*", beyond, conditions));
                let plan = connection.query_row(&explain, (0, 10, 1), |row| row.get::<_, String>(3)).unwrap();
                assert!(plan.starts_with("SEARCH es_event USING INDEX es_event_version"), "{plan}");
            }
        }
    }

    #[test]
    fn the_ends_of_a_stream_are_found_without_a_row_of_the_log() {
        let connection = open::memory(1 << 20).unwrap();
        for sql in [
            "SELECT version FROM es_event WHERE stream = 1 ORDER BY version DESC LIMIT 2",
            "SELECT version FROM es_event WHERE stream > 1 ORDER BY stream, version LIMIT 1",
            "SELECT version, position FROM es_event WHERE stream = 1 ORDER BY version DESC LIMIT 1",
        ] {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let plan = connection.query_row(&explain, [], |row| row.get::<_, String>(3)).unwrap();
            assert!(plan.starts_with("SEARCH es_event USING COVERING INDEX es_event_version"), "{plan}");
        }
    }
}
