//! The handle to one stream, or to `@all`.

use bytes::Bytes;

use super::append::{Append, Appended, Fingerprint};
use super::error::{AppendError, InvalidAppend, SnapshotError, StoreError};
use super::event::IntoCandidates;
use super::expected_version::ExpectedVersion;
use super::name::{InvalidName, ProjectionName, StreamId};
use super::position::{Place, Position, Version};
use super::read::{Direction, Load, Read};
use super::reader::Reader;
use super::snapshot::Snapshot;
use super::store::Store;
use super::time::Timestamp;
use super::watch::WatchBuilder;

/// A handle to one stream, or to `@all`; cheap to create and to clone.
///
/// It holds only the id: versions are checked inside the write transaction, never against what a handle remembers.
#[derive(Debug, Clone)]
pub struct Stream {
    store: Store,
    id: StreamId,
}

/// What is known about a stream at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StreamMetrics {
    /// The version of the stream; for `@all` always 0.
    pub version: Version,
    /// The position of the newest event, of the stream or of the log.
    pub position: Position,
    /// When the newest event was written.
    pub last_time: Option<Timestamp>,
}

impl Stream {
    pub(super) fn new(store: Store, id: StreamId) -> Self {
        Self { store, id }
    }

    /// The id of the stream.
    pub fn id(&self) -> &StreamId {
        &self.id
    }

    /// The store it belongs to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Writes one or more events, all or nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written. `@all` cannot be written.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the write either never starts or runs to completion.
    pub async fn write(
        &self,
        events: impl IntoCandidates + Send,
        expected: impl Into<ExpectedVersion> + Send,
    ) -> Result<Appended, AppendError> {
        if self.id.is_reserved() {
            return Err(InvalidAppend::ReservedStream { stream: self.id.clone() }.into());
        }
        self.store.append(Append::to(self.id.clone(), expected.into(), events)).await
    }

    /// Reads the stream; by default forward and to its end.
    pub fn read(&self) -> Reader {
        Reader::new(self.store.clone(), self.id.clone())
    }

    /// Watches the stream; by default from the present on, and forever.
    pub fn watch(&self) -> WatchBuilder {
        WatchBuilder::new(self.store.clone(), self.id.clone())
    }

    /// The version of the stream; [`Version::ZERO`] if it was never written, and for `@all`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn version(&self) -> Result<Version, StoreError> {
        if self.id.is_all() {
            return Ok(Version::ZERO);
        }
        let read = Read { events: 0, ..Read::new(self.id.clone()) };
        Ok(Version::new(self.store.engine().read(read).await?.head))
    }

    /// Whether the stream was ever written.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn exists(&self) -> Result<bool, StoreError> {
        Ok(self.version().await? > Version::ZERO)
    }

    /// Returns what is known about the stream now.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn metrics(&self) -> Result<StreamMetrics, StoreError> {
        let read = Read { events: 1, direction: Direction::Backward, ..Read::new(self.id.clone()) };
        let page = self.store.engine().read(read).await?;
        let last = page.events.first();
        Ok(StreamMetrics {
            version: if self.id.is_all() { Version::ZERO } else { Version::new(page.head) },
            position: last.map_or(Position::ZERO, |event| event.position),
            last_time: last.map(|event| event.time),
        })
    }

    /// Saves state at a version of the stream (or a position of `@all`) under a name, without a fingerprint.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::BeyondEnd`] if the stream has not reached that place, [`StoreError::WrongPlace`] for a version
    /// of `@all` or a position of a stream.
    ///
    /// # Cancel safety
    ///
    /// As for [`Self::write`].
    pub async fn snapshot<N>(
        &self,
        name: N,
        at: impl Into<Place> + Send,
        state: impl Into<Bytes> + Send,
    ) -> Result<(), SnapshotError>
    where
        N: TryInto<ProjectionName> + Send,
        InvalidName: From<N::Error>,
    {
        let name = name.try_into().map_err(|error| StoreError::Name(error.into()))?;
        let at = place_in(&self.id, at.into())?;
        let snapshot = Snapshot::new(self.id.clone(), name, at, Fingerprint::default(), state);
        self.store.engine().save_snapshot(snapshot).await
    }

    /// Loads the snapshot of this name.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn load_snapshot<N>(&self, name: N) -> Result<Option<Snapshot>, StoreError>
    where
        N: TryInto<ProjectionName> + Send,
        InvalidName: From<N::Error>,
    {
        let name = name.try_into().map_err(InvalidName::from)?;
        let load = Load { events: 0, ..Load::new(self.id.clone(), Some(name)) };
        Ok(self.store.engine().load(load).await?.snapshot)
    }
}

/// The number of a place, if the stream is read by places of that kind.
pub(super) fn place_in(stream: &StreamId, place: Place) -> Result<u64, StoreError> {
    match place {
        Place::Version(version) if !stream.is_all() => Ok(version.get()),
        Place::Position(position) if stream.is_all() => Ok(position.get()),
        place => Err(StoreError::WrongPlace { stream: stream.clone(), place }),
    }
}
