//! Memory stores as several processes have them open: one log, and for each handle a notifier of its own that learns of
//! the others' commits late.
//!
//! It runs the facts about stores that outlive their handles or are shared without an engine that can do either, and with
//! them the paths of [`Notifier`] that a lone memory store never takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use es_conformance::{Durable, Fixture, Setup, Shared};
use es_framework::engine::{CommitHooks, Load, Loaded, Notifier, Page, Read};
use es_framework::{
    Append, AppendError, Appended, Cell, CellError, CellKey, Clock, CommandKey, CommandRecord, Engine, Limits,
    ListCells, ListStreams, MemoryStore, Position, Snapshot, SnapshotError, Store, StoreError, StoreId, StreamId,
    StreamInfo, Timestamp, Turned,
};

/// How a process makes what it finds in the log known to its watchers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tells {
    /// With the events at hand, as a writer does.
    Events,
    /// Only that there is something new, as after a commit of somebody else's.
    Head,
}

/// Opens memory stores that several handles share and that outlive them.
pub(crate) struct Processes {
    tells: Tells,
    opened: Mutex<Vec<(Arc<dyn Engine>, Exchangeable)>>,
}

/// A clock that another is put in the place of when a store is opened again.
#[derive(Debug, Clone)]
struct Exchangeable(Arc<Mutex<Arc<dyn Clock>>>);

impl Clock for Exchangeable {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now()
    }

    fn turned(&self) -> Turned {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).turned()
    }
}

impl Processes {
    pub(crate) fn that_tell(tells: Tells) -> Self {
        Self { tells, opened: Mutex::default() }
    }

    fn open_process(&self, memory: Arc<dyn Engine>) -> Store {
        let notifier = Arc::new(Notifier::new(memory.notifier().head()));
        let process = Arc::new(Process { memory, notifier, tells: self.tells, closed: AtomicBool::new(false) });
        let polled = Arc::downgrade(&process);
        tokio::spawn(async move {
            // An interval, not a wait for luck: this is how late a process learns of another's commits.
            while let Some(process) = polled.upgrade().filter(|process| !process.closed.load(Ordering::SeqCst)) {
                process.notice().await;
                drop(process);
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
        Store::from(process as Arc<dyn Engine>)
    }

    fn memory_of(&self, store: &Store) -> (Arc<dyn Engine>, Exchangeable) {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.iter().find(|(memory, _)| memory.id() == store.id()).expect("this fixture opened it").clone()
    }
}

impl Fixture for Processes {
    async fn open_with(&self, setup: Setup) -> Store {
        let clock = Exchangeable(Arc::new(Mutex::new(setup.clock)));
        let memory = Arc::clone(MemoryStore::with(setup.limits, Arc::new(clock.clone())).engine());
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::clone(&memory), clock));
        self.open_process(memory)
    }
}

impl Durable for Processes {
    async fn reopen_with(&self, store: Store, setup: Setup) -> Store {
        store.close().await.expect("a memory store can be closed");
        let (memory, clock) = self.memory_of(&store);
        *clock.0.lock().unwrap_or_else(PoisonError::into_inner) = setup.clock;
        self.open_process(memory)
    }
}

impl Shared for Processes {
    async fn second(&self, store: &Store) -> Store {
        self.open_process(self.memory_of(store).0)
    }
}

/// One process's view of a log that it shares.
#[derive(Debug)]
struct Process {
    memory: Arc<dyn Engine>,
    notifier: Arc<Notifier>,
    tells: Tells,
    closed: AtomicBool,
}

impl Process {
    fn memory(&self) -> Result<&Arc<dyn Engine>, StoreError> {
        if self.closed.load(Ordering::SeqCst) { Err(StoreError::Closed) } else { Ok(&self.memory) }
    }

    /// Tells the watchers of this process what is new in the log, by whomever.
    async fn notice(&self) {
        loop {
            let known = self.notifier.head();
            let mut read = Read::new(StreamId::all());
            read.after = known.get();
            let page = self.memory.read(read).await.expect("a memory store can be read");
            if page.events.is_empty() {
                return;
            }
            match self.tells {
                Tells::Events => self.notifier.publish(known, page.events, Position::new(page.scanned)),
                Tells::Head => self.notifier.advance(Position::new(page.head)),
            }
        }
    }
}

#[async_trait]
impl Engine for Process {
    fn id(&self) -> StoreId {
        self.memory.id()
    }

    fn limits(&self) -> Limits {
        self.memory.limits()
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        self.memory.clock()
    }

    fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let appended = self.memory()?.append(append).await?;
        // Others may run in between: the log is ahead of the notifier for a moment, as it is in a database.
        tokio::task::yield_now().await;
        self.notice().await;
        Ok(appended)
    }

    async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        self.memory()?.command(key).await
    }

    async fn read(&self, read: Read) -> Result<Page, StoreError> {
        tokio::task::yield_now().await;
        self.memory()?.read(read).await
    }

    async fn load(&self, load: Load) -> Result<Loaded, StoreError> {
        self.memory()?.load(load).await
    }

    async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
        self.memory()?.streams(list).await
    }

    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        self.memory()?.save_snapshot(snapshot).await
    }

    async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError> {
        self.memory()?.cell(key).await
    }

    async fn cells(&self, list: ListCells) -> Result<Vec<Cell>, StoreError> {
        self.memory()?.cells(list).await
    }

    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError> {
        self.memory()?.set_cell(key, expected, value).await
    }

    fn commit_hooks(&self) -> Option<&CommitHooks> {
        self.memory.commit_hooks()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::SeqCst);
        self.notifier.close();
        Ok(())
    }
}
