//! Where the events of a stream are: the one room that asks the index over (`stream`, `version`).

use es_framework::{StoreError, Version};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use crate::connection::errors;
use crate::tables::meta;
use crate::tables::rows::natural;

/// The rows of a stream beyond version `?1`, whose number is `?3`; `beyond` is `>` forward and `<` backward. It names
/// no index: a later feature may do without the one that SQLite takes, and this build may still read.
pub(crate) fn rows(columns: &str, beyond: char, conditions: &str) -> String {
    format!("SELECT {columns} FROM es_event WHERE stream = ?3 AND version {beyond} ?1{conditions} ORDER BY version")
}

/// The end of a stream, as the index shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// The version of the last event. Where [`Self::is_sound`] is false it lies beyond the damage, so that a scan up to
    /// it meets the damage.
    pub(crate) version: Version,
    /// Whether the entries at the end of the stream follow each other.
    pub(crate) is_sound: bool,
}

/// Finds the end of the stream with this number, also where the index is damaged.
///
/// An entry of the index has no checksum, so its neighbours are asked. The last two entries of the stream follow each
/// other, or the version of one of them is damaged. The entry behind them is the first of another stream, or it is one
/// of this stream's with a damaged number. A stream that has a number has an event.
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
    let behind = last.max(before.saturating_add(1));
    let (version, is_sound) = if last < 1 || last != before.saturating_add(1) {
        (behind, false)
    } else if follows_another(connection, stream)? {
        (last, true)
    } else {
        (last.saturating_add(1), false)
    };
    Ok(Found { version: Version::new(natural(version, None)?), is_sound })
}

/// The version of the stream with this number.
pub(crate) fn version(connection: &Connection, stream: i64) -> Result<Version, StoreError> {
    let Found { version, is_sound } = find(connection, stream)?;
    if is_sound { Ok(version) } else { Err(unsound(stream)) }
}

/// The error of an end that cannot be believed.
pub(crate) fn unsound(stream: i64) -> StoreError {
    errors::damaged(None, format!("the index over the versions of stream number {stream} is damaged at its end"))
}

/// Whether the entry behind those of a stream can be there.
fn follows_another(connection: &Connection, stream: i64) -> Result<bool, StoreError> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT version FROM es_event WHERE stream > ?1 ORDER BY stream, version LIMIT 1")
        .and_then(|mut statement| statement.query_row([stream], |row| row.get(0)).optional())
        .map_err(errors::store)?;
    // Where events were deleted a stream may begin later.
    Ok(first.is_none_or(|first| first == 1) || meta::integer(connection, meta::GENERATION)?.is_some_and(|n| n > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::open;

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
        ] {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let plan = connection.query_row(&explain, [], |row| row.get::<_, String>(3)).unwrap();
            assert!(plan.starts_with("SEARCH es_event USING COVERING INDEX es_event_version"), "{plan}");
        }
    }
}
