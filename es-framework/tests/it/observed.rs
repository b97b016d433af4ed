//! What an observer is told, and what it cannot do to a store.

use std::sync::{Arc, Mutex};

use es_framework::observe::{
    AppendOutcome, AppendReport, ExecuteOutcome, ExecuteReport, LoadReport, Observer, SnapshotResult,
};
use es_framework::testing::{Call, Fault, FaultPlan, FaultyEngine};
use es_framework::{
    Aggregate, Apply, CandidateEvent, Envelope, Event, EventId, ExpectedVersion, MemoryStore, Repository, Store,
    commands,
};
use serde::{Deserialize, Serialize};

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Notes {
    appended: Mutex<Vec<AppendReport>>,
    executed: Mutex<Vec<ExecuteReport>>,
    loaded: Mutex<Vec<LoadReport>>,
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
}

fn observed(store: &Store) -> Arc<Notes> {
    let notes = Arc::new(Notes::default());
    store.observe(notes.clone()).unwrap();
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
