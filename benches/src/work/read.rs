//! W6 and W7: loads of aggregates and reads of `@all`, and the store they read.

use std::hint::black_box;
use std::time::{Duration, Instant};

use es_framework::{Aggregate, Apply, Event, ExpectedVersion, Filter, Recorded, Repository};
use es_sqlite::SqliteStore;

use super::{open, path};
use crate::Result;
use crate::domain::{Account, AccountEvent, OpenedEvent, SavedAccount, encoded};
use crate::floor::{self, COLUMNS, connect};
use crate::measure::{Latency, figure};
use crate::spec::{Outcome, Side, Spec};

/// For how long loads are repeated.
const LONG_ENOUGH: Duration = Duration::from_millis(500);

/// Writes typed events in appends of 1,000: to one aggregate, and to its twin with snapshots, or spread over streams.
pub(super) async fn fill(spec: &Spec) -> Result<Outcome> {
    let store = open(spec).await?;
    let begun = Instant::now();
    let per_append = spec.per_append.max(1);
    for first in (0..spec.events).step_by(usize::try_from(per_append)?) {
        let last = spec.events.min(first + per_append);
        let events = (first..last).map(encoded).collect::<std::result::Result<Vec<_>, _>>()?;
        if spec.streams == 1 {
            store.open_stream("saved-one")?.write(events.clone(), ExpectedVersion::Any).await?;
            store.open_stream("account-one")?.write(events, ExpectedVersion::Any).await?;
        } else {
            let stream = format!("account-{}", (first / per_append) % spec.streams);
            store.open_stream(stream)?.write(events, ExpectedVersion::Any).await?;
        }
    }
    if spec.streams == 1 {
        let saved = Repository::<SavedAccount>::new(&store);
        saved.load("one").await?;
        saved.snapshots_settled().await;
        let metrics = saved.metrics();
        if metrics.snapshots_saved != 1 {
            return Err(format!("no snapshot was saved: {metrics:?}").into());
        }
    }
    store.close().await?;
    Ok(Outcome::of(spec.events, begun.elapsed().as_secs_f64()))
}

pub(super) async fn load(spec: &Spec, snapshot: bool) -> Result<Outcome> {
    match (spec.side, snapshot) {
        (Side::Engine, true) => load_engine::<SavedAccount>(spec, |account| account.deposits).await,
        (Side::Engine, false) => load_engine::<Account>(spec, |account| account.deposits).await,
        (Side::Floor, _) => load_floor(spec).await,
    }
}

async fn load_engine<A: Aggregate<Id = String> + Apply>(spec: &Spec, deposits: fn(&A) -> u64) -> Result<Outcome> {
    let store = open(spec).await?;
    let accounts = Repository::<A>::new(&store);
    // A warm-up: afterwards the file is in the system's cache and the connection is open.
    accounts.load("one").await?;
    let (mut events, mut taken) = (0, Vec::new());
    let begun = Instant::now();
    while taken.is_empty() || (begun.elapsed() < LONG_ENOUGH && taken.len() < 5_000) {
        let asked = Instant::now();
        let loaded = accounts.load("one").await?;
        taken.push(asked.elapsed());
        events += loaded.version.get();
        if deposits(&loaded.state) != spec.events - spec.events.div_ceil(100) {
            return Err("not what was written".into());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    store.close().await?;
    // With a snapshot nothing is replayed, so loads are counted instead of events.
    let count = if A::SNAPSHOTS.is_some() { taken.len() as u64 } else { events };
    Ok(Outcome::of(count, seconds).with_latency(Latency::of(taken)))
}

async fn load_floor(spec: &Spec) -> Result<Outcome> {
    let connection = connect(&path(spec), spec.mode).await?;
    let number: i64 =
        connection.query_row("SELECT id FROM es_stream WHERE name = 'account-one'", [], |row| row.get(0))?;
    let sql = format!("SELECT {COLUMNS} FROM es_event WHERE stream = ?1 ORDER BY version");
    floor::scan(&connection, &sql, [number])?;
    let (mut events, mut taken) = (0, Vec::new());
    let begun = Instant::now();
    while taken.is_empty() || (begun.elapsed() < LONG_ENOUGH && taken.len() < 5_000) {
        let asked = Instant::now();
        events += black_box(floor::scan(&connection, &sql, [number])?).0;
        taken.push(asked.elapsed());
    }
    Ok(Outcome::of(events, begun.elapsed().as_secs_f64()).with_latency(Latency::of(taken)))
}

pub(super) async fn scan(spec: &Spec, filtered: bool) -> Result<Outcome> {
    match spec.side {
        Side::Engine => {
            let store = open(spec).await?;
            // A warm-up, so that the connections are open; the file is read once by every side.
            store.all().read().limit(1).collect().await?;
            let begun = Instant::now();
            let seen = if filtered {
                scan_engine::<OpenedEvent>(&store, Filter::new().types(OpenedEvent::names())).await?
            } else {
                scan_engine::<AccountEvent>(&store, Filter::new()).await?
            };
            let seconds = begun.elapsed().as_secs_f64();
            store.close().await?;
            Ok(Outcome::of(spec.events, seconds).with_fact("decoded", figure(seen)))
        }
        Side::Floor => {
            let connection = connect(&path(spec), spec.mode).await?;
            let condition = if filtered {
                "+type IN (SELECT id FROM es_event_type WHERE name = 'account.opened')"
            } else {
                "position > 0"
            };
            let sql = format!("SELECT {COLUMNS} FROM es_event NOT INDEXED WHERE {condition} ORDER BY position");
            let begun = Instant::now();
            let seen = black_box(floor::scan(&connection, &sql, [])?).0;
            Ok(Outcome::of(spec.events, begun.elapsed().as_secs_f64()).with_fact("decoded", figure(seen)))
        }
    }
}

async fn scan_engine<E: Event>(store: &SqliteStore, filter: Filter) -> Result<u64> {
    let mut reading = store.all().read().filter(filter).stream();
    let mut seen = 0;
    while let Some(events) = reading.next_batch().await {
        for stored in events? {
            black_box(Recorded::<E>::decode(stored)?);
            seen += 1;
        }
    }
    Ok(seen)
}
