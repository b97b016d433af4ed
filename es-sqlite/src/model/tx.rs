//! A read model's transaction, as its projector sees it.

use std::fmt;

use es_framework::StoreError;
use tokio_rusqlite::rusqlite::fallible_iterator::FallibleIterator as _;
use tokio_rusqlite::rusqlite::{self, Batch, CachedStatement, Connection, Params, Row};

use crate::connection::errors;
use crate::model::guard;
use crate::model::rules::Home;

/// A transaction of a read model, as its projector sees it.
///
/// The runner begins and ends it, together with the checkpoint. Statements may:
///
/// * read every table, including those of the log if the model is in its file;
/// * write, create, alter and drop tables, indexes, views and triggers of the read model's own, and full-text and
///   r-tree tables. In the log's file their names must not start with `es_`;
/// * run pragmas that only return information, and `defer_foreign_keys`; in a file of its own also `user_version`,
///   `optimize` and the statement `ANALYZE`.
///
/// Everything else is rejected with an error with the code
/// [`AuthorizationForStatementDenied`](rusqlite::ErrorCode::AuthorizationForStatementDenied), which says why and what
/// to do instead. A statement that is rejected when it is prepared has done nothing, and the transaction continues if
/// the projector ignores the error. What only shows afterwards cannot be ignored, and nothing is committed: a foreign
/// key that refers to a table of the store, a table renamed to the name of one, a transaction that SQLite has rolled
/// back.
pub struct SqliteTx<'t> {
    connection: &'t Connection,
    home: Home,
    /// The statements run last, the newest at the end: see [`SqliteTx::run`].
    kept: Vec<Kept<'t>>,
    /// Why a statement failed that is not to blame for it.
    outage: Option<StoreError>,
}

/// A statement that was already checked and is kept ready until the transaction ends.
struct Kept<'t> {
    sql: Box<str>,
    statement: CachedStatement<'t>,
}

/// The number of statements that a transaction keeps ready: few enough for a linear search, enough for one per event
/// type.
const KEPT: usize = 8;

/// Prefix of each projector statement in the connection's cache, which also contains the store's own statements: those
/// were never checked.
const MARK: &str = "/*read model*/ ";

impl<'t> SqliteTx<'t> {
    pub(super) fn new(connection: &'t Connection, home: Home) -> Self {
        Self { connection, home, kept: Vec::new(), outage: None }
    }

    /// Why a statement failed that is not to blame for it: the disk is full, for example. However the projector wraps that
    /// error, no event is to blame either.
    pub(super) fn take_outage(&mut self) -> Option<StoreError> {
        self.outage.take()
    }

    fn note_outage(&mut self, error: rusqlite::Error) -> rusqlite::Error {
        if let Some(outage) = errors::outage(&error) {
            self.outage = Some(outage);
        }
        error
    }

    /// The connection, for the model's own statements.
    pub(super) fn connection(&self) -> &'t Connection {
        self.connection
    }

    /// Runs a statement, prepared once and kept, and returns the number of rows it changed.
    ///
    /// # Errors
    ///
    /// SQLite's error; a statement that is not allowed here is rejected.
    pub fn execute(&mut self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.run(sql, |statement| statement.execute(params))
    }

    /// Runs several statements without parameters, for example to create tables. If one fails, the effects of those
    /// before it remain in the transaction.
    ///
    /// # Errors
    ///
    /// As for [`Self::execute`].
    pub fn execute_batch(&mut self, sql: &str) -> rusqlite::Result<()> {
        self.run_batch(sql).map_err(|error| self.note_outage(error))
    }

    fn run_batch(&mut self, sql: &str) -> rusqlite::Result<()> {
        let mut batch = Batch::new(self.connection, sql);
        loop {
            guard::check_open(self.connection)?;
            let Some(mut statement) = guard::preparing(|| batch.next()).map_err(guard::explained)? else {
                return Ok(());
            };
            let mut rows = statement.raw_query();
            while rows.next().map_err(guard::explained)?.is_some() {}
            guard::check_tables(self.connection, self.home)?;
        }
    }

    /// Runs a query that returns one row.
    ///
    /// # Errors
    ///
    /// [`rusqlite::Error::QueryReturnedNoRows`] if there is none, otherwise as for [`Self::execute`].
    pub fn query_row<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.run(sql, |statement| statement.query_row(params, map))
    }

    /// Prepares a statement once and keeps it.
    ///
    /// # Errors
    ///
    /// As for [`Self::execute`].
    pub fn prepare(&mut self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        guard::check_open(self.connection)?;
        self.take(sql).map(|kept| kept.statement)
    }

    /// Runs a statement and keeps it ready for the next time, for projectors that run one for every event: going
    /// through the connection's cache costs 1,400 instructions on top of the 3,300 of an upsert, this costs 350.
    pub(super) fn run<T>(
        &mut self,
        sql: &str,
        run: impl FnOnce(&mut CachedStatement<'t>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        guard::check_open(self.connection)?;
        guard::forget_refusal();
        // Taken out while it runs: after a panic it goes back to the connection's cache, which clears its parameters.
        let mut statement = self.take(sql)?;
        let answer = run(&mut statement.statement).map_err(guard::explained);
        let answer = answer.map_err(|error| self.note_outage(error));
        // Otherwise a parameter that the next call does not set would keep its current value.
        statement.statement.clear_bindings();
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(statement);
        guard::check_tables(self.connection, self.home)?;
        answer
    }

    /// Returns a statement that a projector may run, one of those kept ready if there is one.
    fn take(&mut self, sql: &str) -> rusqlite::Result<Kept<'t>> {
        if let Some(at) = self.kept.iter().rposition(|kept| *kept.sql == *sql) {
            return Ok(self.kept.remove(at));
        }
        let marked = format!("{MARK}{sql}");
        let statement = guard::preparing(|| self.connection.prepare_cached(&marked));
        let statement = statement.map_err(|error| guard::explained(unmarked(error)))?;
        Ok(Kept { sql: sql.into(), statement })
    }
}

/// The error with the mark removed from the statement.
fn unmarked(error: rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqlInputError { error, msg, sql, offset } => rusqlite::Error::SqlInputError {
            error,
            msg,
            sql: sql.strip_prefix(MARK).map(str::to_owned).unwrap_or(sql),
            offset: i32::try_from(MARK.len()).map_or(offset, |mark| offset.saturating_sub(mark)),
        },
        error => error,
    }
}

impl fmt::Debug for SqliteTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTx").finish_non_exhaustive()
    }
}
