//! The runner of all projections.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, warn};

use super::error::{ModelError, RunError};
use super::feed::{Decoded, Events, Feed, PanickedDrop};
use super::model::{Batch, Checkpoint, ReadModel, Step};
use super::projector::Projector;
use super::status::{Reporter, RunningState, Status};
use crate::domain::{Event, Recorded};
use crate::log::{BoxError, Filter, Position, ProjectionName, Read, Store, StoreError, StreamId};
use crate::panics;

/// How long the checkpoint may lag behind what was read while the log continues without events for the projector.
const UNWRITTEN: Duration = Duration::from_secs(5);

/// A projection that has started.
pub(super) struct Run<P: Projector> {
    store: Store,
    name: ProjectionName,
    projector: Arc<P>,
    model: P::Model,
    wanted: Filter,
    status: watch::Sender<Status>,
    /// The model's checkpoint.
    checkpoint: Option<Checkpoint>,
    /// How far the log was read: up to the checkpoint, or beyond it by events that the projector does not handle.
    seen: Option<Checkpoint>,
    /// Since when `seen` has been ahead of the checkpoint.
    unwritten: Option<Instant>,
    panicked: PanickedDrop,
}

impl<P: Projector> Run<P> {
    /// Prepares the model and finds the checkpoint.
    pub(super) async fn begin(
        store: Store,
        projector: P,
        model: P::Model,
        name: String,
        filter: Filter,
    ) -> Result<(Self, Feed<P::Event>, watch::Receiver<Status>), RunError> {
        let name = ProjectionName::new(name)?;
        let wanted = filter.types(P::Event::names());
        let projector = Arc::new(projector);
        model.start(&name).await?;
        let checkpoint = {
            let (projector, name) = (Arc::clone(&projector), name.clone());
            model.transact(move |tx: &mut <P::Model as ReadModel>::Tx<'_>| {
                let prepared = panics::catch(|| {
                    projector.prepare(tx).map_err(|error| ModelError::Prepare { source: error.into() })
                });
                prepared.map_err(|message| ModelError::Panicked { position: None, message })??;
                P::Model::checkpoint(tx, &name)
            })
        }
        .await
        .map_err(|error| match error {
            ModelError::CommitRefused { source } => ModelError::Prepare { source },
            error => error,
        })?;
        if let Some(checkpoint) = &checkpoint {
            check_log(&store, &name, checkpoint).await?;
        }
        let after = position_of(checkpoint.as_ref());
        let watch = store.all().watch().after(after).filter(wanted.clone()).await?;
        debug!(name = name.as_str(), after = after.get(), "projection begins");
        let panicked = Arc::new(OnceLock::new());
        let feed = Feed::new(watch, Arc::clone(&panicked));
        let (status, told) = watch::channel(Status::new(after));
        let (seen, unwritten) = (checkpoint, None);
        let run = Self { store, name, projector, model, wanted, status, checkpoint, seen, unwritten, panicked };
        Ok((run, feed, told))
    }

    pub(super) fn name(&self) -> &ProjectionName {
        &self.name
    }

    pub(super) fn status(&self) -> &watch::Sender<Status> {
        &self.status
    }

    /// Runs until it is stopped or fails, and reports how it ended.
    pub(super) async fn until_stopped(
        mut self,
        mut feed: Feed<P::Event>,
        reporter: Reporter,
        mut stopping: watch::Receiver<bool>,
    ) {
        let outcome = panics::catch_async(async {
            loop {
                let next = tokio::select! {
                    biased;
                    // Dropping the handle stops the projection too.
                    _ = stopping.wait_for(|stop| *stop) => return Ok::<(), RunError>(()),
                    next = feed.next() => next,
                };
                let Some(next) = next else { return Ok(()) };
                let next = next?;
                let state = if next.caught_up { RunningState::Live } else { RunningState::CatchingUp };
                feed.meanwhile(self.deal_with(next)).await?;
                self.tell(state);
            }
        });
        let outcome = outcome.await.unwrap_or_else(|message| Err(RunError::panicked(message)));
        let status = self.status.clone();
        let (position, outcome) = self.end(feed, outcome).await;
        reporter.ended(position, outcome);
        let error = status.borrow().error.clone();
        if let Some(error) = error {
            log(&error, "projection stopped");
        }
    }

    /// Processes what is in the log now.
    pub(super) async fn until_head(mut self, mut feed: Feed<P::Event>) -> (Position, Result<(), RunError>) {
        let outcome = panics::catch_async(async {
            let head = match self.store.engine().read(Read { events: 0, ..Read::new(StreamId::all()) }).await {
                Ok(page) => page.head,
                // The feed will hit the damage, after everything before it.
                Err(StoreError::Corrupt { .. }) => u64::MAX,
                Err(error) => return Err(error.into()),
            };
            let mut seen = position_of(self.seen.as_ref()).get();
            while seen < head {
                let Some(next) = feed.next().await else { break };
                let next = next?;
                seen = next.upto;
                feed.meanwhile(self.deal_with(next)).await?;
            }
            Ok::<(), RunError>(())
        });
        let outcome = outcome.await.unwrap_or_else(|message| Err(RunError::panicked(message)));
        self.end(feed, outcome).await
    }

    /// Writes what is still unwritten, drops everything that belongs to the user, and returns the position reached and
    /// the first of all errors.
    async fn end(mut self, feed: Feed<P::Event>, outcome: Result<(), RunError>) -> (Position, Result<(), RunError>) {
        let settled = panics::catch_async(async {
            let written = self.write_checkpoint().await;
            first(written, self.model.settle(&self.name).await.map_err(RunError::from))
        });
        let settled = settled.await.unwrap_or_else(|message| Err(RunError::panicked(message)));
        let position = position_of(self.checkpoint.as_ref());
        let panicked = Arc::clone(&self.panicked);
        let dropped = [panics::catch(|| drop(feed)), panics::catch(|| drop(self))];
        let dropped = dropped.into_iter().collect::<Result<(), _>>().map_err(RunError::panicked);
        let outcome = first(first(first(outcome, settled), no_panic(&panicked)), dropped);
        (position, outcome)
    }

    fn tell(&self, state: RunningState) {
        let position = position_of(self.seen.as_ref());
        self.status.send_modify(|status| (status.position, status.state) = (position, state));
    }

    /// Applies the events of a stretch to the model. If one of them cannot be processed, those before it are applied
    /// anyway, so that the checkpoint ends up right before it.
    async fn deal_with(&mut self, decoded: Decoded<P::Event>) -> Result<(), RunError> {
        let Decoded { events, unreadable, mark, .. } = decoded;
        let mark = if unreadable.is_none() { mark } else { events.last().map(Recorded::mark) };
        if let Some(mark) = mark.filter(|mark| mark.position > position_of(self.seen.as_ref())) {
            let to = Checkpoint::new(self.store.id(), mark);
            if events.is_empty() {
                self.pass_over(to).await?;
            } else {
                self.apply(&Arc::new(events), to).await?;
            }
        }
        match unreadable {
            Some(error) => Err(error.into()),
            None => no_panic(&self.panicked),
        }
    }

    /// Notes that there is nothing for the projector up to here. See `Projection` for when that is written.
    async fn pass_over(&mut self, to: Checkpoint) -> Result<(), RunError> {
        self.seen = Some(to);
        let since = *self.unwritten.get_or_insert_with(Instant::now);
        if since.elapsed() < UNWRITTEN { Ok(()) } else { self.write_checkpoint().await }
    }

    /// Moves the model's checkpoint to the position up to which the log was read.
    async fn write_checkpoint(&mut self) -> Result<(), RunError> {
        match self.seen {
            Some(to) if self.seen != self.checkpoint => {
                let none = Arc::new(Events::none());
                self.step(&none, 0..0, to).await
            }
            _ => Ok(()),
        }
    }

    /// Applies these events to the model, in one transaction if possible.
    async fn apply(&mut self, events: &Arc<Events<P::Event>>, to: Checkpoint) -> Result<(), RunError> {
        let Err(error) = self.step(events, 0..events.len(), to).await else { return Ok(()) };
        let culprit = match &error {
            RunError::Model(ModelError::TakenOver { .. }) => {
                // Do not try anything else.
                self.seen = self.checkpoint;
                return Err(error);
            }
            RunError::Model(
                ModelError::Refused { position, .. } | ModelError::Panicked { position: Some(position), .. },
            ) => Some(*position),
            _ => None,
        };
        if let Err(another) = self.recover(to).await {
            log(&another, "the model of a projection could not be brought back after an error");
            return Err(error);
        }
        if self.checkpoint == Some(to) {
            // It was committed anyway.
            return Err(error);
        }
        let good = match error {
            RunError::Model(ModelError::CommitRefused { source }) => {
                return Err(self.narrow_down(events, events.len(), source).await);
            }
            _ => culprit.map_or(0, |at| events.iter().take_while(|event| event.position() < at).count()),
        };
        match self.step_before(events, 0..good).await {
            Ok(()) => Err(error),
            // The first event that cannot be processed is one of those before.
            Err(RunError::Model(ModelError::CommitRefused { source })) => {
                Err(self.narrow_down(events, good, source).await)
            }
            Err(another) => Err(another),
        }
    }

    /// Given that the first `all` events cannot be committed together, commits the longest prefix of them that can, and
    /// blames the event after it.
    ///
    /// If a run of events cannot be committed, a longer one still may be: that is the point of a deferred foreign key.
    /// So once bisection has found an event that cannot be committed alone, every longer run that starts with it is
    /// tried too. For example, if events 1 to 4 can be committed and event 5 alone cannot, 5 to 6 is tried, then 5 to
    /// 7, and so on. If 5 to 7 can be committed, the search continues at 8; if no run can, event 5 is to blame.
    async fn narrow_down(&mut self, events: &Arc<Events<P::Event>>, all: usize, source: BoxError) -> RunError {
        let (mut good, mut source) = (0, source);
        loop {
            let mut bad = all;
            while bad - good > 1 {
                let middle = good.midpoint(bad);
                match self.try_before(events, good..middle).await {
                    Ok(None) => good = middle,
                    Ok(Some(refused)) => (bad, source) = (middle, refused),
                    Err(another) => return another,
                }
            }
            let mut longer = None;
            for end in bad + 1..all {
                match self.try_before(events, good..end).await {
                    Ok(None) => {
                        longer = Some(end);
                        break;
                    }
                    Ok(Some(_)) => {}
                    Err(another) => return another,
                }
            }
            match (longer, events.get(good)) {
                (Some(end), _) => good = end,
                (None, Some(event)) => return ModelError::Refused { position: event.position(), source }.into(),
                (None, None) => return ModelError::CommitRefused { source }.into(),
            }
        }
    }

    /// Like [`Self::step_before`], but returns the reason if the transaction could not be committed.
    async fn try_before(
        &mut self,
        events: &Arc<Events<P::Event>>,
        range: Range<usize>,
    ) -> Result<Option<BoxError>, RunError> {
        match self.step_before(events, range).await {
            Ok(()) => Ok(None),
            Err(RunError::Model(ModelError::CommitRefused { source })) => Ok(Some(source)),
            Err(another) => Err(another),
        }
    }

    /// Runs one transaction of some of the events, with the checkpoint at the last of them.
    async fn step_before(&mut self, events: &Arc<Events<P::Event>>, range: Range<usize>) -> Result<(), RunError> {
        let Some(last) = events.get(range.clone()).and_then(<[_]>::last) else { return Ok(()) };
        let to = Checkpoint::new(self.store.id(), last.mark());
        self.step(events, range, to).await
    }

    /// Runs one transaction: some of the events, and the checkpoint.
    async fn step(
        &mut self,
        events: &Arc<Events<P::Event>>,
        range: Range<usize>,
        to: Checkpoint,
    ) -> Result<(), RunError> {
        let (projector, name, events) = (Arc::clone(&self.projector), self.name.clone(), Arc::clone(events));
        let (count, bytes) = (range.len() as u64, events.bytes(range.clone()));
        let step = Step::new(self.checkpoint, to, count);
        let body = move |tx: &mut <P::Model as ReadModel>::Tx<'_>| {
            step.check(&name, P::Model::checkpoint(tx, &name)?.as_ref())?;
            let mut at = None;
            let projected = panics::catch(|| {
                for event in events.get(range.clone()).unwrap_or_default() {
                    at = Some(event.position());
                    projector
                        .project(event, tx)
                        .map_err(|error| ModelError::Refused { position: event.position(), source: error.into() })?;
                }
                Ok(())
            });
            projected.map_err(|message| ModelError::Panicked { position: at, message })??;
            P::Model::advance(tx, &name, &step)
        };
        self.model.transact_batch(Batch::new(count, bytes, body)).await?;
        self.checkpoint = Some(to);
        if position_of(self.seen.as_ref()) <= to.position {
            (self.seen, self.unwritten) = (self.checkpoint, None);
        }
        Ok(())
    }

    /// Finds out where the model is after a transaction to `to` failed. A model that lost more than that transaction is
    /// given the events since its last save again.
    async fn recover(&mut self, to: Checkpoint) -> Result<(), RunError> {
        let upto = self.checkpoint;
        let found = self.find_checkpoint().await?;
        if found == upto || found == Some(to) {
            return Ok(());
        }
        if position_of(found.as_ref()) >= position_of(upto.as_ref()) {
            return Step::new(upto, to, 0).check(&self.name, found.as_ref()).map_err(RunError::from);
        }
        self.tell(RunningState::CatchingUp);
        self.model.start(&self.name).await?;
        self.find_checkpoint().await?;
        let Some(upto) = upto else { return Ok(()) };
        let wanted = self.wanted.clone().before(upto.position.next());
        let mut watch = self.store.all().watch().after(position_of(self.checkpoint.as_ref())).filter(wanted).await?;
        while position_of(self.checkpoint.as_ref()) < upto.position {
            let Some(stretch) = watch.next_stretch().await else { break };
            let Decoded { events, unreadable, mark, .. } = Decoded::<P::Event>::of(stretch?, &self.panicked);
            let Some(mark) = mark else { continue };
            let to = if mark.position < upto.position { Checkpoint::new(self.store.id(), mark) } else { upto };
            if let Some(error) = unreadable {
                return Err(error.into());
            }
            let all = 0..events.len();
            self.step(&Arc::new(events), all, to).await?;
            self.tell(RunningState::CatchingUp);
        }
        Ok(())
    }

    /// Reads the checkpoint from the model and trusts it.
    async fn find_checkpoint(&mut self) -> Result<Option<Checkpoint>, RunError> {
        let name = self.name.clone();
        let found =
            self.model.transact(move |tx: &mut <P::Model as ReadModel>::Tx<'_>| P::Model::checkpoint(tx, &name));
        let found = found.await?;
        if found != self.checkpoint {
            (self.checkpoint, self.seen, self.unwritten) = (found, found, None);
        }
        Ok(found)
    }
}

/// Checks that the event at the checkpoint is still the same.
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

fn position_of(checkpoint: Option<&Checkpoint>) -> Position {
    checkpoint.map_or(Position::ZERO, |at| at.position)
}

fn no_panic(panicked: &PanickedDrop) -> Result<(), RunError> {
    panicked.get().map_or(Ok(()), |message| Err(RunError::panicked(message.clone())))
}

/// Returns the first of two errors; the second is logged.
fn first(one: Result<(), RunError>, other: Result<(), RunError>) -> Result<(), RunError> {
    match (one, other) {
        (Err(one), Err(other)) => {
            log(&other, "after a projection had failed");
            Err(one)
        }
        (Ok(()), other) => other,
        (one, Ok(())) => one,
    }
}

/// Logs an error; formatting it may run user code.
fn log(error: &RunError, what: &'static str) {
    if panics::catch(|| warn!(error = error as &dyn std::error::Error, "{what}")).is_err() {
        warn!("{what}; the text of the error panicked");
    }
}
