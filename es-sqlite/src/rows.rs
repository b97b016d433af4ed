//! Rows of the log as events.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use es_framework::{
    EventHeader, EventId, EventType, Filter, Metadata, Position, StoreError, StoreId, StoredEvent, StreamId, Timestamp,
    Version,
};
use tokio_rusqlite::rusqlite::types::ValueRef;
use tokio_rusqlite::rusqlite::{Connection, Row};

use crate::errors;
use crate::names::Names;
use crate::row_sum::RowSum;

/// The columns that [`Header::of`] and [`event`] expect, the payload last: it is often not looked at, and SQLite does
/// not read what lies behind the last column that was asked for.
pub(crate) const COLUMNS: &str = "position, stream, version, type, time, checksum, id, metadata, payload";

/// The type of an event whose content was removed.
pub(crate) const REMOVED: i64 = 0;

/// The numbers at the head of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) position: Position,
    pub(crate) stream: i64,
    pub(crate) version: Version,
    pub(crate) event_type: i64,
    pub(crate) time: Timestamp,
    pub(crate) checksum: u32,
}

impl Header {
    pub(crate) fn of(row: &Row<'_>) -> Result<Self, StoreError> {
        let position = Position::new(natural(integer(row, 0, None)?, None)?);
        let at = Some(position);
        let checksum = i32::try_from(integer(row, 5, at)?);
        Ok(Self {
            position,
            stream: integer(row, 1, at)?,
            version: Version::new(natural(integer(row, 2, at)?, at)?),
            event_type: integer(row, 3, at)?,
            time: Timestamp::from_micros(integer(row, 4, at)?),
            checksum: checksum.map_err(|_| errors::damaged(at, "the checksum has more than 32 bits"))?.cast_unsigned(),
        })
    }

    /// Whether a filter lets the event through; its payload is not looked at.
    pub(crate) fn passes(
        &self,
        filter: &Filter,
        row: &Row<'_>,
        connection: &Connection,
        names: &mut Names,
    ) -> Result<bool, StoreError> {
        let event_type = Arc::clone(names.event_type(connection, self.event_type, self.position)?);
        let stream = names.stream(connection, self.stream, self.position)?;
        Ok(filter.matches(&EventHeader {
            stream: stream.as_str(),
            version: self.version,
            position: self.position,
            time: self.time,
            event_type: event_type.name(),
            metadata: metadata(row, self.position)?,
        }))
    }

    /// The payload and metadata bytes of the event.
    pub(crate) fn bytes(&self, row: &Row<'_>) -> Result<usize, StoreError> {
        Ok(payload(row, self.position)?.len() + metadata(row, self.position)?.map_or(0, str::len))
    }

    /// The event, its checksum verified. Its bytes are put behind those of other events in `buffer`.
    pub(crate) fn event(
        &self,
        row: &Row<'_>,
        connection: &Connection,
        names: &mut Names,
        store: StoreId,
        buffer: &mut BytesMut,
    ) -> Result<StoredEvent, StoreError> {
        let at = self.position;
        let event_type = Arc::clone(names.event_type(connection, self.event_type, at)?);
        let stream: StreamId = names.stream(connection, self.stream, at)?.clone();
        let payload = keep(buffer, payload(row, at)?);
        let metadata = match metadata(row, at)? {
            Some(text) => Metadata::from_stored(keep(buffer, text.as_bytes())),
            None => None,
        };
        let id = id(row, at)?.unwrap_or_else(|| EventId::derived(store, at));
        self.verified(stream, id, event_type, payload, metadata)
    }

    fn verified(
        &self,
        stream: StreamId,
        id: EventId,
        event_type: Arc<EventType>,
        payload: Bytes,
        metadata: Option<Metadata>,
    ) -> Result<StoredEvent, StoreError> {
        let Self { version, position, time, checksum, .. } = *self;
        let event =
            StoredEvent::from_stored(stream, version, position, time, id, event_type, payload, metadata, checksum);
        if event.computed_checksum() == checksum {
            Ok(event)
        } else {
            Err(errors::damaged(Some(position), "the checksum does not fit"))
        }
    }

    /// Verifies what is left of an event whose content was removed.
    pub(crate) fn verify_removed(&self, row: &Row<'_>) -> Result<(), StoreError> {
        let sum = removed_sum(self, value(row, 6, Some(self.position))?);
        if payload(row, self.position)? == sum.stored().to_le_bytes() {
            Ok(())
        } else {
            Err(errors::damaged(Some(self.position), "the checksum of a removed event does not fit"))
        }
    }
}

/// The checksum that stands in the place of a removed event's payload.
pub(crate) fn removed_sum(header: &Header, id: ValueRef<'_>) -> RowSum {
    RowSum::of("removed")
        .integer(header.position.as_i64())
        .integer(header.stream)
        .integer(header.version.as_i64())
        .integer(header.time.as_micros())
        .integer(header.checksum.cast_signed().into())
        .value(id)
}

/// A page's buffer: large enough for small events to share, small where little is asked for.
pub(crate) fn buffer(events: usize, bytes: usize) -> BytesMut {
    BytesMut::with_capacity(events.saturating_mul(128).min(bytes).clamp(256, 128 << 10))
}

fn keep(buffer: &mut BytesMut, bytes: &[u8]) -> Bytes {
    if bytes.is_empty() {
        return Bytes::new();
    }
    buffer.extend_from_slice(bytes);
    buffer.split().freeze()
}

fn id(row: &Row<'_>, at: Position) -> Result<Option<EventId>, StoreError> {
    let damaged = || errors::damaged(Some(at), "the id is damaged");
    match value(row, 6, Some(at))? {
        ValueRef::Null => Ok(None),
        ValueRef::Blob(bytes) => bytes.try_into().map(|bytes| Some(EventId::uuid(bytes))).map_err(|_| damaged()),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| damaged())?;
            EventId::text(text).map(Some).map_err(|_| damaged())
        }
        _ => Err(damaged()),
    }
}

fn metadata<'r>(row: &'r Row<'_>, at: Position) -> Result<Option<&'r str>, StoreError> {
    match value(row, 7, Some(at))? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(errors::damaged(Some(at), "the metadata is not UTF-8")),
        },
        _ => Err(errors::damaged(Some(at), "the metadata is not a text")),
    }
}

fn payload<'r>(row: &'r Row<'_>, at: Position) -> Result<&'r [u8], StoreError> {
    match value(row, 8, Some(at))? {
        ValueRef::Blob(bytes) => Ok(bytes),
        _ => Err(errors::damaged(Some(at), "the payload is not a blob")),
    }
}

fn integer(row: &Row<'_>, column: usize, at: Option<Position>) -> Result<i64, StoreError> {
    match value(row, column, at)? {
        ValueRef::Integer(value) => Ok(value),
        _ => Err(errors::damaged(at, format!("column {column} of the event is not an integer"))),
    }
}

/// A place as the ground floor has it.
pub(crate) fn natural(value: i64, at: Option<Position>) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| errors::damaged(at, format!("{value} is neither a position nor a version")))
}

fn value<'r>(row: &'r Row<'_>, column: usize, at: Option<Position>) -> Result<ValueRef<'r>, StoreError> {
    row.get_ref(column).map_err(|error| match at {
        Some(at) => errors::store_at(at, error),
        None => errors::store(error),
    })
}
