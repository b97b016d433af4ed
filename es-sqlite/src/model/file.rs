//! A read model's own SQLite file.

use std::path::Path;
use std::time::Duration;

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::{Connection, OpenFlags};

use crate::builder::Durability;
use crate::connection::busy;
use crate::connection::errors;
use crate::connection::open;
use crate::connection::open::Found;
use crate::connection::worker::Worker;
use crate::model::transact::{TransactError, transact};
use crate::tables::schema;

/// An SQLite file that is not a store, with a connection on a thread of its own: for read models that do not live in the
/// log's file. Cheap to clone; in WAL mode, so that others can read it meanwhile.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct SqliteFile {
    worker: Worker,
}

impl SqliteFile {
    /// Opens the file, and makes it if there is none. A transaction waits for other processes for `timeout`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the file cannot be opened, is not an SQLite database, or is a store.
    pub async fn open(
        path: impl AsRef<Path> + Send,
        durability: Durability,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let open = move || {
            match open::look(&path)? {
                Found::Nowhere => return Err(errors::missing(&path)),
                // A lock and a transaction of its own beside the store's writer, and nothing to protect the log from it.
                Found::Database { application_id: schema::APPLICATION_ID, .. } => {
                    let reason = "a read model's own file was asked for and this is a store's; for tables in it use \
                                  `SqliteStore::read_model`";
                    return Err(errors::not_a_store(&path, reason));
                }
                _ => {}
            }
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            let connection =
                Connection::open_with_flags(open::address(&path)?, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
                    .map_err(|error| errors::opening(&path, error))?;
            connection.busy_handler(Some(busy::handler)).map_err(errors::store)?;
            open::write_ahead(&connection)?;
            open::set_up(&connection, durability, 16 << 20)?;
            // Opens the `-wal` file, else it is not removed in the end, which a connection for queries cannot do.
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(errors::store)?;
            Ok(connection)
        };
        Ok(Self { worker: Worker::start(timeout, open).await? })
    }

    /// Opens one more connection on a file that is open, which cannot write whatever it is asked for.
    pub(crate) async fn open_for_queries(path: &Path, timeout: Duration) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let open = move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(open::address(&path)?, flags)
                .map_err(|error| errors::opening(&path, error))?;
            connection.busy_handler(Some(busy::handler)).map_err(errors::store)?;
            open::set_up(&connection, Durability::Normal, 16 << 20)?;
            connection.pragma_update(None, "query_only", true).map_err(errors::store)?;
            Ok(connection)
        };
        Ok(Self { worker: Worker::start(timeout, open).await? })
    }

    /// Opens a database in memory, private to this handle.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if SQLite cannot be started.
    pub async fn in_memory() -> Result<Self, StoreError> {
        let open = || Connection::open_in_memory().map_err(errors::store);
        Ok(Self { worker: Worker::start(Duration::ZERO, open).await? })
    }

    /// Runs `body` in a write transaction of its own: committed if it answers [`Ok`], rolled back if it fails, panics or
    /// ends the transaction itself.
    ///
    /// # Errors
    ///
    /// [`TransactError`]; nothing was written.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its first poll it never runs, afterwards it runs to its end.
    pub async fn transact<T, E, F>(&self, body: F) -> Result<T, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        self.worker.run(move |connection| Ok(transact(connection, |_| Ok(()), body))).await?
    }

    /// Runs `body` outside of any transaction, for reading.
    ///
    /// # Errors
    ///
    /// [`TransactError`], in the same cases.
    pub async fn call<T, E, F>(&self, body: F) -> Result<T, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        self.worker.run(move |connection| Ok(body(connection))).await?.map_err(TransactError::Body)
    }

    /// Closes the file after the transactions that were accepted. Closing twice does nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it could not be closed cleanly.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.worker.close().await
    }
}
