//! Projections as consumers: the checkpoint is a record in the read model's transaction.

use std::ops::Range;
use std::sync::Arc;

use super::model::{Batch, ReadModel};
use super::projector::Projector;
use crate::consumer::{
    Begun, Checkpoint, CheckpointRecord, Events, ModelError, Portion, RunError, Trouble, Work, position_of,
};
use crate::log::{BoxError, Position, ProjectionName, StoreId};
use crate::panics;

/// A projector and its model, as the loop of all consumers runs them.
#[derive(Debug)]
pub(super) struct Projecting<P: Projector> {
    store: StoreId,
    name: ProjectionName,
    projector: Arc<P>,
    model: P::Model,
    /// The term of the stored checkpoint.
    term: u64,
}

type Tx<'t, P> = <<P as Projector>::Model as ReadModel>::Tx<'t>;

impl<P: Projector> Projecting<P> {
    pub(super) fn new(store: StoreId, name: ProjectionName, projector: P, model: P::Model) -> Self {
        Self { store, name, projector: Arc::new(projector), model, term: 0 }
    }
}

impl<P: Projector> Work for Projecting<P> {
    type Event = P::Event;

    async fn begin(&mut self) -> Result<Begun, Trouble> {
        self.model.start(&self.name).await.map_err(trouble)?;
        let (projector, name, store) = (Arc::clone(&self.projector), self.name.clone(), self.store);
        let begun = self.model.transact(move |tx: &mut Tx<'_, P>| {
            let prepared =
                panics::catch(|| projector.prepare(tx).map_err(|error| ModelError::Prepare { source: error.into() }));
            prepared.map_err(|message| ModelError::Panicked { position: None, message })??;
            record::<P>(tx, &name, store)
        });
        let record = begun.await.map_err(|error| match error {
            ModelError::CommitRefused { source } => trouble(ModelError::Prepare { source }),
            error => trouble(error),
        })?;
        self.term = record.term;
        Ok(Begun { record })
    }

    async fn apply(&mut self, portion: Portion<P::Event>) -> Result<(), Trouble> {
        let error = match self.step(&portion, portion.range.clone(), portion.from, portion.to).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let culprit = match &error {
            ModelError::Refused { position, .. } | ModelError::Panicked { position: Some(position), .. } => {
                Some(*position)
            }
            ModelError::CommitRefused { .. } | ModelError::Panicked { position: None, .. } => None,
            _ => return Err(trouble(error)),
        };
        // The model is asked where it is, and believed: it may have lost more than the transaction, or have committed it.
        let found = self.find_checkpoint().await.map_err(trouble)?;
        if found == Some(portion.to) {
            return Err(Trouble::Afterwards(error.into()));
        }
        if found != portion.from {
            let (expected, found) = (position_of(portion.from.as_ref()), position_of(found.as_ref()));
            if found >= expected {
                return Err(trouble(ModelError::TakenOver { name: self.name.clone(), expected, found }));
            }
            return Err(Trouble::Behind { culprit: culprit.map(|position| (position, error.into())) });
        }
        match (error, culprit) {
            (ModelError::CommitRefused { source }, _) => {
                Err(self.narrow_down(&portion, portion.range.clone(), portion.from, source).await)
            }
            (error, Some(position)) => {
                let good = portion.index(position);
                match self.step_before(&portion, portion.range.start..good, portion.from).await {
                    Ok(checkpoint) => Err(Trouble::Event { position, checkpoint, error: error.into() }),
                    // The first event that cannot be processed is one of those before.
                    Err(ModelError::CommitRefused { source }) => {
                        Err(self.narrow_down(&portion, portion.range.start..good, portion.from, source).await)
                    }
                    Err(another) => Err(trouble(another)),
                }
            }
            (error, None) => Err(trouble(error)),
        }
    }

    async fn settle(&mut self) -> Result<(), RunError> {
        Ok(self.model.settle(&self.name).await?)
    }
}

impl<P: Projector> Projecting<P> {
    /// Given that these events cannot be committed together, commits the longest prefix of them that can, and blames the
    /// event after it.
    ///
    /// If a run of events cannot be committed, a longer one still may be: that is the point of a deferred foreign key.
    /// So once bisection has found an event that cannot be committed alone, every longer run that starts with it is
    /// tried too. For example, if events 1 to 4 can be committed and event 5 alone cannot, 5 to 6 is tried, then 5 to
    /// 7, and so on. If 5 to 7 can be committed, the search continues at 8; if no run can, event 5 is to blame.
    async fn narrow_down(
        &mut self,
        portion: &Portion<P::Event>,
        range: Range<usize>,
        from: Option<Checkpoint>,
        source: BoxError,
    ) -> Trouble {
        let (mut good, all, mut from, mut source) = (range.start, range.end, from, source);
        loop {
            let mut bad = all;
            while bad - good > 1 {
                let middle = good.midpoint(bad);
                match self.try_before(portion, good..middle, from).await {
                    Ok(Ok(checkpoint)) => (good, from) = (middle, checkpoint),
                    Ok(Err(refused)) => (bad, source) = (middle, refused),
                    Err(another) => return another,
                }
            }
            let mut longer = None;
            for end in bad + 1..all {
                match self.try_before(portion, good..end, from).await {
                    Ok(Ok(checkpoint)) => {
                        longer = Some((end, checkpoint));
                        break;
                    }
                    Ok(Err(_)) => {}
                    Err(another) => return another,
                }
            }
            match (longer, portion.events.get(good)) {
                (Some((end, checkpoint)), _) => (good, from) = (end, checkpoint),
                (None, Some(event)) => {
                    let position = event.position();
                    let error = ModelError::Refused { position, source }.into();
                    return Trouble::Event { position, checkpoint: from, error };
                }
                // Only the checkpoint was written.
                (None, None) => return trouble(ModelError::CommitRefused { source }),
            }
        }
    }

    /// Like [`Self::step_before`], but returns the reason if the transaction could not be committed.
    async fn try_before(
        &mut self,
        portion: &Portion<P::Event>,
        range: Range<usize>,
        from: Option<Checkpoint>,
    ) -> Result<Result<Option<Checkpoint>, BoxError>, Trouble> {
        match self.step_before(portion, range, from).await {
            Ok(checkpoint) => Ok(Ok(checkpoint)),
            Err(ModelError::CommitRefused { source }) => {
                // Nothing else may be lost by a commit that is refused.
                let found = self.find_checkpoint().await.map_err(trouble)?;
                if found == from { Ok(Err(source)) } else { Err(Trouble::Behind { culprit: None }) }
            }
            Err(another) => Err(trouble(another)),
        }
    }

    /// Runs one transaction of some of the events, and returns the checkpoint, which is at the last of them.
    async fn step_before(
        &mut self,
        portion: &Portion<P::Event>,
        range: Range<usize>,
        from: Option<Checkpoint>,
    ) -> Result<Option<Checkpoint>, ModelError> {
        let Some(last) = portion.events.get(range.clone()).and_then(<[_]>::last) else { return Ok(from) };
        let to = Checkpoint::new(self.store, last.mark());
        self.step(portion, range, from, to).await?;
        Ok(Some(to))
    }

    /// Runs one transaction: some of the events, and the checkpoint.
    async fn step(
        &mut self,
        portion: &Portion<P::Event>,
        range: Range<usize>,
        from: Option<Checkpoint>,
        to: Checkpoint,
    ) -> Result<(), ModelError> {
        let (projector, events, in_order) = (Arc::clone(&self.projector), Arc::clone(&portion.events), range.clone());
        let (count, bytes) = (range.len() as u64, events.bytes(range));
        let fold = move |tx: &mut Tx<'_, P>| {
            let mut at = None;
            let projected = panics::catch(|| project::<P>(&projector, &events, in_order.clone(), tx, &mut at));
            projected.map_err(|message| ModelError::Panicked { position: at, message })?
        };
        let (name, store, term) = (self.name.clone(), self.store, self.term);
        let batch = Batch::new(count, bytes, fold, |fold| {
            move |tx: &mut Tx<'_, P>| {
                let found = record::<P>(tx, &name, store)?;
                if found.checkpoint() != from || found.term != term {
                    let (expected, found) = (position_of(from.as_ref()), found.mark.position);
                    return Err(ModelError::TakenOver { name: name.clone(), expected, found });
                }
                fold(tx)?;
                let record = CheckpointRecord { term, ..CheckpointRecord::of(&to) }.events(found.events + count);
                P::Model::put(tx, &name, CheckpointRecord::KEY, &record.encode())
            }
        });
        self.model.transact_batch(batch).await
    }

    /// Reads the checkpoint from the model.
    async fn find_checkpoint(&mut self) -> Result<Option<Checkpoint>, ModelError> {
        let (name, store) = (self.name.clone(), self.store);
        let found = self.model.transact(move |tx: &mut Tx<'_, P>| record::<P>(tx, &name, store));
        Ok(found.await?.checkpoint())
    }
}

/// Passes events to the projector; `at` is the position of the one it has.
fn project<P: Projector>(
    projector: &P,
    events: &Events<P::Event>,
    range: Range<usize>,
    tx: &mut Tx<'_, P>,
    at: &mut Option<Position>,
) -> Result<(), ModelError> {
    for event in events.get(range).unwrap_or_default() {
        let position = event.position();
        *at = Some(position);
        P::Model::at(tx, position);
        projector.project(event, tx).map_err(|error| ModelError::Refused { position, source: error.into() })?;
    }
    Ok(())
}

/// The checkpoint's record.
fn record<P: Projector>(
    tx: &mut Tx<'_, P>,
    name: &ProjectionName,
    store: StoreId,
) -> Result<CheckpointRecord, ModelError> {
    let Some(bytes) = P::Model::get(tx, name, CheckpointRecord::KEY)? else { return Ok(CheckpointRecord::new(store)) };
    CheckpointRecord::decode(&bytes).ok_or_else(|| ModelError::damaged(CheckpointRecord::KEY))
}

fn trouble(error: ModelError) -> Trouble {
    Trouble::of(error.into())
}
