//! The connections that read.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use es_framework::StoreError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rusqlite::rusqlite::Connection;

use crate::builder::Settings;
use crate::names::Names;
use crate::open::{self, Purpose};
use crate::worker::Worker;
use crate::{errors, schema};

/// A few connections that read, each on a thread of its own, opened when they are first needed.
#[derive(Debug)]
pub(crate) struct Pool {
    path: PathBuf,
    purpose: Purpose,
    settings: Settings,
    /// One permit for each connection there may be.
    turns: Semaphore,
    idle: Mutex<Vec<Reader>>,
}

#[derive(Debug, Clone)]
struct Reader {
    worker: Worker,
    /// Only ever locked on the worker's thread.
    names: Arc<Mutex<Names>>,
}

impl Pool {
    pub(crate) fn new(path: PathBuf, purpose: Purpose, settings: &Settings) -> Self {
        let turns = Semaphore::new(settings.readers);
        Self { path, purpose, settings: settings.clone(), turns, idle: Mutex::new(Vec::new()) }
    }

    /// Runs a job in a read transaction of its own, so that it sees one state of the log.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection, &mut Names) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.turns.acquire().await.map_err(|_| StoreError::Closed)?;
        let idle = self.idle().pop();
        let reader = match idle {
            Some(reader) => reader,
            None => self.open().await?,
        };
        // Given back also when the caller goes away meanwhile: the worker's next job then waits for this one.
        let lease = Lease { pool: self, reader, _turn: turn };
        let names = Arc::clone(&lease.reader.names);
        lease
            .reader
            .worker
            .run(move |connection| {
                let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
                in_transaction(connection, |connection| job(connection, &mut names))
            })
            .await
    }

    /// Waits for the reads under way and closes all connections.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        let all = u32::try_from(self.settings.readers).unwrap_or(u32::MAX);
        let Ok(turns) = self.turns.acquire_many(all).await else { return Ok(()) };
        self.turns.close();
        drop(turns);
        let readers = std::mem::take(&mut *self.idle());
        for Reader { worker, .. } in readers {
            worker.close().await?;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Reader, StoreError> {
        let Self { path, purpose, settings, .. } = self;
        let (path, purpose, cache_bytes) = (path.clone(), *purpose, settings.cache_bytes);
        let durability = settings.durability;
        let open = move || open::file(&path, purpose, durability, cache_bytes);
        let worker = Worker::start(settings.write_timeout, open).await?;
        Ok(Reader { worker, names: Arc::default() })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lease<'p> {
    pool: &'p Pool,
    reader: Reader,
    _turn: SemaphorePermit<'p>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.pool.idle().push(self.reader.clone());
    }
}

/// Runs a job in a read transaction, after a look at the format.
pub(crate) fn in_transaction<T>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    run(connection, "BEGIN")?;
    let found = schema::format(connection).map_err(errors::store);
    let answer = found.and_then(|found| {
        if found == schema::FORMAT {
            job(connection)
        } else {
            Err(StoreError::FormatChanged { opened: schema::FORMAT, found })
        }
    });
    let ended = run(connection, "COMMIT");
    answer.and_then(|answer| ended.map(|()| answer))
}

fn run(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(errors::store)?;
    Ok(())
}
