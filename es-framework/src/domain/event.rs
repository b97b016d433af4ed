//! Typed events.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::codec::CodecError;
use crate::log::{
    CandidateEvent, EventId, EventType, InvalidName, Mark, Metadata, Position, StoredEvent, StreamId, Tags, Timestamp,
    Version,
};
use crate::panics;

/// An event as a Rust type; derive it with [`#[derive(Event)]`](derive@crate::Event).
///
/// A variant is stored as its own fields under its stored name, never by its index in the enum: reordering, renaming or
/// adding variants does not change how old events decode.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    note = "put `#[derive(Event)]` on the type and `#[es(name = \"…\")]` on each variant"
)]
pub trait Event: Sized + Send + Sync + 'static {
    /// Every stored name that this type decodes, old names included; a filter by type selects these.
    fn names() -> Vec<&'static str>;

    /// Whether it decodes events with this stored name; the derive implements it without building a list.
    fn claims(name: &str) -> bool {
        Self::names().contains(&name)
    }

    /// The event types that this type writes: one per variant, with the shape of its payload.
    fn event_types() -> Vec<Arc<EventType>>;

    /// Encodes the event for writing.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the codec cannot write the payload, or a tag is not valid.
    fn encode(&self) -> Result<CandidateEvent, EncodeError>;

    /// The stream that the event names from its own fields, by `#[es(stream = "…")]`; [`None`] if it names none.
    ///
    /// A [decision](crate::Decide) writes the event there. A [repository](crate::Repository) writes to the stream of its
    /// aggregate, whatever the event says.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if a field in the stream's id is empty, or the whole is not a valid id.
    fn stream(&self) -> Result<Option<StreamId>, InvalidName> {
        Ok(None)
    }

    /// Decodes a stored event, upgrading old names and schema versions.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the name or version is unknown, or the payload does not fit it.
    fn decode(stored: &StoredEvent) -> Result<Self, DecodeError>;
}

/// An event all of whose variants name their stream, by `#[es(stream = "…")]` on each or on the enum.
///
/// An enum that [joins](derive@crate::Event#joined-events) other events is one too; whether the joined event names its stream is
/// checked when a decision returns it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name the stream it is written to",
    note = "put `#[es(stream = \"course-{{course}}\")]` on each variant or on the enum, with the names of its fields",
    note = "or give the event to an aggregate that the decision reads, with `Events::new().to(aggregate, event)`, or to a stream, with `to_stream`"
)]
pub trait NamesStream: Event {}

/// An event that could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The codec cannot write the payload.
    #[error("event {name} could not be encoded")]
    Codec {
        /// The stored name of the event.
        name: &'static str,
        /// The codec's error.
        source: CodecError,
    },
    /// A field with a tag has a value that no tag can have: an empty one, one that is too long, or one with control
    /// characters.
    #[error("event {name} has no valid tag `{tag}`")]
    Tag {
        /// The stored name of the event.
        name: &'static str,
        /// The name of the tag.
        tag: &'static str,
        /// What is wrong with it.
        source: InvalidName,
    },
    /// The event has too many tags.
    #[error("event {name} has more than {limit} tags")]
    TooManyTags {
        /// The stored name of the event.
        name: &'static str,
        /// The maximum number of tags, [`MAX_TAGS`](crate::MAX_TAGS).
        limit: usize,
    },
}

impl EncodeError {
    /// Creates the error of a codec.
    pub fn new(name: &'static str, source: CodecError) -> Self {
        Self::Codec { name, source }
    }

    /// The stored name of the event.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Codec { name, .. } | Self::Tag { name, .. } | Self::TooManyTags { name, .. } => name,
        }
    }
}

/// A stored event that could not be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The type does not know this name, or not in this schema version.
    #[error(
        "{stream} has an event {name:?} of schema version {schema_version} at position {position} that the type does not know"
    )]
    Unknown {
        /// The stream.
        stream: StreamId,
        /// The position of the event.
        position: Position,
        /// Its stored name.
        name: String,
        /// Its schema version.
        schema_version: u32,
    },
    /// The payload does not fit its name and version.
    #[error("event {name:?} of schema version {schema_version} in {stream} at position {position} cannot be read")]
    Payload {
        /// The stream.
        stream: StreamId,
        /// The position of the event.
        position: Position,
        /// Its stored name.
        name: String,
        /// Its schema version.
        schema_version: u32,
        /// The codec's error.
        source: CodecError,
    },
    /// The code that decodes it panicked: a `Deserialize`, a `From` of an older version, or an [`Event::decode`] of its
    /// own.
    #[error(
        "decoding event {name:?} of schema version {schema_version} in {stream} at position {position} panicked: {message}"
    )]
    Panicked {
        /// The stream.
        stream: StreamId,
        /// The position of the event.
        position: Position,
        /// Its stored name.
        name: String,
        /// Its schema version.
        schema_version: u32,
        /// The message of the panic.
        message: String,
    },
}

impl DecodeError {
    /// The error for a name or version that a type does not know.
    pub fn unknown(stored: &StoredEvent) -> Self {
        Self::Unknown {
            stream: stored.stream.clone(),
            position: stored.position,
            name: stored.name().to_owned(),
            schema_version: stored.event_type.schema_version(),
        }
    }

    /// The error for a payload that the codec could not read.
    pub fn payload(stored: &StoredEvent, source: CodecError) -> Self {
        Self::Payload {
            stream: stored.stream.clone(),
            position: stored.position,
            name: stored.name().to_owned(),
            schema_version: stored.event_type.schema_version(),
            source,
        }
    }

    /// The error for a panic while decoding, with the panic's message.
    pub fn panicked(stored: &StoredEvent, message: impl Into<String>) -> Self {
        Self::Panicked {
            stream: stored.stream.clone(),
            position: stored.position,
            name: stored.name().to_owned(),
            schema_version: stored.event_type.schema_version(),
            message: message.into(),
        }
    }

    /// The position of the event.
    pub fn position(&self) -> Position {
        match self {
            Self::Unknown { position, .. } | Self::Payload { position, .. } | Self::Panicked { position, .. } => {
                *position
            }
        }
    }
}

/// Decodes a stored event as [`Event::decode`] does; a panic becomes an error that names the event.
pub(crate) fn decode<E: Event>(stored: &StoredEvent) -> Result<E, DecodeError> {
    panics::catch(|| E::decode(stored)).unwrap_or_else(|message| Err(DecodeError::panicked(stored, message)))
}

/// Everything about an event except its content: identity, version and position live here and nowhere else.
#[derive(Clone, Copy)]
pub struct Envelope<'a> {
    stored: &'a StoredEvent,
}

impl<'a> Envelope<'a> {
    /// The envelope of a stored event.
    pub fn of(stored: &'a StoredEvent) -> Self {
        Self { stored }
    }

    /// The stream it belongs to.
    pub fn stream(self) -> &'a StreamId {
        &self.stored.stream
    }

    /// The name it is stored under; of an event that was renamed since, the old name.
    pub fn name(self) -> &'a str {
        self.stored.name()
    }

    /// Its place in its stream.
    pub fn version(self) -> Version {
        self.stored.version
    }

    /// Its place in `@all`.
    pub fn position(self) -> Position {
        self.stored.position
    }

    /// When it was written.
    pub fn time(self) -> Timestamp {
        self.stored.time
    }

    /// Its id.
    pub fn id(self) -> &'a EventId {
        &self.stored.id
    }

    /// Its metadata, if any.
    pub fn metadata(self) -> Option<&'a Metadata> {
        self.stored.metadata.as_ref()
    }

    /// Its tags.
    pub fn tags(self) -> &'a Tags {
        &self.stored.tags
    }
}

impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("stream", self.stream())
            .field("name", &self.name())
            .field("version", &self.version())
            .field("position", &self.position())
            .field("time", &self.time())
            .field("id", self.id())
            .field("metadata", &self.metadata())
            .field("tags", &self.tags())
            .finish()
    }
}

/// A typed event that was read from the log, with its envelope; derefs to the event.
#[derive(Debug, Clone)]
pub struct Recorded<E> {
    event: E,
    stored: StoredEvent,
}

impl<E: Event> Recorded<E> {
    /// Decodes a stored event.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the name or version is unknown, the payload does not fit it, or the code that decodes it
    /// panicked.
    pub fn decode(stored: StoredEvent) -> Result<Self, DecodeError> {
        Ok(Self { event: decode(&stored)?, stored })
    }

    /// As [`Self::decode`], but returns the stored event with the error.
    pub(crate) fn decode_or_return(stored: StoredEvent) -> Result<Self, (Box<StoredEvent>, DecodeError)> {
        match decode(&stored) {
            Ok(event) => Ok(Self { event, stored }),
            Err(error) => Err((Box::new(stored), error)),
        }
    }
}

impl<E> Recorded<E> {
    /// The event.
    pub fn event(&self) -> &E {
        &self.event
    }

    /// Its envelope.
    pub fn envelope(&self) -> Envelope<'_> {
        Envelope::of(&self.stored)
    }

    /// The stream it belongs to.
    pub fn stream(&self) -> &StreamId {
        &self.stored.stream
    }

    /// The part of the stream's id after the category: the aggregate's id.
    pub fn aggregate_id(&self) -> &str {
        let stream = self.stored.stream.as_str();
        stream.split_once('-').map_or(stream, |(_, id)| id)
    }

    /// The name it is stored under; of an event that was renamed since, the old name.
    pub fn name(&self) -> &str {
        self.stored.name()
    }

    /// Its place in its stream.
    pub fn version(&self) -> Version {
        self.stored.version
    }

    /// Its place in `@all`.
    pub fn position(&self) -> Position {
        self.stored.position
    }

    /// When it was written.
    pub fn time(&self) -> Timestamp {
        self.stored.time
    }

    /// Its id.
    pub fn id(&self) -> &EventId {
        &self.stored.id
    }

    /// Its metadata, if any.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.stored.metadata.as_ref()
    }

    /// Its tags.
    pub fn tags(&self) -> &Tags {
        &self.stored.tags
    }

    /// Its position and checksum, by which a checkpoint names it.
    pub(crate) fn mark(&self) -> Mark {
        Mark { position: self.stored.position, checksum: self.stored.checksum }
    }

    /// The bytes of its payload and metadata.
    pub(crate) fn bytes(&self) -> usize {
        self.stored.bytes()
    }

    /// The event alone.
    pub fn into_event(self) -> E {
        self.event
    }
}

impl<E> Deref for Recorded<E> {
    type Target = E;
    fn deref(&self) -> &E {
        &self.event
    }
}
