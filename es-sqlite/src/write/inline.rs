//! Appends that hooks have a say in, such as inline projections.

use es_framework::engine::{Committing, Plan, Read};
use es_framework::{Append, AppendError, Appended, StoredEvent};
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::errors;
use crate::read::page;
use crate::write::append::Transaction;
use crate::write::memory::Memory;

/// Writes an append by its plan and calls the hooks, inside a savepoint: if a hook refuses, nothing of this append
/// remains, and the transaction goes on with others.
pub(super) fn write(
    tx: &mut Transaction<'_>,
    append: &Append,
    plan: &Plan,
    appended: &Appended,
) -> Result<(), AppendError> {
    // The rows of earlier appends, which stay.
    let connection = tx.written()?;
    let before = tx.head()?.0;
    let watched = tx.memory().written.len();
    run(connection, "SAVEPOINT es_inline")?;
    tx.write(append, plan, appended)?;
    tx.written()?;
    let store = tx.memory().store;
    let events: Vec<StoredEvent> = plan.events(append).map(|planned| planned.stored(store, appended.time)).collect();
    let Memory { hooks, hooked, names, .. } = tx.memory();
    let mut read = |read: &Read| page::read(connection, names, store, read);
    let applied = hooked.apply(hooks, &mut Committing::new(connection, before, &events, &mut read));
    match applied {
        Ok(()) => Ok(run(connection, "RELEASE es_inline")?),
        Err(AppendError::Store(error)) => Err(error.into()),
        // SQLite has rolled back the whole transaction, for example because of `ON CONFLICT ROLLBACK`: no other append
        // may run in it, and each is tried alone.
        Err(refused) if connection.is_autocommit() => Err(errors::ended(with_source(&refused)).into()),
        Err(refused) => {
            run(connection, "ROLLBACK TO es_inline")?;
            run(connection, "RELEASE es_inline")?;
            tx.memory().forget_since(watched);
            Err(refused)
        }
    }
}

fn run(connection: &Connection, statement: &'static str) -> Result<(), es_framework::StoreError> {
    let ran = connection.prepare_cached(statement).and_then(|mut statement| statement.execute([]));
    ran.map(drop).map_err(errors::store)
}

/// The text of an error and of its source, which is the read model's.
fn with_source(error: &AppendError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}
