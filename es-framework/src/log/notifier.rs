//! What wakes watchers, and the ring of newest events they are fed from.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::error::StoreError;
use super::event::StoredEvent;
use super::filter::{Clause, Filter};
use super::name::{StreamId, category_of};
use super::position::Position;
use super::read::Mark;

/// The events that the ring holds at most.
const RING_EVENTS: usize = 4_096;
/// The payload and metadata bytes that the ring holds at most.
const RING_BYTES: usize = 4 << 20;
/// The events of others that are read for watchers; beyond that they read pages.
const FOREIGN_EVENTS: u32 = 2_048;
/// Payloads of up to so many bytes are copied into the ring.
const COPIED_BYTES: usize = 16 << 10;

/// The one notifier of an open store: it wakes exactly the watchers that a commit concerns and feeds those at the head
/// from a ring of the newest events, so that idle watchers cost no queries.
///
/// A wake-up is a hint and the log is the truth: a watcher that finds the ring no longer reaching back to where it is
/// reads pages instead.
#[derive(Debug, Default)]
pub struct Notifier {
    /// The position of the newest commit published; what is at or below it can be read.
    head: AtomicU64,
    /// How many watchers there are.
    watchers: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// Events of all positions in `(ring_after, head]`, oldest first.
    ring: VecDeque<StoredEvent>,
    ring_bytes: usize,
    ring_after: u64,
    next_watcher: u64,
    of_all: HashMap<u64, Arc<Wake>>,
    of_category: HashMap<String, HashMap<u64, Arc<Wake>>>,
    of_stream: HashMap<StreamId, HashMap<u64, Arc<Wake>>>,
}

#[derive(Debug, Default)]
struct Wake {
    pending: AtomicBool,
    /// To read a page, whatever the ring has.
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

/// What the ring has for a watcher.
#[derive(Debug)]
pub(super) struct FromRing {
    /// The events that are wanted.
    pub(super) events: Vec<StoredEvent>,
    /// The position they reach to.
    pub(super) upto: Position,
    /// The newest event, wanted or not.
    pub(super) mark: Option<Mark>,
}

impl Notifier {
    /// Makes a notifier of a log whose newest event is at `head`.
    pub fn new(head: Position) -> Self {
        let state = State { ring_after: head.get(), ..State::default() };
        Self { head: AtomicU64::new(head.get()), watchers: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    /// The position of the newest commit that was published.
    pub fn head(&self) -> Position {
        Position::new(self.head.load(Ordering::Acquire))
    }

    /// Whether anybody watches; without watchers, engines need not look for commits of other processes.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Acquire) > 0
    }

    /// Tells that the log now reaches to `head` and that `events` are all events after `after`, in order.
    ///
    /// Calls may overlap and come late: what is at or below the known head is passed over, and a gap before `after`
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
                if woken.as_ref() != Some(&event.stream) {
                    state.wake_concerned(&event.stream);
                    woken = Some(event.stream.clone());
                }
                state.push(event);
            }
        }
        // Watchers that were woken wait for the lock, so they find the head moved.
        self.head.store(head.get(), Ordering::Release);
    }

    /// Tells that the log now reaches to `head`, by events that are not at hand. Everybody is woken and reads pages; the
    /// right call while nobody watches.
    pub fn advance(&self, head: Position) {
        let mut state = self.lock();
        if head.get() > self.head.load(Ordering::Acquire) {
            state.clear_ring(head);
            self.head.store(head.get(), Ordering::Release);
            state.wake_everybody();
        }
    }

    /// Tells that others have committed, if they have: the log was seen to reach to `head`. Returns whether that was news.
    ///
    /// For engines whose log several processes share. Whoever comes upon a foreign commit calls this: the poller that looks
    /// for them, and the writer before it tells of its own commits, which come after them in the log. `read` reads the
    /// events after a position, at most as many as it is told, within the same transaction that saw `head`, and returns
    /// [`None`] where they are too large to be held. It is called only if somebody watches and there are not many.
    ///
    /// # Errors
    ///
    /// Whatever `read` returns, but for [`StoreError::Corrupt`]: watchers that read the damaged event report it.
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

    /// Tells that the log cannot be looked at. Everybody is woken and reads one page, whose error ends the watch; where it
    /// can be read after all nothing is lost.
    pub fn distrust(&self) {
        let state = self.lock();
        state.everybody().for_each(|wake| {
            wake.doubts.store(true, Ordering::Release);
            wake.set();
        });
    }

    /// Ends every watcher.
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
        // Nothing in here panics half-way through a change, so a poisoned state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, mut event: StoredEvent) {
        if event.payload.len() <= COPIED_BYTES {
            // It may be a slice of a request's body, all of which the ring would hold.
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
        }
    }

    fn wake_concerned(&self, stream: &StreamId) {
        let of_stream = self.of_stream.get(stream);
        let of_category =
            if self.of_category.is_empty() { None } else { self.of_category.get(category_of(stream.as_str())) };
        self.of_all.values().chain(of_stream.into_iter().flat_map(HashMap::values)).for_each(|wake| wake.set());
        of_category.into_iter().flat_map(HashMap::values).for_each(|wake| wake.set());
    }

    fn wake_everybody(&self) {
        self.everybody().for_each(|wake| wake.set());
    }

    fn everybody(&self) -> impl Iterator<Item = &Arc<Wake>> {
        let named = self.of_category.values().chain(self.of_stream.values());
        named.chain([&self.of_all]).flat_map(HashMap::values)
    }
}

/// Whose commits a watcher wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Interest {
    All,
    Category(String),
    Stream(StreamId),
}

impl Interest {
    fn of(stream: &StreamId, filter: &Filter) -> Vec<Self> {
        if !stream.is_all() {
            return vec![Self::Stream(stream.clone())];
        }
        let narrowed = filter.clauses().iter().find_map(|clause| match clause {
            Clause::Streams(streams) => Some(streams.iter().cloned().map(Self::Stream).collect::<Vec<_>>()),
            Clause::Categories(categories) => Some(categories.iter().cloned().map(Self::Category).collect()),
            _ => None,
        });
        // Whoever wants nothing is registered all the same, to hear of the close.
        narrowed.filter(|interests| !interests.is_empty()).unwrap_or_else(|| vec![Self::All])
    }
}

/// A watcher's place at the notifier; dropping it frees it.
#[derive(Debug)]
pub(super) struct Subscription {
    notifier: Arc<Notifier>,
    id: u64,
    wake: Arc<Wake>,
    interests: Vec<Interest>,
}

impl Subscription {
    /// Waits until a commit may concern this watcher, or the store is closed. Wakes at once for one that came before the
    /// call and after the last wake-up.
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

    /// The newest events after `after` that are wanted; [`None`] if the ring does not reach back that far.
    pub(super) fn newest_after(&self, after: Position, wanted: impl Fn(&StoredEvent) -> bool) -> Option<FromRing> {
        let state = self.notifier.lock();
        if after.get() < state.ring_after || self.wake.doubts.swap(false, Ordering::AcqRel) {
            return None;
        }
        let start = state.ring.partition_point(|event| event.position <= after);
        // Copies share what they hold; a filter may take long, and the writer waits for this lock.
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
