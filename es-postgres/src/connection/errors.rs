//! Maps PostgreSQL's errors to what they mean for a caller, and for a statement that might be repeated.

use std::fmt;

use es_framework::{BoxError, Position, StoreError};
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// Why a statement failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection is gone, or the server takes no commands. Whether the statement took effect is not known; on a
    /// new connection it may succeed.
    Lost(BoxError),
    /// A lock or a timeout of the server stood in the way; nothing took effect.
    Waited(BoxError),
    /// The server chose this statement to resolve a deadlock, or could not serialize it; nothing took effect, and it
    /// may succeed now.
    Again(BoxError),
    /// A unique index rejected a row; nothing took effect.
    Taken {
        /// The index, or the constraint.
        by: String,
    },
    /// Nothing took effect, and repeating the statement changes nothing.
    Refused(StoreError),
}

impl Failure {
    /// The error of a caller that does not wait any longer.
    pub(crate) fn into_store(self) -> StoreError {
        match self {
            Self::Lost(source) | Self::Waited(source) | Self::Again(source) => StoreError::Io { source },
            Self::Taken { by } => damaged(None, format!("{by} holds a row that should not be there")),
            Self::Refused(error) => error,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Some(db) = error.as_db_error() else { return Self::of_driver(&error) };
        let code = db.code();
        let class = code.code().get(..2).unwrap_or_default();
        match *code {
            SqlState::UNIQUE_VIOLATION => {
                Self::Taken { by: db.constraint().or_else(|| db.table()).unwrap_or("an index").to_owned() }
            }
            SqlState::LOCK_NOT_AVAILABLE | SqlState::QUERY_CANCELED => Self::Waited(said(db)),
            SqlState::T_R_DEADLOCK_DETECTED | SqlState::T_R_SERIALIZATION_FAILURE => Self::Again(said(db)),
            SqlState::TOO_MANY_CONNECTIONS
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
            | SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW => Self::Lost(said(db)),
            // Idle session timeout, which the driver does not name.
            _ if class == "08" || code.code() == "57P05" => Self::Lost(said(db)),
            _ => Self::Refused(refused(db, class)),
        }
    }
}

impl Failure {
    fn of_driver(error: &Error) -> Self {
        use std::error::Error as _;
        let is_of_io = error.is_closed() || error.source().is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
        if is_of_io {
            return Self::Lost(Said::boxed(&with_cause(error)));
        }
        let text = with_cause(error);
        // The driver's own checks: a value that does not fit its type, a message that makes no sense.
        if text.contains("unexpected message") {
            return Self::Lost(Said::boxed(&text));
        }
        Self::Refused(internal(text))
    }
}

fn refused(db: &DbError, class: &str) -> StoreError {
    match *db.code() {
        SqlState::DISK_FULL => StoreError::DiskFull { source: said(db) },
        SqlState::READ_ONLY_SQL_TRANSACTION => StoreError::ReadOnly,
        SqlState::INSUFFICIENT_PRIVILEGE => StoreError::PermissionDenied { source: said(db) },
        SqlState::UNDEFINED_TABLE
        | SqlState::UNDEFINED_FUNCTION
        | SqlState::UNDEFINED_COLUMN
        | SqlState::INVALID_SCHEMA_NAME => {
            StoreError::StoreChanged { reason: format!("its tables or functions are gone: {}", db.message()) }
        }
        SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::DUPLICATE_PSTATEMENT => internal(format!(
            "{}: between this process and the server is a pooler that mixes sessions; open the store with `pooled(true)`",
            db.message()
        )),
        SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => damaged(None, text(db)),
        // Insufficient resources other than disk: memory, or a configured limit.
        _ if class == "53" || class == "58" => StoreError::Io { source: said(db) },
        _ if class == "28" => StoreError::PermissionDenied { source: said(db) },
        _ => internal(text(db)),
    }
}

/// The server's message with its error code.
fn text(db: &DbError) -> String {
    let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{}{detail} (PostgreSQL's error {})", db.message(), db.code().code())
}

fn said(db: &DbError) -> BoxError {
    Said::boxed(&text(db))
}

/// The driver's message and what caused it, in one line.
pub(crate) fn with_cause(error: &Error) -> String {
    use std::error::Error as _;
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => text(db),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// The connection gave no answer in time and was given up.
pub(crate) fn silent() -> Failure {
    Failure::Lost(Said::boxed(&"the server gave no answer in time"))
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

/// A message as an error.
pub(crate) fn words(what: &impl fmt::Display) -> BoxError {
    Said::boxed(what)
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
