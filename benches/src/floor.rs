//! The physical limit: plain rusqlite on the same schema, without async, locks, checks or lookups.
//!
//! It writes the same rows as the engine, checksums included, with the pragmas of the engine's own connection, and
//! counts versions and positions itself.

use std::fmt::Write as _;
use std::path::Path;

use es_framework::engine::checksum;
use es_framework::{EventId, EventType, Position, StreamId, SystemClock, Timestamp, Version};
use es_sqlite::SqliteStore;
use es_sqlite::rusqlite::types::{Null, ValueRef};
use es_sqlite::rusqlite::{self, Connection, Row, Statement};

use crate::Result;
use crate::spec::Mode;

/// The type name of untyped events.
pub const TYPE: &str = "account.deposited";

/// The columns of an event, the payload last.
pub const COLUMNS: &str = "position, stream, version, type, time, checksum, id, metadata, payload";

/// The pragmas that are copied from the engine's connection.
const PRAGMAS: [&str; 6] =
    ["synchronous", "cache_size", "wal_autocheckpoint", "journal_size_limit", "temp_store", "mmap_size"];

/// A connection that writes.
#[derive(Debug)]
pub struct Floor {
    /// The connection.
    pub connection: Connection,
    position: Position,
    streams: i64,
    event_type: EventType,
    rows: usize,
    insert_one: String,
    insert_rows: String,
}

/// A stream as its writer tracks it.
#[derive(Debug, Clone)]
pub struct FloorStream {
    id: StreamId,
    number: i64,
    version: Version,
}

impl FloorStream {
    /// Its number and its last version.
    pub fn head(&self) -> (i64, Version) {
        (self.number, self.version)
    }
}

/// One row to be inserted.
struct NewRow<'a> {
    stream: &'a FloorStream,
    version: Version,
    id: Option<EventId>,
    payload: &'a [u8],
}

impl Floor {
    /// Creates a store with the engine and opens it with plain rusqlite. `rows` is the number of rows per INSERT.
    pub async fn make(path: &Path, mode: Mode, rows: usize) -> Result<Self> {
        let connection = connect(path, mode).await?;
        let event_type = EventType::new(TYPE, 1, "raw")?;
        connection.execute(
            "INSERT OR IGNORE INTO es_event_type (id, name, schema_version, codec, shape, checksum)
             VALUES (1, ?1, 1, 'raw', NULL, ?2)",
            (TYPE, Sum::of("event_type").integer(1).text(TYPE).integer(1).text("raw").null().stored()),
        )?;
        let last = "SELECT coalesce(max(position), 0), (SELECT coalesce(max(id), 0) FROM es_stream) FROM es_event";
        let (position, streams): (i64, i64) = connection.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Self {
            connection,
            position: Position::new(position.unsigned_abs()),
            streams,
            event_type,
            rows,
            insert_one: insert_statement(1),
            insert_rows: insert_statement(rows),
        })
    }

    /// The last position.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    /// Commits it.
    pub fn commit(&self) -> Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Adds a stream.
    pub fn add_stream(&mut self, name: &str) -> Result<FloorStream> {
        self.streams += 1;
        let id = StreamId::new(name)?;
        let sum = Sum::of("stream").integer(self.streams).text(name).text(id.category()).stored();
        self.connection
            .prepare_cached("INSERT INTO es_stream (id, name, category, checksum) VALUES (?1, ?2, ?3, ?4)")?
            .execute((self.streams, name, id.category(), sum))?;
        Ok(FloorStream { id, number: self.streams, version: Version::ZERO })
    }

    /// A stream that already exists.
    pub fn stream(&self, name: &str) -> Result<FloorStream> {
        let sql =
            "SELECT id, (SELECT max(version) FROM es_event WHERE stream = es_stream.id) FROM es_stream WHERE name = ?1";
        let known = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?));
        let (number, version) = self.connection.prepare_cached(sql)?.query_row([name], known)?;
        Ok(FloorStream { id: StreamId::new(name)?, number, version: Version::new(version.unsigned_abs()) })
    }

    /// All streams that already exist.
    pub fn streams(&self) -> Result<Vec<FloorStream>> {
        let mut streams = Vec::new();
        let mut statement = self.connection.prepare("SELECT id, name FROM es_stream ORDER BY id")?;
        for row in statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))? {
            let (number, name) = row?;
            streams.push(FloorStream { id: StreamId::new(name)?, number, version: Version::ZERO });
        }
        // In the order of positions, the last version of a stream comes last: no index is needed.
        let mut statement = self.connection.prepare("SELECT stream, version FROM es_event NOT INDEXED")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (number, version): (i64, i64) = (row.get(0)?, row.get(1)?);
            let stream = usize::try_from(number - 1).ok().and_then(|n| streams.get_mut(n)).ok_or("no such stream")?;
            stream.version = Version::new(version.unsigned_abs());
        }
        Ok(streams)
    }

    /// Inserts one event into each of these streams.
    pub fn insert_each(&mut self, streams: &mut [&mut FloorStream], payload: &[u8]) -> Result<()> {
        let rows = streams.iter().map(|stream| NewRow { stream, version: stream.version.next(), id: None, payload });
        let rows: Vec<NewRow<'_>> = rows.collect();
        self.insert(&rows)?;
        for stream in streams {
            stream.version = stream.version.next();
        }
        Ok(())
    }

    /// Inserts one event per payload into one stream.
    pub fn insert_into(&mut self, stream: &mut FloorStream, payloads: &[Vec<u8>], ids: Option<u64>) -> Result<()> {
        let mut version = stream.version;
        let mut rows = Vec::with_capacity(payloads.len());
        for (n, payload) in (0..).zip(payloads) {
            version = version.next();
            let id = ids.map(|first| EventId::text(event_id(first + n))).transpose()?;
            rows.push(NewRow { stream, version, id, payload });
        }
        self.insert(&rows)?;
        stream.version = version;
        Ok(())
    }

    fn insert(&mut self, rows: &[NewRow<'_>]) -> Result<()> {
        let time = es_framework::Clock::now(&SystemClock);
        let mut position = self.position;
        let (whole, rest) = rows.split_at(rows.len() - rows.len() % self.rows);
        for (sql, rows, at_once) in [(&self.insert_rows, whole, self.rows), (&self.insert_one, rest, 1)] {
            let mut statement = self.connection.prepare_cached(sql)?;
            for chunk in rows.chunks_exact(at_once) {
                statement.raw_bind_parameter(1, time.as_micros())?;
                for (n, row) in chunk.iter().enumerate() {
                    position = position.next();
                    self.bind(&mut statement, 2 + n * 6, row, position, time)?;
                }
                statement.raw_execute()?;
            }
        }
        self.position = position;
        Ok(())
    }

    fn bind(
        &self,
        statement: &mut Statement<'_>,
        first: usize,
        row: &NewRow<'_>,
        position: Position,
        time: Timestamp,
    ) -> rusqlite::Result<()> {
        let NewRow { stream, version, id, payload } = row;
        let sum = checksum(position, &stream.id, *version, time, &self.event_type, id.as_ref(), None, &[], payload);
        statement.raw_bind_parameter(first, position.as_i64())?;
        statement.raw_bind_parameter(first + 1, stream.number)?;
        statement.raw_bind_parameter(first + 2, version.as_i64())?;
        statement.raw_bind_parameter(first + 3, sum.cast_signed())?;
        match id.as_ref().map(EventId::kind) {
            Some(es_framework::EventIdKind::Text(text)) => statement.raw_bind_parameter(first + 4, text)?,
            _ => statement.raw_bind_parameter(first + 4, Null)?,
        }
        statement.raw_bind_parameter(first + 5, payload)
    }
}

/// The nth id of 12 bytes.
pub fn event_id(n: u64) -> String {
    format!("event-{n:06}")
}

/// Opens a connection with the pragmas of the engine's own; creates the store if there is none.
pub async fn connect(path: &Path, mode: Mode) -> Result<Connection> {
    let store = SqliteStore::builder().durability(mode.durability()).open(path).await?;
    let pragmas = store.transact(|connection| {
        let of = |name: &&str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        PRAGMAS.iter().map(|name| of(name).map(|value| (*name, value))).collect::<rusqlite::Result<Vec<_>>>()
    });
    let pragmas = pragmas.await?;
    store.close().await?;
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    for (name, value) in pragmas {
        connection.pragma_update(None, name, value)?;
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Reads rows and every column of them; returns the number of rows, and a sum over the columns.
pub fn scan(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<(u64, u64)> {
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(parameters)?;
    let (mut count, mut sum) = (0, 0_u64);
    while let Some(row) = rows.next()? {
        count += 1;
        for column in 0..columns {
            sum = sum.wrapping_add(match row.get_ref(column)? {
                ValueRef::Integer(value) => value.unsigned_abs(),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                    bytes.len() as u64 + bytes.last().map_or(0, |b| (*b).into())
                }
                _ => 1,
            });
        }
    }
    Ok((count, sum))
}

fn insert_statement(rows: usize) -> String {
    let mut sql = format!("INSERT INTO es_event ({COLUMNS}) VALUES ");
    for row in 0..rows {
        let [position, stream, version, sum, id, payload] = [2, 3, 4, 5, 6, 7].map(|n| n + row * 6);
        let comma = if row == 0 { "" } else { ", " };
        let _infallible =
            write!(sql, "{comma}(?{position}, ?{stream}, ?{version}, 1, ?1, ?{sum}, ?{id}, NULL, ?{payload})");
    }
    sql
}

/// The checksum of rows other than events; see `docs/file-format.md`.
pub(crate) struct Sum(u32);

impl Sum {
    pub(crate) fn of(table: &str) -> Self {
        Self(0).text(table)
    }

    pub(crate) fn integer(self, value: i64) -> Self {
        self.bytes(&[1]).bytes(&value.to_le_bytes())
    }

    fn null(self) -> Self {
        self.bytes(&[0])
    }

    pub(crate) fn text(self, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.bytes(&[2]).bytes(&length.to_le_bytes()).bytes(text.as_bytes())
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, bytes))
    }

    pub(crate) fn stored(self) -> i32 {
        self.0.cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_engine_reads_what_the_floor_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let mut floor = Floor::make(&path, Mode::Normal, 4).await.unwrap();
        floor.begin().unwrap();
        let mut a = floor.add_stream("account-a").unwrap();
        let mut b = floor.add_stream("account-b").unwrap();
        floor.insert_into(&mut a, &vec![vec![7; 10]; 6], Some(1)).unwrap();
        floor.insert_each(&mut [&mut a, &mut b], b"x").unwrap();
        floor.commit().unwrap();
        drop(floor);

        let store = SqliteStore::open(&path).await.unwrap();
        let events = store.all().read().collect().await.unwrap();
        assert_eq!(events.len(), 8);
        assert_eq!(events.last().unwrap().stream.as_str(), "account-b");
        assert_eq!(store.open_stream("account-a").unwrap().version().await.unwrap(), Version::new(7));
        store.close().await.unwrap();
        let known = Floor::make(&path, Mode::Normal, 4).await.unwrap().stream("account-a").unwrap();
        assert_eq!((known.number, known.version), (1, Version::new(7)));
    }
}
