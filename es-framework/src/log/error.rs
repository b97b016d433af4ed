//! Errors of the log, one type per family of operations.

use std::time::Duration;

use super::expected_version::ExpectedVersion;
use super::id::EventId;
use super::name::{CellKey, CommandKey, InvalidName, ProjectionName, StreamId};
use super::position::{Place, Position, Version};
use super::query::{InvalidQuery, Query};
use super::tag::Tag;

/// An engine's own error, kept as the cause of one of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another writer was faster: read again and decide again.
    Conflict,
    /// The same call may succeed later: the store is busy, overloaded, or its disk is full.
    Retry,
    /// The request is invalid; sending it again changes nothing.
    Caller,
    /// Stored data cannot be understood.
    Data,
    /// The store was closed.
    Closed,
    /// The environment or this library failed: see the cause.
    Internal,
}

/// A failure of the store that any operation may return.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was closed; open it again.
    #[error("the store is closed")]
    Closed,
    /// Other processes held the store for longer than the write timeout; nothing was written.
    #[error("other processes held the store for {waited:?}; nothing was written, try again")]
    Busy {
        /// How long this call waited.
        waited: Duration,
    },
    /// The disk is full; nothing was written. The store is usable again once there is space.
    #[error("the disk is full; nothing was written, free some space and try again")]
    DiskFull {
        /// The engine's error.
        source: BoxError,
    },
    /// The store was opened read-only, or cannot be written.
    #[error("the store is read-only")]
    ReadOnly,
    /// Reading or writing the store failed. After a failed write, find out its outcome with the event's ids or a
    /// command key before writing again: a power loss may still decide either way.
    #[error("the store could not be read or written")]
    Io {
        /// The engine's error.
        source: BoxError,
    },
    /// The operating system or the database does not allow this process to use the store.
    #[error("permission denied: this process may not use the store as requested")]
    PermissionDenied {
        /// The engine's error.
        source: BoxError,
    },
    /// Another store, or another copy of this one, took its place while it was open; nothing was read or written. Put
    /// the right one back, or close this handle and open the store again.
    #[error("the store was replaced while it was open: {reason}; close it and open it again")]
    StoreChanged {
        /// How this was detected.
        reason: String,
    },
    /// The store uses something that this release can read but would damage by writing; use a newer release to write.
    #[error("writing to this store needs {feature}, which this release does not support; use a newer release")]
    WriteRequires {
        /// What this release does not support.
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
    /// Events that a state must be folded from were removed: the stream was truncated, and the newest usable snapshot
    /// is older than that. Before truncating, save a snapshot with the shape that is loaded.
    #[error("{stream} was truncated up to version {floor}: a state of version {after} cannot be brought up to date")]
    Truncated {
        /// The stream.
        stream: StreamId,
        /// The events at and below this version were removed.
        floor: Version,
        /// The version of the state; [`Version::ZERO`] if there is none.
        after: Version,
    },
    /// A version was given for `@all`, or a position for a stream.
    #[error("{stream} cannot be read from {place}: streams are read by version, `@all` by position")]
    WrongPlace {
        /// What was read.
        stream: StreamId,
        /// The place that does not fit.
        place: Place,
    },
    /// The cursor passed to [`Inspect`](super::inspect::Inspect) is not one of this list; start the list again.
    #[error("{cursor:?} is not a cursor of this list; start the list again without one")]
    InvalidCursor {
        /// The text of the cursor.
        cursor: String,
    },
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A query is over its bounds.
    #[error(transparent)]
    Query(#[from] InvalidQuery),
    /// The engine failed unexpectedly; please report it.
    #[error("the engine failed unexpectedly; please report it")]
    Internal {
        /// The engine's error.
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
            | Self::PermissionDenied { .. }
            | Self::StoreChanged { .. }
            | Self::WriteRequires { .. }
            | Self::FormatChanged { .. }
            | Self::WrongPlace { .. }
            | Self::InvalidCursor { .. }
            | Self::Name(_)
            | Self::Query(_) => ErrorKind::Caller,
            Self::Corrupt { .. } | Self::Truncated { .. } => ErrorKind::Data,
            Self::Io { .. } | Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// Returns the same error for another caller, with its cause as text only: when the commit of a group fails, every
    /// caller that waits for it gets the error.
    #[must_use]
    pub fn repeated(&self) -> Self {
        let words = |source: &BoxError| source.to_string().into();
        match self {
            Self::Closed => Self::Closed,
            Self::Busy { waited } => Self::Busy { waited: *waited },
            Self::DiskFull { source } => Self::DiskFull { source: words(source) },
            Self::ReadOnly => Self::ReadOnly,
            Self::Io { source } => Self::Io { source: words(source) },
            Self::PermissionDenied { source } => Self::PermissionDenied { source: words(source) },
            Self::StoreChanged { reason } => Self::StoreChanged { reason: reason.clone() },
            Self::WriteRequires { feature } => Self::WriteRequires { feature: feature.clone() },
            Self::FormatChanged { opened, found } => Self::FormatChanged { opened: *opened, found: *found },
            Self::Corrupt { position, reason } => Self::Corrupt { position: *position, reason: reason.clone() },
            Self::Truncated { stream, floor, after } => {
                Self::Truncated { stream: stream.clone(), floor: *floor, after: *after }
            }
            Self::WrongPlace { stream, place } => Self::WrongPlace { stream: stream.clone(), place: *place },
            Self::InvalidCursor { cursor } => Self::InvalidCursor { cursor: cursor.clone() },
            Self::Name(name) => Self::Name(name.clone()),
            Self::Query(query) => Self::Query(query.clone()),
            Self::Internal { source } => Self::Internal { source: words(source) },
        }
    }
}

/// One thing that was not as the writer of an append expected: others were faster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// A stream was at another version.
    Stream {
        /// The stream.
        stream: StreamId,
        /// What the caller expected.
        expected: ExpectedVersion,
        /// The stream's actual version.
        actual: Version,
    },
    /// An event was written on which the caller depends; see [`Append::unless`](super::Append::unless).
    Condition {
        /// The events that the caller depends on.
        query: Query,
        /// The position up to which the caller had seen them.
        after: Position,
        /// The position of the first event after it that matches.
        position: Position,
    },
    /// A cell was at another revision; see [`Append::set_cell`](super::Append::set_cell).
    Cell {
        /// The cell.
        key: CellKey,
        /// The revision that the caller expected; 0 for a cell that does not exist.
        expected: u64,
        /// The actual revision; 0 for a cell that does not exist.
        actual: u64,
    },
}

impl Conflict {
    /// Creates a conflict about a stream.
    pub fn stream(stream: StreamId, expected: ExpectedVersion, actual: Version) -> Self {
        Self::Stream { stream, expected, actual }
    }

    /// Creates a conflict about a condition.
    pub fn condition(condition: super::AppendCondition, position: Position) -> Self {
        let super::AppendCondition { query, after } = condition;
        Self::Condition { query, after, position }
    }

    /// Creates a conflict about a cell.
    pub fn cell(key: CellKey, expected: u64, actual: u64) -> Self {
        Self::Cell { key, expected, actual }
    }

    /// The stream and its actual version, if this is about a stream.
    pub fn actual_version(&self) -> Option<(&StreamId, Version)> {
        match self {
            Self::Stream { stream, actual, .. } => Some((stream, *actual)),
            Self::Condition { .. } | Self::Cell { .. } => None,
        }
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream { stream, expected, actual } => {
                write!(f, "{stream} is at version {actual}, expected {expected}")
            }
            Self::Condition { query, after, position } => {
                write!(f, "position {position}, after {after}, has an event that matches {query}")
            }
            Self::Cell { key, expected, actual } => {
                write!(f, "cell {key} is at revision {actual}, expected {expected}")
            }
        }
    }
}

/// An append that is invalid in every state of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAppend {
    /// The stream's id begins with `@`.
    #[error("{stream} cannot be written: ids that begin with `@` belong to the store")]
    ReservedStream {
        /// The stream.
        stream: StreamId,
    },
    /// A stream appears twice; put its events into one write.
    #[error("{stream} appears twice in one append; put its events into one write")]
    StreamTwice {
        /// The stream.
        stream: StreamId,
    },
    /// Some events have an id and some have none.
    #[error("either all events of an append have an id or none; here {with} have one and {without} do not")]
    MixedIds {
        /// The number of events with an id.
        with: usize,
        /// The number of events without one.
        without: usize,
    },
    /// The id was derived by the store, for an event that was written without one.
    #[error("{id} is an id derived by the store and cannot be written")]
    DerivedId {
        /// The id.
        id: EventId,
    },
    /// The same id appears twice in one append, with different content.
    #[error("id {id} appears twice in the append to {stream}, with different content")]
    IdTwice {
        /// The stream.
        stream: StreamId,
        /// The id.
        id: EventId,
    },
    /// A payload is over its limit.
    #[error("a payload has {bytes} bytes, the limit is {limit}")]
    PayloadTooLarge {
        /// The size in bytes.
        bytes: usize,
        /// The maximum size in bytes.
        limit: usize,
    },
    /// Metadata is over its limit.
    #[error("metadata has {bytes} bytes, the limit is {limit}")]
    MetadataTooLarge {
        /// The size in bytes.
        bytes: usize,
        /// The maximum size in bytes.
        limit: usize,
    },
    /// An event has too many tags.
    #[error("an event has {tags} tags, the limit is {limit}")]
    TooManyTags {
        /// The number of tags.
        tags: usize,
        /// The maximum number of tags.
        limit: usize,
    },
    /// An event has the same tag twice.
    #[error("an event has the tag {tag} twice")]
    TagTwice {
        /// The tag.
        tag: Tag,
    },
    /// The append has too many conditions; combine their queries.
    #[error("the append has {conditions} conditions, the limit is {limit}; combine their queries")]
    TooManyConditions {
        /// The number of conditions.
        conditions: usize,
        /// The maximum number of conditions.
        limit: usize,
    },
    /// A cell is set twice.
    #[error("cell {key} is set twice in one append")]
    CellTwice {
        /// The cell.
        key: CellKey,
    },
    /// The append sets too many cells; split it.
    #[error("the append sets {cells} cells, the limit is {limit}; split it")]
    TooManyCells {
        /// The number of cells.
        cells: usize,
        /// The maximum number of cells.
        limit: usize,
    },
    /// The query of a condition is over its bounds.
    #[error(transparent)]
    Query(#[from] InvalidQuery),
    /// The append has too many events; split it.
    #[error("the append has {events} events, the limit is {limit}; split it")]
    TooManyEvents {
        /// The number of events.
        events: usize,
        /// The maximum number of events.
        limit: usize,
    },
    /// The append has too many bytes; split it.
    #[error("the append has {bytes} bytes, the limit is {limit}; split it")]
    TooManyBytes {
        /// The size in bytes.
        bytes: usize,
        /// The maximum size in bytes.
        limit: usize,
    },
}

/// Why an append wrote nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// A stream or a cell was not as expected, or a condition failed; read again and decide again.
    #[error("conflict: {}", list(conflicts))]
    Conflict {
        /// Every stream that was not as expected, then every condition that failed, then every cell that was not as
        /// expected, each in the order of the request.
        conflicts: Vec<Conflict>,
    },
    /// The append is invalid, whatever the store holds.
    #[error(transparent)]
    Invalid(#[from] InvalidAppend),
    /// The id belongs to an event with different content.
    #[error("id {id} is taken in {stream} by version {version}, which has different content")]
    IdReused {
        /// The stream.
        stream: StreamId,
        /// The id.
        id: EventId,
        /// The version of the event that has it.
        version: Version,
    },
    /// Some of the events are known and some are new, in a way that cannot be a retry.
    #[error("{known} of the append's events are known and {new} are new; a retry repeats the whole append")]
    PartlyKnown {
        /// The number of known events.
        known: usize,
        /// The number of new events.
        new: usize,
    },
    /// The stream was closed for good and can no longer be written; events that are known can still be repeated.
    #[error("{stream} was closed for good and cannot be written")]
    Tombstoned {
        /// The stream.
        stream: StreamId,
    },
    /// The command key belongs to another command.
    #[error("command key {key} was used before for another command")]
    CommandKeyReused {
        /// The key.
        key: CommandKey,
    },
    /// An inline projection refused the events, or panicked. The source is its
    /// [`ModelError`](crate::ModelError).
    #[error("the inline projection {projection} refused the events: nothing was written")]
    Refused {
        /// The projection.
        projection: ProjectionName,
        /// Why.
        source: BoxError,
    },
    /// The queue of waiting writes is full, and the caller chose not to wait.
    #[error("too many writes are waiting; try again later")]
    Overloaded,
    /// The store failed.
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
            Self::Invalid(_)
            | Self::IdReused { .. }
            | Self::PartlyKnown { .. }
            | Self::Tombstoned { .. }
            | Self::CommandKeyReused { .. }
            | Self::Refused { .. } => ErrorKind::Caller,
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

/// Why a snapshot was not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The snapshot is of a version that the stream (or the log) has not reached.
    #[error("a snapshot of {stream} at {at} is beyond its end, {end}")]
    BeyondEnd {
        /// The stream.
        stream: StreamId,
        /// The place of the snapshot.
        at: u64,
        /// The stream's version, or the log's head.
        end: u64,
    },
    /// The store failed.
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

/// Why a cell was not set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// Another writer set the cell in the meantime; read it again.
    #[error("cell {key} is at revision {actual}, expected {expected}")]
    Changed {
        /// The cell.
        key: CellKey,
        /// The revision that the caller expected; 0 for a cell that does not exist.
        expected: u64,
        /// The actual revision; 0 for a cell that does not exist.
        actual: u64,
    },
    /// The store failed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_told_the_same_error() {
        let source = || "why".into();
        let reason = || "it is a folder".to_owned();
        let name = StreamId::new("").unwrap_err();
        let errors = [
            StoreError::Closed,
            StoreError::Busy { waited: Duration::from_secs(1) },
            StoreError::DiskFull { source: source() },
            StoreError::ReadOnly,
            StoreError::Io { source: source() },
            StoreError::PermissionDenied { source: source() },
            StoreError::StoreChanged { reason: reason() },
            StoreError::WriteRequires { feature: "merged-index".to_owned() },
            StoreError::FormatChanged { opened: 1, found: 2 },
            StoreError::Corrupt { position: Some(Position::new(3)), reason: reason() },
            StoreError::Truncated { stream: StreamId::all(), floor: Version::new(3), after: Version::ZERO },
            StoreError::WrongPlace { stream: StreamId::all(), place: Version::new(3).into() },
            StoreError::Name(name),
            StoreError::Query(InvalidQuery::TooManyCriteria { criteria: 9, limit: 8 }),
            StoreError::Internal { source: source() },
        ];
        for error in errors {
            let told = error.repeated();
            assert_eq!(std::mem::discriminant(&told), std::mem::discriminant(&error), "{told:?}");
            assert_eq!(told.to_string(), error.to_string());
            assert_eq!(told.kind(), error.kind());
            let cause = |error: &StoreError| std::error::Error::source(error).map(ToString::to_string);
            assert_eq!(cause(&told), cause(&error));
        }
    }
}
