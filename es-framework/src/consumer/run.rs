//! The loop of all consumers.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::debug;

use super::checkpoint::Checkpoint;
use super::control::{Control, Interrupt};
use super::error::{ModelError, RunError};
use super::failure::{Failure, text_of};
use super::feed::{Feed, PanickedDrop};
use super::heartbeat::Beside;
use super::lease::Contender;
use super::parked::Parking;
use super::policy::{Jitter, Policy};
use super::report::{Report, log};
use super::start::StartFrom;
use super::status::ConsumerState;
use super::timer::Timer;
use super::work::{AtHead, Portion, Trouble, Work, check_log, checkpoint_at, position_of};
use crate::log::{Filter, Position, ProjectionName, Read, Store, StoreError, StreamId, Timestamp};
use crate::panics;

/// A consumer that runs.
pub(super) struct Run<W: Work> {
    pub(super) store: Store,
    pub(super) name: ProjectionName,
    pub(super) work: W,
    pub(super) wanted: Filter,
    pub(super) policy: Policy,
    pub(super) jitter: Jitter,
    pub(super) timer: Timer,
    pub(super) report: Report,
    pub(super) control: Control,
    /// What it has stored.
    pub(super) checkpoint: Option<Checkpoint>,
    /// How far the log was read: up to the checkpoint, or beyond it by events that the consumer does not handle.
    pub(super) seen: Option<Checkpoint>,
    /// Since when `seen` has been ahead of the checkpoint.
    pub(super) unwritten: Option<Instant>,
    /// The event that could not be processed.
    pub(super) failing: Option<Failing>,
    pub(super) parking: Parking,
    /// Whether something is built anew that nobody can see yet.
    pub(super) rebuilding: bool,
    /// Where a consumer starts that has never run.
    pub(super) start_from: StartFrom,
    /// Wants the lease of its name, if it needs one.
    pub(super) contender: Option<Contender>,
    /// Whether the term of its lease is in the checkpoint.
    pub(super) claimed: bool,
    pub(super) beside: Beside,
    pub(super) panicked: PanickedDrop,
}

/// An event that could not be processed.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) position: Position,
    /// How often it was tried.
    pub(super) attempts: u32,
    /// When it failed first, and how it failed last.
    pub(super) first: Timestamp,
    pub(super) failure: Failure,
    /// That it will not be tried again: once everything before it is applied, the consumer stops or parks it.
    pub(super) stop: Option<RunError>,
}

/// Why a session is over.
#[derive(Debug)]
pub(super) enum Leave {
    /// It was told to stop.
    Stop,
    /// There is a command to carry out.
    Command,
    /// It must begin again from the checkpoint.
    Again,
    /// Another holds its lease.
    StandBy,
    /// What it writes to, or the log, is out of order.
    Down(RunError),
    /// It cannot continue.
    Final(RunError),
}

/// What is left of a run that has ended.
struct Ended {
    position: Position,
    outcome: Result<(), RunError>,
    report: Report,
    beside: Beside,
}

impl From<Interrupt> for Leave {
    fn from(interrupt: Interrupt) -> Self {
        match interrupt {
            Interrupt::Stop => Self::Stop,
            Interrupt::Command => Self::Command,
            Interrupt::Lost => Self::StandBy,
            Interrupt::Closed => Self::Final(StoreError::Closed.into()),
        }
    }
}

impl From<RunError> for Leave {
    fn from(error: RunError) -> Self {
        if error.may_pass() { Self::Down(error) } else { Self::Final(error) }
    }
}

impl From<StoreError> for Leave {
    fn from(error: StoreError) -> Self {
        RunError::from(error).into()
    }
}

impl From<Trouble> for Leave {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Down(error) | Trouble::Later { error, .. } => Self::Down(error),
            Trouble::Final(error) | Trouble::Afterwards(error) | Trouble::Event { error, .. } => Self::Final(error),
            Trouble::Behind { culprit: Some(_) } => Self::Again,
            // It may happen over and over.
            Trouble::Behind { culprit: None } => Self::Down(RunError::behind()),
            Trouble::Fenced(_) => Self::StandBy,
            Trouble::Stopped { .. } => Self::Stop,
        }
    }
}

impl<W: Work> Run<W> {
    /// Prepares everything, finds the checkpoint and opens the feed behind it.
    pub(super) async fn begin(&mut self) -> Result<Feed<W::Event>, Leave> {
        self.find_checkpoint().await?;
        if let Some(checkpoint) = &self.checkpoint {
            check_log(&self.store, &self.name, checkpoint).await?;
        }
        let after = position_of(self.checkpoint.as_ref());
        let watch = self.store.all().watch().after(after).filter(self.wanted.clone()).await?;
        debug!(name = self.name.as_str(), after = after.get(), "consumer begins");
        let feed = Feed::new(watch, Arc::clone(&self.panicked));
        self.tell(false);
        Ok(feed)
    }

    /// Gets the lease, if one is needed and not held.
    async fn own(&mut self) -> Result<(), Leave> {
        let Some(contender) = &mut self.contender else { return Ok(()) };
        if self.control.term.is_some() {
            return Ok(());
        }
        let Some(held) = contender.acquire(&self.store).await? else { return Err(Leave::StandBy) };
        debug!(name = self.name.as_str(), term = held.term, "a consumer has its lease");
        self.control.term = Some(held.term);
        self.report.lease(Some((Arc::clone(&held.owner), held.term)));
        self.beside.holding.send_replace(Some(held));
        Ok(())
    }

    /// The next term must be above this one.
    fn fenced(&mut self, term: u64) -> Leave {
        if let Some(contender) = &mut self.contender {
            contender.exceed(term);
        }
        Leave::StandBy
    }

    fn disown(&mut self) {
        self.claimed = false;
        self.control.term = None;
        self.report.lease(None);
        self.beside.holding.send_replace(None);
    }

    /// Prepares everything, and finds the checkpoint and what is parked.
    pub(super) async fn find_checkpoint(&mut self) -> Result<(), Leave> {
        self.own().await?;
        let begun = match self.work.begin(self.control.term).await {
            Err(Trouble::Fenced(term)) => return Err(self.fenced(term)),
            begun => begun?,
        };
        if let Some(term) = self.control.term.filter(|_| !self.claimed) {
            // If the lease was removed, its terms begin anew: another owner may have had this one.
            if begun.record.is_some_and(|record| record.term >= term) {
                return Err(self.fenced(term));
            }
            self.claimed = true;
        }
        let acknowledged = begun.acknowledged.and_then(|token| String::from_utf8(token.into()).ok());
        self.report.found(acknowledged);
        self.checkpoint = begun.record.and_then(|record| record.checkpoint());
        self.rebuilding = begun.rebuilding;
        (self.seen, self.unwritten) = (self.checkpoint, None);
        self.parking = Parking::of(begun.parked).map_err(RunError::from)?;
        self.report.parked(self.parking.len());
        if begun.record.is_none()
            && let Some(position) = self.start_from.position(&self.store).await?
        {
            let head = self.store.engine().read(Read { events: 0, ..Read::new(StreamId::all()) }).await?.head;
            let head = Position::new(head);
            if position > head {
                let name = self.name.clone();
                return Err(Leave::Final(RunError::StartsBeyondHead { name, position, head }));
            }
            let to = checkpoint_at(&self.store, position).await?;
            self.step(Portion::checkpoint(None, to)).await?;
        }
        Ok(())
    }

    /// Runs until it is stopped or fails, and reports how it ended.
    pub(super) async fn until_stopped(mut self, begun: Result<Feed<W::Event>, Leave>) {
        let outcome = panics::catch_async(self.live(begun)).await;
        let outcome = outcome.unwrap_or_else(|message| Err(RunError::panicked(message)));
        let (timer, ended) = (self.timer.clone(), self.end(outcome).await);
        let Ended { position, outcome, report, beside } = ended;
        let last = report.last(position, outcome);
        beside.finish(last.clone(), &timer).await;
        report.ended(last);
    }

    async fn live(&mut self, mut begun: Result<Feed<W::Event>, Leave>) -> Result<(), RunError> {
        let mut outages = 0;
        loop {
            let left = match begun {
                Ok(feed) => self.session(feed, &mut outages).await,
                Err(left) => left,
            };
            match left {
                Leave::Stop => return Ok(()),
                Leave::Final(error) => return Err(error),
                Leave::Again => {}
                Leave::Command => self.carry_out().await,
                Leave::StandBy => {
                    self.disown();
                    self.report.enter(ConsumerState::StandingBy);
                    let looks = self.contender.as_ref().map_or(Duration::ZERO, Contender::looks);
                    match self.pause(looks).await {
                        Ok(()) | Err(Interrupt::Lost) => {}
                        Err(Interrupt::Command) => self.carry_out().await,
                        Err(Interrupt::Stop) => return Ok(()),
                        Err(Interrupt::Closed) => return Err(StoreError::Closed.into()),
                    }
                }
                Leave::Down(error) => {
                    outages += 1;
                    self.note_failure(&error, None, outages);
                    self.report.enter(ConsumerState::Waiting);
                    let pause = self.jitter.pause(&self.policy.outage, outages);
                    match self.pause(pause).await {
                        Ok(()) => {}
                        Err(Interrupt::Stop) => return Ok(()),
                        Err(Interrupt::Command) => self.carry_out().await,
                        Err(Interrupt::Closed) => return Err(StoreError::Closed.into()),
                        Err(Interrupt::Lost) => self.disown(),
                    }
                }
            }
            if self.report.state() == ConsumerState::Paused {
                begun = Err(match self.control.interrupted().await {
                    Interrupt::Lost => {
                        self.disown();
                        Leave::Again
                    }
                    interrupt => interrupt.into(),
                });
                continue;
            }
            begun = self.begin().await;
        }
    }

    /// Processes what is in the log now.
    pub(super) async fn until_head(mut self) -> (Position, Result<(), RunError>) {
        let outcome = panics::catch_async(self.through_head()).await;
        let outcome = outcome.unwrap_or_else(|message| Err(RunError::panicked(message)));
        let Ended { position, outcome, .. } = self.end(outcome).await;
        (position, outcome)
    }

    async fn through_head(&mut self) -> Result<(), RunError> {
        loop {
            let left = match self.begin().await {
                Ok(feed) => match self.through_stretches(feed).await {
                    Ok(()) => return Ok(()),
                    Err(left) => left,
                },
                Err(left) => left,
            };
            match left {
                Leave::Stop | Leave::Command | Leave::StandBy => return Ok(()),
                Leave::Final(error) | Leave::Down(error) => return Err(error),
                Leave::Again => {}
            }
        }
    }

    async fn through_stretches(&mut self, mut feed: Feed<W::Event>) -> Result<(), Leave> {
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
        self.fire(self.store.now()).await?;
        self.at_head().await
    }

    /// Reports how far it has got.
    pub(super) fn tell(&self, caught_up: bool) {
        let position = position_of(self.seen.as_ref());
        match (self.rebuilding, caught_up) {
            (true, _) => self.report.rebuilt(position, self.store.head()),
            (false, true) => self.report.moved(position, self.store.head(), ConsumerState::Live),
            (false, false) => self.report.moved(position, self.store.head(), ConsumerState::CatchingUp),
        }
    }

    /// Everything that was in the log is applied.
    pub(super) async fn at_head(&mut self) -> Result<(), Leave> {
        if !self.rebuilding {
            return Ok(());
        }
        self.write_checkpoint().await?;
        match self.work.at_head().await? {
            AtHead::Stay => Ok(()),
            AtHead::Again => Err(Leave::Again),
            AtHead::Done => {
                self.rebuilding = false;
                Err(Leave::Stop)
            }
        }
    }

    /// Writes what is still unwritten, drops everything that belongs to the user, and returns the position reached and
    /// the first of all errors.
    async fn end(mut self, outcome: Result<(), RunError>) -> Ended {
        // What was passed over while the read model is out of order costs reading it again.
        let writes = !matches!(self.report.state(), ConsumerState::Waiting | ConsumerState::StandingBy);
        self.report.enter(ConsumerState::Stopping);
        let settled = panics::catch_async(async {
            let written = if writes { self.write_checkpoint().await.map_err(Leave::from) } else { Ok(()) };
            let written = written.or_else(|left| match left {
                // Another has the lease now.
                Leave::Final(RunError::Model(ModelError::TakenOver { .. })) if self.contender.is_some() => Ok(()),
                Leave::Down(error) | Leave::Final(error) => Err(error),
                Leave::Stop | Leave::Command | Leave::Again | Leave::StandBy => Err(RunError::behind()),
            });
            first(written, self.work.settle().await)
        });
        let settled = settled.await.unwrap_or_else(|message| Err(RunError::panicked(message)));
        let position = if self.rebuilding { self.report.position() } else { position_of(self.checkpoint.as_ref()) };
        let Self { work, failing, panicked, report, beside, .. } = self;
        let dropped = [panics::catch(|| drop(work)), panics::catch(|| drop(failing))];
        let dropped = dropped.into_iter().collect::<Result<(), _>>().map_err(RunError::panicked);
        let outcome = first(first(first(outcome, settled), no_panic(&panicked)), dropped);
        Ended { position, outcome, report, beside }
    }

    /// Waits, unless there is something else to do.
    pub(super) async fn pause(&mut self, pause: Duration) -> Result<(), Interrupt> {
        tokio::select! {
            biased;
            interrupt = self.control.interrupted() => Err(interrupt),
            () = self.timer.at(Instant::now().checked_add(pause)) => Ok(()),
        }
    }

    pub(super) fn note_failure(&self, error: &RunError, position: Option<Position>, attempts: u32) -> Failure {
        let (category, error, time) = (error.category(), text_of(error).into(), self.store.now());
        let failure = Failure { category, error, position, attempts, time };
        self.tell_failed(category);
        self.report.failed(failure.clone());
        failure
    }
}

pub(super) fn panicked_drop() -> PanickedDrop {
    Arc::new(OnceLock::new())
}

pub(super) fn no_panic(panicked: &PanickedDrop) -> Result<(), RunError> {
    panicked.get().map_or(Ok(()), |message| Err(RunError::panicked(message.clone())))
}

/// Returns the first of two errors; the second is logged.
fn first(one: Result<(), RunError>, other: Result<(), RunError>) -> Result<(), RunError> {
    match (one, other) {
        (Err(one), Err(other)) => {
            log(&other, "after a consumer had failed");
            Err(one)
        }
        (Ok(()), other) => other,
        (one, Ok(())) => one,
    }
}
