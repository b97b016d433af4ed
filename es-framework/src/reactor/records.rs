//! Where a reactor keeps its checkpoint and its parked events: in cells of the log.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use crate::consumer::{
    ACKNOWLEDGED, Begun, Checkpoint, CheckpointRecord, ModelError, PARKED, RunError, Trouble, Write, position_of,
};
use crate::log::{
    Append, AppendError, Cell, CellKey, InvalidName, ListCells, MAX_CELLS, Position, ProjectionName, Store, StoreError,
};

/// The key of the record of [`Records::mark`]. It is there, too, if the reactor has run and its checkpoint is before the
/// first event.
const EFFECTS: &str = "effects";
/// The key of the record of [`Records::finished`].
const FINISHED: &str = "finished";
/// How often records are written again because one of them was at another revision, although the checkpoint was not.
const TRIES: u32 = 3;

/// The cells `consumer/<name>/record/<key>`.
///
/// Every write sets the cell of the checkpoint, at the revision that this owner knows. So of two owners one loses, whatever
/// it wanted to write. Up to 255 records are written in the same transaction. If there are more, the checkpoint is moved
/// with the last of them: an event that is parked and before the checkpoint is parked again, which changes nothing.
#[derive(Debug)]
pub(super) struct Records {
    store: Store,
    name: ProjectionName,
    checkpoint: CellKey,
    revision: u64,
    record: CheckpointRecord,
    /// The revisions of the other cells, as far as they are known.
    revisions: HashMap<String, u64>,
    /// Up to here effects are not repeated: the reactor was once beyond it, and was moved back.
    pub(super) mark: Position,
    /// The events behind the checkpoint whose effects are finished, as they are stored: one before them is not.
    finished: BTreeSet<Position>,
}

impl Records {
    pub(super) fn new(store: Store, name: ProjectionName) -> Result<Self, RunError> {
        let record = CheckpointRecord::new(store.id());
        // The longest key of a record, so that a name that is too long is found at once.
        cell_key(&name, &format!("{PARKED}{:020}", 0))?;
        let checkpoint = cell_key(&name, CheckpointRecord::KEY)?;
        let revisions = HashMap::new();
        Ok(Self {
            store,
            name,
            checkpoint,
            revision: 0,
            record,
            revisions,
            mark: Position::ZERO,
            finished: BTreeSet::new(),
        })
    }

    /// Reads everything, and claims the name for a term.
    pub(super) async fn begin(&mut self, term: Option<u64>) -> Result<Begun, Trouble> {
        for _ in 0..TRIES {
            let begun = self.read().await?;
            let Some(term) = term else { return Ok(begun) };
            if self.record.term > term {
                return Err(Trouble::Fenced(self.record.term));
            }
            if self.record.term == term {
                return Ok(begun);
            }
            match self.set(CheckpointRecord { term, ..self.record }, &[]).await {
                Ok(()) => return Ok(begun),
                // The owner before has just moved it.
                Err(Trouble::Final(RunError::Model(ModelError::TakenOver { .. }))) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Down(RunError::behind()))
    }

    /// Reads everything.
    pub(super) async fn read(&mut self) -> Result<Begun, Trouble> {
        let down = |error: StoreError| Trouble::of(error.into());
        let cell = self.store.cell(&self.checkpoint).await.map_err(down)?;
        let record = cell.as_ref().map(|cell| decode(&cell.value)).transpose().map_err(out)?;
        self.revision = cell.map_or(0, |cell| cell.revision);
        self.record = record.unwrap_or_else(|| CheckpointRecord::new(self.store.id()));
        self.revisions.clear();
        let mark = self.get(EFFECTS).await?;
        let mark = mark.map(|text| position(&text).ok_or_else(|| ModelError::damaged(EFFECTS))).transpose();
        let mark = mark.map_err(out)?;
        self.mark = mark.unwrap_or_default();
        // A name that was only claimed has never run.
        let record = record.filter(|record| mark.is_some() || record.checkpoint().is_some());
        let finished = self.get(FINISHED).await?;
        let finished = finished.map(|text| positions(&text).ok_or_else(|| ModelError::damaged(FINISHED))).transpose();
        self.finished = finished.map_err(out)?.unwrap_or_default();
        let acknowledged = self.get(ACKNOWLEDGED).await?;
        let mut parked = Vec::new();
        let prefix = self.key(PARKED).map_err(out)?.as_str().to_owned();
        let mut list = ListCells::new().prefix(&prefix);
        loop {
            let page = self.store.cells(list.clone()).await.map_err(down)?;
            let Some(last) = page.last() else { break };
            list.after = Some(last.key.clone());
            for Cell { key, revision, value, .. } in page {
                let of = format!("{PARKED}{}", key.as_str().get(prefix.len()..).unwrap_or_default());
                self.revisions.insert(of.clone(), revision);
                parked.push((of, value));
            }
        }
        Ok(Begun { record, parked, acknowledged, rebuilding: false })
    }

    /// Moves the checkpoint behind `events` more events, and writes records.
    pub(super) async fn write(&mut self, to: Option<Checkpoint>, events: u64, writes: &[Write]) -> Result<(), Trouble> {
        let term = self.record.term;
        let base = to.as_ref().map_or_else(|| CheckpointRecord::new(self.store.id()), CheckpointRecord::of);
        let next = CheckpointRecord { term, ..base }.events(self.record.events + events);
        let mut rest = writes;
        while rest.len() >= MAX_CELLS {
            let (now, later) = rest.split_at(MAX_CELLS - 1);
            self.set(self.record, now).await?;
            rest = later;
        }
        self.set(next, rest).await
    }

    /// The events behind the checkpoint whose effects are finished.
    pub(super) fn finished(&self) -> &BTreeSet<Position> {
        &self.finished
    }

    /// Moves the checkpoint, and remembers which effects behind it are finished.
    pub(super) async fn write_finished(
        &mut self,
        to: Option<Checkpoint>,
        events: u64,
        mut writes: Vec<Write>,
        finished: &BTreeSet<Position>,
    ) -> Result<(), Trouble> {
        if *finished != self.finished {
            let text = finished.iter().map(Position::to_string).collect::<Vec<_>>().join(" ");
            let value = (!finished.is_empty()).then(|| Bytes::from(text));
            writes.push(Write::now(FINISHED.to_owned(), value));
        }
        self.write(to, events, &writes).await?;
        self.finished.clone_from(finished);
        Ok(())
    }

    /// Remembers that effects up to here are not to be repeated.
    pub(super) fn mark_at(position: Position) -> Write {
        Write::now(EFFECTS.to_owned(), Some(Bytes::from(position.to_string())))
    }

    async fn set(&mut self, record: CheckpointRecord, writes: &[Write]) -> Result<(), Trouble> {
        let down = |error: StoreError| Trouble::of(error.into());
        let bytes = record.encode();
        for _ in 0..TRIES {
            let mut append = Append::default().set_cell(self.checkpoint.clone(), self.revision, Some(bytes.clone()));
            for Write { key, value, .. } in writes {
                let (revision, key) = (self.revision_of(key).await?, self.key(key).map_err(out)?);
                // There is nothing to remove.
                if revision > 0 || value.is_some() {
                    append = append.set_cell(key, revision, value.clone());
                }
            }
            match self.store.append(append).await {
                Ok(appended) => {
                    self.revision = appended.cells.first().copied().unwrap_or(self.revision + 1);
                    self.record = record;
                    for Write { key, .. } in writes {
                        self.revisions.remove(key);
                    }
                    return Ok(());
                }
                Err(AppendError::Conflict { .. }) => {}
                Err(AppendError::Store(error)) => return Err(down(error)),
                Err(error) => return Err(Trouble::Final(ModelError::failed(error).into())),
            }
            let found = self.store.cell(&self.checkpoint).await.map_err(down)?;
            let revision = found.as_ref().map_or(0, |cell| cell.revision);
            if revision != self.revision {
                return Err(self.taken_over(found.as_ref()));
            }
            self.revisions.clear();
        }
        Err(Trouble::Final(RunError::behind()))
    }

    /// Somebody else moved the checkpoint.
    fn taken_over(&self, found: Option<&Cell>) -> Trouble {
        let expected = self.record.mark.position;
        let found = match found.map(|cell| decode(&cell.value)).transpose() {
            Ok(record) => position_of(record.and_then(|record| record.checkpoint()).as_ref()),
            Err(damaged) => return out(damaged),
        };
        Trouble::Final(ModelError::TakenOver { name: self.name.clone(), expected, found }.into())
    }

    async fn get(&mut self, key: &str) -> Result<Option<Bytes>, Trouble> {
        let cell = self.store.cell(&self.key(key).map_err(out)?).await.map_err(|error| Trouble::of(error.into()))?;
        self.revisions.insert(key.to_owned(), cell.as_ref().map_or(0, |cell| cell.revision));
        Ok(cell.map(|cell| cell.value))
    }

    async fn revision_of(&mut self, key: &str) -> Result<u64, Trouble> {
        if let Some(revision) = self.revisions.get(key) {
            return Ok(*revision);
        }
        drop(self.get(key).await?);
        Ok(self.revisions.get(key).copied().unwrap_or(0))
    }

    fn key(&self, of: &str) -> Result<CellKey, InvalidName> {
        cell_key(&self.name, of)
    }
}

fn position(text: &[u8]) -> Option<Position> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Position::new)
}

fn positions(text: &[u8]) -> Option<BTreeSet<Position>> {
    text.split(|byte| *byte == b' ').map(position).collect()
}

/// It cannot continue.
fn out(error: impl Into<RunError>) -> Trouble {
    Trouble::Final(error.into())
}

fn cell_key(name: &ProjectionName, of: &str) -> Result<CellKey, InvalidName> {
    CellKey::new(format!("consumer/{name}/record/{of}"))
}

fn decode(bytes: &[u8]) -> Result<CheckpointRecord, ModelError> {
    CheckpointRecord::decode(bytes).ok_or_else(|| ModelError::damaged(CheckpointRecord::KEY))
}
