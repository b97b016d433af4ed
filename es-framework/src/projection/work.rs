//! Projections as consumers: the checkpoint is a record in the read model's transaction.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tracing::debug;

use super::apply::{How, apply};
use super::buckets::{Buckets, Part, Progress, advanced, bucket_of, put};
use super::generation::{BuiltBy, Identity, OnChange};
use super::model::{Batch, Cleared, ReadModel};
use super::projector::Projector;
use super::rebuild::Beside;
use crate::consumer::{
    ACKNOWLEDGED, AtHead, Begun, Checkpoint, CheckpointRecord, ModelError, Policy, Portion, RunError, Trouble, Work,
    position_of,
};
use crate::domain::Envelope;
use crate::log::{BoxError, ProjectionName, StoreId};
use crate::panics;

/// A projector and its model, as the loop of all consumers runs them.
#[derive(Debug)]
pub(super) struct Projecting<P: Projector> {
    pub(super) store: StoreId,
    pub(super) name: ProjectionName,
    pub(super) projector: Arc<P>,
    pub(super) model: P::Model,
    pub(super) purpose: Purpose,
    pub(super) on_change: OnChange,
    /// Of the projector, once it is known.
    pub(super) identity: Option<Identity>,
    /// What is built beside the model.
    pub(super) beside: Option<Beside<P::Model>>,
    /// The record of who has built the target.
    pub(super) built_by: Bytes,
    /// The term of the lease, if it has one.
    pub(super) lease: Option<u64>,
    /// The term of the stored checkpoint.
    term: u64,
    /// Which of the keys it has.
    pub(super) part: Part,
    /// What the keys are, and the name of the consumer: each partition has its own.
    pub(super) policy: Policy,
    pub(super) consumer: ProjectionName,
    /// How far its buckets have got, if it is partitioned.
    pub(super) buckets: Option<Buckets>,
}

/// What a projection was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To keep its read model up to date.
    Run,
    /// To build it anew once.
    Rebuild,
}

pub(super) type Tx<'t, P> = <<P as Projector>::Model as ReadModel>::Tx<'t>;

impl<P: Projector> Projecting<P> {
    pub(super) fn new(store: StoreId, name: ProjectionName, projector: Arc<P>, model: P::Model) -> Self {
        Self {
            store,
            consumer: name.clone(),
            name,
            projector,
            model,
            purpose: Purpose::Run,
            on_change: OnChange::default(),
            identity: None,
            beside: None,
            built_by: Bytes::new(),
            lease: None,
            term: 0,
            part: Part::WHOLE,
            policy: Policy::default(),
            buckets: None,
        }
    }

    /// What it writes to: the model, or what is built beside it.
    pub(super) fn target(&self) -> &P::Model {
        self.beside.as_ref().map_or(&self.model, |beside| &beside.model)
    }
}

impl<P: Projector> Work for Projecting<P> {
    type Event = P::Event;

    async fn begin(&mut self, term: Option<u64>) -> Result<Begun, Trouble> {
        self.lease = term;
        let begun = self.find_target().await.map_err(|error| match error {
            RunError::Model(ModelError::CommitRefused { source }) => trouble(ModelError::Prepare { source }),
            error => Trouble::of(error),
        })?;
        let found = begun.record.map_or(0, |record| record.term);
        match term {
            Some(term) if found > term => Err(Trouble::Fenced(found)),
            term => {
                self.term = term.unwrap_or(found);
                Ok(begun)
            }
        }
    }

    fn has(&self, event: Envelope<'_>) -> bool {
        self.part == Part::WHOLE || self.part.has(bucket_of(&self.policy.key(event)))
    }

    fn count(&self, portion: &Portion<P::Event>) -> usize {
        if self.part == Part::WHOLE {
            return portion.range.len() - portion.skip.len();
        }
        let events = portion.events.iter().enumerate().take(portion.range.end).skip(portion.range.start);
        let ours = events.filter(|(index, event)| portion.applies(*index) && self.has(event.envelope()));
        // If the key panics, the portion fails when it is applied.
        panics::catch(|| ours.count()).unwrap_or(0)
    }

    async fn apply(&mut self, portion: Portion<P::Event>) -> Result<(), Trouble> {
        let portion = Arc::new(self.leave_out_others(portion).map_err(Trouble::of)?);
        let error = match self.step(&portion, portion.range.clone(), portion.from, portion.to).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let culprit = match &error {
            ModelError::Refused { position, .. } | ModelError::Panicked { position: Some(position), .. } => {
                Some(*position)
            }
            ModelError::CommitRefused { .. } | ModelError::Panicked { position: None, .. } => None,
            ModelError::Rebuilt { .. } => return Err(Trouble::Behind { culprit: None }),
            _ => return Err(trouble(error)),
        };
        // The model is asked where it is, and believed: it may have lost more than the transaction, or have committed it.
        let (found, buckets) = self.find_checkpoint().await.map_err(trouble)?;
        if found == portion.to && portion.to != portion.from {
            self.buckets = buckets;
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

    async fn at_head(&mut self) -> Result<AtHead, Trouble> {
        self.replace().await.map_err(|error| Trouble::of(error.into()))
    }

    async fn settle(&mut self) -> Result<(), RunError> {
        match (&self.beside, self.purpose) {
            (Some(beside), _) => Ok(beside.model.settle(&self.name).await?),
            (None, Purpose::Run) => Ok(self.model.settle(&self.name).await?),
            // Another runner may be using the model.
            (None, Purpose::Rebuild) => Ok(()),
        }
    }
}

impl<P: Projector> Projecting<P> {
    /// Has the events of other partitions left out, and those that are applied already: buckets may have got further than
    /// others when the number of partitions changes.
    fn leave_out_others(&self, mut portion: Portion<P::Event>) -> Result<Portion<P::Event>, RunError> {
        let Some(buckets) = &self.buckets else { return Ok(portion) };
        let from = position_of(portion.from.as_ref());
        if self.part != Part::WHOLE && (portion.clear || position_of(portion.to.as_ref()) < from) {
            let reason = "a partition cannot be reset or moved back alone: stop all of them, and do it with the projection \
                          as a whole";
            return Err(ModelError::not_allowed(reason).into());
        }
        let mut skip = Vec::new();
        let mut parked = portion.skip.iter().copied().peekable();
        let in_range = portion.events.iter().enumerate().take(portion.range.end).skip(portion.range.start);
        for (index, event) in in_range {
            if parked.next_if_eq(&index).is_some() {
                skip.push(index);
                continue;
            }
            let bucket = panics::catch(|| bucket_of(&self.policy.key(event.envelope())));
            let bucket = bucket.map_err(RunError::panicked)?;
            // What is parked is tried again from behind the checkpoint.
            let applied =
                |record: &CheckpointRecord| event.position() > from && event.position() <= record.mark.position;
            if buckets.get(&bucket).is_none_or(applied) {
                skip.push(index);
            }
        }
        portion.skip = skip;
        Ok(portion)
    }

    /// Given that these events cannot be committed together, commits the longest prefix of them that can, and blames the
    /// event after it.
    ///
    /// If a run of events cannot be committed, a longer one still may be: that is the point of a deferred foreign key.
    /// So once bisection has found an event that cannot be committed alone, every longer run that starts with it is
    /// tried too. For example, if events 1 to 4 can be committed and event 5 alone cannot, 5 to 6 is tried, then 5 to
    /// 7, and so on. If 5 to 7 can be committed, the search continues at 8; if no run can, event 5 is to blame.
    async fn narrow_down(
        &mut self,
        portion: &Arc<Portion<P::Event>>,
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
        portion: &Arc<Portion<P::Event>>,
        range: Range<usize>,
        from: Option<Checkpoint>,
    ) -> Result<Result<Option<Checkpoint>, BoxError>, Trouble> {
        match self.step_before(portion, range, from).await {
            Ok(checkpoint) => Ok(Ok(checkpoint)),
            Err(ModelError::CommitRefused { source }) => {
                // Nothing else may be lost by a commit that is refused.
                let (found, _) = self.find_checkpoint().await.map_err(trouble)?;
                if found == from { Ok(Err(source)) } else { Err(Trouble::Behind { culprit: None }) }
            }
            Err(another) => Err(trouble(another)),
        }
    }

    /// Runs one transaction of some of the events, and returns the checkpoint, which is at the last of them.
    async fn step_before(
        &mut self,
        portion: &Arc<Portion<P::Event>>,
        range: Range<usize>,
        from: Option<Checkpoint>,
    ) -> Result<Option<Checkpoint>, ModelError> {
        let Some(last) = portion.events.get(range.clone()).and_then(<[_]>::last) else { return Ok(from) };
        let to = Some(Checkpoint::new(self.store, last.mark()));
        self.step(portion, range, from, to).await?;
        Ok(to)
    }

    /// Runs one transaction: some of the events, the records that belong to them, and the checkpoint. If the projector
    /// fails to apply them as a batch, they are passed to it one by one in another.
    async fn step(
        &mut self,
        portion: &Arc<Portion<P::Event>>,
        range: Range<usize>,
        from: Option<Checkpoint>,
        to: Option<Checkpoint>,
    ) -> Result<(), ModelError> {
        let how = How::batch();
        let error = match self.step_by(portion, range.clone(), from, to, how.clone()).await {
            Err(error) if how.is_to_blame_for(&error) => error,
            done => return done,
        };
        // The caller deals with a model that has lost more than the transaction.
        if self.find_checkpoint().await?.0 != from {
            return Err(error);
        }
        debug!(name = self.name.as_str(), %error, "a batch has failed, and is applied event by event");
        self.step_by(portion, range, from, to, How::OneByOne).await
    }

    async fn step_by(
        &mut self,
        portion: &Arc<Portion<P::Event>>,
        range: Range<usize>,
        from: Option<Checkpoint>,
        to: Option<Checkpoint>,
        how: How,
    ) -> Result<(), ModelError> {
        let count = (range.len() - portion.skip.iter().filter(|index| range.contains(index)).count()) as u64;
        let bytes = portion.events.bytes(range.clone());
        let (projector, applied) = (Arc::clone(&self.projector), Arc::clone(portion));
        let fold = move |tx: &mut Tx<'_, P>| {
            let first = range.start;
            let events = applied.events.get(range.clone()).unwrap_or_default().iter().enumerate();
            let wanted = events.filter(|(index, _)| applied.applies(first + index)).map(|(_, event)| event);
            apply(&how, &*projector, wanted, tx)
        };
        let (projector, written, name) = (Arc::clone(&self.projector), Arc::clone(portion), self.name.clone());
        let (store, term, built_by) = (self.store, self.term, self.built_by.clone());
        let (part, consumer) = (self.part, self.consumer.clone());
        let is_moved = portion.clear || position_of(to.as_ref()) < position_of(from.as_ref());
        let before = self.buckets.clone();
        let after = before.as_ref().map(|buckets| advanced(buckets, to, store, count, is_moved));
        let reached = after.clone();
        let batch = Batch::new(count, bytes, fold, |fold| {
            move |tx: &mut Tx<'_, P>| {
                if P::Model::get(tx, &name, BuiltBy::KEY)?.as_ref() != Some(&built_by) {
                    return Err(ModelError::Rebuilt { name: name.clone() });
                }
                let found = Progress::find::<P>(tx, &name, part)?;
                let is_as_left = match (&found, &before) {
                    (Progress::Whole(_), None) => found.checkpoint() == from && found.term() == term,
                    (Progress::Buckets(found), Some(before)) => found == before,
                    _ => false,
                };
                if !is_as_left {
                    let (expected, found) = (position_of(from.as_ref()), position_of(found.checkpoint().as_ref()));
                    return Err(ModelError::TakenOver { name: name.clone(), expected, found });
                }
                if written.clear {
                    clear::<P>(tx, &projector)?;
                }
                fold(tx)?;
                let end = position_of(to.as_ref());
                for write in written.writes.iter().filter(|write| write.at <= end) {
                    let of = if write.key == ACKNOWLEDGED { &consumer } else { &name };
                    match &write.value {
                        Some(value) => P::Model::put(tx, of, &write.key, value)?,
                        None => P::Model::delete(tx, of, &write.key)?,
                    }
                }
                if let (Some(before), Some(after)) = (&before, &after) {
                    for (bucket, record) in after.iter().filter(|(bucket, record)| before.get(bucket) != Some(record)) {
                        put::<P>(tx, &name, *bucket, record)?;
                    }
                    return Ok(());
                }
                let record = to.map_or_else(|| CheckpointRecord::new(store), |to| CheckpointRecord::of(&to));
                let before = found.record().map_or(0, |record| record.events);
                let events = if written.clear { 0 } else { before } + count;
                P::Model::put(tx, &name, CheckpointRecord::KEY, &CheckpointRecord { term, events, ..record }.encode())
            }
        });
        if portion.clear {
            // It cannot be folded again.
            self.target().transact(move |tx: &mut Tx<'_, P>| batch.run(tx)).await?;
        } else {
            self.target().transact_batch(batch).await?;
        }
        self.buckets = reached;
        Ok(())
    }

    /// Reads the checkpoint from the model.
    async fn find_checkpoint(&mut self) -> Result<(Option<Checkpoint>, Option<Buckets>), ModelError> {
        let (name, part) = (self.name.clone(), self.part);
        let found = self.target().transact(move |tx: &mut Tx<'_, P>| Progress::find::<P>(tx, &name, part)).await?;
        let checkpoint = found.checkpoint();
        Ok((checkpoint, if let Progress::Buckets(buckets) = found { Some(buckets) } else { None }))
    }
}

/// Empties the model: what it can empty by itself, and what the projector empties.
pub(super) fn clear<P: Projector>(tx: &mut Tx<'_, P>, projector: &P) -> Result<(), ModelError> {
    let by_itself = P::Model::clear(tx)?;
    let by_projector =
        panics::catch(|| projector.clear(tx).map_err(|error| ModelError::Prepare { source: error.into() }));
    match by_projector.map_err(|message| ModelError::Panicked { position: None, message })?? {
        Cleared::All => Ok(()),
        Cleared::Nothing if by_itself == Cleared::All => Ok(()),
        Cleared::Nothing => {
            let reason = "the projector does not say how its read model is emptied: implement `Projector::clear`, or build \
                          the read model under another name";
            Err(ModelError::not_allowed(reason))
        }
    }
}

/// The checkpoint's record, if the consumer has ever run.
pub(super) fn find<P: Projector>(
    tx: &mut Tx<'_, P>,
    name: &ProjectionName,
) -> Result<Option<CheckpointRecord>, ModelError> {
    let Some(bytes) = P::Model::get(tx, name, CheckpointRecord::KEY)? else { return Ok(None) };
    let record = CheckpointRecord::decode(&bytes);
    record.map(Some).ok_or_else(|| ModelError::damaged(CheckpointRecord::KEY))
}

/// The checkpoint's record, or that of a consumer that has never run.
pub(super) fn record<P: Projector>(
    tx: &mut Tx<'_, P>,
    name: &ProjectionName,
    store: StoreId,
) -> Result<CheckpointRecord, ModelError> {
    Ok(find::<P>(tx, name)?.unwrap_or_else(|| CheckpointRecord::new(store)))
}

fn trouble(error: ModelError) -> Trouble {
    Trouble::of(error.into())
}
