//! A read model's own SQLite file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::{Connection, OpenFlags};

use crate::connection::errors;
use crate::connection::worker::Worker;
use crate::error::OpenError;
use crate::opening::errors as refused;
use crate::opening::file::{self, DatabaseFile, Presence};
use crate::opening::open::{self, Found};
use crate::options::Durability;
use crate::tables::schema;
use crate::write::transact::{TransactError, transact};
use crate::write::upkeep::Upkeep;

/// An SQLite file that is not a store, with its connection on its own thread: for read models that do not live in the
/// log's file. Cheap to clone; in WAL mode, so that others can read it meanwhile.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct SqliteFile {
    worker: Worker,
    /// Maintenance between two transactions; [`None`] if in memory.
    care: Option<Arc<Mutex<Care>>>,
}

/// What the connection's thread maintains.
#[derive(Debug)]
struct Care {
    presence: Presence,
    upkeep: Upkeep,
}

impl Care {
    fn of(care: &Arc<Mutex<Self>>) -> MutexGuard<'_, Self> {
        // Nothing panics halfway through a change, so it is consistent.
        care.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SqliteFile {
    /// Opens the file, creating it if there is none. A transaction waits for other processes for `timeout`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be opened, is not an SQLite database, or is a store.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves no file open; it may have created an empty one.
    pub async fn open(
        path: impl AsRef<Path> + Send,
        durability: Durability,
        timeout: Duration,
    ) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        Self::start(timeout, move || {
            let path = file::resolve(&path)?;
            let connection = connect(&path, durability)?;
            Ok((connection, DatabaseFile::opened(path)?))
        })
        .await
    }

    /// Opens another connection to the same file that rejects every write.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`]; [`StoreError::StoreChanged`] if another file has replaced it.
    pub(crate) async fn open_for_queries(&self, timeout: Duration) -> Result<Self, OpenError> {
        let Some(care) = &self.care else { return Ok(self.clone()) };
        let opened = Care::of(care).presence.file().clone();
        Self::start(timeout, move || {
            opened.check()?;
            let connection = open::connect(opened.path(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            open::set_up(&connection, Durability::Normal, 16 << 20)?;
            connection.pragma_update(None, "query_only", true).map_err(errors::store)?;
            opened.check()?;
            Ok((connection, opened))
        })
        .await
    }

    async fn start(
        timeout: Duration,
        open: impl FnOnce() -> Result<(Connection, DatabaseFile), OpenError> + Send + 'static,
    ) -> Result<Self, OpenError> {
        let (worker, file) = Worker::start(timeout, open).await?;
        let upkeep = Upkeep::of(Some(&file));
        let care = Care { presence: Presence::of(file), upkeep };
        Ok(Self { worker, care: Some(Arc::new(Mutex::new(care))) })
    }

    /// Opens a database in memory, private to this handle.
    ///
    /// # Errors
    ///
    /// [`OpenError::Store`] if SQLite cannot be started.
    pub async fn in_memory() -> Result<Self, OpenError> {
        let open = || Ok::<_, OpenError>((Connection::open_in_memory().map_err(errors::store)?, ()));
        Ok(Self { worker: Worker::start(Duration::ZERO, open).await?.0, care: None })
    }

    /// Opens a database in memory that [`Source::connect`] can read as well, as long as this handle is open.
    pub(crate) async fn in_shared_memory(uri: String) -> Result<Self, OpenError> {
        let open = move || Ok::<_, OpenError>((shared_memory(&uri)?, ()));
        Ok(Self { worker: Worker::start(Duration::ZERO, open).await?.0, care: None })
    }

    /// Where the file is; [`None`] if in memory.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.care.as_ref().map(|care| Care::of(care).presence.file().path().to_owned())
    }

    /// Runs `body` in a write transaction of its own: committed if it returns [`Ok`], rolled back if it fails, panics
    /// or ends the transaction itself.
    ///
    /// # Errors
    ///
    /// [`TransactError`]; nothing was written.
    ///
    /// # Cancel safety
    ///
    /// If dropped before its first poll, `body` never runs; after that it runs to completion.
    pub async fn transact<T, E, F>(&self, body: F) -> Result<T, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let care = self.care.clone();
        let run = move |connection: &mut Connection| {
            if let Some(care) = &care {
                Care::of(care).presence.check()?;
            }
            let done = transact(connection, |_| Ok(()), body);
            if let Some(care) = &care {
                Care::of(care).upkeep.after_job(connection);
            }
            Ok(done)
        };
        self.worker.run(run).await?
    }

    /// Runs `body` outside any transaction, for reading.
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
        let care = self.care.clone();
        let run = move |connection: &mut Connection| {
            if let Some(care) = &care {
                Care::of(care).presence.check()?;
            }
            Ok(body(connection))
        };
        self.worker.run(run).await?.map_err(TransactError::Body)
    }

    /// Closes the file after the accepted transactions have run. Closing twice does nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it could not be closed cleanly.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.worker.close().await
    }
}

/// Opens another connection, for reading, to a database that this process has open.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// A database in memory, by its URI.
    Memory(String),
}

impl Source {
    pub(crate) fn connect(&self) -> Result<Connection, StoreError> {
        match self {
            Self::File(path) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(path, flags).map_err(errors::store)
            }
            Self::Memory(uri) => shared_memory(uri),
        }
    }
}

fn shared_memory(uri: &str) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_SHARED_CACHE;
    Connection::open_with_flags(uri, flags).map_err(errors::store)
}

/// Inspects a file and opens a connection to it that may write.
fn connect(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    // It would be a lock and a transaction next to the store's writer, with nothing to protect the log from it.
    if let Found::Database { application_id: schema::APPLICATION_ID, .. } = open::look(path)? {
        let reason = "it is a store, not a read model's own file; for tables in it use \
                      `SqliteStore::read_model`";
        return Err(refused::not_a_store(path, reason));
    }
    file::check_names(path)?;
    file::share_permissions(path);
    let opening = |error| refused::opening(path, true, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = open::connect(path, flags)?;
    open::check_writable(&connection, path)?;
    // Reads first: that fails if the file is not a database.
    connection.query_row("PRAGMA schema_version", [], |_| Ok(())).map_err(opening)?;
    open::write_ahead(&connection)?;
    open::set_up(&connection, durability, 16 << 20)?;
    // Opens the `-wal` file; otherwise it would not be removed at the end, since a connection for queries cannot remove
    // it.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(errors::store)?;
    Ok(connection)
}
