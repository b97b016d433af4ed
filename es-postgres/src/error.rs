//! Errors when opening a store.

use es_framework::{BoxError, ErrorKind, StoreError};

/// A store could not be opened. A schema that is refused is not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No tokio runtime is current. The store's connections are tasks of the runtime that it is opened on; its futures
    /// then run on any executor.
    #[error("a store is opened on a tokio runtime with `enable_all`, and none is current")]
    NoRuntime,
    /// The connection string cannot be parsed.
    #[error("the connection string cannot be parsed; it looks like `postgres://user@host/database`")]
    InvalidUrl {
        /// What is wrong with it.
        source: BoxError,
    },
    /// The name of the schema cannot be used: 1 to 63 bytes without control characters.
    #[error("{schema:?} cannot be the name of a schema: it needs 1 to 63 bytes without control characters")]
    InvalidSchema {
        /// The name.
        schema: String,
    },
    /// The server cannot be reached, or refused the connection.
    #[error("the server cannot be reached: {advice}")]
    Unreachable {
        /// What to check.
        advice: &'static str,
        /// The driver's error.
        source: BoxError,
    },
    /// The server is too old.
    #[error("the server is PostgreSQL {found}, and a store needs 14 or newer")]
    ServerTooOld {
        /// The version of the server.
        found: String,
    },
    /// The database does not store its texts as UTF-8.
    #[error("the database has the encoding {encoding}, and a store needs one created with `ENCODING 'UTF8'`")]
    NotUtf8 {
        /// The encoding of the database.
        encoding: String,
    },
    /// There is no store in the schema, and it was not to be created.
    #[error("there is no store in the schema {schema:?}; check its name, or open it with `create(true)`")]
    Missing {
        /// The requested schema.
        schema: String,
    },
    /// The schema has tables with the names of a store's that are not a store's.
    #[error("the schema {schema:?} was not opened, and not changed: {reason}")]
    NotAStore {
        /// The requested schema.
        schema: String,
        /// What was found instead.
        reason: String,
    },
    /// The store was written by a newer release; use that release or a newer one.
    #[error(
        "the store in {schema:?} has format {found}, this release knows formats up to {known}; use a newer release"
    )]
    NewerFormat {
        /// The requested schema.
        schema: String,
        /// The format of the store.
        found: u32,
        /// The newest format this release knows.
        known: u32,
    },
    /// The store failed in a way that any call on an open store can fail.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// The kind of error: what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRuntime
            | Self::InvalidUrl { .. }
            | Self::InvalidSchema { .. }
            | Self::ServerTooOld { .. }
            | Self::NotUtf8 { .. }
            | Self::Missing { .. }
            | Self::NotAStore { .. }
            | Self::NewerFormat { .. } => ErrorKind::Caller,
            Self::Unreachable { .. } => ErrorKind::Retry,
            Self::Store(error) => error.kind(),
        }
    }
}
