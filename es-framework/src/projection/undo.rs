//! How a state in memory is restored after a batch failed half-way.

use bytes::Bytes;

use super::model::{Batch, ReadModel};
use super::state::{StateModel, StateTx};
use crate::consumer::ModelError;

/// The maximum number of events kept for refolding.
const EVENTS: u64 = 16_384;
/// The maximum size in bytes of their payloads and metadata.
const BYTES: usize = 16 << 20;
/// The number of events after which a small state is encoded again: if they were kept for longer, the events of a page
/// would no longer be in the processor's cache when they are dropped.
const FEW: usize = 1_000;

/// An older state, encoded, and the batches since. Running the batches on it again restores the state before the batch
/// that failed.
///
/// A batch changes the state in place, because copying it for each batch would cost as much as the state is large.
/// Whenever a snapshot is taken, it becomes the older state. In between, the state is encoded only for this purpose,
/// once as many events were folded as it has bytes. A state of 5,000 bytes, for example, is encoded every 5,000 events,
/// which costs about a nanosecond per event.
pub(super) struct Undo<S> {
    /// [`None`] for the default state.
    state: Option<Bytes>,
    batches: Vec<Box<Fold<S>>>,
    events: u64,
    bytes: usize,
}

/// How much was kept at one moment.
#[derive(Debug, Clone)]
pub(super) struct UndoMark {
    batches: usize,
    events: u64,
    bytes: usize,
}

type Fold<S> = dyn for<'t> Fn(&mut StateTx<'t, S>) -> Result<(), ModelError> + Send + Sync;

impl<S> Undo<S> {
    /// Goes back to this state; [`None`] is the default.
    pub(super) fn to(state: Option<Bytes>) -> Self {
        Self { state, batches: Vec::new(), events: 0, bytes: 0 }
    }

    pub(super) fn state(&self) -> Option<&Bytes> {
        self.state.as_ref()
    }

    /// The batches in order.
    pub(super) fn batches(&self) -> impl Iterator<Item = &Fold<S>> {
        self.batches.iter().map(|fold| &**fold)
    }

    /// How much is kept, for [`Self::go_back`].
    pub(super) fn mark(&self) -> UndoMark {
        UndoMark { batches: self.batches.len(), events: self.events, bytes: self.bytes }
    }

    /// Forgets the batches that were kept since the mark was taken.
    pub(super) fn go_back(&mut self, mark: &UndoMark) {
        self.batches.truncate(mark.batches);
        (self.events, self.bytes) = (mark.events, mark.bytes);
    }

    /// Whether so much is kept that the state should be encoded again.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state.as_ref().map_or(0, Bytes::len).max(FEW) as u64;
        self.events >= state.min(EVENTS) || self.bytes > BYTES
    }
}

impl<S> Undo<S>
where
    StateModel<S>: for<'t> ReadModel<Tx<'t> = StateTx<'t, S>>,
{
    /// Keeps a batch that was committed.
    pub(super) fn keep(&mut self, batch: Batch<StateModel<S>>) {
        self.events += batch.events();
        self.bytes += batch.bytes();
        self.batches.push(Box::new(move |tx: &mut StateTx<'_, S>| batch.fold(tx)));
    }
}
