//! The metadata of an event: one JSON object, kept as the caller's text.

use std::fmt;

use bytes::Bytes;

use super::json::{Flaw, Invalid, MAX_DEPTH, Scanner, Token};

/// One JSON object stored with an event's payload, kept byte for byte as the caller wrote it.
///
/// What is accepted does not depend on the features of `serde_json`: arrays and objects nested up to 127 levels,
/// including the object itself, numbers of any size, and strings of whole characters only. Everything accepted can be
/// filtered by; see [`Scalar`](super::Scalar) for how numbers compare. If a key is repeated, the last one counts.
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

/// Why a text cannot be metadata.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMetadata {
    /// The text is not JSON.
    #[error("metadata must be one JSON object, but this is not JSON from byte {at} on")]
    NotJson {
        /// The first byte that is not JSON.
        at: usize,
    },
    /// The text is JSON, but not an object.
    #[error("metadata must be one JSON object, but this is another JSON value")]
    NotAnObject,
    /// An escape such as `\ud800` is half of a surrogate pair and not a character.
    #[error("metadata holds whole characters only, but the escape at byte {at} is half of a surrogate pair")]
    LoneSurrogate {
        /// The byte where the escape begins.
        at: usize,
    },
    /// Arrays and objects are nested too deep.
    #[error("metadata is nested deeper than {max} levels")]
    TooDeep {
        /// The maximum number of levels, including the object itself.
        max: u32,
    },
    /// The value cannot be written as JSON.
    #[error("metadata cannot be written as JSON")]
    NotSerializable {
        /// The cause.
        source: serde_json::Error,
    },
}

impl From<Invalid> for InvalidMetadata {
    fn from(Invalid { flaw, at }: Invalid) -> Self {
        match flaw {
            Flaw::Syntax => Self::NotJson { at },
            Flaw::LoneSurrogate => Self::LoneSurrogate { at },
            Flaw::TooDeep => Self::TooDeep { max: MAX_DEPTH },
        }
    }
}

impl Metadata {
    /// Checks a text and keeps it.
    ///
    /// # Errors
    ///
    /// [`InvalidMetadata`] if the text is not one JSON object, is nested deeper than 127 levels, or has half of a
    /// surrogate pair in a key or string.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidMetadata> {
        let text = text.into();
        match Scanner::check(&text)? {
            Token::Object => Ok(Self(Bytes::from(text))),
            _ => Err(InvalidMetadata::NotAnObject),
        }
    }

    /// Creates metadata from any value that serializes to a JSON object.
    ///
    /// # Errors
    ///
    /// [`InvalidMetadata`] if the value does not serialize, or not to something that [`Self::parse`] accepts.
    pub fn of(value: &impl serde::Serialize) -> Result<Self, InvalidMetadata> {
        Self::parse(serde_json::to_string(value).map_err(|source| InvalidMetadata::NotSerializable { source })?)
    }

    /// Wraps what an engine stored, without parsing it again; [`None`] if it is not UTF-8.
    pub fn from_stored(text: Bytes) -> Option<Self> {
        std::str::from_utf8(&text).ok()?;
        Some(Self(text))
    }

    /// The caller's text.
    pub fn as_str(&self) -> &str {
        // Both constructors check that the text is UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The string at the top-level key `key`; [`None`] if there is none or it is not a string.
    pub fn text(&self, key: &str) -> Option<String> {
        match super::scalar::scalar_at(self.as_str(), &[key])? {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Filter, Position, Scalar, Timestamp, Version};

    fn header(metadata: &Metadata) -> crate::log::EventHeader<'_> {
        crate::log::EventHeader {
            stream: "account-alice",
            version: Version::new(1),
            position: Position::new(1),
            time: Timestamp::from_micros(0),
            event_type: "account.opened",
            metadata: Some(metadata.as_str()),
            tags: &[],
        }
    }

    /// A key with half of a surrogate pair was accepted, and then no filter found anything in that metadata.
    #[test]
    fn half_a_character_is_refused() {
        for (json, byte) in [
            (r#"{"\ud800": 1, "tenant": "acme"}"#, 2),
            (r#"{"tenant": "\udfff"}"#, 12),
            (r#"{"a": [{"b": "x\uD83D "}]}"#, 15),
        ] {
            let refused = Metadata::parse(json);
            assert!(matches!(refused, Err(InvalidMetadata::LoneSurrogate { at }) if at == byte), "{json}: {refused:?}");
        }
        let whole = Metadata::parse(r#"{"\ud83d\ude00": "\ud83d\ude00"}"#).unwrap();
        assert!(Filter::new().metadata_equals("😀", "😀").matches(&header(&whole)));
    }

    /// Nothing limited the nesting, so reading the metadata with serde_json failed.
    #[test]
    fn deep_nesting_is_refused_and_takes_no_stack() {
        let nested = |levels: usize| format!(r#"{{"n": 7, "a": {}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        let deepest = Metadata::parse(nested(126)).unwrap();
        assert!(Filter::new().metadata_equals("n", 7).matches(&header(&deepest)));
        serde_json::from_str::<serde_json::Value>(deepest.as_str()).unwrap();
        for levels in [127, 128, 5_000_000] {
            assert!(matches!(Metadata::parse(nested(levels)), Err(InvalidMetadata::TooDeep { max: 127 })), "{levels}");
        }
        let stored = Metadata::from_stored(nested(5_000_000).into()).unwrap();
        assert!(!Filter::new().metadata_equals("a.b", 7).matches(&header(&stored)));
    }

    /// With `arbitrary_precision` in the build, no filter on a float or a large integer matched.
    #[test]
    fn numbers_of_any_size_are_taken_and_hide_nothing() {
        let huge = "9".repeat(100);
        let json = format!(r#"{{"f": 0.5, "huge": {huge}, "e": 1e400, "i": 3, "big": 18446744073709551616}}"#);
        let metadata = Metadata::parse(json).unwrap();
        for (path, value, expected) in [
            ("f", Scalar::from(0.5), true),
            ("i", Scalar::from(3), true),
            ("huge", Scalar::from(1e100), true),
            ("e", Scalar::from(f64::INFINITY), false),
            ("big", Scalar::Integer(1 << 64), true),
        ] {
            let filter = Filter::new().metadata_equals(path, value.clone());
            assert_eq!(filter.matches(&header(&metadata)), expected, "{path} = {value:?}");
        }
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for json in ["[1]", "1", "null", "\"{}\"", " true "] {
            assert!(matches!(Metadata::parse(json), Err(InvalidMetadata::NotAnObject)), "{json}");
        }
        for (json, byte) in [("", 0), ("{} x", 3), ("{\"a\": 01}", 7), ("[1, 2", 5)] {
            let refused = Metadata::parse(json);
            assert!(matches!(refused, Err(InvalidMetadata::NotJson { at }) if at == byte), "{json}: {refused:?}");
        }
        assert!(matches!(Metadata::of(&"text"), Err(InvalidMetadata::NotAnObject)));
        let keys_of_two = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(Metadata::of(&keys_of_two), Err(InvalidMetadata::NotSerializable { .. })));
    }
}
