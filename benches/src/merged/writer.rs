//! The floor, with a selectable index.

use std::path::Path;

use es_sqlite::rusqlite::Connection;

use super::{Bounds, Merged, replace_index};
use crate::Result;
use crate::floor::{Floor, FloorStream};
use crate::measure::Dice;
use crate::spec::{Index, Mode};

/// The rows of a commit of [`Writer::begin_streams`].
const BATCH: usize = 10_000;

/// Writes events to random streams, each stream at most once per commit.
#[derive(Debug)]
pub struct Writer {
    /// What writes the events.
    pub floor: Floor,
    /// All streams, in the current random order.
    pub streams: Vec<FloorStream>,
    /// The index, if it is the merged one.
    pub merged: Option<Merged>,
    dice: Dice,
}

impl Writer {
    /// Creates a store with an index.
    pub async fn make(path: &Path, mode: Mode, rows: usize, index: Index, bounds: Bounds) -> Result<Self> {
        let floor = Floor::make(path, mode, rows).await?;
        replace_index(&floor.connection, index)?;
        Self::on(floor, index, bounds)
    }

    /// Opens an existing store.
    pub async fn open(path: &Path, mode: Mode, rows: usize, index: Index, bounds: Bounds) -> Result<Self> {
        Self::on(Floor::make(path, mode, rows).await?, index, bounds)
    }

    fn on(floor: Floor, index: Index, bounds: Bounds) -> Result<Self> {
        let streams = floor.streams()?;
        let merged = (index == Index::Merged).then(|| recover(&floor.connection, bounds)).transpose()?;
        let dice = Dice::new(floor.position().get() + 1);
        Ok(Self { floor, streams, merged, dice })
    }

    /// Adds `count` streams, with one event each.
    pub fn begin_streams(&mut self, count: u64, payload: &[u8]) -> Result<()> {
        let all: Vec<u64> = (0..count).collect();
        for names in all.chunks(BATCH) {
            self.floor.begin()?;
            let added = names.iter().map(|n| self.floor.add_stream(&format!("account-{n}")));
            let added = added.collect::<Result<Vec<_>>>()?;
            // The first streams are written by the next commit.
            self.streams.splice(0..0, added);
            self.write(names.len(), payload)?;
            self.commit()?;
        }
        Ok(())
    }

    /// Writes one event to each of `rows` streams; returns the number of merged entries.
    pub fn append(&mut self, rows: usize, payload: &[u8]) -> Result<usize> {
        let rows = rows.min(self.streams.len());
        for n in 0..rows {
            let other = n + usize::try_from(self.dice.below((self.streams.len() - n) as u64))?;
            self.streams.swap(n, other);
        }
        self.floor.begin()?;
        let slice = self.write(rows, payload)?;
        self.commit()?;
        Ok(slice)
    }

    /// Writes to the first streams, within a transaction.
    pub fn write(&mut self, rows: usize, payload: &[u8]) -> Result<usize> {
        let Some(streams) = self.streams.get_mut(..rows) else { return Err("there are not so many streams".into()) };
        let mut position = self.floor.position();
        self.floor.insert_each(&mut streams.iter_mut().collect::<Vec<_>>(), payload)?;
        let Some(merged) = &mut self.merged else { return Ok(0) };
        for stream in streams {
            position = position.next();
            merged.push(stream.head(), position)?;
        }
        merged.merge(&self.floor.connection)
    }

    /// Commits what was written.
    pub fn commit(&mut self) -> Result<()> {
        self.floor.commit()?;
        if let Some(merged) = &mut self.merged {
            merged.committed();
        }
        Ok(())
    }

    /// Merges everything that is left, slice by slice.
    pub fn merge_rest(&mut self) -> Result<()> {
        let Some(merged) = &mut self.merged else { return Ok(()) };
        loop {
            self.floor.begin()?;
            let entries = merged.merge_rest(&self.floor.connection)?;
            self.floor.commit()?;
            merged.committed();
            if entries == 0 {
                return Ok(());
            }
        }
    }
}

/// Recovers the index in a transaction of its own.
pub fn recover(connection: &Connection, bounds: Bounds) -> Result<Merged> {
    let transaction = connection.unchecked_transaction()?;
    let merged = Merged::recover(connection, bounds)?;
    transaction.commit()?;
    Ok(merged)
}
