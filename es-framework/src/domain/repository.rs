//! The repository: loads aggregates, executes commands, saves snapshots.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;
use tracing::{Instrument, debug, warn};

use super::aggregate::{Aggregate, Apply, Handle, Progress, Snapshots};
use super::cache::{Base, Cache, Slot};
use super::event::{DecodeError, Envelope, Event};
use super::execute::Execute;
use crate::log::{
    AsOf, ErrorKind, Filter, Fingerprint, InvalidName, Load, Position, ProjectionName, Read, Reading, Snapshot, Store,
    StoreError, StoredEvent, StreamId, Timestamp, Version,
};

/// How many snapshots one repository saves at the same time; what comes on top waits for the next command.
const SAVING_AT_ONCE: u32 = 4;

/// Loads aggregates, executes commands on them and saves their snapshots; cheap to clone.
///
/// It remembers the states of the aggregates it worked on last, so that a command on one of them costs one append and no
/// read. That memory is never trusted: every write is judged against the log with the exact version, and a decision that
/// writes nothing is confirmed by an empty append.
///
/// ```
/// # use es_framework::*;
/// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
/// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account { cents: u64 }
/// # impl Apply for Account { fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
/// #     let AccountEvent::Deposited { cents } = event; self.cents += cents; } }
/// # struct Deposit { cents: u64 }
/// # impl Handle<Deposit> for Account { type Error = std::convert::Infallible;
/// #     fn handle(&self, command: &Deposit, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Self::Error> {
/// #         Ok(vec![AccountEvent::Deposited { cents: command.cents }]) } }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = MemoryStore::new();
/// let accounts = Repository::<Account>::new(&store);
/// let receipt = accounts.execute("alice", Deposit { cents: 500 }).await?;
/// assert_eq!(receipt.state.cents, 500);
/// assert_eq!(accounts.load("alice").await?.version, Version::new(1));
/// # Ok(()) }
/// ```
pub struct Repository<A: Aggregate> {
    pub(super) inner: Arc<Inner<A>>,
}

pub(super) struct Inner<A: Aggregate> {
    pub(super) store: Store,
    pub(super) tries: u32,
    cache: Cache<A>,
    /// How states are saved, with the fingerprint of what is saved now.
    snapshots: Option<(Snapshots<A>, Fingerprint)>,
    saving: Arc<Semaphore>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    used: AtomicU64,
    missing: AtomicU64,
    outdated: AtomicU64,
    unreadable: AtomicU64,
    saved: AtomicU64,
    failed: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    conflicts: AtomicU64,
}

/// What a repository has counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RepositoryMetrics {
    /// Loads that began with a snapshot.
    pub snapshots_used: u64,
    /// Loads that replayed everything because there was no snapshot.
    pub snapshots_missing: u64,
    /// Loads that replayed everything because the snapshot came from another shape or another `apply`.
    pub snapshots_outdated: u64,
    /// Loads that replayed everything because the snapshot could not be read.
    pub snapshots_unreadable: u64,
    /// Snapshots saved.
    pub snapshots_saved: u64,
    /// Snapshots that could not be saved; the commands succeeded all the same.
    pub snapshots_failed: u64,
    /// Commands that found the state in memory.
    pub cache_hits: u64,
    /// Commands that loaded the state.
    pub cache_misses: u64,
    /// Decisions made again because another writer was faster.
    pub conflicts: u64,
}

/// The state of an aggregate, and the version it is of.
pub struct Folded<A> {
    /// The state.
    pub state: Arc<A>,
    /// The version it is of; [`Version::ZERO`] if the aggregate has no events.
    pub version: Version,
    /// The position of the newest event it is folded from.
    pub position: Position,
    /// The time of the newest event it is folded from.
    pub time: Timestamp,
}

impl<A> Folded<A> {
    /// Whether the aggregate has any events.
    pub fn exists(&self) -> bool {
        self.version > Version::ZERO
    }
}

impl<A: fmt::Debug> fmt::Debug for Folded<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folded").field("state", &self.state).field("version", &self.version).finish_non_exhaustive()
    }
}

/// An aggregate that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Category and id together are no valid stream id.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// An event could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) => ErrorKind::Caller,
            Self::Decode(_) => ErrorKind::Data,
            Self::Store(error) => error.kind(),
        }
    }
}

impl<A: Aggregate> Repository<A> {
    /// Decides at most so often about one command, by default.
    pub const TRIES: u32 = 10;
    /// Remembers at least so many states, by default.
    pub const CACHED: usize = 1_024;

    /// Makes a repository over a store.
    pub fn new(store: impl Into<Store>) -> Self
    where
        A: Apply,
    {
        let snapshots = A::SNAPSHOTS.map(|snapshots| {
            let fingerprint = snapshots.fingerprint();
            (snapshots, fingerprint)
        });
        let inner = Inner {
            store: store.into(),
            tries: Self::TRIES,
            cache: Cache::new(Self::CACHED),
            snapshots,
            saving: Arc::new(Semaphore::new(SAVING_AT_ONCE as usize)),
            counters: Counters::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl<A: Apply> Repository<A> {
    /// Decides at most `tries` times about one command while other writers are faster; at least once.
    #[must_use]
    pub fn with_tries(self, tries: u32) -> Self {
        self.rebuilt(|inner| inner.tries = tries.max(1))
    }

    /// Remembers between `states` and twice as many states. With 0 every command loads its aggregate, and commands of
    /// this repository on one aggregate no longer take turns: the slower one decides again.
    #[must_use]
    pub fn with_cache(self, states: usize) -> Self {
        self.rebuilt(|inner| inner.cache = Cache::new(states))
    }

    fn rebuilt(self, change: impl FnOnce(&mut Inner<A>)) -> Self {
        let store = self.inner.store.clone();
        let mut inner = match Arc::try_unwrap(self.inner) {
            Ok(inner) => inner,
            Err(shared) => {
                let fresh = Self::new(store).with_tries(shared.tries);
                Arc::into_inner(fresh.inner).expect("the new repository has one handle")
            }
        };
        change(&mut inner);
        Self { inner: Arc::new(inner) }
    }

    /// The store it works on.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Executes a command: loads the aggregate, lets it decide, and writes the events with the exact version.
    ///
    /// Await the answer for the plain case, or say more first: [`Execute::key`], [`Execute::provenance`].
    ///
    /// # Errors
    ///
    /// [`ExecuteError`](super::ExecuteError) keeps rejections, conflicts and failures apart.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has written all events of the command or none. Give the command a key to be able to ask again.
    pub fn execute<C>(&self, id: impl Into<A::Id>, command: C) -> Execute<'_, A, C>
    where
        A: Handle<C>,
        C: Send + Sync,
    {
        Execute::new(self, id.into(), command)
    }

    /// Loads an aggregate as it is now; one without events is the default state at version 0.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if an event cannot be decoded or the store cannot be read.
    pub async fn load(&self, id: impl Into<A::Id>) -> Result<Folded<A>, LoadError> {
        let stream = A::stream_id(&id.into())?;
        let base = self.inner.load(&stream, None).await?;
        self.inner.save_if_due(&stream, &base);
        Ok(base.into())
    }

    /// Loads an aggregate as it was at a version, a position or a time.
    ///
    /// # Errors
    ///
    /// As for [`Self::load`].
    pub async fn load_as_of(&self, id: impl Into<A::Id>, moment: impl Into<AsOf>) -> Result<Folded<A>, LoadError> {
        let stream = A::stream_id(&id.into())?;
        let filter = match moment.into() {
            AsOf::Version(version) => return Ok(self.inner.load(&stream, Some(version)).await?.into()),
            AsOf::Position(position) => Filter::new().before(position.next()),
            AsOf::Time(time) => Filter::new().until(time),
        };
        let newest =
            self.inner.store.stream(stream.clone()).read().filter(filter).backward().limit(1).collect().await?;
        let version = newest.first().map_or(Version::ZERO, |event| event.version);
        Ok(self.inner.load(&stream, Some(version)).await?.into())
    }

    /// Whether the aggregate has any events.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the store cannot be read.
    pub async fn exists(&self, id: impl Into<A::Id>) -> Result<bool, LoadError> {
        Ok(self.inner.store.stream(A::stream_id(&id.into())?).exists().await?)
    }

    /// Waits until every snapshot that is being saved is saved or has failed.
    pub async fn snapshots_settled(&self) {
        // The semaphore is never closed, so this waits for all permits and gives them back.
        drop(self.inner.saving.acquire_many(SAVING_AT_ONCE).await);
    }

    /// What was counted since the repository was made.
    pub fn metrics(&self) -> RepositoryMetrics {
        let counters = &self.inner.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RepositoryMetrics {
            snapshots_used: of(&counters.used),
            snapshots_missing: of(&counters.missing),
            snapshots_outdated: of(&counters.outdated),
            snapshots_unreadable: of(&counters.unreadable),
            snapshots_saved: of(&counters.saved),
            snapshots_failed: of(&counters.failed),
            cache_hits: of(&counters.hits),
            cache_misses: of(&counters.misses),
            conflicts: of(&counters.conflicts),
        }
    }
}

impl<A: Apply> Inner<A> {
    pub(super) fn slot(&self, stream: &StreamId) -> Slot<A> {
        self.cache.slot(stream)
    }

    pub(super) fn count_cache(&self, hit: bool) {
        let counter = if hit { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_conflict(&self) {
        self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    /// Folds the state from the newest usable snapshot and the events after it, up to a version or to the end.
    pub(super) async fn load(&self, stream: &StreamId, until: Option<Version>) -> Result<Base<A>, LoadError> {
        let span = tracing::debug_span!("load", aggregate = A::CATEGORY, stream = stream.as_str());
        async {
            let name = self.snapshots.is_some().then(snapshot_name);
            let loaded = self.store.engine().load(Load { until, ..Load::new(stream.clone(), name) }).await?;
            let before = until.map(|until| until.next().get());
            let (mut base, page) = match loaded.snapshot {
                None => (Base::empty(), Some(loaded.page)),
                Some(snapshot) => match self.restore(&snapshot) {
                    Some(base) => (base, Some(loaded.page)),
                    None => (Base::empty(), None),
                },
            };
            let counted = self.snapshots.is_some() && page.is_some();
            if counted && base.version == Version::ZERO {
                self.counters.missing.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(page) = &page {
                page.check_whole(stream, base.version.get(), before)?;
            }
            match page {
                Some(page) if page.end => base.fold_events(&page.events)?,
                Some(page) => {
                    // The rest is on its way while the first page is folded.
                    let read = Read { after: base.version.get(), before, ..Read::new(stream.clone()) };
                    let mut rest = Reading::following(&self.store, read, &page).whole();
                    rest.fetch_ahead().await;
                    base.fold_events(&page.events)?;
                    base.fold_all(rest).await?;
                }
                None => base.fold_all(self.events_after(stream, Version::ZERO, before)).await?,
            }
            Ok(base)
        }
        .instrument(span)
        .await
    }

    /// Folds what was written since.
    pub(super) async fn refresh(&self, stream: &StreamId, base: &mut Base<A>) -> Result<(), LoadError> {
        base.fold_all(self.events_after(stream, base.version, None)).await
    }

    fn events_after(&self, stream: &StreamId, after: Version, before: Option<u64>) -> Reading {
        let reader = self.store.stream(stream.clone()).read().after(after);
        match before {
            Some(before) => reader.before(Version::new(before)).stream().whole(),
            None => reader.stream().whole(),
        }
    }

    /// The state of a snapshot, unless it is of no use; says so in the log and in a counter.
    fn restore(&self, snapshot: &Snapshot) -> Option<Base<A>> {
        let (snapshots, fingerprint) = self.snapshots.as_ref()?;
        if snapshot.fingerprint != *fingerprint {
            self.counters.outdated.fetch_add(1, Ordering::Relaxed);
            debug!(stream = %snapshot.stream, at = snapshot.at, "snapshot is of another shape or `apply`: replaying");
            return None;
        }
        match SavedState::parse(&snapshot.state).map(|saved| (saved, snapshots.decode(saved.state))) {
            Some((saved, Ok(state))) => {
                self.counters.used.fetch_add(1, Ordering::Relaxed);
                Some(Base {
                    state: Arc::new(state),
                    version: Version::new(snapshot.at),
                    position: saved.position,
                    time: saved.time,
                    snapshot_at: Arc::new(AtomicU64::new(snapshot.at)),
                })
            }
            unreadable => {
                self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                let error = unreadable.and_then(|(_, decoded)| decoded.err()).map(|error| error.to_string());
                warn!(stream = %snapshot.stream, at = snapshot.at, error, "snapshot cannot be read: replaying");
                None
            }
        }
    }

    /// Saves the state in the background if the policy says so. A failure is logged and counted, and never fails the
    /// command.
    pub(super) fn save_if_due(self: &Arc<Self>, stream: &StreamId, base: &Base<A>) {
        let Some((snapshots, _)) = &self.snapshots else { return };
        let saved = base.snapshot_at.load(Ordering::Acquire);
        let progress = Progress::new(base.version, base.version.get().saturating_sub(saved));
        if progress.events_since_snapshot == 0 || !snapshots.is_due(&base.state, progress) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.saving).try_acquire_owned() else { return };
        if base.snapshot_at.compare_exchange(saved, base.version.get(), Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        let (inner, stream, base) = (Arc::clone(self), stream.clone(), base.clone());
        tokio::spawn(async move {
            if inner.save(&stream, &base).await {
                inner.counters.saved.fetch_add(1, Ordering::Relaxed);
            } else {
                inner.counters.failed.fetch_add(1, Ordering::Relaxed);
                // Due again at the next command, unless another save has overtaken this one.
                let now = base.version.get();
                let _: Result<u64, u64> =
                    base.snapshot_at.compare_exchange(now, saved, Ordering::AcqRel, Ordering::Acquire);
            }
            drop(permit);
        });
    }

    async fn save(&self, stream: &StreamId, base: &Base<A>) -> bool {
        let Some((snapshots, fingerprint)) = &self.snapshots else { return false };
        let state = match snapshots.encode(&base.state) {
            Ok(state) => SavedState { position: base.position, time: base.time, state: &state }.to_bytes(),
            Err(error) => {
                warn!(%stream, version = base.version.get(), %error, "snapshot cannot be encoded");
                return false;
            }
        };
        let snapshot = Snapshot::new(stream.clone(), snapshot_name(), base.version.get(), *fingerprint, state);
        match self.store.engine().save_snapshot(snapshot).await {
            Ok(()) => true,
            Err(error) => {
                warn!(%stream, version = base.version.get(), %error, "snapshot cannot be saved");
                false
            }
        }
    }
}

/// What a snapshot of an aggregate holds: position and time of the newest event, which only the envelope knows, before
/// the state.
#[derive(Clone, Copy)]
struct SavedState<'a> {
    position: Position,
    time: Timestamp,
    state: &'a [u8],
}

impl<'a> SavedState<'a> {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.state.len());
        bytes.extend(self.position.get().to_le_bytes());
        bytes.extend(self.time.as_micros().to_le_bytes());
        bytes.extend(self.state);
        bytes
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (position, rest) = bytes.split_first_chunk()?;
        let (time, state) = rest.split_first_chunk()?;
        let position = Position::new(u64::from_le_bytes(*position));
        Some(Self { position, time: Timestamp::from_micros(i64::from_le_bytes(*time)), state })
    }
}

/// The name that aggregates' snapshots are kept under.
fn snapshot_name() -> ProjectionName {
    ProjectionName::new("aggregate").expect("the name is short and has no control characters")
}

impl<A: Apply> Base<A> {
    fn empty() -> Self {
        Self {
            state: Arc::default(),
            version: Version::ZERO,
            position: Position::ZERO,
            time: Timestamp::default(),
            snapshot_at: Arc::default(),
        }
    }

    async fn fold_all(&mut self, mut events: Reading) -> Result<(), LoadError> {
        while let Some(batch) = events.next_batch().await {
            self.fold_events(&batch?)?;
        }
        Ok(())
    }

    pub(super) fn fold_events(&mut self, events: &[StoredEvent]) -> Result<(), DecodeError> {
        let Some(last) = events.last() else { return Ok(()) };
        // Copies the state only while somebody else holds it, a receipt for example.
        let state = Arc::make_mut(&mut self.state);
        for stored in events {
            state.apply(&A::Event::decode(stored)?, Envelope::of(stored));
        }
        (self.version, self.position, self.time) = (last.version, last.position, last.time);
        Ok(())
    }

    /// Applies events that were just written and need no decoding.
    pub(super) fn apply_written<'e>(&mut self, events: impl IntoIterator<Item = (&'e A::Event, StoredEvent)>) {
        let state = Arc::make_mut(&mut self.state);
        for (event, stored) in events {
            state.apply(event, Envelope::of(&stored));
            (self.version, self.position, self.time) = (stored.version, stored.position, stored.time);
        }
    }
}

impl<A> From<Base<A>> for Folded<A> {
    fn from(base: Base<A>) -> Self {
        Self { state: base.state, version: base.version, position: base.position, time: base.time }
    }
}

impl<A: Aggregate> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<A: Aggregate> fmt::Debug for Repository<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("aggregate", &A::CATEGORY).field("store", &self.inner.store).finish()
    }
}
