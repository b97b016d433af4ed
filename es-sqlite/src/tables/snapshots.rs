//! Saved state: the table `es_snapshot`.

use es_framework::{Fingerprint, ProjectionName, Snapshot, SnapshotError, StoreError, StreamId, Timestamp};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use crate::connection::errors;
use crate::tables::log;
use crate::tables::row_sum::RowSum;
use crate::tables::rows::natural;

/// Finds a snapshot. A damaged one reads as missing: the events it stands for are still there.
pub(crate) fn find(
    connection: &Connection,
    stream: &StreamId,
    name: &ProjectionName,
) -> Result<Option<Snapshot>, StoreError> {
    match read(connection, stream, name) {
        Err(StoreError::Corrupt { reason, .. }) => {
            tracing::warn!(%stream, %name, reason, "a damaged snapshot is passed over");
            Ok(None)
        }
        other => other,
    }
}

/// Saves a snapshot, within the caller's write transaction.
pub(crate) fn save(connection: &Connection, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let Snapshot { stream, name, at, fingerprint, time, state, .. } = snapshot;
    let end = if stream.is_all() {
        log::head(connection)?.0.get()
    } else {
        match log::stream_number(connection, stream)? {
            Some(number) => log::version(connection, number)?.get(),
            None => 0,
        }
    };
    if *at > end {
        return Err(SnapshotError::BeyondEnd { stream: stream.clone(), at: *at, end });
    }
    if find(connection, stream, name)?.is_some_and(|saved| saved.at > *at) {
        return Ok(());
    }
    let at = i64::try_from(*at).map_err(|_| errors::internal("a snapshot is beyond every place"))?;
    let fingerprint = fingerprint.to_bytes();
    let sum = sum(stream, name, at, &fingerprint, time.as_micros(), state).stored();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO es_snapshot (stream, name, at, fingerprint, time, state, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .and_then(|mut statement| {
            statement.execute((stream.as_str(), name.as_str(), at, fingerprint, time.as_micros(), &state[..], sum))
        })
        .map_err(errors::store)?;
    Ok(())
}

/// Reads a snapshot; a damaged one is an error.
pub(crate) fn read(
    connection: &Connection,
    stream: &StreamId,
    name: &ProjectionName,
) -> Result<Option<Snapshot>, StoreError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT at, fingerprint, time, state, checksum FROM es_snapshot WHERE stream = ?1 AND name = ?2",
        )
        .map_err(errors::store)?;
    let row = statement
        .query_row((stream.as_str(), name.as_str()), |row| {
            let (at, fingerprint): (i64, [u8; 16]) = (row.get(0)?, row.get(1)?);
            Ok((at, fingerprint, row.get::<_, i64>(2)?, row.get::<_, Vec<u8>>(3)?, row.get::<_, i32>(4)?))
        })
        .optional()
        .map_err(errors::store)?;
    let Some((at, fingerprint, time, state, checksum)) = row else { return Ok(None) };
    if sum(stream, name, at, &fingerprint, time, &state).stored() != checksum {
        return Err(errors::damaged(None, "the checksum does not match"));
    }
    let at = natural(at, None)?;
    let fingerprint = Fingerprint::from_bytes(fingerprint);
    let mut snapshot = Snapshot::new(stream.clone(), name.clone(), at, fingerprint, state);
    snapshot.time = Timestamp::from_micros(time);
    Ok(Some(snapshot))
}

fn sum(stream: &StreamId, name: &ProjectionName, at: i64, fingerprint: &[u8], time: i64, state: &[u8]) -> RowSum {
    let sum = RowSum::of("snapshot").text(stream.as_str()).text(name.as_str());
    sum.integer(at).blob(fingerprint).integer(time).blob(state)
}
