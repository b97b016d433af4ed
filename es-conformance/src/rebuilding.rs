//! H4, H16: states that are built anew while the old ones answer, and projectors that have changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use es_framework::{
    ConsumerState, Event, ExpectedVersion, OnChange, Position, Projection, Projector, Recorded, RunError, Running,
    StateModel, StateTx, Status, Store,
};
use serde::{Deserialize, Serialize};

use crate::bank::AccountEvent;
use crate::fixture::{Durable, Fixture};
use crate::support::{PATIENCE, stream, within};

/// The number of events, and what they count for: each of them for the version of the projector.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    events: u64,
    counted: u64,
}

#[derive(Debug, Default, Clone)]
struct Counting<const V: u32> {
    projected: Arc<AtomicU64>,
    /// The event at which it is stuck until it is 0 again.
    stuck_at: Arc<AtomicU64>,
}

impl<const V: u32> Projector for Counting<V> {
    type Event = AccountEvent;
    type Model = StateModel<Count>;
    type Error = std::convert::Infallible;
    const NAME: &'static str = "counting";
    const VERSION: u32 = V;

    fn project(&self, _: &Recorded<AccountEvent>, count: &mut StateTx<'_, Count>) -> Result<(), Self::Error> {
        let projected = self.projected.fetch_add(1, Ordering::SeqCst) + 1;
        while self.stuck_at.load(Ordering::SeqCst) != 0 && projected >= self.stuck_at.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        count.events += 1;
        count.counted += u64::from(V);
        Ok(())
    }
}

async fn deposit(store: &Store, events: usize) -> Position {
    let event = AccountEvent::Deposited { cents: 1 }.encode().expect("it encodes");
    stream(store, "account-a").write(vec![event; events], ExpectedVersion::Any).await.expect("it writes").position
}

async fn until(what: &str, running: &Running, holds: impl Fn(&Status) -> bool + Send + Sync) {
    let wait = async {
        while !holds(&running.status()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(what, wait).await;
}

fn seen(model: &StateModel<Count>) -> (u64, u64) {
    model.read(|count| (count.events, count.counted))
}

/// While a state is built anew the old one answers and goes on, and it is replaced at once; the running projection goes
/// on with the new one. Readers never see a mixture, nor the past.
pub async fn h4_a_state_is_replaced_at_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let last = deposit(&store, 3_000).await;
    let live = Projection::new(&store, Counting::<1>::default(), model.clone()).start().await.expect("it starts");
    live.wait_for(last, PATIENCE).await.expect("it gets there");
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (model, done) = (model.clone(), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut before = 0;
            while !done.load(Ordering::SeqCst) {
                let (events, counted) = seen(&model);
                assert_eq!(events, counted, "of one generation");
                assert!(events >= before, "it never goes back");
                before = events;
                std::thread::yield_now();
            }
        })
    };
    for round in 1..=3 {
        let projector = Counting::<1>::default();
        projector.stuck_at.store(1_500, Ordering::SeqCst);
        let rebuild = Projection::new(&store, projector.clone(), model.clone()).rebuild().await.expect("it starts");
        until("it is on its way", &rebuild, |_| projector.projected.load(Ordering::SeqCst) >= 1_500).await;
        assert_eq!(rebuild.status().state, ConsumerState::Rebuilding);
        let last = deposit(&store, 10).await;
        live.wait_for(last, PATIENCE).await.expect("the old one goes on");
        assert_eq!(seen(&model).0, 3_000 + 20 * round - 10);
        projector.stuck_at.store(0, Ordering::SeqCst);
        let last = deposit(&store, 10).await;
        let position = within("it ends", rebuild.finished()).await.expect("it ends well");
        assert!(position >= Position::new(3_000), "at {position}");
        live.wait_for(last, PATIENCE).await.expect("it goes on with the new one");
        assert_eq!(seen(&model).0, 3_000 + 20 * round);
    }
    done.store(true, Ordering::SeqCst);
    reader.join().expect("no panic");
    live.stop().await.expect("it stops");
}

/// A state that another version of its projector has built is noticed. By default it does not start.
pub async fn h16_a_changed_version_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    deposit(&store, 100).await;
    Projection::new(&store, Counting::<1>::default(), model).catch_up().await.expect("it catches up");
    for _ in 0..2 {
        let model = StateModel::new(&store);
        let refused = Projection::new(&store, Counting::<2>::default(), model).catch_up().await;
        let refused = refused.expect_err("it is of another version");
        assert!(matches!(&refused, RunError::ProjectorChanged { .. }), "{refused:?}");
        assert!(refused.to_string().contains("version 1"), "{refused}");
    }
    let model = StateModel::new(&store);
    Projection::new(&store, Counting::<1>::default(), model.clone()).catch_up().await.expect("it is the same");
    assert_eq!(seen(&model), (100, 100));
}

/// A changed version builds the state anew, beside the old one or in place.
pub async fn h16_a_changed_version_builds_its_state_anew(fixture: &impl Fixture) {
    for on_change in [OnChange::Beside, OnChange::InPlace] {
        let store = fixture.open().await;
        let first = deposit(&store, 3_000).await;
        let model = StateModel::new(&store);
        Projection::new(&store, Counting::<1>::default(), model).catch_up().await.expect("it catches up");
        let model = StateModel::new(&store);
        let projector = Counting::<2>::default();
        projector.stuck_at.store(1_500, Ordering::SeqCst);
        let changed = Projection::new(&store, projector.clone(), model.clone()).on_change(on_change);
        let running = changed.start().await.expect("it starts");
        until("it is on its way", &running, |_| projector.projected.load(Ordering::SeqCst) >= 1_500).await;
        if on_change == OnChange::Beside {
            assert_eq!(seen(&model), (3_000, 3_000), "the old one answers");
            assert!(running.position() < first, "what is built is not seen yet");
        }
        projector.stuck_at.store(0, Ordering::SeqCst);
        let last = deposit(&store, 5).await;
        running.wait_for(last, PATIENCE).await.expect("it gets there");
        assert_eq!(seen(&model), (3_005, 6_010));
        until("it is live", &running, |status| status.state == ConsumerState::Live).await;
        running.stop().await.expect("it stops");
        let model = StateModel::new(&store);
        Projection::new(&store, Counting::<2>::default(), model.clone()).catch_up().await.expect("it is the same");
        assert_eq!(seen(&model), (3_005, 6_010));
    }
}

/// A rebuild that was stopped goes on where it was, also after the store was closed.
pub async fn h4_a_rebuild_survives_a_reopening(fixture: &impl Durable) {
    let mut store = fixture.open().await;
    deposit(&store, 9_000).await;
    let model = StateModel::new(&store);
    Projection::new(&store, Counting::<1>::default(), model.clone()).catch_up().await.expect("it catches up");
    let projector = Counting::<1>::default();
    projector.stuck_at.store(4_500, Ordering::SeqCst);
    let rebuild = Projection::new(&store, projector.clone(), model).rebuild().await.expect("it starts");
    until("it is on its way", &rebuild, |status| status.rebuilt >= Some(Position::new(3_000))).await;
    let stopping = {
        let rebuild = rebuild.clone();
        tokio::spawn(async move { rebuild.stop().await.map(drop) })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    projector.stuck_at.store(0, Ordering::SeqCst);
    stopping.await.expect("no panic").expect("it stops");
    let before = projector.projected.load(Ordering::SeqCst);
    assert!(before < 9_000, "it was stopped on its way, after {before} events");
    store = fixture.reopen(store).await;
    let model = StateModel::new(&store);
    let rebuild = Projection::new(&store, projector.clone(), model.clone()).rebuild().await.expect("it starts");
    within("it ends", rebuild.finished()).await.expect("it ends well");
    assert_eq!(projector.projected.load(Ordering::SeqCst), 9_000, "no event was projected twice");
    assert_eq!(seen(&model), (9_000, 9_000));
}
