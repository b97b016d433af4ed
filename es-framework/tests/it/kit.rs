//! The testing kit: it passes what is right and finds what is broken.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails, as inside a test")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use es_framework::testing::{Call, Fault, FaultPlan, FaultyEngine, FaultyModel, OnFaulty, ProjectorLaws, caught_up};
use es_framework::{
    Bincode, CandidateEvent, Event, EventId, ExpectedVersion, MemoryStore, Position, Projection, Projector, Recorded,
    SnapshotPolicy, Snapshots, StateModel, StateTx, Store, projector_laws,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Event)]
#[es(name = "deposited")]
struct Deposited {
    cents: u64,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Balances {
    cents: BTreeMap<String, u64>,
    note: u64,
}

type Tx<'t> = StateTx<'t, Balances>;

/// A projector of which one thing can be wrong.
struct Depositing {
    /// Called for each start.
    prepare: fn(&Self, &mut Tx<'_>),
    /// Called for each event, after it was added.
    wrong: fn(&Self, &Recorded<Deposited>, &mut Tx<'_>),
    outside: Arc<AtomicU64>,
}

impl Projector for Depositing {
    type Event = Deposited;
    type Model = StateModel<Balances>;
    type Error = Infallible;
    const NAME: &'static str = "depositing";

    fn prepare(&self, tx: &mut Tx<'_>) -> Result<(), Infallible> {
        (self.prepare)(self, tx);
        Ok(())
    }

    fn project(&self, event: &Recorded<Deposited>, tx: &mut Tx<'_>) -> Result<(), Infallible> {
        *tx.cents.entry(event.aggregate_id().to_owned()).or_default() += event.cents;
        (self.wrong)(self, event, tx);
        Ok(())
    }
}

fn right() -> Depositing {
    Depositing { prepare: |_, _| {}, wrong: |_, _, _| {}, outside: Arc::default() }
}

fn events() -> Vec<(String, Deposited)> {
    (1..=9).map(|n| (format!("account-{}", n % 4), Deposited { cents: n })).collect()
}

projector_laws!(
    a_projector_that_is_right_keeps_every_law,
    projector = right(),
    model = |store| StateModel::new(store),
    events = events(),
);

projector_laws!(
    a_model_that_is_saved_often_keeps_them_too,
    projector = right(),
    model = |store| saved_often(store),
    events = events(),
);

projector_laws!(
    a_dump_may_look_at_a_part,
    projector = Depositing { wrong: |_, event, tx| tx.note = event.position().get(), ..right() },
    model = |store| StateModel::new(store),
    events = events(),
    dump = async |model: &StateModel<Balances>| model.read(|state| format!("{:?}", state.cents)),
);

fn laws(projector: impl Fn() -> Depositing + 'static) -> ProjectorLaws<Depositing> {
    ProjectorLaws::new(projector, async |store: &Store| saved_often(store), events())
}

/// A model of which something is left after a crash.
fn saved_often(store: &Store) -> StateModel<Balances> {
    let every_two = SnapshotPolicy::Every(NonZeroU64::new(2).unwrap());
    StateModel::saved_by(store, Snapshots::new::<Bincode>(every_two, 1))
}

/// Which laws a projector breaks.
fn broken(projector: impl Fn() -> Depositing + Clone + 'static) -> Vec<&'static str> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut broken = Vec::new();
    let mut check = |law, checked: &dyn Fn(ProjectorLaws<Depositing>)| {
        if catch_unwind(AssertUnwindSafe(|| checked(laws(projector.clone())))).is_err() {
            broken.push(law);
        }
    };
    check("incremental", &|laws| runtime.block_on(laws.incremental_equals_rebuild()));
    check("batches", &|laws| runtime.block_on(laws.batch_size_does_not_matter()));
    check("twice", &|laws| runtime.block_on(laws.delivered_twice_changes_nothing()));
    check("crash", &|laws| runtime.block_on(laws.a_crash_changes_nothing()));
    check("unknown", &|laws| runtime.block_on(laws.unknown_events_are_ignored()));
    broken
}

#[test]
fn a_projector_that_empties_its_model_at_each_start_is_found() {
    let empties = || Depositing { prepare: |_, tx| tx.cents.clear(), ..right() };
    assert_eq!(broken(empties), ["incremental", "twice", "crash"]);
}

#[test]
fn a_projector_that_keeps_something_in_itself_is_found() {
    let counts =
        || Depositing { wrong: |this, _, tx| tx.note = this.outside.fetch_add(1, Ordering::Relaxed) + 1, ..right() };
    assert_eq!(broken(counts), ["incremental", "twice", "crash"]);
}

#[test]
fn a_projector_with_an_effect_outside_of_its_model_is_found() {
    let outside = Arc::new(AtomicU64::new(0));
    let effects = move || Depositing {
        prepare: |this, tx| {
            if tx.cents.is_empty() {
                this.outside.store(0, Ordering::Relaxed);
            }
        },
        wrong: |this, _, tx| tx.note = this.outside.fetch_add(1, Ordering::Relaxed) + 1,
        outside: Arc::clone(&outside),
    };
    // Its effects outlive the process, so only a transaction that ran and was rolled back shows them.
    assert_eq!(broken(effects), ["twice", "crash"]);
}

#[test]
fn a_projector_that_counts_positions_is_found() {
    let positions = || Depositing { wrong: |_, event, tx| tx.note = event.position().get(), ..right() };
    assert_eq!(broken(positions), ["unknown"]);
}

/// An engine that loses what it has acknowledged.
#[tokio::test]
async fn a_fault_in_the_log_is_found_by_its_plan_and_replayed() {
    let run = async |plan: FaultPlan| {
        let faulty = FaultyEngine::over(MemoryStore::new().engine(), plan);
        let stream = faulty.store().open_stream("a-1").unwrap();
        let mut written = 0;
        for _ in 0..40 {
            let event = CandidateEvent::new("x", "").unwrap();
            written += u64::from(stream.write(event, ExpectedVersion::Any).await.is_ok());
        }
        let found = faulty.store().head().get();
        (found - written, faulty.faults().injected())
    };
    let (lost, injected) = run(FaultPlan::seeded(3).one_in(4)).await;
    assert!(lost > 0, "some answers were lost: {injected}");
    let replayed: FaultPlan = injected.to_string().parse().unwrap();
    assert_eq!(run(replayed).await, (lost, injected));
}

/// A retry under an id is the cure for lost answers, by every seed.
#[tokio::test]
async fn events_with_ids_are_written_once_by_every_seed() {
    for seed in 0..200 {
        let plan = FaultPlan::seeded(seed).one_in(2);
        let store = MemoryStore::new();
        let faulty = FaultyEngine::over(store.engine(), plan.clone());
        let stream = faulty.store().open_stream("a-1").unwrap();
        for n in 0..10 {
            let event = || CandidateEvent::new("x", "").unwrap().with_id(EventId::text(format!("{n}")).unwrap());
            while stream.write(event(), ExpectedVersion::Any).await.is_err() {}
        }
        assert_eq!(store.head().get(), 10, "{plan}: {}", faulty.faults().injected());
    }
}

#[tokio::test]
async fn a_model_whose_calls_go_wrong_by_seed_still_ends_right() {
    for seed in 0..100 {
        let store = Store::from(MemoryStore::new());
        for (stream, event) in events() {
            let stream = store.open_stream(stream.as_str()).unwrap();
            stream.write(event.encode().unwrap(), ExpectedVersion::Any).await.unwrap();
        }
        let model = StateModel::new(&store);
        let plan = FaultPlan::seeded(seed).one_in(3);
        let faulty = FaultyModel::over(model.clone(), plan.clone());
        let engine = FaultyEngine::sharing(store.engine(), faulty.faults().clone()).page_events(2);
        let mut runs = 0;
        while Projection::new(engine.store(), OnFaulty::new(right()), faulty.clone()).catch_up().await.is_err() {
            runs += 1;
            assert!(runs < 200, "{plan} comes to an end");
        }
        let sum = model.read(|state| state.cents.values().sum::<u64>());
        assert_eq!(sum, 45, "{plan}: {}", faulty.faults().injected());
    }
}

#[tokio::test]
async fn who_did_not_catch_up_is_named_with_its_reason() {
    let store = Store::from(MemoryStore::new());
    let stream = store.open_stream("account-a").unwrap();
    let position = stream.write(Deposited { cents: 1 }.encode().unwrap(), ExpectedVersion::Any).await.unwrap().position;
    let fine = Projection::new(&store, right(), StateModel::new(&store)).start().await.unwrap();
    let dies = Depositing { wrong: |_, _, _| panic!("it falls over"), ..right() };
    let policy = es_framework::Policy::stop_at_once();
    let dies = Projection::new(&store, dies, StateModel::new(&store)).named("dies").policy(policy);
    let dies = dies.start().await.unwrap();
    let error = caught_up([&fine, &dies], position, Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(error.waits.len(), 1);
    let text = error.to_string();
    assert!(text.starts_with("dies is failed at position 0, and 1 positions are missing"), "{text}");
    assert!(text.contains("it falls over"), "{text}");
    let never = caught_up([&fine], Position::new(9), Duration::from_millis(5)).await.unwrap_err();
    assert_eq!(never.to_string(), "depositing is live at position 1, and 8 positions are missing");
}

#[test]
fn faults_of_a_model_do_to_a_transaction_what_they_say() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let expected = [
        (Fault::Busy, 0, 0),
        (Fault::Io, 0, 1),
        (Fault::LostAnswer, 1, 1),
        (Fault::Crash, 0, 1),
        (Fault::CrashAfter, 1, 1),
    ];
    for (fault, committed, ran) in expected {
        runtime.block_on(async {
            let store = Store::from(MemoryStore::new());
            let stream = store.open_stream("account-a").unwrap();
            stream.write(Deposited { cents: 1 }.encode().unwrap(), ExpectedVersion::Any).await.unwrap();
            let model = StateModel::new(&store);
            let counts = Depositing { wrong: |this, _, _| this.outside.store(1, Ordering::Relaxed), ..right() };
            let outside = Arc::clone(&counts.outside);
            let faulty = FaultyModel::over(model.clone(), FaultPlan::none().at(Call::Transact, 2, fault));
            Projection::new(&store, OnFaulty::new(counts), faulty).catch_up().await.unwrap_err();
            let sum = model.read(|state| state.cents.values().sum::<u64>());
            assert_eq!((sum, outside.load(Ordering::Relaxed)), (committed, ran), "{fault}");
        });
    }
}
