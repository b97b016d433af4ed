//! Streams and their numbers: the table `es_stream`.

use es_framework::{ListStreams, Position, StoreError, StreamId, StreamInfo};
use tokio_rusqlite::rusqlite::types::ValueRef;
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension, Row};

use crate::connection::errors;
use crate::tables::interned::{self, stream_sum};
use crate::tables::stream_index;

/// The first name that is not before the requested one: the name itself, or the next one.
const FROM: &str = "SELECT id, name, category, checksum FROM es_stream WHERE name >= ?1 ORDER BY name LIMIT 1";
/// The name before it.
const BEFORE: &str = "SELECT id, name, category, checksum FROM es_stream WHERE name < ?1 ORDER BY name DESC LIMIT 1";

/// Returns the number of a stream; [`None`] if it was never written.
///
/// An entry of the index over names is trusted only if the row it leads to confirms it. An entry whose text is damaged
/// is still stored where its name belongs, and a search misled by it ends next to it. So if a name is not found, the
/// entries on both sides are checked too.
pub(crate) fn number(connection: &Connection, stream: &StreamId) -> Result<Option<i64>, StoreError> {
    match entry(connection, FROM, stream)? {
        None => entry(connection, BEFORE, stream),
        found => Ok(found),
    }
}

/// The number in an entry; [`None`] if it belongs to another stream.
fn entry(connection: &Connection, sql: &str, stream: &StreamId) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(errors::store)?;
    let mut rows = statement.query([stream.as_str()]).map_err(errors::store)?;
    let Some(row) = rows.next().map_err(errors::store)? else { return Ok(None) };
    let id: i64 = row.get(0).map_err(errors::store)?;
    let is_asked_for = matches!(row.get_ref(1), Ok(ValueRef::Text(name)) if name == stream.as_str().as_bytes());
    if is_whole(row, id) {
        return Ok(is_asked_for.then_some(id));
    }
    // The name came from the index. If the row has a name of its own, the entry is damaged and misleads searches that
    // compare names with it. If it has none, the damage is that of the stream that the entry names.
    if is_asked_for || has_a_name(connection, id)? { Err(damaged(stream)) } else { Ok(None) }
}

fn damaged(stream: &StreamId) -> StoreError {
    errors::damaged(None, format!("stream {stream} cannot be found: the index over names is damaged"))
}

/// Whether the columns of a row of `es_stream` match its checksum.
fn is_whole(row: &Row<'_>, id: i64) -> bool {
    let text = |column| row.get_ref(column).ok().and_then(|value| value.as_str().ok());
    let (Some(name), Some(category), Ok(checksum)) = (text(1), text(2), row.get::<_, i32>(3)) else { return false };
    stream_sum(id, name, category).stored() == checksum
}

/// Whether a row is intact on its own.
fn has_a_name(connection: &Connection, id: i64) -> Result<bool, StoreError> {
    let whole = connection
        .prepare_cached("SELECT id, name, category, checksum FROM es_stream NOT INDEXED WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([id], |row| Ok(is_whole(row, id))).optional())
        .map_err(errors::store)?;
    Ok(whole.unwrap_or(false))
}

/// Lists streams in the order of their first events, within the caller's transaction.
pub(crate) fn list(connection: &Connection, list: &ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
    let after = match &list.after {
        None => 0,
        Some(after) => match number(connection, after)? {
            Some(number) => number,
            None => return Ok(Vec::new()),
        },
    };
    let condition = if list.category.is_some() { "category = ?1 AND" } else { "?1 IS NULL AND" };
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT id, name, category, checksum FROM es_stream WHERE {condition} id > ?2 ORDER BY id LIMIT ?3"
        ))
        .map_err(errors::store)?;
    let limit = i64::try_from(list.limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((list.category.as_deref(), after, limit)).map_err(errors::store)?;
    let mut streams = Vec::new();
    let mut last = after;
    while let Some(row) = rows.next().map_err(errors::store)? {
        let id: i64 = row.get(0).map_err(errors::store)?;
        // Numbers are assigned consecutively, and rows are never deleted.
        let follows = if list.category.is_some() { id > last } else { id == last + 1 };
        if !follows || !is_whole(row, id) {
            return Err(errors::damaged(
                None,
                format!("the row of stream number {id} is damaged, or one before it is missing"),
            ));
        }
        last = id;
        let name: String = row.get(1).map_err(errors::store)?;
        let stream =
            StreamId::new(name).map_err(|_| errors::damaged(None, format!("stream number {id} has no valid name")))?;
        streams.push(StreamInfo::new(stream, stream_index::version(connection, id)?));
    }
    Ok(streams)
}

/// Returns the stream with a number.
pub(crate) fn by_number(connection: &Connection, number: i64) -> Result<Option<StreamInfo>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM es_stream WHERE id = ?1").map_err(errors::store)?;
    if !statement.exists([number]).map_err(errors::store)? {
        return Ok(None);
    }
    let stream = interned::read_stream(connection, number, Position::ZERO)?;
    Ok(Some(StreamInfo::new(stream, stream_index::version(connection, number)?)))
}
