//! Small named values with compare-and-set.

use bytes::Bytes;

use super::name::CellKey;

/// A small durable value with a revision, for leases, status and schedules.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cell {
    /// Its key.
    pub key: CellKey,
    /// How many times it was set, removals included: 1, 2, 3 …; a revision is never reused.
    pub revision: u64,
    /// The value.
    pub value: Bytes,
}

impl Cell {
    /// Creates a cell.
    pub fn new(key: CellKey, revision: u64, value: impl Into<Bytes>) -> Self {
        Self { key, revision, value: value.into() }
    }
}
