//! Inspecting a store, for tools.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::append::{CommandRecord, Fingerprint};
use super::cell::Cell;
use super::error::StoreError;
use super::event::{EventType, StoredEvent};
use super::id::{EventId, StoreId};
use super::name::{ProjectionName, StreamId};
use super::position::{Position, Version};
use super::read::StreamInfo;
use super::time::Timestamp;

/// What tools need to know of a store and programs do not: what is in it, and whether it is intact.
///
/// An engine that supports it returns itself from [`Engine::inspect`](super::Engine::inspect). A command line tool and
/// a web inspector need nothing else: events are read through [`Store`](super::Store), and payloads are shown with the
/// shapes that [`Self::types`] lists.
///
/// Lists come in pages. If there is more, a page has a cursor; request the next page with it:
///
/// ```
/// use es_framework::inspect::{Inspect, List};
/// use es_framework::{CandidateEvent, ExpectedVersion, MemoryStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::from(MemoryStore::new());
/// # for id in ["account-alice", "account-bob"] {
/// #     store.open_stream(id)?.write(CandidateEvent::new("deposited", "5")?, ExpectedVersion::Any).await?;
/// # }
/// let inspect = store.engine().inspect().ok_or("this engine cannot be inspected")?;
/// let (mut list, mut streams) = (List::new().prefix("account-").limit(1), Vec::new());
/// loop {
///     let page = inspect.streams(&list).await?;
///     streams.extend(page.items);
///     let Some(next) = page.next else { break };
///     list = list.after(next);
/// }
/// assert_eq!(streams.len(), 2);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait Inspect: fmt::Debug + Send + Sync {
    /// Counts what is in the store. It may scan an index of all events, which takes a second for ten million.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// Lists streams in the order of their first events, or newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read, or the cursor is not one of this list.
    async fn streams(&self, list: &List) -> Result<Listed<StreamInfo>, StoreError>;

    /// Lists event types in the order in which they were first written, each with the shape of its payloads. A name has
    /// one entry for each schema version, codec and shape. The prefix applies to the name.
    ///
    /// # Errors
    ///
    /// As for [`Self::streams`].
    async fn types(&self, list: &List) -> Result<Listed<Arc<EventType>>, StoreError>;

    /// Lists cells that exist, sorted by key.
    ///
    /// # Errors
    ///
    /// As for [`Self::streams`].
    async fn cells(&self, list: &List) -> Result<Listed<Cell>, StoreError>;

    /// Lists snapshots without their states, sorted by stream and name. The prefix applies to the stream's id.
    ///
    /// # Errors
    ///
    /// As for [`Self::streams`].
    async fn snapshots(&self, list: &List) -> Result<Listed<SnapshotInfo>, StoreError>;

    /// Lists the commands that were executed under a key, sorted by key.
    ///
    /// # Errors
    ///
    /// As for [`Self::streams`].
    async fn commands(&self, list: &List) -> Result<Listed<CommandRecord>, StoreError>;

    /// Lists the checkpoints of read models in the store's own database, sorted by name. Read models elsewhere keep
    /// their own, and those of in-memory states are snapshots of `@all`.
    ///
    /// # Errors
    ///
    /// As for [`Self::streams`].
    async fn checkpoints(&self, list: &List) -> Result<Listed<CheckpointInfo>, StoreError>;

    /// Finds the events with this id. An id is unique only within its stream, so there may be several. A page examines
    /// a bounded number of streams, so it may be empty and still have a next page. The prefix is ignored.
    ///
    /// # Errors
    ///
    /// As for [`Self::streams`].
    async fn events_with_id(&self, id: &EventId, list: &List) -> Result<Listed<StoredEvent>, StoreError>;

    /// Verifies a part of the store, the first one without a cursor: checksums of all rows, versions without gaps,
    /// times that do not run backwards, and whether indexes and tables agree. Damage is a [`Finding`], not an error.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read for a reason other than damage.
    async fn verify(&self, after: Option<&Cursor>) -> Result<Verified, StoreError>;
}

/// Where a list continues; only the engine that created it can read it. Its text is safe to store and to send.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor(String);

impl Cursor {
    /// Creates a cursor from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which part of a list is requested.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct List {
    /// Only entries whose key begins with this text; all by default.
    pub prefix: String,
    /// Only entries after this one, the end of the previous page.
    pub after: Option<Cursor>,
    /// The maximum number of entries, at least 1; 100 by default.
    pub limit: usize,
    /// Whether streams are listed newest first; `false` by default. Other lists have only one order.
    pub newest_first: bool,
}

impl Default for List {
    fn default() -> Self {
        Self { prefix: String::new(), after: None, limit: 100, newest_first: false }
    }
}

impl List {
    /// Requests the first page of everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only entries whose key begins with this text, case-sensitive.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Continues after a page.
    pub fn after(mut self, cursor: impl Into<Option<Cursor>>) -> Self {
        self.after = cursor.into();
        self
    }

    /// Sets the maximum number of entries of a page; at least 1.
    pub fn limit(mut self, entries: usize) -> Self {
        self.limit = entries.max(1);
        self
    }

    /// Lists streams by their first events, newest first.
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins; [`None`] if there is nothing more.
    pub next: Option<Cursor>,
}

impl<T> Listed<T> {
    /// Creates a page.
    pub fn new(items: Vec<T>, next: Option<Cursor>) -> Self {
        Self { items, next }
    }
}

/// How much there is in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// The position of the newest event.
    pub head: Position,
    /// Events, including those whose content was removed.
    pub events: u64,
    /// Streams that were ever written.
    pub streams: u64,
    /// Event types: one for each name, schema version, codec and shape.
    pub types: u64,
    /// Commands recorded by their keys.
    pub commands: u64,
    /// Cells that exist.
    pub cells: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// The size of the database in bytes, excluding the write-ahead log; 0 if nothing is on disk.
    pub bytes: u64,
}

/// A snapshot without its state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The stream, or `@all`.
    pub stream: StreamId,
    /// The name it is stored under.
    pub name: ProjectionName,
    /// The version of the stream, or the position of `@all`, at which the state was taken.
    pub at: u64,
    /// Identifies the shape and the `apply` that produced the state.
    pub fingerprint: Fingerprint,
    /// When it was saved.
    pub time: Timestamp,
    /// The size of its state in bytes.
    pub bytes: u64,
}

impl SnapshotInfo {
    /// Creates an entry.
    pub fn new(
        stream: StreamId,
        name: ProjectionName,
        at: u64,
        fingerprint: Fingerprint,
        time: Timestamp,
        bytes: u64,
    ) -> Self {
        Self { stream, name, at, fingerprint, time, bytes }
    }
}

/// The progress of a projection with a read model in the store's database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// The projection.
    pub name: ProjectionName,
    /// The store that its events come from.
    pub store: StoreId,
    /// The position it has reached.
    pub position: Position,
}

impl CheckpointInfo {
    /// Creates an entry.
    pub fn new(name: ProjectionName, store: StoreId, position: Position) -> Self {
        Self { name, store, position }
    }
}

/// What one step of [`Inspect::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verified {
    /// The number of rows checked in this step.
    pub checked: u64,
    /// The damage found among them.
    pub findings: Vec<Finding>,
    /// Where the next step begins; [`None`] if everything was verified.
    pub next: Option<Cursor>,
}

/// Something in a store that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The position of the damaged event, if it is an event and its position is known.
    pub position: Option<Position>,
    /// The affected stream, if it is a single one.
    pub stream: Option<StreamId>,
    /// The version in that stream, if a single event is affected.
    pub version: Option<Version>,
    /// What is wrong.
    pub reason: String,
}

impl Finding {
    /// Creates a finding that concerns no particular event.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { position: None, stream: None, version: None, reason: reason.into() }
    }

    /// Sets the position.
    #[must_use]
    pub fn at(mut self, position: impl Into<Option<Position>>) -> Self {
        self.position = position.into();
        self
    }

    /// Sets the stream and the version.
    #[must_use]
    pub fn of(mut self, stream: StreamId, version: impl Into<Option<Version>>) -> Self {
        (self.stream, self.version) = (Some(stream), version.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "position {position}: ")?;
        }
        if let Some(stream) = &self.stream {
            write!(f, "stream {stream}")?;
            if let Some(version) = self.version {
                write!(f, " version {version}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)
    }
}
