//! Micro-benchmarks of reading: a page from SQLite, decoding, folding, a load with a snapshot. `cargo bench -p benches
//! --bench read`.

use std::hint::black_box;

use benches::domain::{Account, AccountEvent, SavedAccount, encoded};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use es_framework::engine::Read;
use es_framework::{Apply, Envelope, Event, ExpectedVersion, Repository, StreamId};
use es_sqlite::SqliteStore;
use tokio::runtime::Runtime;

const EVENTS: u64 = 1_000;

fn parts(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be started");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let store = runtime.block_on(SqliteStore::open(folder.path().join("store.db"))).expect("a new store can be opened");
    for stream in ["account-one", "saved-one"] {
        let events: Vec<_> = (0..EVENTS).map(|n| encoded(n).expect("the codec writes it")).collect();
        let stream = store.open_stream(stream).expect("the name is valid");
        runtime.block_on(stream.write(events, ExpectedVersion::Any)).expect("the store can be written");
    }
    let all = || Read::new(StreamId::all());
    let one = || Read::new(StreamId::new("account-one").expect("the name is valid"));

    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("page of @all", |bencher| {
        bencher.to_async(&runtime).iter(|| store.engine().read(all()));
    });
    group.bench_function("page of a stream", |bencher| {
        bencher.to_async(&runtime).iter(|| store.engine().read(one()));
    });
    let page = runtime.block_on(store.engine().read(one())).expect("the store can be read").events;
    group.bench_function("decode", |bencher| {
        bencher.iter(|| page.iter().for_each(|stored| drop(black_box(AccountEvent::decode(stored)))));
    });
    let decoded: Vec<_> = page.iter().map(|stored| AccountEvent::decode(stored).expect("it was encoded")).collect();
    group.bench_function("fold", |bencher| {
        bencher.iter(|| {
            let mut account = Account::default();
            page.iter().zip(&decoded).for_each(|(stored, event)| account.apply(event, Envelope::of(stored)));
            account
        });
    });
    group.finish();

    let saved = Repository::<SavedAccount>::new(&store);
    runtime.block_on(async {
        saved.load("one").await.expect("the store can be read");
        saved.snapshots_settled().await;
    });
    criterion.bench_function("load with a snapshot", |bencher| {
        bencher.to_async(&runtime).iter(|| saved.load("one"));
    });
}

criterion_group!(benches, parts);
criterion_main!(benches);
