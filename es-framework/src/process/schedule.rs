//! When timeouts are due: cells in the order of time.

use serde::{Deserialize, Serialize};

use super::actions::OpenTimeout;
use super::error::ProcessError;
use crate::log::{
    Cell, CellError, CellKey, Fingerprint, InvalidName, ListCells, Store, StoreError, StreamId, Timestamp,
};

/// The timeouts of a process, over all its instances.
///
/// Each is a cell, written together with the step that sets it, and removed after the step that handles it is finished.
/// The key is `process/<name>/timeout/<time>/<fingerprint>`, with the time in 20 digits, so that cells are listed in the
/// order in which they are due. A cell only says where to look: whether the timeout is open is said by the instance's
/// newest step.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    store: Store,
    prefix: String,
}

/// A timeout in the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: CellKey,
    revision: u64,
    pub(super) timeout: Scheduled,
}

/// The content of its cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scheduled {
    pub(super) stream: StreamId,
    pub(super) name: String,
    pub(super) due: i64,
    pub(super) set: u64,
}

impl Scheduled {
    pub(super) fn due(&self) -> Timestamp {
        Timestamp::from_micros(self.due)
    }
}

impl Schedule {
    pub(super) fn new(store: Store, process: &str) -> Result<Self, InvalidName> {
        let schedule = Self { store, prefix: format!("process/{process}/timeout/") };
        // A name that is too long is found here, and not when the first timeout is set.
        schedule.key_of(&Scheduled { stream: StreamId::all(), name: String::new(), due: 0, set: 0 })?;
        Ok(schedule)
    }

    /// The cell of a timeout.
    pub(super) fn cell(
        &self,
        stream: &StreamId,
        name: &str,
        open: OpenTimeout,
    ) -> Result<(CellKey, Vec<u8>), ProcessError> {
        let OpenTimeout { due, set } = open;
        let scheduled = Scheduled { stream: stream.clone(), name: name.to_owned(), due, set };
        let value =
            serde_json::to_vec(&scheduled).map_err(|source| crate::log::InvalidMetadata::NotSerializable { source })?;
        Ok((self.key_of(&scheduled)?, value))
    }

    fn key_of(&self, scheduled: &Scheduled) -> Result<CellKey, InvalidName> {
        let Scheduled { stream, name, due, set } = scheduled;
        // In the order of time, whatever its sign.
        let time = due.cast_unsigned() ^ (1 << 63);
        let id = Fingerprint::of(format!("{stream}\0{name}\0{set}").as_bytes());
        CellKey::new(format!("{}{time:020}/{id}", self.prefix))
    }

    /// The next timeouts, in the order in which they are due.
    pub(super) async fn list(&self, after: Option<CellKey>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut list = ListCells::new().prefix(&self.prefix).limit(limit);
        list.after = after;
        let cells = self.store.cells(list).await?;
        let entry = |Cell { key, revision, value, .. }: Cell| match serde_json::from_slice(&value) {
            Ok(timeout) => Ok(Entry { key, revision, timeout }),
            Err(error) => {
                let reason = format!("the cell {key} is not a timeout: {error}");
                Err(StoreError::Corrupt { position: None, reason })
            }
        };
        cells.into_iter().map(entry).collect()
    }

    /// Removes a timeout that was handled or cancelled.
    pub(super) async fn remove(&self, entry: &Entry) -> Result<(), StoreError> {
        match self.store.set_cell(&entry.key, entry.revision, None).await {
            // Another owner has removed it.
            Ok(_) | Err(CellError::Changed { .. }) => Ok(()),
            Err(CellError::Store(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::MemoryStore;

    #[test]
    fn cells_sort_by_time_even_before_1970() {
        let schedule = Schedule::new(MemoryStore::new().into(), "transfer").unwrap();
        let key = |due| {
            let stream = StreamId::new("transfer-17").unwrap();
            schedule.key_of(&Scheduled { stream, name: "late".into(), due, set: 1 }).unwrap()
        };
        let times = [i64::MIN, -1, 0, 1, 1_700_000_000_000_000, i64::MAX];
        assert!(times.map(key).is_sorted());
        assert!(Schedule::new(MemoryStore::new().into(), &"x".repeat(200)).is_err());
    }
}
