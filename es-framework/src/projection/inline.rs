//! Projections that run inside the transactions of appends.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tracing::debug;

use super::apply::{How, apply};
use super::buckets::{Part, Progress};
use super::builder::Projection;
use super::generation::BuiltBy;
use super::model::{Batch, ReadModel};
use super::projector::Projector;
use super::work::{Purpose, Tx, record};
use crate::consumer::{self, CheckpointRecord, ModelError, PARKED, RunError};
use crate::domain::Recorded;
use crate::log::{
    Append, AppendError, CommitHook, Committing, Filter, HookError, Mark, Position, ProjectionName, Read, Store,
    StoreError, StoreId, StoredEvent, StreamId,
};
use crate::panics;

/// A read model that can be written in the log's own transactions; implemented once per engine.
///
/// The methods are called by the engine's writer, for one transaction of the log after the other. In each transaction
/// there are any number of appends: [`Self::begin_append`], then [`Self::within`], then, if the append is not written,
/// [`Self::revert_append`]. Afterwards comes [`Self::ended`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be written in the transactions of appends",
    note = "use `SqliteStore::read_model` or a `StateModel` for an inline projection, or start it with `start`"
)]
pub trait InlineModel: ReadModel {
    /// Checks that the model can be written in the transactions of this store.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotAllowed`] if it cannot.
    fn check_inline(&self, store: &Store) -> Result<(), ModelError>;

    /// Called before anything is done for an append. Does nothing by default.
    fn begin_append(&self) {}

    /// Runs `body` in the engine's `transaction`.
    ///
    /// # Errors
    ///
    /// The error of `body`, or a failure of the model itself.
    fn within<T, F>(&self, transaction: &dyn Any, body: F) -> Result<T, ModelError>
    where
        F: for<'t> FnOnce(&mut Self::Tx<'t>) -> Result<T, ModelError>;

    /// Runs a batch of events in the engine's `transaction`, as [`Self::within`] does with [`Batch::run`], which it
    /// calls by default.
    ///
    /// # Errors
    ///
    /// As for [`Self::within`].
    fn batch_within(&self, transaction: &dyn Any, batch: &Batch<Self>) -> Result<(), ModelError> {
        self.within(transaction, |tx: &mut Self::Tx<'_>| batch.run(tx))
    }

    /// Takes back everything since the last [`Self::begin_append`] that the engine does not roll back. Does nothing by
    /// default.
    fn revert_append(&self) {}

    /// Called when the transaction has ended; `runtime` is for work that the writer should not wait for. Does nothing by
    /// default.
    fn ended(&self, committed: bool, runtime: Option<&Handle>) {
        let (_, _): (bool, Option<&Handle>) = (committed, runtime);
    }
}

impl<P: Projector> Projection<P>
where
    P::Model: InlineModel,
{
    /// Runs the projection inside the transactions of appends, until the handle is dropped: what an append changes in
    /// the read model is committed with its events, and can be read as soon as the append returns.
    ///
    /// If the projector returns an error or panics, the append fails with [`AppendError::Refused`] and writes nothing.
    /// Other appends go on, including those that share its transaction. So an inline projection can enforce rules over
    /// several streams, for example by a unique index over user names.
    ///
    /// First the projection catches up with the log. Where it stands is kept in the same checkpoint as if it were
    /// started with [`Self::start`]: it can be switched between the two at any time, by ending the one and beginning the
    /// other, and no event is lost or takes effect twice.
    ///
    /// Events of processes that do not run the projection are applied with the next append of one that does, before that
    /// append's own events. If the projector refuses such an event, every append fails until it does not.
    ///
    /// Every append pays for the projector's work: inline projections are for few and cheap changes.
    ///
    /// ```
    /// # use es_framework::*;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # #[derive(Debug, Default, Serialize, Deserialize)]
    /// # struct Total { cents: u64 }
    /// # struct Totals;
    /// impl Projector for Totals {
    /// #   type Event = AccountEvent;
    /// #   type Model = StateModel<Total>;
    /// #   type Error = std::num::TryFromIntError;
    /// #   const NAME: &'static str = "totals";
    ///     // …
    ///     fn project(&self, event: &Recorded<AccountEvent>, total: &mut StateTx<'_, Total>) -> Result<(), Self::Error> {
    ///         let AccountEvent::Deposited { cents } = event.event();
    ///         u16::try_from(total.cents + cents)?; // No more than 655.35 in total.
    ///         total.cents += cents;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::from(MemoryStore::new());
    /// # let deposited = |cents| AccountEvent::Deposited { cents }.encode();
    /// let model = StateModel::new(&store);
    /// let inline = Projection::new(&store, Totals, model.clone()).inline().await?;
    /// let alice = store.open_stream("account-alice")?;
    /// alice.write(deposited(65_000)?, ExpectedVersion::Any).await?;
    /// assert_eq!(model.read(|total| total.cents), 65_000);
    ///
    /// let refused = alice.write(deposited(1_000)?, ExpectedVersion::Any).await.unwrap_err();
    /// assert!(matches!(refused, AppendError::Refused { .. }));
    /// assert_eq!((alice.version().await?.get(), model.read(|total| total.cents)), (1, 65_000));
    /// inline.stop().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RunError`] if the projection cannot catch up; [`ModelError::NotAllowed`] if the store's engine or the model
    /// cannot do it, if a projection of this name is inline already, or if events of it are parked.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the projection not inline, with the checkpoint at the end of a whole batch.
    pub async fn inline(self) -> Result<Inline<P::Model>, RunError> {
        let consumer = self.into_consumer(Purpose::Run)?;
        if consumer.work.part != Part::WHOLE {
            return Err(ModelError::not_allowed("a partition cannot be inline: an append has one transaction").into());
        }
        let (projector, model) = (Arc::clone(&consumer.work.projector), consumer.work.model.clone());
        let (store, name, wanted) = (consumer.store.clone(), consumer.name.clone(), consumer.wanted.clone());
        model.check_inline(&store)?;
        if store.engine().commit_hooks().is_none() {
            return Err(ModelError::not_allowed("the engine of this store has no inline projections").into());
        }
        // Most of the log in batches of its own, so that the writer has little to catch up with.
        consumer::catch_up(consumer).await?;
        let built_by = check_records::<P>(&model, &name).await?;
        let runtime = Handle::try_current().ok();
        let (id, model_of_hook) = (store.id(), model.clone());
        let hook = Hook { store: id, name: name.clone(), projector, model: model_of_hook, wanted, built_by, runtime };
        let registered = store.engine().commit_hooks().is_some_and(|hooks| hooks.register(Arc::new(hook)));
        if !registered {
            return Err(ModelError::not_allowed(format!("the projection {name} is inline already")).into());
        }
        // From here on it is unregistered when dropped.
        let inline = Inline { store, name, model };
        // What was written since then is applied in a transaction of the writer, with which every later one is in order.
        match inline.store.append(Append::default()).await {
            Ok(_) => {}
            Err(AppendError::Refused { source, .. }) => {
                return Err(match source.downcast::<ModelError>() {
                    Ok(error) => (*error).into(),
                    Err(source) => ModelError::failed(source).into(),
                });
            }
            Err(AppendError::Store(error)) => return Err(error.into()),
            Err(error) => return Err(ModelError::failed(error).into()),
        }
        debug!(name = inline.name.as_str(), "projection is inline");
        Ok(inline)
    }
}

/// A projection that runs inside the transactions of appends; see [`Projection::inline`]. Dropping it ends that.
#[must_use = "a projection is inline until this is dropped"]
pub struct Inline<M: ReadModel> {
    store: Store,
    name: ProjectionName,
    model: M,
}

impl<M: ReadModel> Inline<M> {
    /// The name of the projection.
    pub fn name(&self) -> &ProjectionName {
        &self.name
    }

    /// Ends it and makes the model durable. Appends that are being written right now may still include it.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the model cannot be written; the projection has ended anyway.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has ended the projection.
    pub async fn stop(self) -> Result<(), RunError> {
        let (name, model) = (self.name.clone(), self.model.clone());
        drop(self);
        Ok(model.settle(&name).await?)
    }
}

impl<M: ReadModel> Drop for Inline<M> {
    fn drop(&mut self) {
        if let Some(hooks) = self.store.engine().commit_hooks() {
            hooks.unregister(&self.name);
        }
    }
}

impl<M: ReadModel> fmt::Debug for Inline<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Checks that no events are parked, because later events of their keys would be applied before them. Returns the record
/// of who has built the model.
async fn check_records<P: Projector>(model: &P::Model, name: &ProjectionName) -> Result<Option<Bytes>, ModelError> {
    let of = name.clone();
    let read = model.transact(move |tx: &mut Tx<'_, P>| {
        // It was partitioned before, and has caught up as a whole now.
        if let Progress::Buckets(_) = Progress::find::<P>(tx, &of, Part::WHOLE)?.join::<P>(tx, &of)? {
            return Err(ModelError::not_allowed("partitions of the projection run elsewhere: stop them first"));
        }
        Ok((P::Model::list(tx, &of, PARKED)?.len(), P::Model::get(tx, &of, BuiltBy::KEY)?))
    });
    let (parked, built_by) = read.await?;
    if parked == 0 {
        return Ok(built_by);
    }
    let reason = format!("{parked} events of the projection {name} are parked: retry or drop them first");
    Err(ModelError::not_allowed(reason))
}

/// An inline projection, as the engine sees it.
struct Hook<P: Projector> {
    store: StoreId,
    name: ProjectionName,
    projector: Arc<P>,
    model: P::Model,
    /// Which events it wants.
    wanted: Filter,
    /// The record of who has built the model.
    built_by: Option<Bytes>,
    runtime: Option<Handle>,
}

impl<P: Projector> fmt::Debug for Hook<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<P: Projector> CommitHook for Hook<P>
where
    P::Model: InlineModel,
{
    fn name(&self) -> &ProjectionName {
        &self.name
    }

    fn apply(&self, committing: &mut Committing<'_>) -> Result<(), HookError> {
        self.model.begin_append();
        let applied = panics::catch(|| self.catch_up_and_apply(committing));
        let applied = applied.unwrap_or_else(|message| Err(refused(ModelError::Panicked { position: None, message })));
        if applied.is_err() {
            self.model.revert_append();
        }
        applied
    }

    fn revert(&self) {
        self.model.revert_append();
    }

    fn ended(&self, committed: bool) {
        self.model.ended(committed, self.runtime.as_ref());
    }
}

impl<P: Projector> Hook<P>
where
    P::Model: InlineModel,
{
    fn catch_up_and_apply(&self, committing: &mut Committing<'_>) -> Result<(), HookError> {
        let found = self.model.within(committing.transaction, |tx: &mut Tx<'_, P>| self.record(tx));
        let mut at = found.map_err(refused)?;
        self.check_log(&at, committing.before)?;
        while at.mark.position < committing.before {
            // Events of processes in which the projection is not inline.
            let mut read = Read::new(StreamId::all());
            (read.after, read.before) = (at.mark.position.get(), Some(committing.before.next().get()));
            read.filter = self.wanted.clone();
            let page = committing.read(&read)?;
            let Some(mark) = page.mark.filter(|mark| mark.position > at.mark.position) else { break };
            at = self.fold(committing.transaction, page.events, at, mark)?;
        }
        let Some(last) = committing.events.last() else { return Ok(()) };
        let mark = Mark { position: last.position, checksum: last.checksum };
        let wanted = committing.events.iter().filter(|event| self.wanted.matches(&event.header()));
        self.fold(committing.transaction, wanted.cloned().collect(), at, mark).map(drop)
    }

    /// Reads the checkpoint, and checks that the model is still the one that this projector has built.
    fn record(&self, tx: &mut Tx<'_, P>) -> Result<CheckpointRecord, ModelError> {
        if P::Model::get(tx, &self.name, BuiltBy::KEY)? != self.built_by {
            return Err(ModelError::Rebuilt { name: self.name.clone() });
        }
        record::<P>(tx, &self.name, self.store)
    }

    /// Applies events, and moves the checkpoint.
    fn fold(
        &self,
        transaction: &dyn Any,
        stored: Vec<StoredEvent>,
        from: CheckpointRecord,
        mark: Mark,
    ) -> Result<CheckpointRecord, HookError> {
        let bytes = stored.iter().map(StoredEvent::bytes).sum();
        let mut events = Vec::with_capacity(stored.len());
        for event in stored {
            let position = event.position;
            let decoded = Recorded::<P::Event>::decode(event);
            events.push(decoded.map_err(|error| refused(ModelError::Refused { position, source: error.into() }))?);
        }
        let count = events.len() as u64;
        let to = CheckpointRecord { store: self.store, mark, ..from }.events(from.events + count);
        let (projector, name) = (Arc::clone(&self.projector), self.name.clone());
        // One by one: an event that is refused is to be named, and the append's transaction cannot be tried again.
        let fold = move |tx: &mut Tx<'_, P>| apply(&How::OneByOne, &*projector, events.iter(), tx);
        let batch = Batch::new(count, bytes, fold, |fold| {
            move |tx: &mut Tx<'_, P>| {
                fold(tx)?;
                P::Model::put(tx, &name, CheckpointRecord::KEY, &to.encode())
            }
        });
        self.model.batch_within(transaction, &batch).map_err(refused)?;
        Ok(to)
    }

    /// Checks what can be checked in every transaction; [`Projection::inline`] has checked the rest.
    fn check_log(&self, at: &CheckpointRecord, head: Position) -> Result<(), HookError> {
        let reason = if at.store != self.store {
            format!("the checkpoint is of store {}, this is store {}", at.store, self.store)
        } else if at.mark.position > head {
            format!("the log ends at position {head}")
        } else {
            return Ok(());
        };
        let (name, position) = (self.name.clone(), at.mark.position);
        Err(HookError::Refused(RunError::LogRewound { name, position, reason }.into()))
    }
}

fn refused(error: ModelError) -> HookError {
    match error {
        // The log's own failure, which concerns every append of the transaction.
        ModelError::Failed { source } => match source.downcast::<StoreError>() {
            Ok(error) => HookError::Store(*error),
            Err(source) => HookError::Refused(ModelError::Failed { source }.into()),
        },
        error => HookError::Refused(error.into()),
    }
}
