//! Events: what a caller writes and what is read back.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::checksum::checksum;
use super::id::EventId;
use super::metadata::Metadata;
use super::name::{InvalidName, StreamId, check_name};
use super::position::{Position, Version};
use super::tag::{Tag, Tags};
use super::time::Timestamp;

/// The type of a payload: its stored name, its schema version, its codec and the shape of its fields.
///
/// Events share their type behind an [`Arc`]; engines intern it, so that an event stores only a small number for it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventType {
    name: Arc<str>,
    schema_version: u32,
    codec: Arc<str>,
    shape: Option<Arc<str>>,
}

impl EventType {
    /// Creates a type from a stored name, a schema version (the first is 1) and the id of a codec.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the name or the codec id is empty, over 255 bytes or has a control character.
    pub fn new(
        name: impl Into<Arc<str>>,
        schema_version: u32,
        codec: impl Into<Arc<str>>,
    ) -> Result<Self, InvalidName> {
        let (name, codec) = (name.into(), codec.into());
        check_name("event type", &name)?;
        check_name("codec id", &codec)?;
        Ok(Self { name, schema_version, codec, shape: None })
    }

    /// Adds the shape of the payload, so that it stays readable without the Rust type. See [`crate::Shape`].
    #[must_use]
    pub fn with_shape(mut self, shape: impl Into<Arc<str>>) -> Self {
        self.shape = Some(shape.into());
        self
    }

    /// The stored name, for example `account.opened`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The schema version of the payload.
    pub fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// The id of the codec that wrote the payload; `raw` if the caller chose none.
    pub fn codec(&self) -> &str {
        &self.codec
    }

    /// The shape of the payload, if it is known.
    pub fn shape(&self) -> Option<&str> {
        self.shape.as_deref()
    }

    /// Whether payloads of these two types can have the same content; the shape is not compared.
    pub fn same_content(&self, other: &Self) -> bool {
        self.name == other.name && self.schema_version == other.schema_version && self.codec == other.codec
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({})", self.name, self.schema_version, self.codec)
    }
}

/// An event to be written.
///
/// ```
/// use es_framework::{CandidateEvent, EventId, Metadata};
///
/// let event = CandidateEvent::new("account.deposited", "500")?
///     .with_id(EventId::text("deposit-17")?)
///     .with_metadata(Metadata::parse(r#"{"actor": "alice"}"#)?);
/// assert_eq!(event.event_type().schema_version(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateEvent {
    event_type: Arc<EventType>,
    payload: Bytes,
    metadata: Option<Metadata>,
    tags: Tags,
    id: Option<EventId>,
}

impl CandidateEvent {
    /// The codec id of payloads that only the caller can interpret.
    pub const RAW: &'static str = "raw";

    /// Creates an event from a type name and payload bytes, with schema version 1 and the codec id [`Self::RAW`].
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the name is empty, over 255 bytes or has a control character.
    pub fn new(name: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Result<Self, InvalidName> {
        Ok(Self::of_type(EventType::new(name, 1, Self::RAW)?, payload))
    }

    /// Creates an event from a type and payload bytes.
    pub fn of_type(event_type: impl Into<Arc<EventType>>, payload: impl Into<Bytes>) -> Self {
        Self { event_type: event_type.into(), payload: payload.into(), metadata: None, tags: Tags::new(), id: None }
    }

    /// Adds metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<Option<Metadata>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// Sets the tags, which say what the event is about: at most [`MAX_TAGS`](crate::MAX_TAGS), each once. They are
    /// checked when the event is appended.
    #[must_use]
    pub fn with_tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        self.tags = tags.into_iter().collect();
        self
    }

    /// Adds an id, which identifies a retry.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Option<EventId>>) -> Self {
        self.id = id.into();
        self
    }

    /// The type of the payload.
    pub fn event_type(&self) -> &Arc<EventType> {
        &self.event_type
    }

    /// The payload bytes.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The metadata, if any.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// The tags, in the order given.
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// The id, if the caller gave one.
    pub fn id(&self) -> Option<&EventId> {
        self.id.as_ref()
    }

    /// The bytes that count against [`Limits`](super::Limits): payload, metadata, tags and id.
    pub fn bytes(&self) -> usize {
        self.payload.len()
            + self.metadata.as_ref().map_or(0, |metadata| metadata.as_str().len())
            + self.tags.bytes()
            + self.id.as_ref().map_or(0, |id| match id.kind() {
                super::EventIdKind::Text(text) => text.len(),
                _ => 16,
            })
    }
}

/// Lets [`Stream::write`](super::Stream::write) take a single event as well as many.
impl From<CandidateEvent> for Vec<CandidateEvent> {
    fn from(event: CandidateEvent) -> Self {
        vec![event]
    }
}

/// Events to write: a [`CandidateEvent`], or an array, a slice or a [`Vec`] of them; implemented for everything that
/// converts into a `Vec<CandidateEvent>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `CandidateEvent`",
    label = "expected a `CandidateEvent`, or an array, a slice or a `Vec` of them",
    note = "typed events are written with `stream.write_events(&[event], expected)`, or encoded first with `event.encode()?`"
)]
pub trait IntoCandidates {
    /// The events, in order.
    fn into_candidates(self) -> Vec<CandidateEvent>;
}

#[diagnostic::do_not_recommend]
impl<T: Into<Vec<CandidateEvent>>> IntoCandidates for T {
    fn into_candidates(self) -> Vec<CandidateEvent> {
        self.into()
    }
}

/// An event as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredEvent {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its place in its stream.
    pub version: Version,
    /// Its place in `@all`.
    pub position: Position,
    /// When it was written; never earlier than any event before it.
    pub time: Timestamp,
    /// The caller's id, or one derived from the store's id and the position.
    pub id: EventId,
    /// The type of the payload.
    pub event_type: Arc<EventType>,
    /// The payload bytes. Events of one page may share one buffer: copy a payload that outlives its page.
    pub payload: Bytes,
    /// The metadata, if any.
    pub metadata: Option<Metadata>,
    /// The tags, in the order in which they were given.
    pub tags: Tags,
    /// The CRC-32C over all fields above, the stored id included; see `docs/file-format.md`.
    pub checksum: u32,
}

impl StoredEvent {
    /// Creates an event as it will be stored, including its checksum.
    pub fn new(
        store: super::StoreId,
        stream: StreamId,
        version: Version,
        position: Position,
        time: Timestamp,
        candidate: &CandidateEvent,
    ) -> Self {
        let mut event = Self {
            stream,
            version,
            position,
            time,
            id: candidate.id.clone().unwrap_or_else(|| EventId::derived(store, position)),
            event_type: Arc::clone(&candidate.event_type),
            payload: candidate.payload.clone(),
            metadata: candidate.metadata.clone(),
            tags: candidate.tags.clone(),
            checksum: 0,
        };
        event.checksum = event.computed_checksum();
        event
    }

    /// Creates an event from what an engine stored, with the stored checksum.
    #[expect(clippy::too_many_arguments, reason = "one argument a stored field, called by engines only")]
    pub fn from_stored(
        stream: StreamId,
        version: Version,
        position: Position,
        time: Timestamp,
        id: EventId,
        event_type: Arc<EventType>,
        payload: Bytes,
        metadata: Option<Metadata>,
        tags: Tags,
        checksum: u32,
    ) -> Self {
        Self { stream, version, position, time, id, event_type, payload, metadata, tags, checksum }
    }

    /// Computes the checksum of the current fields; equal to [`Self::checksum`] unless the event is damaged.
    pub fn computed_checksum(&self) -> u32 {
        checksum(
            self.position,
            &self.stream,
            self.version,
            self.time,
            &self.event_type,
            (!self.id.is_derived()).then_some(&self.id),
            self.metadata.as_ref().map(Metadata::as_str),
            &self.tags,
            &self.payload,
        )
    }

    /// The stored name of its type.
    pub fn name(&self) -> &str {
        self.event_type.name()
    }

    /// The bytes that count against the size of a page.
    pub fn bytes(&self) -> usize {
        self.payload.len() + self.metadata.as_ref().map_or(0, |metadata| metadata.as_str().len()) + self.tags.bytes()
    }
}
