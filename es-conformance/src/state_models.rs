//! H3: what readers of an in-memory state see while its projection fails: never the past, and never half of a batch.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use es_framework::{
    Bincode, Event, ExpectedVersion, Policy, Position, Projection, Projector, Recorded, RunError, SnapshotPolicy,
    Snapshots, StateModel, StateTx, Store,
};

use crate::bank::AccountEvent;
use crate::fixture::Fixture;
use crate::support::{PATIENCE, p, stream, typed, within};

/// How a projector rejects a bad event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refuses {
    /// Before it touches the state.
    Untouched,
    /// With its change half applied.
    HalfWay,
    /// The same, with a panic.
    Panicking,
}

const BAD: u64 = 13;

#[derive(Debug, Clone)]
struct Sum {
    how: Refuses,
    lenient: Arc<AtomicBool>,
    projected: Arc<AtomicU64>,
}

impl Sum {
    fn new(how: Refuses) -> Self {
        Self { how, lenient: Arc::default(), projected: Arc::default() }
    }
}

/// The number of events and their sum; equal, since every event is of one cent.
type Sums = (u64, u64);

impl Projector for Sum {
    type Event = AccountEvent;
    type Model = StateModel<Sums>;
    type Error = &'static str;
    const NAME: &'static str = "sum";

    fn project(&self, event: &Recorded<AccountEvent>, sums: &mut StateTx<'_, Sums>) -> Result<(), &'static str> {
        self.projected.fetch_add(1, Ordering::SeqCst);
        let AccountEvent::Deposited { cents } = event.event() else { return Ok(()) };
        let bad = *cents == BAD && !self.lenient.load(Ordering::SeqCst);
        if bad && self.how == Refuses::Untouched {
            return Err("it is refused");
        }
        sums.0 += 1;
        match self.how {
            Refuses::Panicking => assert!(!bad, "it is refused"),
            _ if bad => return Err("it is refused"),
            _ => {}
        }
        sums.1 += 1;
        Ok(())
    }
}

async fn deposit(store: &Store, cents: impl IntoIterator<Item = u64>) -> Position {
    let events = cents.into_iter().map(|cents| AccountEvent::Deposited { cents }.encode().expect("it encodes"));
    let events = events.collect::<Vec<_>>();
    stream(store, "account-a").write(events, ExpectedVersion::Any).await.expect("it writes").position
}

/// Reads the state repeatedly from its own thread; returns the states seen, each change once.
fn look_at(model: &StateModel<Sums>) -> impl FnOnce() -> Vec<Sums> + use<> {
    let (model, over) = (model.clone(), Arc::new(AtomicBool::new(false)));
    let until = Arc::clone(&over);
    let mut seen = vec![model.read(|sums| *sums)];
    let looks = thread::spawn(move || {
        while !until.load(Ordering::SeqCst) {
            let now = model.read(|sums| *sums);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        seen
    });
    move || {
        over.store(true, Ordering::SeqCst);
        looks.join().expect("nobody panics")
    }
}

/// A state without a snapshot whose projector rejected an event or panicked: readers saw the state of the last
/// snapshot, here the empty one, until all events were folded again, while the position stayed ahead.
pub async fn h3_readers_never_see_the_past(fixture: &impl Fixture) {
    for how in [Refuses::Untouched, Refuses::HalfWay, Refuses::Panicking] {
        let store = fixture.open().await;
        let model = StateModel::new(&store);
        let sum = Sum::new(how);
        let running = Projection::new(&store, sum.clone(), model.clone()).start().await.expect("it starts");
        for _ in 0..2 {
            let last = deposit(&store, vec![1; 2_000]).await;
            running.wait_for(last, PATIENCE).await.expect("it gets there");
        }
        let seen = look_at(&model);
        let last = deposit(&store, [1, 1, BAD, 1]).await;
        within("it fails", running.finished()).await.expect_err("it refuses");
        assert_eq!(running.position(), p(4_002), "{how:?}");
        sum.lenient.store(true, Ordering::SeqCst);
        let running = Projection::new(&store, sum, model.clone()).start().await.expect("it starts");
        running.wait_for(last, PATIENCE).await.expect("it goes on");
        running.stop().await.expect("it stops");
        let seen = seen();
        assert!(seen.is_sorted() && seen.iter().all(|(events, cents)| events == cents), "{how:?}: {seen:?}");
        assert_eq!((seen.first(), model.read(|sums| *sums)), (Some(&(4_000, 4_000)), (4_004, 4_004)));
    }
}

/// A projection failed at an event that never touched the state, which was discarded anyway and folded again.
pub async fn h3_a_state_that_was_not_touched_is_not_folded_again(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let sum = Sum::new(Refuses::Untouched);
    let projection = Projection::new(&store, sum.clone(), model.clone()).policy(Policy::stop_at_once());
    let running = projection.start().await.expect("it starts");
    let last = deposit(&store, vec![1; 100]).await;
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    deposit(&store, [BAD]).await;
    within("it fails", running.finished()).await.expect_err("it refuses");
    assert_eq!(sum.projected.load(Ordering::SeqCst), 101);
    // Once more from the start: the state is still there.
    sum.lenient.store(true, Ordering::SeqCst);
    let unreadable = typed("account.deposited", "no such payload, and far too long for one");
    stream(&store, "account-a").write(unreadable, ExpectedVersion::Any).await.expect("it writes");
    let error = Projection::new(&store, sum.clone(), model.clone()).catch_up().await.expect_err("it is unreadable");
    assert!(matches!(error, RunError::Decode(_)), "{error:?}");
    assert_eq!((sum.projected.load(Ordering::SeqCst), model.read(|sums| *sums)), (102, (101, 101)));
}

/// However much was folded since the last snapshot, and whether or not snapshots are taken at all, a batch that fails
/// is rolled back.
pub async fn h3_a_batch_is_taken_back_whenever_the_state_was_saved(fixture: &impl Fixture) {
    let never: SnapshotPolicy<Sums> = SnapshotPolicy::When(|_, _| false);
    for policy in
        [never, SnapshotPolicy::Every(NonZeroU64::MIN), SnapshotPolicy::Every(NonZeroU64::MIN.saturating_add(999))]
    {
        let store = fixture.open().await;
        let model = StateModel::saved_by(&store, Snapshots::new::<Bincode>(policy, 1));
        let running =
            Projection::new(&store, Sum::new(Refuses::HalfWay), model.clone()).start().await.expect("it starts");
        let mut last = Position::ZERO;
        for _ in 0..4 {
            last = deposit(&store, vec![1; 4_500]).await;
        }
        running.wait_for(last, PATIENCE).await.expect("it gets there");
        let seen = look_at(&model);
        deposit(&store, [1, BAD]).await;
        within("it fails", running.finished()).await.expect_err("it refuses");
        let seen = seen();
        assert!(seen == [(18_000, 18_000)] || seen == [(18_000, 18_000), (18_001, 18_001)], "{seen:?}");
        assert_eq!((model.read(|sums| *sums), running.position()), ((18_001, 18_001), p(18_001)));
    }
}
