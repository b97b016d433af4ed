//! What travels beside an event: one JSON object, kept as the caller's text.

use std::fmt;

use bytes::Bytes;
use serde::de::IgnoredAny;

/// One JSON object beside an event's payload, kept byte for byte as the caller wrote it.
///
/// ```
/// use es_framework::Metadata;
///
/// let metadata = Metadata::parse(r#"{"tenant": "acme", "trace": {"id": 7}}"#)?;
/// assert!(metadata.as_str().starts_with(r#"{"tenant": "acme""#));
/// assert!(Metadata::parse("[1, 2]").is_err());
/// # Ok::<(), es_framework::InvalidMetadata>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Metadata(Bytes);

/// Says why a text cannot be metadata.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMetadata {
    /// The text is not JSON.
    #[error("metadata is one JSON object, this is not JSON")]
    NotJson {
        /// What the parser found.
        source: serde_json::Error,
    },
    /// The text is JSON, but not an object.
    #[error("metadata is one JSON object, this is another JSON value")]
    NotAnObject,
}

impl Metadata {
    /// Checks a text and keeps it.
    ///
    /// # Errors
    ///
    /// [`InvalidMetadata`] if the text is not one JSON object.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidMetadata> {
        let text = text.into();
        let _: IgnoredAny = serde_json::from_str(&text).map_err(|source| InvalidMetadata::NotJson { source })?;
        if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
            return Err(InvalidMetadata::NotAnObject);
        }
        Ok(Self(Bytes::from(text)))
    }

    /// Makes metadata of anything that serializes to a JSON object.
    ///
    /// # Errors
    ///
    /// [`InvalidMetadata`] if the value does not serialize, or to something other than an object.
    pub fn of(value: &impl serde::Serialize) -> Result<Self, InvalidMetadata> {
        Self::parse(serde_json::to_string(value).map_err(|source| InvalidMetadata::NotJson { source })?)
    }

    /// Takes what an engine stored, without parsing it again; [`None`] if it is not UTF-8.
    pub fn from_stored(text: Bytes) -> Option<Self> {
        std::str::from_utf8(&text).ok()?;
        Some(Self(text))
    }

    /// The caller's text.
    pub fn as_str(&self) -> &str {
        // Both constructors check that the text is UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text at the top-level key `key`; [`None`] if there is none or it is not a text.
    pub fn text(&self, key: &str) -> Option<String> {
        match super::filter::scalar_at(self.as_str(), &[key])? {
            super::Scalar::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
