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

/// A request for a page of the list of cells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListCells {
    /// Only cells whose keys begin with this text.
    pub prefix: String,
    /// Only cells whose keys come after this one.
    pub after: Option<CellKey>,
    /// The maximum number of cells; 1,000 by default.
    pub limit: usize,
}

impl Default for ListCells {
    fn default() -> Self {
        Self { prefix: String::new(), after: None, limit: 1_000 }
    }
}

impl ListCells {
    /// Requests the first page of all cells.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only cells whose keys begin with this text.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Only cells whose keys come after this one, the last of the previous page.
    #[must_use]
    pub fn after(mut self, key: CellKey) -> Self {
        self.after = Some(key);
        self
    }

    /// Sets the maximum number of cells.
    #[must_use]
    pub fn limit(mut self, cells: usize) -> Self {
        self.limit = cells;
        self
    }
}
