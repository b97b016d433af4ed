//! Transactions of read models.

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::{self, Connection, ErrorCode};

use crate::connection::errors;
use crate::connection::worker::{roll_back, unpanicked};

/// Why a read model's transaction wrote nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError<E> {
    /// The caller's code returned an error; the transaction was rolled back.
    #[error("the transaction was rolled back: {0}")]
    Body(E),
    /// The caller's code panicked; the transaction was rolled back.
    #[error("the transaction was rolled back: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// What the caller's code wrote violates a constraint that SQLite checks when the transaction ends, such as a
    /// deferred foreign key; the transaction was rolled back.
    #[error("the transaction was rolled back")]
    Constraint(#[source] rusqlite::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs `body` in a write transaction of its own: committed if it returns [`Ok`], otherwise rolled back.
pub(crate) fn transact<T, E>(
    connection: &mut Connection,
    after_begin: impl FnOnce(&Connection) -> Result<(), StoreError>,
    body: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, TransactError<E>> {
    connection.execute_batch("BEGIN IMMEDIATE").map_err(errors::store)?;
    if let Err(error) = after_begin(connection) {
        roll_back(connection);
        return Err(error.into());
    }
    let answer = unpanicked(connection, |connection| body(connection));
    match answer {
        Ok(Ok(answer)) if connection.is_autocommit() => {
            drop(answer);
            Err(errors::internal("a read model ended the transaction it was given").into())
        }
        Ok(Ok(answer)) => match connection.execute_batch("COMMIT") {
            Ok(()) => Ok(answer),
            Err(error) => {
                // Before the rollback, because it contains how long the transaction waited.
                let error = match error.sqlite_error_code() {
                    Some(ErrorCode::ConstraintViolation) => TransactError::Constraint(error),
                    _ => errors::store(error).into(),
                };
                roll_back(connection);
                Err(error)
            }
        },
        Ok(Err(error)) => {
            roll_back(connection);
            Err(TransactError::Body(error))
        }
        Err(message) => Err(TransactError::Panicked { message }),
    }
}
