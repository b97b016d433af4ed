//! One owner per consumer name, over all processes that share a store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::sealed;
use crate::log::{CellError, CellKey, InvalidName, ProjectionName, Store, StoreError, StoreId};

/// How often one that stands by looks whether it can take over.
const LOOKS: Duration = Duration::from_millis(250);

/// One owner at a time: of all runners with the same name on the same store, in whatever process, one runs and the others
/// [stand by](super::ConsumerState::StandingBy).
///
/// The lease is the cell `consumer/<name>/lease`, which the owner renews every third of its time. It has run out when its
/// revision has not changed for its whole time, measured by each observer on its own monotonic clock, so that no two clocks
/// need to agree. When the owner stops, the next one takes over within 250 ms; when it dies, within its time and 250 ms
/// after it renewed the lease last.
///
/// Each owner has a *term*, a number that only grows. The new owner writes its term into the checkpoint before it does
/// anything else, and every transaction compares it: an owner that was frozen and wakes up after its lease has run out
/// commits nothing more.
///
/// Without a lease nothing is applied twice either, because the checkpoint is compared in every transaction: of two runners
/// one stops with [`ModelError::TakenOver`](super::ModelError::TakenOver). That is the default for projections: a
/// [`StateModel`](crate::StateModel) is private to its process, so that every process needs a runner of its own; and after
/// a crash a consumer without a lease starts at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// How long it lasts without being renewed: 10 seconds by default, at least 100 ms.
    pub lasts: Duration,
    /// Who holds it, for people; by default the id of the process.
    pub owner: String,
}

impl Default for Lease {
    fn default() -> Self {
        Self { lasts: Duration::from_secs(10), owner: format!("process {}", std::process::id()) }
    }
}

impl Lease {
    /// Sets how long it lasts without being renewed; at least 100 ms.
    #[must_use]
    pub fn lasts(mut self, lasts: Duration) -> Self {
        self.lasts = lasts.max(Duration::from_millis(100));
        self
    }

    /// Sets who holds it, for people.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }
}

/// As it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    owner: String,
    /// Tells runners with the same owner apart.
    runner: String,
    term: u64,
    lasts_ms: u64,
    released: bool,
}

/// The key of one of a consumer's cells.
pub(super) fn cell_key(name: &ProjectionName, of: &str) -> Result<CellKey, InvalidName> {
    CellKey::new(format!("consumer/{name}/{of}"))
}

/// A runner that wants the lease of its name.
#[derive(Debug)]
pub(super) struct Contender {
    key: CellKey,
    lease: Lease,
    runner: Arc<str>,
    /// The lease of another: its revision, since when it has been that, and how long it lasts.
    other: Option<(u64, Instant, Duration)>,
    /// The next term is at least this.
    least: u64,
}

/// A lease that is held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) key: CellKey,
    pub(super) owner: Arc<str>,
    pub(super) runner: Arc<str>,
    pub(super) term: u64,
    pub(super) lasts: Duration,
    pub(super) revision: u64,
    /// When the last renewal was begun: it is held until its time has passed since.
    pub(super) renewed: Instant,
}

impl Contender {
    pub(super) fn new(name: &ProjectionName, lease: Lease) -> Result<Self, InvalidName> {
        let lasts = lease.lasts.max(Duration::from_millis(100));
        let runner = StoreId::random().to_string().into();
        Ok(Self { key: cell_key(name, "lease")?, lease: Lease { lasts, ..lease }, runner, other: None, least: 1 })
    }

    /// How long to wait before the next attempt.
    pub(super) fn looks(&self) -> Duration {
        LOOKS.min(self.lease.lasts / 4)
    }

    /// The next term must be above this one, which was found where the checkpoint is.
    pub(super) fn exceed(&mut self, term: u64) {
        self.least = self.least.max(term.saturating_add(1));
    }

    /// Takes the lease, if nobody holds it.
    pub(super) async fn acquire(&mut self, store: &Store) -> Result<Option<Held>, StoreError> {
        let now = Instant::now();
        let cell = store.cell(&self.key).await?;
        let (revision, before) = match &cell {
            None => (0, 0),
            Some(cell) => {
                let stored = sealed::open::<Stored>(&cell.value);
                let free = stored.as_ref().is_some_and(|stored| stored.released || *stored.runner == *self.runner);
                // One that cannot be read runs out like any other.
                let lasts = stored.as_ref().map_or(self.lease.lasts, |stored| Duration::from_millis(stored.lasts_ms));
                if !free {
                    match self.other {
                        Some((revision, since, lasts)) if revision == cell.revision => {
                            if since.elapsed() < lasts {
                                return Ok(None);
                            }
                        }
                        _ => {
                            self.other = Some((cell.revision, now, lasts));
                            return Ok(None);
                        }
                    }
                }
                (cell.revision, stored.map_or(0, |stored| stored.term))
            }
        };
        let term = self.least.max(before.saturating_add(1));
        let held = Held {
            key: self.key.clone(),
            owner: self.lease.owner.as_str().into(),
            runner: Arc::clone(&self.runner),
            term,
            lasts: self.lease.lasts,
            revision,
            renewed: now,
        };
        match store.set_cell(&held.key, revision, Some(held.encode(false))).await {
            Ok(revision) => {
                (self.other, self.least) = (None, term);
                Ok(Some(Held { revision, ..held }))
            }
            Err(CellError::Changed { .. }) => Ok(None),
            Err(CellError::Store(error)) => Err(error),
        }
    }
}

impl Held {
    fn encode(&self, released: bool) -> Bytes {
        let Self { owner, runner, term, lasts, .. } = self;
        let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let (owner, runner) = (owner.to_string(), runner.to_string());
        sealed::seal(&Stored { owner, runner, term: *term, lasts_ms, released })
    }

    /// Renews it; [`None`] if another has taken it.
    pub(super) async fn renew(&self, store: &Store) -> Result<Option<Self>, StoreError> {
        let renewed = Instant::now();
        match store.set_cell(&self.key, self.revision, Some(self.encode(false))).await {
            Ok(revision) => Ok(Some(Self { revision, renewed, ..self.clone() })),
            Err(CellError::Changed { .. }) => Ok(None),
            Err(CellError::Store(error)) => Err(error),
        }
    }

    /// Gives it up, so that another can take it at once.
    pub(super) async fn release(&self, store: &Store) -> Result<(), CellError> {
        store.set_cell(&self.key, self.revision, Some(self.encode(true))).await.map(drop)
    }

    /// When it is to be renewed.
    pub(super) fn due(&self) -> Instant {
        self.renewed + self.lasts / 3
    }

    /// Whether it may have run out.
    pub(super) fn has_run_out(&self) -> bool {
        self.renewed.elapsed() >= self.lasts
    }
}
