//! W8: projections that catch up.

use std::convert::Infallible;
use std::time::Instant;

use es_framework::{Projection, Projector, Recorded, StateModel, StateTx};
use es_sqlite::rusqlite::{self, Connection};
use es_sqlite::{SqliteModel, SqliteTx};
use serde::{Deserialize, Serialize};

use super::{open, path};
use crate::Result;
use crate::domain::AccountEvent;
use crate::spec::{Outcome, Side, Spec};

/// The rows that a projection writes.
const ROWS: i64 = 10_000;
const TABLE: &str = "CREATE TABLE IF NOT EXISTS balance (account INTEGER PRIMARY KEY, cents INTEGER NOT NULL)";
const UPSERT: &str = "INSERT INTO balance (account, cents) VALUES (?1, ?2)
                      ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Totals {
    deposits: u64,
    cents: u64,
}

struct InMemory;

impl Projector for InMemory {
    type Event = AccountEvent;
    type Model = StateModel<Totals>;
    type Error = Infallible;
    const NAME: &'static str = "totals";

    fn project(
        &self,
        event: &Recorded<AccountEvent>,
        totals: &mut StateTx<'_, Totals>,
    ) -> std::result::Result<(), Infallible> {
        if let AccountEvent::Deposited { cents, .. } = event.event() {
            totals.deposits += 1;
            totals.cents += cents;
        }
        Ok(())
    }
}

struct InRows;

impl Projector for InRows {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "balances";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute(TABLE, []).map(drop)
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let cents = match event.event() {
            AccountEvent::Deposited { cents, .. } => cents.cast_signed(),
            AccountEvent::Opened { .. } => 0,
        };
        tx.execute(UPSERT, (event.position().as_i64() % ROWS, cents)).map(drop)
    }
}

pub(super) async fn run(spec: &Spec, upsert: bool) -> Result<Outcome> {
    let rows = tempfile::tempdir_in(&spec.dir)?;
    let rows = rows.path().join("rows.db");
    if spec.side == Side::Floor {
        return floor(spec, &rows);
    }
    // Earlier rounds may have left their state.
    Connection::open(path(spec))?.execute("DELETE FROM es_snapshot WHERE stream = '@all'", [])?;
    let store = open(spec).await?;
    let (reached, seconds) = if upsert {
        // As for the floor, the file is opened before and closed after the measurement: that takes a dozen flushes.
        let model = SqliteModel::open(&rows).await?;
        let begun = Instant::now();
        let reached = Projection::new(&store, InRows, model.clone()).catch_up().await?;
        let seconds = begun.elapsed().as_secs_f64();
        model.close().await?;
        (reached, seconds)
    } else {
        let model = StateModel::new(&store);
        let begun = Instant::now();
        let reached = Projection::new(&store, InMemory, model.clone()).catch_up().await?;
        if model.read(|totals| totals.deposits) != spec.events - spec.events.div_ceil(100) {
            return Err("not what was written".into());
        }
        (reached, begun.elapsed().as_secs_f64())
    };
    store.close().await?;
    Ok(Outcome::of(reached.get(), seconds))
}

/// The same upserts in transactions of one page each, with nothing to read.
fn floor(spec: &Spec, rows: &std::path::Path) -> Result<Outcome> {
    let connection = Connection::open(rows)?;
    connection.execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {TABLE}"))?;
    let begun = Instant::now();
    let mut written = 0;
    while written < spec.events {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut upsert = connection.prepare_cached(UPSERT)?;
        for n in written + 1..=spec.events.min(written + 1_000) {
            upsert.execute((n.cast_signed() % ROWS, n.cast_signed()))?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        written += 1_000;
    }
    Ok(Outcome::of(spec.events, begun.elapsed().as_secs_f64()))
}
