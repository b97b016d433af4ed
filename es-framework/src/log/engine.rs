//! The contract of an engine.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::append::{Append, Appended, CommandRecord};
use super::cell::{Cell, ListCells};
use super::commit_hook::CommitHooks;
use super::error::{AppendError, CellError, SnapshotError, StoreError};
use super::id::StoreId;
use super::inspect::Inspect;
use super::limits::Limits;
use super::name::{CellKey, CommandKey};
use super::notifier::Notifier;
use super::read::{ListStreams, Load, Loaded, Page, Read, StreamInfo};
use super::snapshot::Snapshot;
use super::time::Clock;

/// An implementation of the store contract.
///
/// Users work with engines through a [`Store`](super::Store). To write one, implement this trait and run the suite of
/// `es-conformance` against it, which has one test for each promise. What can be derived from these methods is written
/// once, on top of them: paging, watching, the stream handle, the typed layer.
///
/// What an engine promises:
///
/// 1. An append is judged by [`judge`](super::judge()) inside the transaction that writes it, and is atomic. If several
///    are written in one transaction, each is judged against all that were written before it.
/// 2. Positions are assigned in commit order without gaps, and never twice. A reader that has seen position *p* never
///    later sees a new event at or below *p*.
/// 3. After a commit the engine notifies its [`Notifier`], in the order of the commits.
/// 4. Dropping the future of a write either prevents the write or lets it run to completion.
/// 5. No connection, transaction or lock is held between two calls, nor by a call that is not being polled: a caller
///    that never comes back must not hold what others need.
#[async_trait]
pub trait Engine: Debug + Send + Sync + 'static {
    /// The random id of the store.
    fn id(&self) -> StoreId;

    /// The size limits of events and appends.
    fn limits(&self) -> Limits;

    /// The clock that events are stamped with.
    fn clock(&self) -> &Arc<dyn Clock>;

    /// The notifier that wakes watchers.
    fn notifier(&self) -> &Arc<Notifier>;

    /// Writes events to one or more streams, all or nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written, except that after a [`StoreError::Io`] during the commit a power loss may
    /// still decide the outcome.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the write either never starts or runs to completion.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// Returns the record of the command that was executed under this key.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError>;

    /// Reads one page of a stream or of `@all`. A stream that does not exist reads as empty.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read or an event on the page is damaged.
    async fn read(&self, read: Read) -> Result<Page, StoreError>;

    /// Reads a snapshot and the first page of the events after it, in one call. Checking the fingerprint is up to the
    /// caller.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read or an event on the page is damaged. A damaged snapshot is not an
    /// error: it reads as missing, and the engine logs it.
    async fn load(&self, load: Load) -> Result<Loaded, StoreError>;

    /// Lists streams in the order of their first events.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError>;

    /// Saves a snapshot. Saving an older one over a newer one does nothing; one at the same place replaces it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::BeyondEnd`] if the stream or the log has not reached that place.
    ///
    /// # Cancel safety
    ///
    /// As for [`Self::append`].
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError>;

    /// Reads a cell.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError>;

    /// Lists the cells that exist, in the order of their keys as bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read or a cell on the page is damaged.
    async fn cells(&self, list: ListCells) -> Result<Vec<Cell>, StoreError>;

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
    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError>;

    /// Returns the hooks that the engine calls inside the transactions of its appends, if it does; by default it does
    /// not, and has no inline projections.
    ///
    /// An engine that does calls [`Hooked::apply`](super::Hooked::apply) for each append that it is about to write,
    /// after the rows of its events, including appends without events.
    fn commit_hooks(&self) -> Option<&CommitHooks> {
        None
    }

    /// Returns the interface for tools, if the engine has one; by default it does not.
    fn inspect(&self) -> Option<&dyn Inspect> {
        None
    }

    /// Waits for accepted writes, ends watchers and releases all resources. Closing twice does nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store could not be closed cleanly; it is closed anyway.
    async fn close(&self) -> Result<(), StoreError>;
}
