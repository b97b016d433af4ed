//! The engine contract over one SQLite file, or one database in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use es_framework::inspect::Inspect;
use es_framework::{
    Append, AppendError, Appended, Cell, CellError, CellKey, Clock, CommandKey, CommandRecord, Engine, Limits,
    ListStreams, Load, Loaded, Notifier, Page, Position, Read, Snapshot, SnapshotError, StoreError, StoreId,
    StreamInfo, WhenFull,
};
use tokio::sync::Mutex;
use tokio_rusqlite::rusqlite::Connection;

use crate::builder::{Builder, Settings};
use crate::connection::busy;
use crate::connection::errors;
use crate::connection::open::{self, Purpose};
use crate::connection::worker::{Worker, aside, block_on};
use crate::model::transact::{TransactError, by_read_model, protect_log, transact};
use crate::others::poller::{self, Alarm};
use crate::read::page;
use crate::read::pool::{self, Pool, Turn};
use crate::tables::cells;
use crate::tables::commands;
use crate::tables::interned::Names;
use crate::tables::log;
use crate::tables::meta;
use crate::tables::snapshots;
use crate::tables::streams;
use crate::write::append;
use crate::write::queue::Queue;
use crate::write::writer::Writer;

/// How long the last checkpoint waits for other processes that read.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(100);

/// An open store.
#[derive(Debug)]
pub(crate) struct SqliteEngine {
    id: StoreId,
    settings: Settings,
    notifier: Arc<Notifier>,
    /// Where writes go; none if the store is read-only.
    queue: Option<Queue>,
    /// Where reads go; none if the store is in memory, whose one connection is the writer's.
    readers: Option<Pool>,
    alarm: Arc<Alarm>,
    /// What is to be closed, in its order; taken by whoever closes the store.
    workers: Mutex<Workers>,
}

#[derive(Debug, Default)]
struct Workers {
    poller: Option<Worker>,
    writer: Option<Worker>,
}

impl Workers {
    /// Closes all connections, the writer's last.
    async fn close(&mut self, readers: Option<&Pool>, settings: &Settings) -> Result<(), StoreError> {
        if let Some(readers) = readers {
            readers.close().await?;
        }
        if let Some(poller) = &self.poller {
            poller.close().await?;
        }
        self.poller = None;
        if let Some(writer) = &self.writer {
            // Runs after the writer's own job, which ends with the last accepted write.
            let checkpoint = writer.run(|connection| {
                busy::allow(CHECKPOINT_PATIENCE);
                match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(errors::store) {
                    // Others are reading; whoever closes last finishes it.
                    Ok(()) | Err(StoreError::Busy { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            });
            let checkpoint = checkpoint.await;
            writer.close().await?;
            self.writer = None;
            checkpoint?;
            if let Some(readers) = readers {
                let (path, settings) = (readers.path().to_owned(), settings.clone());
                aside("es-sqlite-close", move || open::tidy(&path, &settings)).await?;
            }
        }
        Ok(())
    }
}

impl SqliteEngine {
    pub(crate) async fn open_file(builder: Builder, path: PathBuf) -> Result<Arc<Self>, StoreError> {
        let Builder { create, read_only, settings } = builder;
        let (main, side) =
            if read_only { (Purpose::ReadOnly, Purpose::ReadOnly) } else { (Purpose::Write { create }, Purpose::Read) };
        let connect = |purpose| {
            let (path, durability, cache_bytes) = (path.clone(), settings.durability, settings.cache_bytes);
            Worker::start(settings.write_timeout, move || open::file(&path, purpose, durability, cache_bytes))
        };
        let first = connect(main).await?;
        let (id, head) = facts(&first, !read_only).await?;
        let notifier = Arc::new(Notifier::new(head));
        let mut workers = Workers::default();
        let queue = if read_only {
            workers.poller = Some(first);
            None
        } else {
            workers.poller = Some(connect(side).await?);
            let queue = write_on(&first, &settings, id, &notifier, true);
            workers.writer = Some(first);
            Some(queue)
        };
        let alarm = Arc::<Alarm>::default();
        if let Some(poller) = &workers.poller {
            let (alarm, notifier, interval) = (Arc::clone(&alarm), Arc::clone(&notifier), settings.poll_interval);
            poller.occupy(move |connection| poller::work(connection, &alarm, &notifier, id, interval));
        }
        let readers = Some(Pool::new(path, side, &settings));
        Ok(Arc::new(Self { id, settings, notifier, queue, readers, alarm, workers: Mutex::new(workers) }))
    }

    pub(crate) async fn open_in_memory(builder: Builder) -> Result<Arc<Self>, StoreError> {
        let settings = builder.settings;
        let cache_bytes = settings.cache_bytes;
        let worker = Worker::start(settings.write_timeout, move || open::memory(cache_bytes)).await?;
        let (id, head) = facts(&worker, true).await?;
        let notifier = Arc::new(Notifier::new(head));
        let queue = Some(write_on(&worker, &settings, id, &notifier, false));
        let workers = Mutex::new(Workers { poller: None, writer: Some(worker) });
        Ok(Arc::new(Self { id, settings, notifier, queue, readers: None, alarm: Arc::default(), workers }))
    }

    /// Runs `body` in a write transaction of its own on the store's connection.
    pub(crate) async fn transact<T, E, F>(&self, body: F) -> Result<T, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let done = self.writing()?.alone(move |connection, writer| {
            let body = move |connection: &Connection| by_read_model(|| body(connection));
            let done = transact(connection, |connection| writer.catch_up(connection), body);
            if done.is_err() {
                writer.forget();
            }
            done
        });
        done.await?
    }

    /// Runs `look` on a connection that reads.
    pub(crate) async fn look<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> T + Send + 'static,
    {
        self.reading(Turn::Now, move |connection, _| Ok(look(connection))).await
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
        if self.queue.as_ref().is_some_and(Queue::is_closed) {
            return Err(StoreError::Closed);
        }
        if let Some(pool) = &self.readers {
            self.alarm.watched(&self.notifier);
            return pool.read(turn, job).await;
        }
        let done = self.writing()?.read(move |connection, writer| {
            pool::in_transaction(connection, |connection| job(connection, &mut writer.memory.names))
        });
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
        let (readers, mut workers) = (self.readers.take(), std::mem::take(self.workers.get_mut()));
        if readers.is_none() || workers.poller.is_none() && workers.writer.is_none() {
            return;
        }
        // One after the other, as `close` does: each of two that close at the same moment takes the other for the last.
        let settings = self.settings.clone();
        let thread = thread::Builder::new().name("es-sqlite-drop".to_owned());
        let told = thread.spawn(move || {
            if let Err(error) = block_on(workers.close(readers.as_ref(), &settings)) {
                tracing::warn!(%error, "a store that was dropped could not be closed cleanly");
            }
        });
        // They end all the same, in any order.
        drop(told);
    }
}

/// What is asked of a store when it is opened.
async fn facts(worker: &Worker, write: bool) -> Result<(StoreId, Position), StoreError> {
    let facts = worker.run(move |connection| {
        pool::in_transaction(connection, |connection| {
            if write {
                // Refused now and not at the first write, whose caller could do nothing about it.
                meta::check_write_requires(connection)?;
            }
            Ok((meta::store_id(connection)?, log::head(connection)?.0))
        })
    });
    facts.await
}

/// Gives a connection to a writer and answers the queue before it.
fn write_on(worker: &Worker, settings: &Settings, id: StoreId, notifier: &Arc<Notifier>, shared: bool) -> Queue {
    let (queue, jobs) = Queue::new(settings.queue_appends, settings.queue_bytes);
    let mut writer = Writer::new(id, Arc::clone(&settings.clock), Arc::clone(notifier), settings.write_timeout, shared);
    worker.occupy(move |connection| match protect_log(connection) {
        Ok(()) => writer.work(connection, &jobs),
        Err(error) => tracing::error!(%error, "the log cannot be protected from read models"),
    });
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

    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError> {
        let key = key.clone();
        let bytes = value.as_ref().map_or(0, Bytes::len);
        let set = move |tx: &mut append::Transaction<'_>| cells::set(tx.written()?, &key, expected, value.as_ref());
        self.writing()?.write(bytes, WhenFull::Wait, set).await
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
        // Held to the end: a second call answers when the first is through, and goes on where one was dropped.
        self.workers.lock().await.close(self.readers.as_ref(), &self.settings).await
    }
}
