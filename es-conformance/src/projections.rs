//! H: projections over an engine, with their state in memory.
//!
//! Facts specific to read models in a database are in that engine's own suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use es_framework::{
    ConsumerState, Criterion, ErrorKind, Event, ExpectedVersion, Filter, ModelError, Position, Projection, Projector,
    Recorded, Repository, RunError, StateModel, StateTx, Store, WaitError,
};
use serde::{Deserialize, Serialize};

use crate::bank::{Account, AccountEvent, Deposit};
use crate::fixture::{Durable, Fixture, Shared};
use crate::support::{PATIENCE, id, p, stream, tag, typed, within, write};

/// What the projector of these facts builds: the positions of all its events, in order, and a sum.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Total {
    cents: u64,
    positions: Vec<u64>,
}

/// Sums up deposits; can be told to fail or panic at an amount.
#[derive(Debug, Default, Clone)]
struct Totals {
    refuses: Arc<AtomicU64>,
    panics: Arc<AtomicBool>,
    projected: Arc<AtomicU64>,
}

#[derive(Debug, thiserror::Error)]
#[error("no {0} cents")]
struct Refused(u64);

impl Projector for Totals {
    type Event = AccountEvent;
    type Model = StateModel<Total>;
    type Error = Refused;
    const NAME: &'static str = "totals";

    fn project(&self, event: &Recorded<AccountEvent>, total: &mut StateTx<'_, Total>) -> Result<(), Refused> {
        self.projected.fetch_add(1, Ordering::SeqCst);
        total.positions.push(event.position().get());
        if let AccountEvent::Deposited { cents } = event.event() {
            total.cents += cents;
            if self.refuses.load(Ordering::SeqCst) == *cents {
                assert!(!self.panics.load(Ordering::SeqCst), "the projector breaks");
                return Err(Refused(*cents));
            }
        }
        Ok(())
    }
}

async fn deposit(store: &Store, account: &str, cents: impl IntoIterator<Item = u64>) -> Position {
    let events = cents.into_iter().map(|cents| AccountEvent::Deposited { cents }.encode().expect("it encodes"));
    let events = events.collect::<Vec<_>>();
    stream(store, account).write(events, ExpectedVersion::Any).await.expect("it writes").position
}

fn ascending(total: &Total) -> bool {
    total.positions.windows(2).all(|pair| pair[0] < pair[1])
}

/// Events written before, while and after a projection catches up take effect exactly once, in order, across restarts.
pub async fn h1_each_event_takes_effect_exactly_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "account-a", vec![1; 2_500]).await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..200 {
                deposit(&store, if n % 2 == 0 { "account-a" } else { "account-b" }, [1]).await;
            }
        })
    };
    let projected = Arc::<AtomicU64>::default();
    let mut reached = Position::ZERO;
    while !writer.is_finished() || reached < store.head() {
        let model = StateModel::new(&store);
        let totals = Totals { projected: Arc::clone(&projected), ..Totals::default() };
        let running = Projection::new(&store, totals, model.clone()).start().await.expect("it starts");
        running.wait_for(p(reached.get() + 1).min(store.head()), PATIENCE).await.expect("it gets on");
        reached = running.stop().await.expect("it stops");
        model.read(|total| {
            assert!(ascending(total), "in order and once");
            assert_eq!(total.cents, reached.get(), "the checkpoint equals what was applied");
        });
    }
    writer.await.expect("no panic");
    assert_eq!(projected.load(Ordering::SeqCst), 2_700, "no event was folded twice");
}

/// A projection catches up in pages and continues live without a loss or a repetition.
pub async fn h2_catching_up_goes_over_into_live(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "account-a", vec![1; 3_000]).await;
    let model = StateModel::new(&store);
    let running = Projection::new(&store, Totals::default(), model.clone()).start().await.expect("it starts");
    let mut last = Position::ZERO;
    for _ in 0..300 {
        last = deposit(&store, "account-b", [1]).await;
    }
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    assert_eq!(running.status().state, ConsumerState::Live);
    model.read(|total| {
        assert!(ascending(total));
        assert_eq!(total.cents, 3_300);
    });
    running.stop().await.expect("it stops");
}

/// `catch_up` processes all existing events, returns the position it reached, and ends.
pub async fn h2_catching_up_can_be_all_there_is(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let run = |store: Store| async move {
        let model = StateModel::new(&store);
        let reached = within("it ends", Projection::new(&store, Totals::default(), model.clone()).catch_up()).await;
        (reached.expect("it catches up"), model.read(|total| total.cents))
    };
    assert_eq!(run(store.clone()).await, (p(0), 0));
    deposit(&store, "account-a", [1, 2, 3]).await;
    assert_eq!(run(store.clone()).await, (p(3), 6));
    assert_eq!(run(store.clone()).await, (p(3), 6), "again there is nothing to do");
}

/// A projector that returns an error stops its projection right before that event, and the error names the event.
pub async fn h3_a_refusal_stops_before_the_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let totals = Totals::default();
    totals.refuses.store(13, Ordering::SeqCst);
    let running = Projection::new(&store, totals.clone(), model.clone()).start().await.expect("it starts");
    let good = deposit(&store, "account-a", [1, 2]).await;
    running.wait_for(good, PATIENCE).await.expect("it gets there");
    let bad = deposit(&store, "account-a", [3, 13, 4]).await;
    let failed = running.wait_for(bad, PATIENCE).await.expect_err("it refuses");
    assert!(matches!(failed, WaitError::Failed { reached, .. } if reached == p(3)), "{failed:?}");
    assert_eq!(running.status().state, ConsumerState::Failed);
    let error = running.finished().await.expect_err("it refused");
    assert!(matches!(&*error, RunError::Model(ModelError::Refused { position, .. }) if *position == p(4)), "{error:?}");
    model.read(|total| assert_eq!((total.cents, total.positions.clone()), (6, vec![1, 2, 3])));

    totals.refuses.store(0, Ordering::SeqCst);
    let running = Projection::new(&store, totals, model.clone()).start().await.expect("it starts again");
    running.wait_for(bad, PATIENCE).await.expect("it gets there");
    model.read(|total| assert_eq!((total.cents, total.positions.clone()), (23, vec![1, 2, 3, 4, 5])));
    running.stop().await.expect("it stops");
}

/// An event that cannot be decoded stops a projection right before it, and the events before it take effect.
pub async fn h3_an_unreadable_event_stops_right_before_it(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "account-a", [1, 2]).await;
    let unreadable = typed("account.deposited", "no such payload, and far too long for one");
    stream(&store, "account-a").write(unreadable, ExpectedVersion::Any).await.expect("it writes");
    deposit(&store, "account-a", [3]).await;
    let model = StateModel::new(&store);
    let error =
        Projection::new(&store, Totals::default(), model.clone()).catch_up().await.expect_err("it cannot go on");
    assert!(matches!(&error, RunError::Decode(error) if error.position() == p(3)), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Data);
    model.read(|total| assert_eq!(total.positions, [1, 2]));
}

/// A projector that panics fails its projection like one that returns an error, and affects nothing else.
pub async fn h3_a_panic_is_a_failure(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let totals = Totals::default();
    totals.refuses.store(13, Ordering::SeqCst);
    totals.panics.store(true, Ordering::SeqCst);
    let running = Projection::new(&store, totals, model.clone()).start().await.expect("it starts");
    deposit(&store, "account-a", [13]).await;
    let error = within("it fails", running.finished()).await.expect_err("it panicked");
    assert!(
        matches!(&*error, RunError::Model(ModelError::Panicked { message, position: Some(at) }) if message.contains("breaks") && *at == p(1)),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Internal);
    model.read(|total| assert_eq!(total.cents, 0));
    deposit(&store, "account-a", [1]).await;
}

/// After a command, a caller can wait until the read model reaches its position, with a timeout.
pub async fn h5_a_commands_position_can_be_awaited(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    let model = StateModel::new(&store);
    let running = Projection::new(&store, Totals::default(), model.clone()).start().await.expect("it starts");
    for n in 1..=20 {
        let receipt = accounts.execute("alice", Deposit(1)).await.expect("it deposits");
        running.wait_for(receipt.position, PATIENCE).await.expect("it gets there");
        assert_eq!(model.read(|total| total.cents), n);
    }
    let never = running.wait_for(p(1_000), Duration::from_millis(5)).await.expect_err("there is no such position");
    assert!(matches!(never, WaitError::TimedOut { reached, .. } if reached == p(20)), "{never:?}");
    running.stop().await.expect("it stops");
}

/// Stopping is graceful: the checkpoint equals what was applied, and waiting for more reports that it was stopped.
pub async fn h6_a_stopped_projection_goes_on_where_it_was(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut reached = Vec::new();
    for round in 1..=5_u64 {
        let position = deposit(&store, "account-a", vec![1; 100]).await;
        let model = StateModel::new(&store);
        let totals = Totals::default();
        let running = Projection::new(&store, totals.clone(), model.clone()).start().await.expect("it starts");
        running.wait_for(position, PATIENCE).await.expect("it gets there");
        reached.push(running.stop().await.expect("it stops"));
        assert_eq!(totals.projected.load(Ordering::SeqCst), 100, "only what is new is folded");
        assert_eq!(model.read(|total| total.cents), 100 * round);
    }
    assert_eq!(reached, [100, 200, 300, 400, 500].map(p));
}

/// Closing the store ends a projection with the corresponding error.
pub async fn h6_closing_the_store_ends_a_projection(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let running = Projection::new(&store, Totals::default(), StateModel::new(&store)).start().await.expect("it starts");
    store.close().await.expect("it closes");
    let error = within("it ends", running.finished()).await.expect_err("the store is closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

/// One projector can run under several names and over a part of the log.
pub async fn h2_a_projection_can_have_another_name_and_a_filter(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "account-a", [1, 2]).await;
    let last = deposit(&store, "account-b", [10]).await;
    let (all, part) = (StateModel::new(&store), StateModel::new(&store));
    let reached = Projection::new(&store, Totals::default(), all.clone()).catch_up().await.expect("it catches up");
    let only_b = Filter::new().stream(id("account-b"));
    let run = || Projection::new(&store, Totals::default(), part.clone()).named("totals-b").filter(only_b.clone());
    assert_eq!((reached, run().catch_up().await.expect("it catches up")), (last, last));
    assert_eq!((all.read(|total| total.cents), part.read(|total| total.cents)), (13, 10));
    deposit(&store, "account-a", [100]).await;
    let last = deposit(&store, "account-b", [20]).await;
    assert_eq!(run().catch_up().await.expect("it goes on"), last);
    assert_eq!(part.read(|total| total.positions.clone()), [3, 5]);
}

/// A query goes wherever a filter goes.
pub async fn i2_projections_and_typed_reads_take_a_query(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let query = || Filter::new().query(Criterion::types(["account.deposited", "never"]).tag(tag("branch:1")));
    let deposited = |cents: u64, branch: &str| {
        AccountEvent::Deposited { cents }.encode().expect("it encodes").with_tags([tag(branch), tag("any:1")])
    };
    let of = |account: &str| stream(&store, account);
    write(&of("account-a"), vec![deposited(1, "branch:1"), deposited(2, "branch:2"), deposited(4, "branch:1")]).await;
    // It has the tag, and is none of the events that are read.
    write(&of("noise-1"), typed("noise.made", "x").with_tags([tag("branch:1")])).await;
    let model = StateModel::new(&store);
    let projection = || Projection::new(&store, Totals::default(), model.clone()).filter(query());
    assert_eq!(projection().catch_up().await.expect("it catches up"), p(4));
    assert_eq!(model.read(|total| (total.cents, total.positions.clone())), (5, vec![1, 3]));
    let running = projection().start().await.expect("it starts");
    write(&of("account-b"), vec![deposited(8, "branch:1"), deposited(16, "branch:11")]).await;
    running.wait_for(p(6), PATIENCE).await.expect("what is written moves it");
    assert_eq!(model.read(|total| (total.cents, total.positions.clone())), (13, vec![1, 3, 5]));
    running.stop().await.expect("it stops");
    let read = store.all().read_as::<AccountEvent>().filter(query()).await.expect("can be read");
    assert_eq!(read.iter().map(|event| event.position().get()).collect::<Vec<_>>(), [1, 3, 5]);
    let past = store.all().read_as::<AccountEvent>().filter(query()).after(p(1)).limit(1).await.expect("can be read");
    assert_eq!(past.len(), 1);
}

/// Events that a projection does not request are never decoded, and still advance its checkpoint.
pub async fn h7_unwanted_events_move_the_checkpoint(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "account-a", [1]).await;
    let unwanted = vec![typed("noise.made", "not an account event"); 15_000];
    let caught_up = stream(&store, "noise-1").write(unwanted, ExpectedVersion::Any).await.expect("it writes").position;
    let model = StateModel::new(&store);
    let totals = Totals::default();
    let running = Projection::new(&store, totals.clone(), model.clone()).start().await.expect("it starts");
    running.wait_for(caught_up, PATIENCE).await.expect("history moves it");
    let live = stream(&store, "noise-1").write(typed("noise.made", ""), ExpectedVersion::Any).await.expect("it writes");
    running.wait_for(live.position, PATIENCE).await.expect("what is written moves it");
    assert_eq!(running.stop().await.expect("it stops"), live.position);
    assert_eq!(totals.projected.load(Ordering::SeqCst), 1);

    let running = Projection::new(&store, totals, model).start().await.expect("it starts again");
    assert_eq!(running.position(), live.position, "the checkpoint was kept");
    running.stop().await.expect("it stops");
}

/// Two runners of one projection: the one that finds its checkpoint moved stops with "taken over".
pub async fn h2_a_runner_notices_that_it_was_taken_over(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let first = Projection::new(&store, Totals::default(), model.clone()).start().await.expect("it starts");
    let position = deposit(&store, "account-a", [1]).await;
    first.wait_for(position, PATIENCE).await.expect("it gets there");
    let second = Projection::new(&store, Totals::default(), model.clone()).start().await.expect("it starts");
    let position = deposit(&store, "account-a", [2]).await;
    let (one, other) = (first.wait_for(position, PATIENCE).await, second.wait_for(position, PATIENCE).await);
    assert!(one.is_ok() != other.is_ok(), "one of the two goes on: {one:?}, {other:?}");
    let (ahead, behind) = if one.is_ok() { (first, second) } else { (second, first) };
    let error = within("it ends", behind.finished()).await.expect_err("it was taken over");
    assert!(matches!(&*error, RunError::Model(ModelError::TakenOver { .. })), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    ahead.stop().await.expect("it stops");
    assert_eq!(model.read(|total| total.cents), 3);
}

/// A projection continues where it was after the store was closed and opened again.
pub async fn h1_a_projection_survives_a_reopening(fixture: &impl Durable) {
    let store = fixture.open().await;
    let position = deposit(&store, "account-a", [1, 2, 3]).await;
    let running = Projection::new(&store, Totals::default(), StateModel::new(&store)).start().await.expect("it starts");
    running.wait_for(position, PATIENCE).await.expect("it gets there");
    running.stop().await.expect("it stops");
    let store = fixture.reopen(store).await;
    deposit(&store, "account-a", [4]).await;
    let totals = Totals::default();
    let model = StateModel::new(&store);
    let reached = Projection::new(&store, totals.clone(), model.clone()).catch_up().await.expect("it catches up");
    assert_eq!((reached, totals.projected.load(Ordering::SeqCst)), (p(4), 1));
    assert_eq!(model.read(|total| total.cents), 10);
}

/// A projection receives what another process writes.
pub async fn h2_a_projection_sees_what_another_handle_writes(fixture: &impl Shared) {
    let store = fixture.open().await;
    let second = fixture.second(&store).await;
    let model = StateModel::new(&store);
    let running = Projection::new(&store, Totals::default(), model.clone()).start().await.expect("it starts");
    let mut last = Position::ZERO;
    for n in 0..50 {
        last = deposit(if n % 2 == 0 { &store } else { &second }, "account-a", [1]).await;
    }
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    model.read(|total| {
        assert!(ascending(total));
        assert_eq!(total.cents, 50);
    });
    running.stop().await.expect("it stops");
}

/// Events renamed since: one only in its name, one in its name and fields.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
enum Work {
    #[es(name = "work.done", version = 2, alias = "work.finished", from(version = 1, type = EndedV1, name = "work.ended"))]
    Done { cents: u64 },
}

#[derive(Debug, Clone, Event)]
enum EarlierWork {
    #[es(name = "work.finished", version = 2)]
    Finished { cents: u64 },
    #[es(name = "work.ended")]
    Ended { euros: u64 },
    #[es(name = "work.other")]
    Other,
}

#[derive(Debug, Deserialize)]
struct EndedV1 {
    euros: u64,
}

impl From<EndedV1> for Work {
    fn from(EndedV1 { euros }: EndedV1) -> Self {
        Self::Done { cents: euros * 100 }
    }
}

struct Works;

impl Projector for Works {
    type Event = Work;
    type Model = StateModel<Total>;
    type Error = std::convert::Infallible;
    const NAME: &'static str = "works";

    fn project(&self, event: &Recorded<Work>, total: &mut StateTx<'_, Total>) -> Result<(), Self::Error> {
        let Work::Done { cents } = event.event();
        total.cents += cents;
        total.positions.push(event.position().get());
        Ok(())
    }
}

/// A projection that requested only today's names built a read model without the past.
pub async fn h2_a_projection_asks_for_the_old_names_of_its_events(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let work = stream(&store, "work-1");
    let mut events = Vec::new();
    for n in 0..1_000 {
        events.push(EarlierWork::Finished { cents: 1 }.encode().expect("it encodes"));
        events.push(EarlierWork::Other.encode().expect("it encodes"));
        if n % 2 == 0 {
            events.push(EarlierWork::Ended { euros: 1 }.encode().expect("it encodes"));
        }
    }
    work.write(events, ExpectedVersion::Any).await.expect("it writes");
    work.write(Work::Done { cents: 7 }.encode().expect("it encodes"), ExpectedVersion::Any).await.expect("it writes");
    let model = StateModel::new(&store);
    let position = Projection::new(&store, Works, model.clone()).catch_up().await.expect("it catches up");
    assert_eq!(position, p(2_501));
    assert_eq!(model.read(|total| (total.cents, total.positions.len())), (1_000 + 50_000 + 7, 1_501));
}
