//! From one beginning at the checkpoint to the next: stretches of the log, and what becomes of their events.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Checkpoint;
use super::error::{ModelError, RunError};
use super::feed::{Decoded, Events, Feed, Unreadable};
use super::parked::{ParkedEvent, ParkedFailure};
use super::policy::Then;
use super::run::{Failing, Leave, Run, no_panic};
use super::status::ConsumerState;
use super::work::{Portion, Trouble, Work, Write, position_of};
use crate::domain::{Envelope, Recorded};
use crate::log::{Mark, Position, Timestamp};
use crate::panics;

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
            self.tell(caught_up);
            if caught_up && let Err(left) = self.at_head().await {
                return left;
            }
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
            let end = self.end_of_portion(&events, next, bad);
            let Some(last) = events.get(next..end).and_then(<[_]>::last).map(Recorded::mark) else {
                let Some(bad) = unreadable.next() else { break };
                self.set_aside_unreadable(bad).await?;
                continue;
            };
            if self.is_failing(&events, next)
                && let Some(error) = self.failing.as_mut().and_then(|failing| failing.stop.take())
            {
                self.give_up(&events, next, error).await?;
                next += 1;
                continue;
            }
            let whole = end == events.len() && bad.is_none();
            let to = Checkpoint::new(self.store.id(), mark.filter(|_| whole).unwrap_or(last));
            let portion = self.portion(&events, next..end, to)?;
            next = match self.apply(portion).await? {
                Ok(end) => end,
                Err((position, error)) => {
                    let failed = events.partition_point(|event| event.position() < position);
                    if let Some(error) = self.count_failure(position, error).await? {
                        self.give_up(&events, failed, error).await?;
                        failed + 1
                    } else {
                        failed
                    }
                }
            };
        }
        if let Some(mark) = mark.filter(|mark| mark.position > position_of(self.seen.as_ref())) {
            self.pass_over(Checkpoint::new(self.store.id(), mark)).await?;
        }
        no_panic(&self.panicked).map_err(Leave::Final)
    }

    /// Where the portion ends that starts with the event with index `next`: before an event that cannot be decoded, and
    /// before and after one that failed.
    fn end_of_portion(&self, events: &Events<W::Event>, next: usize, bad: Option<Position>) -> usize {
        let index = |position| events.partition_point(|event| event.position() < position);
        let end = bad.map_or(events.len(), index);
        match self.failing.as_ref().map(|failing| index(failing.position)) {
            Some(failing) if failing > next => failing.min(end),
            Some(failing) if failing == next && self.is_failing(events, next) => (failing + 1).min(end),
            _ => end,
        }
    }

    fn is_failing(&self, events: &Events<W::Event>, index: usize) -> bool {
        let failing = self.failing.as_ref().map(|failing| failing.position);
        failing.is_some() && failing == events.get(index).map(Recorded::position)
    }

    /// A portion of these events: those with a parked key are parked, too.
    fn portion(
        &self,
        events: &Arc<Events<W::Event>>,
        range: Range<usize>,
        to: Checkpoint,
    ) -> Result<Portion<W::Event>, Leave> {
        let mut portion =
            Portion { events: Arc::clone(events), range, ..Portion::checkpoint(self.checkpoint, Some(to)) };
        if self.parking.is_empty() {
            return Ok(portion);
        }
        let now = self.store.now();
        for (index, event) in events.iter().enumerate().take(portion.range.end).skip(portion.range.start) {
            if self.work.passes_over(event.position()) {
                continue;
            }
            let key = self.key_of_event(event)?;
            if !self.parking.holds(&key) {
                continue;
            }
            if self.parking.len() + portion.skip.len() >= self.policy.parked {
                if index == portion.range.start {
                    return Err(Leave::Final(self.too_many_parked(event.position())));
                }
                // What comes before it is applied first.
                let before = events.get(index - 1).map(|event| Checkpoint::new(self.store.id(), event.mark()));
                (portion.range.end, portion.to) = (index, before);
                break;
            }
            let parked = ParkedEvent::new(key, event.mark(), None, now);
            portion.writes.push(parked.written());
            portion.skip.push(index);
        }
        Ok(portion)
    }

    fn key_of_event(&self, event: &Recorded<W::Event>) -> Result<String, Leave> {
        let key =
            panics::catch(|| self.work.key(event)).map_err(|message| Leave::Final(RunError::panicked(message)))?;
        key.map_or_else(|| self.key_of(event.envelope()), Ok)
    }

    fn key_of(&self, event: Envelope<'_>) -> Result<String, Leave> {
        panics::catch(|| self.policy.key(event)).map_err(|message| Leave::Final(RunError::panicked(message)))
    }

    fn too_many_parked(&self, position: Position) -> RunError {
        RunError::TooManyParked { name: self.name.clone(), limit: self.policy.parked, position }
    }

    /// Parks an event that cannot be decoded, or stops.
    async fn set_aside_unreadable(&mut self, bad: Unreadable) -> Result<(), Leave> {
        let Unreadable { stored, error } = bad;
        let mark = Mark { position: stored.position, checksum: stored.checksum };
        let is_ours = panics::catch(|| self.work.has(Envelope::of(&stored)));
        let is_ours = is_ours.map_err(|message| Leave::Final(RunError::panicked(message)))?;
        if mark.position <= position_of(self.checkpoint.as_ref()) || !is_ours {
            return Ok(());
        }
        let error = RunError::from(error);
        let failure = self.note_failure(&error, Some(mark.position), 1);
        let key = self.key_of(Envelope::of(&stored))?;
        if self.policy.then == Then::Stop && !self.parking.holds(&key) {
            return Err(Leave::Final(error));
        }
        self.park(key, mark, Some(ParkedFailure::of(&failure, failure.time))).await
    }

    /// Parks an event that still fails after the last attempt, or stops.
    async fn give_up(&mut self, events: &Events<W::Event>, index: usize, error: RunError) -> Result<(), Leave> {
        let Some(event) = events.get(index).filter(|_| self.policy.then == Then::Park) else {
            return Err(Leave::Final(error));
        };
        let key = self.key_of_event(event)?;
        let failure = self.failing.as_ref().map(|failing| ParkedFailure::of(&failing.failure, failing.first));
        self.park(key, event.mark(), failure).await
    }

    async fn park(&mut self, key: String, mark: Mark, failure: Option<ParkedFailure>) -> Result<(), Leave> {
        if self.parking.len() >= self.policy.parked {
            return Err(Leave::Final(self.too_many_parked(mark.position)));
        }
        let parked = ParkedEvent::new(key, mark, failure, self.store.now());
        let mut portion = Portion::checkpoint(self.checkpoint, Some(Checkpoint::new(self.store.id(), mark)));
        portion.writes.push(parked.written());
        self.step(portion).await?;
        Ok(())
    }

    /// Applies a portion, and returns the index behind it. The inner error names an event that cannot be processed:
    /// everything before it is applied.
    async fn apply(&mut self, portion: Portion<W::Event>) -> Result<Result<usize, (Position, RunError)>, Leave> {
        let (end, count) = (portion.range.end, self.work.count(&portion));
        let last = portion.events.get(portion.range.clone()).and_then(<[_]>::last).map(Recorded::time);
        match self.step_observed(portion, count).await {
            Ok(()) => {
                let age = last.map_or(Duration::ZERO, |last| self.store.now().since(last));
                self.report.batch(count, age);
                Ok(Ok(end))
            }
            Err(Trouble::Event { position, error, .. }) => Ok(Err((position, error))),
            Err(Trouble::Behind { culprit: Some((position, error)) }) => {
                if let Some(error) = self.count_failure(position, error).await?
                    && let Some(failing) = &mut self.failing
                {
                    // Its model must be brought back to right before the event first.
                    failing.stop = Some(error);
                }
                Err(Leave::Again)
            }
            Err(trouble) => {
                if matches!(&trouble, Trouble::Final(RunError::Model(ModelError::TakenOver { .. }))) {
                    // Do not try anything else.
                    self.seen = self.checkpoint;
                    if self.contender.is_some() {
                        // Whoever it was, the lease says who goes on.
                        return Err(Leave::Again);
                    }
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

    /// Counts a failed attempt of an event. Either waits until the next, or returns the error if there is none.
    async fn count_failure(&mut self, position: Position, error: RunError) -> Result<Option<RunError>, Leave> {
        let before = self.failing.take().filter(|failing| failing.position == position);
        let attempts = before.as_ref().map_or(0, |failing| failing.attempts) + 1;
        let failure = self.note_failure(&error, Some(position), attempts);
        let first = before.map_or(failure.time, |failing| failing.first);
        self.failing = Some(Failing { position, attempts, first, failure, stop: None });
        let backoff = self.policy.backoff(error.category());
        if attempts >= backoff.attempts.get() {
            return Ok(Some(error));
        }
        if self.rebuilding {
            self.report.enter(ConsumerState::Retrying);
        } else {
            self.report.moved(position_of(self.checkpoint.as_ref()), self.store.head(), ConsumerState::Retrying);
        }
        let pause = self.jitter.pause(&backoff, attempts);
        self.pause(pause).await?;
        Ok(None)
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
            Some(to) if self.seen != self.checkpoint => self.step(Portion::checkpoint(self.checkpoint, Some(to))).await,
            _ => Ok(()),
        }
    }

    /// Runs one portion, and takes over what it wrote.
    pub(super) async fn step(&mut self, portion: Portion<W::Event>) -> Result<(), Trouble> {
        let (to, writes) = (portion.to, portion.writes.clone());
        let done = self.work.apply(portion).await;
        match &done {
            Ok(()) | Err(Trouble::Afterwards(_)) => self.reached(to, &writes),
            Err(Trouble::Event { checkpoint, .. } | Trouble::Stopped { checkpoint }) => {
                self.reached(*checkpoint, &writes);
            }
            Err(_) => {}
        }
        done
    }

    /// The checkpoint is now here, and the records up to it are written.
    fn reached(&mut self, checkpoint: Option<Checkpoint>, writes: &[Write]) {
        let moved = self.checkpoint != checkpoint;
        self.checkpoint = checkpoint;
        let position = position_of(checkpoint.as_ref());
        if position_of(self.seen.as_ref()) <= position {
            (self.seen, self.unwritten) = (checkpoint, None);
        }
        if moved && self.failing.as_ref().is_some_and(|failing| failing.position <= position) {
            self.failing = None;
        }
        if !writes.is_empty() {
            let before = self.parking.len();
            for write in writes.iter().filter(|write| write.at <= position) {
                self.parking.written(write);
            }
            self.report.parked(self.parking.len());
            self.tell_parked(before);
        }
    }
}
