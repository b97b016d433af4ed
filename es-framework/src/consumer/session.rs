//! From one beginning at the checkpoint to the next: stretches of the log, and what becomes of their events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Checkpoint;
use super::control::Interrupt;
use super::error::{ModelError, RunError};
use super::feed::{Decoded, Events, Feed};
use super::policy::Then;
use super::run::{Failing, Leave, Run, no_panic};
use super::status::ConsumerState;
use super::work::{Portion, Trouble, Work, position_of};
use crate::domain::Recorded;
use crate::log::{Mark, Position, Timestamp};

/// How long the checkpoint may lag behind what was read while the log continues without events for the consumer.
const UNWRITTEN: Duration = Duration::from_secs(5);

impl<W: Work> Run<W> {
    /// Processes stretches until something else is to be done.
    pub(super) async fn session(&mut self, mut feed: Feed<W::Event>, outages: &mut u32) -> Leave {
        let mut caught_up = false;
        loop {
            let next = tokio::select! {
                biased;
                interrupt = self.control.interrupted() => return interrupt.into(),
                next = feed.next() => next,
                // Until the log has been read, an event may come that makes it pointless.
                () = self.work.due(), if caught_up => {
                    if let Err(left) = self.fire(self.store.now()).await {
                        return left;
                    }
                    continue;
                }
            };
            let next = match next {
                Some(Ok(next)) => next,
                Some(Err(error)) => return error.into(),
                None => return Leave::Again,
            };
            let state = if next.caught_up { ConsumerState::Live } else { ConsumerState::CatchingUp };
            caught_up = next.caught_up;
            if let Err(left) = feed.meanwhile(self.deal_with(next)).await {
                return left;
            }
            *outages = 0;
            if let Some(until) = self.work.overdue()
                && let Err(left) = self.fire(until).await
            {
                return left;
            }
            self.report.moved(position_of(self.seen.as_ref()), state);
        }
    }

    /// Processes the events of a stretch, in as few portions as possible: an event that failed before is one of its
    /// own.
    pub(super) async fn deal_with(&mut self, decoded: Decoded<W::Event>) -> Result<(), Leave> {
        let Decoded { events, unreadable, mark, .. } = decoded;
        let events = Arc::new(events);
        let mut unreadable = unreadable.into_iter().peekable();
        let mut next = 0;
        loop {
            let bad = unreadable.peek().map(|event| event.stored.position);
            let failing = self.failing.as_ref().map(|failing| failing.position);
            let index = |position: Position| events.partition_point(|event| event.position() < position);
            let before_bad = bad.map_or(events.len(), index);
            let alone = failing.filter(|at| events.get(index(*at)).is_some_and(|event| event.position() == *at));
            let end = match alone.map(index) {
                Some(at) if at == next && at < before_bad => at + 1,
                Some(at) if at > next => at.min(before_bad),
                _ => before_bad,
            };
            if next < end {
                if failing == events.get(next).map(Recorded::position)
                    && let Some(error) = self.failing.as_mut().and_then(|failing| failing.stop.take())
                {
                    return Err(Leave::Final(error));
                }
                let last = events.get(end - 1).map(Recorded::mark);
                let whole = end == events.len() && bad.is_none();
                let Some(mark) = (if whole { mark } else { last }) else { break };
                if let Err((position, error)) = self.apply(&events, next..end, mark).await? {
                    self.count_failure(position, error).await?;
                    next = index(position);
                } else {
                    next = end;
                }
            } else if let Some(event) = unreadable.next() {
                let error = RunError::from(event.error);
                self.note_failure(&error, Some(event.stored.position), 1);
                return Err(Leave::Final(error));
            } else {
                break;
            }
        }
        if let Some(mark) = mark.filter(|mark| mark.position > position_of(self.seen.as_ref())) {
            self.pass_over(Checkpoint::new(self.store.id(), mark)).await?;
        }
        no_panic(&self.panicked).map_err(Leave::Final)
    }

    /// Applies these events in one portion. The inner error names one that cannot be processed: everything before it is
    /// applied.
    async fn apply(
        &mut self,
        events: &Arc<Events<W::Event>>,
        range: std::ops::Range<usize>,
        mark: Mark,
    ) -> Result<Result<(), (Position, RunError)>, Leave> {
        let to = Checkpoint::new(self.store.id(), mark);
        let (events, count) = (Arc::clone(events), range.len());
        let begun = Instant::now();
        match self.step(events, range, to).await {
            Ok(()) => {
                self.report.batch(count, begun.elapsed());
                Ok(Ok(()))
            }
            Err(Trouble::Event { position, checkpoint, error }) => {
                self.reached(checkpoint);
                Ok(Err((position, error)))
            }
            Err(Trouble::Stopped { checkpoint }) => {
                self.reached(checkpoint);
                Err(Leave::Stop)
            }
            Err(Trouble::Behind { culprit: Some((position, error)) }) => {
                match self.count_failure(position, error).await {
                    // Its model must be brought back to right before the event first.
                    Err(Leave::Final(error)) => {
                        if let Some(failing) = &mut self.failing {
                            failing.stop = Some(error);
                        }
                    }
                    other => other?,
                }
                Err(Leave::Again)
            }
            Err(trouble) => {
                if matches!(&trouble, Trouble::Final(RunError::Model(ModelError::TakenOver { .. }))) {
                    // Do not try anything else.
                    self.seen = self.checkpoint;
                }
                Err(trouble.into())
            }
        }
    }

    /// Does what is due that is no event. What fails is reported, and is tried again later as the policy says.
    pub(super) async fn fire(&mut self, until: Timestamp) -> Result<(), Leave> {
        match self.work.fire(until).await {
            Err(Trouble::Later { error, attempts }) => self.try_later(error, attempts),
            Err(trouble) => Err(trouble.into()),
            Ok(()) => Ok(()),
        }
    }

    fn try_later(&mut self, error: RunError, attempts: u32) -> Result<(), Leave> {
        self.note_failure(&error, None, attempts);
        let last = attempts >= self.policy.backoff(error.category()).attempts.get();
        if last && self.policy.then == Then::Stop { Err(Leave::Final(error)) } else { Ok(()) }
    }

    /// Counts a failed attempt of an event, and waits until the next; an error if there is none.
    async fn count_failure(&mut self, position: Position, error: RunError) -> Result<(), Leave> {
        let before = self.failing.take().filter(|failing| failing.position == position);
        let attempts = before.map_or(0, |failing| failing.attempts) + 1;
        self.failing = Some(Failing { position, attempts, stop: None });
        self.note_failure(&error, Some(position), attempts);
        let backoff = self.policy.backoff(error.category());
        if attempts >= backoff.attempts.get() {
            return Err(Leave::Final(error));
        }
        self.report.moved(position_of(self.checkpoint.as_ref()), ConsumerState::Retrying);
        let pause = self.jitter.pause(&backoff, attempts);
        self.pause(pause).await.map_err(|interrupt: Interrupt| interrupt.into())
    }

    /// Notes that there is nothing for the consumer up to here. See `Projection` for when that is written.
    async fn pass_over(&mut self, to: Checkpoint) -> Result<(), Trouble> {
        self.seen = Some(to);
        let since = *self.unwritten.get_or_insert_with(Instant::now);
        if since.elapsed() < UNWRITTEN { Ok(()) } else { self.write_checkpoint().await }
    }

    /// Moves the stored checkpoint to the position up to which the log was read.
    pub(super) async fn write_checkpoint(&mut self) -> Result<(), Trouble> {
        match self.seen {
            Some(to) if self.seen != self.checkpoint => {
                let events = Arc::new(Events::none());
                self.step(events, 0..0, to).await
            }
            _ => Ok(()),
        }
    }

    async fn step(
        &mut self,
        events: Arc<Events<W::Event>>,
        range: std::ops::Range<usize>,
        to: Checkpoint,
    ) -> Result<(), Trouble> {
        let (from, stop) = (self.checkpoint, self.control.stop_signal());
        let done = self.work.apply(Portion { events, range, from, to, stop }).await;
        if matches!(done, Ok(()) | Err(Trouble::Afterwards(_))) {
            self.reached(Some(to));
        }
        done
    }

    /// The checkpoint is now here.
    fn reached(&mut self, checkpoint: Option<Checkpoint>) {
        self.checkpoint = checkpoint;
        if position_of(self.seen.as_ref()) <= position_of(checkpoint.as_ref()) {
            (self.seen, self.unwritten) = (checkpoint, None);
        }
        if self.failing.as_ref().is_some_and(|failing| failing.position <= position_of(checkpoint.as_ref())) {
            self.failing = None;
        }
    }
}
