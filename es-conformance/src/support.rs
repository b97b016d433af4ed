//! Helpers for the facts: clocks, events, recordings, waits with a timeout.

use std::future::{Future, IntoFuture, poll_fn};
use std::ops::DerefMut;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use es_framework::engine::Read;
use es_framework::{
    Append, Appended, CandidateEvent, Clock, CommandKey, Conflict, Criterion, EventId, EventType, ExpectedVersion,
    Filter, Fingerprint, KeyedCommand, ListStreams, Metadata, Position, Query, Store, StoreError, StoredEvent, Stream,
    StreamId, Tag, Timestamp, Version, Watch, WatchBuilder,
};
use futures_core::Stream as _;

/// How long anything that must happen may take before a fact counts as broken. With an engine that fulfils the contract
/// nothing waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long one fact may take.
const FACT: Duration = Duration::from_secs(120);

/// Runs one fact on a runtime of its own and fails if it hangs. Called by the macros.
pub fn run(fact: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the operating system gives threads");
    runtime.block_on(async {
        tokio::time::timeout(FACT, fact).await.unwrap_or_else(|_| panic!("the fact hangs, after {FACT:?}"));
    });
}

/// Awaits something that must happen, and panics if it does not.
pub async fn within<F: IntoFuture>(what: &str, future: F) -> F::Output
where
    F::IntoFuture: Send,
{
    let output = tokio::time::timeout(PATIENCE, future.into_future()).await;
    output.unwrap_or_else(|_| panic!("{what}: nothing for {PATIENCE:?}"))
}

/// Polls a future once, so that it starts, and drops it.
pub async fn poll_once_and_drop(future: impl Future + Send) {
    drop(poll_once(Box::pin(future)).await);
}

/// Polls a future once, so that it starts; [`None`] if it is still pending.
pub async fn poll_once<F: Future>(mut future: Pin<impl DerefMut<Target = F> + Send>) -> Option<F::Output> {
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// A clock that stands still until it is set; clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl Default for ManualClock {
    fn default() -> Self {
        Self::at(1_000_000)
    }
}

impl ManualClock {
    /// Creates a clock that shows this many microseconds since 1970.
    pub fn at(micros: i64) -> Self {
        Self(Arc::new(AtomicI64::new(micros)))
    }

    /// Sets the clock, forward or backward.
    pub fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// A timestamp this many microseconds after 1970.
pub fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// A version.
pub fn v(number: u64) -> Version {
    Version::new(number)
}

/// A position.
pub fn p(number: u64) -> Position {
    Position::new(number)
}

/// The expectation of exactly this version.
pub fn exact(number: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(v(number))
}

/// A stream id.
pub fn id(text: &str) -> StreamId {
    StreamId::new(text).expect("a test's stream ids are valid")
}

/// A handle to a stream.
pub fn stream(store: &Store, text: &str) -> Stream {
    store.stream(id(text))
}

/// An event of a type with a payload.
pub fn typed(name: &str, payload: impl Into<Bytes>) -> CandidateEvent {
    CandidateEvent::new(name, payload).expect("a test's type names are valid")
}

/// An event of a type, a schema version and a codec.
pub fn of_type(name: &str, schema_version: u32, codec: &'static str, payload: &'static str) -> CandidateEvent {
    let event_type = EventType::new(name, schema_version, codec).expect("a test's types are valid");
    CandidateEvent::of_type(event_type, payload)
}

/// An event with a payload.
pub fn event(payload: impl Into<Bytes>) -> CandidateEvent {
    typed("noted", payload)
}

/// An event with an id.
pub fn keyed(event_id: &str, payload: &'static str) -> CandidateEvent {
    event(payload).with_id(text_id(event_id))
}

/// An event id.
pub fn text_id(text: &str) -> EventId {
    EventId::text(text).expect("a test's event ids are valid")
}

/// Metadata.
pub fn metadata(json: &str) -> Metadata {
    Metadata::parse(json).expect("a test's metadata is one JSON object")
}

/// A tag.
pub fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a test's tags are valid")
}

/// An event of a type with tags.
pub fn tagged(name: &str, tags: &[&str]) -> CandidateEvent {
    typed(name, "x").with_tags(tags.iter().map(|text| tag(text)))
}

/// A query for events with all of these tags.
pub fn of_tags(texts: &[&str]) -> Query {
    Criterion::tags(texts.iter().map(|text| tag(text))).into()
}

/// Tags.
pub fn tags_of(texts: &[&str]) -> Vec<Tag> {
    texts.iter().map(|text| tag(text)).collect()
}

/// The positions of the events that meet a criterion.
pub async fn found(store: &Store, criterion: Criterion) -> Vec<u64> {
    positions(&store.all().read().filter(Filter::new().query(criterion)).await.expect("can be read"))
}

/// An append of one event with a tag.
pub fn registering(user: &str, name: &str) -> Append {
    Append::to(id(user), ExpectedVersion::Any, tagged("registered", &[name]))
}

/// A conflict about a condition.
pub fn failed(query: Query, after: u64, position: u64) -> Conflict {
    Conflict::Condition { query, after: p(after), position: p(position) }
}

/// Events whose payloads are these numbers in decimal.
pub fn numbered(numbers: impl IntoIterator<Item = u64>) -> Vec<CandidateEvent> {
    numbers.into_iter().map(|number| event(number.to_string())).collect()
}

/// A command with a key and the text its fingerprint is computed from.
pub fn command(key: &str, what: &str) -> KeyedCommand {
    KeyedCommand::new(CommandKey::new(key).expect("a test's command keys are valid"), Fingerprint::of(what.as_bytes()))
}

/// A read of a page of a stream or of `@all`, with changes to the defaults.
pub fn a_page(of: &str, change: impl FnOnce(&mut Read)) -> Read {
    let mut read = Read::new(id(of));
    change(&mut read);
    read
}

/// A list of streams, with changes to the defaults.
pub fn a_list(change: impl FnOnce(&mut ListStreams)) -> ListStreams {
    let mut list = ListStreams::default();
    change(&mut list);
    list
}

/// Writes events; panics if that fails.
pub async fn write(stream: &Stream, events: impl Into<Vec<CandidateEvent>> + Send) -> Appended {
    stream.write(events, ExpectedVersion::Any).await.expect("a write that expects nothing succeeds")
}

/// Appends; panics if that fails.
pub async fn append(store: &Store, append: Append) -> Appended {
    store.append(append).await.expect("this append succeeds")
}

/// Everything in `@all`, in order.
pub async fn log(store: &Store) -> Vec<StoredEvent> {
    store.all().read().collect().await.expect("@all can be read")
}

/// Everything in a stream, in order.
pub async fn events_of(stream: &Stream) -> Vec<StoredEvent> {
    stream.read().collect().await.expect("the stream can be read")
}

/// The payloads as text.
pub fn texts<'e>(events: impl IntoIterator<Item = &'e StoredEvent>) -> Vec<String> {
    events.into_iter().map(|event| String::from_utf8_lossy(&event.payload).into_owned()).collect()
}

/// The versions as numbers.
pub fn versions<'e>(events: impl IntoIterator<Item = &'e StoredEvent>) -> Vec<u64> {
    events.into_iter().map(|event| event.version.get()).collect()
}

/// The positions as numbers.
pub fn positions<'e>(events: impl IntoIterator<Item = &'e StoredEvent>) -> Vec<u64> {
    events.into_iter().map(|event| event.position.get()).collect()
}

/// The numbers from 1 to `end`.
pub fn up_to(end: u64) -> Vec<u64> {
    (1..=end).collect()
}

/// The contents of the log at one moment, to check that something wrote nothing.
#[derive(Debug)]
pub struct Recording {
    store: Store,
    events: Vec<StoredEvent>,
}

impl Recording {
    /// Records the log.
    pub async fn of(store: &Store) -> Self {
        Self { store: store.clone(), events: log(store).await }
    }

    /// Panics unless the log still has the recorded contents, and the next event gets the next position.
    pub async fn unchanged(self, what: &str) {
        assert_eq!(log(&self.store).await, self.events, "{what} wrote something");
        let head = self.events.last().map_or(Position::ZERO, |event| event.position);
        let next = write(&stream(&self.store, "recording"), event("next")).await;
        assert_eq!(next.position, head.next(), "{what} used a position");
    }
}

/// Starts a watch; panics if that fails.
pub async fn begin(watcher: WatchBuilder) -> Watch {
    within("beginning a watch", watcher).await.expect("a watch can begin")
}

/// The next event of a watch; panics if there is none.
pub async fn next(watch: &mut Watch) -> StoredEvent {
    match within("the next event of a watch", watch.next()).await {
        Some(Ok(event)) => event,
        other => panic!("a watch goes on for ever, this one said {other:?}"),
    }
}

/// The next `count` events of a watch; panics if there are fewer.
pub async fn take(watch: &mut Watch, count: usize) -> Vec<StoredEvent> {
    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        events.push(next(watch).await);
    }
    events
}

/// Polls a watch until it is pending; panics if it returns an event instead.
pub async fn idle(watch: &mut Watch) {
    for _ in 0..20 {
        let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut *watch).poll_next(context))).await;
        assert!(polled.is_pending(), "a watch that has nothing to say said {polled:?}");
        tokio::task::yield_now().await;
    }
}

/// Panics unless a watch returns once that its store was closed, and then ends.
pub async fn ends_closed(watch: &mut Watch) {
    match within("the end of a watch", watch.next()).await {
        Some(Err(StoreError::Closed)) => {}
        other => panic!("a watch of a closed store says so, this one said {other:?}"),
    }
    let after = within("what follows the end of a watch", watch.next()).await;
    assert!(after.is_none(), "a watch that said it was closed is over, this one said {after:?}");
}

/// Panics unless a result is an error that matches this pattern.
macro_rules! refused {
    ($result:expr, $pattern:pat $(if $guard:expr)? $(,)?) => {
        match $result {
            Err($pattern) $(if $guard)? => {}
            other => panic!("expected an error like {}, got {other:?}", stringify!($pattern $(if $guard)?)),
        }
    };
}
pub(crate) use refused;
