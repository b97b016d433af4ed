//! Events that were set aside, and those that queue behind them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::ModelError;
use super::failure::{Category, Failure};
use super::sealed;
use super::work::Write;
use crate::log::{Mark, Position, Timestamp};

/// An event that was set aside: it could not be processed, or queues behind one with the same key that could not.
///
/// Its content is not copied. The log is the only copy and never changes an event, so that position and checksum are
/// enough to find it again and to be sure that it is the same, whether or not it can be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedEvent {
    /// What its order is kept within: its stream, unless the policy has another key.
    pub key: String,
    /// Its position.
    pub position: Position,
    /// Its checksum.
    pub checksum: u32,
    /// Why it could not be processed; [`None`] if it queues behind another.
    pub failure: Option<ParkedFailure>,
    /// When it was set aside, by the store's clock.
    pub parked: Timestamp,
}

/// Why an event could not be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedFailure {
    /// What failed.
    pub category: Category,
    /// The text of the last error with its causes, joined by `: `; at most 2,000 bytes.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it failed first.
    pub first: Timestamp,
    /// When it failed last.
    pub last: Timestamp,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    key: String,
    position: u64,
    checksum: u32,
    parked: i64,
    failure: Option<StoredFailure>,
}

#[derive(Serialize, Deserialize)]
struct StoredFailure {
    category: String,
    error: String,
    attempts: u32,
    first: i64,
    last: i64,
}

/// The beginning of the keys of the records of parked events.
pub(crate) const PARKED: &str = "parked/";
/// The beginning of the keys of the records of parked events that were dropped.
pub(crate) const DROPPED: &str = "dropped/";

impl ParkedEvent {
    pub(super) fn new(key: String, mark: Mark, failure: Option<ParkedFailure>, now: Timestamp) -> Self {
        Self { key, position: mark.position, checksum: mark.checksum, failure, parked: now }
    }

    /// The key of its record: `parked/` and the position in 20 digits.
    pub fn record_key(&self) -> String {
        format!("{PARKED}{:020}", self.position.get())
    }

    /// Encodes its record: a CRC-32C in 8 hexadecimal digits, a space, and a JSON object.
    pub(crate) fn encode(&self) -> Bytes {
        sealed::seal(&self.stored())
    }

    fn stored(&self) -> Stored {
        let failure = self.failure.as_ref().map(|failure| StoredFailure {
            category: failure.category.as_str().to_owned(),
            error: failure.error.clone(),
            attempts: failure.attempts,
            first: failure.first.as_micros(),
            last: failure.last.as_micros(),
        });
        let (position, parked) = (self.position.get(), self.parked.as_micros());
        Stored { key: self.key.clone(), position, checksum: self.checksum, parked, failure }
    }

    /// Decodes its record; [`None`] if it is damaged, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = sealed::open(bytes)?;
        let failure = match stored.failure {
            None => None,
            Some(StoredFailure { category, error, attempts, first, last }) => {
                let category = Category::ALL.into_iter().find(|known| known.as_str() == category)?;
                let (first, last) = (Timestamp::from_micros(first), Timestamp::from_micros(last));
                Some(ParkedFailure { category, error, attempts, first, last })
            }
        };
        let (position, parked) = (Position::new(stored.position), Timestamp::from_micros(stored.parked));
        Some(Self { key: stored.key, position, checksum: stored.checksum, failure, parked })
    }

    /// What to write to drop it: its record goes, and another says who dropped it and why.
    pub(super) fn dropped(&self, who: &str, why: &str, now: Timestamp) -> [Write; 2] {
        #[derive(Serialize)]
        struct Dropped<'a> {
            who: &'a str,
            why: &'a str,
            time: i64,
            event: Stored,
        }
        let dropped = Dropped { who, why, time: now.as_micros(), event: self.stored() };
        let kept = sealed::seal(&dropped);
        [self.removed(), Write::now(format!("{DROPPED}{:020}", self.position.get()), Some(kept))]
    }

    /// What to write to park it, or to change what is known of it.
    pub(super) fn written(&self) -> Write {
        Write { at: self.position, key: self.record_key(), value: Some(self.encode()) }
    }

    pub(super) fn removed(&self) -> Write {
        Write::now(self.record_key(), None)
    }
}

impl ParkedFailure {
    /// A failure of an event that failed first at this time.
    pub(super) fn of(failure: &Failure, first: Timestamp) -> Self {
        let Failure { category, error, attempts, time, .. } = failure;
        Self { category: *category, error: error.to_string(), attempts: *attempts, first, last: *time }
    }
}

/// All parked events of a consumer, by position.
#[derive(Debug, Default)]
pub(super) struct Parking {
    events: BTreeMap<Position, ParkedEvent>,
    /// How many there are of each key.
    keys: HashMap<String, usize>,
}

impl Parking {
    /// Those of these records.
    pub(super) fn of(records: Vec<(String, Bytes)>) -> Result<Self, ModelError> {
        let mut parking = Self::default();
        for (key, value) in records {
            let event = ParkedEvent::decode(&value).ok_or_else(|| ModelError::damaged(key))?;
            parking.add(event);
        }
        Ok(parking)
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn holds(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Adds an event, or replaces what is known of it.
    pub(super) fn add(&mut self, event: ParkedEvent) {
        let key = event.key.clone();
        if self.events.insert(event.position, event).is_none() {
            *self.keys.entry(key).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, position: Position) {
        let Some(event) = self.events.remove(&position) else { return };
        if let Some(count) = self.keys.get_mut(&event.key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&event.key);
            }
        }
    }

    /// Takes over a record that was written.
    pub(super) fn written(&mut self, write: &Write) {
        match &write.value {
            Some(value) if write.key.starts_with(PARKED) => {
                if let Some(event) = ParkedEvent::decode(value) {
                    self.add(event);
                }
            }
            None => {
                if let Some(position) = write.key.strip_prefix(PARKED).and_then(|digits| digits.parse().ok()) {
                    self.remove(Position::new(position));
                }
            }
            Some(_) => {}
        }
    }

    pub(super) fn get(&self, position: Position) -> Option<&ParkedEvent> {
        self.events.get(&position)
    }

    /// The events of a key, or all of them, in order.
    pub(super) fn list(&self, key: Option<&str>) -> Vec<ParkedEvent> {
        self.events.values().filter(|event| key.is_none_or(|key| event.key == key)).cloned().collect()
    }
}
