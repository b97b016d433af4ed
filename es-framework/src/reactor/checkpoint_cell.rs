//! Where a reactor's checkpoint is: a cell of the log.

use bytes::Bytes;

use crate::consumer::{Checkpoint, CheckpointRecord, ModelError, RunError, Trouble, position_of};
use crate::log::{CellError, CellKey, ProjectionName, Store};

/// The cell `reactor/<name>/checkpoint`, and its revision as this owner knows it. It is only set at that revision, so of
/// two owners one loses.
#[derive(Debug)]
pub(super) struct CheckpointCell {
    store: Store,
    name: ProjectionName,
    key: CellKey,
    revision: u64,
    record: CheckpointRecord,
}

impl CheckpointCell {
    pub(super) fn new(store: Store, name: ProjectionName) -> Result<Self, RunError> {
        let key = CellKey::new(format!("reactor/{name}/{}", CheckpointRecord::KEY))?;
        let record = CheckpointRecord::new(store.id());
        Ok(Self { store, name, key, revision: 0, record })
    }

    /// Reads the cell.
    pub(super) async fn read(&mut self) -> Result<CheckpointRecord, Trouble> {
        let cell = self.store.cell(&self.key).await.map_err(|error| Trouble::of(error.into()))?;
        (self.revision, self.record) = match cell {
            None => (0, CheckpointRecord::new(self.store.id())),
            Some(cell) => (cell.revision, decode(&cell.value)?),
        };
        Ok(self.record)
    }

    /// Moves the checkpoint behind `events` more events.
    pub(super) async fn move_to(&mut self, to: Checkpoint, events: u64) -> Result<(), Trouble> {
        let record = CheckpointRecord { term: self.record.term, ..CheckpointRecord::of(&to) };
        let record = record.events(self.record.events + events);
        let bytes = record.encode();
        match self.store.set_cell(&self.key, self.revision, Some(bytes.clone())).await {
            Ok(revision) => {
                (self.revision, self.record) = (revision, record);
                Ok(())
            }
            Err(CellError::Changed { .. }) => self.compare(&bytes).await,
            Err(CellError::Store(error)) => Err(Trouble::of(error.into())),
        }
    }

    /// Somebody set the cell: another owner, or this one, without having learned of it.
    async fn compare(&mut self, wanted: &Bytes) -> Result<(), Trouble> {
        let expected = position_of(self.record.checkpoint().as_ref());
        let cell = self.store.cell(&self.key).await.map_err(|error| Trouble::of(error.into()))?;
        let Some(cell) = cell else {
            return Err(self.taken_over(expected, CheckpointRecord::new(self.store.id())));
        };
        let found = decode(&cell.value)?;
        if cell.value == *wanted && cell.revision == self.revision + 1 {
            (self.revision, self.record) = (cell.revision, found);
            return Ok(());
        }
        Err(self.taken_over(expected, found))
    }

    fn taken_over(&self, expected: crate::log::Position, found: CheckpointRecord) -> Trouble {
        let found = position_of(found.checkpoint().as_ref());
        Trouble::Final(ModelError::TakenOver { name: self.name.clone(), expected, found }.into())
    }
}

fn decode(bytes: &[u8]) -> Result<CheckpointRecord, Trouble> {
    CheckpointRecord::decode(bytes).ok_or_else(|| Trouble::Final(ModelError::damaged(CheckpointRecord::KEY).into()))
}
