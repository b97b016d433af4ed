//! Read models in SQLite.

mod beside;
mod columns;
#[cfg(feature = "testing")]
mod content;
pub(crate) mod file;
mod guard;
mod inline;
mod query;
pub(crate) mod records;
mod replace;
mod rows;
mod rules;
mod statements;
mod tx;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use es_framework::{Fingerprint, ModelError, ProjectionName, ReadModel, StoreError};
use tokio_rusqlite::rusqlite::{self, Connection};

use crate::connection::errors;
use crate::connection::worker::block_on;
use crate::engine::SqliteEngine;
use crate::error::OpenError;
use crate::model::beside::BuiltAt;
use crate::model::file::SqliteFile;
use crate::model::rules::{Asker, Home};
use crate::options::Durability;
use crate::write::transact::TransactError;

pub use crate::model::columns::{Columns, Key};
pub use crate::model::rows::{Rows, Sums};
pub use crate::model::tx::SqliteTx;

/// How long a transaction of a read model's own file waits for other processes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A read model in SQLite: tables that a projector writes and anyone can query, committed together with the checkpoint.
///
/// In a file of its own ([`Self::open`]) it never competes with the log's only writer, and projections run in parallel.
/// Such a file is written with [`Durability::Normal`]: a power loss may undo its newest batches, never half of one, and
/// they are projected again. In the log's file ([`SqliteStore::read_model`](crate::SqliteStore::read_model)) there is
/// only one file to manage, and every batch takes a turn at the log's writer.
///
/// What a projector's statements may do is listed at [`SqliteTx`].
///
/// # Rebuilds
///
/// [`Projection::rebuild`](es_framework::Projection::rebuild) builds the tables anew in a file next to this one, whose
/// name ends with `-rebuild-`, the name as 12 hexadecimal digits and the generation. At the end they are copied in one
/// transaction: until it is committed, readers see the old tables, and the file cannot be
/// written by others. So a large model belongs in a file of its own. Virtual tables cannot be copied; build them in place.
///
/// Cheap to clone. One model may belong to several projections, each with its own name.
#[derive(Clone)]
pub struct SqliteModel {
    location: Location,
}

#[derive(Clone)]
enum Location {
    InLog(Arc<SqliteEngine>),
    Own(Arc<Own>),
}

/// A file of its own, or a database in memory.
struct Own {
    writer: SqliteFile,
    /// A connection that cannot write, for queries alongside the projection; [`None`] in memory, where there is only
    /// one connection.
    reader: Option<SqliteFile>,
    /// If it is built beside another model: where it is.
    built_at: Option<BuiltAt>,
}

impl Own {
    /// Closes the writer last: the last connection removes the `-wal` file, and one that cannot write cannot do that.
    async fn close(&self) -> Result<(), StoreError> {
        let reader = match &self.reader {
            Some(reader) => reader.close().await,
            None => Ok(()),
        };
        self.writer.close().await.and(reader)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        let own = Self { writer: self.writer.clone(), reader: None, built_at: None };
        let closing = thread::Builder::new().name("es-sqlite-drop".to_owned()).spawn(move || {
            if let Err(error) = block_on(async { reader.close().await.and(own.close().await) }) {
                tracing::warn!(%error, "a read model that was dropped could not be closed cleanly");
            }
        });
        // Without the thread the connections still close, in any order.
        drop(closing);
    }
}

impl SqliteModel {
    /// Opens a read model in a file of its own, creating it if there is none.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be opened, is not an SQLite database, or is a store.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves no file open; it may have created an empty one.
    pub async fn open(path: impl AsRef<Path> + Send) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let writer = SqliteFile::open(&path, Durability::Normal, PATIENCE).await?;
        let reader = writer.open_for_queries(PATIENCE).await?;
        Ok(Self::own(Own { writer, reader: Some(reader), built_at: None }))
    }

    /// Creates an empty read model in memory, private to its handles and gone with the last of them.
    ///
    /// # Errors
    ///
    /// [`OpenError::Store`] if SQLite cannot be started.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    pub async fn in_memory() -> Result<Self, OpenError> {
        let writer = SqliteFile::in_memory().await?;
        Ok(Self::own(Own { writer, reader: None, built_at: None }))
    }

    fn own(own: Own) -> Self {
        Self { location: Location::Own(Arc::new(own)) }
    }

    pub(crate) fn in_log(store: Arc<SqliteEngine>) -> Self {
        Self { location: Location::InLog(store) }
    }

    /// Queries the tables, without blocking the projection. The query is one read transaction: all its statements see
    /// the same batches, each of them whole or not at all.
    ///
    /// Statements may read every table and run pragmas that only return information. With a file, the connection is a
    /// query connection that cannot write; in memory it is the one that writes, so leave its hooks, functions and
    /// settings alone.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotAllowed`] if a statement does anything else, with the reason, and [`ModelError::Failed`] with
    /// SQLite's error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect on the model.
    pub async fn query<T, F>(&self, look: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let look = move |connection: &Connection| query::only(connection, look);
        match &self.location {
            Location::InLog(store) => store.look(look).await.map_err(ModelError::failed)?,
            Location::Own(own) => {
                let connection = own.reader.as_ref().unwrap_or(&own.writer);
                connection.call(|connection| query::in_transaction(connection, look)).await.map_err(failed)
            }
        }
    }

    /// Closes a file of its own after the accepted transactions have run; a model in the log's file is closed with the
    /// log. Closing twice does nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it could not be closed cleanly.
    pub async fn close(&self) -> Result<(), StoreError> {
        match &self.location {
            Location::InLog(_) => Ok(()),
            Location::Own(own) => own.close().await,
        }
    }

    fn home(&self) -> Home {
        match &self.location {
            Location::InLog(_) => Home::Log,
            Location::Own(own) => own.built_at.as_ref().map_or(Home::Own, |at| at.home),
        }
    }

    async fn in_transaction<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, ModelError> + Send + 'static,
    {
        let done = match &self.location {
            Location::InLog(store) => store.transact(body).await,
            Location::Own(own) => own.writer.transact(body).await,
        };
        done.map_err(failed)
    }
}

fn failed(error: TransactError<ModelError>) -> ModelError {
    match error {
        TransactError::Body(error) => error,
        TransactError::Panicked { message } => ModelError::Panicked { position: None, message },
        TransactError::Constraint(error) => ModelError::commit_refused(error),
        TransactError::Store(error) => ModelError::failed(error),
    }
}

/// Runs a projector's part of a transaction.
fn project<T>(
    connection: &Connection,
    home: Home,
    body: impl FnOnce(&mut SqliteTx<'_>) -> Result<T, ModelError>,
) -> Result<T, ModelError> {
    guard::protect(connection).map_err(ModelError::failed)?;
    let done = guard::asked_by(Asker::Projector(home), || {
        let mut tx = SqliteTx::new(connection, home);
        let done = body(&mut tx);
        match (done, tx.take_outage()) {
            (Err(_), Some(outage)) => Err(ModelError::failed(outage)),
            (done, _) => done,
        }
    });
    let done = done.and_then(|done| {
        guard::check_open(connection)
            .and_then(|()| guard::check_tables(connection, home))
            .map_err(ModelError::commit_refused)?;
        Ok(done)
    });
    guard::forget_tables(connection);
    done
}

impl ReadModel for SqliteModel {
    type Tx<'t> = SqliteTx<'t>;

    async fn start(&self, _: &ProjectionName) -> Result<(), ModelError> {
        self.in_transaction(|connection| records::create(connection).map_err(ModelError::failed)).await
    }

    async fn transact<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut SqliteTx<'t>) -> Result<T, ModelError> + Send + 'static,
    {
        let home = self.home();
        self.in_transaction(move |connection| project(connection, home, |tx| body(tx))).await
    }

    fn get(tx: &mut SqliteTx<'_>, name: &ProjectionName, key: &str) -> Result<Option<Bytes>, ModelError> {
        by_the_model(tx, |connection| records::get(connection, name, key))
    }

    fn put(tx: &mut SqliteTx<'_>, name: &ProjectionName, key: &str, value: &[u8]) -> Result<(), ModelError> {
        by_the_model(tx, |connection| records::put(connection, name, key, value))
    }

    fn delete(tx: &mut SqliteTx<'_>, name: &ProjectionName, key: &str) -> Result<(), ModelError> {
        by_the_model(tx, |connection| records::delete(connection, name, key))
    }

    fn list(tx: &mut SqliteTx<'_>, name: &ProjectionName, prefix: &str) -> Result<Vec<(String, Bytes)>, ModelError> {
        by_the_model(tx, |connection| records::list(connection, name, prefix))
    }

    async fn settle(&self, _: &ProjectionName) -> Result<(), ModelError> {
        // Every batch was committed with its checkpoint.
        Ok(())
    }

    async fn shape<F>(&self, prepare: F) -> Result<Fingerprint, ModelError>
    where
        F: for<'t> FnOnce(&mut SqliteTx<'t>) -> Result<(), ModelError> + Send + 'static,
    {
        beside::shape(self.home(), prepare).await
    }

    async fn beside(&self, name: &ProjectionName, generation: u64) -> Result<Self, ModelError> {
        beside::open(self, name, generation).await
    }

    async fn replace_by<F>(&self, name: &ProjectionName, built: &Self, agree: F) -> Result<(), ModelError>
    where
        F: for<'t> FnOnce(&mut SqliteTx<'t>) -> Result<(), ModelError> + Send + 'static,
    {
        beside::replace(self, name, built, agree).await
    }

    async fn discard(self) -> Result<(), ModelError> {
        beside::discard(&self).await
    }
}

/// Runs what a projector may not: the model's own statements on its records.
fn by_the_model<T>(tx: &SqliteTx<'_>, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ModelError> {
    let connection = tx.connection();
    guard::check_open(connection).map_err(ModelError::commit_refused)?;
    guard::asked_by(Asker::Engine, || run(connection)).map_err(|error| ModelError::failed(errors::store(error)))
}

impl fmt::Debug for SqliteModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::InLog(store) => f.debug_tuple("SqliteModel").field(store).finish(),
            Location::Own(own) => f.debug_tuple("SqliteModel").field(&own.writer).finish(),
        }
    }
}
