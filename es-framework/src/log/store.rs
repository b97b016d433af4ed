//! The handle to an open store.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::Instrument;

use super::append::{Append, Appended, CommandRecord};
use super::cell::{Cell, ListCells};
use super::engine::Engine;
use super::error::{AppendError, CellError, StoreError};
use super::extensions::Extensions;
use super::id::StoreId;
use super::name::{CellKey, CommandKey, InvalidName, StreamId};
use super::observer::{AlreadyObserved, AppendOutcome, AppendReport, Observed, Observer};
use super::position::Position;
use super::read::{ListStreams, StreamInfo};
use super::stream::Stream;
use super::time::{Clock, Timestamp};

/// A handle to an open store, whichever engine is behind it; cheap to clone.
///
/// ```
/// use es_framework::{CandidateEvent, ExpectedVersion, MemoryStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store: Store = MemoryStore::new().into();
/// let account = store.open_stream("account-alice")?;
/// account.write(CandidateEvent::new("deposited", "500")?, ExpectedVersion::NoStream).await?;
/// let events = account.read().collect().await?;
/// assert_eq!(&events[0].payload[..], b"500");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Store {
    engine: Arc<dyn Engine>,
    extensions: Arc<Extensions>,
}

impl Store {
    /// Creates a handle to an engine.
    pub fn new(engine: impl Engine) -> Self {
        let engine: Arc<dyn Engine> = Arc::new(engine);
        engine.into()
    }

    /// What a layer above keeps with the store, created if there is none. Handles cloned from this one share it.
    pub(crate) fn extension<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        self.extensions.get()
    }

    /// A handle without the extensions, for what is kept in one of them: it must not keep itself alive.
    pub(crate) fn without_extensions(&self) -> Self {
        Arc::clone(&self.engine).into()
    }

    /// The random id of the store.
    pub fn id(&self) -> StoreId {
        self.engine.id()
    }

    /// The engine behind the handle.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// The clock that events are stamped with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.engine.clock()
    }

    /// The current time, by [`Self::clock`].
    pub fn now(&self) -> Timestamp {
        self.engine.clock().now()
    }

    /// The position of the newest event this handle knows about: every commit of this process, and those of other
    /// processes once they are noticed.
    pub fn head(&self) -> Position {
        self.engine.notifier().head()
    }

    /// Creates a handle to a stream, which need not exist; `@all` contains every event of the store.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the id is not a valid stream id.
    pub fn open_stream<I>(&self, id: I) -> Result<Stream, InvalidName>
    where
        I: TryInto<StreamId>,
        InvalidName: From<I::Error>,
    {
        Ok(self.stream(id.try_into()?))
    }

    /// Creates a handle to a stream whose id was checked before.
    pub fn stream(&self, id: StreamId) -> Stream {
        Stream::new(self.clone(), id)
    }

    /// Creates a handle to `@all`, the single sequence of all events of the store.
    pub fn all(&self) -> Stream {
        self.stream(StreamId::all())
    }

    /// Writes events to one or more streams, all or nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the write either never starts or runs to completion. Give the events ids or the append
    /// a command key to find out which.
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let (events, streams) = (append.event_count(), append.streams.len());
        let span = tracing::debug_span!("append", events, streams);
        let Some(observed) = self.observed() else { return self.engine.append(append).instrument(span).await };
        let (begun, bytes) = (Instant::now(), append.bytes());
        let result = self.engine.append(append).instrument(span).await;
        let (outcome, duration) = (AppendOutcome::of(&result), begun.elapsed());
        observed.tell(|observer| observer.appended(&AppendReport { events, bytes, outcome, duration }));
        result
    }

    /// Attaches an observer, which is told what happens in this open store from now on: through every handle to it, and
    /// in its engine. It stays attached until the store is dropped.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use es_framework::MemoryStore;
    /// use es_framework::observe::Observer;
    ///
    /// #[derive(Debug)]
    /// struct Indifferent;
    ///
    /// impl Observer for Indifferent {}
    ///
    /// let store = MemoryStore::new();
    /// store.observe(Arc::new(Indifferent))?;
    /// assert!(store.observe(Arc::new(Indifferent)).is_err());
    /// # Ok::<(), es_framework::observe::AlreadyObserved>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`AlreadyObserved`] if it has one.
    pub fn observe(&self, observer: Arc<dyn Observer>) -> Result<(), AlreadyObserved> {
        self.engine.notifier().observe(observer)
    }

    pub(crate) fn observed(&self) -> Option<&Observed> {
        self.engine.notifier().observed()
    }

    /// Returns the record of the command that was executed under this key.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        self.engine.command(key).await
    }

    /// Lists streams in the order of their first events, one page at a time.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
        self.engine.streams(list).await
    }

    /// Reads a cell.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError> {
        self.engine.cell(key).await
    }

    /// Lists the cells that exist, in the order of their keys as bytes, one page at a time.
    ///
    /// ```
    /// use es_framework::{CellKey, ListCells, MemoryStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryStore::new();
    /// for key in ["lease/mailer", "lease/totals", "settings"] {
    ///     store.set_cell(&CellKey::new(key)?, 0, Some("x".into())).await?;
    /// }
    /// let leases = store.cells(ListCells::new().prefix("lease/")).await?;
    /// assert_eq!(leases.iter().map(|cell| cell.key.as_str()).collect::<Vec<_>>(), ["lease/mailer", "lease/totals"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read or a cell on the page is damaged.
    pub async fn cells(&self, list: ListCells) -> Result<Vec<Cell>, StoreError> {
        self.engine.cells(list).await
    }

    /// Sets a cell (or, with [`None`], removes it) if it is at the `expected` revision, 0 for a cell that does not
    /// exist. Returns the new revision.
    ///
    /// # Errors
    ///
    /// [`CellError::Changed`] if the cell is at another revision.
    ///
    /// # Cancel safety
    ///
    /// As for [`Self::append`].
    pub async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError> {
        self.engine.set_cell(key, expected, value).await
    }

    /// Waits for accepted writes, ends watchers and releases all resources. Closing twice does nothing; every later
    /// call returns [`StoreError::Closed`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store could not be closed cleanly; it is closed anyway.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.engine.close().await
    }
}

impl From<Arc<dyn Engine>> for Store {
    fn from(engine: Arc<dyn Engine>) -> Self {
        Self { engine, extensions: Arc::default() }
    }
}

impl From<&Arc<dyn Engine>> for Store {
    fn from(engine: &Arc<dyn Engine>) -> Self {
        Arc::clone(engine).into()
    }
}

impl From<&Self> for Store {
    fn from(store: &Self) -> Self {
        store.clone()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.engine, f)
    }
}
