//! Queries on the log that both readers and the writer use.

use bytes::BytesMut;
use es_framework::{Position, StoreError, StoreId, StoredEvent, Timestamp};
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::meta;
use crate::tables::rows::{Header, REMOVED, natural};
use crate::tables::stream_index;

pub(crate) use crate::tables::stream_index::version;
pub(crate) use crate::tables::streams::number as stream_number;

/// The end of the log, according to its last two rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogHead {
    /// The last position that was assigned.
    pub(crate) position: Position,
    /// The time of the last event.
    pub(crate) time: Timestamp,
    /// The position of the last row.
    pub(crate) last: u64,
    /// Whether there may be gaps between positions: only if the store's generation says that rows were deleted.
    pub(crate) gaps: bool,
    /// Whether the last two rows are consecutive. If they are not, the number of one of them is damaged, or rows
    /// between them are missing.
    pub(crate) follows: bool,
    /// Whether nothing indicates that there was a row after the last one: it can be understood, and its stream ends with
    /// it.
    pub(crate) ends_there: bool,
}

impl LogHead {
    /// Fails if the head cannot be trusted.
    pub(crate) fn sound(self) -> Result<Self, StoreError> {
        if self.follows && self.ends_there {
            return Ok(self);
        }
        Err(errors::damaged(
            Some(self.position),
            "the last rows of the log do not follow each other, or some are missing",
        ))
    }
}

/// Finds the end of the log, even if it is damaged.
///
/// The last row is found without a search, so it is the last in the file whatever its number is.
pub(crate) fn find_head(connection: &Connection) -> Result<LogHead, StoreError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT position, time, stream, version FROM es_event NOT INDEXED ORDER BY position DESC LIMIT 2",
        )
        .map_err(errors::store)?;
    let mut rows = statement.query([]).map_err(errors::store)?;
    // Any time is later than that of an empty log.
    let (mut last, mut time, mut before, mut ends_there) = (0_i64, i64::MIN, 0_i64, true);
    if let Some(row) = rows.next().map_err(errors::store)? {
        last = row.get(0).map_err(errors::store)?;
        // A damaged column is reported when the row is read.
        if let (Ok(at), Ok(stream), Ok(at_version)) = (row.get(1), row.get(2), row.get::<_, i64>(3)) {
            time = at;
            let (version, position) = stream_index::last_entry(connection, stream)?;
            ends_there = position <= last || version <= at_version;
        } else {
            ends_there = false;
        }
    }
    if let Some(row) = rows.next().map_err(errors::store)? {
        before = row.get(0).map_err(errors::store)?;
    }
    let floor = meta::integer(connection, meta::POSITION_FLOOR)?;
    let generation = meta::integer(connection, meta::GENERATION)?;
    let generation = generation.ok_or_else(|| errors::damaged(None, "the store has no generation"))?;
    let gaps = floor.is_some() || generation > 0;
    let follows = last == 0 || if gaps { last > before } else { last == before.saturating_add(1) };
    let position = last.max(before).max(floor.unwrap_or(0));
    let time = match meta::integer(connection, meta::TIME_FLOOR)? {
        Some(floor) => time.max(floor),
        None => time,
    };
    Ok(LogHead {
        position: Position::new(natural(position, None)?),
        time: Timestamp::from_micros(time),
        last: natural(last.max(0), None)?,
        gaps,
        follows,
        ends_there,
    })
}

/// Returns the last position and time that were assigned.
pub(crate) fn head(connection: &Connection) -> Result<(Position, Timestamp), StoreError> {
    let LogHead { position, time, .. } = find_head(connection)?.sound()?;
    Ok((position, time))
}

/// Maximum bytes of events that are read for watchers, whose ring holds no more; beyond that they read pages.
const FOR_WATCHERS: usize = 4 << 20;

/// Returns the events after `after`, at most `limit`; [`None`] if they are too large to hold at once.
pub(crate) fn events_after(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    after: Position,
    limit: u32,
) -> Result<Option<Vec<StoredEvent>>, StoreError> {
    let head = find_head(connection)?.sound()?;
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {} FROM es_event NOT INDEXED WHERE position > ?1 ORDER BY position LIMIT ?2",
            names.columns()
        ))
        .map_err(errors::store)?;
    let mut rows = statement.query((after.as_i64(), limit)).map_err(errors::store)?;
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut buffer = BytesMut::new();
    let (mut last, mut count) = (after, 0);
    while let Some(row) = rows.next().map_err(errors::store)? {
        let header = Header::of(row)?;
        if header.position <= last || !head.gaps && header.position != last.next() {
            return Err(errors::damaged(Some(last.next()), "the rows of the log do not follow each other"));
        }
        (last, count) = (header.position, count + 1);
        if header.event_type == REMOVED {
            header.verify_removed(row)?;
            continue;
        }
        let content = header.content(row)?;
        bytes += content.bytes();
        if bytes > FOR_WATCHERS {
            return Ok(None);
        }
        events.push(header.event(content, connection, names, store, &mut buffer)?);
    }
    if count < limit && last.get() < head.last {
        return Err(errors::damaged(Some(last.next()), "the rows of the log end before its last one"));
    }
    Ok(Some(events))
}
