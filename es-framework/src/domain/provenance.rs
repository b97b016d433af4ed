//! Where a command comes from, carried in the metadata of its events.

use serde_json::{Map, Value};

use super::event::Envelope;
use crate::log::{InvalidMetadata, Metadata};

/// Where a command comes from: correlation, causation, actor, tenant and trace context, and whatever else should travel
/// beside the events without their types knowing.
///
/// ```
/// use es_framework::Provenance;
///
/// let provenance = Provenance::new().correlation_id("order-17").actor("alice").with("channel", "web");
/// assert_eq!(
///     provenance.to_metadata()?.unwrap().as_str(),
///     r#"{"actor":"alice","channel":"web","correlation_id":"order-17"}"#
/// );
/// # Ok::<(), es_framework::InvalidMetadata>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use]
pub struct Provenance {
    entries: Map<String, Value>,
}

impl Provenance {
    /// The metadata key of [`Self::correlation_id`].
    pub const CORRELATION_ID: &'static str = "correlation_id";
    /// The metadata key of [`Self::causation_id`].
    pub const CAUSATION_ID: &'static str = "causation_id";
    /// The metadata key of [`Self::actor`].
    pub const ACTOR: &'static str = "actor";
    /// The metadata key of [`Self::tenant`].
    pub const TENANT: &'static str = "tenant";
    /// The metadata key of [`Self::traceparent`].
    pub const TRACEPARENT: &'static str = "traceparent";

    /// The metadata key of the command's name, which [`Execute::provenance`](crate::Execute::provenance) writes. An entry of
    /// the caller's own under this key is replaced.
    pub const COMMAND: &'static str = "command";

    /// Says nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over where an event came from, and names the event as the cause: its correlation id (or its own id where it
    /// has none), tenant and trace context.
    pub fn caused_by(cause: Envelope<'_>) -> Self {
        let inherited = |key| cause.metadata().and_then(|metadata| metadata.text(key));
        let mut provenance = Self::new()
            .correlation_id(inherited(Self::CORRELATION_ID).unwrap_or_else(|| cause.id().to_string()))
            .causation_id(cause.id().to_string());
        for key in [Self::TENANT, Self::TRACEPARENT] {
            if let Some(value) = inherited(key) {
                provenance = provenance.with(key, value);
            }
        }
        provenance
    }

    /// What all messages of one conversation share.
    pub fn correlation_id(self, id: impl Into<String>) -> Self {
        self.with(Self::CORRELATION_ID, id.into())
    }

    /// The message that led to this one.
    pub fn causation_id(self, id: impl Into<String>) -> Self {
        self.with(Self::CAUSATION_ID, id.into())
    }

    /// Who asked for it.
    pub fn actor(self, actor: impl Into<String>) -> Self {
        self.with(Self::ACTOR, actor.into())
    }

    /// On whose behalf.
    pub fn tenant(self, tenant: impl Into<String>) -> Self {
        self.with(Self::TENANT, tenant.into())
    }

    /// The trace it belongs to, as W3C Trace Context writes it.
    pub fn traceparent(self, traceparent: impl Into<String>) -> Self {
        self.with(Self::TRACEPARENT, traceparent.into())
    }

    /// Adds an entry of the caller's own.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.entries.insert(key.into(), value.into());
        self
    }

    /// The metadata to write beside each event; [`None`] if nothing was said.
    ///
    /// # Errors
    ///
    /// [`InvalidMetadata`] if a value cannot be written as JSON.
    pub fn to_metadata(&self) -> Result<Option<Metadata>, InvalidMetadata> {
        if self.entries.is_empty() { Ok(None) } else { Metadata::of(&self.entries).map(Some) }
    }
}
