//! Queries of read models.

use es_framework::ModelError;
use tokio_rusqlite::rusqlite::{self, Connection};

use crate::connection::worker::roll_back;
use crate::model::guard;
use crate::model::rules::Asker;

/// Runs a query in a read transaction of its own.
pub(super) fn in_transaction<T>(
    connection: &Connection,
    look: impl FnOnce(&Connection) -> Result<T, ModelError>,
) -> Result<T, ModelError> {
    connection.execute_batch("BEGIN").map_err(ModelError::failed)?;
    let found = look(connection);
    // It wrote nothing.
    roll_back(connection);
    found
}

/// Runs a query, whose statements may only read.
pub(super) fn only<T>(
    connection: &Connection,
    look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, ModelError> {
    guard::protect(connection).map_err(ModelError::failed)?;
    let _query_only = QueryOnly::begin(connection).map_err(ModelError::failed)?;
    guard::forget_refusal();
    guard::asked_by(Asker::Query, || look(connection)).map_err(|error| match guard::refusal(error) {
        Ok(refusal) => ModelError::not_allowed(refusal),
        Err(error) => ModelError::failed(error),
    })
}

/// Keeps a connection from writing until it is dropped. This includes panics, because in memory it is the connection
/// that writes.
struct QueryOnly<'c> {
    connection: &'c Connection,
    before: bool,
}

impl<'c> QueryOnly<'c> {
    fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        let before: bool = connection.pragma_query_value(None, "query_only", |row| row.get(0))?;
        if !before {
            connection.pragma_update(None, "query_only", true)?;
        }
        Ok(Self { connection, before })
    }
}

impl Drop for QueryOnly<'_> {
    fn drop(&mut self) {
        if !self.before
            && let Err(error) = self.connection.pragma_update(None, "query_only", false)
        {
            tracing::error!(%error, "a connection used for a query could not be made writable again");
        }
    }
}
