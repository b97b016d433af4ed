//! The laws of projectors.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::clock::ManualClock;
use super::engine::FaultyEngine;
use super::faults::{Call, Fault, FaultPlan, Faults, turns};
use super::model::{FaultyModel, OnFaulty};
use crate::consumer::{Policy, RunError};
use crate::domain::Event;
use crate::log::{
    Append, CandidateEvent, EventId, ExpectedVersion, Limits, MemoryStore, Position, Store, StreamId, Timestamp,
};
use crate::projection::{Projection, Projector, ReadModel, StateModel};

/// How many turns the tasks of a model have to end what they save in the background.
const BACKGROUND: u32 = 16;

/// A read model whose content can be compared, for [`ProjectorLaws`].
pub trait Content: ReadModel {
    /// The content as text: the same content is the same text, and a difference is readable. Records of consumers do
    /// not belong to it.
    fn content(&self) -> impl Future<Output = String> + Send;

    /// Forgets whatever a process that dies forgets; by default nothing, for a model that keeps everything in a
    /// database.
    fn crash(&self) {}
}

/// The state as JSON. A state that JSON cannot show, such as a map whose keys are structs, needs a
/// [dump](ProjectorLaws::dump) of its own.
impl<S: Default + serde::Serialize + Send + 'static> Content for StateModel<S> {
    async fn content(&self) -> String {
        let shown = self.read(|state| serde_json::to_value(state));
        let shown = shown.expect("JSON can show the state; if not, give the laws a `dump`");
        format!("{shown:#}")
    }

    fn crash(&self) {
        self.forget();
    }
}

/// Checks that a projector keeps what it writes in its model, and that nothing else decides what it writes.
///
/// | law | what breaks it |
/// |---|---|
/// | [incremental equals rebuild](Self::incremental_equals_rebuild) | state outside of the model; `prepare` that empties a table; the time or chance |
/// | [batch size does not matter](Self::batch_size_does_not_matter) | work that is done once for each transaction |
/// | [delivered twice changes nothing](Self::delivered_twice_changes_nothing) | effects outside of the transaction |
/// | [a crash changes nothing](Self::a_crash_changes_nothing) | the same; a `prepare` that cannot be repeated |
/// | [unknown events are ignored](Self::unknown_events_are_ignored) | an event type that claims names of others; counting by position |
///
/// Usually the macro [`projector_laws!`](crate::projector_laws) makes a test of each. To check one by hand:
///
/// ```
/// # use es_framework::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, Event)] #[es(name = "deposited")] struct Deposited { cents: u64 }
/// # #[derive(Debug, Default, Serialize, Deserialize)] struct Total { cents: u64 }
/// # struct Totals;
/// # impl Projector for Totals {
/// #     type Event = Deposited; type Model = StateModel<Total>; type Error = std::convert::Infallible;
/// #     const NAME: &'static str = "totals";
/// #     fn project(&self, event: &Recorded<Deposited>, total: &mut StateTx<'_, Total>) -> Result<(), Self::Error> {
/// #         total.cents += event.cents; Ok(()) } }
/// use es_framework::testing::ProjectorLaws;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let events = vec![("account-a", Deposited { cents: 5 }), ("account-b", Deposited { cents: 7 })];
/// let laws = ProjectorLaws::new(|| Totals, async |store: &Store| StateModel::new(store), events);
/// laws.a_crash_changes_nothing().await;
/// # }
/// ```
///
/// The events are written into a memory store: each in an append of its own, a second after the one before, with the ids
/// `law-1`, `law-2` and so on. So two runs differ in the id of the store only.
pub struct ProjectorLaws<P: Projector> {
    projector: Box<dyn Fn() -> P>,
    model: Asked<Store, P::Model>,
    content: Asked<P::Model, String>,
    events: Vec<(StreamId, CandidateEvent)>,
}

type Asked<F, T> = Box<dyn for<'a> Fn(&'a F) -> Answer<'a, T>>;
type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

#[expect(clippy::future_not_send, reason = "a law runs where it is called, so that closures need not be `Send`")]
impl<P: Projector> ProjectorLaws<P>
where
    P::Model: Content,
{
    /// Prepares to check a projector: `projector` makes one as a program does when it starts, `model` an empty model,
    /// and the events are what it is to fold, with their streams.
    ///
    /// # Panics
    ///
    /// If there are no events, a stream's name is not valid, or an event cannot be encoded.
    pub fn new<S: AsRef<str>>(
        projector: impl Fn() -> P + 'static,
        model: impl AsyncFn(&Store) -> P::Model + 'static,
        events: impl IntoIterator<Item = (S, P::Event)>,
    ) -> Self {
        let encoded = |(stream, event): (S, P::Event)| {
            let stream = StreamId::new(stream.as_ref()).expect("the stream's name is valid");
            (stream, event.encode().expect("the event can be encoded"))
        };
        let events: Vec<_> = events.into_iter().map(encoded).collect();
        assert!(!events.is_empty(), "without events every projector keeps every law");
        let model = Rc::new(model);
        Self {
            projector: Box::new(projector),
            model: Box::new(move |store| {
                let model = Rc::clone(&model);
                Box::pin(async move { model(store).await })
            }),
            content: Box::new(|model| Box::pin(model.content())),
            events,
        }
    }

    /// Compares what `dump` makes of the model instead of its whole [content](Content::content): for content that may
    /// differ, such as the id of the store.
    #[must_use]
    pub fn dump(mut self, dump: impl AsyncFn(&P::Model) -> String + 'static) -> Self {
        let dump = Rc::new(dump);
        self.content = Box::new(move |model| {
            let dump = Rc::clone(&dump);
            Box::pin(async move { dump(model).await })
        });
        self
    }

    /// Checks that events that are processed one by one, each by a run of its own, lead to the same content as all of
    /// them at once.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub async fn incremental_equals_rebuild(&self) {
        let log = Log::new();
        let model = (self.model)(&log.store).await;
        for (number, event) in (1..).zip(&self.events) {
            log.write(number, event).await;
            let bit_by_bit = self.folded(log.store.clone(), &model).await;
            let at_once = self.at_once(usize::try_from(number).unwrap_or(usize::MAX)).await;
            assert_eq!(bit_by_bit, at_once, "event {number} led to something else when those before it were known");
        }
    }

    /// Checks that the content does not depend on how many events share a transaction.
    ///
    /// # Panics
    ///
    /// If it does.
    pub async fn batch_size_does_not_matter(&self) {
        let at_once = self.at_once(usize::MAX).await;
        for size in [1, 2, 3, 7] {
            let log = self.log(usize::MAX).await;
            let small = FaultyEngine::over(log.store.engine(), FaultPlan::none()).page_events(size);
            let content = self.folded(small.store(), &(self.model)(&log.store).await).await;
            assert_eq!(content, at_once, "with {size} events in a batch it is something else than with all in one");
        }
    }

    /// Checks that nothing happens twice if a transaction is committed and its result lost, or rolled back and repeated,
    /// whichever it is, nor if there is nothing left to process.
    ///
    /// # Panics
    ///
    /// If something does.
    pub async fn delivered_twice_changes_nothing(&self) {
        self.survives(&[Call::Transact], &[Fault::LostAnswer, Fault::Io]).await;
    }

    /// Checks that the content is the same if the process dies right before, during and right after each call to the
    /// read model and the log, and is started again.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub async fn a_crash_changes_nothing(&self) {
        let calls = [Call::Start, Call::Transact, Call::Settle, Call::Read];
        self.survives(&calls, &[Fault::Crash, Fault::CrashAfter]).await;
    }

    /// Checks that events of types that the projector does not handle change nothing, in streams of the same
    /// categories. They change the positions of the others: a projector that stores those needs a [dump](Self::dump)
    /// without them.
    ///
    /// # Panics
    ///
    /// If they change something.
    pub async fn unknown_events_are_ignored(&self) {
        let alone = self.at_once(usize::MAX).await;
        let log = Log::new();
        for (number, event) in (1..).zip(&self.events) {
            let unknown = StreamId::new(format!("{}-law-unknown", event.0.category())).expect("the category is valid");
            let content =
                CandidateEvent::new("law.unknown", "a payload that nobody decodes").expect("the name is valid");
            log.append(&unknown, content.clone()).await;
            log.write(number, event).await;
            log.append(&unknown, content).await;
        }
        let among_others = self.folded(log.store.clone(), &(self.model)(&log.store).await).await;
        assert_eq!(among_others, alone, "events that the projector does not handle change what it writes");
    }

    /// Lets each of these calls of a run go wrong in each of these ways, starts again, and compares.
    async fn survives(&self, calls: &[Call], faults: &[Fault]) {
        let expected = self.at_once(usize::MAX).await;
        let counted = Faults::new(FaultPlan::none());
        let log = self.log(usize::MAX).await;
        self.run(&log, &(self.model)(&log.store).await, counted.clone()).await.unwrap_or_else(stopped);
        for call in calls {
            for number in 1..=counted.calls(*call) {
                for fault in faults {
                    let plan = FaultPlan::none().at(*call, number, *fault);
                    let faults = Faults::new(plan.clone());
                    // A log of its own: a model may keep something in its store.
                    let log = self.log(usize::MAX).await;
                    let model = (self.model)(&log.store).await;
                    let ended = self.run(&log, &model, faults.clone()).await;
                    assert_eq!(faults.injected(), plan, "the same run makes the same calls");
                    assert!(ended.is_err(), "{plan}: the run reports that something went wrong");
                    // What a model saves in the background is saved when the process dies.
                    turns(BACKGROUND).await;
                    if faults.has_crashed() {
                        model.crash();
                    }
                    for _ in 0..2 {
                        let content = self.folded(log.store.clone(), &model).await;
                        assert_eq!(content, expected, "something else came out after `{plan}`");
                    }
                }
            }
        }
    }

    async fn run(&self, log: &Log, model: &P::Model, faults: Faults) -> Result<(), RunError> {
        let engine = FaultyEngine::sharing(log.store.engine(), faults.clone()).page_events(2);
        let model = FaultyModel::sharing(model.clone(), faults);
        let projection = Projection::new(engine.store(), OnFaulty::new((self.projector)()), model);
        projection.policy(Policy::stop_at_once()).catch_up().await.map(drop)
    }

    /// Lets a new projector process what is in the log, and returns the content of the model.
    async fn folded(&self, store: Store, model: &P::Model) -> String {
        let head = store.head();
        let projection = Projection::new(store, (self.projector)(), model.clone()).policy(Policy::stop_at_once());
        let reached = projection.catch_up().await.unwrap_or_else(stopped);
        assert!(reached >= head, "the projection ended at position {reached} of {head}");
        (self.content)(model).await
    }

    /// What a new model holds after the first so many events.
    async fn at_once(&self, events: usize) -> String {
        let log = self.log(events).await;
        let model = (self.model)(&log.store).await;
        self.folded(log.store.clone(), &model).await
    }

    async fn log(&self, events: usize) -> Log {
        let log = Log::new();
        for (number, event) in (1..).zip(&self.events).take(events) {
            log.write(number, event).await;
        }
        log
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `unwrap_or_else`")]
fn stopped<T>(error: RunError) -> T {
    let error = crate::consumer::text_of(&error);
    panic!("the projector could not process the events: {error}")
}

/// A log in memory whose times and ids are the same in every run.
struct Log {
    store: Store,
    clock: ManualClock,
}

impl Log {
    fn new() -> Self {
        let clock = ManualClock::new();
        Self { store: MemoryStore::with(Limits::default(), Arc::new(clock.clone())).into(), clock }
    }

    async fn write(&self, number: i64, (stream, event): &(StreamId, CandidateEvent)) {
        self.clock.turn_to(Timestamp::from_micros(number * 1_000_000));
        let id = EventId::text(format!("law-{number}")).expect("the id is valid");
        self.append(stream, event.clone().with_id(id)).await;
    }

    async fn append(&self, stream: &StreamId, event: CandidateEvent) -> Position {
        let append = Append::to(stream.clone(), ExpectedVersion::Any, event);
        self.store.append(append).await.expect("a store in memory takes the event").position
    }
}

impl<P: Projector> fmt::Debug for ProjectorLaws<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectorLaws")
            .field("name", &P::NAME)
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

/// Makes a test of each law that a projector must keep; see [`ProjectorLaws`](crate::testing::ProjectorLaws).
///
/// The tests are in a module with the name that comes first. `model` is an expression that makes an empty model, in
/// which `.await` may be used; `events` are streams and events; `dump`, which may be left out, is an async closure that
/// makes text of the model.
///
/// ```
/// # use es_framework::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, Event)] #[es(name = "deposited")] struct Deposited { cents: u64 }
/// # #[derive(Debug, Default, Serialize, Deserialize)] struct Total { cents: u64 }
/// # struct Totals;
/// # impl Projector for Totals {
/// #     type Event = Deposited; type Model = StateModel<Total>; type Error = std::convert::Infallible;
/// #     const NAME: &'static str = "totals";
/// #     fn project(&self, event: &Recorded<Deposited>, total: &mut StateTx<'_, Total>) -> Result<(), Self::Error> {
/// #         total.cents += event.cents; Ok(()) } }
/// use es_framework::projector_laws;
///
/// projector_laws!(
///     totals_keep_the_laws,
///     projector = Totals,
///     model = |store| StateModel::new(store),
///     events = [("account-a", Deposited { cents: 5 }), ("account-b", Deposited { cents: 7 })],
/// );
/// # fn main() {}
/// ```
///
/// Each test ends after 60 seconds at most.
#[macro_export]
macro_rules! projector_laws {
    (
        $name:ident,
        projector = $projector:expr,
        model = |$store:ident| $model:expr,
        events = $events:expr
        $(, dump = $dump:expr)? $(,)?
    ) => {
        mod $name {
            #[allow(unused_imports, reason = "the macro does not know what the expressions name")]
            use super::*;

            $crate::projector_laws!(@law incremental_equals_rebuild, $projector, $store, $model, $events $(, $dump)?);
            $crate::projector_laws!(@law batch_size_does_not_matter, $projector, $store, $model, $events $(, $dump)?);
            $crate::projector_laws!(@law delivered_twice_changes_nothing, $projector, $store, $model, $events $(, $dump)?);
            $crate::projector_laws!(@law a_crash_changes_nothing, $projector, $store, $model, $events $(, $dump)?);
            $crate::projector_laws!(@law unknown_events_are_ignored, $projector, $store, $model, $events $(, $dump)?);
        }
    };
    (@law $law:ident, $projector:expr, $store:ident, $model:expr, $events:expr $(, $dump:expr)?) => {
        #[test]
        fn $law() {
            $crate::testing::bounded(stringify!($law), ::core::time::Duration::from_secs(60), async || {
                let laws = $crate::testing::ProjectorLaws::new(
                    || $projector,
                    async |$store: &$crate::Store| $model,
                    $events,
                );
                $(let laws = laws.dump($dump);)?
                laws.$law().await;
            });
        }
    };
}
