//! What an engine provides to be tested.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use es_framework::{Clock, Limits, Store, SystemClock};

/// How a store is to be opened.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setup {
    /// Limits on the size of one event and of one append.
    pub limits: Limits,
    /// The source of timestamps.
    pub clock: Arc<dyn Clock>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { limits: Limits::default(), clock: Arc::new(SystemClock) }
    }
}

impl Setup {
    /// Sets the clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("limits", &self.limits).field("clock", &self.clock).finish()
    }
}

/// Opens the stores of the engine under test.
///
/// Every test creates its own fixture and drops it at its end, after the stores: a fixture of an engine that keeps
/// files owns their folders. Additional capabilities of an engine are declared by implementing [`Durable`] and
/// [`Shared`]. A fact that needs one of them does not compile for a fixture without it, so none is ever skipped
/// silently.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a fixture of the conformance suite",
    note = "implement `es_conformance::Fixture`: it opens a fresh, empty store of the engine"
)]
pub trait Fixture: Send + Sync + 'static {
    /// Opens a fresh, empty store; each call opens another one.
    fn open_with(&self, setup: Setup) -> impl Future<Output = Store> + Send;

    /// Opens a fresh, empty store with the engine's defaults.
    fn open(&self) -> impl Future<Output = Store> + Send {
        self.open_with(Setup::default())
    }
}

/// An engine whose stores outlive their handles.
#[diagnostic::on_unimplemented(
    message = "`{Self}` opens no stores that outlive their handles",
    note = "implement `es_conformance::Durable`, or leave `conformance_durable!` out for an engine that forgets"
)]
pub trait Durable: Fixture {
    /// Closes a store that this fixture opened and opens the same one again; [`Store::id`] identifies it.
    fn reopen_with(&self, store: Store, setup: Setup) -> impl Future<Output = Store> + Send;

    /// Closes a store that this fixture opened and opens the same one again with the engine's defaults.
    fn reopen(&self, store: Store) -> impl Future<Output = Store> + Send {
        self.reopen_with(store, Setup::default())
    }
}

/// An engine whose stores can be open several times at once.
#[diagnostic::on_unimplemented(
    message = "`{Self}` opens no stores that several processes share",
    note = "implement `es_conformance::Shared`, or leave `conformance_shared!` out for an engine whose stores are private"
)]
pub trait Shared: Fixture {
    /// Opens a store that this fixture opened a second time, the way another process would: with its own connections,
    /// caches and notifier. Both must notice each other's commits within a second.
    fn second(&self, store: &Store) -> impl Future<Output = Store> + Send;
}
