//! The contract an engine keeps.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::append::{Append, Appended, CommandRecord};
use super::cell::Cell;
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
/// Users meet engines behind a [`Store`](super::Store); whoever writes one implements this trait and runs the suite of
/// `es-conformance` against it, which holds one test for each promise. What can be derived from these methods is
/// derived once, above: paging, watching, the stream handle, the typed layer.
///
/// What an engine promises:
///
/// 1. An append is judged by [`judge`](super::judge()) inside the transaction that writes it, and is atomic.
/// 2. Positions are handed out in commit order without gaps, and never twice. Who has seen position *p* never later sees
///    a new event at or below *p*.
/// 3. After a commit the engine tells its [`Notifier`], in the order of the commits.
/// 4. Dropping the future of a write either prevents the write or lets it run to its end.
/// 5. No connection, transaction or lock is held between two calls, nor by a call whose future is not polled: what others
///    need is never given to a caller that may not come back.
#[async_trait]
pub trait Engine: Debug + Send + Sync + 'static {
    /// The random id of the store.
    fn id(&self) -> StoreId;

    /// How much one event and one append may hold.
    fn limits(&self) -> Limits;

    /// Where times come from.
    fn clock(&self) -> &Arc<dyn Clock>;

    /// What wakes watchers.
    fn notifier(&self) -> &Arc<Notifier>;

    /// Writes events to one stream or several, all or nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written, but for an [`StoreError::Io`] during the commit, whose outcome a power loss
    /// may still decide.
    ///
    /// # Cancel safety
    ///
    /// A dropped future either never started its write or lets it run to its end.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// The command that was carried out under this key.
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

    /// Reads a snapshot and the first page of the events after it, in one call. The fingerprint is the caller's to judge.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read or an event on the page is damaged. A damaged snapshot is no error: it
    /// reads as missing, and the engine says so in its log.
    async fn load(&self, load: Load) -> Result<Loaded, StoreError>;

    /// Lists streams in the order of their first events.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError>;

    /// Saves a snapshot. Saving an older one over a newer one does nothing; one of the same place replaces it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::BeyondEnd`] if the stream or the log has not got that far.
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

    /// Sets a cell (or, with [`None`], removes it) if it is at the `expected` revision, 0 for a cell that does not exist.
    /// Answers the new revision.
    ///
    /// # Errors
    ///
    /// [`CellError::Changed`] if the cell is at another revision.
    ///
    /// # Cancel safety
    ///
    /// As for [`Self::append`].
    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError>;

    /// Answers what tools ask, if the engine can; it cannot by default.
    fn inspect(&self) -> Option<&dyn Inspect> {
        None
    }

    /// Waits for accepted writes, ends watchers and gives everything back. Closing twice does nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store could not be closed cleanly; it is closed all the same.
    async fn close(&self) -> Result<(), StoreError>;
}
