//! The engine contract over one SQLite file, or one database in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use es_framework::engine::{CommitHooks, Load, Loaded, Notifier, Page, Read};
use es_framework::inspect::Inspect;
use es_framework::{
    Append, AppendError, Appended, Cell, CellError, CellKey, Clock, CommandKey, CommandRecord, Engine, Limits,
    ListCells, ListStreams, Position, Snapshot, SnapshotError, StoreError, StoreId, StreamInfo, WhenFull,
};
use tokio::sync::Mutex;
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::busy;
use crate::connection::errors;
use crate::connection::worker::{Worker, aside, block_on};
use crate::error::OpenError;
use crate::opening::file::DatabaseFile;
use crate::opening::open::{self, Purpose, StoreFile};
use crate::options::Settings;
use crate::others::alarm::Alarm;
use crate::others::poller;
use crate::read::page;
use crate::read::pool::{self, Pool, Turn};
use crate::tables::cells;
use crate::tables::commands;
use crate::tables::interned::Names;
use crate::tables::log;
use crate::tables::meta;
use crate::tables::schema;
use crate::tables::snapshots;
use crate::tables::streams;
use crate::write::append;
use crate::write::queue::Queue;
use crate::write::transact::{TransactError, transact};
use crate::write::writer::Writer;

/// How long the last checkpoint waits for readers in other processes.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(100);

/// An open store.
#[derive(Debug)]
pub(crate) struct SqliteEngine {
    id: StoreId,
    settings: Settings,
    notifier: Arc<Notifier>,
    /// What else runs inside the transactions of appends. They are given the writer's [`Connection`].
    hooks: Arc<CommitHooks>,
    /// Where writes go; [`None`] if the store is read-only.
    queue: Option<Queue>,
    /// Where reads go; [`None`] if the store is in memory, whose only connection is the writer's.
    readers: Option<Arc<Pool>>,
    /// Where queries of read models go: connections that reject every write and that the store does not use for its own
    /// reads; [`None`] if the store is in memory.
    queries: Option<Arc<Pool>>,
    alarm: Arc<Alarm>,
    /// What has to be closed, in order; taken by the call that closes the store.
    workers: Arc<Mutex<Workers>>,
}

#[derive(Debug, Default)]
struct Workers {
    poller: Option<Worker>,
    writer: Option<Worker>,
}

impl Workers {
    /// Closes all connections, the writer's last. Every connection is closed, even if an earlier one could not be
    /// closed cleanly.
    ///
    /// # Errors
    ///
    /// The first one.
    ///
    /// # Cancel safety
    ///
    /// Callers let it run to completion, on a thread of its own.
    async fn close(
        &mut self,
        readers: Option<&Pool>,
        queries: Option<&Pool>,
        settings: &Settings,
    ) -> Result<(), StoreError> {
        let mut closed = Ok(());
        if let Some(queries) = queries {
            closed = closed.and(queries.close().await);
        }
        if let Some(readers) = readers {
            closed = closed.and(readers.close().await);
        }
        if let Some(poller) = &self.poller {
            closed = closed.and(poller.close().await);
        }
        self.poller = None;
        if let Some(writer) = &self.writer {
            // Runs after the writer's own job, which ends with the last accepted write.
            let checkpoint = writer.run(|connection| {
                busy::allow(CHECKPOINT_PATIENCE);
                match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(errors::store) {
                    // Others are still reading; the last one to close finishes it.
                    Ok(()) | Err(StoreError::Busy { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            });
            closed = closed.and(checkpoint.await);
            closed = closed.and(writer.close().await);
            self.writer = None;
            if let Some(readers) = readers {
                let (store, settings) = (readers.store().clone(), settings.clone());
                closed = closed.and(aside("es-sqlite-close", move || open::tidy(&store, &settings)).await);
            }
        }
        closed
    }
}

impl SqliteEngine {
    pub(crate) async fn open_file(path: PathBuf, purpose: Purpose, settings: Settings) -> Result<Arc<Self>, OpenError> {
        let read_only = purpose == Purpose::ReadOnly;
        let (timeout, durability, cache_bytes) = (settings.write_timeout, settings.durability, settings.cache_bytes);
        let open = move || open::first(&path, purpose, durability, cache_bytes);
        let (first, file) = Worker::start(timeout, open).await?;
        let (id, head) = facts(&first, !read_only).await?;
        let store = StoreFile { file, id };
        let side = if read_only { Purpose::ReadOnly } else { Purpose::Read };
        let notifier = Arc::new(Notifier::new(head));
        let hooks = Arc::<CommitHooks>::default();
        let mut workers = Workers::default();
        let queue = if read_only {
            workers.poller = Some(first);
            None
        } else {
            let polled = store.clone();
            let open = move || Ok::<_, StoreError>((open::another(&polled, side, durability, cache_bytes)?, ()));
            workers.poller = Some(Worker::start(timeout, open).await?.0);
            let queue = write_on(&first, &settings, id, &hooks, &notifier, Some(store.file.clone()));
            workers.writer = Some(first);
            Some(queue)
        };
        let alarm = Arc::<Alarm>::default();
        if let Some(poller) = &workers.poller {
            let (alarm, notifier, interval) = (Arc::clone(&alarm), Arc::clone(&notifier), settings.poll_interval);
            let store = store.clone();
            poller.occupy(move |connection| poller::work(connection, &alarm, &notifier, &store, interval));
        }
        let queries = Some(Arc::new(Pool::new(store.clone(), Purpose::ReadOnly, &settings)));
        let readers = Some(Arc::new(Pool::new(store, side, &settings)));
        Ok(Arc::new(Self {
            id,
            settings,
            notifier,
            hooks,
            queue,
            readers,
            queries,
            alarm,
            workers: Arc::new(Mutex::new(workers)),
        }))
    }

    pub(crate) async fn open_in_memory(settings: Settings) -> Result<Arc<Self>, OpenError> {
        let cache_bytes = settings.cache_bytes;
        let open = move || Ok::<_, StoreError>((open::memory(cache_bytes)?, ()));
        let (worker, ()) = Worker::start(settings.write_timeout, open).await?;
        let (id, head) = facts(&worker, true).await?;
        let notifier = Arc::new(Notifier::new(head));
        let hooks = Arc::<CommitHooks>::default();
        let queue = Some(write_on(&worker, &settings, id, &hooks, &notifier, None));
        let workers = Arc::new(Mutex::new(Workers { poller: None, writer: Some(worker) }));
        let (readers, queries) = (None, None);
        Ok(Arc::new(Self { id, settings, notifier, hooks, queue, readers, queries, alarm: Arc::default(), workers }))
    }

    /// Runs `body` in a write transaction of its own on the store's connection.
    pub(crate) async fn transact<T, E, F>(&self, body: F) -> Result<T, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let done = self.writing()?.alone(move |connection, writer| {
            let done = transact(connection, |connection| writer.catch_up(connection), body);
            if done.is_err() {
                writer.forget();
            }
            done
        });
        done.await?
    }

    /// Runs a query of a read model.
    pub(crate) async fn look<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> T + Send + 'static,
    {
        self.reading_by(self.queries.as_deref(), Turn::Now, move |connection, _| Ok(look(connection))).await
    }

    /// Where the file is; [`None`] if in memory.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.readers.as_ref().map(|readers| readers.store().file.path().to_owned())
    }

    pub(crate) fn store_id(&self) -> StoreId {
        self.id
    }

    fn writing(&self) -> Result<&Queue, StoreError> {
        self.queue.as_ref().ok_or(StoreError::ReadOnly)
    }

    /// Runs a job in a read transaction of its own.
    pub(crate) async fn reading<T: Send + 'static>(
        &self,
        turn: Turn,
        job: impl FnOnce(&Connection, &mut Names) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reading_by(self.readers.as_deref(), turn, job).await
    }

    async fn reading_by<T: Send + 'static>(
        &self,
        pool: Option<&Pool>,
        turn: Turn,
        job: impl FnOnce(&Connection, &mut Names) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.queue.as_ref().is_some_and(Queue::is_closed) {
            return Err(StoreError::Closed);
        }
        if let Some(pool) = pool {
            self.alarm.watched(&self.notifier);
            return pool.read(turn, job).await;
        }
        let done = self
            .writing()?
            .read(move |connection, writer| pool::in_transaction(connection, &mut writer.memory.names, job));
        done.await?
    }
}

impl Drop for SqliteEngine {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
        self.alarm.stop();
        self.notifier.close();
        let (readers, queries) = (self.readers.take(), self.queries.take());
        // If the lock is taken, the store is being closed already.
        let Some(mut workers) = self.workers.try_lock().ok().map(|mut workers| std::mem::take(&mut *workers)) else {
            return;
        };
        if readers.is_none() || workers.poller.is_none() && workers.writer.is_none() {
            return;
        }
        // One after the other, as in `close`: two that close at the same moment would each take the other for the last.
        let settings = self.settings.clone();
        let thread = thread::Builder::new().name("es-sqlite-drop".to_owned());
        let told = thread.spawn(move || {
            if let Err(error) = block_on(workers.close(readers.as_deref(), queries.as_deref(), &settings)) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "a store that was dropped could not be closed cleanly");
            }
        });
        // Without the thread the connections still close, in any order.
        drop(told);
    }
}

/// Reads the facts that opening a store needs.
async fn facts(worker: &Worker, write: bool) -> Result<(StoreId, Position), StoreError> {
    let facts = worker.run(move |connection| {
        pool::in_transaction(connection, &mut Names::default(), |connection, names| {
            if write {
                // Refuse now rather than at the first write, where the caller could do nothing about it.
                meta::check_write_requires(connection)?;
            }
            schema::check(connection, names.layout)?;
            Ok((meta::store_id(connection)?, log::find_head(connection)?.position))
        })
    });
    facts.await
}

/// Hands a connection to a writer and returns the queue in front of it.
fn write_on(
    worker: &Worker,
    settings: &Settings,
    id: StoreId,
    hooks: &Arc<CommitHooks>,
    notifier: &Arc<Notifier>,
    file: Option<DatabaseFile>,
) -> Queue {
    let (queue, mut inbox) = Queue::new(settings.queue_appends, settings.queue_bytes);
    let (clock, hooks, notifier) = (Arc::clone(&settings.clock), Arc::clone(hooks), Arc::clone(notifier));
    let mut writer = Writer::new(id, clock, hooks, notifier, settings.write_timeout, file);
    worker.occupy(move |connection| writer.work(connection, &mut inbox));
    queue
}

#[async_trait]
impl Engine for SqliteEngine {
    fn id(&self) -> StoreId {
        self.id
    }

    fn limits(&self) -> Limits {
        self.settings.limits
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.settings.clock
    }

    fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.validate(&self.settings.limits)?;
        let (bytes, when_full) = (append.cost(), append.when_full);
        self.writing()?.write(bytes, when_full, move |tx| append::append(&append, tx)).await
    }

    async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        let key = key.clone();
        self.reading(Turn::Now, move |connection, _| commands::find(connection, &key)).await
    }

    async fn read(&self, read: Read) -> Result<Page, StoreError> {
        let store = self.id;
        let turn = if read.ahead { Turn::Ahead } else { Turn::Now };
        self.reading(turn, move |connection, names| page::read(connection, names, store, &read)).await
    }

    async fn load(&self, load: Load) -> Result<Loaded, StoreError> {
        let store = self.id;
        let Load { stream, snapshot: name, until, events, .. } = load;
        let job = move |connection: &Connection, names: &mut Names| {
            let snapshot = match &name {
                Some(name) => snapshots::find(connection, &stream, name)?,
                None => None,
            };
            let mut loaded = Loaded::default();
            loaded.snapshot = snapshot.filter(|snapshot| until.is_none_or(|until| snapshot.at <= until.get()));
            if events == 0 {
                return Ok(loaded);
            }
            let mut read = Read::new(stream);
            read.events = events;
            read.after = loaded.snapshot.as_ref().map_or(0, |snapshot| snapshot.at);
            read.before = until.map(|until| until.next().get());
            loaded.page = page::read(connection, names, store, &read)?;
            Ok(loaded)
        };
        self.reading(Turn::Now, job).await
    }

    async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
        self.reading(Turn::Now, move |connection, _| streams::list(connection, &list)).await
    }

    async fn save_snapshot(&self, mut snapshot: Snapshot) -> Result<(), SnapshotError> {
        let clock = Arc::clone(&self.settings.clock);
        let bytes = snapshot.state.len();
        let save = move |tx: &mut append::Transaction<'_>| {
            snapshot.time = clock.now();
            snapshots::save(tx.written()?, &snapshot)
        };
        self.writing()?.write(bytes, WhenFull::Wait, save).await
    }

    async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError> {
        let key = key.clone();
        self.reading(Turn::Now, move |connection, _| cells::find(connection, &key)).await
    }

    async fn cells(&self, list: ListCells) -> Result<Vec<Cell>, StoreError> {
        self.reading(Turn::Now, move |connection, _| cells::list(connection, &list)).await
    }

    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError> {
        let key = key.clone();
        let bytes = value.as_ref().map_or(0, Bytes::len);
        let set = move |tx: &mut append::Transaction<'_>| cells::set(tx.written()?, &key, expected, value.as_ref());
        self.writing()?.write(bytes, WhenFull::Wait, set).await
    }

    fn commit_hooks(&self) -> Option<&CommitHooks> {
        Some(&self.hooks)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    async fn close(&self) -> Result<(), StoreError> {
        if let Some(queue) = &self.queue {
            queue.close();
        }
        self.notifier.close();
        self.alarm.stop();
        let (readers, queries, settings) = (self.readers.clone(), self.queries.clone(), self.settings.clone());
        let workers = Arc::clone(&self.workers);
        // On a thread of its own, so that the lock is never held by a future that its caller does not poll. A second
        // call waits there for the first.
        let close = async move { workers.lock().await.close(readers.as_deref(), queries.as_deref(), &settings).await };
        aside("es-sqlite-close", move || block_on(close)).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Durability;

    async fn open(path: &std::path::Path, settings: Settings) -> Arc<SqliteEngine> {
        SqliteEngine::open_file(path.to_owned(), Purpose::Write { create: true }, settings).await.unwrap()
    }

    /// The store's default guarantees used to be set only on the connection that writes.
    #[tokio::test]
    async fn each_connection_is_set_up_as_the_docs_say() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Settings::default().durability, Durability::Full);
        for (durability, promised) in [(Durability::Full, [2, 1, 1]), (Durability::Normal, [1, 0, 0])] {
            let engine = open(&folder.path().join("store.db"), Settings { durability, ..Settings::default() }).await;
            let ask = |connection: &Connection| {
                let ask = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
                let others = ["wal_autocheckpoint", "journal_size_limit", "temp_store", "trusted_schema"].map(ask);
                assert_eq!(others, [2_000, 64 << 20, 2, 0]);
                let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0)).unwrap();
                assert_eq!(mode, "wal");
                (["synchronous", "fullfsync", "checkpoint_fullfsync"].map(ask), ask("query_only"))
            };
            let writer = engine.writing().unwrap().alone(move |connection, _| ask(connection)).await.unwrap();
            assert_eq!(writer, (promised, 0), "{durability:?}");
            // A reader runs a checkpoint when it closes last.
            assert_eq!(engine.look(ask).await.unwrap(), (promised, 1), "{durability:?}");
            engine.close().await.unwrap();
        }
    }

    /// Another process changes what the stream numbers stand for, which the generation shows, and later the features
    /// that writers must know.
    #[tokio::test]
    async fn a_new_generation_is_learnt_before_the_next_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let engine = open(&path, Settings::default()).await;
        let store: es_framework::Store = (Arc::clone(&engine) as Arc<dyn Engine>).into();
        let event = || es_framework::CandidateEvent::new("tested", "x").unwrap();
        let stream = store.open_stream("s-1").unwrap();
        stream.write(event(), es_framework::ExpectedVersion::Any).await.unwrap();
        let other = Connection::open(&path).unwrap();
        let sum = crate::tables::interned::stream_sum(50, "s-1", "s").stored();
        other.execute("UPDATE es_stream SET id = 50, checksum = ?1", [sum]).unwrap();
        other.execute("UPDATE es_event SET stream = 50", []).unwrap();
        meta::set_integer(&other, meta::GENERATION, 1).unwrap();
        stream.write(event(), es_framework::ExpectedVersion::StreamExists).await.unwrap();
        let numbers = "SELECT count(*) FROM es_event WHERE stream = 50";
        assert_eq!(other.query_row(numbers, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
        // The checksum of a text value, computed by another implementation from the documented bytes.
        other.execute("INSERT INTO es_meta VALUES ('write_requires', 'merged-index', 1700840087)", []).unwrap();
        meta::set_integer(&other, meta::GENERATION, 2).unwrap();
        for _ in 0..2 {
            let refused = stream.write(event(), es_framework::ExpectedVersion::Any).await.unwrap_err();
            assert!(matches!(refused, AppendError::Store(StoreError::WriteRequires { .. })), "{refused:?}");
        }
        assert_eq!(stream.version().await.unwrap(), 2);
        store.close().await.unwrap();
    }

    /// Leaves a statement open, so that SQLite does not close the connection.
    fn keep_open(connection: &Connection) {
        std::mem::forget(connection.prepare("SELECT 1").unwrap());
    }

    /// A reader that could not be closed left the poller and the writer open forever.
    #[tokio::test]
    async fn a_connection_that_cannot_be_closed_keeps_no_other_open() {
        for broken in ["reader", "writer", "both"] {
            let folder = tempfile::tempdir().unwrap();
            let engine = open(&folder.path().join("store.db"), Settings::default()).await;
            engine.look(|_| ()).await.unwrap();
            if broken != "writer" {
                engine.look(keep_open).await.unwrap();
            }
            if broken != "reader" {
                engine.writing().unwrap().alone(|connection, _| keep_open(connection)).await.unwrap();
            }
            let connections = {
                let workers = engine.workers.lock().await;
                [workers.poller.clone().unwrap(), workers.writer.clone().unwrap()]
            };
            engine.close().await.unwrap_err();
            // A connection that could not be closed is given up.
            let closed = if broken == "reader" { 2 } else { 1 };
            for connection in connections.iter().take(closed) {
                let ran = connection.run(|_| Ok(())).await;
                assert!(matches!(ran, Err(StoreError::Closed)), "{broken}: {ran:?}");
            }
            // And nothing is left to do for a second call.
            engine.close().await.unwrap();
        }
    }
}
