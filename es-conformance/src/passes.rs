//! H4: several read models that are built anew in one pass over the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use es_framework::{
    Backoff, ConsumerState, Event, ExpectedVersion, Filter, Policy, Position, Projection, Projector, Recorded,
    StateModel, StateTx, Store,
};
use serde::{Deserialize, Serialize};

use crate::bank::AccountEvent;
use crate::fixture::{Durable, Fixture};
use crate::meddling::Meddling;
use crate::support::{PATIENCE, stream, within};

/// What was folded: the number of events, and a value that depends on each of them and on their order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Trail {
    events: u64,
    digest: u64,
}

#[derive(Debug, Default, Clone)]
struct Trailing {
    projected: Arc<AtomicU64>,
    /// The position of an event that it cannot process, if not 0.
    refuses: Arc<AtomicU64>,
}

impl Trailing {
    fn refusing(position: u64) -> Self {
        Self { refuses: Arc::new(AtomicU64::new(position)), ..Self::default() }
    }
}

impl Projector for Trailing {
    type Event = AccountEvent;
    type Model = StateModel<Trail>;
    type Error = &'static str;
    const NAME: &'static str = "trailing";

    fn project(&self, event: &Recorded<AccountEvent>, trail: &mut StateTx<'_, Trail>) -> Result<(), &'static str> {
        if event.position() == self.refuses.load(Ordering::SeqCst) {
            return Err("it is refused");
        }
        self.projected.fetch_add(1, Ordering::SeqCst);
        trail.events += 1;
        trail.digest = trail.digest.wrapping_mul(31).wrapping_add(event.position().get());
        Ok(())
    }
}

const EVENTS: u64 = 8_000;

/// Writes to two accounts in turn.
async fn fill(store: &Store) -> Position {
    let mut last = Position::ZERO;
    for round in 0..40 {
        let account = if round % 2 == 0 { "account-a" } else { "account-b" };
        let event = AccountEvent::Deposited { cents: 1 }.encode().expect("it encodes");
        let events = vec![event; usize::try_from(EVENTS).expect("it is small") / 40];
        last = stream(store, account).write(events, ExpectedVersion::Any).await.expect("it writes").position;
    }
    last
}

fn all(store: &Store, projector: &Trailing, model: &StateModel<Trail>) -> Projection<Trailing> {
    Projection::new(store, projector.clone(), model.clone()).named("all").policy(Policy::stop_at_once())
}

fn of_one(store: &Store, projector: &Trailing, model: &StateModel<Trail>) -> Projection<Trailing> {
    all(store, projector, model).named("one").filter(Filter::new().stream_prefix("account-b"))
}

fn seen(model: &StateModel<Trail>) -> Trail {
    model.read(|trail| *trail)
}

/// What each of them is when it is built alone.
async fn alone(store: &Store) -> (Trail, Trail) {
    let models = [StateModel::new(store), StateModel::new(store)];
    let fresh = Trailing::default();
    all(store, &fresh, &models[0]).named("all-alone").catch_up().await.expect("it catches up");
    of_one(store, &fresh, &models[1]).named("one-alone").catch_up().await.expect("it catches up");
    (seen(&models[0]), seen(&models[1]))
}

/// Two projections that are built anew together read the log once, are what they are when they are built alone, and say
/// how they get on.
pub async fn h4_rebuilds_share_one_reading_of_the_log(fixture: &impl Fixture) {
    let plain = fixture.open().await;
    fill(&plain).await;
    let expected = alone(&plain).await;
    let read = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&read);
    let store = Meddling::with(&plain)
        .change_page(move |page| {
            counted.fetch_add(page.events.len() as u64, Ordering::SeqCst);
            page
        })
        .into_store();
    let models = [StateModel::new(&store), StateModel::new(&store), StateModel::new(&store)];
    let fresh = Trailing::default();
    let rebuilds = store
        .rebuilds()
        .add(all(&store, &fresh, &models[0]))
        .add(of_one(&store, &fresh, &models[1]))
        .add(all(&store, &fresh, &models[2]).named("another"))
        .start()
        .await;
    within("all end", rebuilds.finished()).await.expect("they end well");
    assert_eq!((seen(&models[0]), seen(&models[1])), expected);
    assert_eq!(seen(&models[2]), expected.0);
    let read = read.load(Ordering::SeqCst);
    assert!((EVENTS..EVENTS + 100).contains(&read), "{read} events were read, of {EVENTS}");
    for name in ["all~rebuild", "one~rebuild"] {
        let status = rebuilds.get(name).expect("it was started").status();
        assert_eq!(status.state, ConsumerState::Stopped);
        let progress = status.rebuild.expect("it was built anew");
        assert_eq!((progress.done, progress.total), (EVENTS, EVENTS));
        assert!(progress.per_second > 0.0 && progress.left == Some(Duration::ZERO), "{progress:?}");
    }
}

/// One that fails, one that waits before it tries an event again, and one that is paused keep no other from its end. The
/// last two go on when they can.
pub async fn h4_a_rebuild_that_is_kept_up_keeps_no_other_up(fixture: &impl Fixture) {
    let store = fixture.open().await;
    fill(&store).await;
    let expected = alone(&store).await;
    let models: Vec<StateModel<Trail>> = (0..4).map(|_| StateModel::new(&store)).collect();
    let (fresh, failing, waiting) = (Trailing::default(), Trailing::refusing(2_001), Trailing::refusing(1_001));
    let hours = Duration::from_secs(100 * 3600);
    let mut policy = Policy::default();
    policy.user_code = Backoff::new(2, hours, hours);
    let rebuilds = store
        .rebuilds()
        .add(all(&store, &failing, &models[0]).named("failing"))
        .add(all(&store, &waiting, &models[1]).named("waiting").policy(policy))
        .add(all(&store, &fresh, &models[2]).named("paused"))
        .add(of_one(&store, &fresh, &models[3]))
        .start()
        .await;
    let running = |name: &str| rebuilds.get(&format!("{name}~rebuild")).expect("it was started").clone();
    let paused = running("paused");
    // It may have ended before.
    let was_paused = paused.pause().await.is_ok();
    within("it ends", running("one").finished()).await.expect("it ends well");
    assert_eq!(seen(&models[3]), expected.1);
    let failed = within("it fails", running("failing").finished()).await.expect_err("it cannot go on");
    assert!(failed.to_string().contains("2001"), "{failed}");
    if was_paused {
        paused.resume().await.expect("it was paused");
    }
    within("it ends", paused.finished()).await.expect("it ends well");
    assert_eq!(seen(&models[2]), expected.0);
    assert_eq!(running("waiting").status().state, ConsumerState::Retrying);
    waiting.refuses.store(0, Ordering::SeqCst);
    rebuilds.stop(PATIENCE).await.expect_err("one has failed");
    let again = all(&store, &waiting, &models[1]).named("waiting").rebuild().await.expect("it starts");
    within("it ends", again.finished()).await.expect("it ends well");
    assert_eq!(seen(&models[1]), expected.0);
}

/// Those that have got to different positions go on where they were, together, also after the store was closed.
pub async fn h4_rebuilds_go_on_together_after_a_reopening(fixture: &impl Durable) {
    let mut store = fixture.open().await;
    fill(&store).await;
    let expected = alone(&store).await;
    let projectors = [Trailing::refusing(2_001), Trailing::refusing(5_401)];
    let mut models = [StateModel::new(&store), StateModel::new(&store)];
    for run in 1..=2 {
        let rebuilds = store
            .rebuilds()
            .add(all(&store, &projectors[0], &models[0]))
            .add(of_one(&store, &projectors[1], &models[1]))
            .start()
            .await;
        let ended = within("all end", rebuilds.finished()).await;
        if run == 2 {
            ended.expect("they end well");
            break;
        }
        assert_eq!(ended.expect_err("both are refused something").failed.len(), 2);
        drop(rebuilds);
        store = fixture.reopen(store).await;
        models = [StateModel::new(&store), StateModel::new(&store)];
        for projector in &projectors {
            projector.refuses.store(0, Ordering::SeqCst);
            projector.projected.store(0, Ordering::SeqCst);
        }
    }
    let projected = projectors.each_ref().map(|projector| projector.projected.load(Ordering::SeqCst));
    // Seven writes to its account follow the event that was refused first.
    assert_eq!(projected, [EVENTS - 2_000, 7 * EVENTS / 40], "no event was projected twice");
    assert_eq!((seen(&models[0]), seen(&models[1])), expected);
}
