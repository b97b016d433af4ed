//! Maps SQLite's errors to the store's.

use std::fmt;

use es_framework::{BoxError, Position, StoreError};
use tokio_rusqlite::rusqlite::{Error, ErrorCode, ffi};

use crate::connection::busy;

/// Maps a SQLite error to what it means for the caller.
#[expect(clippy::needless_pass_by_value, reason = "called by `map_err`, which gives the error away")]
pub(crate) fn store(error: Error) -> StoreError {
    of(&error)
}

/// The error of a read model's statement for which not the statement is to blame: the disk is full, the file is locked or
/// cannot be read or written.
pub(crate) fn outage(error: &Error) -> Option<StoreError> {
    let is_outage = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    );
    is_outage.then(|| of(error))
}

fn of(error: &Error) -> StoreError {
    match error {
        Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => StoreError::DiskFull { source: said(error) },
            ErrorCode::SystemIoFailure if is_too_large(failure.extended_code) => {
                StoreError::DiskFull { source: Said::boxed(&"the file would exceed the size limit of this process") }
            }
            ErrorCode::ReadOnly => StoreError::ReadOnly,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                StoreError::Busy { waited: busy::waited() }
            }
            // A constraint violation means that an index and its table no longer agree: everything inserted was checked
            // before.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation => {
                damaged(None, error.to_string())
            }
            ErrorCode::PermissionDenied => StoreError::PermissionDenied { source: said(error) },
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen => StoreError::Io { source: said(error) },
            _ => StoreError::Internal { source: said(error) },
        },
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => damaged(None, error.to_string()),
        _ => StoreError::Internal { source: said(error) },
    }
}

/// Whether a write failed because the file would exceed the size limit of this process (`ulimit -f`). SQLite does not
/// tell `EFBIG` from a broken disk, so the limit itself is queried where that is possible.
fn is_too_large(extended_code: i32) -> bool {
    if !matches!(extended_code, ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE | ffi::SQLITE_IOERR_SHMSIZE) {
        return false;
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max file size"));
    limit.and_then(|limit| limit.split_whitespace().next()).is_some_and(|soft| soft != "unlimited")
}

/// SQLite's message with its error code. Not the error itself, whose source would repeat the same message.
fn said(error: &Error) -> BoxError {
    match error {
        Error::SqliteFailure(failure, Some(message)) => {
            Said::boxed(&format_args!("{message} (SQLite's error {})", failure.extended_code))
        }
        error => Said::boxed(error),
    }
}

/// Like [`store`], for an error that occurred at an event.
pub(crate) fn store_at(position: Position, error: Error) -> StoreError {
    match store(error) {
        StoreError::Corrupt { position: None, reason } => damaged(Some(position), reason),
        other => other,
    }
}

pub(crate) fn changed(reason: impl Into<String>) -> StoreError {
    StoreError::StoreChanged { reason: reason.into() }
}

pub(crate) fn damaged(position: Option<Position>, reason: impl Into<String>) -> StoreError {
    StoreError::Corrupt { position, reason: reason.into() }
}

pub(crate) fn internal(what: impl Into<String>) -> StoreError {
    StoreError::Internal { source: Box::new(Said(what.into())) }
}

/// The error for a transaction that SQLite does not commit because of what a read model has written in it.
pub(crate) fn ended(because: impl fmt::Display) -> StoreError {
    internal(format!("a read model that takes part in the transaction has ended it: {because}"))
}

/// An error of which only the message is left.
#[derive(Debug)]
struct Said(String);

impl Said {
    fn boxed(error: &impl fmt::Display) -> BoxError {
        Box::new(Self(error.to_string()))
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}
