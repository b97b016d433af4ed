//! Errors when opening a file.

use std::path::PathBuf;

use es_framework::{BoxError, ErrorKind, StoreError};

/// A store, or a read model's file, could not be opened.
///
/// A file that is refused is not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing at the path and the store was not to be created, or its folder does not exist.
    #[error("there is no store at {}; check the path and its folder, or open it with `create(true)`", path.display())]
    Missing {
        /// The requested path.
        path: PathBuf,
    },
    /// The file is not what was requested.
    #[error("{} was not opened, and not changed: {reason}", path.display())]
    NotAStore {
        /// The requested path.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// The file was written by a newer release; use that release or a newer one.
    #[error(
        "{} has format {found}, this release knows formats up to {known}; use a newer release", path.display()
    )]
    NewerFormat {
        /// The requested path.
        path: PathBuf,
        /// The format of the file.
        found: u32,
        /// The newest format this release knows.
        known: u32,
    },
    /// The operating system does not allow this process to use the file or its folder.
    #[error("permission denied: {} {reason}", path.display())]
    PermissionDenied {
        /// The file or the folder.
        path: PathBuf,
        /// What is not allowed, and what needs it.
        reason: String,
        /// The operating system's error.
        source: BoxError,
    },
    /// The path is longer than SQLite can open; use a shorter one.
    #[error("{} cannot be opened: {reason}; use a shorter path", path.display())]
    PathTooLong {
        /// The path, with all links followed.
        path: PathBuf,
        /// How long it is, and how long it may be.
        reason: String,
    },
    /// The file has several names (hard links). SQLite keeps the newest writes in a file next to *one* name, so a
    /// process that opens another name misses them, and two names open at once corrupt the store. Remove the other
    /// names, or copy the file.
    #[error(
        "{} has {names} names (hard links), of which only one may be used; remove the others, or copy the file",
        path.display()
    )]
    SeveralNames {
        /// The path, with all links followed.
        path: PathBuf,
        /// How many names the file has.
        names: u64,
    },
    /// The store failed in a way that any call on an open store can fail.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// The kind of error: what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. }
            | Self::NotAStore { .. }
            | Self::NewerFormat { .. }
            | Self::PermissionDenied { .. }
            | Self::PathTooLong { .. }
            | Self::SeveralNames { .. } => ErrorKind::Caller,
            Self::Store(error) => error.kind(),
        }
    }
}
