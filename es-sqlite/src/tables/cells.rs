//! Small named values: the table `es_cell`.

use bytes::Bytes;
use es_framework::engine::CellFacts;
use es_framework::{Cell, CellError, CellKey, ListCells, StoreError};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use crate::connection::errors;
use crate::tables::row_sum::RowSum;
use crate::tables::rows::natural;

pub(crate) fn find(connection: &Connection, key: &CellKey) -> Result<Option<Cell>, StoreError> {
    let Some((revision, Some(value))) = row(connection, key)? else { return Ok(None) };
    Ok(Some(Cell::new(key.clone(), revision, value)))
}

/// Lists the cells that exist, in the order of their keys.
pub(crate) fn list(connection: &Connection, list: &ListCells) -> Result<Vec<Cell>, StoreError> {
    let mut statement = connection.prepare_cached(LIST).map_err(errors::store)?;
    // The keys with the prefix are consecutive, and no smaller than it.
    let after = list.after.as_ref().map_or("", CellKey::as_str);
    let mut rows = statement.query([after.max(&list.prefix)]).map_err(errors::store)?;
    let mut cells = Vec::new();
    while cells.len() < list.limit
        && let Some(row) = rows.next().map_err(errors::store)?
    {
        let key = row.get_ref(0).and_then(|key| Ok(key.as_str()?)).map_err(errors::store)?;
        if !key.starts_with(list.prefix.as_str()) {
            break;
        }
        if key == after {
            continue;
        }
        let key = CellKey::new(key).map_err(|_| errors::damaged(None, format!("{key:?} is not a cell key")))?;
        let columns = row.get(1).and_then(|revision| Ok((revision, row.get(2)?, row.get(3)?)));
        let (revision, value) = verified(&key, columns.map_err(errors::store)?)?;
        cells.extend(value.map(|value| Cell::new(key, revision, value)));
    }
    Ok(cells)
}

const LIST: &str = "SELECT key, revision, value, checksum FROM es_cell
     WHERE key >= ?1 AND value IS NOT NULL ORDER BY key";

/// Sets a cell, within the caller's write transaction.
pub(crate) fn set(
    connection: &Connection,
    key: &CellKey,
    expected: u64,
    value: Option<&Bytes>,
) -> Result<u64, CellError> {
    let revision = facts(connection, key)?.set(key, expected)?;
    write(connection, key, revision, value)?;
    Ok(revision)
}

/// What has to be known about a cell to set it.
pub(crate) fn facts(connection: &Connection, key: &CellKey) -> Result<CellFacts, StoreError> {
    Ok(match row(connection, key)? {
        Some((revision, Some(_))) => CellFacts::existing(revision),
        Some((revision, None)) => CellFacts::removed(revision),
        None => CellFacts::missing(),
    })
}

/// Writes a cell that was judged in the same transaction.
pub(crate) fn write(
    connection: &Connection,
    key: &CellKey,
    revision: u64,
    value: Option<&Bytes>,
) -> Result<(), StoreError> {
    let revision = i64::try_from(revision).map_err(|_| errors::internal("a cell has no revisions left"))?;
    let value = value.map(|value| &value[..]);
    connection
        .prepare_cached("INSERT OR REPLACE INTO es_cell (key, revision, value, checksum) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut statement| {
            statement.execute((key.as_str(), revision, value, sum(key, revision, value).stored()))
        })
        .map_err(errors::store)?;
    Ok(())
}

type CellRow = (u64, Option<Vec<u8>>);

fn row(connection: &Connection, key: &CellKey) -> Result<Option<CellRow>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT revision, value, checksum FROM es_cell WHERE key = ?1")
        .map_err(errors::store)?;
    let row = statement
        .query_row([key.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(errors::store)?;
    row.map(|columns| verified(key, columns)).transpose()
}

fn verified(key: &CellKey, columns: (i64, Option<Vec<u8>>, i32)) -> Result<CellRow, StoreError> {
    let (revision, value, checksum) = columns;
    if sum(key, revision, value.as_deref()).stored() != checksum {
        return Err(errors::damaged(None, format!("the checksum of cell {key} does not match")));
    }
    Ok((natural(revision, None)?, value))
}

fn sum(key: &CellKey, revision: i64, value: Option<&[u8]>) -> RowSum {
    RowSum::of("cell").text(key.as_str()).integer(revision).optional_blob(value)
}
