//! The one runner of all projections.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tracing::{Instrument, debug, warn};

use super::model::{Checkpoint, ModelError, ReadModel, Step};
use super::projector::Projector;
use super::running::{Progress, Running, RunningState};
use crate::domain::{DecodeError, Event, Recorded};
use crate::log::{
    ErrorKind, Filter, InvalidName, Mark, Position, ProjectionName, Read, Store, StoreError, StreamId, Stretch, Watch,
};

/// A projector, the log it reads and the model it writes, ready to run.
///
/// ```
/// # use es_framework::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
/// #[derive(Debug, Default, Serialize, Deserialize)]
/// struct Total {
///     cents: u64,
/// }
///
/// struct Totals;
///
/// impl Projector for Totals {
///     type Event = AccountEvent;
///     type Model = StateModel<Total>;
///     type Error = std::convert::Infallible;
///     const NAME: &'static str = "totals";
///
///     fn project(&self, event: &Recorded<AccountEvent>, total: &mut StateTx<'_, Total>) -> Result<(), Self::Error> {
///         let AccountEvent::Deposited { cents } = event.event();
///         total.cents += cents;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::from(MemoryStore::new());
/// # let deposited = AccountEvent::Deposited { cents: 500 }.encode()?;
/// # let position = store.open_stream("account-alice")?.write(deposited, ExpectedVersion::Any).await?.position;
/// let model = StateModel::new(&store);
/// let totals = Projection::new(&store, Totals, model.clone()).start().await?;
/// totals.wait_for(position, std::time::Duration::from_secs(5)).await?;
/// assert_eq!(model.read(|total| total.cents), 500);
/// totals.stop().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a projection does nothing until it is started"]
pub struct Projection<P: Projector> {
    store: Store,
    projector: P,
    model: P::Model,
    name: String,
    filter: Filter,
}

/// A projection that stopped because it could not go on. Its checkpoint is where it was after the last whole batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The projector's name is no valid projection name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The log is not the one the checkpoint was taken in: another store, a restored backup, or a lost tail. Rebuild the
    /// read model from the beginning, or bring back the right log.
    #[error("projection {name} is at position {position}, but the log was rewound: {reason}")]
    LogRewound {
        /// The projection.
        name: ProjectionName,
        /// The position of its checkpoint.
        position: Position,
        /// How that was noticed.
        reason: String,
    },
    /// An event could not be decoded; the projection stands right before it.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The read model rolled back: the projector refused, it panicked, or somebody else took over.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The log could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RunError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) => ErrorKind::Caller,
            Self::LogRewound { .. } | Self::Decode(_) => ErrorKind::Data,
            Self::Model(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

impl<P: Projector> Projection<P> {
    /// Puts a projection together.
    pub fn new(store: impl Into<Store>, projector: P, model: P::Model) -> Self {
        Self { store: store.into(), projector, model, name: P::NAME.to_owned(), filter: Filter::new() }
    }

    /// Keeps the checkpoint under another name than [`Projector::NAME`], for example to build a new version of the read
    /// model beside the old one.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Gives the projector only events that pass the filter, for example those of one category. Others still move the
    /// checkpoint.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = self.filter.and_all(filter);
        self
    }

    /// Makes the model ready, finds the checkpoint and runs in a task of its own: first what is in the log, then whatever
    /// is written, until it is stopped or fails.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot begin. What happens later is said by the handle.
    pub async fn start(self) -> Result<Running, RunError> {
        let (run, feed, checkpoint) = self.begin().await?;
        let position = position_of(checkpoint.as_ref());
        let (progress, seen) = watch::channel(Progress::new(position));
        let (stop, stopping) = watch::channel(false);
        let span = tracing::info_span!("projection", name = run.name.as_str());
        let name = run.name.clone();
        tokio::spawn(run.run_until_stopped(feed, checkpoint, progress, stopping).instrument(span));
        Ok(Running::new(name, seen, stop))
    }

    /// Deals with everything that is in the log now, and answers the position reached.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot go on.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the checkpoint where the last whole batch ended.
    pub async fn catch_up(self) -> Result<Position, RunError> {
        let (mut run, mut feed, mut checkpoint) = self.begin().await?;
        let head = match run.store.engine().read(Read { events: 0, ..Read::new(StreamId::all()) }).await {
            Ok(page) => page.head,
            // The feed meets the damage, after what lies before it.
            Err(StoreError::Corrupt { .. }) => u64::MAX,
            Err(error) => return Err(error.into()),
        };
        let mut seen = checkpoint.map_or(0, |at| at.position.get());
        while seen < head {
            let Some(batch) = feed.next().await else { break };
            let batch = batch?;
            seen = batch.upto;
            feed.meanwhile(run.deal_with(batch, &mut checkpoint)).await?;
        }
        run.model.settle(&run.name).await?;
        Ok(position_of(checkpoint.as_ref()))
    }

    async fn begin(self) -> Result<(Run<P>, Feed<P::Event>, Option<Checkpoint>), RunError> {
        let Self { store, projector, model, name, filter } = self;
        let name = ProjectionName::new(name)?;
        let wanted = filter.types(P::Event::names());
        let projector = Arc::new(projector);
        model.start(&name).await?;
        let checkpoint = {
            let (projector, name) = (Arc::clone(&projector), name.clone());
            model.transact(move |tx| {
                projector.prepare(tx).map_err(|error| ModelError::Prepare { source: error.into() })?;
                P::Model::checkpoint(tx, &name)
            })
        }
        .await?;
        if let Some(checkpoint) = &checkpoint {
            check_log(&store, &name, checkpoint).await?;
        }
        let after = checkpoint.map_or(Position::ZERO, |at| at.position);
        let watch = store.all().watch().after(after).filter(wanted.clone()).await?;
        debug!(name = name.as_str(), after = after.get(), "projection begins");
        Ok((Run { store, name, projector, model, wanted }, Feed::new(watch), checkpoint))
    }
}

/// Checks that the event at the checkpoint is still the one it was.
async fn check_log(store: &Store, name: &ProjectionName, checkpoint: &Checkpoint) -> Result<(), RunError> {
    let rewound = |reason: String| RunError::LogRewound { name: name.clone(), position: checkpoint.position, reason };
    if checkpoint.store != store.id() {
        return Err(rewound(format!("the checkpoint is of store {}, this is store {}", checkpoint.store, store.id())));
    }
    let position = checkpoint.position.get();
    let at = Read { after: position.saturating_sub(1), before: Some(position + 1), ..Read::new(StreamId::all()) };
    let page = store.engine().read(at).await?;
    if page.head < position {
        return Err(rewound(format!("the log ends at position {}", page.head)));
    }
    match page.mark {
        Some(mark) if mark.position == checkpoint.position && mark.checksum != checkpoint.checksum => {
            Err(rewound("the event at that position is another".to_owned()))
        }
        Some(_) => Ok(()),
        None => Err(rewound("there is no event at that position".to_owned())),
    }
}

/// A projection that has begun.
struct Run<P: Projector> {
    store: Store,
    name: ProjectionName,
    projector: Arc<P>,
    model: P::Model,
    wanted: Filter,
}

impl<P: Projector> Run<P> {
    async fn run_until_stopped(
        mut self,
        mut feed: Feed<P::Event>,
        mut checkpoint: Option<Checkpoint>,
        progress: watch::Sender<Progress>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let outcome = self.until_stopped(&mut feed, &mut checkpoint, &progress, &mut stopping).await;
        let outcome = match (outcome, self.model.settle(&self.name).await) {
            (Ok(()), Err(error)) => Err(error.into()),
            (outcome, _) => outcome,
        };
        progress.send_modify(|progress| {
            progress.position = position_of(checkpoint.as_ref());
            match outcome {
                Ok(()) => progress.state = RunningState::Stopped,
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "projection stopped");
                    progress.fail(error);
                }
            }
        });
    }

    async fn until_stopped(
        &mut self,
        feed: &mut Feed<P::Event>,
        checkpoint: &mut Option<Checkpoint>,
        progress: &watch::Sender<Progress>,
        stopping: &mut watch::Receiver<bool>,
    ) -> Result<(), RunError> {
        loop {
            let batch = tokio::select! {
                biased;
                // A handle that was dropped stops the projection too.
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                batch = feed.next() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            let batch = batch?;
            let state = if batch.caught_up { RunningState::Live } else { RunningState::CatchingUp };
            feed.meanwhile(self.deal_with(batch, checkpoint)).await?;
            let position = position_of(checkpoint.as_ref());
            progress.send_modify(|progress| progress.reached(position, state));
        }
    }

    /// Changes the model by a batch of events and moves the checkpoint, in one transaction. If an event of the batch cannot
    /// be dealt with, those before it are all the same, so that the checkpoint stands right before it.
    async fn deal_with(&mut self, batch: Batch<P::Event>, checkpoint: &mut Option<Checkpoint>) -> Result<(), RunError> {
        let Batch { events, unreadable, mark, .. } = batch;
        let Some(mark) = mark.filter(|mark| mark.position > position_of(checkpoint.as_ref())) else { return Ok(()) };
        let to = Checkpoint::new(self.store.id(), mark);
        let events = Arc::new(events);
        let Err(error) = (match unreadable {
            None => self.step(&events, events.len(), checkpoint, to).await,
            Some(error) => Err(RunError::Decode(error)),
        }) else {
            return Ok(());
        };
        let failed_at = match &error {
            RunError::Decode(error) => error.position(),
            RunError::Model(
                ModelError::Refused { position, .. } | ModelError::Panicked { position: Some(position), .. },
            ) => *position,
            RunError::Model(ModelError::TakenOver { .. }) => return Err(error),
            _ => Position::ZERO,
        };
        self.recover(*checkpoint).await?;
        let before = events.iter().take_while(|event| event.position() < failed_at).count();
        if let Some(last) = before.checked_sub(1).and_then(|last| events.get(last)) {
            self.step(&events, before, checkpoint, Checkpoint::new(self.store.id(), last.mark())).await?;
        }
        Err(error)
    }

    /// One transaction: the first `count` of the events, and the checkpoint.
    async fn step(
        &mut self,
        events: &Arc<Vec<Recorded<P::Event>>>,
        count: usize,
        checkpoint: &mut Option<Checkpoint>,
        to: Checkpoint,
    ) -> Result<(), RunError> {
        let (projector, name, events) = (Arc::clone(&self.projector), self.name.clone(), Arc::clone(events));
        let step = Step::new(*checkpoint, to, count as u64);
        // What a panic interrupted can only be told from outside.
        let at = Arc::new(AtomicU64::new(0));
        let reached = Arc::clone(&at);
        let body = move |tx: &mut <P::Model as ReadModel>::Tx<'_>| {
            step.check(&name, P::Model::checkpoint(tx, &name)?.as_ref())?;
            for event in events.iter().take(count) {
                reached.store(event.position().get(), Ordering::Relaxed);
                projector
                    .project(event, tx)
                    .map_err(|error| ModelError::Refused { position: event.position(), source: error.into() })?;
            }
            P::Model::advance(tx, &name, &step)
        };
        self.model.transact(body).await.map_err(|error| match error {
            ModelError::Panicked { message, position: None } => {
                let position = Some(Position::new(at.load(Ordering::Relaxed))).filter(|at| *at > Position::ZERO);
                ModelError::Panicked { message, position }
            }
            error => error,
        })?;
        *checkpoint = Some(to);
        Ok(())
    }

    /// Brings a model that forgot more than the failed batch back to the checkpoint.
    async fn recover(&mut self, upto: Option<Checkpoint>) -> Result<(), RunError> {
        self.model.start(&self.name).await?;
        let name = self.name.clone();
        let mut checkpoint = self.model.transact(move |tx| P::Model::checkpoint(tx, &name)).await?;
        let Some(upto) = upto.filter(|upto| position_of(checkpoint.as_ref()) < upto.position) else { return Ok(()) };
        let wanted = self.wanted.clone().before(upto.position.next());
        let mut watch = self.store.all().watch().after(position_of(checkpoint.as_ref())).filter(wanted).await?;
        while position_of(checkpoint.as_ref()) < upto.position {
            let Some(stretch) = watch.next_stretch().await else { break };
            let Batch { events, unreadable, mark, .. } = Batch::<P::Event>::of(stretch?);
            let Some(mark) = mark else { continue };
            let to = if mark.position < upto.position { Checkpoint::new(self.store.id(), mark) } else { upto };
            if let Some(error) = unreadable {
                return Err(error.into());
            }
            self.step(&Arc::new(events), usize::MAX, &mut checkpoint, to).await?;
        }
        Ok(())
    }
}

fn position_of(checkpoint: Option<&Checkpoint>) -> Position {
    checkpoint.map_or(Position::ZERO, |at| at.position)
}

/// A stretch of the log, decoded.
struct Batch<E> {
    /// The events up to the first that cannot be decoded.
    events: Vec<Recorded<E>>,
    /// Why that one cannot.
    unreadable: Option<DecodeError>,
    /// The place up to which everything was looked at.
    upto: u64,
    /// The last event at or below `upto`.
    mark: Option<Mark>,
    /// Whether the log held nothing more.
    caught_up: bool,
}

impl<E: Event> Batch<E> {
    fn of(stretch: Stretch) -> Self {
        let Stretch { events: stored, upto, mark, caught_up } = stretch;
        let mut events = Vec::with_capacity(stored.len());
        let mut unreadable = None;
        for event in stored {
            match Recorded::decode(event) {
                Ok(event) => events.push(event),
                Err(error) => {
                    unreadable = Some(error);
                    break;
                }
            }
        }
        Self { events, unreadable, upto, mark, caught_up }
    }
}

/// Where the batches come from, in order.
struct Feed<E> {
    watch: Watch,
    /// What came next while the batch before it was dealt with.
    ahead: Option<Result<Batch<E>, StoreError>>,
    /// Whether there was nothing after the batch that was answered last.
    caught_up: bool,
}

impl<E: Event> Feed<E> {
    fn new(watch: Watch) -> Self {
        Self { watch, ahead: None, caught_up: false }
    }

    /// The next batch, when there is one; [`None`] after an error was said. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Option<Result<Batch<E>, StoreError>> {
        let next = match self.ahead.take() {
            Some(ahead) => Some(ahead),
            None => self.watch.next_stretch().await.map(|stretch| stretch.map(Batch::of)),
        };
        if let Some(Ok(batch)) = &next {
            self.caught_up = batch.caught_up;
        }
        next
    }

    /// Deals with the batch that was answered last, to its end, and takes and decodes the next one meanwhile, but no more
    /// than that one. So the log's reader, the decoding and the model's transaction are busy at the same time: of the 8,800
    /// instructions that an event costs until it is a row in a table, they have 4,300, 800 and 3,700.
    ///
    /// Not once it has caught up: the next batch would be the first event that is written, and a transaction its own,
    /// while all that is written during a transaction can share the next.
    async fn meanwhile<T>(&mut self, dealing: impl Future<Output = T>) -> T {
        let mut dealing = pin!(dealing);
        if !self.caught_up {
            tokio::select! {
                // This first, so that it is under way while the next batch is decoded.
                biased;
                done = &mut dealing => return done,
                next = self.next() => self.ahead = next,
            }
        }
        dealing.await
    }
}
