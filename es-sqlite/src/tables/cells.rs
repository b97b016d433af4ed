//! Small named values: the table `es_cell`.

use bytes::Bytes;
use es_framework::{Cell, CellError, CellKey, StoreError};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use crate::connection::errors;
use crate::tables::row_sum::RowSum;
use crate::tables::rows::natural;

pub(crate) fn find(connection: &Connection, key: &CellKey) -> Result<Option<Cell>, StoreError> {
    let Some((revision, Some(value))) = row(connection, key)? else { return Ok(None) };
    Ok(Some(Cell::new(key.clone(), revision, value)))
}

/// Sets a cell, within the caller's write transaction.
pub(crate) fn set(
    connection: &Connection,
    key: &CellKey,
    expected: u64,
    value: Option<&Bytes>,
) -> Result<u64, CellError> {
    let (before, exists) = row(connection, key)?.map_or((0, false), |(revision, value)| (revision, value.is_some()));
    let actual = if exists { before } else { 0 };
    if actual != expected {
        return Err(CellError::Changed { key: key.clone(), expected, actual });
    }
    let revision = i64::try_from(before + 1).map_err(|_| errors::internal("a cell has no revisions left"))?;
    let value = value.map(|value| &value[..]);
    connection
        .prepare_cached("INSERT OR REPLACE INTO es_cell (key, revision, value, checksum) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut statement| {
            statement.execute((key.as_str(), revision, value, sum(key, revision, value).stored()))
        })
        .map_err(errors::store)?;
    Ok(before + 1)
}

type CellRow = (u64, Option<Vec<u8>>);

fn row(connection: &Connection, key: &CellKey) -> Result<Option<CellRow>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT revision, value, checksum FROM es_cell WHERE key = ?1")
        .map_err(errors::store)?;
    let row = statement
        .query_row([key.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, i32>(2)?)))
        .optional()
        .map_err(errors::store)?;
    let Some((revision, value, checksum)) = row else { return Ok(None) };
    let value: Option<Vec<u8>> = value;
    if sum(key, revision, value.as_deref()).stored() != checksum {
        return Err(errors::damaged(None, format!("the checksum of cell {key} does not match")));
    }
    Ok(Some((natural(revision, None)?, value)))
}

fn sum(key: &CellKey, revision: i64, value: Option<&[u8]>) -> RowSum {
    RowSum::of("cell").text(key.as_str()).integer(revision).optional_blob(value)
}
