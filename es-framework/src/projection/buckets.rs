//! Partitions: which of them an event belongs to, and how far each part of the keys has got.

use std::collections::BTreeMap;

use super::model::ReadModel;
use super::projector::Projector;
use super::work::{Tx, find};
use crate::consumer::{Checkpoint, CheckpointRecord, ModelError};
use crate::log::{Position, ProjectionName, StoreId};

/// The number of buckets that keys are spread over, and so the maximum number of partitions. It never changes: what is
/// stored is how far each bucket has got, so that any number of partitions can share them.
pub(super) const BUCKETS: u32 = 32;

/// The beginning of the keys of the records of buckets, which end with the number in two digits.
pub(super) const BUCKET: &str = "bucket/";

/// One of so many partitions; it has every bucket whose number leaves its index as the remainder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) index: u32,
    pub(super) of: u32,
}

impl Part {
    /// All buckets.
    pub(super) const WHOLE: Self = Self { index: 0, of: 1 };

    pub(super) fn has(self, bucket: u32) -> bool {
        bucket % self.of == self.index
    }
}

/// The bucket of a key: its CRC-32C, modulo their number.
pub(super) fn bucket_of(key: &str) -> u32 {
    crc32c::crc32c(key.as_bytes()) % BUCKETS
}

/// How far the buckets of a partition have got.
pub(super) type Buckets = BTreeMap<u32, CheckpointRecord>;

/// What is stored of how far a consumer has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// As a whole; [`None`] if it has never run.
    Whole(Option<CheckpointRecord>),
    /// Bucket by bucket, since it was partitioned for the first time.
    Buckets(Buckets),
}

impl Progress {
    /// What is stored of a partition's buckets.
    pub(super) fn find<P: Projector>(
        tx: &mut Tx<'_, P>,
        name: &ProjectionName,
        part: Part,
    ) -> Result<Self, ModelError> {
        let records = P::Model::list(tx, name, BUCKET)?;
        if records.is_empty() {
            return find::<P>(tx, name).map(Self::Whole);
        }
        let mut buckets = Buckets::new();
        for (key, value) in records {
            let bucket = key.strip_prefix(BUCKET).and_then(|digits| digits.parse::<u32>().ok());
            let (Some(bucket), Some(record)) = (bucket, CheckpointRecord::decode(&value)) else {
                return Err(ModelError::damaged(key));
            };
            if part.has(bucket) {
                buckets.insert(bucket, record);
            }
        }
        Ok(Self::Buckets(buckets))
    }

    /// Divides what was stored as a whole into buckets, and returns those of the partition.
    pub(super) fn split<P: Projector>(
        self,
        tx: &mut Tx<'_, P>,
        name: &ProjectionName,
        part: Part,
        store: StoreId,
    ) -> Result<Self, ModelError> {
        let Self::Whole(record) = self else { return Ok(self) };
        let record = record.unwrap_or_else(|| CheckpointRecord::new(store));
        let mut buckets = Buckets::new();
        for bucket in 0..BUCKETS {
            // The events so far are counted once.
            let record = record.events(if bucket == 0 { record.events } else { 0 });
            put::<P>(tx, name, bucket, &record)?;
            if part.has(bucket) {
                buckets.insert(bucket, record);
            }
        }
        P::Model::delete(tx, name, CheckpointRecord::KEY)?;
        Ok(Self::Buckets(buckets))
    }

    /// Puts buckets that are all at the same place together again, as what is stored as a whole.
    pub(super) fn join<P: Projector>(self, tx: &mut Tx<'_, P>, name: &ProjectionName) -> Result<Self, ModelError> {
        let Self::Buckets(buckets) = &self else { return Ok(self) };
        let mut marks = buckets.values().map(|record| record.mark);
        let first = marks.next();
        if marks.any(|mark| Some(mark) != first) {
            return Ok(self);
        }
        for bucket in buckets.keys() {
            P::Model::delete(tx, name, &key_of(*bucket))?;
        }
        let record = self.record();
        if let Some(record) = &record {
            P::Model::put(tx, name, CheckpointRecord::KEY, &record.encode())?;
        }
        Ok(Self::Whole(record))
    }

    /// The checkpoint up to which all events are applied, with the highest of the terms; [`None`] if the consumer has
    /// never run.
    pub(super) fn record(&self) -> Option<CheckpointRecord> {
        match self {
            Self::Whole(record) => *record,
            Self::Buckets(buckets) => {
                let term = buckets.values().map(|record| record.term).max()?;
                let events = buckets.values().map(|record| record.events).sum();
                let least = buckets.values().min_by_key(|record| record.mark.position)?;
                let furthest = buckets.values().map(|record| record.mark.position).max()?;
                (furthest > Position::ZERO).then(|| CheckpointRecord { term, ..*least }.events(events))
            }
        }
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        self.record().and_then(|record| record.checkpoint())
    }

    pub(super) fn term(&self) -> u64 {
        match self {
            Self::Whole(record) => record.map_or(0, |record| record.term),
            Self::Buckets(buckets) => buckets.values().map(|record| record.term).max().unwrap_or(0),
        }
    }

    /// The position beyond which no event is applied.
    pub(super) fn furthest(&self) -> Position {
        match self {
            Self::Whole(record) => record.map_or(Position::ZERO, |record| record.mark.position),
            Self::Buckets(buckets) => buckets.values().map(|record| record.mark.position).max().unwrap_or_default(),
        }
    }

    /// Writes the term of a lease, where a lower one stands.
    pub(super) fn claim<P: Projector>(
        self,
        tx: &mut Tx<'_, P>,
        name: &ProjectionName,
        store: StoreId,
        term: u64,
    ) -> Result<Self, ModelError> {
        Ok(match self {
            Self::Whole(record) if record.is_none_or(|record| record.term < term) => {
                let claimed = CheckpointRecord { term, ..record.unwrap_or_else(|| CheckpointRecord::new(store)) };
                P::Model::put(tx, name, CheckpointRecord::KEY, &claimed.encode())?;
                Self::Whole(Some(claimed))
            }
            Self::Buckets(mut buckets) => {
                for (bucket, record) in buckets.iter_mut().filter(|(_, record)| record.term < term) {
                    record.term = term;
                    put::<P>(tx, name, *bucket, record)?;
                }
                Self::Buckets(buckets)
            }
            whole @ Self::Whole(_) => whole,
        })
    }
}

pub(super) fn put<P: Projector>(
    tx: &mut Tx<'_, P>,
    name: &ProjectionName,
    bucket: u32,
    record: &CheckpointRecord,
) -> Result<(), ModelError> {
    P::Model::put(tx, name, &key_of(bucket), &record.encode())
}

fn key_of(bucket: u32) -> String {
    format!("{BUCKET}{bucket:02}")
}

/// The buckets after a step that has reached this checkpoint. A bucket that was further on stays where it is, unless the
/// checkpoint is moved on purpose.
pub(super) fn advanced(
    buckets: &Buckets,
    to: Option<Checkpoint>,
    store: StoreId,
    count: u64,
    is_moved: bool,
) -> Buckets {
    let end = to.map_or(Position::ZERO, |to| to.position);
    let mut buckets = buckets.clone();
    for record in buckets.values_mut() {
        if is_moved || record.mark.position < end {
            let place = to.map_or_else(|| CheckpointRecord::new(store), |to| CheckpointRecord::of(&to));
            *record = CheckpointRecord { term: record.term, ..place }.events(record.events);
        }
    }
    if let Some(mut first) = buckets.first_entry() {
        let record = *first.get();
        first.insert(record.events(record.events + count));
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored depends on it.
    #[test]
    fn the_bucket_of_a_key_never_changes() {
        let buckets: Vec<u32> = ["account-alice", "account-bob", "", "course-db-101"].map(bucket_of).into();
        assert_eq!(buckets, [26, 19, 0, 11]);
    }

    #[test]
    fn every_bucket_belongs_to_one_partition() {
        for of in 1..=BUCKETS {
            for bucket in 0..BUCKETS {
                assert_eq!((0..of).filter(|index| Part { index: *index, of }.has(bucket)).count(), 1);
            }
        }
    }
}
