//! The handle to an open store.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use es_framework::{Engine, Store};
use tokio_rusqlite::rusqlite::Connection;

use crate::engine::SqliteEngine;
use crate::error::OpenError;
use crate::model::SqliteModel;
use crate::opening::open::Purpose;
use crate::options::Settings;
use crate::write::transact::TransactError;

/// A store in one SQLite file, or in memory; cheap to clone. Its operations are documented at [`Store`], which it
/// dereferences to.
///
/// Call [`Store::close`] at the end: if this was the last process with the store open, no `-wal` and no `-shm` file
/// stays behind. Dropping a store loses no data either, but its threads end a moment later.
#[derive(Clone)]
pub struct SqliteStore {
    store: Store,
    engine: Arc<SqliteEngine>,
}

impl SqliteStore {
    /// Runs `body` in a write transaction of its own on the log's connection, between two groups of appends: for read
    /// models in the log's file, and for tests. Its statements are not restricted. The transaction is committed if
    /// `body` returns [`Ok`]; if it fails, panics or ends the transaction itself, nothing is written and no append is
    /// affected.
    ///
    /// # Errors
    ///
    /// [`TransactError`]; nothing was written.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it is queued, `body` never runs; after that it runs to completion.
    #[doc(hidden)]
    pub async fn transact<T, E, F>(&self, body: F) -> Result<T, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        self.engine.transact(body).await
    }

    /// Returns a read model in the log's own file.
    pub fn read_model(&self) -> SqliteModel {
        SqliteModel::in_log(Arc::clone(&self.engine))
    }

    pub(crate) async fn open_file(path: PathBuf, purpose: Purpose, settings: Settings) -> Result<Self, OpenError> {
        SqliteEngine::open_file(path, purpose, settings).await.map(Self::of)
    }

    pub(crate) async fn open_in_memory(settings: Settings) -> Result<Self, OpenError> {
        SqliteEngine::open_in_memory(settings).await.map(Self::of)
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
