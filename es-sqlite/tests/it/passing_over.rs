//! H7: what a projection in SQLite costs while others write events it does not want.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use es_conformance::bank::AccountEvent;
use es_framework::{
    CandidateEvent, Event, ExpectedVersion, ModelError, Position, Projection, ProjectionName, Projector, ReadModel,
    Recorded, Store,
};
use es_sqlite::rusqlite;
use es_sqlite::{Durability, SqliteModel, SqliteStore, SqliteTx};

use crate::support::folder;

const PATIENCE: Duration = Duration::from_secs(30);

/// A read model that counts its transactions.
#[derive(Debug, Clone)]
struct Counting {
    model: SqliteModel,
    transactions: Arc<AtomicU64>,
}

impl ReadModel for Counting {
    type Tx<'t> = SqliteTx<'t>;

    async fn start(&self, name: &ProjectionName) -> Result<(), ModelError> {
        self.model.start(name).await
    }

    async fn transact<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut SqliteTx<'t>) -> Result<T, ModelError> + Send + 'static,
    {
        self.transactions.fetch_add(1, Ordering::SeqCst);
        self.model.transact(body).await
    }

    fn get(tx: &mut SqliteTx<'_>, name: &ProjectionName, key: &str) -> Result<Option<Bytes>, ModelError> {
        SqliteModel::get(tx, name, key)
    }

    fn put(tx: &mut SqliteTx<'_>, name: &ProjectionName, key: &str, value: &[u8]) -> Result<(), ModelError> {
        SqliteModel::put(tx, name, key, value)
    }

    fn delete(tx: &mut SqliteTx<'_>, name: &ProjectionName, key: &str) -> Result<(), ModelError> {
        SqliteModel::delete(tx, name, key)
    }

    fn list(tx: &mut SqliteTx<'_>, name: &ProjectionName, prefix: &str) -> Result<Vec<(String, Bytes)>, ModelError> {
        SqliteModel::list(tx, name, prefix)
    }

    async fn settle(&self, name: &ProjectionName) -> Result<(), ModelError> {
        self.model.settle(name).await
    }
}

struct Deposits;

impl Projector for Deposits {
    type Event = AccountEvent;
    type Model = Counting;
    type Error = rusqlite::Error;
    const NAME: &'static str = "deposits";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute_batch("CREATE TABLE IF NOT EXISTS deposit (position INTEGER PRIMARY KEY)")
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute("INSERT INTO deposit VALUES (?1)", [event.position().as_i64()]).map(drop)
    }
}

async fn write(store: &Store, stream: &str, event: CandidateEvent) -> Position {
    store.open_stream(stream).unwrap().write(event, ExpectedVersion::Any).await.unwrap().position
}

async fn number(model: &SqliteModel, sql: &'static str) -> u64 {
    let number = model.query(move |connection| connection.query_row(sql, [], |row| row.get::<_, i64>(0)));
    number.await.unwrap().cast_unsigned()
}

const CHECKPOINT: &str = "SELECT position FROM projection_checkpoints";

/// A projection in the log's file, alongside a thousand commits of others: each cost it a transaction, which flushed
/// the disk and ended the writer's group.
#[tokio::test]
async fn h7_commits_of_others_cost_a_read_model_in_the_logs_file_nothing() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    let model = Counting { model: store.read_model(), transactions: Arc::default() };
    let running = Projection::new(&store, Deposits, model.clone()).start().await.unwrap();
    let first = write(&store, "account-a", AccountEvent::Deposited { cents: 1 }.encode().unwrap()).await;
    running.wait_for(first, PATIENCE).await.unwrap();
    let before = model.transactions.load(Ordering::SeqCst);
    let mut last = first;
    for _ in 0..1_000 {
        last = write(&store, "noise-1", CandidateEvent::new("noise", "").unwrap()).await;
    }
    running.wait_for(last, PATIENCE).await.unwrap();
    assert_eq!(running.position(), last);
    // One every five seconds, should the machine be that slow.
    let cost = model.transactions.load(Ordering::SeqCst) - before;
    assert!(cost <= 5, "{cost} transactions");
    assert!(cost > 0 || number(&model.model, CHECKPOINT).await == first.get(), "nothing was written");
    assert_eq!(running.stop().await.unwrap(), last);
    assert_eq!(number(&model.model, CHECKPOINT).await, last.get(), "the stop writes it");
    store.close().await.unwrap();
}

/// A projection that is killed before the checkpoint was written scans the events it had skipped again, and applies
/// nothing twice.
#[tokio::test]
async fn h7_what_was_passed_over_is_looked_through_again_after_a_crash() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let model = Counting { model: SqliteModel::in_memory().await.unwrap(), transactions: Arc::default() };
    let crashes = {
        let (store, model) = (store.clone(), model.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let running = Projection::new(&store, Deposits, model).start().await.unwrap();
                let first = write(&store, "account-a", AccountEvent::Deposited { cents: 1 }.encode().unwrap()).await;
                // Else both could be of one batch.
                running.wait_for(first, PATIENCE).await.unwrap();
                let last = write(&store, "noise-1", CandidateEvent::new("noise", "").unwrap()).await;
                running.wait_for(last, PATIENCE).await.unwrap();
                // The task ends with its runtime, before anything can be written.
                std::mem::forget(running);
                (first, last)
            })
        })
    };
    let (first, last) = tokio::task::spawn_blocking(|| crashes.join()).await.unwrap().unwrap();
    assert_eq!(number(&model.model, CHECKPOINT).await, first.get());
    assert_eq!(Projection::new(&store, Deposits, model.clone()).catch_up().await.unwrap(), last);
    assert_eq!(number(&model.model, "SELECT count(*) FROM deposit").await, 1);
    assert_eq!(number(&model.model, CHECKPOINT).await, last.get());
}

/// When tokio's time is paused and SQLite works on its own threads, a wait for a position ended immediately.
#[tokio::test(start_paused = true)]
async fn h5_a_wait_is_real_time_where_tokio_s_is_paused() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let model = Counting { model: store.read_model(), transactions: Arc::default() };
    let running = Projection::new(&store, Deposits, model).start().await.unwrap();
    for _ in 0..20 {
        let position = write(&store, "account-a", AccountEvent::Deposited { cents: 1 }.encode().unwrap()).await;
        running.wait_for(position, PATIENCE).await.unwrap();
    }
    running.stop().await.unwrap();
    store.close().await.unwrap();
}
