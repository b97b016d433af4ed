//! H3: projections that run user code that panics. In every case the projection fails and reports it, and nothing is
//! lost.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU64;
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use es_framework::{
    Bincode, BoxError, CandidateEvent, ConsumerState, DecodeError, Event, EventType, ExpectedVersion, ModelError,
    Position, Projection, Projector, Recorded, RunError, Running, SnapshotPolicy, Snapshots, StateModel, StateTx,
    Store, WaitError,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::fixture::Fixture;
use crate::support::{PATIENCE, p, stream, within};

/// The number of an event at which user code panics.
const IN_DESERIALIZE: u8 = 101;
const WITHOUT_A_MESSAGE: u8 = 102;
const IN_DROP: u8 = 103;
const IN_PROJECT: u8 = 104;
const IN_THE_ERROR: u8 = 105;
const IN_SERIALIZE_OF_THE_STATE: u64 = 106;

#[derive(Debug, Event)]
enum Noted {
    #[es(name = "noted", version = 2, from(version = 1, type = NotedV1))]
    Noted { number: Number },
}

#[derive(Debug, Serialize)]
struct Number(u8);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            IN_DESERIALIZE => panic!("a user's Deserialize breaks"),
            WITHOUT_A_MESSAGE => panic_any(PanicsToo),
            number => Ok(Self(number)),
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        assert!(self.0 != IN_DROP, "a user's Drop breaks");
    }
}

/// A panic payload that itself panics when dropped.
struct PanicsToo;

impl Drop for PanicsToo {
    fn drop(&mut self) {
        panic!("and so does what it panicked with");
    }
}

#[derive(Deserialize)]
struct NotedV1 {
    number: u8,
}

impl From<NotedV1> for Noted {
    fn from(old: NotedV1) -> Self {
        assert!(old.number != IN_DESERIALIZE, "a user's From breaks");
        Self::Noted { number: Number(old.number) }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Numbers {
    #[serde(with = "breakable")]
    numbers: Vec<u64>,
}

mod breakable {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{IN_SERIALIZE_OF_THE_STATE, unreadable};

    pub(super) fn serialize<S: Serializer>(numbers: &Vec<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(!numbers.contains(&IN_SERIALIZE_OF_THE_STATE), "a state's Serialize breaks");
        numbers.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
        let numbers = Vec::deserialize(deserializer)?;
        assert!(!unreadable::is_among(&numbers), "a state's Deserialize breaks");
        Ok(numbers)
    }
}

/// Numbers that a state can be read with until it is said that it cannot.
mod unreadable {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::sync::{Mutex, PoisonError};

    static NEXT: AtomicU8 = AtomicU8::new(150);
    static NUMBERS: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

    /// A number of this test's own: several run at the same time.
    pub(super) fn number() -> u8 {
        NEXT.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn from_here_on(number: u8, unreadable: bool) {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        if unreadable {
            numbers.insert(number.into());
        } else {
            numbers.remove(&number.into());
        }
    }

    pub(super) fn is_among(found: &[u64]) -> bool {
        let numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().any(|number| numbers.contains(number))
    }
}

/// Collects the numbers; panics where it is told to.
#[derive(Debug, Default, Clone)]
struct Collector {
    /// Panics at this number, unless it is 0.
    breaks: Arc<AtomicU64>,
}

const IN_PREPARE: u64 = 1;
const AS_IT_IS_DROPPED: u64 = 2;

/// An error whose `Display` panics.
#[derive(Debug)]
struct Loud;

impl fmt::Display for Loud {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a user's Display breaks");
    }
}

impl std::error::Error for Loud {}

impl Projector for Collector {
    type Event = Noted;
    type Model = StateModel<Numbers>;
    type Error = BoxError;
    const NAME: &'static str = "collector";

    fn prepare(&self, _: &mut StateTx<'_, Numbers>) -> Result<(), BoxError> {
        assert!(self.breaks.load(Ordering::SeqCst) != IN_PREPARE, "prepare breaks");
        Ok(())
    }

    fn project(&self, event: &Recorded<Noted>, state: &mut StateTx<'_, Numbers>) -> Result<(), BoxError> {
        let Noted::Noted { number } = event.event();
        state.numbers.push(number.0.into());
        match number.0 {
            IN_PROJECT => panic_any(7_u8),
            IN_THE_ERROR => Err(Loud.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        assert!(self.breaks.load(Ordering::SeqCst) != AS_IT_IS_DROPPED, "a projector breaks as it is dropped");
    }
}

async fn note(store: &Store, version: u32, numbers: &[u8]) -> Position {
    let event_type = EventType::new("noted", version, "bincode").expect("a valid type");
    let event_type = Arc::new(event_type);
    let events = numbers.iter().map(|number| CandidateEvent::of_type(Arc::clone(&event_type), vec![*number]));
    let events = events.collect::<Vec<_>>();
    stream(store, "notes").write(events, ExpectedVersion::Any).await.expect("it writes").position
}

async fn start(store: &Store, model: &StateModel<Numbers>) -> Running {
    Projection::new(store, Collector::default(), model.clone()).start().await.expect("it starts")
}

fn numbers(model: &StateModel<Numbers>) -> Vec<u64> {
    model.read(|state| state.numbers.clone())
}

/// Returns the error that a projection ends with; every way to query it returns the same one.
async fn failed<T, E>(running: &Running, ends: impl Future<Output = Result<T, E>> + Send) -> Arc<RunError> {
    drop(within("it ends", ends).await);
    let error = within("it says so", running.finished()).await.expect_err("it failed");
    let status = running.status();
    assert_eq!(status.state, ConsumerState::Failed, "{error:?}");
    assert!(Arc::ptr_eq(&error, &status.error.expect("the status has it")));
    assert!(Arc::ptr_eq(&error, &within("stopping", running.stop()).await.expect_err("stopping says it")));
    let waited = running.wait_for(p(1_000), PATIENCE).await.expect_err("it never gets there");
    assert!(matches!(&waited, WaitError::Failed { source, .. } if Arc::ptr_eq(source, &error)), "{waited:?}");
    error
}

/// A payload whose `Deserialize` panicked, or whose upcast from an older form panicked, ended its projection as if it
/// had stopped normally.
pub async fn h3_a_panic_while_decoding_stops_right_before_the_event(fixture: &impl Fixture) {
    for (version, bad, text) in [
        (2, IN_DESERIALIZE, "Deserialize breaks"),
        (2, WITHOUT_A_MESSAGE, "no message"),
        (1, IN_DESERIALIZE, "From breaks"),
    ] {
        let store = fixture.open().await;
        let model = StateModel::new(&store);
        let running = start(&store, &model).await;
        note(&store, 2, &[1, 2]).await;
        let at = note(&store, version, &[bad]).await;
        note(&store, 2, &[3]).await;
        let error = failed(&running, running.finished()).await;
        let RunError::Decode(DecodeError::Panicked { position, name, schema_version, message, .. }) = &*error else {
            panic!("{error:?}")
        };
        assert_eq!((*position, name.as_str(), *schema_version), (at, "noted", version));
        assert!(message.contains(text), "{message}");
        assert_eq!((numbers(&model), running.position()), (vec![1, 2], p(2)));

        // The checkpoint is right before it, and a projection that starts again, or only catches up, stops there too.
        let again = StateModel::new(&store);
        let error = Projection::new(&store, Collector::default(), again.clone()).catch_up().await.expect_err("again");
        assert!(matches!(&error, RunError::Decode(error) if error.position() == at), "{error:?}");
        assert_eq!((numbers(&again), start(&store, &again).await.position()), (vec![1, 2], p(2)));
    }
}

/// A state whose `Serialize` panicked while it was saved, at the stop or in between, ended its projection as if it had
/// stopped normally. So did a policy that panicked.
pub async fn h3_a_panic_while_saving_a_state_is_a_failure(fixture: &impl Fixture) {
    let bad = u8::try_from(IN_SERIALIZE_OF_THE_STATE).expect("a small number");
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let running = start(&store, &model).await;
    let at = note(&store, 2, &[1, bad]).await;
    running.wait_for(at, PATIENCE).await.expect("nothing is saved yet");
    let error = failed(&running, running.stop()).await;
    let saving_broke = |error: &RunError, text: &str| match error {
        RunError::Model(ModelError::Panicked { message, .. }) => message.contains(text),
        _ => false,
    };
    assert!(saving_broke(&error, "Serialize breaks"), "{error:?}");
    assert_eq!((numbers(&model).len(), running.position()), (2, at), "what was applied stays");
    let caught_up = Projection::new(&store, Collector::default(), StateModel::new(&store)).catch_up().await;
    assert!(saving_broke(&caught_up.expect_err("it cannot be saved"), "Serialize breaks"));

    let policies: [(SnapshotPolicy<Numbers>, &str); 2] = [
        (SnapshotPolicy::Every(NonZeroU64::MIN), "Serialize breaks"),
        (SnapshotPolicy::When(|state, _| state.numbers.len() < 2 || panic!("a policy breaks")), "policy breaks"),
    ];
    for (policy, text) in policies {
        let store = fixture.open().await;
        let model = StateModel::saved_by(&store, Snapshots::new::<Bincode>(policy, 1));
        let running = start(&store, &model).await;
        note(&store, 2, &[1]).await;
        // While one snapshot is being saved, no other is taken.
        let mut at = Position::ZERO;
        for _ in 0..1_000 {
            at = note(&store, 2, &[bad]).await;
            running.wait_for(at, PATIENCE).await.expect("what was applied stays");
            if running.status().state == ConsumerState::Failed {
                break;
            }
        }
        let error = failed(&running, running.finished()).await;
        assert!(saving_broke(&error, text), "{error:?}");
        assert_eq!((numbers(&model).len() as u64, running.position()), (at.get(), at));
    }
}

/// A snapshot whose `Deserialize` panics is like one that cannot be read: the state is folded from the beginning. It could
/// be read when it was saved, or it would not have been.
pub async fn h3_a_panic_while_reading_a_snapshot_folds_from_the_beginning(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let number = unreadable::number();
    note(&store, 2, &[1, number]).await;
    let first = Projection::new(&store, Collector::default(), StateModel::new(&store)).catch_up().await;
    assert_eq!(first.expect("it catches up, and is saved"), p(2));
    let at = note(&store, 2, &[3]).await;

    unreadable::from_here_on(number, true);
    let model = StateModel::new(&store);
    let running = start(&store, &model).await;
    running.wait_for(at, PATIENCE).await.expect("it gets there");
    assert_eq!(numbers(&model), [1, u64::from(number), 3]);
    unreadable::from_here_on(number, false);
    running.stop().await.expect("it can be saved again");
}

/// A projector's panic without a message, an error whose text panics, an event that panics when dropped: each fails the
/// projection, and the events before it are applied.
pub async fn h3_whatever_panics_is_a_failure(fixture: &impl Fixture) {
    for (bad, applied) in [(IN_PROJECT, 2), (IN_THE_ERROR, 2), (IN_DROP, 3)] {
        let store = fixture.open().await;
        let model = StateModel::new(&store);
        let running = start(&store, &model).await;
        let good = note(&store, 2, &[1, 2]).await;
        running.wait_for(good, PATIENCE).await.expect("it gets there");
        let at = note(&store, 2, &[bad]).await;
        let error = if bad == IN_DROP {
            // It has taken effect; its memory is freed when the state is saved, here at the stop.
            running.wait_for(at, PATIENCE).await.expect("it takes effect");
            failed(&running, running.stop()).await
        } else {
            failed(&running, running.finished()).await
        };
        let as_expected = match (&*error, bad) {
            (RunError::Model(ModelError::Panicked { position, .. }), IN_PROJECT) => *position == Some(at),
            (RunError::Model(ModelError::Refused { position, .. }), IN_THE_ERROR) => *position == at,
            (RunError::Panicked { message }, IN_DROP) => message.contains("position 3") && message.contains("Drop"),
            _ => false,
        };
        assert!(as_expected, "{bad}: {error:?}");
        assert_eq!((numbers(&model).len(), running.position()), (applied, p(applied as u64)));
    }
}

/// A projector that panics while preparing its model fails at the start, and one that panics when dropped has not
/// stopped normally.
pub async fn h3_a_panic_at_either_end_is_a_failure(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let at = note(&store, 2, &[1]).await;
    let model = StateModel::new(&store);
    let collector = Collector::default();
    let breaks = Arc::clone(&collector.breaks);
    breaks.store(IN_PREPARE, Ordering::SeqCst);
    let refused = Projection::new(&store, collector, model.clone()).start().await.expect_err("it cannot prepare");
    assert!(
        matches!(&refused, RunError::Model(ModelError::Panicked { position: None, message }) if message == "prepare breaks"),
        "{refused:?}"
    );

    let collector = Collector { breaks: Arc::clone(&breaks) };
    breaks.store(0, Ordering::SeqCst);
    let running = Projection::new(&store, collector, model.clone()).start().await.expect("it starts");
    running.wait_for(at, PATIENCE).await.expect("it gets there");
    breaks.store(AS_IT_IS_DROPPED, Ordering::SeqCst);
    let error = failed(&running, running.stop()).await;
    assert!(matches!(&*error, RunError::Panicked { message } if message.contains("as it is dropped")), "{error:?}");
    assert_eq!((numbers(&model), running.position()), (vec![1], at));

    let caught_up = Projection::new(&store, Collector { breaks }, model).catch_up().await.expect_err("so has this");
    assert!(matches!(&caught_up, RunError::Panicked { .. }), "{caught_up:?}");
}

/// A panic of a reader of the state affects only that reader.
pub async fn h3_a_reader_that_panics_harms_nobody(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let running = start(&store, &model).await;
    let looks = {
        let model = model.clone();
        tokio::spawn(async move { model.read(|_| panic!("a look that breaks")) })
    };
    looks.await.expect_err("it panicked");
    let at = note(&store, 2, &[1]).await;
    running.wait_for(at, PATIENCE).await.expect("the projection goes on");
    assert_eq!(numbers(&model), [1]);
    assert_eq!(running.stop().await.expect("it stops well"), at);
}
