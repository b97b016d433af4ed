//! The checksum every event carries.

use super::event::EventType;
use super::id::{EventId, EventIdKind};
use super::name::StreamId;
use super::place::{Position, Version};
use super::time::Timestamp;

/// CRC-32C (Castagnoli, RFC 3720) over all fields of an event, in the order that `docs/file-format.md` gives.
///
/// A header of fixed size comes first (numbers, then lengths, little-endian), so that no two events share their bytes
/// and the many small fields cost one call.
#[expect(clippy::too_many_arguments, reason = "one argument a stored field")]
pub fn checksum(
    position: Position,
    stream: &StreamId,
    version: Version,
    time: Timestamp,
    event_type: &EventType,
    id: Option<&EventId>,
    metadata: Option<&str>,
    payload: &[u8],
) -> u32 {
    let (id_kind, id): (u8, &[u8]) = match id.map(EventId::kind) {
        None | Some(EventIdKind::Derived(..)) => (0, &[]),
        Some(EventIdKind::Uuid(bytes)) => (1, bytes),
        Some(EventIdKind::Text(text)) => (2, text.as_bytes()),
    };
    let flags = id_kind | if metadata.is_some() { 4 } else { 0 };
    let metadata = metadata.unwrap_or_default();
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);

    let mut header = Header::default();
    header.put(&position.get().to_le_bytes());
    header.put(&version.get().to_le_bytes());
    header.put(&time.as_micros().to_le_bytes());
    header.put(&event_type.schema_version().to_le_bytes());
    header.put(&[flags]);
    for part in [stream.as_str(), event_type.name(), event_type.codec()] {
        header.put(&length(part.len()).to_le_bytes());
    }
    for part in [id.len(), metadata.len(), payload.len()] {
        header.put(&length(part).to_le_bytes());
    }
    let mut crc = crc32c::crc32c(&header.bytes);
    for part in [stream.as_str(), event_type.name(), event_type.codec()] {
        crc = crc32c::crc32c_append(crc, part.as_bytes());
    }
    for part in [id, metadata.as_bytes(), payload] {
        if !part.is_empty() {
            crc = crc32c::crc32c_append(crc, part);
        }
    }
    crc
}

struct Header {
    bytes: [u8; 53],
    used: usize,
}

impl Default for Header {
    fn default() -> Self {
        Self { bytes: [0; 53], used: 0 }
    }
}

impl Header {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        self.bytes
            .get_mut(self.used..end)
            .expect("the header has room for its fields: 3 × 8 + 4 + 1 + 6 × 4 bytes")
            .copy_from_slice(bytes);
        self.used = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(position: u64, stream: &str, name: &str, id: Option<&str>, metadata: Option<&str>, payload: &[u8]) -> u32 {
        checksum(
            Position::new(position),
            &StreamId::new(stream).unwrap(),
            Version::new(1),
            Timestamp::from_micros(5),
            &EventType::new(name, 1, "raw").unwrap(),
            id.map(|id| EventId::text(id).unwrap()).as_ref(),
            metadata,
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

    /// The value is part of the file format: if this test fails, stored events can no longer be read.
    #[test]
    fn the_value_is_pinned() {
        assert_eq!(of(7, "account-alice", "account.opened", Some("cmd-1"), Some(r#"{"a":1}"#), b"payload"), PINNED);
    }

    const PINNED: u32 = 3_368_590_346;
}
