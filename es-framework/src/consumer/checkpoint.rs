//! How far a consumer has got, and how that is stored.

use bytes::Bytes;

use crate::log::{Mark, Position, StoreId};

/// How far a consumer has got, in which log, and under which term of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The store it reads.
    pub store: StoreId,
    /// The position of the last event it has processed.
    pub position: Position,
    /// The checksum of that event, which detects a log that was rewound.
    pub checksum: u32,
}

impl Checkpoint {
    /// Creates a checkpoint.
    pub fn new(store: StoreId, mark: Mark) -> Self {
        Self { store, position: mark.position, checksum: mark.checksum }
    }

    /// The position and checksum of its event.
    pub(crate) fn mark(&self) -> Mark {
        Mark { position: self.position, checksum: self.checksum }
    }
}

/// What is stored under a consumer's name as [`CheckpointRecord::KEY`], in the transaction that applies its events.
///
/// The encoding is one line of text of fixed width, so that SQL tools can take it apart: the format `1`, the store's id
/// in 32 hexadecimal digits, the position (20 decimal digits; 0 before the first event), the checksum of the event there
/// (10), the term of the lease (20; 0 without one), the number of events applied so far (20), and the CRC-32C of
/// everything before it (8 hexadecimal digits), separated by single spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointRecord {
    /// The store that the consumer reads.
    pub store: StoreId,
    /// The last event it has processed; position 0 before the first.
    pub mark: Mark,
    /// The term of the lease under which this was written; 0 without a lease.
    pub term: u64,
    /// The number of events applied so far.
    pub events: u64,
}

impl CheckpointRecord {
    /// The key of the record.
    pub const KEY: &'static str = "checkpoint";

    /// The record of a consumer that has processed nothing yet.
    pub fn new(store: StoreId) -> Self {
        Self { store, mark: Mark { position: Position::ZERO, checksum: 0 }, term: 0, events: 0 }
    }

    /// The record of a checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        Self { mark: checkpoint.mark(), ..Self::new(checkpoint.store) }
    }

    /// Sets the number of events applied so far.
    #[must_use]
    pub fn events(mut self, events: u64) -> Self {
        self.events = events;
        self
    }

    /// The checkpoint; [`None`] before the first event.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        (self.mark.position > Position::ZERO).then(|| Checkpoint::new(self.store, self.mark))
    }

    /// Encodes it.
    pub fn encode(&self) -> Bytes {
        let Self { store, mark: Mark { position, checksum }, term, events } = self;
        let store = u128::from_be_bytes(store.to_bytes());
        let line = format!("1 {store:032x} {:020} {checksum:010} {term:020} {events:020} ", position.get());
        let sum = crc32c::crc32c(line.as_bytes());
        Bytes::from(format!("{line}{sum:08x}"))
    }

    /// Decodes it; [`None`] if it is damaged, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (line, sum) = text.split_at_checked(text.len().checked_sub(8)?)?;
        if u32::from_str_radix(sum, 16).ok()? != crc32c::crc32c(line.as_bytes()) {
            return None;
        }
        let mut fields = line.split(' ');
        let ("1", store) = (fields.next()?, fields.next()?) else { return None };
        let store = StoreId::from_bytes(u128::from_str_radix(store, 16).ok()?.to_be_bytes());
        let position = Position::new(fields.next()?.parse().ok()?);
        let checksum = fields.next()?.parse().ok()?;
        let (term, events) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { store, mark: Mark { position, checksum }, term, events })
    }
}
