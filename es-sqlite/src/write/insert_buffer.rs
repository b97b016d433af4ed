//! Rows of the log waiting to be inserted together.

use std::sync::LazyLock;

use es_framework::{CandidateEvent, EventId, EventIdKind, Metadata, Position, StoreError, Timestamp, Version};
use tokio_rusqlite::rusqlite::types::{Null, Value};
use tokio_rusqlite::rusqlite::{self, Connection, ErrorCode, Statement};

use crate::connection::errors;
use crate::tables::postings::TermEnd;
use crate::tables::rows::{COLUMNS, TAGGED_COLUMNS};

/// The numbers of rows that one statement inserts: a batch of 16 takes two thirds of the time of 16 single inserts,
/// whatever their streams.
const SIZES: [usize; 3] = [16, 4, 1];
/// The number of columns in a row without tags.
const WIDTH: usize = 9;

static INSERTS: LazyLock<[String; 3]> = LazyLock::new(|| SIZES.map(|rows| insert_statement(EVENTS, WIDTH, rows)));
static TAGGED_INSERTS: LazyLock<[String; 3]> =
    LazyLock::new(|| SIZES.map(|rows| insert_statement(TAGGED_EVENTS, WIDTH + 1, rows)));
static POSTING_INSERTS: LazyLock<[String; 3]> = LazyLock::new(|| SIZES.map(|rows| insert_statement(POSTINGS, 3, rows)));

/// Rows of one transaction that are not in the database yet. They are inserted sixteen at a time, at the end of the
/// transaction, and before anything reads the log.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    rows: Vec<Row>,
    /// Postings: the term, the position, and which of the term it is.
    postings: Vec<(i64, i64, i64)>,
}

/// A row to insert.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) position: Position,
    pub(crate) stream: i64,
    pub(crate) version: Version,
    pub(crate) event_type: i64,
    pub(crate) time: Timestamp,
    pub(crate) checksum: u32,
    /// The list of tags, as it is stored.
    pub(crate) tags: Value,
    pub(crate) event: CandidateEvent,
}

/// Why rows could not be inserted.
pub(crate) enum InsertError {
    /// An id, or a version, is already taken.
    Taken,
    /// The database failed.
    Store(StoreError),
}

impl Pending {
    pub(crate) fn push(&mut self, connection: &Connection, row: Row) -> Result<(), InsertError> {
        self.rows.push(row);
        if self.rows.len() == SIZES[0] { self.flush(connection) } else { Ok(()) }
    }

    /// Adds a posting, the last one of its term; the row of its event is pushed next.
    pub(crate) fn push_posting(&mut self, term: i64, TermEnd { position, count }: TermEnd) {
        self.postings.push((term, position.as_i64(), count));
    }

    /// Inserts all waiting rows.
    pub(crate) fn flush(&mut self, connection: &Connection) -> Result<(), InsertError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let inserted = self.insert(connection);
        self.clear();
        inserted.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => InsertError::Taken,
            _ => InsertError::Store(errors::store(error)),
        })
    }

    /// Discards the rows, after a transaction was rolled back.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.postings.clear();
    }

    fn insert(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.rows.iter().all(|row| row.tags == Value::Null) {
            insert(connection, &INSERTS, WIDTH, &self.rows, Row::bind)?;
        } else {
            let bind = |row: &Row, statement: &mut Statement<'_>, first| {
                row.bind(statement, first)?;
                statement.raw_bind_parameter(first + WIDTH, &row.tags)
            };
            insert(connection, &TAGGED_INSERTS, WIDTH + 1, &self.rows, bind)?;
        }
        if self.postings.is_empty() {
            return Ok(());
        }
        // In the order of the table, so that those of one term find its page where the last one left it.
        self.postings.sort_unstable();
        let bind = |(term, position, nth): &(i64, i64, i64), statement: &mut Statement<'_>, first| {
            statement.raw_bind_parameter(first, term)?;
            statement.raw_bind_parameter(first + 1, position)?;
            statement.raw_bind_parameter(first + 2, nth)
        };
        insert(connection, &POSTING_INSERTS, 3, &self.postings, bind)
    }
}

/// Inserts rows with the statements for several at once, whose parameters `bind` sets from a first one on.
fn insert<T>(
    connection: &Connection,
    statements: &[String; 3],
    width: usize,
    mut rows: &[T],
    bind: impl Fn(&T, &mut Statement<'_>, usize) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    for (size, sql) in SIZES.into_iter().zip(statements) {
        if rows.len() < size {
            continue;
        }
        let mut statement = connection.prepare_cached(sql)?;
        while let Some((now, later)) = rows.split_at_checked(size) {
            for (row, first) in now.iter().zip((1..).step_by(width)) {
                bind(row, &mut statement, first)?;
            }
            statement.raw_execute()?;
            rows = later;
        }
    }
    Ok(())
}

impl Row {
    fn bind(&self, statement: &mut Statement<'_>, first: usize) -> rusqlite::Result<()> {
        statement.raw_bind_parameter(first, self.position.as_i64())?;
        statement.raw_bind_parameter(first + 1, self.stream)?;
        statement.raw_bind_parameter(first + 2, self.version.as_i64())?;
        statement.raw_bind_parameter(first + 3, self.event_type)?;
        statement.raw_bind_parameter(first + 4, self.time.as_micros())?;
        statement.raw_bind_parameter(first + 5, self.checksum.cast_signed())?;
        match self.event.id().map(EventId::kind) {
            Some(EventIdKind::Uuid(bytes)) => statement.raw_bind_parameter(first + 6, &bytes[..])?,
            Some(EventIdKind::Text(text)) => statement.raw_bind_parameter(first + 6, text)?,
            _ => statement.raw_bind_parameter(first + 6, Null)?,
        }
        statement.raw_bind_parameter(first + 7, self.event.metadata().map(Metadata::as_str))?;
        statement.raw_bind_parameter(first + 8, &self.event.payload()[..])
    }
}

/// `OR FAIL` leaves the rows before the failing one in place, which saves SQLite a statement journal, a seventh of its
/// work. Nothing half-done remains: the writer rolls back the whole transaction.
fn insert_statement((table, columns): (&str, &str), width: usize, rows: usize) -> String {
    let row = |row: usize| {
        let columns: Vec<String> = (1..=width).map(|column| format!("?{}", row * width + column)).collect();
        format!("({})", columns.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT OR FAIL INTO {table} ({columns}) VALUES {}", rows.join(", "))
}

/// Tables and their columns. An event without tags is the same row with or without the column for them.
const EVENTS: (&str, &str) = ("es_event", COLUMNS);
const TAGGED_EVENTS: (&str, &str) = ("es_event", TAGGED_COLUMNS);
const POSTINGS: (&str, &str) = ("es_posting", "term, position, nth");
