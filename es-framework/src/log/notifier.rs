//! Wakes watchers, and holds the ring of newest events that they are fed from.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::error::StoreError;
use super::event::StoredEvent;
use super::filter::{Clause, Filter};
use super::name::{StreamId, category_of};
use super::observer::{AlreadyObserved, Observed, Observer};
use super::position::Position;
use super::read::Mark;
use super::tag::Tag;

/// Maximum number of events in the ring.
const RING_EVENTS: usize = 4_096;
/// Maximum number of payload and metadata bytes in the ring.
const RING_BYTES: usize = 4 << 20;
/// Maximum number of other processes' events that are read for watchers; beyond that, watchers read pages.
const FOREIGN_EVENTS: u32 = 2_048;
/// Payloads of up to this many bytes are copied into the ring.
const COPIED_BYTES: usize = 16 << 10;

/// The one notifier of an open store. It wakes exactly the watchers that a commit concerns, and feeds those at the head
/// from a ring of the newest events, so that idle watchers cost no queries.
///
/// A wake-up is a hint and the log is the truth: a watcher that has fallen behind the ring reads pages instead.
#[derive(Debug, Default)]
pub struct Notifier {
    /// The position of the newest published commit; everything at or below it can be read.
    head: AtomicU64,
    /// The number of watchers.
    watchers: AtomicUsize,
    /// Every handle to the store and the engine's own threads have the notifier in common.
    observed: OnceLock<Observed>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// All events at positions in `(ring_after, head]`, oldest first.
    ring: VecDeque<StoredEvent>,
    ring_bytes: usize,
    ring_after: u64,
    next_watcher: u64,
    of_all: HashMap<u64, Arc<Wake>>,
    of_category: HashMap<String, HashMap<u64, Arc<Wake>>>,
    of_stream: HashMap<StreamId, HashMap<u64, Arc<Wake>>>,
    of_tag: HashMap<Tag, HashMap<u64, Arc<Wake>>>,
}

#[derive(Debug, Default)]
struct Wake {
    pending: AtomicBool,
    /// Whether to read a page, whatever the ring holds.
    doubts: AtomicBool,
    notify: Notify,
}

impl Wake {
    fn set(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }
}

/// What the ring holds for a watcher.
#[derive(Debug)]
pub(super) struct FromRing {
    /// The events that the watcher wants.
    pub(super) events: Vec<StoredEvent>,
    /// The position up to which the log was covered.
    pub(super) upto: Position,
    /// The newest event, wanted or not.
    pub(super) mark: Option<Mark>,
}

impl Notifier {
    /// Creates a notifier for a log whose newest event is at `head`.
    pub fn new(head: Position) -> Self {
        let state = State { ring_after: head.get(), ..State::default() };
        Self {
            head: AtomicU64::new(head.get()),
            watchers: AtomicUsize::new(0),
            observed: OnceLock::new(),
            state: Mutex::new(state),
        }
    }

    /// The position of the newest published commit.
    pub fn head(&self) -> Position {
        Position::new(self.head.load(Ordering::Acquire))
    }

    /// Whether anybody is watching; if not, engines need not look for commits of other processes.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Acquire) > 0
    }

    /// Attaches an observer to the store; see [`Store::observe`](crate::Store::observe).
    ///
    /// # Errors
    ///
    /// [`AlreadyObserved`] if it has one.
    pub fn observe(&self, observer: Arc<dyn Observer>) -> Result<(), AlreadyObserved> {
        self.observed.set(Observed::by(observer)).map_err(|_| AlreadyObserved)
    }

    /// The observer of the store, if it has one. That it has none costs one load to find out.
    pub(crate) fn observed(&self) -> Option<&Observed> {
        self.observed.get()
    }

    /// Announces that the log now reaches `head` and that `events` are all events after `after`, in order.
    ///
    /// Calls may overlap and arrive late: events at or below the known head are skipped, and a gap before `after`
    /// empties the ring.
    pub fn publish(&self, after: Position, events: impl IntoIterator<Item = StoredEvent>, head: Position) {
        let mut state = self.lock();
        let known = self.head.load(Ordering::Acquire);
        if head.get() <= known {
            return;
        }
        if after.get() > known {
            state.clear_ring(after);
            state.wake_everybody();
        }
        let mut woken = None;
        for event in events {
            if event.position.get() > known {
                state.wake_tagged(&event.tags);
                if woken.as_ref() != Some(&event.stream) {
                    state.wake_concerned(&event.stream);
                    woken = Some(event.stream.clone());
                }
                state.push(event);
            }
        }
        // Woken watchers wait for the lock, so they see the new head.
        self.head.store(head.get(), Ordering::Release);
    }

    /// Announces that the log now reaches `head` when the events are not at hand. Every watcher is woken and reads
    /// pages; the right call while nobody is watching.
    pub fn advance(&self, head: Position) {
        let mut state = self.lock();
        if head.get() > self.head.load(Ordering::Acquire) {
            state.clear_ring(head);
            self.head.store(head.get(), Ordering::Release);
            state.wake_everybody();
        }
    }

    /// Announces commits of other processes if there are any, that is, if `head` is news. Returns whether it was.
    ///
    /// For engines whose log is shared by several processes. Call it wherever a foreign commit may be found: in the
    /// poller that looks for them, and in the writer before it announces its own commits, which come later in the log.
    /// `read` is given a position and a maximum number of events. It reads the events after that position, in the
    /// transaction that saw `head`, and returns [`None`] if they are too large to hold. It is called only if somebody
    /// is watching and the events are few.
    ///
    /// # Errors
    ///
    /// Whatever `read` returns, except [`StoreError::Corrupt`]: watchers that read the damaged event report it.
    pub fn publish_foreign(
        &self,
        head: Position,
        read: impl FnOnce(Position, u32) -> Result<Option<Vec<StoredEvent>>, StoreError>,
    ) -> Result<bool, StoreError> {
        let known = self.head();
        if head <= known {
            return Ok(false);
        }
        if !self.is_watched() || head.get() - known.get() > u64::from(FOREIGN_EVENTS) {
            self.advance(head);
            return Ok(true);
        }
        match read(known, FOREIGN_EVENTS) {
            Ok(Some(events)) => self.publish(known, events, head),
            Ok(None) | Err(StoreError::Corrupt { .. }) => self.advance(head),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Announces that the log could not be examined. Every watcher is woken and reads one page. If that fails, its
    /// error ends the watch; if it succeeds, nothing is lost.
    pub fn distrust(&self) {
        let state = self.lock();
        state.everybody().for_each(|wake| {
            wake.doubts.store(true, Ordering::Release);
            wake.set();
        });
    }

    /// Ends all watchers.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.wake_everybody();
    }

    /// Registers a watcher of a stream or of `@all`; it is woken by commits that may concern it.
    pub(super) fn subscribe(self: &Arc<Self>, stream: &StreamId, filter: &Filter) -> Subscription {
        let mut state = self.lock();
        let id = state.next_watcher;
        state.next_watcher += 1;
        let wake = Arc::<Wake>::default();
        let interests = Interest::of(stream, filter);
        for interest in &interests {
            state.wakes(interest).insert(id, Arc::clone(&wake));
        }
        self.watchers.fetch_add(1, Ordering::AcqRel);
        drop(state);
        Subscription { notifier: Arc::clone(self), id, wake, interests }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change, so a poisoned state is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, mut event: StoredEvent) {
        if event.payload.len() <= COPIED_BYTES {
            // It may be a slice of a request's body, which the ring would keep alive as a whole.
            event.payload = Bytes::copy_from_slice(&event.payload);
        }
        self.ring_bytes += event.bytes();
        self.ring.push_back(event);
        while self.ring.len() > RING_EVENTS || self.ring_bytes > RING_BYTES {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.bytes();
            self.ring_after = oldest.position.get();
        }
    }

    fn clear_ring(&mut self, after: Position) {
        self.ring.clear();
        self.ring_bytes = 0;
        self.ring_after = after.get();
    }

    fn wakes(&mut self, interest: &Interest) -> &mut HashMap<u64, Arc<Wake>> {
        match interest {
            Interest::All => &mut self.of_all,
            Interest::Category(category) => self.of_category.entry(category.clone()).or_default(),
            Interest::Stream(stream) => self.of_stream.entry(stream.clone()).or_default(),
            Interest::Tag(tag) => self.of_tag.entry(tag.clone()).or_default(),
        }
    }

    fn wake_concerned(&self, stream: &StreamId) {
        let of_stream = self.of_stream.get(stream);
        let of_category =
            if self.of_category.is_empty() { None } else { self.of_category.get(category_of(stream.as_str())) };
        self.of_all.values().chain(of_stream.into_iter().flat_map(HashMap::values)).for_each(|wake| wake.set());
        of_category.into_iter().flat_map(HashMap::values).for_each(|wake| wake.set());
    }

    fn wake_tagged(&self, tags: &[Tag]) {
        if !self.of_tag.is_empty() {
            let of_tags = tags.iter().filter_map(|tag| self.of_tag.get(tag));
            of_tags.flat_map(HashMap::values).for_each(|wake| wake.set());
        }
    }

    fn wake_everybody(&self) {
        self.everybody().for_each(|wake| wake.set());
    }

    fn everybody(&self) -> impl Iterator<Item = &Arc<Wake>> {
        let named = self.of_category.values().chain(self.of_stream.values()).chain(self.of_tag.values());
        named.chain([&self.of_all]).flat_map(HashMap::values)
    }
}

/// The commits that a watcher is woken by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Interest {
    All,
    Category(String),
    Stream(StreamId),
    Tag(Tag),
}

impl Interest {
    fn of(stream: &StreamId, filter: &Filter) -> Vec<Self> {
        if !stream.is_all() {
            return vec![Self::Stream(stream.clone())];
        }
        let narrowed = filter.clauses().iter().find_map(|clause| match clause {
            Clause::Streams(streams) => Some(streams.iter().cloned().map(Self::Stream).collect::<Vec<_>>()),
            Clause::Categories(categories) => Some(categories.iter().cloned().map(Self::Category).collect()),
            // An event that meets a criterion has all of its tags, so one of them is enough.
            Clause::Query(query) => {
                let tags = query.criteria().iter().map(|criterion| criterion.tags.first().cloned().map(Self::Tag));
                tags.collect::<Option<Vec<_>>>()
            }
            _ => None,
        });
        // Register even an empty filter, so that it learns of `close`.
        narrowed.filter(|interests| !interests.is_empty()).unwrap_or_else(|| vec![Self::All])
    }
}

/// A watcher's registration with the notifier, removed on drop.
#[derive(Debug)]
pub(super) struct Subscription {
    notifier: Arc<Notifier>,
    id: u64,
    wake: Arc<Wake>,
    interests: Vec<Interest>,
}

impl Subscription {
    /// Waits until a commit may concern this watcher or the store is closed. Returns at once if that happened after the
    /// last wake-up and before this call.
    pub(super) async fn woken(wake: WakeHandle) {
        while !wake.0.pending.swap(false, Ordering::AcqRel) {
            wake.0.notify.notified().await;
        }
    }

    /// What [`Self::woken`] waits on.
    pub(super) fn wake(&self) -> WakeHandle {
        WakeHandle(Arc::clone(&self.wake))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.notifier.lock().closed
    }

    /// Returns the wanted events after `after`; [`None`] if the ring does not reach back that far.
    pub(super) fn newest_after(&self, after: Position, wanted: impl Fn(&StoredEvent) -> bool) -> Option<FromRing> {
        let state = self.notifier.lock();
        if after.get() < state.ring_after || self.wake.doubts.swap(false, Ordering::AcqRel) {
            return None;
        }
        let start = state.ring.partition_point(|event| event.position <= after);
        // Clones share their buffers. The filter runs after unlocking, for it may take long and the writer waits for
        // this lock.
        let mut events: Vec<StoredEvent> = state.ring.range(start..).cloned().collect();
        let newest = state.ring.back();
        let mark = newest.map(|event| Mark { position: event.position, checksum: event.checksum });
        let upto = self.notifier.head();
        drop(state);
        events.retain(wanted);
        Some(FromRing { events, upto, mark })
    }
}

/// See [`Subscription::wake`].
#[derive(Debug)]
pub(super) struct WakeHandle(Arc<Wake>);

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.notifier.lock();
        for interest in &self.interests {
            let wakes = state.wakes(interest);
            wakes.remove(&self.id);
            if wakes.is_empty() {
                match interest {
                    Interest::All => {}
                    Interest::Category(category) => drop(state.of_category.remove(category)),
                    Interest::Stream(stream) => drop(state.of_stream.remove(stream)),
                    Interest::Tag(tag) => drop(state.of_tag.remove(tag)),
                }
            }
        }
        self.notifier.watchers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_reads_one_page_when_the_log_is_distrusted() {
        let notifier = Arc::new(Notifier::new(Position::new(3)));
        let subscription = notifier.subscribe(&StreamId::all(), &Filter::new());
        let from_ring = || subscription.newest_after(Position::new(3), |_| true).is_some();
        assert!(from_ring());
        notifier.distrust();
        assert!(subscription.wake.pending.load(Ordering::Acquire));
        assert!(!from_ring());
        assert!(from_ring());
    }
}
