//! A read model in memory, saved as a snapshot of `@all`.

use std::fmt;
#[cfg(feature = "bincode")]
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tracing::{debug, warn};

use super::buckets::BUCKET;
use super::inline_state::Before;
use super::model::{Batch, Cleared, ReadModel};
use super::record_map::RecordMap;
use super::undo::Undo;
use crate::consumer::{Checkpoint, CheckpointRecord, ModelError};
use crate::domain::{Progress, Snapshots, StateError};
use crate::log::{Fingerprint, Load, Mark, Position, ProjectionName, Snapshot, Store, StreamId, Version};
use crate::panics;

/// A read model that is one Rust value, kept in memory and saved as a snapshot of `@all` under the projection's name.
///
/// A restart continues from the snapshot and folds the events after it. One model belongs to one projection.
///
/// [`StateModel::read`] only ever shows whole batches, even while a projection fails: a batch that failed half-way is
/// rolled back before anyone can see it, by folding the newest events again onto the state as it was last encoded. For
/// this, at most 16,384 events and 16 MiB of them are kept in memory, and the state is encoded once as many events were
/// folded as it has bytes (every 1,000 events if it is smaller), whatever the snapshot policy. Only if the state cannot
/// be saved, or the projector folds the same events differently than before, does the model fall back to the state of
/// the last snapshot after such a failure; [`Running::position`](crate::Running::position) goes back with it.
pub struct StateModel<S> {
    pub(super) inner: Arc<Inner<S>>,
}

pub(super) struct Inner<S> {
    pub(super) store: Store,
    pub(super) snapshots: Arc<Snapshots<S>>,
    /// If it is built beside another model: of which generation.
    beside: Option<u64>,
    /// Of the snapshots that it saves: the records, then the state.
    fingerprint: Fingerprint,
    held: Mutex<Held<S>>,
    /// Notified when a transaction of the log has ended that the state was changed in.
    pub(super) ended: Condvar,
}

pub(super) struct Held<S> {
    /// The projection it belongs to, once it has started.
    name: Option<ProjectionName>,
    pub(super) state: S,
    pub(super) records: RecordMap,
    /// Where the newest known snapshot was saved. It may be beyond the checkpoint, which can be moved back.
    pub(super) saved: Position,
    /// Whether records were written since.
    pub(super) unsaved: bool,
    /// Events folded since the last snapshot was taken.
    pub(super) events: u64,
    /// Whether a snapshot is being saved.
    saving: bool,
    /// What the running transaction has done to the state.
    pub(super) touched: Touched,
    /// For rolling back a batch that fails; [`None`] if the state cannot be saved.
    pub(super) undo: Option<Undo<S>>,
    /// Whether the undo data was released because the projection has stopped.
    pub(super) released: bool,
    /// What the running transaction of the log has changed, append by append.
    pub(super) open: Vec<Before>,
}

/// What a transaction has done to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touched {
    Not,
    /// It has accessed it mutably.
    Mutably,
    /// It has replaced it by the default.
    Emptied,
}

impl<S: Default> Default for Held<S> {
    fn default() -> Self {
        Self {
            name: None,
            state: S::default(),
            records: RecordMap::default(),
            saved: Position::ZERO,
            unsaved: false,
            events: 0,
            saving: false,
            touched: Touched::Not,
            undo: Some(Undo::to(None)),
            released: false,
            open: Vec::new(),
        }
    }
}

impl<S> Held<S> {
    fn checkpoint(&self) -> Option<Checkpoint> {
        if let Some(record) = self.records.get(CheckpointRecord::KEY) {
            return CheckpointRecord::decode(record)?.checkpoint();
        }
        // Of partitions, the one that is furthest on: the log has what the state has seen.
        let buckets = self.records.starting_with(BUCKET).filter_map(|(_, record)| CheckpointRecord::decode(record));
        buckets.max_by_key(|record| record.mark.position)?.checkpoint()
    }

    fn position(&self) -> Position {
        self.checkpoint().map_or(Position::ZERO, |at| at.position)
    }

    /// Replaces the state. The old one may panic when it is dropped, which is only logged.
    pub(super) fn put(&mut self, state: S) {
        let old = std::mem::replace(&mut self.state, state);
        if let Err(message) = panics::catch(|| drop(old)) {
            warn!(message, "a state panicked as it was dropped");
        }
    }
}

/// The state inside a transaction; derefs to it.
pub struct StateTx<'t, S> {
    pub(super) held: &'t mut Held<S>,
}

impl<S> Deref for StateTx<'_, S> {
    type Target = S;
    fn deref(&self) -> &S {
        &self.held.state
    }
}

impl<S> DerefMut for StateTx<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        if self.held.touched == Touched::Not {
            self.held.touched = Touched::Mutably;
        }
        &mut self.held.state
    }
}

impl<S> fmt::Debug for StateTx<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateTx").field("checkpoint", &self.held.checkpoint()).finish_non_exhaustive()
    }
}

#[cfg(feature = "bincode")]
impl<S> StateModel<S>
where
    S: Default + serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    /// The default number of events folded between two snapshots.
    pub const SAVE_EVERY: NonZeroU64 = NonZeroU64::MIN.saturating_add(9_999);

    /// Creates a model that is saved with bincode every [`Self::SAVE_EVERY`] events and when its projection stops.
    pub fn new(store: impl Into<Store>) -> Self {
        use crate::domain::{Bincode, SnapshotPolicy};
        Self::saved_by(store, Snapshots::new::<Bincode>(SnapshotPolicy::Every(Self::SAVE_EVERY), 1))
    }
}

impl<S: Default + Send + 'static> StateModel<S> {
    /// Creates a model that is saved according to `snapshots`, and when its projection stops. The progress that the
    /// policy sees counts the folded events; its version is the position.
    pub fn saved_by(store: impl Into<Store>, snapshots: Snapshots<S>) -> Self {
        let fingerprint = with_records(snapshots.fingerprint());
        Self::of(Inner {
            store: store.into(),
            snapshots: Arc::new(snapshots),
            beside: None,
            fingerprint,
            held: Mutex::default(),
            ended: Condvar::new(),
        })
    }

    fn of(inner: Inner<S>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Passes the state to `look`. Batches wait while `look` runs, so keep it short; a batch is visible completely or
    /// not at all. A panic in `look` reaches the caller, and harms neither the model nor its projection.
    pub fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.inner.settled().state)
    }

    async fn in_transaction<T, F>(&self, batch: Option<Batch<Self>>, body: F) -> Result<T, ModelError>
    where
        F: for<'t> FnOnce(&mut StateTx<'t, S>) -> Result<T, ModelError>,
    {
        let (done, snapshot, released) = {
            let mut held = self.inner.settled();
            held.touched = Touched::Not;
            let done = panics::catch(|| body(&mut StateTx { held: &mut held }))
                .unwrap_or_else(|message| Err(ModelError::Panicked { position: None, message }));
            if done.is_err() {
                held.records.roll_back();
                if held.touched != Touched::Not {
                    self.inner.take_back(&mut held);
                }
                (done, None, None)
            } else {
                held.unsaved |= held.records.commit();
                let events = batch.as_ref().map_or(0, Batch::events);
                held.events += events;
                if held.touched != Touched::Not {
                    let cleared = held.touched == Touched::Emptied;
                    match (batch, &mut held.undo) {
                        (Some(batch), Some(undo)) => undo.keep(batch),
                        // This transaction cannot be run again.
                        (None, undo) => *undo = cleared.then(|| Undo::to(None)),
                        (Some(_), None) => {}
                    }
                }
                // Only after events were folded: reading the checkpoint must not run the policy.
                let due = if events == 0 { Ok((None, None)) } else { self.inner.due(&mut held) };
                match due {
                    Ok((snapshot, released)) => (done, snapshot, released),
                    // The runner will find the checkpoint moved: the batch is in the state, and the projection fails.
                    Err(error) => (Err(error), None, None),
                }
            }
        };
        drop(released);
        if let Some(snapshot) = snapshot {
            let saving = Saving(Arc::clone(&self.inner));
            let save = async move {
                // The state in memory is correct anyway, and is saved with the next snapshot.
                if let Err(error) = saving.0.save(snapshot).await {
                    warn!(error = &error as &dyn std::error::Error, "state cannot be saved");
                }
            };
            // Concurrently with the next batches: a flush of the log every ten thousand events would take longer than
            // they do.
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(save)),
                Err(_) => save.await,
            }
        }
        done
    }
}

/// Clears the `saving` flag when dropped, even if the task that saves the snapshot is gone.
pub(super) struct Saving<S>(pub(super) Arc<Inner<S>>);

impl<S> Drop for Saving<S> {
    fn drop(&mut self) {
        self.0.lock().saving = false;
    }
}

impl<S> Inner<S> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Held<S>> {
        // A panic under the lock comes from a reader, which changes nothing; those of projectors are caught.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name under which the state is saved.
    fn saved_as(&self, name: &ProjectionName) -> Result<ProjectionName, ModelError> {
        match self.beside {
            None => Ok(name.clone()),
            Some(generation) => ProjectionName::new(format!("{name}~{generation}")).map_err(ModelError::not_allowed),
        }
    }

    /// Locks the state once no transaction of the log has changed it without having ended.
    fn settled(&self) -> MutexGuard<'_, Held<S>> {
        let held = self.lock();
        self.ended.wait_while(held, |held| !held.open.is_empty()).unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of the state, if the policy wants one and none is being saved; and the undo data it replaces, to be
    /// dropped without the lock.
    pub(super) fn due(&self, held: &mut Held<S>) -> Result<(Option<Snapshot>, Option<Undo<S>>), ModelError> {
        let progress = Progress::new(Version::new(held.position().get()), held.events);
        let due = panics::catch(|| !held.saving && held.events > 0 && self.snapshots.is_due(&held.state, progress));
        if !due.map_err(panicked)? {
            return Ok((None, self.trim(held)));
        }
        let Some(name) = held.name.clone() else { return Ok((None, None)) };
        held.events = 0;
        match self.snapshot(held, &name) {
            Ok((snapshot, released)) => {
                held.saving = snapshot.is_some();
                Ok((snapshot, released))
            }
            Err(error @ ModelError::Panicked { .. }) => Err(error),
            Err(error) => {
                drop(panics::catch(
                    || warn!(%name, error = &error as &dyn std::error::Error, "state cannot be encoded"),
                ));
                Ok((None, None))
            }
        }
    }

    /// Encodes the state again if much was kept since it last was, and returns what was kept, to be dropped without the
    /// lock.
    pub(super) fn trim(&self, held: &mut Held<S>) -> Option<Undo<S>> {
        let full = held.undo.as_ref().is_some_and(Undo::is_full);
        let released = if full { held.undo.take() } else { None };
        if full {
            held.undo = self.undo_to_here(held);
        }
        released
    }

    /// Undo data that begins at the current state; [`None`] if it cannot be saved.
    pub(super) fn undo_to_here(&self, held: &Held<S>) -> Option<Undo<S>> {
        let state = panics::catch(|| self.snapshots.to_saved(&held.state));
        state.ok().and_then(Result::ok).map(|state| Undo::to(Some(state.into())))
    }

    /// A snapshot of the state, if it has changed since the last one, and the undo data it replaces.
    fn snapshot(
        &self,
        held: &mut Held<S>,
        name: &ProjectionName,
    ) -> Result<(Option<Snapshot>, Option<Undo<S>>), ModelError> {
        if !held.unsaved {
            return Ok((None, None));
        }
        let state = match panics::catch(|| self.snapshots.to_saved(&held.state)).map_err(panicked)? {
            Ok(state) => state,
            // It would decode to another state. Nothing is lost: the projection folds from the last snapshot next time.
            Err(error @ StateError::Unfaithful { .. }) => {
                warn!(%name, error = &error as &dyn std::error::Error, "the state is not saved");
                return Ok((None, None));
            }
            Err(error) => return Err(ModelError::failed(error)),
        };
        let mut bytes = Vec::with_capacity(256 + state.len());
        held.records.encode(&mut bytes);
        let records = bytes.len();
        bytes.extend(state);
        let bytes = Bytes::from(bytes);
        let released = held.undo.replace(Undo::to(Some(bytes.slice(records..))));
        held.unsaved = false;
        // An older snapshot would not replace a newer one, even if the checkpoint was moved back.
        let at = held.position().max(held.saved).get();
        Ok((Some(Snapshot::new(StreamId::all(), name.clone(), at, self.fingerprint, bytes)), released))
    }

    pub(super) async fn save(&self, snapshot: Snapshot) -> Result<(), ModelError> {
        let position = Position::new(snapshot.at);
        let saved = self.store.engine().save_snapshot(snapshot).await.map_err(ModelError::failed);
        let mut held = self.lock();
        match saved {
            Ok(()) => held.saved = held.saved.max(position),
            Err(_) => held.unsaved = true,
        }
        saved
    }

    /// The state and the records of a snapshot, and the bytes of the state.
    fn restore(&self, snapshot: &Snapshot) -> Option<(S, RecordMap, Bytes)> {
        let name = &snapshot.name;
        let mut bytes = snapshot.state.clone();
        let records = if snapshot.fingerprint == self.fingerprint {
            let records = RecordMap::decode(&mut bytes);
            if records.is_none() {
                warn!(%name, "the records of the snapshot are damaged: folding from the beginning");
            }
            records?
        } else if snapshot.fingerprint == self.snapshots.fingerprint() {
            // An earlier release saved the checksum of the event at its position before the state, and no records.
            let checksum = bytes::Buf::try_get_u32_le(&mut bytes).ok()?;
            let mark = Mark { position: Position::new(snapshot.at), checksum };
            let record = CheckpointRecord::of(&Checkpoint::new(self.store.id(), mark));
            let mut records = RecordMap::default();
            records.set(CheckpointRecord::KEY, Some(record.encode()));
            records.commit();
            records
        } else {
            debug!(%name, "snapshot is of another shape or version: folding from the beginning");
            return None;
        };
        let state = match panics::catch(|| self.snapshots.from_saved(&bytes)) {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => {
                drop(panics::catch(|| warn!(%name, %error, "snapshot cannot be read: folding from the beginning")));
                return None;
            }
            Err(message) => {
                warn!(%name, message, "reading the snapshot panicked: folding from the beginning");
                return None;
            }
        };
        Some((state, records, bytes))
    }
}

impl<S: Default> Inner<S> {
    /// Rolls back a batch that failed after accessing the state. A state that cannot be restored is discarded, and the
    /// runner folds it again.
    fn take_back(&self, held: &mut Held<S>) {
        let undo = held.undo.take();
        if let Some(undo) = undo
            && self.fold_again(held, &undo)
        {
            held.undo = Some(undo);
            return;
        }
        warn!(name = held.name.as_ref().map(ProjectionName::as_str), "the state is folded again from its snapshot");
        if let Ok(fresh) = panics::catch(S::default) {
            held.put(fresh);
        }
        (held.records, held.saved, held.events, held.unsaved) = (RecordMap::default(), Position::ZERO, 0, false);
    }

    pub(super) fn fold_again(&self, held: &mut Held<S>, undo: &Undo<S>) -> bool {
        let older = panics::catch(|| match undo.state() {
            Some(bytes) => self.snapshots.from_saved(bytes).ok(),
            None => Some(S::default()),
        });
        let Ok(Some(older)) = older else { return false };
        held.put(older);
        undo.batches().all(|fold| matches!(panics::catch(|| fold(&mut StateTx { held: &mut *held })), Ok(Ok(()))))
    }
}

fn panicked(message: String) -> ModelError {
    ModelError::Panicked { position: None, message }
}

#[cfg(any(test, feature = "testing"))]
impl<S: Default> StateModel<S> {
    /// Forgets what is not saved, as if the process had died.
    pub(crate) fn forget(&self) {
        *self.inner.lock() = Held::default();
    }
}

/// The fingerprint of a snapshot that contains the model's records before the state.
fn with_records(of_state: Fingerprint) -> Fingerprint {
    Fingerprint::of(&[&of_state.to_bytes()[..], b"records"].concat())
}

impl<S: Default + Send + 'static> ReadModel for StateModel<S> {
    type Tx<'t> = StateTx<'t, S>;

    /// Loads the state from the snapshot, unless the one in memory is this projection's and at least as new.
    async fn start(&self, name: &ProjectionName) -> Result<(), ModelError> {
        let inner = &self.inner;
        let name = &inner.saved_as(name)?;
        let load = Load { events: 0, ..Load::new(StreamId::all(), Some(name.clone())) };
        let loaded = inner.store.engine().load(load).await.map_err(ModelError::failed)?;
        let at = loaded.snapshot.as_ref().map_or(Position::ZERO, |snapshot| Position::new(snapshot.at));
        let restored = loaded.snapshot.and_then(|snapshot| inner.restore(&snapshot));
        let mut held = inner.settled();
        let is_here = held.name.as_ref() == Some(name) && !held.records.is_empty();
        let (state, records, undo) = match restored {
            Some((_, _, bytes)) if is_here && at == held.saved && !held.unsaved => {
                held.undo = Some(Undo::to(Some(bytes)));
                return Ok(());
            }
            Some((state, records, bytes)) if !is_here || at > held.position().max(held.saved) => {
                (state, records, Undo::to(Some(bytes)))
            }
            _ if is_here => return Ok(()),
            _ => (panics::catch(S::default).map_err(panicked)?, RecordMap::default(), Undo::to(None)),
        };
        held.put(state);
        held.name = Some(name.clone());
        (held.records, held.undo, held.events) = (records, Some(undo), 0);
        (held.saved, held.unsaved) = (at, false);
        Ok(())
    }

    async fn transact<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut StateTx<'t, S>) -> Result<T, ModelError> + Send + 'static,
    {
        self.in_transaction(None, body).await
    }

    async fn transact_batch(&self, batch: Batch<Self>) -> Result<(), ModelError> {
        self.in_transaction(Some(batch.clone()), move |tx: &mut StateTx<'_, S>| batch.run(tx)).await
    }

    fn get(tx: &mut StateTx<'_, S>, _: &ProjectionName, key: &str) -> Result<Option<Bytes>, ModelError> {
        Ok(tx.held.records.get(key).cloned())
    }

    fn put(tx: &mut StateTx<'_, S>, _: &ProjectionName, key: &str, value: &[u8]) -> Result<(), ModelError> {
        tx.held.records.set(key, Some(Bytes::copy_from_slice(value)));
        Ok(())
    }

    fn delete(tx: &mut StateTx<'_, S>, _: &ProjectionName, key: &str) -> Result<(), ModelError> {
        tx.held.records.set(key, None);
        Ok(())
    }

    fn list(tx: &mut StateTx<'_, S>, _: &ProjectionName, prefix: &str) -> Result<Vec<(String, Bytes)>, ModelError> {
        let found = tx.held.records.starting_with(prefix);
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn clear(tx: &mut StateTx<'_, S>) -> Result<Cleared, ModelError> {
        let empty = panics::catch(S::default).map_err(panicked)?;
        tx.held.touched = Touched::Emptied;
        tx.held.put(empty);
        Ok(Cleared::All)
    }

    async fn settle(&self, name: &ProjectionName) -> Result<(), ModelError> {
        let name = &self.inner.saved_as(name)?;
        let (snapshot, released) = {
            let mut held = self.inner.settled();
            let taken = self.inner.snapshot(&mut held, name);
            // No more rollbacks are needed, and the undo data keeps the projector alive.
            let released = held.undo.take();
            held.released = true;
            (taken, released)
        };
        drop(released);
        match snapshot?.0 {
            Some(snapshot) => self.inner.save(snapshot).await,
            None => Ok(()),
        }
    }

    async fn beside(&self, _: &ProjectionName, generation: u64) -> Result<Self, ModelError> {
        let Inner { store, snapshots, fingerprint, .. } = &*self.inner;
        let (store, snapshots, fingerprint) = (store.clone(), Arc::clone(snapshots), *fingerprint);
        Ok(Self::of(Inner {
            store,
            snapshots,
            beside: Some(generation),
            fingerprint,
            held: Mutex::default(),
            ended: Condvar::new(),
        }))
    }

    async fn replace_by<F>(&self, name: &ProjectionName, built: &Self, agree: F) -> Result<(), ModelError>
    where
        F: for<'t> FnOnce(&mut StateTx<'t, S>) -> Result<(), ModelError> + Send + 'static,
    {
        if Arc::ptr_eq(&self.inner, &built.inner) {
            return Err(ModelError::not_allowed("a model cannot be replaced by itself"));
        }
        let empty = panics::catch(S::default).map_err(panicked)?;
        let (snapshot, released) = {
            let mut held = self.inner.settled();
            let agreed = panics::catch(|| agree(&mut StateTx { held: &mut held }));
            if let Err(error) = agreed.map_err(panicked).and_then(|agreed| agreed) {
                held.records.roll_back();
                return Err(error);
            }
            held.records.commit();
            let state = std::mem::replace(&mut built.inner.lock().state, empty);
            held.put(state);
            let released = held.undo.take();
            // The saved snapshot is of the old state, even if it is at the same position.
            (held.unsaved, held.events) = (true, 0);
            (self.inner.snapshot(&mut held, name), released)
        };
        drop(released);
        match snapshot {
            Ok((Some(snapshot), released)) => {
                drop(released);
                // Until the next snapshot a restart would find the old state, and build the new one once more.
                if let Err(error) = self.inner.save(snapshot).await {
                    warn!(%name, error = &error as &dyn std::error::Error, "state cannot be saved");
                }
            }
            Ok((None, _)) => {}
            Err(error) => warn!(%name, error = &error as &dyn std::error::Error, "state cannot be encoded"),
        }
        Ok(())
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
