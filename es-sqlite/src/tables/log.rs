//! Questions to the log that readers and the writer ask alike.

use bytes::BytesMut;
use es_framework::{Position, StoreError, StoreId, StoredEvent, StreamId, Timestamp, Version};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::meta;
use crate::tables::rows::{COLUMNS, Header, REMOVED, natural};

/// The last position and time that were given.
pub(crate) fn head(connection: &Connection) -> Result<(Position, Timestamp), StoreError> {
    let last = connection
        .prepare_cached("SELECT position, time FROM es_event ORDER BY position DESC LIMIT 1")
        .and_then(|mut statement| {
            statement.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).optional()
        })
        .map_err(errors::store)?;
    // Before the first event any time is later.
    let (position, time) = last.unwrap_or((0, i64::MIN));
    let position = position.max(meta::integer(connection, meta::POSITION_FLOOR)?.unwrap_or(0));
    let time = match meta::integer(connection, meta::TIME_FLOOR)? {
        Some(floor) => time.max(floor),
        None => time,
    };
    Ok((Position::new(natural(position, None)?), Timestamp::from_micros(time)))
}

/// The number of a stream; [`None`] if it was never written.
pub(crate) fn stream_number(connection: &Connection, stream: &StreamId) -> Result<Option<i64>, StoreError> {
    connection
        .prepare_cached("SELECT id FROM es_stream WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([stream.as_str()], |row| row.get(0)).optional())
        .map_err(errors::store)
}

/// The version of the stream with this number.
pub(crate) fn version(connection: &Connection, stream: i64) -> Result<Version, StoreError> {
    let version = connection
        .prepare_cached("SELECT max(version) FROM es_event WHERE stream = ?1")
        .and_then(|mut statement| statement.query_row([stream], |row| row.get::<_, Option<i64>>(0)))
        .map_err(errors::store)?;
    Ok(Version::new(natural(version.unwrap_or(0), None)?))
}

/// The bytes of events that are read for watchers, who hold no more in their ring; beyond that they read pages.
const FOR_WATCHERS: usize = 4 << 20;

/// The events after `after`, at most so many; [`None`] if they are too large to be held all at once.
pub(crate) fn events_after(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    after: Position,
    limit: u32,
) -> Result<Option<Vec<StoredEvent>>, StoreError> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM es_event WHERE position > ?1 ORDER BY position LIMIT ?2"))
        .map_err(errors::store)?;
    let mut rows = statement.query((after.as_i64(), limit)).map_err(errors::store)?;
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut buffer = BytesMut::new();
    while let Some(row) = rows.next().map_err(errors::store)? {
        let header = Header::of(row)?;
        if header.event_type != REMOVED {
            let content = header.content(row)?;
            bytes += content.bytes();
            if bytes > FOR_WATCHERS {
                return Ok(None);
            }
            events.push(header.event(content, connection, names, store, &mut buffer)?);
        }
    }
    Ok(Some(events))
}
