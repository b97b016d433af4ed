//! Building a read model anew: what is noticed at the start, and the replacement at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tracing::{info, warn};

use super::generation::{BuiltBy, Identity, OnChange};
use super::model::ReadModel;
use super::projector::Projector;
use super::work::{Projecting, Purpose, Tx, clear, find};
use crate::consumer::{
    ACKNOWLEDGED, AtHead, Begun, CheckpointRecord, DROPPED, ModelError, PARKED, RunError, position_of,
};
use crate::log::ProjectionName;
use crate::panics;

/// What is built beside a model.
#[derive(Debug)]
pub(super) struct Beside<M> {
    generation: u64,
    pub(super) model: M,
}

impl<P: Projector> Projecting<P> {
    /// Decides what to write to, prepares it, and finds its records.
    pub(super) async fn find_target(&mut self) -> Result<Begun, RunError> {
        self.model.start(&self.name).await?;
        let identity = self.identify().await?;
        let name = self.name.clone();
        let found =
            self.model.transact(move |tx: &mut Tx<'_, P>| Ok((built_by::<P>(tx, &name)?, find::<P>(tx, &name)?)));
        let (built_by, record) = found.await?;
        let generation = built_by.map_or(0, |found| found.generation);
        // A read model of an earlier release does not say who has built it.
        let changed = built_by.filter(|found| record.is_some() && found.projector != identity);
        match (self.purpose, changed, self.on_change) {
            (Purpose::Rebuild, ..) | (Purpose::Run, Some(_), OnChange::Beside) => {
                return Ok(self.begin_beside(generation + 1, identity).await?);
            }
            (Purpose::Run, Some(found), OnChange::Refuse) => {
                let (stored, current) = (found.projector.to_string(), identity.to_string());
                return Err(RunError::ProjectorChanged { name: self.name.clone(), stored, current });
            }
            (Purpose::Run, Some(found), OnChange::InPlace) => {
                let (from, to) = (found.projector, identity);
                info!(name = self.name.as_str(), %from, %to, "the projector has changed: its read model is built in place");
                self.empty(BuiltBy { generation: generation + 1, projector: identity }).await?;
            }
            (Purpose::Run, None, _) => {}
        }
        // A process may have been killed after the replacement.
        if generation > 0 {
            self.remove_left_over(generation).await;
        }
        self.beside = None;
        let model = self.model.clone();
        Ok(self.begin_in(&model, BuiltBy { generation, projector: identity }).await?)
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
    async fn begin_beside(&mut self, generation: u64, projector: Identity) -> Result<Begun, ModelError> {
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
        let begun = self.begin_in(&model, BuiltBy { generation, projector }).await?;
        self.beside = Some(Beside { generation, model });
        Ok(Begun { rebuilding: true, ..begun })
    }

    /// Prepares a model, and finds its records.
    async fn begin_in(&mut self, model: &P::Model, new: BuiltBy) -> Result<Begun, ModelError> {
        let (projector, name, store, term) = (Arc::clone(&self.projector), self.name.clone(), self.store, self.lease);
        let begun = model.transact(move |tx: &mut Tx<'_, P>| {
            prepare(tx, &*projector)?;
            let found = built_by::<P>(tx, &name)?.filter(|found| found.projector == new.projector);
            let built_by = found.unwrap_or(new).encode();
            if found.is_none() {
                P::Model::put(tx, &name, BuiltBy::KEY, &built_by)?;
            }
            let record = find::<P>(tx, &name)?;
            if let Some(term) = term
                && record.is_none_or(|record| record.term < term)
            {
                let claimed = CheckpointRecord { term, ..record.unwrap_or_else(|| CheckpointRecord::new(store)) };
                P::Model::put(tx, &name, CheckpointRecord::KEY, &claimed.encode())?;
            }
            let parked = P::Model::list(tx, &name, PARKED)?;
            let acknowledged = P::Model::get(tx, &name, ACKNOWLEDGED)?;
            Ok((built_by, Begun { record, parked, acknowledged, rebuilding: false }))
        });
        let (built_by, begun) = begun.await?;
        self.built_by = built_by;
        Ok(begun)
    }

    /// Empties the model, for building it in place.
    async fn empty(&mut self, built_by: BuiltBy) -> Result<(), ModelError> {
        let (projector, name) = (Arc::clone(&self.projector), self.name.clone());
        let emptied = self.model.transact(move |tx: &mut Tx<'_, P>| {
            clear::<P>(tx, &projector)?;
            let term = find::<P>(tx, &name)?.map_or(0, |record| record.term);
            put_records::<P>(tx, &name, None, term, &[])?;
            P::Model::put(tx, &name, BuiltBy::KEY, &built_by.encode())
        });
        emptied.await
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
            let live = find::<P>(tx, &name)?;
            let position = |record: Option<CheckpointRecord>| {
                position_of(record.and_then(|record: CheckpointRecord| record.checkpoint()).as_ref())
            };
            if position(live) > position(record) {
                behind.store(true, Ordering::Relaxed);
                return Err(ModelError::not_allowed("the read model is further on"));
            }
            let term = live.map_or(0, |live| live.term);
            if lease.is_some_and(|held| held < term) {
                let (expected, found) = (position(record), position(live));
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
    for (key, _) in P::Model::list(tx, name, PARKED)? {
        P::Model::delete(tx, name, &key)?;
    }
    for (key, value) in others {
        P::Model::put(tx, name, key, value)?;
    }
    match record {
        Some(record) => P::Model::put(tx, name, CheckpointRecord::KEY, &CheckpointRecord { term, ..record }.encode()),
        None => P::Model::delete(tx, name, CheckpointRecord::KEY),
    }
}
