//! The list of streams.

use es_framework::{ListStreams, Position, StoreError, StreamId, StreamInfo, Version};
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::errors;
use crate::tables::interned::{self, stream_sum};
use crate::tables::log;
use crate::tables::rows::natural;

/// Lists streams in the order of their first events, within a transaction of the caller's.
pub(crate) fn list(connection: &Connection, list: &ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
    let after = match &list.after {
        None => 0,
        Some(after) => match log::stream_number(connection, after)? {
            Some(number) => number,
            None => return Ok(Vec::new()),
        },
    };
    let condition = if list.category.is_some() { "category = ?1 AND" } else { "?1 IS NULL AND" };
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT id, name, category, checksum,
                (SELECT max(version) FROM es_event WHERE stream = es_stream.id)
             FROM es_stream WHERE {condition} id > ?2 ORDER BY id LIMIT ?3"
        ))
        .map_err(errors::store)?;
    let limit = i64::try_from(list.limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((list.category.as_deref(), after, limit)).map_err(errors::store)?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next().map_err(errors::store)? {
        let id: i64 = row.get(0).map_err(errors::store)?;
        let name: String = row.get(1).map_err(errors::store)?;
        let category: String = row.get(2).map_err(errors::store)?;
        let checksum: i32 = row.get(3).map_err(errors::store)?;
        let version: Option<i64> = row.get(4).map_err(errors::store)?;
        if stream_sum(id, &name, &category).stored() != checksum {
            return Err(errors::damaged(None, format!("the checksum of stream number {id} does not fit")));
        }
        let stream =
            StreamId::new(name).map_err(|_| errors::damaged(None, format!("stream number {id} has no valid name")))?;
        streams.push(StreamInfo::new(stream, Version::new(natural(version.unwrap_or(0), None)?)));
    }
    Ok(streams)
}

/// The stream with a number.
pub(crate) fn by_number(connection: &Connection, number: i64) -> Result<Option<StreamInfo>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM es_stream WHERE id = ?1").map_err(errors::store)?;
    if !statement.exists([number]).map_err(errors::store)? {
        return Ok(None);
    }
    let stream = interned::read_stream(connection, number, Position::ZERO)?;
    Ok(Some(StreamInfo::new(stream, log::version(connection, number)?)))
}
