//! Read models: where projections keep their results.

use std::fmt::{self, Debug};
use std::future::Future;
use std::sync::Arc;

use super::error::ModelError;
use crate::log::{Mark, Position, ProjectionName, StoreId};

/// How far a projection has got, and in which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The store it reads.
    pub store: StoreId,
    /// The position of the last event it has processed.
    pub position: Position,
    /// The checksum of that event, which detects a log that was rewound.
    pub checksum: u32,
}

impl Checkpoint {
    /// Creates a checkpoint.
    pub fn new(store: StoreId, mark: Mark) -> Self {
        Self { store, position: mark.position, checksum: mark.checksum }
    }
}

/// One step of a projection: the checkpoint it starts from, the one it reaches, and the number of events in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// Where the runner expects the checkpoint to be; [`None`] before the first step.
    pub from: Option<Checkpoint>,
    /// Where the step moves it.
    pub to: Checkpoint,
    /// The number of events given to the projector.
    pub events: u64,
}

impl Step {
    /// Creates a step.
    pub fn new(from: Option<Checkpoint>, to: Checkpoint, events: u64) -> Self {
        Self { from, to, events }
    }

    /// Checks that the checkpoint is where the runner left it.
    ///
    /// # Errors
    ///
    /// [`ModelError::TakenOver`] if it is not.
    pub fn check(&self, name: &ProjectionName, found: Option<&Checkpoint>) -> Result<(), ModelError> {
        if self.from.as_ref() == found {
            return Ok(());
        }
        let position = |checkpoint: Option<&Checkpoint>| checkpoint.map_or(Position::ZERO, |at| at.position);
        let (expected, found) = (position(self.from.as_ref()), position(found));
        Err(ModelError::TakenOver { name: name.clone(), expected, found })
    }
}

/// The work of one transaction of a model: check the checkpoint, apply some events to the model, and move the
/// checkpoint. Cheap to clone; can be run again on a model whose checkpoint is back where it was.
pub struct Batch<M: ReadModel> {
    run: Arc<Run<M>>,
    events: u64,
    bytes: usize,
}

type Run<M> = dyn for<'t> Fn(&mut <M as ReadModel>::Tx<'t>) -> Result<(), ModelError> + Send + Sync;

impl<M: ReadModel> Batch<M> {
    /// Creates a batch of `events` events, with payloads and metadata of `bytes` bytes in total.
    pub fn new<F>(events: u64, bytes: usize, run: F) -> Self
    where
        F: for<'t> Fn(&mut M::Tx<'t>) -> Result<(), ModelError> + Send + Sync + 'static,
    {
        Self { run: Arc::new(run), events, bytes }
    }

    /// Runs the batch inside a transaction.
    ///
    /// # Errors
    ///
    /// The [`ModelError`] for which the transaction must be rolled back, including a panic of the projector.
    pub fn run(&self, tx: &mut M::Tx<'_>) -> Result<(), ModelError> {
        (self.run)(tx)
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
        Self { run: Arc::clone(&self.run), events: self.events, bytes: self.bytes }
    }
}

impl<M: ReadModel> Debug for Batch<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("events", &self.events).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Where a projector keeps its results, with transactions that include the checkpoint; implemented once per engine.
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

    /// The checkpoint of this name, as the transaction sees it.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be read.
    fn checkpoint(tx: &mut Self::Tx<'_>, name: &ProjectionName) -> Result<Option<Checkpoint>, ModelError>;

    /// Moves the checkpoint of this name to `step.to` inside the transaction, which found it at `step.from`.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be written.
    fn advance(tx: &mut Self::Tx<'_>, name: &ProjectionName, step: &Step) -> Result<(), ModelError>;

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
}
