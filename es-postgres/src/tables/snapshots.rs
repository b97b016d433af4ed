//! Saved state: the table `es_snapshot`.

use es_framework::{Fingerprint, ProjectionName, Snapshot, StoreError, StreamId, Timestamp};
use tokio_postgres::Row;

use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::connection::values::{natural, signed};
use crate::tables::row_sum::RowSum;
use crate::tables::rows::column;
use crate::tables::statements::Statements;

/// Finds a snapshot. A damaged one reads as missing: the events it stands for are still there.
pub(crate) async fn find(
    session: &Session,
    statements: &Statements,
    stream: &StreamId,
    name: &ProjectionName,
) -> Result<Option<Snapshot>, Failure> {
    let rows = session.query(&statements.snapshot, &[&stream.as_str(), &name.as_str()]).await?;
    match rows.first().map(|row| read(row, stream, name)).transpose() {
        Err(StoreError::Corrupt { reason, .. }) => {
            tracing::warn!(%stream, %name, reason, "a damaged snapshot is passed over");
            Ok(None)
        }
        other => Ok(other?),
    }
}

/// Saves a snapshot unless a newer one is there, or it is beyond the end of its stream, which is returned.
pub(crate) async fn save(session: &Session, statements: &Statements, snapshot: &Snapshot) -> Result<u64, Failure> {
    let Snapshot { stream, name, at, fingerprint, time, state, .. } = snapshot;
    let (at, fingerprint, time) = (signed(*at), fingerprint.to_bytes(), time.as_micros());
    let checksum = sum(stream, name, at, &fingerprint, time, state).stored();
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&stream.as_str(), &name.as_str(), &at, &&fingerprint[..], &time, &&state[..], &checksum];
    let rows = session.query(&statements.snapshot_save, &params).await?;
    let row = rows.first().ok_or_else(|| errors::internal("a stream has no end"))?;
    Ok(natural(column(row, 0, None)?, None)?)
}

fn read(row: &Row, stream: &StreamId, name: &ProjectionName) -> Result<Snapshot, StoreError> {
    let (at, time): (i64, i64) = (column(row, 0, None)?, column(row, 2, None)?);
    let (fingerprint, state): (&[u8], &[u8]) = (column(row, 1, None)?, column(row, 3, None)?);
    if sum(stream, name, at, fingerprint, time, state).stored() != column::<i32>(row, 4, None)? {
        return Err(errors::damaged(None, "the checksum does not match"));
    }
    let fingerprint = fingerprint.try_into().map_err(|_| errors::damaged(None, "it has no valid fingerprint"))?;
    let fingerprint = Fingerprint::from_bytes(fingerprint);
    let mut snapshot = Snapshot::new(stream.clone(), name.clone(), natural(at, None)?, fingerprint, state.to_vec());
    snapshot.time = Timestamp::from_micros(time);
    Ok(snapshot)
}

fn sum(stream: &StreamId, name: &ProjectionName, at: i64, fingerprint: &[u8], time: i64, state: &[u8]) -> RowSum {
    let sum = RowSum::of("snapshot").text(stream.as_str()).text(name.as_str());
    sum.integer(at).blob(fingerprint).integer(time).blob(state)
}
