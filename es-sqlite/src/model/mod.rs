//! Read models in SQLite.

pub(crate) mod file;
pub(crate) mod transact;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use es_framework::{Checkpoint, Mark, ModelError, Position, ProjectionName, ReadModel, Step, StoreError, StoreId};
use tokio_rusqlite::rusqlite::fallible_iterator::FallibleIterator as _;
use tokio_rusqlite::rusqlite::{self, Batch, CachedStatement, Connection, OptionalExtension, Params, Row, params};

use crate::error::OpenError;
use crate::model::file::SqliteFile;
use crate::model::transact::TransactError;
use crate::options::Durability;
use crate::store::SqliteStore;

/// How long a transaction of a read model's own file waits for other processes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A read model in SQLite: tables that a projector writes and anybody queries, committed together with the checkpoint.
///
/// In a file of its own ([`Self::open`]) it never competes with the log's one writer, and projections run side by side.
/// Such a file is written with [`Durability::Normal`]: a power loss may take back its newest batches, never half of one,
/// and they are projected again. In the log's file ([`SqliteStore::read_model`]) there is one file to look after, and
/// every batch takes a turn at the log's writer.
///
/// Cheap to clone. One model may belong to several projections, each with its own name.
#[derive(Clone)]
pub struct SqliteModel {
    place: Place,
}

#[derive(Clone)]
enum Place {
    InLog(SqliteStore),
    /// A connection that writes, and one that reads meanwhile; in memory there is one for both.
    Own {
        writer: SqliteFile,
        reader: SqliteFile,
    },
}

impl SqliteModel {
    /// Opens a read model in a file of its own, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be opened, is not an SQLite database, or is a store.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves no file open; it may have made an empty one.
    pub async fn open(path: impl AsRef<Path> + Send) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let writer = SqliteFile::open(&path, Durability::Normal, PATIENCE).await?;
        let reader = writer.another(Durability::Normal, PATIENCE).await?;
        Ok(Self { place: Place::Own { writer, reader } })
    }

    /// Makes an empty read model in memory, private to its handles and gone with the last of them.
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
        Ok(Self { place: Place::Own { reader: writer.clone(), writer } })
    }

    pub(crate) fn in_log(store: SqliteStore) -> Self {
        Self { place: Place::InLog(store) }
    }

    /// Looks at the tables, without blocking the projection; every batch is seen whole or not at all by one statement.
    ///
    /// # Errors
    ///
    /// [`ModelError::Failed`] with what SQLite said, for example that the model may only be read here.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect on the model.
    pub async fn query<T, F>(&self, look: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let look = move |connection: &Connection| {
            let _guard = QueryOnly::begin(connection)?;
            look(connection)
        };
        match &self.place {
            Place::InLog(store) => store.look(look).await.map_err(ModelError::failed)?.map_err(ModelError::failed),
            Place::Own { reader, .. } => reader.call(look).await.map_err(|error| match error {
                TransactError::Body(error) => ModelError::failed(error),
                error => store_failed(error),
            }),
        }
    }

    /// Closes a file of its own after the transactions that were accepted; a model in the log's file is closed with the
    /// log. Closing twice does nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it could not be closed cleanly.
    pub async fn close(&self) -> Result<(), StoreError> {
        match &self.place {
            Place::InLog(_) => Ok(()),
            Place::Own { writer, reader } => {
                let (reader, writer) = (reader.close().await, writer.close().await);
                reader.and(writer)
            }
        }
    }

    async fn in_transaction<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, ModelError> + Send + 'static,
    {
        let done = match &self.place {
            Place::InLog(store) => store.transact(body).await,
            Place::Own { writer, .. } => writer.transact(body).await,
        };
        done.map_err(|error| match error {
            TransactError::Body(error) => error,
            TransactError::Panicked { message } => ModelError::Panicked { position: None, message },
            TransactError::Store(error) => ModelError::failed(error),
        })
    }
}

fn store_failed<E>(error: TransactError<E>) -> ModelError {
    match error {
        TransactError::Store(error) => ModelError::failed(error),
        TransactError::Panicked { message } => ModelError::Panicked { position: None, message },
        TransactError::Body(_) => ModelError::failed("the transaction was rolled back"),
    }
}

/// Keeps a connection from writing, until it is dropped: also by a panic, for the connection may be the one that writes.
struct QueryOnly<'c> {
    connection: &'c Connection,
    before: bool,
}

impl<'c> QueryOnly<'c> {
    fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        let before = connection.pragma_query_value(None, "query_only", |row| row.get(0))?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(Self { connection, before })
    }
}

impl Drop for QueryOnly<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.connection.pragma_update(None, "query_only", self.before) {
            tracing::error!(%error, "a connection that only looked cannot be made to write again");
        }
    }
}

/// A transaction of a read model, as its projector sees it.
///
/// The runner begins and ends it, together with the checkpoint: statements that would do so are refused.
pub struct SqliteTx<'t> {
    connection: &'t Connection,
    /// The statements run last, the newest at the end: see [`SqliteTx::run`].
    kept: Vec<Kept<'t>>,
}

/// A statement that was looked at already and is at hand until the transaction ends.
struct Kept<'t> {
    sql: Box<str>,
    statement: CachedStatement<'t>,
}

/// The statements that a transaction keeps at hand: few enough to look through them, enough for one a kind of event.
const KEPT: usize = 8;

/// Why a statement was refused.
#[derive(Debug, thiserror::Error)]
#[error("a projector cannot begin or end transactions: its runner does, together with the checkpoint")]
struct TransactionControl;

impl<'t> SqliteTx<'t> {
    pub(crate) fn new(connection: &'t Connection) -> Self {
        Self { connection, kept: Vec::new() }
    }

    /// Runs a statement, prepared once and kept, and answers how many rows it changed.
    ///
    /// # Errors
    ///
    /// What SQLite says; a statement that would begin or end a transaction is refused.
    pub fn execute(&mut self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.run(sql, |statement| statement.execute(params))
    }

    /// Outside of the transaction every statement would stay, the checkpoint too, and what came before would be lost.
    fn refuse_ended(&self) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() {
            return Err(rusqlite::Error::ToSqlConversionFailure(Box::new(Ended)));
        }
        Ok(())
    }

    /// Runs several statements without parameters, for example to make tables.
    ///
    /// # Errors
    ///
    /// As for [`Self::execute`].
    pub fn execute_batch(&mut self, sql: &str) -> rusqlite::Result<()> {
        let mut batch = Batch::new(self.connection, sql);
        while let Some(mut statement) = batch.next()? {
            self.refuse_ended()?;
            refuse_control(statement.readonly(), statement.column_count())?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    /// Runs a query for one row.
    ///
    /// # Errors
    ///
    /// [`rusqlite::Error::QueryReturnedNoRows`] if there is none, and what SQLite says.
    pub fn query_row<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.run(sql, |statement| statement.query_row(params, map))
    }

    /// Prepares a statement once and keeps it.
    ///
    /// # Errors
    ///
    /// As for [`Self::execute`].
    pub fn prepare(&mut self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.refuse_ended()?;
        self.take(sql).map(|kept| kept.statement)
    }

    /// Runs a statement and keeps it at hand for the next time, as a projector that runs one for every event does: the
    /// way through the connection's cache costs 1,400 instructions beside the 3,300 of an upsert, this one 350.
    fn run<T>(
        &mut self,
        sql: &str,
        run: impl FnOnce(&mut CachedStatement<'t>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.refuse_ended()?;
        // Taken out while it runs: after a panic it goes back to the connection's cache, which takes its parameters away.
        let mut statement = self.take(sql)?;
        let answer = run(&mut statement.statement);
        // Else a parameter that the next one does not name would have this one's value.
        statement.statement.clear_bindings();
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(statement);
        answer
    }

    /// A statement that a projector may run, from those at hand if it is there.
    fn take(&mut self, sql: &str) -> rusqlite::Result<Kept<'t>> {
        if let Some(at) = self.kept.iter().rposition(|kept| *kept.sql == *sql) {
            return Ok(self.kept.remove(at));
        }
        let statement = self.connection.prepare_cached(sql)?;
        refuse_control(statement.readonly(), statement.column_count())?;
        Ok(Kept { sql: sql.into(), statement })
    }
}

/// A statement after SQLite has rolled the transaction back by itself, for example because of `ON CONFLICT ROLLBACK` or a
/// full disk.
#[derive(Debug, thiserror::Error)]
#[error("SQLite has rolled the transaction back after an error that was passed over")]
struct Ended;

/// `BEGIN`, `COMMIT`, `ROLLBACK` and `SAVEPOINT` are the statements that write nothing and answer nothing.
fn refuse_control(readonly: bool, columns: usize) -> rusqlite::Result<()> {
    if readonly && columns == 0 {
        return Err(rusqlite::Error::ToSqlConversionFailure(Box::new(TransactionControl)));
    }
    Ok(())
}

impl ReadModel for SqliteModel {
    type Tx<'t> = SqliteTx<'t>;

    async fn start(&self, _: &ProjectionName) -> Result<(), ModelError> {
        self.in_transaction(|connection| {
            connection
                .execute_batch(
                    "CREATE TABLE IF NOT EXISTS projection_checkpoints (
                        name TEXT PRIMARY KEY, store BLOB NOT NULL, position INTEGER NOT NULL,
                        checksum INTEGER NOT NULL, events INTEGER NOT NULL
                    ) WITHOUT ROWID",
                )
                .map_err(ModelError::failed)
        })
        .await
    }

    async fn transact<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut SqliteTx<'t>) -> Result<T, ModelError> + Send + 'static,
    {
        self.in_transaction(move |connection| body(&mut SqliteTx::new(connection))).await
    }

    fn checkpoint(tx: &mut SqliteTx<'_>, name: &ProjectionName) -> Result<Option<Checkpoint>, ModelError> {
        let row = tx.query_row(
            "SELECT store, position, checksum FROM projection_checkpoints WHERE name = ?1",
            [name.as_str()],
            |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?, row.get::<_, u32>(2)?)),
        );
        let found = row.optional().map_err(ModelError::failed)?;
        Ok(found.map(|(store, position, checksum)| {
            Checkpoint::new(
                StoreId::from_bytes(store),
                Mark { position: Position::new(position.max(0).cast_unsigned()), checksum },
            )
        }))
    }

    fn advance(tx: &mut SqliteTx<'_>, name: &ProjectionName, step: &Step) -> Result<(), ModelError> {
        let Step { to, events, .. } = step;
        let events = i64::try_from(*events).map_err(ModelError::failed)?;
        let moved = tx.execute(
            "INSERT INTO projection_checkpoints (name, store, position, checksum, events) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET store = excluded.store, position = excluded.position,
                checksum = excluded.checksum, events = events + excluded.events",
            params![name.as_str(), to.store.to_bytes(), to.position.as_i64(), to.checksum, events],
        );
        moved.map(drop).map_err(ModelError::failed)
    }

    async fn settle(&self, _: &ProjectionName) -> Result<(), ModelError> {
        // Every batch was committed with its checkpoint.
        Ok(())
    }
}

impl fmt::Debug for SqliteModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::InLog(store) => f.debug_tuple("SqliteModel").field(store).finish(),
            Place::Own { writer, .. } => f.debug_tuple("SqliteModel").field(writer).finish(),
        }
    }
}

impl fmt::Debug for SqliteTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTx").finish_non_exhaustive()
    }
}
