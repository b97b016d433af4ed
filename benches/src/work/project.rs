//! W8: projections that catch up.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::time::Instant;

use es_framework::{Projected, Projection, Projector, Recorded, StateModel, StateTx};
use es_sqlite::rusqlite::{self, Connection, OptionalExtension as _};
use es_sqlite::{Rows, SqliteModel, SqliteTx, Sums};
use serde::{Deserialize, Serialize};

use super::{open, path};
use crate::Result;
use crate::domain::AccountEvent;
use crate::spec::{Outcome, Results, Side, Spec};

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

struct InRows {
    results: Results,
}

impl Projector for InRows {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "balances";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute(TABLE, []).map(drop)
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let (account, cents) = change(event);
        tx.execute(UPSERT, (account, cents)).map(drop)
    }

    fn project_batch(&self, events: &[&Recorded<AccountEvent>], tx: &mut SqliteTx<'_>) -> rusqlite::Result<Projected> {
        match self.results {
            Results::Sums => {
                let mut balances = Sums::new("balance", &["account"], "cents")?;
                for (account, cents) in events.iter().map(|event| change(event)) {
                    balances.add(account, cents)?;
                }
                balances.write(tx)?;
            }
            Results::Rows => {
                let mut balances = Rows::<i64, i64>::new("balance", &["account"], &["cents"])?;
                for (account, cents) in events.iter().map(|event| change(event)) {
                    *balances.or_default(account, tx)? += cents;
                }
                balances.write(tx)?;
            }
            Results::State | Results::Upserts => return Ok(Projected::Nothing),
        }
        Ok(Projected::All)
    }
}

/// The row that an event changes, and by how much.
fn change(event: &Recorded<AccountEvent>) -> (i64, i64) {
    let cents = match event.event() {
        AccountEvent::Deposited { cents, .. } => cents.cast_signed(),
        AccountEvent::Opened { .. } => 0,
    };
    (event.position().as_i64() % ROWS, cents)
}

pub(super) async fn run(spec: &Spec, results: Results) -> Result<Outcome> {
    let rows = tempfile::tempdir_in(&spec.dir)?;
    let rows = rows.path().join("rows.db");
    if spec.side == Side::Floor {
        return floor(spec, results, &rows);
    }
    // Earlier rounds may have left their state.
    Connection::open(path(spec))?.execute("DELETE FROM es_snapshot WHERE stream = '@all'", [])?;
    let store = open(spec).await?;
    let (reached, seconds) = if results == Results::State {
        let model = StateModel::new(&store);
        let begun = Instant::now();
        let reached = Projection::new(&store, InMemory, model.clone()).catch_up().await?;
        if model.read(|totals| totals.deposits) != spec.events - spec.events.div_ceil(100) {
            return Err("not what was written".into());
        }
        (reached, begun.elapsed().as_secs_f64())
    } else {
        // As for the floor, the file is opened before and closed after the measurement: that takes a dozen flushes.
        let model = SqliteModel::open(&rows).await?;
        let begun = Instant::now();
        let reached = Projection::new(&store, InRows { results }, model.clone()).catch_up().await?;
        let seconds = begun.elapsed().as_secs_f64();
        model.close().await?;
        (reached, seconds)
    };
    store.close().await?;
    Ok(Outcome::of(reached.get(), seconds))
}

/// The same upserts in transactions of one page each, with nothing to read.
fn floor(spec: &Spec, results: Results, rows: &std::path::Path) -> Result<Outcome> {
    let connection = Connection::open(rows)?;
    connection.execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {TABLE}"))?;
    let begun = Instant::now();
    let mut written = 0;
    while written < spec.events {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let page = written + 1..=spec.events.min(written + 1_000);
        match results {
            Results::Sums | Results::Rows => by_batch(&connection, page, results)?,
            Results::State | Results::Upserts => {
                let mut upsert = connection.prepare_cached(UPSERT)?;
                for n in page {
                    upsert.execute((n.cast_signed() % ROWS, n.cast_signed()))?;
                }
            }
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        written += 1_000;
    }
    Ok(Outcome::of(spec.events, begun.elapsed().as_secs_f64()))
}

/// Sums in memory, which are written by statements of many rows; or rows that are read before that.
fn by_batch(connection: &Connection, page: RangeInclusive<u64>, results: Results) -> Result<()> {
    let mut sums = BTreeMap::<i64, i64>::new();
    let mut read = connection.prepare_cached("SELECT cents FROM balance WHERE account = ?1")?;
    for n in page.map(u64::cast_signed) {
        match sums.entry(n % ROWS) {
            Entry::Occupied(mut known) => *known.get_mut() += n,
            Entry::Vacant(unknown) if results == Results::Rows => {
                let cents: Option<i64> = read.query_row([unknown.key()], |row| row.get(0)).optional()?;
                unknown.insert(cents.unwrap_or_default() + n);
            }
            Entry::Vacant(unknown) => {
                unknown.insert(n);
            }
        }
    }
    let sums: Vec<_> = sums.into_iter().collect();
    let set = if results == Results::Rows { "excluded.cents" } else { "cents + excluded.cents" };
    for rows in sums.chunks(64) {
        let sql = format!(
            "INSERT INTO balance (account, cents) VALUES {} ON CONFLICT (account) DO UPDATE SET cents = {set}",
            vec!["(?, ?)"; rows.len()].join(", ")
        );
        let values = rows.iter().flat_map(|(account, cents)| [account, cents]);
        connection.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(values))?;
    }
    Ok(())
}
