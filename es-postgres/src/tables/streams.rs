//! Streams and where they end: the table `es_stream`.

use es_framework::{ListStreams, StoreError, StoreId, StreamHead, StreamId, StreamInfo, Version};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::connection::values::{Uuid, count, natural};
use crate::tables::log::{check_format, check_store};
use crate::tables::names::{self, checked_stream};
use crate::tables::rows::column;
use crate::tables::statements::Statements;

/// A stream that was written: its number and its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) number: i64,
    pub(crate) version: Version,
}

/// Finds the end of a stream; [`None`] if it was never written.
pub(crate) async fn find(
    session: &Session,
    statements: &Statements,
    store: StoreId,
    stream: &StreamId,
) -> Result<Option<Found>, Failure> {
    let rows = session.query(&statements.stream_head, &[&stream.as_str()]).await?;
    let row = rows.first().ok_or_else(|| errors::changed("its writer's row is gone"))?;
    check_format(column(row, 1, None)?)?;
    check_store(StoreId::from_bytes(column::<Uuid>(row, 0, None)?.0), store)?;
    let Some(number) = column::<Option<i64>>(row, 2, None)? else { return Ok(None) };
    checked_stream(number, stream.as_str(), column(row, 3, None)?, column(row, 4, None)?)?;
    Ok(Some(Found { number, version: version(row, 5)? }))
}

/// Lists streams in the order of their first events.
pub(crate) async fn list(
    session: &Session,
    statements: &Statements,
    list: &ListStreams,
) -> Result<Vec<StreamInfo>, Failure> {
    let after = list.after.as_ref().map(StreamId::as_str);
    // With a category, its index is in the order of numbers.
    let category = if list.category.is_some() { "s.category = $1" } else { "$1::text IS NULL" };
    let sql = statements.schema.qualify(&format!(
        "SELECT s.id, s.name, s.category, s.checksum, e.version FROM {{es}}.es_stream s LEFT JOIN LATERAL (
             SELECT version FROM {{es}}.es_event WHERE stream = s.id ORDER BY version DESC LIMIT 1
         ) e ON true
         WHERE {category} AND s.id > (
             CASE WHEN $2::text IS NULL THEN 0 ELSE (SELECT id FROM {{es}}.es_stream WHERE name = $2) END
         ) ORDER BY s.id LIMIT $3"
    ));
    let types = [Type::TEXT, Type::TEXT, Type::INT8];
    let rows = session.once(&sql, &types, &[&list.category, &after, &count(list.limit)]).await?;
    let mut streams = Vec::with_capacity(rows.len());
    for row in &rows {
        let (_, stream) = names::stream(row)?;
        streams.push(StreamInfo::new(stream, StreamHead::at(version(row, 4)?)));
    }
    Ok(streams)
}

fn version(row: &Row, at: usize) -> Result<Version, StoreError> {
    Ok(Version::new(natural(column::<Option<i64>>(row, at, None)?.unwrap_or(0), None)?))
}
