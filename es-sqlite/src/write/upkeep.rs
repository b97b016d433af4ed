//! Maintenance that a writing connection does between two jobs.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_rusqlite::rusqlite::{Connection, Result};

use crate::connection::busy;
use crate::opening::file::DatabaseFile;

/// How often maintenance is considered: a file system check costs 1 to 2 µs, and a commit at least 20 µs.
const INTERVAL: Duration = Duration::from_millis(20);
/// The size that the `-wal` file may reach before it is emptied.
///
/// SQLite restarts it by itself once everything in it was written back and nobody reads it. Overlapping readers, even
/// short ones, can prevent that forever.
const WAL_BYTES: u64 = 64 << 20;
/// How long to wait for readers of an old part of the `-wal` file, which blocks writers: the budget for emptying it,
/// not counting the time to write it back.
const WAL_PATIENCE: Duration = Duration::from_millis(500);

/// The maintenance state of one file. Each task runs after a job and has a budget: what cannot be finished within it
/// continues after a later job.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// The `-wal` file; [`None`] if the database is in memory.
    wal: Option<PathBuf>,
    /// When the tasks last ran.
    done: Option<Instant>,
    /// The size in bytes up to which the `-wal` file is left alone.
    wal_bound: u64,
}

impl Upkeep {
    pub(crate) fn of(file: Option<&DatabaseFile>) -> Self {
        Self { wal: file.map(|file| file.beside("-wal")), done: None, wal_bound: WAL_BYTES }
    }

    /// Does what is due, outside any transaction. Failures are logged: no job failed because of them.
    pub(crate) fn after_job(&mut self, connection: &Connection) {
        if self.done.is_some_and(|done| done.elapsed() < INTERVAL) {
            return;
        }
        self.bound_wal(connection);
        self.done = Some(Instant::now());
    }

    /// Empties the `-wal` file when it has grown too large. If someone reads an old part of it for longer than the
    /// budget, the next attempt is made once it has grown by the same amount again.
    fn bound_wal(&mut self, connection: &Connection) {
        let wal = self.wal.as_ref().and_then(|wal| fs::metadata(wal).ok());
        let bytes = wal.map_or(0, |wal| wal.len());
        if bytes <= self.wal_bound {
            return;
        }
        match empty_wal(connection) {
            Ok(true) => {
                tracing::debug!(bytes, "emptied the write-ahead log");
                self.wal_bound = WAL_BYTES;
                return;
            }
            Ok(false) => {
                tracing::warn!(
                    bytes,
                    "the write-ahead log is growing: a reader has been using an old part of it for a long time"
                );
            }
            Err(error) => tracing::warn!(%error, bytes, "the write-ahead log could not be emptied"),
        }
        self.wal_bound = bytes + WAL_BYTES;
    }
}

/// Writes the write-ahead log back and truncates it; returns whether that was possible within the budget.
///
/// SQLite waits twice: first for readers of an older snapshot, before the rest can be written back; then for readers
/// that still use the `-wal` file rather than the database itself, before it can be truncated. No writer may write
/// meanwhile, so a new reader adds to neither group. But it may join a read mark that SQLite is already waiting for,
/// and others may follow it, so that this mark is never free. A new attempt sees that there is nothing to wait for.
/// Hence several attempts, each with twice the patience (8, 16, 31 ms …), rather than one long one.
fn empty_wal(connection: &Connection) -> Result<bool> {
    // Most of the work blocks nobody.
    busy::allow(WAL_PATIENCE);
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    let (begun, mut patience) = (Instant::now(), WAL_PATIENCE / 64);
    loop {
        busy::allow(patience);
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy == 0 {
            return Ok(true);
        }
        let left = WAL_PATIENCE.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        patience = (patience * 2).min(left);
    }
}
