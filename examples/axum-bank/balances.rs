//! The read model: a table of balances in SQLite, in the log's own file.

use es_framework::{ModelError, Projector, Recorded};
use es_sqlite::rusqlite::{self, params};
use es_sqlite::{SqliteModel, SqliteTx};
use serde::Serialize;

use crate::account::AccountEvent;

/// Keeps the table `balances`.
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
                account TEXT PRIMARY KEY, owner TEXT NOT NULL, cents INTEGER NOT NULL DEFAULT 0
            ) WITHOUT ROWID",
        )
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> Result<(), rusqlite::Error> {
        let mut add = |cents: i64| {
            let add = "UPDATE balances SET cents = cents + ?2 WHERE account = ?1";
            tx.execute(add, params![event.aggregate_id(), cents])
        };
        match event.event() {
            AccountEvent::Deposited { cents } => add(i64::from(*cents))?,
            AccountEvent::Withdrawn { cents } => add(-i64::from(*cents))?,
            AccountEvent::Opened { owner } => {
                let insert = "INSERT INTO balances (account, owner) VALUES (?1, ?2)";
                tx.execute(insert, params![event.aggregate_id(), owner])?
            }
        };
        Ok(())
    }
}

/// A row of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Balance {
    account: String,
    owner: String,
    cents: i64,
}

/// Reads the table as it is now.
pub(crate) async fn read(model: &SqliteModel) -> Result<Vec<Balance>, ModelError> {
    let read = |connection: &rusqlite::Connection| {
        let mut query = connection.prepare("SELECT account, owner, cents FROM balances ORDER BY account")?;
        let rows =
            query.query_map([], |row| Ok(Balance { account: row.get(0)?, owner: row.get(1)?, cents: row.get(2)? }))?;
        rows.collect()
    };
    model.query(read).await
}
