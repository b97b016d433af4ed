//! A read model in memory, saved as a snapshot of `@all`.

use std::fmt;
#[cfg(feature = "bincode")]
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, warn};

use super::model::{Checkpoint, ModelError, ReadModel, Step};
use crate::domain::{Progress, Snapshots};
use crate::log::{Fingerprint, Load, Mark, Position, ProjectionName, Snapshot, Store, StreamId, Version};

/// A read model that is one Rust value, kept in memory and saved as a snapshot of `@all` under the projection's name.
///
/// A restart goes on from the snapshot and folds what came after it. One model belongs to one projection.
pub struct StateModel<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    store: Store,
    snapshots: Snapshots<S>,
    fingerprint: Fingerprint,
    held: Mutex<Held<S>>,
}

struct Held<S> {
    /// The projection it belongs to, once that has started.
    name: Option<ProjectionName>,
    state: S,
    checkpoint: Option<Checkpoint>,
    /// The position of the snapshot that is saved.
    saved: Position,
    /// Events folded since the last snapshot was taken.
    events: u64,
    /// Whether a snapshot is being saved.
    saving: bool,
    /// Whether the transaction that runs has got hold of the state.
    touched: bool,
}

impl<S: Default> Default for Held<S> {
    fn default() -> Self {
        Self {
            name: None,
            state: S::default(),
            checkpoint: None,
            saved: Position::ZERO,
            events: 0,
            saving: false,
            touched: false,
        }
    }
}

/// The state inside a transaction; derefs to it.
pub struct StateTx<'t, S> {
    held: &'t mut Held<S>,
}

impl<S> Deref for StateTx<'_, S> {
    type Target = S;
    fn deref(&self) -> &S {
        &self.held.state
    }
}

impl<S> DerefMut for StateTx<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        self.held.touched = true;
        &mut self.held.state
    }
}

impl<S> fmt::Debug for StateTx<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateTx").field("checkpoint", &self.held.checkpoint).finish_non_exhaustive()
    }
}

#[cfg(feature = "bincode")]
impl<S> StateModel<S>
where
    S: Default + serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    /// How many events are folded between two snapshots, by default.
    pub const SAVE_EVERY: NonZeroU64 = NonZeroU64::MIN.saturating_add(9_999);

    /// Makes a model that is saved with bincode every [`Self::SAVE_EVERY`] events and when its projection stops.
    pub fn new(store: impl Into<Store>) -> Self {
        use crate::domain::{Bincode, SnapshotPolicy};
        Self::saved_by(store, Snapshots::new::<Bincode>(SnapshotPolicy::Every(Self::SAVE_EVERY), 1))
    }
}

impl<S: Default + Send + 'static> StateModel<S> {
    /// Makes a model that is saved by these rules, and when its projection stops. The progress that a policy sees counts
    /// the events folded; its version is the position.
    pub fn saved_by(store: impl Into<Store>, snapshots: Snapshots<S>) -> Self {
        let fingerprint = snapshots.fingerprint();
        let inner = Inner { store: store.into(), snapshots, fingerprint, held: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Looks at the state. Batches wait while `look` runs, so be quick; a batch is seen whole or not at all.
    pub fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.inner.lock().state)
    }

    /// Takes the state of the snapshot, or the default.
    async fn reload(&self, name: &ProjectionName) -> Result<(), ModelError> {
        let inner = &self.inner;
        let load = Load { events: 0, ..Load::new(StreamId::all(), Some(name.clone())) };
        let loaded = inner.store.engine().load(load).await.map_err(ModelError::failed)?;
        let held = loaded.snapshot.and_then(|snapshot| inner.restore(&snapshot)).unwrap_or_default();
        *inner.lock() = Held { name: Some(name.clone()), ..held };
        Ok(())
    }
}

impl<S: Default> Inner<S> {
    fn lock(&self) -> MutexGuard<'_, Held<S>> {
        // A state that a panic left half-changed is taken back before anybody can see it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of the state, if the policy asks for one and none is being saved.
    fn due(&self, held: &mut Held<S>) -> Option<Snapshot> {
        let position = held.checkpoint.map_or(Position::ZERO, |at| at.position);
        let progress = Progress::new(Version::new(position.get()), held.events);
        if held.saving || held.events == 0 || !self.snapshots.is_due(&held.state, progress) {
            return None;
        }
        let name = held.name.clone()?;
        match self.snapshot(held, &name) {
            Ok(snapshot) => {
                (held.saving, held.events) = (snapshot.is_some(), 0);
                snapshot
            }
            Err(error) => {
                warn!(%name, error = &error as &dyn std::error::Error, "state cannot be encoded");
                None
            }
        }
    }

    /// A snapshot of the state, if it has moved on since the last one.
    fn snapshot(&self, held: &Held<S>, name: &ProjectionName) -> Result<Option<Snapshot>, ModelError> {
        let Some(checkpoint) = held.checkpoint.filter(|at| at.position > held.saved) else { return Ok(None) };
        let state = self.snapshots.to_saved(&held.state).map_err(ModelError::failed)?;
        let mut bytes = Vec::with_capacity(4 + state.len());
        bytes.extend(checkpoint.checksum.to_le_bytes());
        bytes.extend(state);
        let at = checkpoint.position.get();
        Ok(Some(Snapshot::new(StreamId::all(), name.clone(), at, self.fingerprint, bytes)))
    }

    async fn save(&self, snapshot: Snapshot) -> Result<(), ModelError> {
        let position = Position::new(snapshot.at);
        let saved = self.store.engine().save_snapshot(snapshot).await.map_err(ModelError::failed);
        let mut held = self.lock();
        held.saving = false;
        if saved.is_ok() {
            held.saved = held.saved.max(position);
        }
        saved
    }

    fn restore(&self, snapshot: &Snapshot) -> Option<Held<S>> {
        if snapshot.fingerprint != self.fingerprint {
            debug!(name = %snapshot.name, "snapshot is of another shape or version: folding from the beginning");
            return None;
        }
        let (checksum, state) = snapshot.state.split_first_chunk()?;
        let state = match self.snapshots.from_saved(state) {
            Ok(state) => state,
            Err(error) => {
                warn!(name = %snapshot.name, %error, "snapshot cannot be read: folding from the beginning");
                return None;
            }
        };
        let position = Position::new(snapshot.at);
        let mark = Mark { position, checksum: u32::from_le_bytes(*checksum) };
        let checkpoint = Some(Checkpoint::new(self.store.id(), mark));
        Some(Held { name: None, state, checkpoint, saved: position, events: 0, saving: false, touched: false })
    }
}

impl<S: Default + Send + 'static> ReadModel for StateModel<S> {
    type Tx<'t> = StateTx<'t, S>;

    async fn start(&self, name: &ProjectionName) -> Result<(), ModelError> {
        self.reload(name).await
    }

    async fn transact<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut StateTx<'t, S>) -> Result<T, ModelError> + Send + 'static,
    {
        let (answer, snapshot) = {
            let mut held = self.inner.lock();
            held.touched = false;
            let answer = catch_unwind(AssertUnwindSafe(|| body(&mut StateTx { held: &mut held })))
                .unwrap_or_else(|panic| Err(ModelError::panicked(panic.as_ref())));
            if answer.is_err() && held.touched {
                // Half a batch may be in the state; the runner starts the model again and folds up to the checkpoint.
                *held = Held { name: held.name.take(), ..Held::default() };
            }
            (answer, self.inner.due(&mut held))
        };
        if let Some(snapshot) = snapshot {
            // Beside the next batches: a flush of the log for every ten thousand events would take longer than they do.
            let inner = Arc::clone(&self.inner);
            tokio::spawn(async move {
                // The state in memory is right all the same, and is saved with the next snapshot.
                if let Err(error) = inner.save(snapshot).await {
                    warn!(error = &error as &dyn std::error::Error, "state cannot be saved");
                }
            });
        }
        answer
    }

    fn checkpoint(tx: &mut StateTx<'_, S>, _: &ProjectionName) -> Result<Option<Checkpoint>, ModelError> {
        Ok(tx.held.checkpoint)
    }

    fn advance(tx: &mut StateTx<'_, S>, _: &ProjectionName, step: &Step) -> Result<(), ModelError> {
        tx.held.checkpoint = Some(step.to);
        tx.held.events += step.events;
        Ok(())
    }

    async fn settle(&self, name: &ProjectionName) -> Result<(), ModelError> {
        let snapshot = {
            let held = self.inner.lock();
            self.inner.snapshot(&held, name)?
        };
        match snapshot {
            Some(snapshot) => self.inner.save(snapshot).await,
            None => Ok(()),
        }
    }
}

impl<S> Clone for StateModel<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S> fmt::Debug for StateModel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateModel").field("store", &self.inner.store).finish_non_exhaustive()
    }
}
