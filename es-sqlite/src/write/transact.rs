//! Transactions of read models.

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::{self, Connection, ErrorCode};

use crate::connection::errors;
use crate::connection::worker::{roll_back, unpanicked};

/// Why a read model's transaction wrote nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError<E> {
    /// The caller's own code refused; the transaction was rolled back.
    #[error("the transaction was rolled back: {0}")]
    Body(E),
    /// The caller's own code panicked; the transaction was rolled back.
    #[error("the transaction was rolled back: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// What the caller's own code wrote breaks a constraint that SQLite looks at when the transaction ends, such as a
    /// deferred foreign key; the transaction was rolled back.
    #[error("the transaction was rolled back")]
    Constraint(#[source] rusqlite::Error),
    /// The database could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs `body` in a write transaction of its own: committed if it returns [`Ok`], else rolled back.
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
                // Before the rollback, for it says how long was waited.
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
