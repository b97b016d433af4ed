//! What a connection that writes does between two jobs, beside its work.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_rusqlite::rusqlite::{Connection, Result};

use crate::connection::busy;
use crate::opening::file::DatabaseFile;

/// How often upkeep is thought of: a look at the file system costs 1 to 2 µs, and a commit 20 µs at least.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long the `-wal` file may become before it is emptied.
///
/// SQLite begins it anew by itself once everything in it was written back and nobody reads it. Readers that overlap, each
/// of them short, keep that from ever being so.
const WAL_BYTES: u64 = 64 << 20;
/// How long those who read an old part of the `-wal` file are waited for, which holds writers up: the budget of emptying
/// it, beside what it takes to write it back.
const WAL_PATIENCE: Duration = Duration::from_millis(500);

/// The state of the upkeep of one file. Each duty is called after a job and has a budget: what cannot be finished within
/// it goes on after a later job.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// The `-wal` file; nothing if the database is in memory.
    wal: Option<PathBuf>,
    /// When the duties were last done.
    done: Option<Instant>,
    /// The bytes up to which the `-wal` file is left alone.
    wal_bound: u64,
}

impl Upkeep {
    pub(crate) fn of(file: Option<&DatabaseFile>) -> Self {
        Self { wal: file.map(|file| file.beside("-wal")), done: None, wal_bound: WAL_BYTES }
    }

    /// Does what is due, outside of any transaction. What fails is logged: no job failed by it.
    pub(crate) fn after_job(&mut self, connection: &Connection) {
        if self.done.is_some_and(|done| done.elapsed() < INTERVAL) {
            return;
        }
        self.bound_wal(connection);
        self.done = Some(Instant::now());
    }

    /// Empties the `-wal` file when it has grown too long. If somebody reads an old part of it for longer than the budget,
    /// this is tried again when it has grown by as much once more.
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
                    "the write-ahead log grows: somebody has been reading an old part of it for long"
                );
            }
            Err(error) => tracing::warn!(%error, bytes, "the write-ahead log could not be emptied"),
        }
        self.wal_bound = bytes + WAL_BYTES;
    }
}

/// Writes the write-ahead log back and cuts it off; returns whether that was possible within the budget.
///
/// SQLite waits twice: for those who read what is not the newest, before the rest can be written back; then for those who
/// still read the `-wal` file and not the database itself, before it can be cut off. No writer may write meanwhile, so
/// whoever begins to read joins neither. But it may join a reader's place that SQLite has begun to wait for, and others
/// after it, so that this place is never free. Asked again SQLite sees that there is nothing to wait for: hence several
/// tries, each of twice the patience, and not one long one.
fn empty_wal(connection: &Connection) -> Result<bool> {
    // Most of it holds nobody up.
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
