//! Read models: where projections keep their results.

use std::fmt::{self, Debug};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::consumer::ModelError;
use crate::log::{Fingerprint, Position, ProjectionName};

/// The work of one transaction of a model: check the checkpoint, apply some events to the model, and move the
/// checkpoint. Cheap to clone; can be run again on a model whose checkpoint is back where it was.
pub struct Batch<M: ReadModel> {
    run: Arc<Run<M>>,
    fold: Arc<Run<M>>,
    events: u64,
    bytes: usize,
}

type Run<M> = dyn for<'t> Fn(&mut <M as ReadModel>::Tx<'t>) -> Result<(), ModelError> + Send + Sync;

impl<M: ReadModel> Batch<M> {
    /// Creates a batch of `events` events, with payloads and metadata of `bytes` bytes in total.
    pub(crate) fn new<F, R>(events: u64, bytes: usize, fold: F, run: impl FnOnce(Arc<Run<M>>) -> R) -> Self
    where
        F: for<'t> Fn(&mut M::Tx<'t>) -> Result<(), ModelError> + Send + Sync + 'static,
        R: for<'t> Fn(&mut M::Tx<'t>) -> Result<(), ModelError> + Send + Sync + 'static,
    {
        let fold: Arc<Run<M>> = Arc::new(fold);
        Self { run: Arc::new(run(Arc::clone(&fold))), fold, events, bytes }
    }

    /// Runs the batch inside a transaction.
    ///
    /// # Errors
    ///
    /// The [`ModelError`] for which the transaction must be rolled back, including a panic of the projector.
    pub fn run(&self, tx: &mut M::Tx<'_>) -> Result<(), ModelError> {
        (self.run)(tx)
    }

    /// The same work for a model with the same transactions, which this one wraps.
    #[must_use]
    pub fn over<O>(self) -> Batch<O>
    where
        O: for<'t> ReadModel<Tx<'t> = M::Tx<'t>>,
    {
        let Self { run, fold, events, bytes } = self;
        Batch {
            run: Arc::new(move |tx: &mut O::Tx<'_>| run(tx)),
            fold: Arc::new(move |tx: &mut O::Tx<'_>| fold(tx)),
            events,
            bytes,
        }
    }

    /// Applies the events only, without the checkpoint: for a model that must fold again what it had committed.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub fn fold(&self, tx: &mut M::Tx<'_>) -> Result<(), ModelError> {
        (self.fold)(tx)
    }

    /// The number of events.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The size in bytes of their payloads and metadata, which stay in memory as long as the batch is kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<M: ReadModel> Clone for Batch<M> {
    fn clone(&self) -> Self {
        Self { run: Arc::clone(&self.run), fold: Arc::clone(&self.fold), events: self.events, bytes: self.bytes }
    }
}

impl<M: ReadModel> Debug for Batch<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("events", &self.events).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// What became of a read model that was to be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// It is as before the first event.
    All,
    /// Nothing was done.
    Nothing,
}

/// Where a projector keeps its results, with transactions that include the checkpoint; implemented once per engine.
///
/// Next to the projector's results a model keeps *records*: small named values, written in the same transactions. The
/// checkpoint is one of them ([`CheckpointRecord`](crate::CheckpointRecord)); what they mean is up to the runner, so that
/// every model has all of it. The key of a record is ASCII text of at most 255 bytes, its value at most a few kilobytes.
/// A record belongs to a consumer's name. A model that belongs to one consumer only may ignore the name.
pub trait ReadModel: Debug + Clone + Send + Sync + 'static {
    /// A transaction, as the projector sees it.
    type Tx<'t>;

    /// Prepares the model itself, before anything else is called. The runner calls it again if, after a failed
    /// transaction, the checkpoint is behind where it was: the model then loads what it has saved, and gets the events
    /// since then.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if the model cannot be used.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has either prepared the model or changed nothing; the call can be repeated.
    fn start(&self, name: &ProjectionName) -> impl Future<Output = Result<(), ModelError>> + Send;

    /// Runs `body` in a transaction: commits if it returns `Ok`, rolls back if it returns `Err` or panics.
    ///
    /// After an error the runner reads the checkpoint and trusts it: a transaction that was committed although its call
    /// failed is not run again.
    ///
    /// # Errors
    ///
    /// The error of `body`, [`ModelError::Panicked`], [`ModelError::CommitRefused`], or a failure of the model itself.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has committed either the whole transaction or nothing.
    fn transact<T, F>(&self, body: F) -> impl Future<Output = Result<T, ModelError>> + Send
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut Self::Tx<'t>) -> Result<T, ModelError> + Send + 'static;

    /// Runs a batch of events in a transaction, as [`Self::transact`] does with [`Batch::run`], which it calls by
    /// default.
    ///
    /// A model that cannot roll back may keep the batches since it was last saved, and run them again after a failure.
    ///
    /// # Errors
    ///
    /// As for [`Self::transact`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Self::transact`].
    fn transact_batch(&self, batch: Batch<Self>) -> impl Future<Output = Result<(), ModelError>> + Send {
        self.transact(move |tx: &mut Self::Tx<'_>| batch.run(tx))
    }

    /// Reads the record of this consumer under this key, as the transaction sees it.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be read.
    fn get(tx: &mut Self::Tx<'_>, name: &ProjectionName, key: &str) -> Result<Option<Bytes>, ModelError>;

    /// Writes a record of this consumer, replacing the one under this key.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be written.
    fn put(tx: &mut Self::Tx<'_>, name: &ProjectionName, key: &str, value: &[u8]) -> Result<(), ModelError>;

    /// Removes the record of this consumer under this key, if there is one.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be removed.
    fn delete(tx: &mut Self::Tx<'_>, name: &ProjectionName, key: &str) -> Result<(), ModelError>;

    /// Lists the records of this consumer whose keys start with `prefix`, in the order of the bytes of their keys.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if they cannot be read.
    fn list(tx: &mut Self::Tx<'_>, name: &ProjectionName, prefix: &str) -> Result<Vec<(String, Bytes)>, ModelError>;

    /// Removes everything that the projector has written, and no record; [`Cleared::Nothing`] by default, for a model that
    /// does not know what that is.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be removed.
    fn clear(tx: &mut Self::Tx<'_>) -> Result<Cleared, ModelError> {
        let _: &mut Self::Tx<'_> = tx;
        Ok(Cleared::Nothing)
    }

    /// Notes that what follows in the transaction belongs to the event at this position; called before each event is
    /// passed to the projector. Does nothing by default.
    ///
    /// For an engine that sends its statements later than the projector executes them, so that the error of a statement
    /// can name its event as [`ModelError::Refused`].
    fn at(tx: &mut Self::Tx<'_>, position: Position) {
        let (_, _): (&mut Self::Tx<'_>, Position) = (tx, position);
    }

    /// Makes everything durable and releases what was kept for the run; called when a projection stops.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be written.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has written either all of it or nothing.
    fn settle(&self, name: &ProjectionName) -> impl Future<Output = Result<(), ModelError>> + Send;

    /// Returns what the rows of the projector look like, given what it does in `prepare`: the same value at every start, and
    /// another one once its tables change. By default all rows look alike.
    ///
    /// # Errors
    ///
    /// The error of `prepare`, or a failure of the model.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect on the model.
    fn shape<F>(&self, prepare: F) -> impl Future<Output = Result<Fingerprint, ModelError>> + Send
    where
        F: for<'t> FnOnce(&mut Self::Tx<'t>) -> Result<(), ModelError> + Send + 'static,
    {
        drop(prepare);
        async { Ok(Fingerprint::default()) }
    }

    /// Opens the place where the results of the projection `name` are built anew, while this model goes on answering. What
    /// an earlier attempt at the same generation has left there is found again, unless it was lost with its process.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotAllowed`] by default: this model can only be built anew in place.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has opened the place or nothing.
    fn beside(&self, name: &ProjectionName, generation: u64) -> impl Future<Output = Result<Self, ModelError>> + Send {
        let _: (&ProjectionName, u64) = (name, generation);
        async {
            let reason = "this read model cannot be built beside the one that answers; build it in place, or under another \
                          name";
            Err(ModelError::not_allowed(reason))
        }
    }

    /// Replaces the results of the projection `name` by those in `built`, which [`Self::beside`] has opened, in one
    /// transaction of this model: readers see the old results until then, and the new ones from then on. In the same
    /// transaction, and before anything is replaced, `agree` checks and writes the records.
    ///
    /// # Errors
    ///
    /// The error of `agree`, or a failure of either model; nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has replaced everything or nothing.
    fn replace_by<F>(
        &self,
        name: &ProjectionName,
        built: &Self,
        agree: F,
    ) -> impl Future<Output = Result<(), ModelError>> + Send
    where
        F: for<'t> FnOnce(&mut Self::Tx<'t>) -> Result<(), ModelError> + Send + 'static,
    {
        let _: (&ProjectionName, &Self) = (name, built);
        drop(agree);
        async { Err(ModelError::not_allowed("this read model cannot be replaced by another")) }
    }

    /// Removes the place that [`Self::beside`] has opened, and everything in it. Does nothing by default.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if something is left.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may leave something behind, which takes up space only.
    fn discard(self) -> impl Future<Output = Result<(), ModelError>> + Send {
        async { Ok(()) }
    }
}
