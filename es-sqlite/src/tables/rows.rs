//! Rows of the log as events.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use es_framework::engine::checksum;
use es_framework::{
    EventHeader, EventId, Filter, Metadata, Position, StoreError, StoreId, StoredEvent, StreamId, Tags, Timestamp,
    Version,
};
use tokio_rusqlite::rusqlite::types::ValueRef;
use tokio_rusqlite::rusqlite::{Connection, Row};

use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::row_sum::RowSum;
use crate::tables::tags;

/// The columns that [`Header::of`] and [`event`] expect. The payload is last: it is often not needed, and SQLite does
/// not read beyond the last requested column.
pub(crate) const COLUMNS: &str = "position, stream, version, type, time, checksum, id, metadata, payload";

/// The same in a store with tags, which come last: they are not needed to skip an event with a long payload either.
pub(crate) const TAGGED_COLUMNS: &str = "position, stream, version, type, time, checksum, id, metadata, payload, tags";

/// The place of the tags among the columns.
const TAGS: usize = 9;

/// The type of an event whose content was removed.
pub(crate) const REMOVED: i64 = 0;

/// The numbers at the start of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) position: Position,
    pub(crate) stream: i64,
    pub(crate) version: Version,
    pub(crate) event_type: i64,
    pub(crate) time: Timestamp,
    pub(crate) checksum: u32,
}

/// A column's value, or what is wrong with it; small, because nine are read per row.
type Column<T> = Result<T, &'static str>;

/// The columns after the header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'r> {
    id: ValueRef<'r>,
    metadata: Option<&'r str>,
    payload: &'r [u8],
    tags: ValueRef<'r>,
}

impl Content<'_> {
    /// The number of payload and metadata bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + self.metadata.map_or(0, str::len)
    }
}

impl Header {
    pub(crate) fn of(row: &Row<'_>) -> Result<Self, StoreError> {
        Self::columns(row).map_err(|reason| {
            let position = integer(row, 0).ok().and_then(|position| u64::try_from(position).ok());
            errors::damaged(position.map(Position::new), reason)
        })
    }

    fn columns(row: &Row<'_>) -> Column<Self> {
        let place =
            |column| integer(row, column).and_then(|place| u64::try_from(place).map_err(|_| "a place is negative"));
        Ok(Self {
            position: Position::new(place(0)?),
            stream: integer(row, 1)?,
            version: Version::new(place(2)?),
            event_type: integer(row, 3)?,
            time: Timestamp::from_micros(integer(row, 4)?),
            checksum: i32::try_from(integer(row, 5)?)
                .map_err(|_| "the checksum has more than 32 bits")?
                .cast_unsigned(),
        })
    }

    /// Whether the event passes a filter; its payload is not read.
    pub(crate) fn passes(
        &self,
        filter: &Filter,
        row: &Row<'_>,
        connection: &Connection,
        names: &mut Names,
    ) -> Result<bool, StoreError> {
        let event_type = Arc::clone(names.event_type(connection, self.event_type, self.position)?);
        let tags = self.named(tags(row), connection, names)?;
        let stream = names.stream(connection, self.stream, self.position)?;
        Ok(filter.matches(&EventHeader {
            stream: stream.as_str(),
            version: self.version,
            position: self.position,
            time: self.time,
            event_type: event_type.name(),
            metadata: metadata(row).map_err(|reason| self.damaged(reason))?,
            tags: &tags,
        }))
    }

    /// Whether the event has the tag with this number.
    pub(crate) fn has_tag(&self, row: &Row<'_>, wanted: i64) -> Result<bool, StoreError> {
        let mut found = false;
        self.each_tag(row, |number| found |= number == wanted)?;
        Ok(found)
    }

    /// Calls `each` with the numbers of the event's tags, in order.
    pub(crate) fn each_tag(&self, row: &Row<'_>, mut each: impl FnMut(i64)) -> Result<(), StoreError> {
        let read = tags::each_number(tags(row), |number| {
            each(number);
            Ok(())
        });
        read.unwrap_or_else(|reason| Err(self.damaged(reason)))
    }

    /// The tags in a list of numbers.
    fn named(&self, list: ValueRef<'_>, connection: &Connection, names: &mut Names) -> Result<Tags, StoreError> {
        if list == ValueRef::Null {
            return Ok(Tags::new());
        }
        let mut named = Vec::new();
        let read = tags::each_number(list, |number| {
            named.push(names.tag(connection, number, self.position)?.clone());
            Ok(())
        });
        read.unwrap_or_else(|reason| Err(self.damaged(reason)))?;
        Ok(named.into_iter().collect())
    }

    /// Reads the columns after the header.
    pub(crate) fn content<'r>(&self, row: &'r Row<'_>) -> Result<Content<'r>, StoreError> {
        let columns = || -> Column<Content<'r>> {
            Ok(Content { id: value(row, 6)?, metadata: metadata(row)?, payload: payload(row)?, tags: tags(row) })
        };
        columns().map_err(|reason| self.damaged(reason))
    }

    /// Returns the event, its checksum verified. Its bytes are appended to those of other events in `buffer`.
    pub(crate) fn event(
        &self,
        content: Content<'_>,
        connection: &Connection,
        names: &mut Names,
        store: StoreId,
        buffer: &mut BytesMut,
    ) -> Result<StoredEvent, StoreError> {
        let at = self.position;
        let event_type = Arc::clone(names.event_type(connection, self.event_type, at)?);
        let stream: StreamId = names.stream(connection, self.stream, at)?.clone();
        let payload = keep(buffer, content.payload);
        let metadata = content.metadata.and_then(|text| Metadata::from_stored(keep(buffer, text.as_bytes())));
        let id = match content.id {
            ValueRef::Null => EventId::derived(store, at),
            id => written_id(id).map_err(|reason| self.damaged(reason))?,
        };
        let tags = self.named(content.tags, connection, names)?;
        let Self { version, time, checksum, .. } = *self;
        let event =
            StoredEvent::from_stored(stream, version, at, time, id, event_type, payload, metadata, tags, checksum);
        if event.computed_checksum() == checksum { Ok(event) } else { Err(self.damaged("the checksum does not match")) }
    }

    /// Verifies an event that is skipped as strictly as one that is returned.
    pub(crate) fn verify(&self, row: &Row<'_>, connection: &Connection, names: &mut Names) -> Result<(), StoreError> {
        if self.event_type == REMOVED {
            return self.verify_removed(row);
        }
        let Content { id, metadata, payload, tags } = self.content(row)?;
        let tags = self.named(tags, connection, names)?;
        let event_type = Arc::clone(names.event_type(connection, self.event_type, self.position)?);
        let stream = names.stream(connection, self.stream, self.position)?;
        let id = match id {
            ValueRef::Null => None,
            id => Some(written_id(id).map_err(|reason| self.damaged(reason))?),
        };
        let Self { position, version, time, .. } = *self;
        if checksum(position, stream, version, time, &event_type, id.as_ref(), metadata, &tags, payload)
            == self.checksum
        {
            Ok(())
        } else {
            Err(self.damaged("the checksum does not match"))
        }
    }

    pub(crate) fn damaged(&self, reason: impl Into<String>) -> StoreError {
        errors::damaged(Some(self.position), reason)
    }

    /// Verifies what remains of an event whose content was removed.
    pub(crate) fn verify_removed(&self, row: &Row<'_>) -> Result<(), StoreError> {
        let Content { id, payload, .. } = self.content(row)?;
        if payload == removed_sum(self, id).stored().to_le_bytes() {
            Ok(())
        } else {
            Err(self.damaged("the checksum of a removed event does not match"))
        }
    }
}

/// The checksum that replaces a removed event's payload.
pub(crate) fn removed_sum(header: &Header, id: ValueRef<'_>) -> RowSum {
    RowSum::of("removed")
        .integer(header.position.as_i64())
        .integer(header.stream)
        .integer(header.version.as_i64())
        .integer(header.time.as_micros())
        .integer(header.checksum.cast_signed().into())
        .value(id)
}

/// Allocates a page's buffer: large enough for small events to share, small if little is requested, and below the size
/// that glibc maps anew each time, which costs a fifth of a scan.
pub(crate) fn buffer(events: usize, bytes: usize) -> BytesMut {
    BytesMut::with_capacity(events.saturating_mul(128).min(bytes).clamp(256, 32 << 10))
}

fn keep(buffer: &mut BytesMut, bytes: &[u8]) -> Bytes {
    if bytes.is_empty() {
        return Bytes::new();
    }
    buffer.extend_from_slice(bytes);
    buffer.split().freeze()
}

fn written_id(id: ValueRef<'_>) -> Column<EventId> {
    const DAMAGED: &str = "the id is damaged";
    match id {
        ValueRef::Blob(bytes) => bytes.try_into().map(EventId::uuid).map_err(|_| DAMAGED),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| EventId::text(text).ok()).ok_or(DAMAGED),
        _ => Err(DAMAGED),
    }
}

fn metadata<'r>(row: &'r Row<'_>) -> Column<Option<&'r str>> {
    match value(row, 7)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(text) => std::str::from_utf8(text).map(Some).map_err(|_| "the metadata is not UTF-8"),
        _ => Err("the metadata is not a text"),
    }
}

fn payload<'r>(row: &'r Row<'_>) -> Column<&'r [u8]> {
    match value(row, 8)? {
        ValueRef::Blob(bytes) => Ok(bytes),
        _ => Err("the payload is not a blob"),
    }
}

/// The list of tags; NULL if there is no such column.
fn tags<'r>(row: &'r Row<'_>) -> ValueRef<'r> {
    row.get_ref(TAGS).unwrap_or(ValueRef::Null)
}

fn integer(row: &Row<'_>, column: usize) -> Column<i64> {
    match value(row, column)? {
        ValueRef::Integer(value) => Ok(value),
        _ => Err("a number of the event is not an integer"),
    }
}

fn value<'r>(row: &'r Row<'_>, column: usize) -> Column<ValueRef<'r>> {
    row.get_ref(column).map_err(|_| "a column is missing")
}

/// Converts a place to the framework's unsigned type.
pub(crate) fn natural(value: i64, at: Option<Position>) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| errors::damaged(at, format!("{value} is neither a position nor a version")))
}
