//! The one runner of all projections.

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

/// How long a checkpoint may stay behind what was looked at, while the log goes on without an event for the projector.
const UNWRITTEN: Duration = Duration::from_secs(5);

/// A projection that has begun.
pub(super) struct Run<P: Projector> {
    store: Store,
    name: ProjectionName,
    projector: Arc<P>,
    model: P::Model,
    wanted: Filter,
    status: watch::Sender<Status>,
    /// Where the model is.
    checkpoint: Option<Checkpoint>,
    /// How far the log was looked at: at the checkpoint, or ahead of it by events that the projector does not want.
    seen: Option<Checkpoint>,
    /// Since when it is ahead.
    unwritten: Option<Instant>,
    panicked: PanickedDrop,
}

impl<P: Projector> Run<P> {
    /// Makes the model ready and finds the checkpoint.
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

    /// Runs until it is stopped or fails, and tells how it ended.
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
                    // A handle that was dropped stops the projection too.
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

    /// Deals with what is in the log now.
    pub(super) async fn until_head(mut self, mut feed: Feed<P::Event>) -> (Position, Result<(), RunError>) {
        let outcome = panics::catch_async(async {
            let head = match self.store.engine().read(Read { events: 0, ..Read::new(StreamId::all()) }).await {
                Ok(page) => page.head,
                // The feed meets the damage, after what lies before it.
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

    /// Writes what is not written, lets go of everything that users gave, and returns the position reached with the first
    /// error of all.
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

    /// Changes the model by the events of a stretch. If one of them cannot be dealt with, those before it are all the same,
    /// so that the checkpoint stands right before it.
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

    /// Takes note that there is nothing for the projector up to here. See `Projection` on when that is written.
    async fn pass_over(&mut self, to: Checkpoint) -> Result<(), RunError> {
        self.seen = Some(to);
        let since = *self.unwritten.get_or_insert_with(Instant::now);
        if since.elapsed() < UNWRITTEN { Ok(()) } else { self.write_checkpoint().await }
    }

    /// Moves the model's checkpoint to where the log was looked at.
    async fn write_checkpoint(&mut self) -> Result<(), RunError> {
        match self.seen {
            Some(to) if self.seen != self.checkpoint => {
                let none = Arc::new(Events::none());
                self.step(&none, 0..0, to).await
            }
            _ => Ok(()),
        }
    }

    /// Changes the model by these events, in one transaction if that can be.
    async fn apply(&mut self, events: &Arc<Events<P::Event>>, to: Checkpoint) -> Result<(), RunError> {
        let Err(error) = self.step(events, 0..events.len(), to).await else { return Ok(()) };
        let culprit = match &error {
            RunError::Model(ModelError::TakenOver { .. }) => {
                // Nothing more is tried.
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
            // It was committed all the same.
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
            // One of those before is the first that cannot be dealt with.
            Err(RunError::Model(ModelError::CommitRefused { source })) => {
                Err(self.narrow_down(events, good, source).await)
            }
            Err(another) => Err(another),
        }
    }

    /// Commits the longest row of the first `all` events that can be committed, which all of them cannot, and blames the
    /// event after it.
    ///
    /// If a row cannot be committed, a longer one may be: for that a foreign key is deferred. So where halves have led to one
    /// event that cannot be committed alone, the rows that begin with it are tried up to the end.
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

    /// Like [`Self::step_before`]; returns why the transaction could not be committed.
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

    /// One transaction of some of the events, with the checkpoint at the last of them.
    async fn step_before(&mut self, events: &Arc<Events<P::Event>>, range: Range<usize>) -> Result<(), RunError> {
        let Some(last) = events.get(range.clone()).and_then(<[_]>::last) else { return Ok(()) };
        let to = Checkpoint::new(self.store.id(), last.mark());
        self.step(events, range, to).await
    }

    /// One transaction: some of the events, and the checkpoint.
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

    /// Finds out where the model is after a transaction failed that would have led to `to`. A model that forgot more than
    /// that transaction is given the events since what it has saved.
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

    /// Believes the model.
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

fn position_of(checkpoint: Option<&Checkpoint>) -> Position {
    checkpoint.map_or(Position::ZERO, |at| at.position)
}

fn no_panic(panicked: &PanickedDrop) -> Result<(), RunError> {
    panicked.get().map_or(Ok(()), |message| Err(RunError::panicked(message.clone())))
}

/// The first error of two; the second goes to the log.
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

/// Logs an error, whose text may be a user's code.
fn log(error: &RunError, what: &'static str) {
    if panics::catch(|| warn!(error = error as &dyn std::error::Error, "{what}")).is_err() {
        warn!("{what}; the text of the error panicked");
    }
}
