//! Building a read model anew: what is noticed at the start, and the replacement at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tracing::{info, warn};

use super::buckets::{BUCKET, Buckets, Part, Progress, bucket_of};
use super::generation::{BuiltBy, Identity, OnChange};
use super::model::ReadModel;
use super::projector::Projector;
use super::work::{Projecting, Purpose, Tx, clear, find};
use crate::consumer::{
    ACKNOWLEDGED, AtHead, Begun, CheckpointRecord, DROPPED, ModelError, PARKED, ParkedEvent, RunError, position_of,
};
use crate::log::ProjectionName;
use crate::panics;

/// What is built beside a model.
#[derive(Debug)]
pub(super) struct Beside<M> {
    generation: u64,
    pub(super) model: M,
}

/// Who has built a model, its buckets, and its records.
type Found = (Bytes, Option<Buckets>, Begun);

/// What a look into the model has shown.
struct Looked {
    generation: u64,
    /// Who has built it, if that was another.
    changed: Option<BuiltBy>,
    /// If nothing is to be built anew.
    begun: Option<Found>,
}

impl<P: Projector> Projecting<P> {
    /// Decides what to write to, prepares it, and finds its records.
    pub(super) async fn find_target(&mut self) -> Result<Begun, RunError> {
        self.model.start(&self.name).await?;
        let projector = self.identify().await?;
        let begin = self.begin_in(projector);
        let (rebuild, name) = (self.purpose == Purpose::Rebuild, self.name.clone());
        let looked = self.model.transact(move |tx: &mut Tx<'_, P>| {
            let found = built_by::<P>(tx, &name)?;
            let generation = found.map_or(0, |found| found.generation);
            // A read model of an earlier release does not say who has built it.
            let changed = found.filter(|found| found.projector != projector);
            if rebuild || changed.is_some() && Progress::find::<P>(tx, &name, Part::WHOLE)?.record().is_some() {
                return Ok(Looked { generation, changed, begun: None });
            }
            begin(tx, generation).map(|begun| Looked { generation, changed, begun: Some(begun) })
        });
        let Looked { generation, changed, begun } = looked.await?;
        self.buckets = None;
        let next = generation + 1;
        let (built_by, buckets, begun) = match (begun, changed, self.on_change) {
            (Some(begun), ..) => {
                // A process may have been killed after the replacement.
                if generation > 0 {
                    self.remove_left_over(generation).await;
                }
                self.beside = None;
                begun
            }
            // It is not for one partition to build anew what all of them share.
            (None, Some(found), on_change)
                if !rebuild && (on_change == OnChange::Refuse || self.part != Part::WHOLE) =>
            {
                let (stored, current) = (found.projector.to_string(), projector.to_string());
                return Err(RunError::ProjectorChanged { name: self.name.clone(), stored, current });
            }
            (None, Some(found), OnChange::InPlace) if !rebuild => {
                let from = found.projector;
                info!(name = self.name.as_str(), %from, to = %projector, "the read model is built anew in place");
                self.beside = None;
                self.begin_empty(BuiltBy { generation: next, projector }).await?
            }
            (None, ..) => self.begin_beside(BuiltBy { generation: next, projector }).await?,
        };
        (self.built_by, self.buckets) = (built_by, buckets);
        Ok(begun)
    }

    /// Tells this projector from others of its name.
    async fn identify(&mut self) -> Result<Identity, ModelError> {
        if let Some(identity) = self.identity {
            return Ok(identity);
        }
        let projector = Arc::clone(&self.projector);
        let shape = self.model.shape(move |tx: &mut Tx<'_, P>| prepare(tx, &*projector)).await?;
        Ok(*self.identity.insert(Identity { version: P::VERSION, shape }))
    }

    /// Opens what is built beside the model, as far as an earlier attempt has got.
    async fn begin_beside(&mut self, new: BuiltBy) -> Result<Found, ModelError> {
        let BuiltBy { generation, projector } = new;
        let open = self.beside.take().filter(|beside| beside.generation == generation);
        let mut model = match open {
            Some(beside) => beside.model,
            None => self.model.beside(&self.name, generation).await?,
        };
        model.start(&self.name).await?;
        let name = self.name.clone();
        let found = model.transact(move |tx: &mut Tx<'_, P>| built_by::<P>(tx, &name)).await?;
        if found.is_some_and(|found| found.projector != projector) {
            // Of an attempt by another version.
            model.discard().await?;
            model = self.model.beside(&self.name, generation).await?;
            model.start(&self.name).await?;
        }
        let begin = self.begin_in(projector);
        let (built_by, buckets, begun) = model.transact(move |tx: &mut Tx<'_, P>| begin(tx, generation)).await?;
        self.beside = Some(Beside { generation, model });
        Ok((built_by, buckets, Begun { rebuilding: true, ..begun }))
    }

    /// Empties the model, for building it in place.
    async fn begin_empty(&mut self, new: BuiltBy) -> Result<Found, ModelError> {
        let begin = self.begin_in(new.projector);
        let (projector, name) = (Arc::clone(&self.projector), self.name.clone());
        let emptied = self.model.transact(move |tx: &mut Tx<'_, P>| {
            clear::<P>(tx, &projector)?;
            let term = Progress::find::<P>(tx, &name, Part::WHOLE)?.term();
            put_records::<P>(tx, &name, None, term, &[])?;
            P::Model::put(tx, &name, BuiltBy::KEY, &new.encode())?;
            begin(tx, new.generation)
        });
        emptied.await
    }

    /// Prepares a model and finds its records, inside a transaction of it. Returns who has built it as well.
    fn begin_in(
        &self,
        identity: Identity,
    ) -> impl FnOnce(&mut Tx<'_, P>, u64) -> Result<Found, ModelError> + Send + use<P> {
        let (projector, name, store, term) = (Arc::clone(&self.projector), self.name.clone(), self.store, self.lease);
        let (part, consumer) = (self.part, self.consumer.clone());
        move |tx, generation| {
            prepare(tx, &*projector)?;
            let stored = P::Model::get(tx, &name, BuiltBy::KEY)?;
            let built_by = BuiltBy { generation, projector: identity }.encode();
            if stored.as_ref() != Some(&built_by) {
                P::Model::put(tx, &name, BuiltBy::KEY, &built_by)?;
            }
            let mut progress = Progress::find::<P>(tx, &name, part)?;
            progress = if part == Part::WHOLE {
                progress.join::<P>(tx, &name)?
            } else {
                progress.split::<P>(tx, &name, part, store)?
            };
            let record = progress.record();
            if let Some(term) = term {
                progress = progress.claim::<P>(tx, &name, store, term)?;
            }
            let mut parked = P::Model::list(tx, &name, PARKED)?;
            if part != Part::WHOLE {
                parked.retain(|(_, value)| {
                    // One that cannot be read is noticed by all of them.
                    ParkedEvent::decode(value).is_none_or(|event| part.has(bucket_of(&event.key)))
                });
            }
            let acknowledged = P::Model::get(tx, &consumer, ACKNOWLEDGED)?;
            let buckets = if let Progress::Buckets(buckets) = progress { Some(buckets) } else { None };
            Ok((built_by, buckets, Begun { record, parked, acknowledged, rebuilding: false }))
        }
    }

    async fn remove_left_over(&mut self, generation: u64) {
        let removed = async { self.model.beside(&self.name, generation).await?.discard().await };
        if let Err(error) = removed.await {
            warn!(name = self.name.as_str(), %error, "what is left of building a read model cannot be removed");
        }
    }

    /// Replaces the model by what was built beside it, unless the model is further on.
    pub(super) async fn replace(&mut self) -> Result<AtHead, ModelError> {
        let Some(Beside { generation, model: built }) = &self.beside else { return Ok(AtHead::Stay) };
        let name = self.name.clone();
        let records = built.transact(move |tx: &mut Tx<'_, P>| {
            let mut others = P::Model::list(tx, &name, PARKED)?;
            others.extend(P::Model::list(tx, &name, DROPPED)?);
            Ok((find::<P>(tx, &name)?, others))
        });
        let (record, others) = records.await?;
        let is_behind = Arc::new(AtomicBool::new(false));
        let (behind, name, generation) = (Arc::clone(&is_behind), self.name.clone(), *generation);
        // A rebuild has a lease of its own, which is not that of the name.
        let lease = self.lease.filter(|_| self.purpose == Purpose::Run);
        let (of_before, new) = (generation - 1, self.built_by.clone());
        let agree = move |tx: &mut Tx<'_, P>| {
            if built_by::<P>(tx, &name)?.map_or(0, |found| found.generation) != of_before {
                return Err(ModelError::Rebuilt { name });
            }
            let live = Progress::find::<P>(tx, &name, Part::WHOLE)?;
            let reached = position_of(record.and_then(|record| record.checkpoint()).as_ref());
            if live.furthest() > reached {
                behind.store(true, Ordering::Relaxed);
                return Err(ModelError::not_allowed("the read model is further on"));
            }
            let term = live.term();
            if lease.is_some_and(|held| held < term) {
                let (expected, found) = (reached, live.furthest());
                return Err(ModelError::TakenOver { name, expected, found });
            }
            put_records::<P>(tx, &name, record, lease.unwrap_or(term), &others)?;
            P::Model::put(tx, &name, BuiltBy::KEY, &new)
        };
        match self.model.replace_by(&self.name, built, agree).await {
            Ok(()) => {}
            Err(_) if is_behind.load(Ordering::Relaxed) => return Ok(AtHead::Stay),
            // Another process was faster.
            Err(ModelError::Rebuilt { .. }) if self.purpose == Purpose::Run => return Ok(AtHead::Again),
            Err(error) => return Err(error),
        }
        info!(name = self.name.as_str(), generation, "the read model was replaced by the one that was built anew");
        if let Some(Beside { model, .. }) = self.beside.take()
            && let Err(error) = model.discard().await
        {
            warn!(name = self.name.as_str(), %error, "what is left of building a read model cannot be removed");
        }
        Ok(if self.purpose == Purpose::Run { AtHead::Again } else { AtHead::Done })
    }
}

fn prepare<P: Projector>(tx: &mut Tx<'_, P>, projector: &P) -> Result<(), ModelError> {
    let prepared =
        panics::catch(|| projector.prepare(tx).map_err(|error| ModelError::Prepare { source: error.into() }));
    prepared.map_err(|message| ModelError::Panicked { position: None, message })?
}

fn built_by<P: Projector>(tx: &mut Tx<'_, P>, name: &ProjectionName) -> Result<Option<BuiltBy>, ModelError> {
    let Some(bytes) = P::Model::get(tx, name, BuiltBy::KEY)? else { return Ok(None) };
    BuiltBy::decode(&bytes).map(Some).ok_or_else(|| ModelError::damaged(BuiltBy::KEY))
}

/// Replaces the checkpoint and the records of parked events.
fn put_records<P: Projector>(
    tx: &mut Tx<'_, P>,
    name: &ProjectionName,
    record: Option<CheckpointRecord>,
    term: u64,
    others: &[(String, Bytes)],
) -> Result<(), ModelError> {
    for prefix in [PARKED, BUCKET] {
        for (key, _) in P::Model::list(tx, name, prefix)? {
            P::Model::delete(tx, name, &key)?;
        }
    }
    for (key, value) in others {
        P::Model::put(tx, name, key, value)?;
    }
    match record {
        Some(record) => P::Model::put(tx, name, CheckpointRecord::KEY, &CheckpointRecord { term, ..record }.encode()),
        None => P::Model::delete(tx, name, CheckpointRecord::KEY),
    }
}
