//! The engine contract over the schema of a PostgreSQL database.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use es_framework::engine::{Load, Loaded, Notifier, Page, Queue, Read};
use es_framework::{
    Append, AppendError, Appended, Cell, CellError, CellKey, Clock, CommandKey, CommandRecord, Engine, Limits,
    ListCells, ListStreams, Snapshot, SnapshotError, StoreError, StoreId, StreamInfo,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::connection::connect::{Connector, Purpose};
use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::error::OpenError;
use crate::options::Settings;
use crate::others::listener::{Alarm, Listener};
use crate::read::pool::Pool;
use crate::read::reader::Reader;
use crate::tables::cells::{self, SetError};
use crate::tables::log::LogHead;
use crate::tables::schema::{self, Schema};
use crate::tables::snapshots;
use crate::tables::statements::Statements;
use crate::write::writer::{Alone, Write, Writer};

/// An open store.
#[derive(Debug)]
pub(crate) struct PostgresEngine {
    id: StoreId,
    settings: Settings,
    notifier: Arc<Notifier>,
    /// Where appends go; [`None`] if the store is read-only.
    queue: Option<Queue<Write, Alone>>,
    reader: Arc<Reader>,
    /// Where cells and snapshots are written.
    aside: Arc<Pool>,
    statements: Arc<Statements>,
    alarm: Arc<Alarm>,
    runtime: Handle,
    closing: Mutex<Closing>,
    /// Set once the store is closed.
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Closing {
    begun: bool,
    tasks: Vec<JoinHandle<()>>,
}

impl PostgresEngine {
    pub(crate) async fn open(url: &str, settings: Settings) -> Result<Arc<Self>, OpenError> {
        let runtime = Handle::try_current().map_err(|_| OpenError::NoRuntime)?;
        let schema = Schema::new(&settings.schema)?;
        let connector = Arc::new(Connector::new(url, &settings)?);
        let first = connector.first(if settings.read_only { Purpose::Read } else { Purpose::Write }).await?;
        let statements = Arc::new(Statements::new(schema));
        let head = prepare(&first, &statements, &settings).await?;
        let (id, notifier) = (head.store, Arc::new(Notifier::new(head.position)));

        let reader = Arc::new(Reader::new(
            Arc::clone(&connector),
            Arc::clone(&statements),
            id,
            Arc::clone(&notifier),
            settings.readers,
            settings.read_timeout,
        ));
        let aside = Arc::new(Pool::new(Arc::clone(&connector), Purpose::Aside, 1, settings.write_timeout));
        let alarm = Arc::<Alarm>::default();
        let mut tasks = Vec::new();
        let listener = Listener {
            connector: Arc::clone(&connector),
            reader: Arc::clone(&reader),
            notifier: Arc::clone(&notifier),
            alarm: Arc::clone(&alarm),
            store: id,
            interval: settings.poll_interval,
        };
        tasks.push(runtime.spawn(listener.work()));
        let queue = if settings.read_only {
            first.end().await;
            None
        } else {
            let (queue, inbox) = Queue::new(settings.queue_appends, settings.queue_bytes);
            let writer = Writer::new(
                connector,
                Arc::clone(&statements),
                id,
                Arc::clone(&settings.clock),
                Arc::clone(&notifier),
                settings.write_timeout,
                first,
            );
            tasks.push(runtime.spawn(writer.work(inbox, Arc::clone(reader.pool()))));
            Some(queue)
        };
        let closing = Mutex::new(Closing { begun: false, tasks });
        let (closed, _) = watch::channel(false);
        Ok(Arc::new(Self { id, settings, notifier, queue, reader, aside, statements, alarm, runtime, closing, closed }))
    }

    fn writing(&self) -> Result<&Queue<Write, Alone>, StoreError> {
        match &self.queue {
            Some(queue) => Ok(queue),
            None if self.is_closing() => Err(StoreError::Closed),
            None => Err(StoreError::ReadOnly),
        }
    }

    /// Runs a job as a task of the store's runtime, so that nothing depends on whether and where its caller is polled.
    /// It runs to completion if the caller goes away.
    async fn run<T, E>(&self, job: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        if self.is_closing() {
            return Err(StoreError::Closed.into());
        }
        match self.runtime.spawn(job).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => Err(errors::internal("a job panicked").into()),
            // The runtime on which the store was opened was shut down.
            Err(_) => Err(StoreError::Closed.into()),
        }
    }

    /// Runs a read, which ends when its caller goes away.
    async fn read_job<T: Send + 'static>(
        &self,
        job: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.alarm.watched(&self.notifier);
        if self.is_closing() {
            return Err(StoreError::Closed);
        }
        let mut task = AbortOnDrop(self.runtime.spawn(job));
        match (&mut task.0).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => Err(errors::internal("a read panicked")),
            Err(_) => Err(StoreError::Closed),
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner).begun
    }

    /// Begins to close the store, unless that was done before.
    fn begin_closing(&self) {
        let mut closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        if closing.begun {
            return;
        }
        closing.begun = true;
        let tasks = std::mem::take(&mut closing.tasks);
        drop(closing);
        if let Some(queue) = &self.queue {
            queue.close();
        }
        self.alarm.stop();
        self.notifier.close();
        let (reader, aside, closed) = (Arc::clone(&self.reader), Arc::clone(&self.aside), self.closed.clone());
        // A task of its own, because a caller may stop polling.
        self.runtime.spawn(async move {
            for task in tasks {
                // A panic was reported by the runtime.
                drop(task.await);
            }
            aside.close().await;
            reader.close().await;
            closed.send_replace(true);
        });
    }
}

/// Ends a task when its caller goes away.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Creates the store if it is missing, and reads what opening it needs.
async fn prepare(session: &Session, statements: &Statements, settings: &Settings) -> Result<LogHead, OpenError> {
    let schema = &statements.schema;
    if !schema::exists(session, schema).await? {
        if !settings.create || settings.read_only {
            return Err(OpenError::Missing { schema: settings.schema.clone() });
        }
        schema::create(session, schema, &settings.schema).await?;
    }
    let head = match LogHead::read(session, statements).await {
        Ok(head) => head,
        Err(Failure::Refused(StoreError::FormatChanged { opened, found })) if found > opened => {
            return Err(OpenError::NewerFormat { schema: settings.schema.clone(), found, known: opened });
        }
        Err(Failure::Refused(StoreError::StoreChanged { reason })) => {
            return Err(OpenError::NotAStore { schema: settings.schema.clone(), reason });
        }
        Err(failure) => return Err(failure.into_store().into()),
    };
    if !settings.read_only {
        // Refuse now rather than at the first write, where the caller could do nothing about it.
        head.check_write_requires()?;
    }
    Ok(head)
}

impl Drop for PostgresEngine {
    fn drop(&mut self) {
        self.begin_closing();
    }
}

#[async_trait]
impl Engine for PostgresEngine {
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
        let (write, answer) = Write::new(append);
        let ticket = self.writing()?.write(write, bytes, when_full);
        let _ticket = ticket.map_err(es_framework::engine::Refused::into_error::<AppendError>)?;
        answer.wait().await
    }

    async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        let (reader, key) = (Arc::clone(&self.reader), key.clone());
        self.read_job(async move { reader.command(&key).await }).await
    }

    async fn read(&self, read: Read) -> Result<Page, StoreError> {
        let reader = Arc::clone(&self.reader);
        self.read_job(async move { reader.page(&read).await }).await
    }

    async fn load(&self, load: Load) -> Result<Loaded, StoreError> {
        let reader = Arc::clone(&self.reader);
        self.read_job(async move { reader.load(&load).await }).await
    }

    async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
        let reader = Arc::clone(&self.reader);
        self.read_job(async move { reader.streams(&list).await }).await
    }

    async fn save_snapshot(&self, mut snapshot: Snapshot) -> Result<(), SnapshotError> {
        self.writing()?;
        snapshot.time = self.settings.clock.now();
        let (aside, statements) = (Arc::clone(&self.aside), Arc::clone(&self.statements));
        let save = async move {
            // Saving it twice changes nothing.
            let save = |session: Arc<Session>| {
                let (statements, snapshot) = (&statements, &snapshot);
                async move { snapshots::save(&session, statements, snapshot).await }
            };
            let end = aside.run(save).await?;
            let (stream, at) = (snapshot.stream.clone(), snapshot.at);
            if at > end { Err(SnapshotError::BeyondEnd { stream, at, end }) } else { Ok(()) }
        };
        self.run(save).await
    }

    async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError> {
        let (reader, key) = (Arc::clone(&self.reader), key.clone());
        self.read_job(async move { reader.cell(&key).await }).await
    }

    async fn cells(&self, list: ListCells) -> Result<Vec<Cell>, StoreError> {
        let reader = Arc::clone(&self.reader);
        self.read_job(async move { reader.cells(&list).await }).await
    }

    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError> {
        self.writing()?;
        let (aside, statements, key) = (Arc::clone(&self.aside), Arc::clone(&self.statements), key.clone());
        let set = async move {
            let set = |session: Arc<Session>| {
                let (statements, key, value) = (&statements, &key, value.as_ref());
                async move {
                    match cells::set(&session, statements, key, expected, value).await {
                        Ok(revision) => Ok(Ok(revision)),
                        Err(SetError::Caller(error)) => Ok(Err(error)),
                        Err(SetError::Failed(failure)) => Err(failure),
                    }
                }
            };
            // Only once: if its answer is lost, it may have been set, and a second attempt would not know.
            match aside.once(Instant::now(), set).await {
                Ok(done) => done,
                Err(failure) => Err(failure.into_store().into()),
            }
        };
        self.run(set).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let mut closed = self.closed.subscribe();
        self.begin_closing();
        // If the runtime was shut down, everything has ended with it.
        drop(closed.wait_for(|closed| *closed).await);
        Ok(())
    }
}
