//! The handle on an open store.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use es_framework::{Engine, Store, StoreError};
use tokio_rusqlite::rusqlite::Connection;

use crate::builder::Builder;
use crate::engine::SqliteEngine;
use crate::model::SqliteModel;
use crate::model::transact::TransactError;

/// A store in one SQLite file, or in memory; cheap to clone. What can be done with it is said at [`Store`], which it
/// dereferences to.
///
/// [`Store::close`] it in the end: then, when it was the last of all processes, no `-wal` and no `-shm` file stays
/// behind. A store that is dropped instead loses nothing either, but its threads end a moment later.
#[derive(Clone)]
pub struct SqliteStore {
    store: Store,
    engine: Arc<SqliteEngine>,
}

impl SqliteStore {
    /// Opens the store at `path`, and makes it if there is nothing; [`Self::builder`] for anything else.
    ///
    /// # Errors
    ///
    /// As for [`Builder::open`].
    pub async fn open(path: impl AsRef<Path> + Send) -> Result<Self, StoreError> {
        Self::builder().open(path).await
    }

    /// Makes an empty store in memory, private to its handles and gone with the last of them.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if SQLite cannot be started.
    pub async fn in_memory() -> Result<Self, StoreError> {
        Self::builder().in_memory().await
    }

    /// Begins to put together how a store is opened.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs `body` in a write transaction of its own on the log's connection, between two groups of appends: for read
    /// models that live in the log's file, and for tests. What it does is not judged. Committed if it returns [`Ok`]; if
    /// it fails, panics or ends the transaction itself, nothing is written and no append is harmed.
    ///
    /// # Errors
    ///
    /// [`TransactError`]; nothing was written.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is queued it never runs, afterwards it runs to its end.
    #[doc(hidden)]
    pub async fn transact<T, E, F>(&self, body: F) -> Result<T, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        self.engine.transact(body).await
    }

    /// A read model in the log's own file.
    pub fn read_model(&self) -> SqliteModel {
        SqliteModel::in_log(self.clone())
    }

    /// Runs a query of a read model.
    pub(crate) async fn look<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> T + Send + 'static,
    {
        self.engine.look(look).await
    }

    pub(crate) async fn open_file(builder: Builder, path: PathBuf) -> Result<Self, StoreError> {
        SqliteEngine::open_file(builder, path).await.map(Self::of)
    }

    pub(crate) async fn open_in_memory(builder: Builder) -> Result<Self, StoreError> {
        SqliteEngine::open_in_memory(builder).await.map(Self::of)
    }

    fn of(engine: Arc<SqliteEngine>) -> Self {
        let shared: Arc<dyn Engine> = Arc::<SqliteEngine>::clone(&engine);
        Self { store: shared.into(), engine }
    }
}

impl Deref for SqliteStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl From<SqliteStore> for Store {
    fn from(store: SqliteStore) -> Self {
        store.store
    }
}

impl From<&SqliteStore> for Store {
    fn from(store: &SqliteStore) -> Self {
        store.store.clone()
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.engine, f)
    }
}
