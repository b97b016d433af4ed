//! Facts about the store: the table `es_meta`.

use es_framework::{StoreError, StoreId};
use tokio_rusqlite::rusqlite::types::{Value, ValueRef};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use crate::connection::errors;
use crate::tables::row_sum::RowSum;

const STORE_ID: &str = "store_id";
pub(crate) const GENERATION: &str = "generation";
pub(crate) const POSITION_FLOOR: &str = "position_floor";
pub(crate) const TIME_FLOOR: &str = "time_floor";
const WRITE_REQUIRES: &str = "write_requires";

/// The features that this release can preserve when it writes; see `write_requires` in `docs/file-format.md`.
const FEATURES: [&str; 1] = ["tags"];

pub(crate) fn store_id(connection: &Connection) -> Result<StoreId, StoreError> {
    match value(connection, STORE_ID)? {
        Some(Value::Blob(bytes)) => {
            bytes.try_into().map(StoreId::from_bytes).map_err(|_| errors::damaged(None, "the store's id is damaged"))
        }
        _ => Err(errors::damaged(None, "the store has no id")),
    }
}

pub(crate) fn set_store_id(connection: &Connection, id: StoreId) -> Result<(), StoreError> {
    set(connection, STORE_ID, ValueRef::Blob(&id.to_bytes()))
}

pub(crate) fn integer(connection: &Connection, key: &str) -> Result<Option<i64>, StoreError> {
    match value(connection, key)? {
        None => Ok(None),
        Some(Value::Integer(value)) => Ok(Some(value)),
        Some(_) => Err(errors::damaged(None, format!("the store's `{key}` is not an integer"))),
    }
}

pub(crate) fn set_integer(connection: &Connection, key: &str, value: i64) -> Result<(), StoreError> {
    set(connection, key, ValueRef::Integer(value))
}

/// Rejects a store that this release would damage by writing.
pub(crate) fn check_write_requires(connection: &Connection) -> Result<(), StoreError> {
    let Some(value) = value(connection, WRITE_REQUIRES)? else { return Ok(()) };
    let Value::Text(features) = value else {
        return Err(errors::damaged(None, "the store's `write_requires` is not a text"));
    };
    let mut named = features.split(',').map(str::trim).filter(|feature| !feature.is_empty());
    match named.find(|feature| !FEATURES.contains(feature)) {
        Some(feature) => Err(StoreError::WriteRequires { feature: feature.to_owned() }),
        None => Ok(()),
    }
}

/// Adds a feature to those that a process must know before it may write.
pub(crate) fn add_write_requires(connection: &Connection, feature: &str) -> Result<(), StoreError> {
    let features = match value(connection, WRITE_REQUIRES)? {
        Some(Value::Text(features)) if !features.trim().is_empty() => format!("{features},{feature}"),
        _ => feature.to_owned(),
    };
    set(connection, WRITE_REQUIRES, ValueRef::Text(features.as_bytes()))
}

fn value(connection: &Connection, key: &str) -> Result<Option<Value>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT value, checksum FROM es_meta WHERE key = ?1").map_err(errors::store)?;
    let row = statement
        .query_row([key], |row| Ok((row.get::<_, Value>(0)?, row.get::<_, i32>(1)?)))
        .optional()
        .map_err(errors::store)?;
    let Some((value, checksum)) = row else { return Ok(None) };
    if sum(key, ValueRef::from(&value)).stored() != checksum {
        return Err(errors::damaged(None, format!("the checksum of the store's `{key}` does not match")));
    }
    Ok(Some(value))
}

fn set(connection: &Connection, key: &str, value: ValueRef<'_>) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO es_meta (key, value, checksum) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute((key, Value::try_from(value)?, sum(key, value).stored())))
        .map_err(errors::store)?;
    Ok(())
}

fn sum(key: &str, value: ValueRef<'_>) -> RowSum {
    RowSum::of("meta").text(key).value(value)
}
