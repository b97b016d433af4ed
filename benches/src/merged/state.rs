//! The tables, and the row that records how far the table of entries is complete.

use std::fmt::Write as _;

use es_framework::{Position, Version};
use es_sqlite::rusqlite::{Connection, OptionalExtension as _};

use crate::Result;
use crate::floor::Sum;
use crate::spec::Index;

/// A stream's number and a version: the sort key of entries.
pub type Key = (i64, Version);

/// How far the table of entries is complete. There is no run if `complete` is `upto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// Every entry up to this position is in the table.
    pub complete: Position,
    /// The last position of the run.
    pub upto: Position,
    /// Every entry of the run up to this one is in the table.
    pub cursor: Key,
}

impl State {
    /// Before the first entry.
    pub const START: Key = (0, Version::ZERO);

    pub(super) fn read(connection: &Connection) -> Result<Self> {
        let row = connection
            .prepare_cached("SELECT complete, upto, stream, version, checksum FROM es_merge WHERE id = 1")?
            .query_row([], |row| {
                Ok(([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?], row.get::<_, i32>(4)?))
            })
            .optional()?;
        let Some(([complete, upto, stream, version], checksum)) = row else {
            return Err("there is no merged index".into());
        };
        let state = Self {
            complete: Position::new(complete.unsigned_abs()),
            upto: Position::new(upto.unsigned_abs()),
            cursor: (stream, Version::new(version.unsigned_abs())),
        };
        if state.sum() == checksum { Ok(state) } else { Err("the state of the merge is damaged".into()) }
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<()> {
        let (stream, version) = self.cursor;
        let row = (self.complete.as_i64(), self.upto.as_i64(), stream, version.as_i64(), self.sum());
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO es_merge (id, complete, upto, stream, version, checksum)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(row)?;
        Ok(())
    }

    fn sum(&self) -> i32 {
        let (stream, version) = self.cursor;
        let sum = Sum::of("merge").integer(1).integer(self.complete.as_i64()).integer(self.upto.as_i64());
        sum.integer(stream).integer(version.as_i64()).stored()
    }
}

/// Replaces the index of a store with another one, before anything is written. It sets no marker, because the floor
/// takes its pragmas from an engine, which would refuse.
pub fn replace_index(connection: &Connection, to: Index) -> Result<()> {
    if to != Index::InPlace {
        connection.execute_batch("DROP INDEX es_event_version")?;
    }
    if to == Index::Merged {
        make_tables(connection)?;
    }
    Ok(())
}

/// Creates the empty tables.
pub fn make_tables(connection: &Connection) -> Result<()> {
    connection.execute_batch(TABLES)?;
    State::default().write(connection)
}

/// `stream_log` has the columns of `log`. It looks a stream up in the table, and the newest events in the log itself;
/// `log` is unchanged, for queries by position.
const TABLES: &str = "
CREATE TABLE es_stream_version (
    stream INTEGER NOT NULL, version INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (stream, version)
) WITHOUT ROWID;
CREATE TABLE es_merge (
    id INTEGER PRIMARY KEY, complete INTEGER NOT NULL, upto INTEGER NOT NULL, stream INTEGER NOT NULL,
    version INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE VIEW stream_log AS
SELECT l.* FROM es_stream s JOIN es_stream_version v ON v.stream = s.id JOIN log l ON l.position = v.position
    AND l.stream = s.name AND l.version = v.version
WHERE v.position <= (SELECT complete FROM es_merge)
UNION ALL
SELECT l.* FROM log l WHERE l.position > (SELECT complete FROM es_merge);
";

/// Inserts entries, several per statement.
pub(super) fn insert(connection: &Connection, entries: &[(Key, Position)], rows: usize) -> Result<()> {
    let (whole, rest) = entries.split_at(entries.len() - entries.len() % rows);
    for (entries, at_once) in [(whole, rows), (rest, 1)] {
        let mut statement = connection.prepare_cached(&insert_statement(at_once))?;
        for chunk in entries.chunks_exact(at_once) {
            for (((stream, version), position), first) in chunk.iter().zip((1..).step_by(3)) {
                statement.raw_bind_parameter(first, stream)?;
                statement.raw_bind_parameter(first + 1, version.as_i64())?;
                statement.raw_bind_parameter(first + 2, position.as_i64())?;
            }
            statement.raw_execute()?;
        }
    }
    Ok(())
}

/// `OR FAIL` as in the engine: the whole transaction is rolled back if a row is rejected.
fn insert_statement(rows: usize) -> String {
    let mut sql = "INSERT OR FAIL INTO es_stream_version (stream, version, position) VALUES ".to_owned();
    for first in (1..).step_by(3).take(rows) {
        let comma = if first == 1 { "" } else { ", " };
        let _infallible = write!(sql, "{comma}(?{first}, ?{}, ?{})", first + 1, first + 2);
    }
    sql
}
