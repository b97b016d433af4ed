//! The read model: a table of balances in SQLite, in the log's own file.

use es_framework::{ModelError, Projector, Recorded};
use es_sqlite::rusqlite::{self, params};
use es_sqlite::{SqliteModel, SqliteTx};

use crate::account::AccountEvent;

/// Maintains the table `balances`.
#[derive(Debug)]
pub(crate) struct Balances;

impl Projector for Balances {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "balances";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> Result<(), rusqlite::Error> {
        tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS balances (
                account TEXT PRIMARY KEY, owner TEXT NOT NULL DEFAULT '', cents INTEGER NOT NULL DEFAULT 0,
                bookings INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'open'
            ) WITHOUT ROWID",
        )
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> Result<(), rusqlite::Error> {
        let account = event.aggregate_id();
        match event.event() {
            AccountEvent::Opened { owner } => {
                tx.execute("INSERT INTO balances (account, owner) VALUES (?1, ?2)", params![account, owner])?
            }
            AccountEvent::Closed => {
                tx.execute("UPDATE balances SET state = 'closed' WHERE account = ?1", params![account])?
            }
            booking => tx.execute(
                "UPDATE balances SET cents = cents + ?2, bookings = bookings + 1 WHERE account = ?1",
                params![account, booking.change()],
            )?,
        };
        Ok(())
    }
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Balance {
    pub(crate) account: String,
    pub(crate) owner: String,
    pub(crate) cents: i64,
    pub(crate) bookings: i64,
    pub(crate) state: String,
}

/// Reads the table as it is now.
pub(crate) async fn read(model: &SqliteModel) -> Result<Vec<Balance>, ModelError> {
    let read = |connection: &rusqlite::Connection| {
        let mut query =
            connection.prepare("SELECT account, owner, cents, bookings, state FROM balances ORDER BY account")?;
        let rows = query.query_map([], |row| {
            Ok(Balance {
                account: row.get(0)?,
                owner: row.get(1)?,
                cents: row.get(2)?,
                bookings: row.get(3)?,
                state: row.get(4)?,
            })
        })?;
        rows.collect()
    };
    model.query(read).await
}
