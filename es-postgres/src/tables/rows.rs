//! Rows of the log as events.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use es_framework::{
    EventHeader, EventId, Filter, Metadata, Position, StoreError, StoreId, StoredEvent, Tag, Tags, Timestamp, Version,
};
use tokio_postgres::Row;

use crate::connection::errors;
use crate::connection::values::{Uuid, natural};
use crate::tables::names::PageNames;

/// The columns of an event's row, in the order in which they are read.
pub(crate) const COLUMNS: &str =
    "position, stream, version, type, time, checksum, id, id_text, metadata, tags, payload";
/// The columns that a filter can see.
pub(crate) const HEADER: &str = "position, stream, version, type, time, checksum, metadata, tags";

/// The numbers at the start of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) position: Position,
    pub(crate) stream: i64,
    pub(crate) version: Version,
    pub(crate) event_type: i32,
    pub(crate) time: Timestamp,
    pub(crate) checksum: u32,
}

impl Header {
    pub(crate) fn of(row: &Row) -> Result<Self, StoreError> {
        let position: i64 = column(row, 0, None)?;
        let position = Position::new(natural(position, None)?);
        let at = Some(position);
        Ok(Self {
            position,
            stream: column(row, 1, at)?,
            version: Version::new(natural(column(row, 2, at)?, at)?),
            event_type: column(row, 3, at)?,
            time: Timestamp::from_micros(column(row, 4, at)?),
            checksum: column::<i32>(row, 5, at)?.cast_unsigned(),
        })
    }

    /// Whether an event passes a filter; the row has the columns of [`HEADER`].
    pub(crate) fn passes(&self, filter: &Filter, row: &Row, names: &PageNames) -> Result<bool, StoreError> {
        let tags = tags(row, 7, self.position)?;
        Ok(filter.matches(&EventHeader {
            stream: names.stream(self.stream, self.position)?.as_str(),
            version: self.version,
            position: self.position,
            time: self.time,
            event_type: names.event_type(self.event_type, self.position)?.name(),
            metadata: column(row, 6, Some(self.position))?,
            tags: &tags,
        }))
    }

    /// Returns the event, its checksum verified. Its bytes are appended to those of other events in `buffer`.
    pub(crate) fn event(
        &self,
        row: &Row,
        names: &PageNames,
        store: StoreId,
        buffer: &mut BytesMut,
    ) -> Result<StoredEvent, StoreError> {
        let Self { position, version, time, checksum, .. } = *self;
        let at = Some(position);
        let (uuid, text): (Option<Uuid>, Option<&str>) = (column(row, 6, at)?, column(row, 7, at)?);
        let id = match (uuid, text) {
            (None, None) => EventId::derived(store, position),
            (Some(uuid), None) => EventId::uuid(uuid.0),
            (None, Some(text)) => EventId::text(text).map_err(|_| errors::damaged(at, "its id is damaged"))?,
            (Some(_), Some(_)) => return Err(errors::damaged(at, "it has two ids")),
        };
        let metadata: Option<&str> = column(row, 8, at)?;
        let metadata = metadata.and_then(|text| Metadata::from_stored(keep(buffer, text.as_bytes())));
        let tags = tags(row, 9, position)?;
        let payload = keep(buffer, column(row, 10, at)?);
        let event_type = Arc::clone(names.event_type(self.event_type, position)?);
        let stream = names.stream(self.stream, position)?.clone();
        let event = StoredEvent::from_stored(
            stream, version, position, time, id, event_type, payload, metadata, tags, checksum,
        );
        if event.computed_checksum() == checksum {
            Ok(event)
        } else {
            Err(errors::damaged(at, "the checksum does not match"))
        }
    }
}

/// The tags of an event.
fn tags(row: &Row, at: usize, position: Position) -> Result<Tags, StoreError> {
    let Some(texts) = column::<Option<Vec<&str>>>(row, at, Some(position))? else { return Ok(Tags::new()) };
    let tags = texts
        .into_iter()
        .map(|text| Tag::new(text).map_err(|_| errors::damaged(Some(position), "a tag of it is damaged")));
    tags.collect()
}

/// The value of a column; a value that does not fit is damage.
pub(crate) fn column<'r, T: tokio_postgres::types::FromSql<'r>>(
    row: &'r Row,
    column: usize,
    at: Option<Position>,
) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| errors::damaged(at, errors::with_cause(&error)))
}

/// Allocates a page's buffer: large enough for small events to share, small if little is requested.
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
