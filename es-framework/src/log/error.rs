//! What can go wrong in the log, one type per family of operations.

use std::time::Duration;

use super::append::ExpectedVersion;
use super::id::EventId;
use super::name::{CellKey, CommandKey, InvalidName, StreamId};
use super::position::{Place, Position, Version};

/// An error of an engine's own, kept as the cause of one of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Somebody else was faster: read again and decide again.
    Conflict,
    /// The same call may succeed later: the store is busy, overloaded, or its disk is full.
    Retry,
    /// The request is wrong; sending it again changes nothing.
    Caller,
    /// What is stored cannot be understood.
    Data,
    /// The store was closed.
    Closed,
    /// The environment or this library failed: see the cause.
    Internal,
}

/// A store that cannot do what it was asked, whatever that was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was closed; open it again.
    #[error("the store is closed")]
    Closed,
    /// Other processes kept the store for longer than the write timeout; nothing was written.
    #[error("other processes held the store for {waited:?}; nothing was written, try again")]
    Busy {
        /// How long this call waited.
        waited: Duration,
    },
    /// The disk is full; nothing was written. The store is usable again when there is room.
    #[error("the disk is full; nothing was written, make room and try again")]
    DiskFull {
        /// What the engine said.
        source: BoxError,
    },
    /// The store was opened read-only, or its file cannot be written.
    #[error("the store is read-only")]
    ReadOnly,
    /// Reading or writing the store failed. After a failed write, ask for the outcome with the event's ids or a command
    /// key before writing again: a power loss may still decide either way.
    #[error("the store could not be read or written: {source}")]
    Io {
        /// What the engine said.
        source: BoxError,
    },
    /// There is nothing at the path and the store was not to be made.
    #[error("there is no store at {path}; check the path, or open it with `create(true)`")]
    Missing {
        /// The path that was asked for.
        path: String,
    },
    /// The file is not a store of this library; it was not touched.
    #[error("{path} was not opened, and not touched: {reason}")]
    NotAStore {
        /// The path that was asked for.
        path: String,
        /// What was found instead.
        reason: String,
    },
    /// The file was written by a newer release; use that release or a newer one.
    #[error("the store has format {found}, this release knows formats up to {known}; use a newer release")]
    NewerFormat {
        /// The format of the file.
        found: u32,
        /// The newest format this release knows.
        known: u32,
    },
    /// The file has something that this release can read but would damage by writing; use a newer release to write.
    #[error("writing to this store needs {feature}, which this release does not know; use a newer release")]
    WriteRequires {
        /// What this release does not know.
        feature: String,
    },
    /// Another process changed the format while this one had the store open; open it again.
    #[error("another process changed the store's format from {opened} to {found}; open the store again")]
    FormatChanged {
        /// The format when the store was opened.
        opened: u32,
        /// The format now.
        found: u32,
    },
    /// Something stored is damaged or cannot be understood. Restore it from a backup; reading after its position works.
    #[error("stored data is damaged{}: {reason}", at(*position))]
    Corrupt {
        /// The position of the damaged event, if it is an event and its position is known.
        position: Option<Position>,
        /// What is wrong with it.
        reason: String,
    },
    /// A version was given for `@all`, or a position for a stream.
    #[error("{stream} cannot be read from {place}: streams are read by version, `@all` by position")]
    WrongPlace {
        /// What was to be read.
        stream: StreamId,
        /// The place that does not fit.
        place: Place,
    },
    /// A list of [`Inspect`](super::inspect::Inspect) was to go on at a place that is none of its own: begin it again.
    #[error("{cursor:?} is not a cursor of this list; begin the list again without one")]
    InvalidCursor {
        /// The text of the cursor.
        cursor: String,
    },
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The engine failed in a way it should not; please report it.
    #[error("the engine failed: {source}")]
    Internal {
        /// What the engine said.
        source: BoxError,
    },
}

fn at(position: Option<Position>) -> String {
    position.map(|position| format!(" at position {position}")).unwrap_or_default()
}

impl StoreError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Closed => ErrorKind::Closed,
            Self::Busy { .. } | Self::DiskFull { .. } => ErrorKind::Retry,
            Self::ReadOnly
            | Self::Missing { .. }
            | Self::NotAStore { .. }
            | Self::NewerFormat { .. }
            | Self::WriteRequires { .. }
            | Self::FormatChanged { .. }
            | Self::WrongPlace { .. }
            | Self::InvalidCursor { .. }
            | Self::Name(_) => ErrorKind::Caller,
            Self::Corrupt { .. } => ErrorKind::Data,
            Self::Io { .. } | Self::Internal { .. } => ErrorKind::Internal,
        }
    }
}

/// One stream that was not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// The stream.
    pub stream: StreamId,
    /// What the caller believed.
    pub expected: ExpectedVersion,
    /// What was the case.
    pub actual: Version,
}

impl Conflict {
    /// Puts a conflict together.
    pub fn new(stream: StreamId, expected: ExpectedVersion, actual: Version) -> Self {
        Self { stream, expected, actual }
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is at version {}, expected {}", self.stream, self.actual, self.expected)
    }
}

/// An append that no state of the store could make right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAppend {
    /// The stream's id begins with `@`.
    #[error("{stream} cannot be written: ids that begin with `@` belong to the store")]
    ReservedStream {
        /// The stream.
        stream: StreamId,
    },
    /// A stream is named twice; put its events into one write.
    #[error("{stream} is named twice in one append; put its events into one write")]
    StreamTwice {
        /// The stream.
        stream: StreamId,
    },
    /// Some events have an id and some have none.
    #[error("an append gives an id to every event or to none, this one to {with} and not to {without}")]
    MixedIds {
        /// How many events have an id.
        with: usize,
        /// How many have none.
        without: usize,
    },
    /// An id is one the store derived for an event that was written without one.
    #[error("{id} is an id the store made and cannot be written")]
    DerivedId {
        /// The id.
        id: EventId,
    },
    /// The same id stands twice in one append, with different content.
    #[error("id {id} stands twice in the append to {stream}, with different content")]
    IdTwice {
        /// The stream.
        stream: StreamId,
        /// The id.
        id: EventId,
    },
    /// A payload is over its limit.
    #[error("a payload has {bytes} bytes, the limit is {limit}")]
    PayloadTooLarge {
        /// The bytes it has.
        bytes: usize,
        /// The bytes it may have.
        limit: usize,
    },
    /// Metadata is over its limit.
    #[error("metadata has {bytes} bytes, the limit is {limit}")]
    MetadataTooLarge {
        /// The bytes it has.
        bytes: usize,
        /// The bytes it may have.
        limit: usize,
    },
    /// The append has too many events; split it.
    #[error("the append has {events} events, the limit is {limit}; split it")]
    TooManyEvents {
        /// The events it has.
        events: usize,
        /// The events it may have.
        limit: usize,
    },
    /// The append has too many bytes; split it.
    #[error("the append has {bytes} bytes, the limit is {limit}; split it")]
    TooManyBytes {
        /// The bytes it has.
        bytes: usize,
        /// The bytes it may have.
        limit: usize,
    },
}

/// An append that wrote nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// At least one stream was not as expected; read again and decide again.
    #[error("conflict: {}", list(conflicts))]
    Conflict {
        /// Every stream that was not as expected.
        conflicts: Vec<Conflict>,
    },
    /// The append is wrong whatever the store holds.
    #[error(transparent)]
    Invalid(#[from] InvalidAppend),
    /// An id is taken by an event with other content.
    #[error("id {id} is taken in {stream} by version {version}, which has other content")]
    IdReused {
        /// The stream.
        stream: StreamId,
        /// The id.
        id: EventId,
        /// The version of the event that has it.
        version: Version,
    },
    /// Some of the events are known and some are new, where that cannot be a retry.
    #[error("{known} of the append's events are known and {new} are new; a retry repeats the whole append")]
    PartlyKnown {
        /// How many are known.
        known: usize,
        /// How many are new.
        new: usize,
    },
    /// A command key is taken by another command.
    #[error("command key {key} was used before for another command")]
    CommandKeyReused {
        /// The key.
        key: CommandKey,
    },
    /// The queue of waiting writes is full and the caller did not want to wait.
    #[error("too many writes are waiting; try again later")]
    Overloaded,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn list(conflicts: &[Conflict]) -> String {
    conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl AppendError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Invalid(_) | Self::IdReused { .. } | Self::PartlyKnown { .. } | Self::CommandKeyReused { .. } => {
                ErrorKind::Caller
            }
            Self::Overloaded => ErrorKind::Retry,
            Self::Store(error) => error.kind(),
        }
    }
}

impl From<InvalidName> for AppendError {
    fn from(error: InvalidName) -> Self {
        Self::Store(error.into())
    }
}

/// A snapshot that was not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The snapshot is of a version that the stream (or the log) has not reached.
    #[error("a snapshot of {stream} at {at} is beyond its end, {end}")]
    BeyondEnd {
        /// The stream.
        stream: StreamId,
        /// Where the snapshot was said to be.
        at: u64,
        /// The stream's version, or the log's head.
        end: u64,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SnapshotError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BeyondEnd { .. } => ErrorKind::Caller,
            Self::Store(error) => error.kind(),
        }
    }
}

/// A cell that was not set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// Somebody else set the cell in between; read it again.
    #[error("cell {key} is at revision {actual}, expected {expected}")]
    Changed {
        /// The cell.
        key: CellKey,
        /// The revision the caller believed; 0 for a cell that does not exist.
        expected: u64,
        /// The revision it has; 0 for a cell that does not exist.
        actual: u64,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CellError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Changed { .. } => ErrorKind::Conflict,
            Self::Store(error) => error.kind(),
        }
    }
}
