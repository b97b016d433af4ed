//! Micro-benchmarks of writing: appends of one, of many, with ids, and commands. `cargo bench -p benches --bench
//! write`.

use std::hint::black_box;
use std::sync::Arc;

use benches::domain::{Account, Deposit, encoded};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use es_framework::{CandidateEvent, Event, EventId, EventType, ExpectedVersion, Repository};
use es_sqlite::{Durability, SqliteStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A store on the disk, without waiting for flushes: only our own work is measured.
fn store(runtime: &Runtime) -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("store.db");
    let opened = runtime.block_on(SqliteStore::builder().durability(Durability::Normal).open(path));
    (folder, opened.expect("a new store can be opened"))
}

fn appends(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be started");
    let (_folder, store) = store(&runtime);
    let event_type = Arc::new(EventType::new("account.deposited", 1, "raw").expect("the name is valid"));
    let event = || CandidateEvent::of_type(Arc::clone(&event_type), vec![7; 100]);
    let mut group = criterion.benchmark_group("append");
    let mut ids = 0_u64;
    for count in [1, 16, 1_000] {
        let stream = store.open_stream(format!("plain-{count}")).expect("the name is valid");
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} events"), |bencher| {
            bencher.to_async(&runtime).iter_batched(
                || (0..count).map(|_| event()).collect::<Vec<_>>(),
                |events| stream.write(events, ExpectedVersion::Any),
                BatchSize::SmallInput,
            );
        });
    }
    let stream = store.open_stream("ids-1").expect("the name is valid");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1000 events with ids", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || {
                let id = |n| EventId::text(format!("event-{n:06}")).expect("the id is valid");
                ids += 1_000;
                (ids..ids + 1_000).map(|n| event().with_id(id(n))).collect::<Vec<_>>()
            },
            |events| stream.write(events, ExpectedVersion::Any),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn commands(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be started");
    let (_folder, store) = store(&runtime);
    let warm = Repository::<Account>::new(&store);
    let cold = Repository::<Account>::builder(&store).cache(0).build();
    let mut group = criterion.benchmark_group("repository execute");
    group.bench_function("state in memory", |bencher| {
        bencher.to_async(&runtime).iter(|| async { warm.execute("warm", Deposit { cents: 1 }).await });
    });
    let seed = || encoded(1).expect("the codec writes it");
    let stream = store.open_stream("account-cold").expect("the name is valid");
    let hundred: Vec<_> = (0..100).map(|_| seed()).collect();
    runtime.block_on(stream.write(hundred, ExpectedVersion::Any)).expect("the store can be written");
    group.bench_function("load of 100 events and more", |bencher| {
        bencher.to_async(&runtime).iter(|| async { cold.execute("cold", Deposit { cents: 1 }).await });
    });
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let event = benches::domain::deposited(7);
    criterion.bench_function("encode", |bencher| bencher.iter(|| black_box(&event).encode()));
}

criterion_group!(benches, appends, commands, encode);
criterion_main!(benches);
