//! Opening files: what is looked at before SQLite may touch one, and how a connection is set up.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::thread;
use std::time::Duration;

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::{Connection, OpenFlags};

use crate::builder::Durability;
use crate::worker::roll_back;
use crate::{busy, errors, schema};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The one that writes, and that makes the store where there is none.
    Write {
        /// Whether to make it.
        create: bool,
    },
    /// One that reads.
    Read,
    /// One that reads a store that must not be written by this process.
    ReadOnly,
}

/// Opens a connection on a store's file.
pub(crate) fn file(
    path: &Path,
    purpose: Purpose,
    durability: Durability,
    cache_bytes: usize,
) -> Result<Connection, StoreError> {
    let empty = match purpose {
        Purpose::Write { .. } | Purpose::ReadOnly => inspect(path, purpose)?,
        Purpose::Read => false,
    };
    let flags = match purpose {
        Purpose::Write { create: true } => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        // A reader may write as far as SQLite is concerned: whoever closes last must be able to remove the `-wal` file.
        Purpose::Write { create: false } | Purpose::Read => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Purpose::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| errors::opening(path, error))?;
    connection.busy_handler(Some(busy::handler)).map_err(errors::store)?;
    match purpose {
        Purpose::Write { .. } => {
            if empty {
                make(&connection)?;
            }
            check(&connection, path)?;
            migrate(&connection)?;
            write_ahead(&connection)?;
        }
        Purpose::Read | Purpose::ReadOnly => {
            check(&connection, path)?;
            connection.pragma_update(None, "query_only", true).map_err(errors::store)?;
        }
    }
    set_up(&connection, durability, cache_bytes)?;
    Ok(connection)
}

/// Opens a connection on an empty store in memory.
pub(crate) fn memory(cache_bytes: usize) -> Result<Connection, StoreError> {
    let connection = Connection::open_in_memory().map_err(errors::store)?;
    make(&connection)?;
    set_up(&connection, Durability::Normal, cache_bytes)?;
    Ok(connection)
}

/// Sets up what does not depend on whose file it is; also for a read model's own file.
pub(crate) fn set_up(connection: &Connection, durability: Durability, cache_bytes: usize) -> Result<(), StoreError> {
    let kibibytes = i64::try_from(cache_bytes >> 10).unwrap_or(i64::MAX);
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = {synchronous};
             PRAGMA fullfsync = {full};
             PRAGMA checkpoint_fullfsync = {full};
             PRAGMA cache_size = -{kibibytes};
             PRAGMA wal_autocheckpoint = 2000;
             PRAGMA journal_size_limit = 67108864;
             PRAGMA temp_store = MEMORY;
             PRAGMA trusted_schema = OFF;
             PRAGMA recursive_triggers = OFF;",
            full = u8::from(durability == Durability::Full),
        ))
        .map_err(errors::store)
}

/// Looks at the file without SQLite, so that a file that is not ours is not touched, not even its `-wal`. Says whether
/// there is nothing yet.
fn inspect(path: &Path, purpose: Purpose) -> Result<bool, StoreError> {
    let create = purpose == Purpose::Write { create: true };
    let missing = || StoreError::Missing { path: path.display().to_string() };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && create => return Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(StoreError::Io { source: error.into() }),
    };
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(errors::not_a_store(path, "it is a folder"));
    }
    let mut header = Vec::with_capacity(100);
    file.by_ref().take(100).read_to_end(&mut header).map_err(|error| StoreError::Io { source: error.into() })?;
    if header.is_empty() {
        // Also what another process leaves that is making the store at this moment.
        return if create { Ok(true) } else { Err(errors::not_a_store(path, "it is empty")) };
    }
    if !header.starts_with(b"SQLite format 3\0") || header.len() < 100 {
        return Err(errors::not_a_store(path, "it is not an SQLite database"));
    }
    let application_id = header.get(68..72).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
    if application_id != Some(schema::APPLICATION_ID) {
        return Err(errors::not_a_store(path, "it is a database of another application"));
    }
    let format = header.get(60..64).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    if format > schema::FORMAT {
        return Err(StoreError::NewerFormat { found: format, known: schema::FORMAT });
    }
    Ok(false)
}

/// Makes the tables, unless another process was faster.
///
/// Before the database is in WAL mode, so that the application's id is in the file itself as soon as there is anything in
/// it, and [`inspect`] finds it after a crash at any point.
fn make(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE").map_err(errors::store)?;
    let empty = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .map_err(errors::store)
        .map(|tables| tables == 0);
    let made = match empty {
        Ok(true) => schema::migrate(connection),
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    finish(connection, made)
}

fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let application_id: i32 = connection
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(|error| errors::opening(path, error))?;
    if application_id != schema::APPLICATION_ID {
        return Err(errors::not_a_store(path, "it is a database of another application"));
    }
    let found = schema::format(connection).map_err(errors::store)?;
    if found > schema::FORMAT {
        return Err(StoreError::NewerFormat { found, known: schema::FORMAT });
    }
    Ok(())
}

fn migrate(connection: &Connection) -> Result<(), StoreError> {
    if schema::format(connection).map_err(errors::store)? == schema::FORMAT {
        return Ok(());
    }
    connection.execute_batch("BEGIN IMMEDIATE").map_err(errors::store)?;
    let migrated = schema::migrate(connection);
    finish(connection, migrated)
}

fn finish(connection: &Connection, done: Result<(), StoreError>) -> Result<(), StoreError> {
    let done = done.and_then(|()| connection.execute_batch("COMMIT").map_err(errors::store));
    if done.is_err() {
        roll_back(connection);
    }
    done
}

/// Switches to the write-ahead log. The switch needs the file to itself for a moment and does not always ask the busy
/// handler, so it is tried again for as long as a write may wait.
pub(crate) fn write_ahead(connection: &Connection) -> Result<(), StoreError> {
    let mut attempt = 0;
    loop {
        let switched = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match switched.map_err(errors::store) {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => return Err(errors::internal(format!("the file system allows journal mode {mode} only"))),
            Err(StoreError::Busy { .. }) if busy::handler(attempt) => {
                attempt += 1;
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}
