//! A read model's transaction, as its projector sees it.

use std::fmt;

use tokio_rusqlite::rusqlite::fallible_iterator::FallibleIterator as _;
use tokio_rusqlite::rusqlite::{self, Batch, CachedStatement, Connection, Params, Row};

use crate::model::guard;
use crate::model::rules::Home;

/// A transaction of a read model, as its projector sees it.
///
/// The runner begins and ends it, together with the checkpoint. What statements may do is a list:
///
/// * read every table, also those of the log where the model is in its file;
/// * write, create, alter and drop tables, indexes, views and triggers of the read model's own, and full-text and r-tree
///   tables. In the log's file their names do not begin with `es_`;
/// * run pragmas that only show something, and `defer_foreign_keys`; in a file of its own also `user_version`, `optimize`
///   and the statement `ANALYZE`.
///
/// Everything else is refused with an error of the code
/// [`AuthorizationForStatementDenied`](rusqlite::ErrorCode::AuthorizationForStatementDenied), which says why and what to do
/// instead. A statement that is refused when it is prepared has done nothing, and the transaction goes on if the
/// projector passes over the error. What only shows afterwards (a foreign key that refers to a table of the store, a table
/// renamed to the name of one, a transaction that SQLite has rolled back) cannot be passed over: nothing is committed.
pub struct SqliteTx<'t> {
    connection: &'t Connection,
    home: Home,
    /// The statements run last, the newest at the end: see [`SqliteTx::run`].
    kept: Vec<Kept<'t>>,
}

/// A statement that was looked at already and is at hand until the transaction ends.
struct Kept<'t> {
    sql: Box<str>,
    statement: CachedStatement<'t>,
}

/// The statements that a transaction keeps at hand: few enough to look through them, enough for one a kind of event.
const KEPT: usize = 8;

/// Stands before each statement of a projector in the connection's cache, where those of the store are too: those were
/// never judged.
const MARK: &str = "/*read model*/ ";

impl<'t> SqliteTx<'t> {
    pub(super) fn new(connection: &'t Connection, home: Home) -> Self {
        Self { connection, home, kept: Vec::new() }
    }

    /// The connection, for what the model itself asks for.
    pub(super) fn connection(&self) -> &'t Connection {
        self.connection
    }

    /// Runs a statement, prepared once and kept, and returns how many rows it changed.
    ///
    /// # Errors
    ///
    /// What SQLite says; a statement that is not allowed here is refused.
    pub fn execute(&mut self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.run(sql, |statement| statement.execute(params))
    }

    /// Runs several statements without parameters, for example to create tables. If one fails, those before it stay in the
    /// transaction.
    ///
    /// # Errors
    ///
    /// As for [`Self::execute`].
    pub fn execute_batch(&mut self, sql: &str) -> rusqlite::Result<()> {
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

    /// Runs a query for one row.
    ///
    /// # Errors
    ///
    /// [`rusqlite::Error::QueryReturnedNoRows`] if there is none, else as for [`Self::execute`].
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

    /// Runs a statement and keeps it at hand for the next time, as a projector that runs one for every event does: the
    /// way through the connection's cache costs 1,400 instructions beside the 3,300 of an upsert, this one 350.
    fn run<T>(
        &mut self,
        sql: &str,
        run: impl FnOnce(&mut CachedStatement<'t>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        guard::check_open(self.connection)?;
        guard::forget_refusal();
        // Taken out while it runs: after a panic it goes back to the connection's cache, which takes its parameters away.
        let mut statement = self.take(sql)?;
        let answer = run(&mut statement.statement).map_err(guard::explained);
        // Else a parameter that the next one does not name would have this one's value.
        statement.statement.clear_bindings();
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(statement);
        guard::check_tables(self.connection, self.home)?;
        answer
    }

    /// A statement that a projector may run, from those at hand if it is there.
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

/// The error as it is for the statement without its mark.
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
