//! The records of consumers: the table `projection_records`, and the view `projection_checkpoints` for people.

use bytes::Bytes;
use es_framework::{Checkpoint, CheckpointRecord, Mark, Position, ProjectionName, StoreId};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension, Result, params};

/// The table.
pub(crate) const TABLE: &str = "projection_records";
/// The view.
pub(crate) const VIEW: &str = "projection_checkpoints";

/// The encoding of a checkpoint has fixed widths, so that SQL can take it apart: see `CheckpointRecord`.
const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS projection_records (
        name TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name, key)
    ) WITHOUT ROWID;
    CREATE VIEW IF NOT EXISTS projection_checkpoints (name, store, position, checksum, term, events) AS
        SELECT name, substr(text, 3, 32), CAST(substr(text, 36, 20) AS INTEGER), CAST(substr(text, 57, 10) AS INTEGER),
            CAST(substr(text, 68, 20) AS INTEGER), CAST(substr(text, 89, 20) AS INTEGER)
        FROM (SELECT name, CAST(value AS TEXT) AS text FROM projection_records WHERE key = 'checkpoint')";

/// Creates both. What an earlier release kept in a table with the name of the view is taken over.
pub(super) fn create(connection: &Connection) -> Result<()> {
    let of_before = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'projection_checkpoints'";
    let old = connection.query_row(of_before, [], |_| Ok(())).optional()?;
    if old.is_none() {
        return connection.execute_batch(CREATE);
    }
    connection.execute_batch("ALTER TABLE projection_checkpoints RENAME TO projection_checkpoints_of_before")?;
    connection.execute_batch(CREATE)?;
    let mut find =
        connection.prepare("SELECT name, store, position, checksum, events FROM projection_checkpoints_of_before")?;
    let mut rows = find.query([])?;
    while let Some(row) = rows.next()? {
        let position = Position::new(row.get::<_, i64>(2)?.max(0).cast_unsigned());
        let mark = Mark { position, checksum: row.get(3)? };
        let checkpoint = Checkpoint::new(StoreId::from_bytes(row.get(1)?), mark);
        let record = CheckpointRecord::of(&checkpoint).events(row.get::<_, i64>(4)?.max(0).cast_unsigned());
        connection.execute(
            "INSERT INTO projection_records (name, key, value) VALUES (?1, ?2, ?3)",
            params![row.get::<_, String>(0)?, CheckpointRecord::KEY, &record.encode()[..]],
        )?;
    }
    drop(rows);
    drop(find);
    connection.execute_batch("DROP TABLE projection_checkpoints_of_before")
}

pub(super) fn get(connection: &Connection, name: &ProjectionName, key: &str) -> Result<Option<Bytes>> {
    let mut get = connection.prepare_cached("SELECT value FROM projection_records WHERE name = ?1 AND key = ?2")?;
    let value = get.query_row([name.as_str(), key], |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)));
    value.optional()
}

pub(super) fn put(connection: &Connection, name: &ProjectionName, key: &str, value: &[u8]) -> Result<()> {
    let mut put = connection.prepare_cached(
        "INSERT INTO projection_records (name, key, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (name, key) DO UPDATE SET value = excluded.value",
    )?;
    put.execute(params![name.as_str(), key, value]).map(drop)
}

pub(super) fn delete(connection: &Connection, name: &ProjectionName, key: &str) -> Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM projection_records WHERE name = ?1 AND key = ?2")?;
    delete.execute([name.as_str(), key]).map(drop)
}

pub(super) fn list(connection: &Connection, name: &ProjectionName, prefix: &str) -> Result<Vec<(String, Bytes)>> {
    let mut list = connection.prepare_cached(
        "SELECT key, value FROM projection_records
         WHERE name = ?1 AND key >= ?2 AND substr(key, 1, length(?2)) = ?2 ORDER BY key",
    )?;
    let rows = list.query_map([name.as_str(), prefix], |row| {
        Ok((row.get(0)?, Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?)))
    })?;
    rows.collect()
}
