//! The handle on an open store.

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
