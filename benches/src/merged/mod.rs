//! A prototype of the merged index: (stream, version) → position without an index that every commit dirties all over.
//!
//! It is not part of the engine: `docs/decisions/0013-merged-index.md` says how it would become one, and what has to be
//! shown first.
//!
//! The entries of the newest events are the **tail**, in memory only: the log has them. When the tail has grown to a
//! bound it becomes a **run**, which is merged into the table `es_stream_version` in the order of streams and versions,
//! one **slice** at a time, inside the transactions that write events anyway. The row of the table `es_merge` records
//! up to which position the table is complete, and how far the run is merged; it is committed with each slice. So the
//! table holds at any moment
//!
//! * every entry up to [`State::complete`], and
//! * of the entries above it up to [`State::upto`] those up to the [`State::cursor`],
//!
//! and nothing else. All other entries are read from the end of the log after a crash, and by every process for itself.

mod kill;
mod migrate;
mod read;
mod report;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use es_framework::{Position, Version};
use es_sqlite::rusqlite::Connection;

pub use kill::{WRITE, kill, write};
pub use migrate::{migrate, switch};
pub use read::{load, verify};
pub use report::page;
pub use state::{Key, State, make_tables, replace_index};
pub use writer::{Writer, recover};

use crate::Result;

/// Rows per INSERT of a slice.
const ROWS: usize = 16;

/// How much stays in memory, and how much is merged at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The tail becomes a run when it holds this many entries.
    pub run: usize,
    /// A slice is due when this many entries are due; see [`Merged::most`].
    pub slice: usize,
}

impl Bounds {
    /// The measured bounds: 131,072 entries are some 5 MiB, and 1,024 of them dirty at most 4 MiB of pages.
    pub const USUAL: Self = Self { run: 131_072, slice: 1_024 };
}

/// A process's part of the index: the entries that are not in the table.
#[derive(Debug)]
pub struct Merged {
    bounds: Bounds,
    state: State,
    /// The last committed position that was read.
    head: Position,
    /// Entries above [`State::upto`], including those of the running transaction.
    tail: BTreeMap<Key, Position>,
    /// Entries up to [`State::upto`] that come after the cursor.
    run: BTreeMap<Key, Position>,
    /// What the running transaction has added and merged: everything that a rollback undoes.
    fresh: Vec<Key>,
    last: Position,
    slice: Option<Slice>,
    /// Two for each entry that was added during a run: entries leave twice as fast as they arrive.
    due: usize,
}

/// What a transaction has merged.
#[derive(Debug)]
struct Slice {
    entries: usize,
    state: State,
}

impl Merged {
    /// Reads the end of the log. Runs within a transaction, like everything here that takes a connection.
    pub fn recover(connection: &Connection, bounds: Bounds) -> Result<Self> {
        let mut merged = Self {
            bounds,
            state: State::default(),
            head: Position::ZERO,
            tail: BTreeMap::new(),
            run: BTreeMap::new(),
            fresh: Vec::new(),
            last: Position::ZERO,
            slice: None,
            due: 0,
        };
        merged.catch_up(connection)?;
        Ok(merged)
    }

    /// Learns what other processes have written and merged, before the transaction adds anything.
    pub fn catch_up(&mut self, connection: &Connection) -> Result<()> {
        let state = State::read(connection)?;
        if state != self.state {
            self.state = state;
            let (run, tail) = (std::mem::take(&mut self.run), std::mem::take(&mut self.tail));
            for (key, position) in run.into_iter().chain(tail) {
                self.admit(key, position);
            }
        }
        self.head = self.head.max(state.complete);
        read::after(connection, self.head, |key, position| {
            self.head = position;
            self.admit(key, position);
        })?;
        self.begin_run_if_full();
        Ok(())
    }

    /// Adds the entry of an event that the transaction writes. An entry whose version is already in memory is rejected.
    pub fn push(&mut self, key: Key, position: Position) -> Result<()> {
        match self.tail.entry(key) {
            Entry::Vacant(entry) if !self.run.contains_key(&key) => {
                entry.insert(position);
                self.fresh.push(key);
                self.last = position;
                Ok(())
            }
            _ => Err(format!("version {} of stream number {} is taken", key.1, key.0).into()),
        }
    }

    /// The version of a stream: from memory, otherwise from the table.
    pub fn version(&self, connection: &Connection, stream: i64) -> Result<Version> {
        let all = (stream, Version::ZERO)..=(stream, Version::MAX);
        let newest = [&self.tail, &self.run].into_iter().find_map(|entries| entries.range(all.clone()).next_back());
        match newest {
            Some(((_, version), _)) => Ok(*version),
            None => read::merged_version(connection, stream),
        }
    }

    /// Merges a slice if one is due, once all events of the transaction are added; returns the number of entries. An
    /// entry whose version is already in the table is an error: the primary key rejects it.
    pub fn merge(&mut self, connection: &Connection) -> Result<usize> {
        let due = self.due + self.owed();
        if due < self.bounds.slice { Ok(0) } else { self.merge_slice(connection, due) }
    }

    /// The maximum number of entries that [`Self::merge`] merges in a transaction of `rows` rows. A large append pays
    /// for itself, so that it cannot outrun the merge.
    pub fn most(bounds: Bounds, rows: usize) -> usize {
        bounds.slice + 2 * rows
    }

    /// Merges a slice of what is left, in a transaction of its own, as on close; returns the number of entries.
    pub fn merge_rest(&mut self, connection: &Connection) -> Result<usize> {
        if self.run.is_empty() {
            self.begin_run();
        }
        self.merge_slice(connection, self.bounds.slice)
    }

    /// Keeps what the transaction has added and merged, now that it is committed.
    pub fn committed(&mut self) {
        self.due += self.owed();
        if let Some(slice) = self.slice.take() {
            for _ in 0..slice.entries {
                self.run.pop_first();
            }
            self.state = slice.state;
            self.due = self.due.saturating_sub(slice.entries);
        }
        if !self.fresh.is_empty() {
            self.fresh.clear();
            self.head = self.last;
        }
        if self.run.is_empty() {
            self.due = 0;
        }
        self.begin_run_if_full();
    }

    /// Undoes what the transaction has added and merged. Everything else stays, so that running a group again costs no
    /// recovery.
    pub fn rolled_back(&mut self) {
        for key in self.fresh.drain(..) {
            self.tail.remove(&key);
        }
        self.slice = None;
    }

    /// How many entries are in memory.
    pub fn entries(&self) -> usize {
        self.tail.len() + self.run.len()
    }

    /// A copy of the entries in memory, to measure their size.
    pub fn copy(&self) -> impl Sized + use<> {
        (self.tail.clone(), self.run.clone())
    }

    /// Puts an entry of the log where it belongs according to the state.
    fn admit(&mut self, key: Key, position: Position) {
        if position > self.state.upto {
            self.tail.insert(key, position);
        } else if position > self.state.complete && key > self.state.cursor {
            self.run.insert(key, position);
        }
    }

    fn owed(&self) -> usize {
        if self.run.is_empty() { 0 } else { 2 * self.fresh.len() }
    }

    fn begin_run_if_full(&mut self) {
        if self.run.is_empty() && self.tail.len() >= self.bounds.run {
            self.begin_run();
        }
    }

    /// Not in the file before its first slice is: until then, after a crash it is part of the tail.
    fn begin_run(&mut self) {
        self.run = std::mem::take(&mut self.tail);
        self.state = State { upto: self.head, cursor: State::START, ..self.state };
        self.due = 0;
    }

    fn merge_slice(&mut self, connection: &Connection, most: usize) -> Result<usize> {
        let slice: Vec<_> = self.run.iter().take(most).map(|(key, position)| (*key, *position)).collect();
        let Some((last, _)) = slice.last() else { return Ok(0) };
        state::insert(connection, &slice, ROWS)?;
        let state = if slice.len() == self.run.len() {
            State { complete: self.state.upto, cursor: State::START, ..self.state }
        } else {
            State { cursor: *last, ..self.state }
        };
        state.write(connection)?;
        self.slice = Some(Slice { entries: slice.len(), state });
        Ok(slice.len())
    }
}
