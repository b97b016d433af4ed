//! Transactions of read models.

use std::cell::Cell;

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::Connection;
use tokio_rusqlite::rusqlite::hooks::{AuthAction, AuthContext, Authorization};

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
    /// The database could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

thread_local! {
    /// Whether what this thread prepares is asked for by a read model.
    static BY_READ_MODEL: Cell<bool> = const { Cell::new(false) };
}

/// Keeps read models that live in the log's file from changing the log: their statements may read every table, and write
/// those that are not the store's own.
pub(crate) fn protect_log(connection: &Connection) -> Result<(), StoreError> {
    let judge = |context: AuthContext<'_>| {
        let table = match context.action {
            AuthAction::Insert { table_name }
            | AuthAction::Update { table_name, .. }
            | AuthAction::Delete { table_name }
            | AuthAction::DropTable { table_name }
            | AuthAction::AlterTable { table_name, .. }
            | AuthAction::CreateTrigger { table_name, .. }
            | AuthAction::CreateIndex { table_name, .. }
            | AuthAction::DropIndex { table_name, .. } => table_name,
            _ => "",
        };
        if BY_READ_MODEL.get() && table.starts_with("es_") { Authorization::Deny } else { Authorization::Allow }
    };
    connection.authorizer(Some(judge)).map_err(errors::store)
}

/// Runs what a read model asks for, with [`protect_log`] in force.
pub(crate) fn by_read_model<T>(run: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            BY_READ_MODEL.set(false);
        }
    }
    BY_READ_MODEL.set(true);
    let _reset = Reset;
    run()
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
