//! A read model in memory, changed inside the transactions of appends.

use std::any::Any;
use std::sync::Arc;

use tokio::runtime::Handle;
use tracing::warn;

use super::inline::InlineModel;
use super::model::Batch;
use super::record_map::RecordMap;
use super::state::{Held, Inner, Saving, StateModel, StateTx, Touched};
use super::undo::{Undo, UndoMark};
use crate::consumer::ModelError;
use crate::log::{Position, Store};
use crate::panics;

/// A model before an append of a transaction that has not ended.
#[derive(Debug)]
pub(super) struct Before {
    records: RecordMap,
    /// [`None`] if the state cannot be saved.
    undo: Option<UndoMark>,
    events: u64,
    /// Whether the append has changed the state.
    touched: bool,
}

/// The state is changed at once and, while the transaction has not ended, hidden from readers, who wait for it. If the
/// transaction is rolled back, the state is restored as after a batch that failed.
impl<S: Default + Send + 'static> InlineModel for StateModel<S> {
    fn check_inline(&self, store: &Store) -> Result<(), ModelError> {
        let own = self.inner.store.id();
        if own == store.id() {
            return Ok(());
        }
        let reason =
            format!("the model saves its snapshots in store {own}, and the events are in store {}", store.id());
        Err(ModelError::not_allowed(reason))
    }

    fn begin_append(&self) {
        let mut held = self.inner.lock();
        if std::mem::take(&mut held.released) {
            held.undo = self.inner.undo_to_here(&held);
        }
        let (records, undo, events) = (held.records.clone(), held.undo.as_ref().map(Undo::mark), held.events);
        held.open.push(Before { records, undo, events, touched: false });
    }

    fn within<T, F>(&self, _: &dyn Any, body: F) -> Result<T, ModelError>
    where
        F: for<'t> FnOnce(&mut StateTx<'t, S>) -> Result<T, ModelError>,
    {
        let mut held = self.inner.lock();
        held.touched = Touched::Not;
        let done = panics::catch(|| body(&mut StateTx { held: &mut held }))
            .unwrap_or_else(|message| Err(ModelError::Panicked { position: None, message }));
        let written = held.records.commit();
        held.unsaved |= written;
        let touched = held.touched != Touched::Not;
        if let Some(before) = held.open.last_mut() {
            before.touched |= touched;
        }
        done
    }

    fn batch_within(&self, transaction: &dyn Any, batch: &Batch<Self>) -> Result<(), ModelError> {
        self.within(transaction, |tx: &mut StateTx<'_, S>| {
            batch.run(tx)?;
            tx.held.events += batch.events();
            if tx.held.touched != Touched::Not
                && let Some(undo) = &mut tx.held.undo
            {
                undo.keep(batch.clone());
            }
            Ok(())
        })
    }

    fn revert_append(&self) {
        let mut held = self.inner.lock();
        if let Some(before) = held.open.pop() {
            let touched = before.touched;
            self.inner.restore_before(&mut held, before, touched);
            self.inner.ended.notify_all();
        }
    }

    fn ended(&self, committed: bool, runtime: Option<&Handle>) {
        let snapshot = {
            let mut held = self.inner.lock();
            if !committed {
                let touched = held.open.iter().any(|before| before.touched);
                let first = held.open.drain(..).next();
                if let Some(before) = first {
                    self.inner.restore_before(&mut held, before, touched);
                }
            }
            held.open.clear();
            self.inner.ended.notify_all();
            let folded = committed && held.events > 0;
            // A snapshot is saved by a task: the writer that calls this is needed for it.
            match runtime {
                Some(_) if folded => self.inner.due(&mut held),
                _ => Ok((None, self.inner.trim(&mut held))),
            }
        };
        match (snapshot, runtime) {
            (Ok((Some(snapshot), _)), Some(runtime)) => {
                let saving = Saving(Arc::clone(&self.inner));
                drop(runtime.spawn(async move {
                    if let Err(error) = saving.0.save(snapshot).await {
                        warn!(error = &error as &dyn std::error::Error, "state cannot be saved");
                    }
                }));
            }
            // The state is right, and it is saved when the projection ends.
            (Err(error), _) => warn!(error = &error as &dyn std::error::Error, "state cannot be encoded"),
            _ => {}
        }
    }
}

impl<S: Default + Send + 'static> Inner<S> {
    /// Restores the model as it was. A state that cannot be restored is discarded, and folded again from the beginning
    /// with the next append.
    fn restore_before(&self, held: &mut Held<S>, before: Before, touched: bool) {
        (held.records, held.events) = (before.records, before.events);
        let undo = held.undo.take();
        if let (Some(mut undo), Some(mark)) = (undo, &before.undo) {
            undo.go_back(mark);
            if !touched || self.fold_again(held, &undo) {
                held.undo = Some(undo);
                return;
            }
        } else if !touched {
            return;
        }
        warn!("the state of an inline projection is folded again from the beginning");
        if let Ok(fresh) = panics::catch(S::default) {
            held.put(fresh);
        }
        (held.records, held.undo) = (RecordMap::default(), Some(Undo::to(None)));
        (held.saved, held.events, held.unsaved) = (Position::ZERO, 0, false);
    }
}
