//! The repository: loads aggregates, executes commands, saves snapshots.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tracing::{Instrument, warn};

use super::aggregate::{Aggregate, Apply, HandledBy};
use super::cache::{Base, Cache, Slot};
use super::decision::remember_repository;
use super::event::DecodeError;
use super::execute::Execute;
use super::fold::{FoldPanic, caught};
use super::saving::{Failures, Saving};
use super::snapshots::snapshot_name;
use super::state::Snapshots;
use crate::log::observer::{LoadReport, SnapshotResult};
use crate::log::{
    AsOf, ErrorKind, Filter, Fingerprint, InvalidName, Load, Position, Read, Reading, Snapshot, Store, StoreError,
    StreamId, Timestamp, Version,
};

/// Loads aggregates, executes commands on them and saves their snapshots; cheap to clone.
///
/// It caches the states of the aggregates it used last, so that a command on one of them costs one append and no read.
/// The cache is never trusted: every write is checked against the log with the exact version, and a decision that
/// writes nothing is confirmed by an empty append.
///
/// ```
/// # use es_framework::*;
/// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
/// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account { cents: u64 }
/// # impl Apply for Account { fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
/// #     let AccountEvent::Deposited { cents } = event; self.cents += cents; } }
/// # struct Deposit { cents: u64 }
/// # #[commands] impl Account { fn deposit(&self, command: &Deposit) -> AccountEvent {
/// #     AccountEvent::Deposited { cents: command.cents } } }
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
    pub(super) settings: Settings,
    cache: Cache<Slot<A>>,
    /// How states are saved, with the fingerprint of newly saved ones.
    pub(super) snapshots: Option<(Snapshots<A>, Fingerprint)>,
    pub(super) saving: Saving,
    pub(super) failures: Failures,
    pub(super) counters: Counters,
}

/// The settings of a repository, shared by all handles to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) tries: u32,
    cache: usize,
}

impl Settings {
    /// Whether any state is cached.
    pub(super) fn caches(&self) -> bool {
        self.cache > 0
    }
}

/// Builds a repository with custom settings; created by [`Repository::builder`].
///
/// ```
/// # use es_framework::*;
/// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
/// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account;
/// # impl Apply for Account { fn apply(&mut self, _: &AccountEvent, _: Envelope<'_>) {} }
/// # let store = MemoryStore::new();
/// let accounts = Repository::<Account>::builder(&store).tries(3).cache(10_000).build();
/// # drop(accounts);
/// ```
#[derive(Debug)]
#[must_use = "a repository is made by `build`"]
pub struct RepositoryBuilder<A: Aggregate> {
    store: Store,
    settings: Settings,
    of: PhantomData<fn() -> A>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) used: AtomicU64,
    missing: AtomicU64,
    pub(super) outdated: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) saved: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) unfaithful: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    conflicts: AtomicU64,
}

/// Counters of a repository since it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RepositoryMetrics {
    /// Loads that started from a snapshot.
    pub snapshots_used: u64,
    /// Loads that replayed everything because there was no snapshot.
    pub snapshots_missing: u64,
    /// Loads that replayed everything because the snapshot was made with another shape or another `apply`.
    pub snapshots_outdated: u64,
    /// Loads that replayed everything because the snapshot could not be read.
    pub snapshots_unreadable: u64,
    /// Snapshots saved.
    pub snapshots_saved: u64,
    /// Snapshots that could not be saved; the commands succeeded anyway. A save that cannot succeed later either, as in
    /// a read-only store, is not tried again, so it counts once.
    pub snapshots_failed: u64,
    /// Those of the failed snapshots that the codec does not return unchanged: see [`Snapshots::to_saved`].
    pub snapshots_unfaithful: u64,
    /// Commands that found the state in the cache.
    pub cache_hits: u64,
    /// Commands that loaded the state.
    pub cache_misses: u64,
    /// Decisions that were repeated because another writer was faster.
    pub conflicts: u64,
}

/// The state of an aggregate, and its version.
pub struct Folded<A> {
    /// The state.
    pub state: Arc<A>,
    /// The version of the state; [`Version::ZERO`] if the aggregate has no events.
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
    /// Category and id together are not a valid stream id.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// An event could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// `apply`, or the decoding of an event, panicked on a stored event.
    #[error(transparent)]
    Panicked(#[from] FoldPanic),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) => ErrorKind::Caller,
            Self::Decode(_) | Self::Panicked(_) => ErrorKind::Data,
            Self::Store(error) => error.kind(),
        }
    }
}

impl<A: Aggregate> Repository<A> {
    /// The default maximum number of times a command is decided.
    pub const TRIES: u32 = 10;
    /// The default minimum number of cached states.
    pub const CACHED: usize = 1_024;

    /// Creates a repository over a store, with the default settings.
    pub fn new(store: impl Into<Store>) -> Self
    where
        A: Apply,
    {
        Self::builder(store).build()
    }

    /// Starts building a repository with custom settings. They are fixed once it is built, and its clones share them.
    pub fn builder(store: impl Into<Store>) -> RepositoryBuilder<A> {
        let settings = Settings { tries: Self::TRIES, cache: Self::CACHED };
        RepositoryBuilder { store: store.into(), settings, of: PhantomData }
    }
}

impl<A: Aggregate> RepositoryBuilder<A> {
    /// The maximum number of times a command is decided while other writers are faster; at least 1.
    /// [`Repository::TRIES`] by default.
    pub fn tries(mut self, tries: u32) -> Self {
        self.settings.tries = tries.max(1);
        self
    }

    /// How many states are cached: at least this many, and at most twice as many. [`Repository::CACHED`] by default.
    ///
    /// With 0, every command loads its aggregate, and commands of this repository on one aggregate no longer take
    /// turns: the slower one decides again.
    pub fn cache(mut self, states: usize) -> Self {
        self.settings.cache = states;
        self
    }

    /// Builds the repository. [Decisions](crate::Decide) on its aggregates share the cache of the newest repository that
    /// was built on their store and is still alive.
    pub fn build(self) -> Repository<A> {
        let inner = self.inner();
        remember_repository(&inner);
        Repository { inner }
    }

    pub(super) fn inner(self) -> Arc<Inner<A>> {
        let snapshots = A::SNAPSHOTS.map(|snapshots| {
            let fingerprint = snapshots.fingerprint();
            (snapshots, fingerprint)
        });
        let inner = Inner {
            store: self.store,
            settings: self.settings,
            cache: Cache::new(self.settings.cache),
            snapshots,
            saving: Saving::default(),
            failures: Failures::default(),
            counters: Counters::default(),
        };
        Arc::new(inner)
    }
}

impl<A: Aggregate + Apply> Repository<A> {
    /// The store it works on.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Executes a command: loads the aggregate, lets it decide, and writes the events with the exact version.
    ///
    /// Await it directly, or configure it first: [`Execute::key`], [`Execute::provenance`].
    ///
    /// A state that is [due](crate::SnapshotPolicy) is saved after the events were written: in the background inside a
    /// tokio runtime, and before the command returns outside of one. Nothing else here needs a runtime.
    ///
    /// # Errors
    ///
    /// [`ExecuteError`](super::ExecuteError) keeps rejections, conflicts and failures apart.
    ///
    /// # Panics
    ///
    /// If the handler or the `Serialize` of an event panics; nothing was written then, and the aggregate remains
    /// usable. A panic in `apply` or while decoding an event is returned as an error instead.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, either all events of the command are written or none. Give the command a key to be
    /// able to retry it. A future that was polled once and is then kept without being polled (in a `select!`, for
    /// example) does not block other commands on the aggregate, and one of them may finish the work it began.
    pub fn execute<C>(&self, id: impl Into<A::Id>, command: C) -> Execute<'_, A, C, C::Error>
    where
        C: HandledBy<A> + Send + Sync,
    {
        Execute::new(self, id.into(), command, &())
    }

    /// Executes a command whose [handler](crate::Handle) needs services. They are only borrowed; handlers that need
    /// none accept any.
    ///
    /// ```
    /// # use es_framework::*;
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account { cents: u64 }
    /// # impl Apply for Account { fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
    /// #     let AccountEvent::Deposited { cents } = event; self.cents += cents; } }
    /// struct Rates {
    ///     cents_per_dollar: u64,
    /// }
    ///
    /// struct DepositDollars(u64);
    ///
    /// #[commands]
    /// impl Account {
    ///     fn deposit_dollars(&self, command: &DepositDollars, rates: &Rates) -> AccountEvent {
    ///         AccountEvent::Deposited { cents: command.0 * rates.cents_per_dollar }
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let accounts = Repository::<Account>::new(MemoryStore::new());
    /// let rates = Rates { cents_per_dollar: 92 };
    /// let receipt = accounts.execute_with("alice", DepositDollars(10), &rates).await?;
    /// assert_eq!(receipt.state.cents, 920);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Self::execute`].
    ///
    /// # Panics
    ///
    /// As for [`Self::execute`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Self::execute`].
    pub fn execute_with<'r, C, S>(
        &'r self,
        id: impl Into<A::Id>,
        command: C,
        services: &'r S,
    ) -> Execute<'r, A, C, C::Error, S>
    where
        C: HandledBy<A, S> + Send + Sync,
        S: ?Sized + Sync,
    {
        Execute::new(self, id.into(), command, services)
    }

    /// Loads an aggregate as it is now; one without events is the default state at version 0.
    ///
    /// A state that is due is saved, as in [`Self::execute`].
    ///
    /// # Errors
    ///
    /// [`LoadError`] if an event cannot be decoded or folded, or the store cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time: nothing is changed except the snapshot, which may or may not be saved.
    pub async fn load(&self, id: impl Into<A::Id>) -> Result<Folded<A>, LoadError> {
        let stream = A::stream_id(&id.into())?;
        let base = self.inner.load(&stream, None).await?;
        if self.inner.is_due(&stream, &base) {
            self.inner.save_due(&stream, base.clone()).await;
        }
        Ok(base.into())
    }

    /// Loads an aggregate as it was at a version, a position or a time.
    ///
    /// # Errors
    ///
    /// As for [`Self::load`].
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time: nothing is changed.
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
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time: nothing is changed.
    pub async fn exists(&self, id: impl Into<A::Id>) -> Result<bool, LoadError> {
        Ok(self.inner.store.stream(A::stream_id(&id.into())?).exists().await?)
    }

    /// Waits until every snapshot being saved in the background is saved or has failed.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time: nothing is changed.
    pub async fn snapshots_settled(&self) {
        self.inner.saving.settled().await;
    }

    /// The counters since the repository was created.
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
            snapshots_unfaithful: of(&counters.unfaithful),
            cache_hits: of(&counters.hits),
            cache_misses: of(&counters.misses),
            conflicts: of(&counters.conflicts),
        }
    }
}

impl<A: Aggregate + Apply> Inner<A> {
    pub(super) fn slot(&self, stream: &StreamId) -> Arc<Slot<A>> {
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
        let begun = self.store.observed().map(|_| Instant::now());
        let mut report = LoadReport::of(A::CATEGORY);
        let loaded = self.load_reporting(stream, until, &mut report).instrument(span).await;
        self.tell_loaded(report, begun, loaded.is_ok());
        loaded
    }

    async fn load_reporting(
        &self,
        stream: &StreamId,
        until: Option<Version>,
        report: &mut LoadReport,
    ) -> Result<Base<A>, LoadError> {
        let name = self.snapshots.is_some().then(snapshot_name);
        let head = self.store.head();
        let loaded = self.store.engine().load(Load { until, ..Load::new(stream.clone(), name) }).await?;
        let before = until.map(|until| until.next().get());
        let restored = loaded.snapshot.as_ref().map(|snapshot| self.try_restore(snapshot));
        // If the snapshot is unusable, the page after it does not suffice: everything is folded from the start.
        let whole = !matches!(restored, Some(Err(_)));
        report.snapshot = match &restored {
            Some(Ok(_)) => SnapshotResult::Used,
            Some(Err(result)) => *result,
            None if self.snapshots.is_some() => SnapshotResult::Missing,
            None => SnapshotResult::NotAsked,
        };
        let mut base = restored.and_then(Result::ok).unwrap_or_else(Base::empty);
        let from = base.version.get();
        let page = whole.then_some(loaded.page);
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
                // Fetch the rest while the first page is being folded.
                let read = Read { after: base.version.get(), before, ..Read::new(stream.clone()) };
                let mut rest = Reading::following(&self.store, read, &page).whole();
                rest.fetch_ahead().await;
                base.fold_events(&page.events)?;
                base.fold_all(rest).await?;
            }
            None => base.fold_all(self.events_after(stream, Version::ZERO, before)).await?,
        }
        if until.is_none() {
            // The load saw at least what was in the log before it began.
            base.current_at = base.current_at.max(head);
        }
        report.events_replayed = base.version.get() - from;
        Ok(base)
    }

    fn tell_loaded(&self, mut report: LoadReport, begun: Option<Instant>, is_ok: bool) {
        if let (Some(observed), Some(begun)) = (self.store.observed(), begun) {
            report.is_ok = is_ok;
            report.duration = begun.elapsed();
            observed.tell(|observer| observer.loaded(&report));
        }
    }

    /// As [`Self::restore`], but a snapshot on which the user's code panics counts as unreadable.
    fn try_restore(&self, snapshot: &Snapshot) -> Result<Base<A>, SnapshotResult> {
        caught(|| self.restore(snapshot)).unwrap_or_else(|panic| {
            self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
            warn!(stream = %snapshot.stream, at = snapshot.at, panic, "snapshot cannot be read: replaying");
            Err(SnapshotResult::Unreadable)
        })
    }

    /// The state at an earlier version, for the receipt of a command that was executed before. It continues from the
    /// state of the last such receipt, so that many of them in order cost one fold of the stream in total, not one
    /// each.
    pub(super) async fn load_past(
        &self,
        slot: &Slot<A>,
        stream: &StreamId,
        version: Version,
        snapshot_at: u64,
    ) -> Result<Arc<A>, LoadError> {
        let lock = || slot.past.lock().unwrap_or_else(PoisonError::into_inner);
        // A snapshot between the two versions would be nearer.
        let nearer = |past: &mut Base<A>| {
            past.version <= version && (past.version.get() >= snapshot_at || version.get() < snapshot_at)
        };
        let past = lock().take_if(nearer);
        let base = match past {
            None => self.load(stream, Some(version)).await?,
            Some(mut base) => {
                base.fold_all(self.events_after(stream, base.version, Some(version.next().get()))).await?;
                base
            }
        };
        let state = Arc::clone(&base.state);
        *lock() = Some(base);
        Ok(state)
    }

    /// Folds the events that were written since.
    pub(super) async fn refresh(&self, stream: &StreamId, base: &mut Base<A>) -> Result<(), LoadError> {
        let (begun, from) = (self.store.observed().map(|_| Instant::now()), base.version.get());
        let head = self.store.head();
        let refreshed = base.fold_all(self.events_after(stream, base.version, None)).await;
        let mut report = LoadReport::of(A::CATEGORY);
        report.events_replayed = base.version.get() - from;
        self.tell_loaded(report, begun, refreshed.is_ok());
        refreshed?;
        base.current_at = base.current_at.max(head);
        Ok(())
    }

    /// Folds those of the events written since that are at or below a position that the log has reached.
    pub(super) async fn refresh_until(
        &self,
        stream: &StreamId,
        base: &mut Base<A>,
        until: Position,
    ) -> Result<(), LoadError> {
        let mut events = self.events_after(stream, base.version, None);
        while let Some(batch) = events.next_batch().await {
            let mut batch = batch?;
            let length = batch.len();
            batch.retain(|event| event.position <= until);
            base.fold_events(&batch)?;
            if batch.len() < length {
                break;
            }
        }
        base.current_at = base.current_at.max(until);
        Ok(())
    }

    fn events_after(&self, stream: &StreamId, after: Version, before: Option<u64>) -> Reading {
        let reader = self.store.stream(stream.clone()).read().after(after);
        match before {
            Some(before) => reader.before(Version::new(before)).stream().whole(),
            None => reader.stream().whole(),
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
