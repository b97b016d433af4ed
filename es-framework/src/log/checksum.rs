//! The checksum that every event carries.

use super::event::EventType;
use super::id::{EventId, EventIdKind};
use super::name::StreamId;
use super::position::{Position, Version};
use super::tag::Tag;
use super::time::Timestamp;

/// CRC-32C (Castagnoli, RFC 3720) over all fields of an event, in the order given in `docs/file-format.md`.
///
/// A fixed-size header comes first (numbers, then lengths, little-endian), so that no two events have the same bytes
/// and the many small fields cost one call. Tags come last and only if there are any, so an event without tags has the
/// checksum that it had before there were tags.
#[expect(clippy::too_many_arguments, reason = "one argument a stored field")]
pub fn checksum(
    position: Position,
    stream: &StreamId,
    version: Version,
    time: Timestamp,
    event_type: &EventType,
    id: Option<&EventId>,
    metadata: Option<&str>,
    tags: &[Tag],
    payload: &[u8],
) -> u32 {
    let (id_kind, id): (u8, &[u8]) = match id.map(EventId::kind) {
        None | Some(EventIdKind::Derived(..)) => (0, &[]),
        Some(EventIdKind::Uuid(bytes)) => (1, bytes),
        Some(EventIdKind::Text(text)) => (2, text.as_bytes()),
    };
    let flags = id_kind | if metadata.is_some() { 4 } else { 0 } | if tags.is_empty() { 0 } else { 8 };
    let metadata = metadata.unwrap_or_default();
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);

    let parts = [
        stream.as_str().as_bytes(),
        event_type.name().as_bytes(),
        event_type.codec().as_bytes(),
        id,
        metadata.as_bytes(),
        payload,
    ];
    let mut sum = Sum::default();
    sum.put_number(position.get().to_le_bytes());
    sum.put_number(version.get().to_le_bytes());
    sum.put_number(time.as_micros().to_le_bytes());
    sum.put_number(event_type.schema_version().to_le_bytes());
    sum.put_number([flags]);
    for part in parts {
        sum.put_number(length(part.len()).to_le_bytes());
    }
    for part in parts {
        sum.put(part);
    }
    if !tags.is_empty() {
        sum.put(&length(tags.len()).to_le_bytes());
        for tag in tags {
            sum.put(&length(tag.as_str().len()).to_le_bytes());
            sum.put(tag.as_str().as_bytes());
        }
    }
    sum.finish()
}

/// Collects small parts before they are hashed: a call costs more than the bytes of a short part, and one event has
/// seventeen of them.
struct Sum {
    crc: u32,
    gathered: [u8; 256],
    used: usize,
}

impl Default for Sum {
    fn default() -> Self {
        Self { crc: 0, gathered: [0; 256], used: 0 }
    }
}

impl Sum {
    /// The compiler knows the size, and numbers come first, so there is always room.
    #[inline]
    fn put_number<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(room) = self.gathered.get_mut(self.used..).and_then(|rest| rest.first_chunk_mut()) {
            *room = bytes;
            self.used += N;
        }
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        if let Some(room) = self.gathered.get_mut(self.used..end) {
            room.copy_from_slice(bytes);
            self.used = end;
        } else {
            self.crc = crc32c::crc32c_append(self.finish(), bytes);
            self.used = 0;
        }
    }

    fn finish(&self) -> u32 {
        crc32c::crc32c_append(self.crc, self.gathered.get(..self.used).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(position: u64, stream: &str, name: &str, id: Option<&str>, metadata: Option<&str>, payload: &[u8]) -> u32 {
        tagged(position, stream, name, id, metadata, &[], payload)
    }

    fn tagged(
        position: u64,
        stream: &str,
        name: &str,
        id: Option<&str>,
        metadata: Option<&str>,
        tags: &[&str],
        payload: &[u8],
    ) -> u32 {
        let tags: Vec<Tag> = tags.iter().map(|tag| Tag::new(*tag).unwrap()).collect();
        checksum(
            Position::new(position),
            &StreamId::new(stream).unwrap(),
            Version::new(1),
            Timestamp::from_micros(5),
            &EventType::new(name, 1, "raw").unwrap(),
            id.map(|id| EventId::text(id).unwrap()).as_ref(),
            metadata,
            &tags,
            payload,
        )
    }

    #[test]
    fn every_field_counts() {
        let base = of(1, "s", "t", None, None, b"");
        for other in [
            of(2, "s", "t", None, None, b""),
            of(1, "r", "t", None, None, b""),
            of(1, "st", "t", None, None, b""),
            of(1, "s", "u", None, None, b""),
            of(1, "s", "t", Some("i"), None, b""),
            of(1, "s", "t", None, Some("{}"), b""),
            of(1, "s", "t", None, Some(""), b""),
            of(1, "s", "t", None, None, b"p"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn tags_count_each_for_itself_and_in_their_order() {
        let with = |tags: &[&str]| tagged(1, "s", "t", None, None, tags, b"p");
        let mut sums = vec![
            of(1, "s", "t", None, None, b"p"),
            with(&["a:1"]),
            with(&["a:2"]),
            with(&["a:1", "b:1"]),
            with(&["b:1", "a:1"]),
            with(&["a:1b", "b:1"]),
            with(&["a:1", "a:1b:1"]),
            with(&["a:1", "a:1"]),
            tagged(1, "s", "t", None, None, &["a:1"], b"pa:1"),
        ];
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), 9);
    }

    #[test]
    fn long_parts_are_summed_up_like_short_ones() {
        for length in [0, 1, 150, 170, 200, 300, 5_000] {
            let payload = vec![7; length];
            let mut sum = Sum::default();
            let mut all = Vec::new();
            for part in [&b"head"[..], &payload, b"", &payload, b"tail"] {
                sum.put(part);
                all.extend(part);
            }
            assert_eq!(sum.finish(), crc32c::crc32c(&all), "{length}");
        }
    }

    /// The value is part of the file format: if this test fails, stored events can no longer be read.
    #[test]
    fn the_value_is_pinned() {
        assert_eq!(of(7, "account-alice", "account.opened", Some("cmd-1"), Some(r#"{"a":1}"#), b"payload"), PINNED);
    }

    const PINNED: u32 = 3_368_590_346;

    /// See above.
    #[test]
    fn the_value_with_tags_is_pinned() {
        let long = "note:".to_owned() + &"x".repeat(250);
        let tags = ["account:alice", &long, "größe:☃"];
        let sum = tagged(7, "account-alice", "account.opened", Some("cmd-1"), Some(r#"{"a":1}"#), &tags, b"payload");
        assert_eq!(sum, PINNED_WITH_TAGS);
    }

    const PINNED_WITH_TAGS: u32 = 2_769_613_326;
}
