//! What an observer is told, and what it cannot do to a store.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails, as inside a test")]

use std::sync::{Arc, Mutex};

use es_framework::observe::{
    AppendOutcome, AppendReport, BatchBegins, BatchReport, ExecuteOutcome, ExecuteReport, FailureReport, LoadReport,
    Observer, SnapshotResult, TraceContext,
};
use es_framework::testing::{Call, Fault, FaultPlan, FaultyEngine};
use es_framework::{
    Aggregate, Apply, CandidateEvent, Envelope, Event, EventId, ExpectedVersion, MemoryStore, Policy, Projection,
    Projector, Provenance, Recorded, Repository, StateModel, StateTx, Store, commands,
};
use serde::{Deserialize, Serialize};

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Notes {
    appended: Mutex<Vec<AppendReport>>,
    executed: Mutex<Vec<ExecuteReport>>,
    loaded: Mutex<Vec<LoadReport>>,
    /// The events and the traces of each batch.
    began: Mutex<Vec<(usize, Vec<TraceContext>)>>,
    /// Consumer, events, position, and how many events it is behind.
    batches: Mutex<Vec<(String, usize, u64, u64)>>,
    failed: Mutex<Vec<(String, String)>>,
}

impl Observer for Notes {
    fn appended(&self, report: &AppendReport) {
        self.appended.lock().unwrap().push(report.clone());
    }

    fn executed(&self, report: &ExecuteReport) {
        self.executed.lock().unwrap().push(report.clone());
    }

    fn loaded(&self, report: &LoadReport) {
        self.loaded.lock().unwrap().push(report.clone());
    }

    fn batch_begins(&self, batch: &BatchBegins<'_>) {
        self.began.lock().unwrap().push((batch.events, (batch.traces)()));
    }

    fn batch(&self, report: &BatchReport<'_>) {
        let told = (report.consumer.to_owned(), report.events, report.position.get(), report.lag_events);
        self.batches.lock().unwrap().push(told);
    }

    fn failed(&self, report: &FailureReport<'_>) {
        self.failed.lock().unwrap().push((report.consumer.to_owned(), report.category.to_owned()));
    }
}

fn observed(store: &Store) -> Arc<Notes> {
    let notes = Arc::new(Notes::default());
    store.observe(Arc::<Notes>::clone(&notes)).unwrap();
    notes
}

#[derive(Debug, Clone, Event)]
#[es(name = "counted")]
struct Counted;

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, Aggregate)]
#[es(category = "counter", event = Counted, snapshot(every = 2))]
struct Counter(u32);

impl Apply for Counter {
    fn apply(&mut self, _: &Counted, _: Envelope<'_>) {
        self.0 += 1;
    }
}

struct Count(usize);

#[derive(Debug, thiserror::Error)]
#[error("that is nothing")]
struct Nothing;

#[commands(error = Nothing)]
impl Counter {
    fn count(&self, command: &Count) -> Result<Vec<Counted>, Nothing> {
        if command.0 == 0 { Err(Nothing) } else { Ok(vec![Counted; command.0]) }
    }
}

#[tokio::test]
async fn every_way_an_append_can_end_is_reported() {
    let store = Store::from(MemoryStore::new());
    let before = store.open_stream("a-1").unwrap();
    let notes = observed(&store);
    let event = || CandidateEvent::new("counted", "12").unwrap().with_id(EventId::text("e-1").unwrap());
    before.write(event(), ExpectedVersion::NoStream).await.unwrap();
    before.write(event(), ExpectedVersion::NoStream).await.unwrap();
    before.write(CandidateEvent::new("x", "").unwrap(), ExpectedVersion::NoStream).await.unwrap_err();
    let mixed = vec![event(), CandidateEvent::new("x", "").unwrap()];
    before.write(mixed, ExpectedVersion::Any).await.unwrap_err();
    store.close().await.unwrap();
    before.write(event(), ExpectedVersion::Any).await.unwrap_err();
    let busy = FaultyEngine::over(store.engine(), FaultPlan::none().at(Call::Append, 1, Fault::Busy)).store();
    busy.open_stream("a-1").unwrap().write(event(), ExpectedVersion::Any).await.unwrap_err();

    let told: Vec<_> = notes.appended.lock().unwrap().iter().map(|report| (report.events, report.outcome)).collect();
    let expected = [
        (1, AppendOutcome::Written),
        (1, AppendOutcome::AlreadyWritten),
        (1, AppendOutcome::Conflict),
        (2, AppendOutcome::Refused),
        (1, AppendOutcome::Failed),
        (1, AppendOutcome::Busy),
    ];
    assert_eq!(told, expected);
    assert_eq!(notes.appended.lock().unwrap()[0].bytes, 5, "payload and id");
}

#[tokio::test]
async fn commands_and_loads_are_reported() {
    let store = Store::from(MemoryStore::new());
    let notes = observed(&store);
    let counters = Repository::<Counter>::new(&store);
    counters.execute("a", Count(3)).await.unwrap();
    counters.execute("a", Count(0)).await.unwrap_err();
    counters.snapshots_settled().await;
    // Another writer, of which this repository's cache does not know.
    Repository::<Counter>::new(&store).execute("a", Count(1)).await.unwrap();
    counters.execute("a", Count(1)).await.unwrap();

    let executed = notes.executed.lock().unwrap().clone();
    let told: Vec<_> = executed.iter().map(|it| (it.outcome, it.events, it.conflicts, it.cached)).collect();
    let expected = [
        (ExecuteOutcome::Executed, 3, 0, Some(false)),
        (ExecuteOutcome::Rejected, 0, 0, Some(true)),
        (ExecuteOutcome::Executed, 1, 0, Some(false)),
        (ExecuteOutcome::Executed, 1, 1, Some(true)),
    ];
    assert_eq!(told, expected);
    assert!(executed.iter().all(|report| report.category == "counter"));

    let loaded = notes.loaded.lock().unwrap().clone();
    let told: Vec<_> = loaded.iter().map(|it| (it.events_replayed, it.snapshot, it.is_ok)).collect();
    let expected = [
        (0, SnapshotResult::Missing, true),
        // The rejection is confirmed by an append of no events and needs no load; the other repository starts from
        // the snapshot at version 3; the first one brings its own state up to date.
        (0, SnapshotResult::Used, true),
        (1, SnapshotResult::NotAsked, true),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_load_that_fails_is_reported() {
    let store = Store::from(MemoryStore::new());
    let notes = observed(&store);
    let unknown = CandidateEvent::new("unheard-of", "").unwrap();
    store.open_stream("counter-a").unwrap().write(unknown, ExpectedVersion::Any).await.unwrap();
    let counters = Repository::<Counter>::new(&store);
    counters.load("a").await.unwrap_err();
    counters.execute("a", Count(1)).await.unwrap_err();
    assert!(notes.loaded.lock().unwrap().iter().all(|report| !report.is_ok));
    assert_eq!(notes.executed.lock().unwrap()[0].outcome, ExecuteOutcome::Failed);
}

struct Counts;

impl Projector for Counts {
    type Event = Counted;
    type Model = StateModel<Counter>;
    type Error = Nothing;
    const NAME: &'static str = "counts";

    fn project(&self, event: &Recorded<Counted>, counter: &mut StateTx<'_, Counter>) -> Result<(), Nothing> {
        counter.0 += 1;
        if event.aggregate_id() == "bad" { Err(Nothing) } else { Ok(()) }
    }
}

#[tokio::test]
async fn batches_and_failures_of_consumers_are_reported() {
    let store = Store::from(MemoryStore::new());
    let notes = observed(&store);
    let trace = |n: u64| format!("00-0af7651916cd43dd8448eb211c80319c-{n:016x}-01");
    for n in [1, 1, 2] {
        let metadata = Provenance::new().traceparent(trace(n)).tracestate("vendor=1").to_metadata().unwrap();
        let event = Counted.encode().unwrap().with_metadata(metadata);
        store.open_stream("counter-a").unwrap().write(event, ExpectedVersion::Any).await.unwrap();
    }
    let small = FaultyEngine::over(store.engine(), FaultPlan::none()).page_events(2).store();
    let model = StateModel::new(&store);
    Projection::new(&small, Counts, model.clone()).catch_up().await.unwrap();
    let of = |n| TraceContext::new(trace(n), Some("vendor=1".to_owned()));
    assert_eq!(*notes.began.lock().unwrap(), [(2, vec![of(1)]), (1, vec![of(2)])]);
    let batches = notes.batches.lock().unwrap().clone();
    assert_eq!(batches, [("counts".to_owned(), 2, 2, 1), ("counts".to_owned(), 1, 3, 0)]);

    store.open_stream("counter-bad").unwrap().write(Counted.encode().unwrap(), ExpectedVersion::Any).await.unwrap();
    let counts = Projection::new(&store, Counts, model).policy(Policy::stop_at_once());
    counts.catch_up().await.unwrap_err();
    assert_eq!(*notes.failed.lock().unwrap(), [("counts".to_owned(), "user code".to_owned())]);
    assert_eq!(notes.batches.lock().unwrap().len(), 2, "a batch of which nothing was applied is not reported");
}

/// The events before the culprit took effect, and were not reported.
#[tokio::test]
async fn what_is_applied_before_a_poison_event_is_reported() {
    let store = Store::from(MemoryStore::new());
    let notes = observed(&store);
    for stream in ["counter-a", "counter-b", "counter-bad", "counter-c"] {
        let counted = Counted.encode().unwrap();
        store.open_stream(stream).unwrap().write(counted, ExpectedVersion::Any).await.unwrap();
    }
    let counts = Projection::new(&store, Counts, StateModel::new(&store)).policy(Policy::stop_at_once());
    counts.catch_up().await.unwrap_err();
    assert_eq!(*notes.batches.lock().unwrap(), [("counts".to_owned(), 2, 2, 2)]);
}

#[tokio::test]
async fn a_batch_names_no_more_than_32_traces() {
    let store = Store::from(MemoryStore::new());
    let notes = observed(&store);
    for n in 1..=40_u64 {
        let traced = Provenance::new().traceparent(format!("{n}")).to_metadata().unwrap();
        let event = Counted.encode().unwrap().with_metadata(traced);
        store.open_stream("counter-a").unwrap().write(event, ExpectedVersion::Any).await.unwrap();
    }
    Projection::new(&store, Counts, StateModel::new(&store)).catch_up().await.unwrap();
    let began = notes.began.lock().unwrap();
    assert_eq!((began[0].0, began[0].1.len()), (40, BatchBegins::MAX_TRACES));
}

#[derive(Debug)]
struct Panics;

impl Observer for Panics {
    fn appended(&self, _: &AppendReport) {
        panic!("of the observer");
    }

    fn executed(&self, _: &ExecuteReport) {
        panic!("of the observer");
    }

    fn loaded(&self, _: &LoadReport) {
        panic!("of the observer");
    }
}

#[tokio::test]
async fn an_observer_that_panics_does_no_harm() {
    let store = Store::from(MemoryStore::new());
    store.observe(Arc::new(Panics)).unwrap();
    let counters = Repository::<Counter>::new(&store);
    for version in 1..=3 {
        assert_eq!(counters.execute("a", Count(1)).await.unwrap().version.get(), version);
    }
    assert_eq!(counters.load("a").await.unwrap().state.0, 3);
}

#[tokio::test]
async fn a_store_has_one_observer_whichever_handle_is_used() {
    let store = MemoryStore::new();
    let notes = observed(&store);
    store.observe(Arc::new(Notes::default())).unwrap_err();
    let wrapped = FaultyEngine::over(store.engine(), FaultPlan::none()).store();
    wrapped.observe(Arc::new(Notes::default())).unwrap_err();
    let stream = wrapped.open_stream("a-1").unwrap();
    stream.write(CandidateEvent::new("x", "").unwrap(), ExpectedVersion::Any).await.unwrap();
    assert_eq!(notes.appended.lock().unwrap().len(), 1);
}
