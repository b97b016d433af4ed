//! H15: inline projections over an engine, with their state in memory.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use es_framework::{
    Append, AppendError, Appended, CandidateEvent, CellKey, ErrorKind, Event, ExpectedVersion, Filter, Inline,
    ModelError, Projection, Projector, Recorded, RunError, StateModel, StateTx, Store,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::bank::AccountEvent;
use crate::fixture::{Durable, Fixture, Shared};
use crate::support::{PATIENCE, append, command, event, id, log, p, stream, text_id, within, write};

/// What the projectors of these facts build.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Total {
    cents: u64,
    positions: Vec<u64>,
}

/// The amount that is refused, after half of the change was made.
const BAD: u64 = 13;
/// The amount at which the projector panics.
const BREAKS: u64 = 26;

#[derive(Debug, Default, Clone)]
struct Totals {
    lenient: Arc<AtomicBool>,
    projected: Arc<AtomicU64>,
}

impl Projector for Totals {
    type Event = AccountEvent;
    type Model = StateModel<Total>;
    type Error = &'static str;
    const NAME: &'static str = "totals";

    fn project(&self, event: &Recorded<AccountEvent>, total: &mut StateTx<'_, Total>) -> Result<(), &'static str> {
        self.projected.fetch_add(1, Ordering::SeqCst);
        total.positions.push(event.position().get());
        let AccountEvent::Deposited { cents } = event.event() else { return Ok(()) };
        if !self.lenient.load(Ordering::SeqCst) {
            assert!(*cents != BREAKS, "the projector breaks");
            if *cents == BAD {
                return Err("it is refused");
            }
        }
        total.cents += cents;
        Ok(())
    }
}

fn deposits(cents: impl IntoIterator<Item = u64>) -> Vec<CandidateEvent> {
    cents.into_iter().map(|cents| AccountEvent::Deposited { cents }.encode().expect("it encodes")).collect()
}

async fn deposit(store: &Store, account: &str, cents: impl IntoIterator<Item = u64>) -> Result<Appended, AppendError> {
    stream(store, account).write(deposits(cents), ExpectedVersion::Any).await
}

async fn inline(store: &Store, model: &StateModel<Total>) -> Inline<StateModel<Total>> {
    inline_of(store, model, Totals::default()).await
}

async fn inline_of(store: &Store, model: &StateModel<Total>, totals: Totals) -> Inline<StateModel<Total>> {
    within("it catches up", Projection::new(store, totals, model.clone()).inline()).await.expect("it is inline")
}

fn total(model: &StateModel<Total>) -> Total {
    model.read(Total::clone)
}

/// All deposits in the log took effect exactly once, in order.
async fn holds_the_log(store: &Store, model: &StateModel<Total>) {
    let events = store.all().read().filter(Filter::new().types(AccountEvent::names())).collect().await;
    let events = events.expect("the log can be read");
    let positions: Vec<_> = events.iter().map(|event| event.position.get()).collect();
    let cents: u64 = events
        .into_iter()
        .map(|event| match Recorded::<AccountEvent>::decode(event).expect("it decodes").event() {
            AccountEvent::Deposited { cents } => *cents,
            _ => 0,
        })
        .sum();
    assert_eq!(total(model), Total { cents, positions });
}

fn refused_by(error: &AppendError, position: u64) {
    assert_eq!(error.kind(), ErrorKind::Caller);
    let AppendError::Refused { projection, source } = error else { panic!("it says {error}") };
    assert_eq!(projection.as_str(), "totals");
    match source.downcast_ref::<ModelError>().expect("the model's error") {
        ModelError::Refused { position: at, source } => {
            assert_eq!((*at, source.to_string().as_str()), (p(position), "it is refused"));
        }
        ModelError::Panicked { position: at, message } => {
            assert_eq!((*at, message.contains("the projector breaks")), (Some(p(position)), true));
        }
        other => panic!("the source is {other}"),
    }
}

pub async fn h15_an_inline_projection_can_be_read_when_the_append_returns(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "account-a", (0..2_500).map(|n| n % 10)).await.expect("it writes");
    write(&stream(&store, "other-1"), event("not for it")).await;
    let model = StateModel::new(&store);
    let inline = inline(&store, &model).await;
    assert_eq!(inline.name().as_str(), "totals");
    holds_the_log(&store, &model).await;
    for n in 1..=12 {
        let before = total(&model).cents;
        deposit(&store, &format!("account-{n}"), [n, n]).await.expect("it writes");
        assert_eq!(total(&model).cents, before + 2 * n, "readable at once");
        write(&stream(&store, "other-1"), event("not for it")).await;
    }
    let two = Append::to(id("account-a"), ExpectedVersion::Any, deposits([5])).and(
        id("account-b"),
        ExpectedVersion::NoStream,
        deposits([6, 7]),
    );
    append(&store, two).await;
    holds_the_log(&store, &model).await;
    inline.stop().await.expect("it stops");
    deposit(&store, "account-a", [1]).await.expect("it writes");
    assert_eq!(total(&model).positions.last(), Some(&(store.head().get() - 1)), "it is not inline any more");
}

pub async fn h15_an_append_that_it_refuses_writes_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "account-a", [1, 2]).await.expect("it writes");
    let model = StateModel::new(&store);
    let inline = inline(&store, &model).await;
    deposit(&store, "account-a", [3]).await.expect("it writes");
    let before = (log(&store).await, total(&model));
    let cell = CellKey::new("cell").expect("valid");
    for bad in [BAD, BREAKS] {
        for (events, position) in [(vec![bad], 4), (vec![4, 5, bad, 6], 6), (vec![4, bad], 5)] {
            let error = deposit(&store, "account-a", events.clone()).await.expect_err("it is refused");
            refused_by(&error, position);
            let several = Append::to(id("account-b"), ExpectedVersion::NoStream, deposits(events))
                .and(id("account-c"), ExpectedVersion::NoStream, deposits([7]))
                .set_cell(cell.clone(), 0, Some(Bytes::from_static(b"x")))
                .command(command("key", "x"));
            refused_by(&store.append(several).await.expect_err("it is refused"), position);
            assert_eq!((log(&store).await, total(&model)), before, "nothing was written, and nothing is left of it");
        }
    }
    assert!(!stream(&store, "account-b").exists().await.expect("can be asked"));
    assert_eq!(store.cell(&cell).await.expect("can be read"), None);
    // The names and keys are free, and the next append goes where the refused one would have gone.
    let good = Append::to(id("account-b"), ExpectedVersion::NoStream, deposits([4])).command(command("key", "x"));
    let appended = append(&store, good).await;
    assert_eq!((appended.position, appended.version().get(), appended.was_known()), (p(4), 1, false));
    holds_the_log(&store, &model).await;
    inline.stop().await.expect("it stops");
}

pub async fn h15_a_refused_append_takes_no_other_down(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let inline = inline(&store, &model).await;
    let mut writers = JoinSet::new();
    for writer in 0..8_u64 {
        let store = store.clone();
        writers.spawn(async move {
            let mut refused = 0;
            for n in 0..25_u64 {
                let cents = match (n + writer) % 5 {
                    0 => BAD,
                    1 if writer % 2 == 0 => BREAKS,
                    _ => 1,
                };
                let account = format!("account-{}", writer % 3);
                match deposit(&store, &account, [1, cents]).await {
                    Ok(appended) => assert_eq!((cents, appended.streams[0].written), (1, 2)),
                    Err(AppendError::Refused { .. }) => {
                        assert_ne!(cents, 1, "an innocent append was refused");
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            refused
        });
    }
    let refused: u64 = within("the writers", writers.join_all()).await.into_iter().sum();
    assert_eq!(refused, 8 * 5 + 4 * 5);
    let positions: Vec<_> = log(&store).await.iter().map(|event| event.position.get()).collect();
    assert_eq!(positions, (1..=2 * (200 - refused)).collect::<Vec<_>>(), "no position was used by a refused append");
    holds_the_log(&store, &model).await;
    inline.stop().await.expect("it stops");
}

pub async fn h15_what_one_of_several_refuses_is_taken_back_from_all(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (first, second) = (StateModel::new(&store), StateModel::new(&store));
    let lenient = Totals { lenient: Arc::new(AtomicBool::new(true)), ..Totals::default() };
    let named =
        |name: &str, totals, model: &StateModel<Total>| Projection::new(&store, totals, model.clone()).named(name);
    let before = named("before", lenient.clone(), &first).inline().await.expect("it is inline");
    let strict = inline(&store, &second).await;
    let third = StateModel::new(&store);
    let after = named("after", lenient, &third).inline().await.expect("it is inline");
    for n in 1..=12 {
        let result = deposit(&store, "account-a", [n, if n % 3 == 0 { BAD } else { n }]).await;
        assert_eq!(result.is_err(), n % 3 == 0);
        for model in [&first, &second, &third] {
            holds_the_log(&store, model).await;
        }
    }
    for inline in [before, strict, after] {
        inline.stop().await.expect("it stops");
    }
}

pub async fn h15_turning_it_asynchronous_and_back_loses_and_repeats_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let totals = Totals::default();
    let done = Arc::<AtomicBool>::default();
    let mut writers = JoinSet::new();
    for writer in 0..3 {
        let (store, done) = (store.clone(), Arc::clone(&done));
        writers.spawn(async move {
            while !done.load(Ordering::SeqCst) {
                deposit(&store, &format!("account-{writer}"), [1, 1]).await.expect("it writes");
                // An engine in memory would write hundreds of thousands, all of which the state holds.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    for round in 0..12 {
        if round % 2 == 0 {
            let inline = inline_of(&store, &model, totals.clone()).await;
            let position = deposit(&store, "account-x", [2]).await.expect("it writes").position;
            assert!(total(&model).positions.contains(&position.get()), "readable at once");
            if round % 4 == 0 {
                drop(inline);
            } else {
                inline.stop().await.expect("it stops");
            }
        } else {
            let running = Projection::new(&store, totals.clone(), model.clone()).start().await.expect("it starts");
            let position = deposit(&store, "account-x", [3]).await.expect("it writes").position;
            running.wait_for(position, PATIENCE).await.expect("it gets there");
            running.stop().await.expect("it stops");
        }
    }
    done.store(true, Ordering::SeqCst);
    within("the writers", writers.join_all()).await;
    drop(inline_of(&store, &model, totals).await);
    holds_the_log(&store, &model).await;
}

pub async fn h15_a_retry_that_is_known_does_not_take_effect_again(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let inline = inline(&store, &model).await;
    let deposit = |name: &str, cents| {
        let events = deposits([cents]).into_iter().map(|event| event.with_id(text_id(name)));
        Append::to(id("account-a"), ExpectedVersion::Any, events.collect::<Vec<_>>())
    };
    for _ in 0..3 {
        append(&store, deposit("one", 5)).await;
    }
    let mut senders = JoinSet::new();
    for n in 0..12_u64 {
        // New and known ones, at the same time.
        let (store, request) = (store.clone(), deposit(&format!("id-{}", n % 4), n % 4));
        senders.spawn(async move { append(&store, request).await });
    }
    within("the senders", senders.join_all()).await;
    assert_eq!(total(&model).positions.len(), 5);
    holds_the_log(&store, &model).await;
    inline.stop().await.expect("it stops");
}

pub async fn h15_what_cannot_be_inline_says_so_and_leaves_appends_alone(fixture: &impl Fixture) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    let model = StateModel::new(&store);
    let first = inline(&store, &model).await;
    let not_allowed = |result: Result<Inline<StateModel<Total>>, RunError>| match result {
        Err(RunError::Model(ModelError::NotAllowed { .. })) => {}
        other => panic!("it says {other:?}"),
    };
    not_allowed(Projection::new(&store, Totals::default(), StateModel::new(&store)).inline().await);
    not_allowed(Projection::new(&store, Totals::default(), StateModel::new(&other)).inline().await);
    first.stop().await.expect("it stops");
    // One that refuses what is in the log already does not come to be.
    deposit(&store, "account-a", [BAD]).await.expect("nobody refuses it");
    let refused = Projection::new(&store, Totals::default(), model.clone()).inline().await;
    assert!(matches!(refused, Err(RunError::Model(ModelError::Refused { position, .. })) if position == p(1)));
    deposit(&store, "account-a", [BAD]).await.expect("nobody refuses it");
    let lenient = Totals { lenient: Arc::new(AtomicBool::new(true)), ..Totals::default() };
    let inline = inline_of(&store, &model, lenient).await;
    holds_the_log(&store, &model).await;
    inline.stop().await.expect("it stops");
}

pub async fn h15_readers_see_whole_appends_that_are_never_taken_back(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let inline = inline(&store, &model).await;
    let (done, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let reader = std::thread::spawn({
        let (model, done, reads) = (model.clone(), Arc::clone(&done), Arc::clone(&reads));
        move || {
            let mut last = 0;
            while !done.load(Ordering::SeqCst) {
                let now = total(&model);
                let seen = now.positions.len();
                assert!(seen >= last && seen.is_multiple_of(2), "{seen} events after {last}");
                assert_eq!(now.cents, seen as u64, "something refused was seen");
                last = seen;
                reads.store(true, Ordering::SeqCst);
                std::thread::yield_now();
            }
        }
    });
    within("the reader", async {
        while !reads.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut writers = JoinSet::new();
    for writer in 0..4_u64 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..50 {
                let bad = (n + writer) % 3 == 0;
                let result = deposit(&store, &format!("account-{writer}"), [1, if bad { BAD } else { 1 }]).await;
                assert_eq!(result.is_err(), bad);
            }
        });
    }
    within("the writers", writers.join_all()).await;
    done.store(true, Ordering::SeqCst);
    reader.join().expect("the reader saw nothing wrong");
    inline.stop().await.expect("it stops");
}

/// The process ended without stopping it; meanwhile others wrote, without the projection.
pub async fn h15_it_goes_on_after_reopening(fixture: &impl Durable) {
    let mut store = fixture.open().await;
    for round in 0..4 {
        let model = StateModel::new(&store);
        let inline = inline(&store, &model).await;
        deposit(&store, "account-a", [1; 3]).await.expect("it writes");
        deposit(&store, "account-a", [BAD]).await.expect_err("it is refused");
        holds_the_log(&store, &model).await;
        if round % 2 == 0 {
            drop(inline);
        } else {
            inline.stop().await.expect("it stops");
        }
        store = fixture.reopen(store).await;
        deposit(&store, "account-b", [2]).await.expect("it writes");
    }
    let model = StateModel::new(&store);
    drop(inline(&store, &model).await);
    holds_the_log(&store, &model).await;
}

pub async fn h15_events_of_another_handle_without_it_are_applied_first(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let model = StateModel::new(&ours);
    let inline = inline(&ours, &model).await;
    for n in 0..10 {
        deposit(&theirs, "account-theirs", [1; 7]).await.expect("it writes");
        if n == 5 {
            // More than a page.
            deposit(&theirs, "account-theirs", vec![1; 2_500]).await.expect("it writes");
        }
        deposit(&ours, "account-ours", [2]).await.expect("it writes");
        holds_the_log(&ours, &model).await;
    }
    deposit(&theirs, "account-theirs", [1]).await.expect("it writes");
    // An append of nothing applies what is missing.
    append(&ours, Append::default()).await;
    holds_the_log(&ours, &model).await;
    inline.stop().await.expect("it stops");
}
