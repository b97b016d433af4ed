//! Reading by the merged index: the table first, then what is in memory.

use es_framework::{Position, Version};
use es_sqlite::rusqlite::{self, Connection, Row};

use super::{Key, Merged};
use crate::Result;
use crate::floor::{COLUMNS, scan};

/// Reads a whole stream and every column; returns the number of events, and a sum over the columns.
///
/// Positions grow with versions within a stream, so the table holds the beginning of the stream and memory its end.
pub fn load(connection: &Connection, merged: &Merged, stream: i64) -> Result<(u64, u64)> {
    let sql = format!(
        "SELECT e.{} FROM es_stream_version v CROSS JOIN es_event e ON e.position = v.position
         WHERE v.stream = ?1 AND v.version > ?2 ORDER BY v.version",
        COLUMNS.replace(", ", ", e.")
    );
    let (mut count, mut sum) = scan(connection, &sql, (stream, 0))?;
    let sql = format!("SELECT {COLUMNS} FROM es_event WHERE position = ?1");
    let all = (stream, Version::ZERO)..=(stream, Version::MAX);
    for (_, position) in merged.run.range(all.clone()).chain(merged.tail.range(all)) {
        let (found, looked) = scan(connection, &sql, [position.as_i64()])?;
        count += found;
        sum = sum.wrapping_add(looked);
    }
    Ok((count, sum))
}

/// Compares memory and table with a scan of the whole log; returns the number of entries.
pub fn verify(connection: &Connection, merged: &Merged) -> Result<usize> {
    let mut log = Vec::new();
    after(connection, Position::ZERO, |key, position| log.push((key, position)))?;
    log.sort_unstable();
    let mut index: Vec<(Key, Position)> = Vec::new();
    let mut statement = connection.prepare("SELECT stream, version, position FROM es_stream_version")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        index.push(entry(row)?);
    }
    index.extend(merged.run.iter().chain(&merged.tail).map(|(key, position)| (*key, *position)));
    index.sort_unstable();
    if index == log {
        Ok(log.len())
    } else {
        Err(format!("the index has {} entries, the log {}, and they differ", index.len(), log.len()).into())
    }
}

/// The entries of the log after a position, in log order. No payload is read.
pub(super) fn after(connection: &Connection, after: Position, mut each: impl FnMut(Key, Position)) -> Result<()> {
    let mut statement = connection
        .prepare_cached("SELECT stream, version, position FROM es_event WHERE position > ?1 ORDER BY position")?;
    let mut rows = statement.query([after.as_i64()])?;
    while let Some(row) = rows.next()? {
        let (key, position) = entry(row)?;
        each(key, position);
    }
    Ok(())
}

/// The last version of a stream that is in the table.
pub(super) fn merged_version(connection: &Connection, stream: i64) -> Result<Version> {
    let version: Option<i64> = connection
        .prepare_cached("SELECT max(version) FROM es_stream_version WHERE stream = ?1")?
        .query_row([stream], |row| row.get(0))?;
    Ok(Version::new(version.unwrap_or(0).unsigned_abs()))
}

pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<(Key, Position)> {
    let place = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(((row.get(0)?, Version::new(place(1)?)), Position::new(place(2)?)))
}
