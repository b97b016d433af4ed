//! The handle to an open store.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use es_framework::{Engine, Store, StoreId};

use crate::engine::PostgresEngine;
use crate::error::OpenError;
use crate::options::Settings;
use crate::tables::schema::Schema;

/// A store in one schema of a PostgreSQL database; cheap to clone. Its operations are documented at [`Store`], which it
/// dereferences to.
///
/// It is opened on a tokio runtime, whose tasks hold its connections. Its futures may then be polled on any executor;
/// when that runtime is shut down, the store is closed. Call [`Store::close`] at the end, so that accepted writes are
/// waited for.
#[derive(Clone)]
pub struct PostgresStore {
    store: Store,
}

impl PostgresStore {
    /// Returns the statements that create a store in a schema, for databases whose schemas are not created by programs.
    /// Running them again changes nothing. Each call returns the script of another store, with an id of its own.
    ///
    /// # Errors
    ///
    /// [`OpenError::InvalidSchema`].
    ///
    /// ```
    /// let script = es_postgres::PostgresStore::schema_sql("es")?;
    /// assert!(script.contains("CREATE TABLE \"es\".es_event"));
    /// # Ok::<(), es_postgres::OpenError>(())
    /// ```
    pub fn schema_sql(schema: &str) -> Result<String, OpenError> {
        Ok(Schema::new(schema)?.script(StoreId::random()))
    }

    pub(crate) async fn open(url: &str, settings: Settings) -> Result<Self, OpenError> {
        let engine: Arc<dyn Engine> = PostgresEngine::open(url, settings).await?;
        Ok(Self { store: engine.into() })
    }
}

impl Deref for PostgresStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl From<PostgresStore> for Store {
    fn from(store: PostgresStore) -> Self {
        store.store
    }
}

impl From<&PostgresStore> for Store {
    fn from(store: &PostgresStore) -> Self {
        store.store.clone()
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.store, f)
    }
}
