//! What can go wrong in the log, one type per family of operations.

use std::time::Duration;

use super::expected_version::ExpectedVersion;
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
    /// The store was opened read-only, or cannot be written.
    #[error("the store is read-only")]
    ReadOnly,
    /// Reading or writing the store failed. After a failed write, ask for the outcome with the event's ids or a command
    /// key before writing again: a power loss may still decide either way.
    #[error("the store could not be read or written")]
    Io {
        /// What the engine said.
        source: BoxError,
    },
    /// The operating system or the database does not allow this process to use the store.
    #[error("permission denied: this process may not use the store as it was asked to")]
    PermissionDenied {
        /// What the engine said.
        source: BoxError,
    },
    /// Another store, or another copy of this one, has taken its place while it was open; nothing was read or written.
    /// Put the right one back, or close this handle and open the store again.
    #[error("the store was replaced while it was open: {reason}; close it and open it again")]
    StoreChanged {
        /// How that was noticed.
        reason: String,
    },
    /// The store has something that this release can read but would damage by writing; use a newer release to write.
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
    /// Events that a state is to be folded from were removed: the stream was truncated, and the newest snapshot that can be
    /// used is older than that. Save a snapshot before truncating, with the shape that is loaded.
    #[error("{stream} was truncated up to version {floor}: a state of version {after} cannot be brought up to date")]
    Truncated {
        /// The stream.
        stream: StreamId,
        /// The events at and below this version were removed.
        floor: Version,
        /// The state is of this version; [`Version::ZERO`] if there is none.
        after: Version,
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
    #[error("the engine failed in a way it should not; please report it")]
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
            | Self::PermissionDenied { .. }
            | Self::StoreChanged { .. }
            | Self::WriteRequires { .. }
            | Self::FormatChanged { .. }
            | Self::WrongPlace { .. }
            | Self::InvalidCursor { .. }
            | Self::Name(_) => ErrorKind::Caller,
            Self::Corrupt { .. } | Self::Truncated { .. } => ErrorKind::Data,
            Self::Io { .. } | Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// The same error for another caller, with the words of its cause only: when the commit of a group fails, everybody who
    /// waited for it is told.
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
            Self::Internal { source } => Self::Internal { source: words(source) },
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
    /// A stream was closed for good and cannot be written any more; what is known of it can still be repeated.
    #[error("{stream} was closed for good and cannot be written")]
    Tombstoned {
        /// The stream.
        stream: StreamId,
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
            Self::Invalid(_)
            | Self::IdReused { .. }
            | Self::PartlyKnown { .. }
            | Self::Tombstoned { .. }
            | Self::CommandKeyReused { .. } => ErrorKind::Caller,
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
