//! What can go wrong when a file is opened.

use std::path::Path;

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::{Error, ErrorCode};

use crate::connection::errors;
use crate::error::OpenError;
use crate::opening::file::{why_denied, why_denied_beside};

/// What an error means that is met when SQLite opens a file, to be written or not.
pub(crate) fn connecting(path: &Path, write: bool, error: Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            why_denied(path, write).unwrap_or_else(|| opening(path, write, error))
        }
        _ => opening(path, write, error),
    }
}

/// The same, for an error met when SQLite looks into a file that it has opened, and opens the files beside it.
pub(crate) fn opening(path: &Path, write: bool, error: Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => not_a_store(path, "it is not an SQLite database"),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            why_denied_beside(path, write).unwrap_or_else(|| errors::store(error).into())
        }
        _ => errors::store(error).into(),
    }
}

pub(crate) fn not_a_store(path: &Path, reason: impl Into<String>) -> OpenError {
    OpenError::NotAStore { path: path.to_owned(), reason: reason.into() }
}

pub(crate) fn missing(path: &Path) -> OpenError {
    OpenError::Missing { path: path.to_owned() }
}

pub(crate) fn too_long(path: &Path, reason: impl Into<String>) -> OpenError {
    OpenError::PathTooLong { path: path.to_owned(), reason: reason.into() }
}

pub(crate) fn denied(path: &Path, reason: &str, error: std::io::Error) -> OpenError {
    OpenError::PermissionDenied { path: path.to_owned(), reason: reason.to_owned(), source: error.into() }
}

/// What it means that another connection on a store that is open could not be opened.
pub(crate) fn reopening(error: OpenError) -> StoreError {
    match error {
        OpenError::Store(error) => error,
        OpenError::NewerFormat { found, known, .. } => StoreError::FormatChanged { opened: known, found },
        OpenError::Missing { path } => errors::changed(format!("there is no file at {} any more", path.display())),
        OpenError::NotAStore { path, reason } => errors::changed(format!("{}: {reason}", path.display())),
        OpenError::PermissionDenied { .. } => StoreError::PermissionDenied { source: error.into() },
        OpenError::PathTooLong { .. } | OpenError::SeveralNames { .. } => StoreError::Io { source: error.into() },
    }
}
