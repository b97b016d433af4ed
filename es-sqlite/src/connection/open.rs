//! Opening files: what is looked at before SQLite may touch one, and how a connection is set up.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::builder::{Durability, Settings};
use crate::connection::busy;
use crate::connection::errors;
use crate::connection::worker::roll_back;
use crate::tables::schema;

/// How often [`tidy`] tries.
const TIDIED: u32 = 4;

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
    let connection = Connection::open_with_flags(address(path)?, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| errors::opening(path, error))?;
    connection.busy_handler(Some(busy::handler)).map_err(errors::store)?;
    match purpose {
        Purpose::Write { create } => {
            // Looked at again: where the making of the store was broken off, SQLite has taken it back only now.
            if empty || holds_nothing(&connection, path)? {
                if !create {
                    return Err(errors::missing(path));
                }
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

/// Removes the `-wal` and `-shm` files that stay when two connections close at the same moment, each of which takes the
/// other for the last: the file is opened and closed once more. Where somebody still has it open they stay.
pub(crate) fn tidy(path: &Path, settings: &Settings) {
    // SQLite keeps them beside the file itself, not beside a link to it.
    let Ok(mut beside) = fs::canonicalize(path).map(PathBuf::into_os_string) else { return };
    beside.push("-wal");
    for attempt in 0..TIDIED {
        if !Path::new(&beside).exists() {
            return;
        }
        // Of different length, else two processes meet again.
        let odd = RandomState::new().hash_one(attempt) % 8;
        thread::sleep(Duration::from_millis(1 + odd));
        busy::allow(Duration::from_millis(100));
        match file(path, Purpose::Read, settings.durability, settings.cache_bytes) {
            Ok(connection) => drop(connection),
            // Whatever it is, everything was written before.
            Err(error) => {
                tracing::debug!(%error, "could not open the store once more to remove its -wal file");
                return;
            }
        }
    }
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
             PRAGMA trusted_schema = OFF;",
            full = u8::from(durability == Durability::Full),
        ))
        .map_err(errors::store)
}

/// The path as SQLite takes it, which reads `file:` as the begin of a URI and has names that are no files.
pub(crate) fn address(path: &Path) -> Result<PathBuf, StoreError> {
    if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
        return Err(errors::not_a_store(path, "it names no file; for one in memory use `in_memory()`"));
    }
    Ok(if path.is_relative() { Path::new(".").join(path) } else { path.to_owned() })
}

/// What a file is, as far as can be said without touching it.
pub(crate) enum Found {
    /// Not even the folder.
    Nowhere,
    Nothing,
    Empty,
    Other,
    Database {
        application_id: i32,
        format: u32,
    },
}

/// Looks at a file without changing it, and without making a `-wal` or `-shm` file beside it.
///
/// Never by a file handle of our own: closing one drops every lock that this process holds on the file, also those of
/// SQLite, and then another process may remove the `-wal` file of a store that is open here. SQLite keeps count of its
/// own handles. Opened as immutable it takes no locks, makes no files and reads nothing but the file itself.
pub(crate) fn look(path: &Path) -> Result<Found, StoreError> {
    let path = &*address(path)?;
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(if path.parent().is_some_and(Path::is_dir) { Found::Nothing } else { Found::Nowhere });
        }
        Err(error) => return Err(StoreError::Io { source: error.into() }),
    };
    if metadata.is_dir() {
        return Err(errors::not_a_store(path, "it is a folder"));
    }
    // To open a pipe waits for whoever writes into it.
    if !metadata.is_file() {
        return Err(errors::not_a_store(path, "it is not a file"));
    }
    if metadata.len() == 0 {
        return Ok(Found::Empty);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let header = Connection::open_with_flags(immutable(path), flags).and_then(|connection| {
        // Else a file that another process makes longer at this moment is said to be damaged.
        connection.pragma_update(None, "writable_schema", true)?;
        let application_id = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        Ok(Found::Database { application_id, format: schema::format(&connection)? })
    });
    match header {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Ok(Found::Other),
        found => found.map_err(errors::store),
    }
}

/// What [`address`] answers, as the URI of a file that SQLite must neither lock nor recover.
fn immutable(path: &Path) -> String {
    let mut address = String::from(if path.is_absolute() { "file://" } else { "file:" });
    let bytes = path.as_os_str().as_encoded_bytes();
    // A drive's letter, which does not begin with a slash.
    if path.is_absolute() && bytes.first() != Some(&b'/') {
        address.push('/');
    }
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b':' => {
                address.push(char::from(*byte));
            }
            b'\\' if cfg!(windows) => address.push('/'),
            byte => address.extend(format!("%{byte:02X}").chars()),
        }
    }
    address + "?immutable=1"
}

/// Looks at what is to be opened, so that a file that is not ours is not touched, not even its `-wal`. Says whether
/// there is nothing yet.
fn inspect(path: &Path, purpose: Purpose) -> Result<bool, StoreError> {
    let create = purpose == Purpose::Write { create: true };
    match look(path)? {
        // Empty is what a process leaves that makes the store at this moment, or was stopped while it did.
        Found::Nothing | Found::Empty if create => Ok(true),
        Found::Nowhere | Found::Nothing | Found::Empty => Err(errors::missing(path)),
        Found::Other => Err(errors::not_a_store(path, "it is not an SQLite database")),
        Found::Database { application_id, .. } if application_id != schema::APPLICATION_ID => {
            Err(errors::not_a_store(path, "it is a database of another application"))
        }
        Found::Database { format, .. } if format > schema::FORMAT => {
            Err(StoreError::NewerFormat { found: format, known: schema::FORMAT })
        }
        Found::Database { .. } => Ok(false),
    }
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

fn holds_nothing(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let pages: i64 = connection
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .map_err(|error| errors::opening(path, error))?;
    Ok(pages == 0)
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
