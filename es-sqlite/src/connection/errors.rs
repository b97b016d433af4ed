//! SQLite's errors as the store's.

use std::fmt;
use std::path::Path;

use es_framework::{Position, StoreError};
use tokio_rusqlite::rusqlite::{Error, ErrorCode};

use crate::connection::busy;

/// What an error of SQLite means for the caller.
pub(crate) fn store(error: Error) -> StoreError {
    match &error {
        Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => StoreError::DiskFull { source: error.into() },
            ErrorCode::ReadOnly => StoreError::ReadOnly,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                StoreError::Busy { waited: busy::waited() }
            }
            // A broken constraint means that an index and its table no longer say the same: whatever is inserted was
            // judged before.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation => {
                damaged(None, error.to_string())
            }
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                StoreError::Io { source: error.into() }
            }
            _ => StoreError::Internal { source: error.into() },
        },
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => damaged(None, error.to_string()),
        _ => StoreError::Internal { source: error.into() },
    }
}

/// The same, for an error met at an event.
pub(crate) fn store_at(position: Position, error: Error) -> StoreError {
    match store(error) {
        StoreError::Corrupt { position: None, reason } => damaged(Some(position), reason),
        other => other,
    }
}

/// The same, for an error met while a file is opened.
pub(crate) fn opening(path: &Path, error: Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => not_a_store(path, "it is not an SQLite database"),
        _ => store(error),
    }
}

pub(crate) fn not_a_store(path: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::NotAStore { path: path.display().to_string(), reason: reason.into() }
}

pub(crate) fn missing(path: &Path) -> StoreError {
    StoreError::Missing { path: path.display().to_string() }
}

pub(crate) fn damaged(position: Option<Position>, reason: impl Into<String>) -> StoreError {
    StoreError::Corrupt { position, reason: reason.into() }
}

pub(crate) fn internal(what: impl Into<String>) -> StoreError {
    StoreError::Internal { source: Box::new(Said(what.into())) }
}

/// An error of which only the words are left.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}
