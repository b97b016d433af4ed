//! The laws of projectors on read models in SQLite.

use std::panic::{AssertUnwindSafe, catch_unwind};

use es_framework::testing::ProjectorLaws;
use es_framework::{Event, Projector, Recorded, Store, projector_laws};
use es_sqlite::{SqliteModel, SqliteTx, rusqlite};

#[derive(Debug, Clone, Event)]
#[es(name = "deposited")]
struct Deposited {
    cents: i64,
}

/// Balances, and for the broken ones an account of something else.
#[derive(Clone, Copy)]
struct Balances {
    /// What is noted for each event.
    note: &'static str,
}

impl Projector for Balances {
    type Event = Deposited;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "balances";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS balance (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS note (value)",
        )
    }

    fn project(&self, event: &Recorded<Deposited>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute(
            "INSERT INTO balance VALUES (?1, ?2) ON CONFLICT DO UPDATE SET cents = cents + excluded.cents",
            (event.aggregate_id(), event.cents),
        )?;
        tx.execute(&format!("INSERT INTO note SELECT {}", self.note), []).map(drop)
    }
}

fn events() -> Vec<(String, Deposited)> {
    (1..=7).map(|n| (format!("account-{}", n % 3), Deposited { cents: n })).collect()
}

projector_laws!(
    a_projector_that_is_right_keeps_every_law,
    projector = Balances { note: "'same'" },
    model = |_store| SqliteModel::in_memory().await.unwrap(),
    events = events(),
);

/// The connection counts the rows that it has changed, and each batch changes the checkpoint's.
#[test]
fn a_projector_that_writes_something_for_each_batch_is_found() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let laws = |note| {
        let model = async |_: &Store| SqliteModel::in_memory().await.unwrap();
        ProjectorLaws::new(move || Balances { note }, model, events())
    };
    let checked = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(laws("total_changes()").batch_size_does_not_matter());
    }));
    let panic = checked.unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("with 1 events in a batch it is something else than with all in one"), "{message}");
    runtime.block_on(laws("1 + 1").batch_size_does_not_matter());
}

/// SQLite's chance differs from run to run.
#[test]
fn a_projector_that_leaves_something_to_chance_is_found() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let model = async |_: &Store| SqliteModel::in_memory().await.unwrap();
    let laws = ProjectorLaws::new(|| Balances { note: "hex(randomblob(8))" }, model, events());
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(laws.incremental_equals_rebuild()))).unwrap_err();
}
