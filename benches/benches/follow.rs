//! Micro-benchmarks of following the log: a watch's wake-up and a batch of a projection. `cargo bench -p benches
//! --bench follow`.

use std::convert::Infallible;

use benches::domain::{AccountEvent, encoded};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use es_framework::{
    CandidateEvent, ExpectedVersion, MemoryStore, Projection, Projector, Recorded, StateModel, StateTx, Store,
};
use es_sqlite::rusqlite;
use es_sqlite::{SqliteModel, SqliteTx};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

const EVENTS: u64 = 1_000;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Total {
    cents: u64,
}

struct InMemory;

impl Projector for InMemory {
    type Event = AccountEvent;
    type Model = StateModel<Total>;
    type Error = Infallible;
    const NAME: &'static str = "total";

    fn project(&self, event: &Recorded<AccountEvent>, total: &mut StateTx<'_, Total>) -> Result<(), Infallible> {
        if let AccountEvent::Deposited { cents, .. } = event.event() {
            total.cents += cents;
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
        tx.execute("CREATE TABLE balance (account INTEGER PRIMARY KEY, cents INTEGER NOT NULL)", []).map(drop)
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let upsert = "INSERT INTO balance (account, cents) VALUES (?1, 1)
                      ON CONFLICT (account) DO UPDATE SET cents = cents + 1";
        tx.execute(upsert, [event.position().as_i64() % 100]).map(drop)
    }
}

/// The memory engine: only the code shared by all engines is measured.
fn wake_up(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be started");
    let store = Store::from(MemoryStore::new());
    let stream = store.open_stream("account-watched").expect("the name is valid");
    let mut watch = runtime.block_on(async { stream.watch().await }).expect("a stream can be watched");
    criterion.bench_function("watch wake-up", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let event = CandidateEvent::new("n", "1").expect("the name is valid");
                stream.write(event, ExpectedVersion::Any).await.expect("the store can be written");
                watch.next().await
            })
        });
    });
}

fn batches(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be started");
    let events: Vec<_> = (0..EVENTS).map(|n| encoded(n).expect("the codec writes it")).collect();
    let filled = || {
        let store = Store::from(MemoryStore::new());
        let stream = store.open_stream("account-one").expect("the name is valid");
        runtime.block_on(stream.write(events.clone(), ExpectedVersion::Any)).expect("the store can be written");
        store
    };
    let mut group = criterion.benchmark_group("projection of 1000 events");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("state in memory", |bencher| {
        // A new store each time: the state is saved in it, and the next run would start at the end.
        bencher.iter_batched(
            filled,
            |store| {
                let model = StateModel::new(&store);
                runtime.block_on(Projection::new(&store, InMemory, model).catch_up()).expect("it catches up")
            },
            BatchSize::SmallInput,
        );
    });
    let store = filled();
    group.bench_function("upserts in SQLite", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let model = SqliteModel::in_memory().await.expect("SQLite can be started");
            Projection::new(&store, InRows, model).catch_up().await.expect("it catches up")
        });
    });
    group.finish();
}

criterion_group!(benches, wake_up, batches);
criterion_main!(benches);
