//! H13: reactors over an engine. Effects are counted by their keys.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use es_framework::testing::{Call, Fault, FaultPlan, FaultyEngine};
use es_framework::{
    Backoff, CellKey, CheckpointRecord, ConsumerState, Effect, EffectKey, Event, ExpectedVersion, Lease, ModelError,
    Policy, Position, ProjectionName, Reaction, ReactionError, Reactor, Recorded, RunError, Running, StartFrom, Store,
};
use tokio::sync::Notify;

use crate::bank::AccountEvent;
use crate::fixture::{Durable, Fixture, Shared};
use crate::support::{PATIENCE, p, stream, typed, within};

/// What a receiver of effects knows: every attempt, in the order of their ends.
#[derive(Debug, Default)]
struct Receiver {
    /// The key, the stream, the position and the number of the attempt.
    had: Mutex<Vec<(EffectKey, String, u64, u32)>>,
    under_way: Mutex<HashMap<String, usize>>,
    most_under_way: AtomicUsize,
    /// What goes wrong at the event with this amount.
    wrong: Mutex<BTreeMap<u64, Wrong>>,
    /// Wakes the event that hangs.
    released: Notify,
    /// Counts the effects that hang.
    hanging: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// It fails, this many times.
    Fails(u32),
    /// It panics, this many times.
    Panics(u32),
    /// It waits until it is released.
    Hangs,
}

#[derive(Debug, thiserror::Error)]
#[error("the receiver refuses")]
struct Refused;

#[derive(Debug, Clone, Default)]
struct Letters(Arc<Receiver>);

impl Reactor for Letters {
    type Event = AccountEvent;
    type Error = Refused;
    const NAME: &'static str = "letters";

    async fn react(&self, event: &Recorded<AccountEvent>, effect: &Effect) -> Result<(), Refused> {
        let receiver = &*self.0;
        let stream = event.stream().to_string();
        {
            let mut under_way = receiver.under_way.lock().expect("nobody panicked with it");
            *under_way.entry(stream.clone()).or_default() += 1;
            assert_eq!(under_way[&stream], 1, "the effects of one key do not overlap");
            receiver.most_under_way.fetch_max(under_way.values().sum(), Ordering::SeqCst);
        }
        let _guard = UnderWay(receiver, stream.clone());
        tokio::task::yield_now().await;
        let wrong =
            if let AccountEvent::Deposited { cents } = event.event() { receiver.wrong_at(*cents) } else { None };
        match wrong {
            Some(Wrong::Fails(_)) => return Err(Refused),
            Some(Wrong::Panics(_)) => panic!("the reactor breaks"),
            Some(Wrong::Hangs) => {
                receiver.hanging.fetch_add(1, Ordering::SeqCst);
                receiver.released.notified().await;
            }
            None => {}
        }
        let had = (effect.key.clone(), stream, event.position().get(), effect.attempt.get());
        receiver.had.lock().expect("nobody panicked with it").push(had);
        Ok(())
    }
}

struct UnderWay<'r>(&'r Receiver, String);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.under_way.lock().expect("nobody panicked with it").get_mut(&self.1).expect("it is there") -= 1;
    }
}

impl Receiver {
    /// What goes wrong now at this amount.
    fn wrong_at(&self, cents: u64) -> Option<Wrong> {
        let mut wrong = self.wrong.lock().expect("nobody panicked with it");
        let how = *wrong.get(&cents)?;
        match wrong.get_mut(&cents)? {
            Wrong::Fails(times) | Wrong::Panics(times) if *times == 0 => return None,
            Wrong::Fails(times) | Wrong::Panics(times) => *times -= 1,
            Wrong::Hangs => {}
        }
        Some(how)
    }

    fn set(&self, cents: u64, wrong: Option<Wrong>) {
        let mut all = self.wrong.lock().expect("nobody panicked with it");
        match wrong {
            Some(wrong) => drop(all.insert(cents, wrong)),
            None => drop(all.remove(&cents)),
        }
    }

    /// How often each effect was had, by position. Panics if one event had two keys, or one key two events.
    fn counts(&self, store: &Store) -> BTreeMap<u64, usize> {
        let name = ProjectionName::new("letters").expect("it is there");
        let mut counts = BTreeMap::new();
        for (key, _, position, _) in &*self.had.lock().expect("nobody panicked with it") {
            assert_eq!(*key, EffectKey::new(&name, store.id(), p(*position)), "the key is the documented one");
            *counts.entry(*position).or_default() += 1;
        }
        counts
    }

    /// The positions in the order in which they took effect, of one stream.
    fn of(&self, stream: &str) -> Vec<u64> {
        let had = self.had.lock().expect("nobody panicked with it");
        had.iter().filter(|(_, of, ..)| of == stream).map(|(_, _, position, _)| *position).collect()
    }

    fn attempts_at(&self, position: u64) -> Vec<u32> {
        let had = self.had.lock().expect("nobody panicked with it");
        had.iter().filter(|(_, _, at, _)| *at == position).map(|(.., attempt)| *attempt).collect()
    }
}

fn once(positions: impl IntoIterator<Item = u64>) -> BTreeMap<u64, usize> {
    positions.into_iter().map(|position| (position, 1)).collect()
}

async fn deposit(store: &Store, account: &str, cents: impl IntoIterator<Item = u64>) -> Position {
    let events = cents.into_iter().map(|cents| AccountEvent::Deposited { cents }.encode().expect("it encodes"));
    let events = events.collect::<Vec<_>>();
    stream(store, account).write(events, ExpectedVersion::Any).await.expect("it writes").position
}

fn at_once(mut policy: Policy) -> Policy {
    policy.user_code = Backoff::NONE;
    policy.panic = Backoff::NONE;
    policy
}

fn soon(attempts: u32) -> Policy {
    let mut policy = Policy::default();
    policy.user_code = Backoff::new(attempts, Duration::from_millis(1), Duration::from_millis(2));
    policy.panic = policy.user_code;
    policy
}

async fn started(store: &Store, letters: &Letters, policy: Policy) -> Running {
    Reaction::new(store, letters.clone()).policy(policy).start().await.expect("it starts")
}

async fn checkpoint(store: &Store) -> Position {
    let key = CellKey::new("consumer/letters/record/checkpoint").expect("it is there");
    let cell = store.cell(&key).await.expect("it can be read");
    let record = cell.map(|cell| CheckpointRecord::decode(&cell.value).expect("it is a checkpoint"));
    record.map_or(Position::ZERO, |record| record.mark.position)
}

/// Events written before and while a reactor runs have their effect once, over restarts, under their documented keys.
pub async fn h13_every_event_has_its_effect_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    deposit(&store, "account-a", vec![1; 1_200]).await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..60 {
                deposit(&store, if n % 2 == 0 { "account-a" } else { "account-b" }, [1]).await;
            }
        })
    };
    let mut reached = Position::ZERO;
    while !writer.is_finished() || reached < store.head() {
        let running = started(&store, &letters, Policy::default()).await;
        running.wait_for(p(reached.get() + 1).min(store.head()), PATIENCE).await.expect("it gets on");
        reached = running.stop().await.expect("it stops");
        assert_eq!(checkpoint(&store).await, reached);
    }
    writer.await.expect("no panic");
    let counts = letters.0.counts(&store);
    let wrong: Vec<_> = (1..=1_260).filter(|at| counts.get(at) != Some(&1)).collect();
    assert!(wrong.is_empty(), "not once: {wrong:?}");
    for stream in ["account-a", "account-b"] {
        assert!(letters.0.of(stream).is_sorted(), "the order of {stream} is kept");
    }
}

/// Effects of different keys overlap, as many as allowed; those of one key never do, and keep their order.
pub async fn h13_keys_are_ordered_and_overlap_up_to_a_bound(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for n in 0..200 {
        deposit(&store, &format!("account-{}", n % 7), [1]).await;
    }
    for (in_flight, most) in [(1, 1), (3, 3), (100, 7)] {
        let letters = Letters::default();
        let reaction =
            Reaction::new(&store, letters.clone()).in_flight(NonZeroUsize::new(in_flight).expect("it is there"));
        let reached = within("it catches up", reaction.named(format!("letters {in_flight}")).catch_up()).await;
        assert_eq!(reached.expect("it catches up"), p(200));
        assert_eq!(letters.0.most_under_way.load(Ordering::SeqCst), most, "with {in_flight} in flight");
        for n in 0..7 {
            assert!(letters.0.of(&format!("account-{n}")).is_sorted());
        }
        let had = letters.0.had.lock().expect("nobody panicked with it");
        assert_eq!(had.len(), 200);
        assert_eq!(in_flight == 1, had.is_sorted_by_key(|(_, _, position, _)| *position), "one at a time is in order");
    }
}

/// The key function of a reactor decides what is kept in order.
pub async fn h13_a_reactor_can_have_keys_of_its_own(fixture: &impl Fixture) {
    #[derive(Debug, Default, Clone)]
    struct ByAmount(Arc<Mutex<Vec<u64>>>);
    impl Reactor for ByAmount {
        type Event = AccountEvent;
        type Error = Refused;
        const NAME: &'static str = "by amount";
        async fn react(&self, event: &Recorded<AccountEvent>, _: &Effect) -> Result<(), Refused> {
            if event.position() == p(1) {
                // Everything else that may overlap is done meanwhile.
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
            }
            self.0.lock().expect("nobody panicked with it").push(event.position().get());
            Ok(())
        }
        fn key<'e>(&self, event: &'e Recorded<AccountEvent>) -> Cow<'e, str> {
            match event.event() {
                AccountEvent::Deposited { cents } => cents.to_string().into(),
                _ => "".into(),
            }
        }
    }
    let store = fixture.open().await;
    deposit(&store, "account-a", [5, 6, 5]).await;
    deposit(&store, "account-b", [5, 7]).await;
    let reactor = ByAmount::default();
    Reaction::new(&store, reactor.clone()).catch_up().await.expect("it catches up");
    assert_eq!(*reactor.0.lock().expect("nobody panicked with it"), [2, 5, 1, 3, 4]);
}

/// Wherever a process dies, each event has its effect at least once, and a second time under the same key only if the
/// checkpoint had not passed it.
pub async fn h13_a_crash_at_any_step_repeats_effects_under_their_keys(fixture: &impl Fixture) {
    let mut crashes = 0;
    for call in [Call::Read, Call::Cell, Call::Cells, Call::Append] {
        for fault in [Fault::Crash, Fault::CrashAfter, Fault::LostAnswer] {
            for number in 1.. {
                let store = fixture.open().await;
                deposit(&store, "account-a", [1, 2, 3]).await;
                deposit(&store, "account-b", [4, 5]).await;
                let letters = Letters::default();
                let plan = FaultPlan::none().at(call, number, fault);
                let faulty = FaultyEngine::over(store.engine(), plan.clone()).page_events(2);
                let outcome = Reaction::new(faulty.store(), letters.clone()).catch_up().await;
                let injected = faulty.faults().injected();
                if injected == FaultPlan::none() {
                    outcome.expect("nothing went wrong");
                    break;
                }
                crashes += 1;
                let covered = checkpoint(&store).await.get();
                let before = letters.0.counts(&store);
                assert!(
                    (1..=covered).all(|at| before.contains_key(&at)),
                    "{plan}: the checkpoint covers what is finished"
                );
                Reaction::new(&store, letters.clone())
                    .catch_up()
                    .await
                    .unwrap_or_else(|error| panic!("{plan}: {error}"));
                let after = letters.0.counts(&store);
                assert_eq!(after.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5], "{plan}");
                for (at, count) in after {
                    let most = if at <= covered { before[&at] } else { 2 };
                    assert!(count <= most, "{plan}: the effect of {at} was had {count} times");
                }
            }
        }
    }
    assert!(crashes > 30, "there were {crashes} crashes");
}

/// An outage of the store repeats no effect: what is finished is known, although the checkpoint could not be written.
pub async fn h13_an_outage_repeats_no_effect(fixture: &impl Fixture) {
    for fault in [Fault::Busy, Fault::Io, Fault::LostAnswer] {
        let store = fixture.open().await;
        let letters = Letters::default();
        deposit(&store, "account-a", [1, 2, 3]).await;
        deposit(&store, "account-b", [4, 5]).await;
        let plan = (1..5).fold(FaultPlan::none(), |plan, number| plan.at(Call::Append, number, fault));
        let faulty = FaultyEngine::over(store.engine(), plan).page_events(2);
        let mut policy = Policy::default();
        policy.outage = Backoff::new(u32::MAX, Duration::from_millis(1), Duration::from_millis(2));
        let running = started(&faulty.store(), &letters, policy).await;
        running.wait_for(p(5), PATIENCE).await.expect("it gets there");
        running.stop().await.expect("it stops");
        assert!(faulty.faults().injected() != FaultPlan::none(), "it went wrong");
        assert_eq!(letters.0.counts(&store), once(1..=5), "{fault:?}");
    }
}

/// While one effect hangs, others go on, and the checkpoint stays before it; after a kill it is tried again.
pub async fn h13_the_checkpoint_covers_only_what_is_finished(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    letters.0.set(13, Some(Wrong::Hangs));
    deposit(&store, "account-a", [1]).await;
    deposit(&store, "account-b", [13, 2]).await;
    deposit(&store, "account-c", [3]).await;
    let mut reaction = Box::pin(Reaction::new(&store, letters.clone()).catch_up());
    while letters.0.had.lock().expect("nobody panicked with it").len() < 2 {
        assert!(crate::support::poll_once(reaction.as_mut()).await.is_none(), "it hangs");
        tokio::task::yield_now().await;
    }
    drop(reaction);
    assert_eq!(letters.0.counts(&store), once([1, 4]), "neither the one that hangs, nor the next of its key");
    assert!(checkpoint(&store).await < p(2));
    letters.0.set(13, None);
    Reaction::new(&store, letters.clone()).catch_up().await.expect("it catches up");
    assert_eq!(letters.0.of("account-b"), [2, 3]);
    assert_eq!(checkpoint(&store).await, p(4));
}

/// An effect that fails is tried again with the same key, before the later ones of its key; others are not repeated.
pub async fn h13_a_failing_effect_is_tried_again_alone(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for wrong in [Wrong::Fails(2), Wrong::Panics(2)] {
        let letters = Letters::default();
        letters.0.set(13, Some(wrong));
        let before = store.head().get();
        let running = started(&store, &letters, soon(3)).await;
        deposit(&store, "account-a", [1, 13, 2]).await;
        let last = deposit(&store, "account-b", [3, 4]).await;
        running.wait_for(last, PATIENCE).await.expect("it gets there");
        let failure = running.status().last_failure.expect("it failed");
        assert_eq!((failure.position, failure.attempts), (Some(p(before + 2)), 2));
        running.stop().await.expect("it stops");
        assert_eq!(letters.0.counts(&store), once(before + 1..=before + 5));
        assert_eq!(letters.0.of("account-a"), [before + 1, before + 2, before + 3]);
        assert_eq!(letters.0.attempts_at(before + 2), [3]);
    }
}

/// By default a reactor stops right before an event whose effect keeps failing.
pub async fn h13_after_the_last_attempt_the_reactor_stops(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    letters.0.set(13, Some(Wrong::Fails(u32::MAX)));
    deposit(&store, "account-a", [1, 13, 2]).await;
    let last = deposit(&store, "account-b", [3]).await;
    let running = started(&store, &letters, soon(2)).await;
    let error = within("it fails", running.finished()).await.expect_err("it refuses");
    let RunError::Reaction(ReactionError::Failed { position, .. }) = &*error else { panic!("{error:?}") };
    assert_eq!(*position, p(2));
    assert_eq!(checkpoint(&store).await, p(1));
    assert_eq!(letters.0.counts(&store), once([1, 4]), "other keys went on meanwhile");
    letters.0.set(13, None);
    let running = started(&store, &letters, soon(2)).await;
    running.wait_for(last, PATIENCE).await.expect("it goes on");
    running.stop().await.expect("it stops");
    assert_eq!(letters.0.counts(&store), once(1..=4), "what was finished behind the checkpoint is not repeated");
}

/// A poison event is parked: later events of its key queue behind it, others go on; retried, they come in order.
pub async fn h13_a_parked_key_queues_and_is_retried_in_order(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    letters.0.set(13, Some(Wrong::Fails(u32::MAX)));
    let running = started(&store, &letters, at_once(Policy::park())).await;
    deposit(&store, "account-a", [1, 13, 2]).await;
    deposit(&store, "account-b", [3]).await;
    let last = deposit(&store, "account-a", [4]).await;
    running.wait_for(last, PATIENCE).await.expect("others go on");
    assert_eq!(letters.0.counts(&store), once([1, 4]));
    let parked = running.parked(None).await.expect("it can be asked");
    assert_eq!(parked.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [2, 3, 5]);
    running.stop().await.expect("it stops");

    // After a restart, too.
    let running = started(&store, &letters, at_once(Policy::park())).await;
    let last = deposit(&store, "account-a", [5]).await;
    running.wait_for(last, PATIENCE).await.expect("it goes on");
    let retried = running.retry_parked(Some("account-a")).await.expect("it can be retried");
    assert_eq!((retried.applied, retried.failed), (0, 1), "the first one still fails");
    assert_eq!(letters.0.counts(&store), once([1, 4]));
    letters.0.set(13, None);
    let retried = running.retry_parked(None).await.expect("it can be retried");
    assert_eq!((retried.applied, retried.failed), (4, 0));
    assert_eq!(letters.0.of("account-a"), [1, 2, 3, 5, 6]);
    let last = deposit(&store, "account-a", [6]).await;
    running.wait_for(last, PATIENCE).await.expect("its key is free again");
    assert_eq!(letters.0.counts(&store), once(1..=7));
    running.stop().await.expect("it stops");
}

/// An event that cannot be decoded is parked, and the reactor goes on with other streams.
pub async fn h13_an_undecodable_event_is_parked(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    deposit(&store, "account-a", [1]).await;
    let unreadable = typed("account.deposited", "no such payload, and far too long for one");
    stream(&store, "account-a").write(unreadable, ExpectedVersion::Any).await.expect("it writes");
    deposit(&store, "account-a", [2]).await;
    let last = deposit(&store, "account-b", [3]).await;
    let running = started(&store, &letters, Policy::park()).await;
    running.wait_for(last, PATIENCE).await.expect("it goes on");
    assert_eq!(letters.0.counts(&store), once([1, 4]));
    assert_eq!(running.parked(Some("account-a")).await.expect("it can be asked").len(), 2);
    running.stop().await.expect("it stops");
}

/// A reset and a move back repeat no effect, and forget no parked event. An explicit word does, with the same keys.
pub async fn h13_a_reset_repeats_no_effect_without_the_word(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    letters.0.set(13, Some(Wrong::Fails(u32::MAX)));
    deposit(&store, "account-a", [1, 2]).await;
    deposit(&store, "account-b", [3, 13]).await;
    let last = deposit(&store, "account-b", [4]).await;
    let running = started(&store, &letters, at_once(Policy::park())).await;
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    for back in [None, Some(p(2)), Some(p(0))] {
        match back {
            None => running.reset().await.expect("it can be reset"),
            Some(position) => running.set_position(position).await.expect("it can be moved"),
        }
        running.wait_for(last, PATIENCE).await.expect("it reads the log again");
        assert_eq!(letters.0.counts(&store), once([1, 2, 3]), "back to {back:?}");
        let parked = running.parked(None).await.expect("it can be asked");
        assert_eq!(parked.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [4, 5]);
        assert!(parked[0].failure.is_some(), "why is still known");
    }
    // To and fro, before it gets anywhere.
    running.pause().await.expect("it can be paused");
    running.reset().await.expect("it can be reset");
    for position in [2, 5, 0, 0, 3] {
        running.set_position(p(position)).await.expect("it can be moved");
        assert_eq!(running.parked(None).await.expect("it can be asked").len(), 2, "at {position}");
    }
    running.resume().await.expect("it can be resumed");
    let new = deposit(&store, "account-a", [5]).await;
    running.wait_for(new, PATIENCE).await.expect("it goes on");
    assert_eq!(letters.0.counts(&store), once([1, 2, 3, 6]));
    letters.0.set(13, None);
    assert_eq!(running.retry_parked(None).await.expect("it can be retried").applied, 2);
    assert_eq!(letters.0.counts(&store), once(1..=6));
    running.stop().await.expect("it stops");

    let again = Reaction::new(&store, letters.clone()).repeat_effects_after(p(2));
    again.catch_up().await.expect("it catches up");
    let expected = BTreeMap::from([(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2)]);
    assert_eq!(letters.0.counts(&store), expected);
    Reaction::new(&store, letters.clone()).catch_up().await.expect("it catches up");
    assert_eq!(letters.0.counts(&store), expected, "that was for one run");

    // Even if it is on its way through what it has passed before.
    let running = started(&store, &letters, Policy::default()).await;
    running.reset().await.expect("it can be reset");
    running.stop().await.expect("it stops");
    let again = Reaction::new(&store, letters.clone()).repeat_effects_after(p(5));
    again.catch_up().await.expect("it catches up");
    let expected = BTreeMap::from([(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3)]);
    assert_eq!(letters.0.counts(&store), expected);
}

/// An attempt that takes too long is dropped and counts as failed.
pub async fn h13_a_reactor_that_hangs_is_bounded_by_its_timeout(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    letters.0.set(13, Some(Wrong::Hangs));
    deposit(&store, "account-a", [13]).await;
    let last = deposit(&store, "account-b", [1]).await;
    let reaction = Reaction::new(&store, letters.clone()).timeout(Duration::from_millis(20));
    let running = reaction.policy(at_once(Policy::park())).start().await.expect("it starts");
    running.wait_for(last, PATIENCE).await.expect("others go on");
    let parked = running.parked(None).await.expect("it can be asked");
    assert!(parked[0].failure.as_ref().is_some_and(|failure| failure.error.contains("after 20ms")), "{parked:?}");
    assert_eq!(letters.0.counts(&store), once([2]));
    running.stop().await.expect("it stops");
}

/// A stop waits for the effects under way, starts no more, and the checkpoint is behind what was finished.
pub async fn h13_a_stop_finishes_what_is_under_way(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    letters.0.set(13, Some(Wrong::Hangs));
    deposit(&store, "account-a", [13]).await;
    deposit(&store, "account-b", vec![1; 50]).await;
    let reaction = Reaction::new(&store, letters.clone()).in_flight(NonZeroUsize::MIN);
    let running = reaction.start().await.expect("it starts");
    within("it hangs", async {
        while letters.0.hanging.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut stop = Box::pin(running.stop());
    assert!(crate::support::poll_once(stop.as_mut()).await.is_none(), "it waits");
    letters.0.released.notify_one();
    assert_eq!(within("it stops", stop).await.expect("it stops"), p(1));
    assert_eq!(letters.0.counts(&store), once([1]));
    assert_eq!(checkpoint(&store).await, p(1));
}

/// A reactor may start at the present, and then knows nothing of the past.
pub async fn h13_a_reactor_can_start_at_the_present(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    deposit(&store, "account-a", [1, 2]).await;
    let reaction = Reaction::new(&store, letters.clone()).start_from(StartFrom::Present);
    let running = reaction.start().await.expect("it starts");
    let last = deposit(&store, "account-a", [3]).await;
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    running.stop().await.expect("it stops");
    assert_eq!(letters.0.counts(&store), once([3]));
}

/// Of two owners one loses, and no effect is missing.
pub async fn h13_of_two_owners_one_stops(fixture: &impl Fixture) {
    two_owners(&fixture.open().await, None).await;
}

/// The same over two handles, as two processes have them.
pub async fn h13_of_two_processes_one_stops(fixture: &impl Shared) {
    let store = fixture.open().await;
    let second = fixture.second(&store).await;
    two_owners(&store, Some(second)).await;
}

async fn two_owners(store: &Store, second: Option<Store>) {
    let letters = Letters::default();
    // Each has a receiver state of its own, so that two attempts may overlap.
    let other = Letters::default();
    let one = started(store, &letters, Policy::default()).await;
    let two = started(second.as_ref().unwrap_or(store), &other, Policy::default()).await;
    let mut last = Position::ZERO;
    for n in 0..200 {
        last = deposit(store, &format!("account-{}", n % 5), [1]).await;
        if one.status().state == ConsumerState::Failed || two.status().state == ConsumerState::Failed {
            break;
        }
    }
    let (survivor, loser) = tokio::select! {
        error = one.finished() => (&two, error),
        error = two.finished() => (&one, error),
        () = tokio::time::sleep(PATIENCE) => panic!("neither noticed the other"),
    };
    let error = loser.expect_err("it was taken over");
    assert!(matches!(&*error, RunError::Model(ModelError::TakenOver { .. })), "{error:?}");
    survivor.wait_for(last, PATIENCE).await.expect("the other goes on");
    let mut had = letters.0.counts(store);
    had.extend(other.0.counts(store));
    assert_eq!(had.into_keys().collect::<Vec<_>>(), (1..=last.get()).collect::<Vec<_>>());
    survivor.stop().await.expect("it stops");
}

/// With leases, one owner runs and the other stands by and takes over; a term of before writes nothing more.
pub async fn h13_a_stand_by_takes_over(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    let reaction = || Reaction::new(&store, letters.clone()).lease(Lease::default());
    let one = reaction().start().await.expect("it starts");
    let two = reaction().start().await.expect("it starts");
    let first = deposit(&store, "account-a", [1, 2]).await;
    one.wait_for(first, PATIENCE).await.expect("it gets there");
    assert_eq!(two.status().state, ConsumerState::StandingBy);
    one.stop().await.expect("it stops");
    let second = deposit(&store, "account-a", [3]).await;
    two.wait_for(second, PATIENCE).await.expect("it takes over");
    two.stop().await.expect("it stops");
    assert_eq!(letters.0.counts(&store), once(1..=3));
    let key = CellKey::new("consumer/letters/record/checkpoint").expect("a valid key");
    let cell = store.cell(&key).await.expect("it can be read").expect("it has run");
    assert_eq!(CheckpointRecord::decode(&cell.value).expect("it is a checkpoint").term, 2);
}

/// Started at the present on an empty log, it later goes on with what was written since.
pub async fn h13_the_present_of_an_empty_log_is_remembered(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters = Letters::default();
    for lease in [None, Some(Lease::default())] {
        for _ in 0..2 {
            let mut reaction = Reaction::new(&store, letters.clone()).start_from(StartFrom::Present);
            if let Some(lease) = lease.clone() {
                reaction = reaction.lease(lease);
            }
            reaction.start().await.expect("it starts").stop().await.expect("it stops");
        }
    }
    deposit(&store, "account-a", [1]).await;
    Reaction::new(&store, letters.clone()).start_from(StartFrom::Present).catch_up().await.expect("it catches up");
    assert_eq!(letters.0.counts(&store), once([1]));
}

/// Ten writers, twenty reactors: each of them has each effect once, and those of a stream in order.
pub async fn h13_ten_writers_and_twenty_reactors(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let letters: Vec<_> = (0..20).map(|_| Letters::default()).collect();
    let mut running = Vec::new();
    for (n, letters) in letters.iter().enumerate() {
        let reaction = Reaction::new(&store, letters.clone()).named(format!("letters {n}"));
        running.push(reaction.start().await.expect("it starts"));
    }
    let writers = (0..10).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                deposit(&store, &format!("account-{}", (writer + n) % 4), [1]).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
    for (running, letters) in running.iter().zip(&letters) {
        running.wait_for(p(200), PATIENCE).await.expect("it gets there");
        let mut had: Vec<_> = letters
            .0
            .had
            .lock()
            .expect("nobody panicked with it")
            .iter()
            .map(|(_, _, position, _)| *position)
            .collect();
        had.sort_unstable();
        assert_eq!(had, (1..=200).collect::<Vec<_>>());
        assert!((0..4).all(|n| letters.0.of(&format!("account-{n}")).is_sorted()));
        running.stop().await.expect("it stops");
    }
}

/// After the store was closed and opened again, a reactor goes on where it was.
pub async fn h13_a_reactor_survives_a_reopening(fixture: &impl Durable) {
    let store = fixture.open().await;
    let letters = Letters::default();
    letters.0.set(13, Some(Wrong::Fails(u32::MAX)));
    deposit(&store, "account-a", [1, 2, 13]).await;
    let reaction = Reaction::new(&store, letters.clone()).policy(at_once(Policy::park()));
    reaction.catch_up().await.expect("it catches up");
    let store = fixture.reopen(store).await;
    let last = deposit(&store, "account-b", [3]).await;
    let running = started(&store, &letters, at_once(Policy::park())).await;
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    assert_eq!(letters.0.counts(&store), once([1, 2, 4]));
    letters.0.set(13, None);
    assert_eq!(running.retry_parked(None).await.expect("it can be retried").applied, 1);
    running.stop().await.expect("it stops");
    assert_eq!(letters.0.counts(&store), once(1..=4));
}
