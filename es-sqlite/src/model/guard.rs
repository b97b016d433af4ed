//! Where what a read model asks for is judged: by SQLite itself, at each statement that it prepares.

use std::cell::Cell;

use tokio_rusqlite::rusqlite::config::DbConfig;
use tokio_rusqlite::rusqlite::hooks::{AuthContext, Authorization};
use tokio_rusqlite::rusqlite::{self, Connection, ffi};

use crate::model::rules::{self, Asker, Home};

thread_local! {
    // A connection has a thread of its own, so what is said of the one is said of the other.
    /// Who asks for the statements that are prepared or run now.
    static ASKER: Cell<Asker> = const { Cell::new(Asker::Engine) };
    /// Whether a statement of a projector is being prepared.
    static PREPARING: Cell<bool> = const { Cell::new(false) };
    /// Why the last statement was refused.
    static REFUSAL: Cell<Option<String>> = const { Cell::new(None) };
    /// Whether a statement was prepared that creates or alters a table.
    static TABLES_CHANGE: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread's connection asks [`judge`], and how many tables and indexes of the store's it has.
    static PROTECTED: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Has every statement of this thread's connection judged by [`rules`]. Does nothing from the second time on.
pub(crate) fn protect(connection: &Connection) -> rusqlite::Result<()> {
    if PROTECTED.get().is_some() {
        return Ok(());
    }
    // Nobody writes the schema's table, or the pages of the file, as if they were rows.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.authorizer(Some(judge))?;
    // After SQLite has ended a transaction by itself every further statement would be one of its own.
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

/// Runs something whose statements are asked for by `asker`.
pub(crate) fn asked_by<T>(asker: Asker, run: impl FnOnce() -> T) -> T {
    let _before = Restore { cell: &ASKER, before: ASKER.replace(asker) };
    run()
}

/// Prepares a statement of a projector. [`explained`] says why if it is refused.
pub(super) fn preparing<T>(prepare: impl FnOnce() -> T) -> T {
    let _before = Restore { cell: &PREPARING, before: PREPARING.replace(true) };
    REFUSAL.take();
    prepare()
}

/// Also if `run` panics.
struct Restore<T: Copy + 'static> {
    cell: &'static std::thread::LocalKey<Cell<T>>,
    before: T,
}

impl<T: Copy + 'static> Drop for Restore<T> {
    fn drop(&mut self) {
        self.cell.set(self.before);
    }
}

/// Forgets why a statement before this one was refused.
pub(super) fn forget_refusal() {
    REFUSAL.take();
}

/// The error of a statement, with the reason if it was refused.
pub(super) fn explained(error: rusqlite::Error) -> rusqlite::Error {
    REFUSAL.take().map_or(error, refused)
}

/// The reason, if this error is a refusal.
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

/// A statement after SQLite has rolled the transaction back by itself, for example because of `ON CONFLICT ROLLBACK` or a
/// full disk. Outside of the transaction every statement would stay, the checkpoint too, and what came before would be
/// lost.
pub(super) fn check_open(connection: &Connection) -> rusqlite::Result<()> {
    if connection.is_autocommit() {
        let reason = "SQLite has rolled the transaction back after an error that was passed over";
        let code = ffi::Error::new(ffi::SQLITE_ABORT_ROLLBACK);
        return Err(rusqlite::Error::SqliteFailure(code, Some(reason.to_owned())));
    }
    Ok(())
}

/// Checks the tables, if a statement created or altered one: what a foreign key refers to, and what a table is renamed to,
/// is not asked for when the statement is prepared.
///
/// A foreign key on a table of the store's would have a say in what the store may write and delete.
pub(super) fn check_tables(connection: &Connection, home: Home) -> rusqlite::Result<()> {
    if !TABLES_CHANGE.get() {
        return Ok(());
    }
    asked_by(Asker::Engine, || {
        let foreign_key: Option<String> = connection.query_row(KEYS, [home == Home::Log], |row| row.get(0))?;
        if let Some(table) = foreign_key {
            let reason = "a foreign key cannot refer to a table of the store or to the checkpoints";
            return Err(refused(format!("not authorized: {reason}, as one of `{table}` does")));
        }
        let hidden: i64 = connection.query_row(HIDDEN, [home == Home::Log], |row| row.get(0))?;
        let known = PROTECTED.get().unwrap_or_default();
        let found: i64 = connection.query_row(STORES_OWN, [], |row| row.get(0))?;
        if hidden > 0 || home == Home::Log && found != known {
            let reason = "a table cannot be renamed to `log`, to `projection_checkpoints` or to a name that begins with \
                          `es_`: these belong to the store";
            return Err(refused(format!("not authorized: {reason}")));
        }
        Ok(())
    })
}

/// Ends the projector's part of a transaction: what was prepared but not run must be judged again in the next.
pub(super) fn forget_tables(connection: &Connection) {
    if TABLES_CHANGE.take() {
        connection.flush_prepared_statement_cache();
    }
}

/// How many tables and indexes have names of the store's.
const STORES_OWN: &str = r"SELECT count(*) FROM main.sqlite_schema WHERE name LIKE 'es\_%' ESCAPE '\'";

/// How many temporary tables hide the checkpoints, or one of the store's in its file.
const HIDDEN: &str = r"SELECT count(*) FROM temp.sqlite_schema WHERE name COLLATE NOCASE = 'projection_checkpoints'
     OR ?1 AND (name LIKE 'es\_%' ESCAPE '\' OR name COLLATE NOCASE = 'log')";

/// A table with a foreign key that refers to the checkpoints, or to one of the store's in its file.
const KEYS: &str = r#"SELECT min(t.name) FROM main.sqlite_schema t, pragma_foreign_key_list(t.name, 'main') k
     WHERE t.type = 'table'
         AND (k."table" COLLATE NOCASE = 'projection_checkpoints' OR ?1 AND k."table" LIKE 'es\_%' ESCAPE '\')"#;
