//! Where a command comes from, carried in the metadata of its events.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

use super::event::Envelope;
use crate::log::{InvalidMetadata, Metadata};

/// Where a command comes from: correlation, causation, actor, tenant and trace context, and anything else that should
/// travel with the events without being part of their types.
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
    entries: BTreeMap<String, Value>,
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
    /// The metadata key of [`Self::tracestate`].
    pub const TRACESTATE: &'static str = "tracestate";

    /// The metadata key of the command's name, which [`Execute::provenance`](crate::Execute::provenance) writes. It
    /// replaces an entry of the caller's own under this key.
    pub const COMMAND: &'static str = "command";

    /// Creates an empty provenance.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the provenance of a command caused by an event: names the event as the cause, and inherits its
    /// correlation id (or its own id if it has none), tenant and trace context.
    pub fn caused_by(cause: Envelope<'_>) -> Self {
        let inherited = |key| cause.metadata().and_then(|metadata| metadata.text(key));
        let mut provenance = Self::new()
            .correlation_id(inherited(Self::CORRELATION_ID).unwrap_or_else(|| cause.id().to_string()))
            .causation_id(cause.id().to_string());
        let mut inherit = |key| {
            let value = inherited(key)?;
            provenance.entries.insert(key.to_owned(), value.into());
            Some(())
        };
        inherit(Self::TENANT);
        // A `tracestate` means nothing without its `traceparent`.
        inherit(Self::TRACEPARENT).and_then(|()| inherit(Self::TRACESTATE));
        provenance
    }

    /// The id that all messages of one conversation share.
    pub fn correlation_id(self, id: impl Into<String>) -> Self {
        self.with(Self::CORRELATION_ID, id.into())
    }

    /// The id of the message that led to this one.
    pub fn causation_id(self, id: impl Into<String>) -> Self {
        self.with(Self::CAUSATION_ID, id.into())
    }

    /// Who issued the command.
    pub fn actor(self, actor: impl Into<String>) -> Self {
        self.with(Self::ACTOR, actor.into())
    }

    /// On whose behalf it is executed.
    pub fn tenant(self, tenant: impl Into<String>) -> Self {
        self.with(Self::TENANT, tenant.into())
    }

    /// The span it was issued in: the header `traceparent` of [W3C Trace Context](https://www.w3.org/TR/trace-context/).
    pub fn traceparent(self, traceparent: impl Into<String>) -> Self {
        self.with(Self::TRACEPARENT, traceparent.into())
    }

    /// What tracing systems add to the [`traceparent`](Self::traceparent): the header `tracestate` of W3C Trace Context.
    pub fn tracestate(self, tracestate: impl Into<String>) -> Self {
        self.with(Self::TRACESTATE, tracestate.into())
    }

    /// Adds an entry of the caller's own.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.entries.insert(key.into(), value.into());
        self
    }

    /// The metadata to write with each event; [`None`] if there are no entries.
    ///
    /// Keys are sorted, inside values too, whether or not serde_json's feature `preserve_order` is on: the same
    /// provenance is the same text in every build, so that a retry is recognized.
    ///
    /// # Errors
    ///
    /// [`InvalidMetadata`] if a value is nested too deeply.
    pub fn to_metadata(&self) -> Result<Option<Metadata>, InvalidMetadata> {
        if self.entries.is_empty() {
            return Ok(None);
        }
        let sorted: BTreeMap<_, _> = self.entries.iter().map(|(key, value)| (key, Sorted(value))).collect();
        Metadata::of(&sorted).map(Some)
    }
}

/// A JSON value that is written with sorted keys.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(values) => {
                let mut seq = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| seq.serialize_element(&Self(value)))?;
                seq.end()
            }
            Value::Object(entries) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_unstable_by_key(|(key, _)| *key);
                let mut map = serializer.serialize_map(Some(sorted.len()))?;
                sorted.into_iter().try_for_each(|(key, value)| map.serialize_entry(key, &Self(value)))?;
                map.end()
            }
            scalar => scalar.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A command that is sent again by a build with `preserve_order` has the same metadata.
    #[test]
    fn the_same_provenance_is_the_same_text_in_every_build() {
        let nested = json!({"z": 1, "a": [{"y": null, "b": 1.5}], "m": {"k": 2, "c": "x"}});
        let provenance = Provenance::new().tenant("acme").with("more", nested).actor("alice").with("n", 1);
        assert_eq!(
            provenance.to_metadata().unwrap().unwrap().as_str(),
            r#"{"actor":"alice","more":{"a":[{"b":1.5,"y":null}],"m":{"c":"x","k":2},"z":1},"n":1,"tenant":"acme"}"#
        );
    }
}
