//! Checks what a read model's statements do: SQLite itself asks, for each statement that it prepares.

use std::cell::Cell;

use tokio_rusqlite::rusqlite::config::DbConfig;
use tokio_rusqlite::rusqlite::hooks::{AuthContext, Authorization};
use tokio_rusqlite::rusqlite::{self, Connection, ffi};

use crate::model::rules::{self, Asker, Home};

thread_local! {
    // A connection has its own thread, so what is true of the one is true of the other.
    /// On whose behalf statements are prepared or run right now.
    static ASKER: Cell<Asker> = const { Cell::new(Asker::Engine) };
    /// Whether a projector's statement is being prepared.
    static PREPARING: Cell<bool> = const { Cell::new(false) };
    /// Why the last statement was rejected.
    static REFUSAL: Cell<Option<String>> = const { Cell::new(None) };
    /// Whether a statement that creates or alters a table was prepared.
    static TABLES_CHANGE: Cell<bool> = const { Cell::new(false) };
    /// Set once this thread's connection calls [`judge`]: the number of the store's tables and indexes in it.
    static PROTECTED: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Has every statement of this thread's connection checked by [`rules`]. Later calls do nothing.
pub(crate) fn protect(connection: &Connection) -> rusqlite::Result<()> {
    if PROTECTED.get().is_some() {
        return Ok(());
    }
    // Nobody writes the schema table, or the pages of the file, as if they were rows.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.authorizer(Some(judge))?;
    // After SQLite has ended a transaction by itself, every further statement would be a transaction of its own.
    connection.commit_hook(Some(|| ASKER.get() != Asker::Engine))?;
    PROTECTED.set(Some(connection.query_row(STORES_OWN, [], |row| row.get(0))?));
    Ok(())
}

fn judge(context: AuthContext<'_>) -> Authorization {
    let asker = ASKER.get();
    if asker == Asker::Engine {
        return Authorization::Allow;
    }
    match rules::judge(asker, PREPARING.get(), &context.action) {
        Ok(()) => {
            if rules::changes_tables(&context.action) {
                TABLES_CHANGE.set(true);
            }
            Authorization::Allow
        }
        Err(reason) => {
            REFUSAL.set(Some(format!("not authorized: {reason}")));
            Authorization::Deny
        }
    }
}

/// Calls `run`, whose statements run on behalf of `asker`.
pub(crate) fn asked_by<T>(asker: Asker, run: impl FnOnce() -> T) -> T {
    let _before = Restore { cell: &ASKER, before: ASKER.replace(asker) };
    run()
}

/// Prepares a projector's statement. If it is rejected, [`explained`] says why.
pub(super) fn preparing<T>(prepare: impl FnOnce() -> T) -> T {
    let _before = Restore { cell: &PREPARING, before: PREPARING.replace(true) };
    REFUSAL.take();
    prepare()
}

/// Restores the cell even if `run` panics.
struct Restore<T: Copy + 'static> {
    cell: &'static std::thread::LocalKey<Cell<T>>,
    before: T,
}

impl<T: Copy + 'static> Drop for Restore<T> {
    fn drop(&mut self) {
        self.cell.set(self.before);
    }
}

/// Forgets why an earlier statement was rejected.
pub(super) fn forget_refusal() {
    REFUSAL.take();
}

/// The error of a statement, with the reason if it was rejected.
pub(super) fn explained(error: rusqlite::Error) -> rusqlite::Error {
    REFUSAL.take().map_or(error, refused)
}

/// The reason, if this error is a rejection.
pub(super) fn refusal(error: rusqlite::Error) -> Result<rusqlite::Error, rusqlite::Error> {
    let is_refused = error.sqlite_error_code() == Some(rusqlite::ErrorCode::AuthorizationForStatementDenied);
    match REFUSAL.take().filter(|_| is_refused) {
        Some(reason) => Ok(refused(reason)),
        None => Err(error),
    }
}

fn refused(reason: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_AUTH), Some(reason))
}

/// Fails once SQLite has rolled the transaction back by itself, for example because of `ON CONFLICT ROLLBACK` or a full
/// disk. Outside the transaction every statement would persist, including the checkpoint, while everything before it
/// would be lost.
pub(super) fn check_open(connection: &Connection) -> rusqlite::Result<()> {
    if connection.is_autocommit() {
        let reason = "SQLite has rolled the transaction back after an error that was passed over";
        let code = ffi::Error::new(ffi::SQLITE_ABORT_ROLLBACK);
        return Err(rusqlite::Error::SqliteFailure(code, Some(reason.to_owned())));
    }
    Ok(())
}

/// Checks the tables, if a statement created or altered one: preparing a statement does not reveal what a foreign key
/// refers to, or what a table is renamed to.
///
/// A foreign key on one of the store's tables would restrict what the store may write and delete.
pub(super) fn check_tables(connection: &Connection, home: Home) -> rusqlite::Result<()> {
    if !TABLES_CHANGE.get() {
        return Ok(());
    }
    asked_by(Asker::Engine, || {
        let foreign_key: Option<String> = connection.query_row(KEYS, [home == Home::Log], |row| row.get(0))?;
        if let Some(table) = foreign_key {
            let reason = "a foreign key cannot refer to a table of the store or to the records of the runner";
            return Err(refused(format!("not authorized: {reason}, as one of `{table}` does")));
        }
        let hidden: i64 = connection.query_row(HIDDEN, [home == Home::Log], |row| row.get(0))?;
        let known = PROTECTED.get().unwrap_or_default();
        let found: i64 = connection.query_row(STORES_OWN, [], |row| row.get(0))?;
        if hidden > 0 || home == Home::Log && found != known {
            let reason = "a table cannot be renamed to `log`, to `projection_records`, to `projection_checkpoints` or to \
                          a name that begins with `es_`: these belong to the store";
            return Err(refused(format!("not authorized: {reason}")));
        }
        Ok(())
    })
}

/// Ends the projector's part of a transaction: statements that were prepared but not run must be checked again in the
/// next.
pub(super) fn forget_tables(connection: &Connection) {
    if TABLES_CHANGE.take() {
        connection.flush_prepared_statement_cache();
    }
}

/// The number of tables and indexes with names reserved for the store.
const STORES_OWN: &str = r"SELECT count(*) FROM main.sqlite_schema WHERE name LIKE 'es\_%' ESCAPE '\'";

/// The number of temporary tables that hide the records, or one of the store's tables in its file.
const HIDDEN: &str = r"SELECT count(*) FROM temp.sqlite_schema
     WHERE name COLLATE NOCASE IN ('projection_records', 'projection_checkpoints')
     OR ?1 AND (name LIKE 'es\_%' ESCAPE '\' OR name COLLATE NOCASE = 'log')";

/// A table with a foreign key that refers to the records, or to one of the store's tables in its file.
const KEYS: &str = r#"SELECT min(t.name) FROM main.sqlite_schema t, pragma_foreign_key_list(t.name, 'main') k
     WHERE t.type = 'table'
         AND (k."table" COLLATE NOCASE IN ('projection_records', 'projection_checkpoints') OR ?1 AND k."table" LIKE 'es\_%' ESCAPE '\')"#;
