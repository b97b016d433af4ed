//! The ids of stores and events.

use std::fmt;
use std::sync::Arc;

use super::name::{InvalidName, check_name};
use super::position::Position;

/// The random id of a store, generated when the store is created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// Generates a random id.
    ///
    /// # Panics
    ///
    /// If the operating system cannot provide random bytes.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
        Self::from_bytes(bytes)
    }

    /// Creates an id from 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id as 16 bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of an event, unique in its stream: a UUID or a text of up to 255 bytes.
///
/// Ids compare as bytes, and the canonical lower-case text of a UUID is that UUID. An event written without an id is
/// read with one derived from the store's id and its position, shown as `@<store>-<position>`; callers cannot write ids
/// that begin with `@`.
///
/// ```
/// use es_framework::EventId;
///
/// let text = EventId::text("67e55044-10b1-426f-9247-bb680e5fe0c8")?;
/// assert_eq!(text, EventId::uuid(0x67e5504410b1426f9247bb680e5fe0c8_u128.to_be_bytes()));
/// assert!(EventId::text("@mine").is_err());
/// # Ok::<(), es_framework::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Uuid([u8; 16]),
    Text(Arc<str>),
    Derived(StoreId, Position),
}

/// The kind of an id, for engines that store the kinds differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventIdKind<'a> {
    /// A UUID, as its 16 bytes.
    Uuid(&'a [u8; 16]),
    /// A text that is not the canonical form of a UUID.
    Text(&'a str),
    /// Derived from the store's id and the position, because the event was written without an id.
    Derived(StoreId, Position),
}

impl EventId {
    /// Creates an id from a UUID.
    pub const fn uuid(bytes: [u8; 16]) -> Self {
        Self(Repr::Uuid(bytes))
    }

    /// Creates an id from a text; the canonical lower-case text of a UUID becomes that UUID.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] for an empty text, one over 255 bytes, one with a character below U+0020, and one that begins
    /// with `@`.
    pub fn text(text: impl AsRef<str>) -> Result<Self, InvalidName> {
        let text = text.as_ref();
        check_name("event id", text)?;
        if text.starts_with('@') {
            return Err(InvalidName::Reserved { what: "event id", text: text.to_owned() });
        }
        Ok(Self(parse_uuid(text).map_or_else(|| Repr::Text(text.into()), Repr::Uuid)))
    }

    /// Generates a random UUID that starts with the time in milliseconds, so that an index over ids grows at its end
    /// (RFC 9562, version 7).
    ///
    /// # Panics
    ///
    /// If the operating system cannot provide random bytes.
    pub fn time_ordered(now: super::Timestamp) -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
        let millis = now.as_micros().max(0).unsigned_abs() / 1000;
        let [_, _, time @ ..] = millis.to_be_bytes();
        let [t0, t1, t2, t3, t4, t5, version, _, variant, ..] = &mut bytes;
        for (to, from) in [t0, t1, t2, t3, t4, t5].into_iter().zip(time) {
            *to = from;
        }
        *version = (*version & 0x0f) | 0x70;
        *variant = (*variant & 0x3f) | 0x80;
        Self::uuid(bytes)
    }

    /// The id of an event that was written without one.
    pub const fn derived(store: StoreId, position: Position) -> Self {
        Self(Repr::Derived(store, position))
    }

    /// The kind of the id.
    pub fn kind(&self) -> EventIdKind<'_> {
        match &self.0 {
            Repr::Uuid(bytes) => EventIdKind::Uuid(bytes),
            Repr::Text(text) => EventIdKind::Text(text),
            Repr::Derived(store, position) => EventIdKind::Derived(*store, *position),
        }
    }

    /// Whether the event was written without an id.
    pub fn is_derived(&self) -> bool {
        matches!(self.0, Repr::Derived(..))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Uuid(bytes) => {
                for (i, byte) in bytes.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
            Repr::Text(text) => f.write_str(text),
            Repr::Derived(store, position) => write!(f, "@{store}-{position}"),
        }
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl TryFrom<&str> for EventId {
    type Error = InvalidName;
    fn try_from(text: &str) -> Result<Self, InvalidName> {
        Self::text(text)
    }
}

impl TryFrom<String> for EventId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::text(text)
    }
}

/// Parses a UUID in canonical lower-case text, and nothing else.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let mut bytes = [0; 16];
    let mut nibbles = 0;
    for (i, character) in text.bytes().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            if character != b'-' {
                return None;
            }
            continue;
        }
        let nibble = match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'f' => character - b'a' + 10,
            _ => return None,
        };
        *bytes.get_mut(nibbles / 2)? |= if nibbles % 2 == 0 { nibble << 4 } else { nibble };
        nibbles += 1;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_uuid_text_equals_the_uuid_and_no_other_spelling_does() {
        let text = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let id = EventId::text(text).unwrap();
        assert!(matches!(id.kind(), EventIdKind::Uuid(_)));
        assert_eq!(id.to_string(), text);
        let upper = EventId::text(text.to_uppercase()).unwrap();
        assert!(matches!(upper.kind(), EventIdKind::Text(_)));
        assert_ne!(id, upper);
        assert!(matches!(EventId::text(format!("{text} ")).unwrap().kind(), EventIdKind::Text(_)));
        assert!(matches!(EventId::text("é".repeat(18)).unwrap().kind(), EventIdKind::Text(_)));
    }

    #[test]
    fn a_time_ordered_id_is_a_version_7_uuid() {
        let time = super::super::Timestamp::from_micros(1_645_557_742_000_000);
        let id = EventId::time_ordered(time).to_string();
        assert!(id.starts_with("017f22e2-79b0-7"), "{id}");
        assert_ne!(EventId::time_ordered(time), EventId::time_ordered(time));
    }
}
