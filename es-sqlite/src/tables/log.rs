//! Questions to the log that readers and the writer ask alike.

use bytes::BytesMut;
use es_framework::{Position, StoreError, StoreId, StoredEvent, Timestamp};
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::meta;
use crate::tables::rows::{COLUMNS, Header, REMOVED, natural};

pub(crate) use crate::tables::stream_index::version;
pub(crate) use crate::tables::streams::number as stream_number;

/// The end of the log, as its last two rows show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogHead {
    /// The last position that was handed out. Where [`Self::is_sound`] is false it lies beyond the damage, so that a
    /// scan up to it meets the damage.
    pub(crate) position: Position,
    /// The time of the last event.
    pub(crate) time: Timestamp,
    /// The position of the last row.
    pub(crate) last: u64,
    /// Whether positions may be missing between rows: only where the store's generation says that rows were deleted.
    pub(crate) gaps: bool,
    /// Whether the last two rows follow each other. If they do not, the number of one of them is damaged.
    pub(crate) is_sound: bool,
}

impl LogHead {
    /// The error of a head that cannot be believed.
    pub(crate) fn sound(self) -> Result<Self, StoreError> {
        if self.is_sound {
            return Ok(self);
        }
        Err(errors::damaged(Some(self.position), "the last rows of the log do not follow each other"))
    }
}

/// Finds the end of the log, also where it is damaged.
///
/// The last row is found without a search, so it is the last in the file whatever its number says.
pub(crate) fn find_head(connection: &Connection) -> Result<LogHead, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT position, time FROM es_event NOT INDEXED ORDER BY position DESC LIMIT 2")
        .map_err(errors::store)?;
    let mut rows = statement.query([]).map_err(errors::store)?;
    let mut next = || -> Result<Option<(i64, i64)>, StoreError> {
        let Some(row) = rows.next().map_err(errors::store)? else { return Ok(None) };
        row.get(0).and_then(|position| Ok(Some((position, row.get(1)?)))).map_err(errors::store)
    };
    // Before the first event any time is later.
    let (last, time) = next()?.unwrap_or((0, i64::MIN));
    let before = next()?.map_or(0, |(position, _)| position);
    let floor = meta::integer(connection, meta::POSITION_FLOOR)?;
    let gaps = floor.is_some() || meta::integer(connection, meta::GENERATION)?.is_some_and(|generation| generation > 0);
    let is_sound = last == 0 || if gaps { last > before } else { last == before.saturating_add(1) };
    let position = if is_sound { last } else { last.max(before.saturating_add(1)).max(1) };
    let time = match meta::integer(connection, meta::TIME_FLOOR)? {
        Some(floor) => time.max(floor),
        None => time,
    };
    Ok(LogHead {
        position: Position::new(natural(position.max(floor.unwrap_or(0)), None)?),
        time: Timestamp::from_micros(time),
        last: natural(last.max(0), None)?,
        gaps,
        is_sound,
    })
}

/// The last position and time that were given.
pub(crate) fn head(connection: &Connection) -> Result<(Position, Timestamp), StoreError> {
    let LogHead { position, time, .. } = find_head(connection)?.sound()?;
    Ok((position, time))
}

/// The bytes of events that are read for watchers, who hold no more in their ring; beyond that they read pages.
const FOR_WATCHERS: usize = 4 << 20;

/// The events after `after`, `limit` at the most; [`None`] if they are too large to be held all at once.
pub(crate) fn events_after(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    after: Position,
    limit: u32,
) -> Result<Option<Vec<StoredEvent>>, StoreError> {
    let head = find_head(connection)?.sound()?;
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM es_event NOT INDEXED WHERE position > ?1 ORDER BY position LIMIT ?2"))
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
