//! Tags: what an event is about, beside its stream.

use std::fmt;
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::name::{InvalidName, check_name};

/// The maximum number of tags of one event.
pub const MAX_TAGS: usize = 32;

/// What an event is about, as a text `name:value`, for example `course:db-101`. Cheap to clone.
///
/// 3 to 255 bytes of UTF-8 without U+0000–U+001F. The name ends at the first `:`, so the value may contain more of
/// them; neither is empty. Tags compare as bytes, and a tag that begins with another is a different tag.
///
/// ```
/// use es_framework::Tag;
///
/// let tag = Tag::new("course:db-101")?;
/// assert_eq!((tag.name(), tag.value()), ("course", "db-101"));
/// assert_eq!(tag, Tag::of("course", "db-101")?);
/// assert_eq!(Tag::of("at", "12:30")?.value(), "12:30");
/// assert!(Tag::new("course").is_err());
/// # Ok::<(), es_framework::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    /// Creates a tag from its text.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the text is not `name:value` with both parts non-empty, is over 255 bytes, or has a character
    /// below U+0020.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidName> {
        let text = text.into();
        check_name("tag", &text)?;
        match text.split_once(':') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(Self(text)),
            _ => Err(InvalidName::NotATag { text: text.as_ref().to_owned() }),
        }
    }

    /// Creates a tag from a name and a value.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`]; also if the name contains a `:`, because it would be read back as another name.
    pub fn of(name: &str, value: impl fmt::Display) -> Result<Self, InvalidName> {
        let text = format!("{name}:{value}");
        if name.contains(':') {
            return Err(InvalidName::NotATag { text });
        }
        Self::new(text)
    }

    /// The part before the first `:`.
    pub fn name(&self) -> &str {
        self.parts().0
    }

    /// The part after the first `:`.
    pub fn value(&self) -> &str {
        self.parts().1
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or_default()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Tag {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Tag {
    type Error = InvalidName;
    fn try_from(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl TryFrom<String> for Tag {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl From<&Self> for Tag {
    fn from(tag: &Self) -> Self {
        tag.clone()
    }
}

impl PartialEq<str> for Tag {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Tag {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

/// Serializes as its text.
impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The tags of one event, in the order in which they were given; a slice of [`Tag`]. Cheap to clone, and no allocation
/// if there are none.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Tags(
    /// Never an empty list.
    Option<Arc<[Tag]>>,
);

impl Tags {
    /// No tags.
    pub const fn new() -> Self {
        Self(None)
    }

    /// The tags.
    pub fn as_slice(&self) -> &[Tag] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The bytes of their texts.
    pub fn bytes(&self) -> usize {
        // Without this test, an event without tags would pay for the loop.
        if self.0.is_none() { 0 } else { self.iter().map(|tag| tag.as_str().len()).sum() }
    }
}

impl Deref for Tags {
    type Target = [Tag];

    fn deref(&self) -> &[Tag] {
        self.as_slice()
    }
}

impl FromIterator<Tag> for Tags {
    fn from_iter<I: IntoIterator<Item = Tag>>(tags: I) -> Self {
        let mut tags = tags.into_iter().peekable();
        Self(tags.peek().is_some().then(|| tags.collect()))
    }
}

impl<'a> IntoIterator for &'a Tags {
    type Item = &'a Tag;
    type IntoIter = slice::Iter<'a, Tag>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq<[Tag]> for Tags {
    fn eq(&self, other: &[Tag]) -> bool {
        self.as_slice() == other
    }
}

impl<const N: usize> PartialEq<[Tag; N]> for Tags {
    fn eq(&self, other: &[Tag; N]) -> bool {
        self.as_slice() == other
    }
}

impl<const N: usize> PartialEq<[&str; N]> for Tags {
    fn eq(&self, other: &[&str; N]) -> bool {
        self.as_slice() == other
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_a_name_and_a_value() {
        for text in ["", ":", "a", "a:", ":b", "a\n:b", &"a:b".repeat(100)] {
            assert!(Tag::new(text).is_err(), "{text:?}");
        }
        assert!(matches!(Tag::new("course"), Err(InvalidName::NotATag { .. })));
        let longest = format!("a:{}", "ü".repeat(126) + "b");
        assert_eq!(longest.len(), 255);
        assert_eq!(Tag::new(longest.as_str()).unwrap().as_str(), longest);
        assert!(matches!(Tag::new(longest + "b"), Err(InvalidName::TooLong { bytes: 256, .. })));
        for name in ["", "a:b", "a\u{1f}"] {
            assert!(Tag::of(name, 1).is_err(), "{name:?}");
        }
        assert_eq!(Tag::of("seat", 12).unwrap(), "seat:12");
        assert!(Tag::of("seat", "").is_err());
    }

    #[test]
    fn no_tags_need_no_allocation() {
        assert!(Tags::from_iter([]).0.is_none());
        assert_eq!(Tags::from_iter([]), Tags::new());
        assert_eq!(Tags::new().bytes(), 0);
        let tags = Tags::from_iter([Tag::new("b:1").unwrap(), Tag::new("a:22").unwrap()]);
        assert_eq!(tags, ["b:1", "a:22"]);
        assert_eq!(tags.bytes(), 7);
    }
}
