//! Small named values with compare-and-set.

use bytes::Bytes;

use super::error::CellError;
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

/// One cell that an append sets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CellWrite {
    /// Its key.
    pub key: CellKey,
    /// The revision that the caller expects it to be at; 0 for a cell that does not exist.
    pub expected: u64,
    /// The new value; [`None`] to remove the cell.
    pub value: Option<Bytes>,
}

impl CellWrite {
    /// Creates a request to set a cell.
    pub fn new(key: CellKey, expected: u64, value: Option<Bytes>) -> Self {
        Self { key, expected, value }
    }

    /// The bytes of its key and value.
    pub fn bytes(&self) -> usize {
        self.key.as_str().len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// What has to be known about a cell to set it.
///
/// ```
/// use es_framework::engine::CellFacts;
///
/// let removed = CellFacts::removed(7);
/// assert_eq!(removed.revision(), 0, "who sets it expects that it does not exist");
/// assert_eq!(removed.next(), 8, "and it never gets an old revision again");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CellFacts {
    /// How many times it was set, removals included.
    sets: u64,
    exists: bool,
}

impl CellFacts {
    /// A cell that was never set.
    pub fn missing() -> Self {
        Self::default()
    }

    /// A cell that exists, at this revision.
    pub fn existing(revision: u64) -> Self {
        Self { sets: revision, exists: true }
    }

    /// A cell that does not exist any more; it was removed as this revision.
    pub fn removed(revision: u64) -> Self {
        Self { sets: revision, exists: false }
    }

    /// Its revision; 0 if it does not exist.
    pub fn revision(self) -> u64 {
        if self.exists { self.sets } else { 0 }
    }

    /// The revision it gets when it is set.
    pub fn next(self) -> u64 {
        self.sets.saturating_add(1)
    }

    /// Returns the revision that it gets when it is set.
    ///
    /// # Errors
    ///
    /// [`CellError::Changed`] if it is not at the `expected` revision.
    pub fn set(self, key: &CellKey, expected: u64) -> Result<u64, CellError> {
        let actual = self.revision();
        if actual == expected {
            Ok(self.next())
        } else {
            Err(CellError::Changed { key: key.clone(), expected, actual })
        }
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
