//! The names of things: streams, event types, codecs, projections, cells and commands.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The maximum length of a name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The text is empty.
    #[error("a {what} cannot be empty")]
    Empty {
        /// The kind of name that was requested.
        what: &'static str,
    },
    /// The text is longer than [`MAX_NAME_BYTES`].
    #[error("a {what} has at most {MAX_NAME_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// The kind of name that was requested.
        what: &'static str,
        /// The length of the rejected text in bytes.
        bytes: usize,
    },
    /// The text has a character below U+0020.
    #[error("a {what} cannot contain control characters, found {character:?} in {text:?}")]
    ControlCharacter {
        /// The kind of name that was requested.
        what: &'static str,
        /// The first control character.
        character: char,
        /// The rejected text.
        text: String,
    },
    /// The text is not a tag: `name:value` with both parts non-empty, and no `:` in the name.
    #[error("a tag is `name:value` with a name and a value, this is {text:?}")]
    NotATag {
        /// The rejected text.
        text: String,
    },
    /// The text begins with `@`, which is reserved for names that the store creates.
    #[error("a {what} cannot begin with `@`, which the store keeps for itself: {text:?}")]
    Reserved {
        /// The kind of name that was requested.
        what: &'static str,
        /// The rejected text.
        text: String,
    },
}

/// Checks a name: 1 to 255 bytes, no U+0000–U+001F.
pub(crate) fn check_name(what: &'static str, text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty { what });
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(InvalidName::TooLong { what, bytes: text.len() });
    }
    if let Some(character) = text.chars().find(|c| *c < ' ') {
        return Err(InvalidName::ControlCharacter { what, character, text: text.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Creates a name from a text.
            ///
            /// # Errors
            ///
            /// [`InvalidName`] for an empty text, one over 255 bytes, and one with a character below U+0020.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidName> {
                let text = text.into();
                check_name($what, &text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        /// Serializes as its text.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;
            fn try_from(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<&String> for $name {
            type Error = InvalidName;
            fn try_from(text: &String) -> Result<Self, InvalidName> {
                Self::new(text.as_str())
            }
        }

        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }
    };
}

name! {
    /// The id of a stream, for example `account-alice`.
    ///
    /// 1 to 255 bytes of UTF-8 without U+0000–U+001F. Ids that begin with `@` belong to the store: `@all` is read and
    /// watched like a stream, the others are always empty, and none of them can be written.
    ///
    /// ```
    /// use es_framework::StreamId;
    ///
    /// let id = StreamId::new("account-alice")?;
    /// assert_eq!(id.category(), "account");
    /// assert!(StreamId::new("").is_err());
    /// # Ok::<(), es_framework::InvalidName>(())
    /// ```
    StreamId, "stream id"
}

name! {
    /// The name under which a snapshot or a checkpoint is stored, for example `balances`.
    ProjectionName, "projection name"
}

name! {
    /// The key of a [cell](crate::Cell), for example `lease/mailer`.
    CellKey, "cell key"
}

name! {
    /// A key that makes a command unique in the store, chosen by its sender.
    CommandKey, "command key"
}

impl StreamId {
    /// The id of `@all`, the single sequence of all events of the store.
    pub fn all() -> Self {
        Self("@all".into())
    }

    /// Whether this is `@all`.
    pub fn is_all(&self) -> bool {
        self.as_str() == "@all"
    }

    /// Whether the id begins with `@` and therefore cannot be written.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('@')
    }

    /// The part before the first `-`, or the whole id if there is none.
    pub fn category(&self) -> &str {
        category_of(&self.0)
    }

    /// The id as shared text, without a copy.
    pub fn as_shared(&self) -> &Arc<str> {
        &self.0
    }
}

/// The category of a stream id: the part before the first `-`, or the whole id if there is none.
pub(crate) fn category_of(stream: &str) -> &str {
    stream.split_once('-').map_or(stream, |(category, _)| category)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_has_no_control_characters() {
        assert!(matches!(StreamId::new(""), Err(InvalidName::Empty { .. })));
        assert!(StreamId::new("a".repeat(255)).is_ok());
        assert!(matches!(StreamId::new("a".repeat(256)), Err(InvalidName::TooLong { bytes: 256, .. })));
        assert!(matches!(StreamId::new("a\nb"), Err(InvalidName::ControlCharacter { character: '\n', .. })));
        assert!(StreamId::new("zürich-☃").is_ok());
    }

    #[test]
    fn a_name_that_is_read_back_is_checked() {
        let id: StreamId = serde_json::from_str(r#""account-alice""#).unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), r#""account-alice""#);
        assert!(serde_json::from_str::<StreamId>(r#""""#).is_err());
    }

    #[test]
    fn a_category_ends_at_the_first_dash() {
        assert_eq!(StreamId::new("a-b-c").unwrap().category(), "a");
        assert_eq!(StreamId::new("plain").unwrap().category(), "plain");
        assert_eq!(StreamId::new("-x").unwrap().category(), "");
    }
}
