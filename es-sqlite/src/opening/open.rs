//! Opening files: what is checked before SQLite may touch one, and how a connection is set up.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use es_framework::{StoreError, StoreId};
use tokio_rusqlite::rusqlite::{self, Connection, ErrorCode, MAIN_DB, OpenFlags};

use crate::connection::busy;
use crate::connection::errors;
use crate::connection::worker::roll_back;
use crate::error::OpenError;
use crate::opening::errors as refused;
use crate::opening::file::{self, DatabaseFile};
use crate::options::{Durability, Settings};
use crate::tables::meta;
use crate::tables::schema;

/// How many times [`tidy`] tries.
const TIDIED: u32 = 4;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For writing; creates the store if there is none.
    Write {
        /// Whether to create it.
        create: bool,
    },
    /// For reading.
    Read,
    /// For reading a store that this process must not write.
    ReadOnly,
}

/// The file of an open store, and the id of the store found in it.
#[derive(Debug, Clone)]
pub(crate) struct StoreFile {
    pub(crate) file: DatabaseFile,
    pub(crate) id: StoreId,
}

/// Opens the first connection to a store: the one that writes, or [`Purpose::ReadOnly`].
pub(crate) fn first(
    path: &Path,
    purpose: Purpose,
    durability: Durability,
    cache_bytes: usize,
) -> Result<(Connection, DatabaseFile), OpenError> {
    let path = &*file::resolve(path)?;
    let empty = inspect(path, purpose)?;
    file::check_names(path)?;
    let flags = match purpose {
        Purpose::Write { create: true } => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Purpose::Write { create: false } | Purpose::Read => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Purpose::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let write = purpose != Purpose::ReadOnly;
    if write {
        file::share_permissions(path);
    }
    let opening = |error| refused::opening(path, write, error);
    let connection = connect(path, flags)?;
    if write {
        check_writable(&connection, path)?;
    }
    let opened = DatabaseFile::opened(path.to_owned())?;
    if let Purpose::Write { create } = purpose {
        // Checked again: if the creation of the store was interrupted, SQLite has only now rolled it back.
        if empty || holds_nothing(&connection).map_err(opening)? {
            if !create {
                return Err(refused::missing(path));
            }
            make(&connection)?;
        }
        check(&connection, path, write)?;
        migrate(&connection)?;
        write_ahead(&connection)?;
    } else {
        check(&connection, path, write)?;
        connection.pragma_update(None, "query_only", true).map_err(errors::store)?;
    }
    set_up(&connection, durability, cache_bytes)?;
    Ok((connection, opened))
}

/// Opens another connection to an open store, for reading.
///
/// # Errors
///
/// [`StoreError::StoreChanged`] if another store, or another file, is there now; and any error of SQLite.
pub(crate) fn another(
    store: &StoreFile,
    purpose: Purpose,
    durability: Durability,
    cache_bytes: usize,
) -> Result<Connection, StoreError> {
    let path = store.file.path();
    // Before SQLite touches it.
    store.file.check()?;
    let read_only = purpose == Purpose::ReadOnly;
    // To SQLite a reader may write: the last to close must be able to remove the `-wal` file.
    let flags = if read_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    let connection = connect(path, flags).map_err(refused::reopening)?;
    check(&connection, path, !read_only).map_err(refused::reopening)?;
    let found = meta::store_id(&connection)?;
    if found != store.id {
        return Err(errors::changed(format!("{} is store {found}, not {}", path.display(), store.id)));
    }
    // It may have been replaced in between, by a copy of itself.
    store.file.check()?;
    connection.pragma_update(None, "query_only", true).map_err(errors::store)?;
    set_up(&connection, durability, cache_bytes)?;
    Ok(connection)
}

/// Opens a connection that waits for others.
pub(crate) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| refused::connecting(path, false, error))?;
    connection.busy_handler(Some(busy::handler)).map_err(errors::store)?;
    Ok(connection)
}

/// Rejects a file that may only be read: SQLite opens it anyway, and would not report it before the first write.
pub(crate) fn check_writable(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    if connection.is_readonly(MAIN_DB).map_err(errors::store)? {
        return Err(file::why_denied(path, true).unwrap_or_else(|| StoreError::ReadOnly.into()));
    }
    Ok(())
}

/// Removes the `-wal` and `-shm` files that stay behind when two connections close at the same moment and each takes
/// the other for the last: opens the file and closes it once more. If another process still has it open, they stay.
pub(crate) fn tidy(store: &StoreFile, settings: &Settings) {
    for attempt in 0..TIDIED {
        if !store.file.beside("-wal").exists() {
            return;
        }
        // Of varying length, or two processes would collide again.
        let odd = RandomState::new().hash_one(attempt) % 8;
        thread::sleep(Duration::from_millis(1 + odd));
        busy::allow(Duration::from_millis(100));
        match another(store, Purpose::Read, settings.durability, settings.cache_bytes) {
            Ok(connection) => drop(connection),
            // Whatever the error is, everything was already written.
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "could not open the store once more to remove its -wal file"
                );
                return;
            }
        }
    }
}

/// Opens a connection to an empty store in memory.
pub(crate) fn memory(cache_bytes: usize) -> Result<Connection, StoreError> {
    let connection = Connection::open_in_memory().map_err(errors::store)?;
    make(&connection)?;
    set_up(&connection, Durability::Normal, cache_bytes)?;
    Ok(connection)
}

/// Sets up everything that does not depend on the kind of file; also used for a read model's own file.
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

/// What a file is, as far as that can be found out without touching it.
pub(crate) enum Found {
    Nothing,
    Empty,
    /// The creation of a database was interrupted: SQLite will make the file empty again.
    CutOff,
    Other,
    Database {
        application_id: i32,
        format: u32,
        /// Whether it has the tables of a store.
        tables: bool,
    },
}

/// Inspects a file without changing it, and without creating a `-wal` or `-shm` file next to it.
///
/// Never through a file handle of our own: closing one drops every lock that this process holds on the file, including
/// SQLite's, and then another process may remove the `-wal` file of a store that is open here. SQLite keeps count of
/// its own handles. Opened as immutable, it takes no locks, creates no files and reads nothing but the file itself.
pub(crate) fn look(path: &Path) -> Result<Found, OpenError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(refused::denied(path, "is in a folder that cannot be entered", error));
        }
        Err(error) => return Err(StoreError::Io { source: error.into() }.into()),
    };
    if metadata.is_dir() {
        return Err(refused::not_a_store(path, "it is a folder"));
    }
    // Opening a pipe would block until someone writes to it.
    if !metadata.is_file() {
        return Err(refused::not_a_store(path, "it is not a file"));
    }
    if metadata.len() == 0 {
        return Ok(Found::Empty);
    }
    if was_cut_off(path) {
        return Ok(Found::CutOff);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(immutable(path), flags).map_err(|error| refused::connecting(path, false, error))?;
    match header(&connection) {
        // Another process may have started to create it in between.
        Err(_) | Ok(Found::Database { application_id: 0, .. }) if was_cut_off(path) => Ok(Found::CutOff),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Ok(Found::Other),
        found => found.map_err(|error| refused::opening(path, false, error)),
    }
}

fn header(connection: &Connection) -> rusqlite::Result<Found> {
    // Otherwise a file that another process is extending right now is reported as damaged.
    connection.pragma_update(None, "writable_schema", true)?;
    let application_id = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let format = schema::format(connection)?;
    let tables = connection.prepare("SELECT 1 FROM es_meta, es_stream, es_event LIMIT 0").is_ok();
    Ok(Found::Database { application_id, format, tables })
}

/// Whether a power loss or a crash interrupted the transaction that would have created the database: the journal next
/// to it records that the database had no pages before. Whatever the file contains, SQLite will empty it.
fn was_cut_off(path: &Path) -> bool {
    let mut header = [0; 28];
    let journal = fs::File::open(file::beside(path, "-journal"));
    journal.and_then(|mut journal| journal.read_exact(&mut header)).is_ok()
        && header.starts_with(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7])
        && header.get(16..20) == Some(&[0; 4])
}

/// Formats an absolute path as the URI of a file that SQLite must neither lock nor recover.
fn immutable(path: &Path) -> String {
    let mut address = String::from("file://");
    let bytes = path.as_os_str().as_encoded_bytes();
    // A drive letter, which does not start with a slash.
    if bytes.first() != Some(&b'/') {
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

/// Inspects what is to be opened, so that a file that is not ours is not touched, not even its `-wal`. Returns whether
/// there is nothing yet.
fn inspect(path: &Path, purpose: Purpose) -> Result<bool, OpenError> {
    let create = purpose == Purpose::Write { create: true };
    match look(path)? {
        // An empty file is left by a process that is creating the store right now, or was stopped while it did.
        Found::Nothing | Found::Empty if create => Ok(true),
        // Checked again once SQLite has emptied it, which takes a connection that writes.
        Found::CutOff if purpose != Purpose::ReadOnly => Ok(false),
        Found::Nothing | Found::Empty | Found::CutOff => Err(refused::missing(path)),
        Found::Other => Err(refused::not_a_store(path, "it is not an SQLite database")),
        Found::Database { application_id: 0, tables: true, .. } => Err(refused::not_a_store(path, RESTORED_DUMP)),
        Found::Database { application_id, .. } if application_id != schema::APPLICATION_ID => {
            Err(refused::not_a_store(path, "it is a database of another application"))
        }
        Found::Database { format, .. } if format > schema::FORMAT => {
            Err(OpenError::NewerFormat { path: path.to_owned(), found: format, known: schema::FORMAT })
        }
        Found::Database { .. } => Ok(false),
    }
}

/// The error for a file that `sqlite3`'s `.dump` was restored into.
const RESTORED_DUMP: &str = "it has the tables of a store, but not the two numbers in its header by which a store is \
                             known; `.dump` leaves them out. Restore a backup made with `VACUUM INTO` or `.backup`, or \
                             see \"Backup\" in docs/operations.md";

/// Creates the tables, unless another process was faster.
///
/// This happens before the database is in WAL mode, so that the application id is in the file itself as soon as there
/// is anything in it, and [`inspect`] finds it after a crash at any point.
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

fn holds_nothing(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).map(|pages| pages == 0)
}

fn check(connection: &Connection, path: &Path, write: bool) -> Result<(), OpenError> {
    let application_id: i32 = connection
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(|error| refused::opening(path, write, error))?;
    if application_id != schema::APPLICATION_ID {
        return Err(refused::not_a_store(path, "it is a database of another application"));
    }
    let found = schema::format(connection).map_err(errors::store)?;
    if found > schema::FORMAT {
        return Err(OpenError::NewerFormat { path: path.to_owned(), found, known: schema::FORMAT });
    }
    Ok(())
}

fn migrate(connection: &Connection) -> Result<(), StoreError> {
    if !schema::is_old(connection).map_err(errors::store)? {
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

/// Switches to the write-ahead log. The switch needs the file to itself for a moment and does not always call the busy
/// handler, so it is retried for as long as a write may wait.
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
