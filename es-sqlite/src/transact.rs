//! Transactions of read models.

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::Connection;

use crate::errors;
use crate::worker::{roll_back, unpanicked};

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
    /// The database could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs `body` in a write transaction of its own: committed if it answers [`Ok`], else rolled back.
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
                let error = errors::store(error);
                roll_back(connection);
                Err(error.into())
            }
        },
        Ok(Err(error)) => {
            roll_back(connection);
            Err(TransactError::Body(error))
        }
        Err(message) => Err(TransactError::Panicked { message }),
    }
}
