//! Pages of the tables' contents.

use std::sync::Arc;

use bytes::BytesMut;
use es_framework::inspect::{CheckpointInfo, Counts, Cursor, List, Listed, SnapshotInfo};
use es_framework::{
    Cell, CellKey, CommandKey, CommandRecord, EventId, EventIdKind, EventType, Position, ProjectionName, Snapshot,
    StoreError, StoreId, StoredEvent, StreamId, StreamInfo,
};
use tokio_rusqlite::rusqlite::types::{Value, ValueRef};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension, Params};

use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::rows::{Header, REMOVED, natural};
use crate::tables::{cells, commands, log, snapshots, streams};

/// Maximum number of streams searched for an event's id per page.
const STREAMS_LOOKED_THROUGH: i64 = 10_000;

pub(super) fn counts(connection: &Connection) -> Result<Counts, StoreError> {
    let count = |sql: &str| -> Result<u64, StoreError> {
        let count = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(errors::store)?;
        natural(count, None)
    };
    let mut counts = Counts::default();
    counts.head = log::find_head(connection)?.position;
    counts.events = count("SELECT count(*) FROM es_event")?;
    counts.streams = count("SELECT count(*) FROM es_stream")?;
    counts.types = count("SELECT count(*) FROM es_event_type")?;
    counts.commands = count("SELECT count(*) FROM es_command")?;
    counts.cells = count("SELECT count(*) FROM es_cell WHERE value IS NOT NULL")?;
    counts.snapshots = count("SELECT count(*) FROM es_snapshot")?;
    counts.bytes = count("PRAGMA page_count")? * count("PRAGMA page_size")?;
    Ok(counts)
}

/// The keys of a page, and where the next page starts. Each entry is read by its key, so that a damaged one does not
/// hide the others from [`verify`](super::verify).
pub(super) struct Keys<K> {
    pub(super) keys: Vec<K>,
    pub(super) next: Option<Cursor>,
}

impl<K> Keys<K> {
    /// Takes the keys of a page from a list with one more key than it can hold.
    fn of(list: &List, mut keys: Vec<K>, cursor: impl Fn(&K) -> String) -> Self {
        let more = keys.len() > list.limit;
        keys.truncate(list.limit);
        let next = keys.last().filter(|_| more).map(|last| Cursor::new(cursor(last)));
        Self { keys, next }
    }

    fn read<T>(self, entry: impl FnMut(&K) -> Result<Option<T>, StoreError>) -> Result<Listed<T>, StoreError> {
        let items = self.keys.iter().map(entry).filter_map(Result::transpose).collect::<Result<_, _>>()?;
        Ok(Listed::new(items, self.next))
    }
}

pub(super) fn streams(connection: &Connection, list: &List) -> Result<Listed<StreamInfo>, StoreError> {
    stream_numbers(connection, list)?.read(|number| streams::by_number(connection, *number))
}

pub(super) fn stream_numbers(connection: &Connection, list: &List) -> Result<Keys<i64>, StoreError> {
    let order = if list.newest_first { "id < ?1 ORDER BY id DESC" } else { "id > ?1 ORDER BY id" };
    let start = number(list, if list.newest_first { i64::MAX } else { 0 })?;
    let sql = format!("SELECT id FROM es_stream WHERE substr(name, 1, length(?2)) = ?2 AND {order} LIMIT ?3");
    let numbers = column(connection, &sql, (start, &list.prefix, one_more(list)))?;
    Ok(Keys::of(list, numbers, ToString::to_string))
}

pub(super) fn types(
    connection: &Connection,
    names: &mut Names,
    list: &List,
) -> Result<Listed<Arc<EventType>>, StoreError> {
    type_numbers(connection, list)?.read(|number| {
        names.event_type(connection, *number, Position::ZERO).map(|event_type| Some(Arc::clone(event_type)))
    })
}

pub(super) fn type_numbers(connection: &Connection, list: &List) -> Result<Keys<i64>, StoreError> {
    let sql = "SELECT id FROM es_event_type WHERE substr(name, 1, length(?2)) = ?2 AND id > ?1 ORDER BY id LIMIT ?3";
    let numbers = column(connection, sql, (number(list, 0)?, &list.prefix, one_more(list)))?;
    Ok(Keys::of(list, numbers, ToString::to_string))
}

pub(super) fn tag_numbers(connection: &Connection, list: &List) -> Result<Keys<i64>, StoreError> {
    let sql = "SELECT id FROM es_tag WHERE id > ?1 ORDER BY id LIMIT ?2";
    let numbers = column(connection, sql, (number(list, 0)?, one_more(list)))?;
    Ok(Keys::of(list, numbers, ToString::to_string))
}

pub(super) fn cells(connection: &Connection, list: &List) -> Result<Listed<Cell>, StoreError> {
    cell_keys(connection, list)?.read(|key| cell(connection, key))
}

pub(super) fn cell_keys(connection: &Connection, list: &List) -> Result<Keys<String>, StoreError> {
    let sql = "SELECT key FROM es_cell
         WHERE value IS NOT NULL AND substr(key, 1, length(?2)) = ?2 AND key > ?1 ORDER BY key LIMIT ?3";
    let keys = column(connection, sql, (text(list), &list.prefix, one_more(list)))?;
    Ok(Keys::of(list, keys, String::clone))
}

pub(super) fn cell(connection: &Connection, key: &str) -> Result<Option<Cell>, StoreError> {
    let key = CellKey::new(key).map_err(|_| not_a_name("cell", key))?;
    cells::find(connection, &key)
}

pub(super) fn commands(connection: &Connection, list: &List) -> Result<Listed<CommandRecord>, StoreError> {
    command_keys(connection, list)?.read(|key| command(connection, key))
}

pub(super) fn command_keys(connection: &Connection, list: &List) -> Result<Keys<String>, StoreError> {
    let sql = "SELECT key FROM es_command WHERE substr(key, 1, length(?2)) = ?2 AND key > ?1 ORDER BY key LIMIT ?3";
    let keys = column(connection, sql, (text(list), &list.prefix, one_more(list)))?;
    Ok(Keys::of(list, keys, String::clone))
}

pub(super) fn command(connection: &Connection, key: &str) -> Result<Option<CommandRecord>, StoreError> {
    let key = CommandKey::new(key).map_err(|_| not_a_name("command", key))?;
    commands::find(connection, &key)
}

pub(super) fn snapshots(connection: &Connection, list: &List) -> Result<Listed<SnapshotInfo>, StoreError> {
    snapshot_keys(connection, list)?.read(|key| match snapshot(connection, key) {
        Ok(Some(Snapshot { stream, name, at, fingerprint, time, state, .. })) => {
            Ok(Some(SnapshotInfo::new(stream, name, at, fingerprint, time, state.len() as u64)))
        }
        // It reads as missing, here as when it is loaded.
        Ok(None) | Err(StoreError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    })
}

/// Stream and name, joined with a line break, which neither of them contains.
pub(super) fn snapshot_keys(connection: &Connection, list: &List) -> Result<Keys<String>, StoreError> {
    let (stream, name) = text(list).split_once('\n').unwrap_or_default();
    let sql = "SELECT stream || char(10) || name FROM es_snapshot
         WHERE substr(stream, 1, length(?3)) = ?3 AND (stream, name) > (?1, ?2) ORDER BY stream, name LIMIT ?4";
    let keys = column(connection, sql, (stream, name, &list.prefix, one_more(list)))?;
    Ok(Keys::of(list, keys, String::clone))
}

pub(super) fn snapshot(connection: &Connection, key: &str) -> Result<Option<Snapshot>, StoreError> {
    let (stream, name) = key.split_once('\n').unwrap_or_default();
    let stream = StreamId::new(stream).map_err(|_| not_a_name("snapshot", key))?;
    let name = ProjectionName::new(name).map_err(|_| not_a_name("snapshot", key))?;
    snapshots::read(connection, &stream, &name)
}

pub(super) fn checkpoints(connection: &Connection, list: &List) -> Result<Listed<CheckpointInfo>, StoreError> {
    checkpoint_names(connection, list)?.read(|name| checkpoint(connection, name).map(Some))
}

/// The projections whose read models live in this file.
pub(super) fn checkpoint_names(connection: &Connection, list: &List) -> Result<Keys<String>, StoreError> {
    let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'projection_checkpoints'";
    if connection.query_row(exists, [], |_| Ok(())).optional().map_err(errors::store)?.is_none() {
        return Ok(Keys { keys: Vec::new(), next: None });
    }
    // A view, or the table of an earlier release.
    let sql = "SELECT name FROM projection_checkpoints
         WHERE substr(name, 1, length(?2)) = ?2 AND name > ?1 ORDER BY name LIMIT ?3";
    let names = column(connection, sql, (text(list), &list.prefix, one_more(list)))?;
    Ok(Keys::of(list, names, String::clone))
}

pub(super) fn checkpoint(connection: &Connection, name: &str) -> Result<CheckpointInfo, StoreError> {
    let sql = "SELECT store, position FROM projection_checkpoints WHERE name = ?1";
    let (store, position) = connection
        .query_row(sql, [name], |row| {
            let store = match row.get_ref(0)? {
                ValueRef::Blob(bytes) => <[u8; 16]>::try_from(bytes).ok(),
                digits => u128::from_str_radix(digits.as_str()?, 16).ok().map(u128::to_be_bytes),
            };
            Ok((store, row.get::<_, i64>(1)?))
        })
        .map_err(errors::store)?;
    let store = store.ok_or_else(|| errors::damaged(None, format!("the checkpoint of {name} is damaged")))?;
    let name = ProjectionName::new(name).map_err(|_| not_a_name("checkpoint", name))?;
    Ok(CheckpointInfo::new(name, StoreId::from_bytes(store), Position::new(natural(position, None)?)))
}

pub(super) fn events_with_id(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    id: &EventId,
    list: &List,
) -> Result<Listed<StoredEvent>, StoreError> {
    let columns = names.columns();
    let wanted = match id.kind() {
        EventIdKind::Derived(of, position) => {
            let sql = format!("SELECT {columns} FROM es_event WHERE position = ?1 AND id IS NULL");
            let at = if of == store { position.as_i64() } else { 0 };
            let found = events(connection, names, store, &sql, [at])?;
            return Ok(Listed::new(found, None));
        }
        EventIdKind::Uuid(bytes) => Value::Blob(bytes.to_vec()),
        EventIdKind::Text(text) => Value::Text(text.to_owned()),
        _ => return Ok(Listed::new(Vec::new(), None)),
    };
    let sql = format!("SELECT {columns} FROM es_event INDEXED BY es_event_id WHERE stream = ?1 AND id = ?2");
    let after = number(list, 0)?;
    let last: i64 = connection
        .query_row("SELECT coalesce(max(id), 0) FROM es_stream", [], |row| row.get(0))
        .map_err(errors::store)?;
    let upto = after.saturating_add(STREAMS_LOOKED_THROUGH).min(last);
    let mut found = Vec::new();
    for stream in after + 1..=upto {
        found.extend(events(connection, names, store, &sql, (stream, &wanted))?);
        if found.len() >= list.limit && stream < last {
            return Ok(Listed::new(found, Some(Cursor::new(stream.to_string()))));
        }
    }
    let next = (upto < last).then(|| Cursor::new(upto.to_string()));
    Ok(Listed::new(found, next))
}

fn events(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    sql: &str,
    params: impl Params,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(errors::store)?;
    let mut rows = statement.query(params).map_err(errors::store)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(errors::store)? {
        let header = Header::of(row)?;
        if header.event_type != REMOVED {
            let content = header.content(row)?;
            found.push(header.event(content, connection, names, store, &mut BytesMut::new())?);
        }
    }
    Ok(found)
}

fn one_more(list: &List) -> i64 {
    i64::try_from(list.limit.max(1)).unwrap_or(i64::MAX).saturating_add(1)
}

fn column<T: tokio_rusqlite::rusqlite::types::FromSql>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(errors::store)?;
    let rows = statement.query_map(params, |row| row.get(0)).map_err(errors::store)?;
    rows.collect::<Result<_, _>>().map_err(errors::store)
}

fn text(list: &List) -> &str {
    list.after.as_ref().map_or("", Cursor::as_str)
}

fn number(list: &List, start: i64) -> Result<i64, StoreError> {
    let Some(after) = &list.after else { return Ok(start) };
    after.as_str().parse().map_err(|_| StoreError::InvalidCursor { cursor: after.as_str().to_owned() })
}

fn not_a_name(what: &str, key: &str) -> StoreError {
    errors::damaged(None, format!("the {what} {key:?} has no valid name"))
}
