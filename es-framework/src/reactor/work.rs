//! Reactors as consumers: events of different keys at the same time, and a checkpoint behind what is finished.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::{Future, pending};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::effect::{Effect, EffectKey};
use super::in_flight::InFlight;
use super::records::Records;
use crate::consumer::{
    Begun, Checkpoint, DROPPED, PARKED, Portion, ReactionError, RunError, StopSignal, Timer, Trouble, Work, Write,
    checkpoint_at, position_of,
};
use crate::domain::{Event, Recorded};
use crate::log::{BoxError, Position, ProjectionName, Store, Timestamp};
use crate::panics;

/// How long finished effects may be ahead of the checkpoint while others of the same stretch are under way. If the
/// process is killed, the effects of this time are tried again.
const UNWRITTEN: Duration = Duration::from_secs(1);

/// What happens for each event: the reactor of a user, or the steps of a process manager.
pub(crate) trait Reacting: Send + Sync + 'static {
    type Event: Event;

    /// What the event belongs to; [`None`] if there is nothing to do. Runs user code, which may panic.
    fn key(&self, event: &Recorded<Self::Event>) -> Option<String>;

    fn react(&self, event: &Recorded<Self::Event>, effect: &Effect)
    -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Called before the first event, and after an outage.
    fn begin(&self) -> impl Future<Output = Result<(), RunError>> + Send {
        async { Ok(()) }
    }

    /// When there is something to do that is no event.
    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    /// Waits until then.
    fn due(&self) -> impl Future<Output = ()> + Send {
        pending()
    }

    /// Does what was due at this time, until it is told to stop. What fails is reported and tried again later.
    fn fire(&self, until: Timestamp, stop: Option<&StopSignal>) -> impl Future<Output = Result<(), Trouble>> + Send {
        let _: (Timestamp, Option<&StopSignal>) = (until, stop);
        async { Ok(()) }
    }
}

/// Why there was no effect.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Because of the event, or of the code that handles it.
    Event(BoxError),
    /// Because of the store.
    Store(RunError),
}

/// A reactor, as the loop of all consumers runs it.
#[derive(Debug)]
pub(crate) struct Reactions<R> {
    store: Store,
    name: ProjectionName,
    reacting: Arc<R>,
    in_flight: NonZeroUsize,
    timeout: Option<Duration>,
    /// Where to have effects again, until that was done.
    repeat_after: Option<Position>,
    timer: Timer,
    stop: Option<StopSignal>,
    records: Records,
    /// The checkpoint that was written or read last.
    at: Option<Checkpoint>,
    /// The time of the last event that was processed.
    time: Timestamp,
    /// Events behind the checkpoint that are finished: they are not tried again with those before them. Stored when the
    /// checkpoint moves and at the end.
    finished: BTreeSet<Position>,
    /// How often events that failed were tried.
    attempts: HashMap<Position, NonZeroU32>,
}

/// How far a portion has got.
struct Progress<'p, E> {
    portion: &'p Portion<E>,
    /// A parked event is tried again: it is before the checkpoint.
    retry: bool,
    /// Whether the events are finished, in the order of the portion.
    finished: Vec<bool>,
    /// How many of them the checkpoint is behind.
    written: usize,
}

impl<E> Progress<'_, E> {
    /// How many events in a row are finished.
    fn in_a_row(&self) -> usize {
        self.finished.iter().take_while(|finished| **finished).count()
    }

    fn finish(&mut self, index: usize) {
        let place = index.checked_sub(self.portion.range.start).and_then(|place| self.finished.get_mut(place));
        if let Some(place) = place {
            *place = true;
        }
    }

    /// The position of the last event that the checkpoint is behind.
    fn written_up_to(&self) -> Position {
        let last =
            self.written.checked_sub(1).and_then(|last| self.portion.events.get(self.portion.range.start + last));
        last.map_or(Position::ZERO, Recorded::position)
    }
}

impl<R: Reacting> Reactions<R> {
    pub(crate) fn new(
        store: Store,
        name: ProjectionName,
        reacting: R,
        in_flight: NonZeroUsize,
        timeout: Option<Duration>,
    ) -> Result<Self, RunError> {
        Ok(Self {
            records: Records::new(store.clone(), name.clone())?,
            store,
            name,
            reacting: Arc::new(reacting),
            in_flight,
            timeout,
            repeat_after: None,
            timer: Timer::shared(),
            stop: None,
            at: None,
            time: Timestamp::from_micros(i64::MIN),
            finished: BTreeSet::new(),
            attempts: HashMap::new(),
        })
    }

    /// Has the effects after this position once more.
    pub(super) fn repeat_after(mut self, position: Option<Position>) -> Self {
        self.repeat_after = position;
        self
    }

    /// Has the effects of some events, as many at the same time as allowed. Returns why one of them has failed, by index.
    async fn react(&mut self, progress: &mut Progress<'_, R::Event>) -> Result<BTreeMap<usize, RunError>, Trouble> {
        let (portion, reacting) = (progress.portion, Arc::clone(&self.reacting));
        let mut lanes = Lanes::default();
        let mut failed = BTreeMap::new();
        for (index, event) in portion.events.iter().enumerate().take(portion.range.end).skip(portion.range.start) {
            let position = event.position();
            let had = position <= self.records.mark && !progress.retry;
            if had || !portion.applies(index) || self.finished.contains(&position) {
                progress.finish(index);
                continue;
            }
            match panics::catch(|| reacting.key(event)) {
                Ok(None) => progress.finish(index),
                Ok(Some(key)) => lanes.add(key, index),
                // Its key is not known, so whatever follows it may belong to it.
                Err(message) => {
                    failed.insert(index, ReactionError::Panicked { position, message }.into());
                    break;
                }
            }
        }
        let mut flying = InFlight::new();
        let mut outage = None;
        let mut since = Instant::now();
        loop {
            let stopping = outage.is_some() || self.stop.as_ref().is_some_and(StopSignal::is_set);
            while !stopping && flying.len() < self.in_flight.get() {
                let Some(index) = lanes.start() else { break };
                let Some(event) = portion.events.get(index) else { continue };
                let tried = self.attempts.get(&event.position());
                let attempt = tried.map_or(NonZeroU32::MIN, |tried| tried.saturating_add(1));
                let effect = Effect { key: EffectKey::new(&self.name, self.store.id(), event.position()), attempt };
                let (reacting, timer, timeout) = (Arc::clone(&reacting), self.timer.clone(), self.timeout);
                flying.push(async move { (index, attempted(&*reacting, event, &effect, &timer, timeout).await) });
            }
            let Some((index, outcome)) = flying.next().await else { break };
            let Some(position) = portion.events.get(index).map(Recorded::position) else { continue };
            match outcome {
                Ok(()) => {
                    self.finished.insert(position);
                    progress.finish(index);
                    lanes.finish(index);
                }
                Err(Attempt::Event(error)) => {
                    self.count_attempt(position);
                    failed.insert(index, error);
                }
                Err(Attempt::Store(error)) => outage = Some(error),
            }
            if since.elapsed() >= UNWRITTEN && flying.len() > 0 && !progress.retry {
                self.move_behind_finished(progress).await?;
                since = Instant::now();
            }
        }
        drop(flying);
        match outage {
            Some(error) => {
                self.move_behind_finished(progress).await?;
                Err(Trouble::of(error))
            }
            None => Ok(failed),
        }
    }

    fn count_attempt(&mut self, position: Position) {
        /// More than this are forgotten: they only tell the reactor how often it has tried.
        const COUNTED: usize = 10_000;
        if self.attempts.len() >= COUNTED {
            self.attempts.clear();
        }
        let attempts = self.attempts.entry(position);
        attempts.and_modify(|tried| *tried = tried.saturating_add(1)).or_insert(NonZeroU32::MIN);
    }

    /// Moves the checkpoint behind the events in a row that are finished.
    async fn move_behind_finished(&mut self, progress: &mut Progress<'_, R::Event>) -> Result<(), Trouble> {
        let (done, start) = (progress.in_a_row(), progress.portion.range.start);
        let last = done.checked_sub(1).and_then(|last| progress.portion.events.get(start + last));
        match last.filter(|_| done > progress.written && !progress.retry) {
            Some(last) => {
                let to = Checkpoint::new(self.store.id(), last.mark());
                self.write(progress, Some(to), done, last.position()).await
            }
            None => Ok(()),
        }
    }

    /// Moves the checkpoint behind `done` events, and writes the records of those up to a position.
    async fn write(
        &mut self,
        progress: &mut Progress<'_, R::Event>,
        to: Option<Checkpoint>,
        done: usize,
        up_to: Position,
    ) -> Result<(), Trouble> {
        let (before, mark) = (progress.written_up_to(), self.records.mark);
        let stays_parked = moves_only(progress.portion);
        let writes = progress.portion.writes.iter().filter(|write| {
            let is_new = write.at == Position::ZERO && progress.written == 0 || write.at > before && write.at <= up_to;
            // What was parked before the reactor was moved back still is, and the rest has had its effect.
            let is_parked_again = write.at > Position::ZERO && write.at <= mark && write.key.starts_with(PARKED);
            is_new && !is_parked_again && !(stays_parked && unparks(write))
        });
        let mut writes = writes.cloned().collect::<Vec<_>>();
        if to.is_none() {
            writes.push(Records::mark_at(mark));
        }
        let events = done.saturating_sub(progress.written) as u64;
        let behind = self.finished.range(position_of(to.as_ref()).next()..).copied().collect();
        // If this fails, what is finished still is, wherever the checkpoint is found then.
        self.records.write_finished(to, events, writes, &behind).await?;
        self.finished = behind;
        progress.written = progress.written.max(done);
        self.at = to;
        Ok(())
    }

    /// Moves the checkpoint back. The effects up to where it was are not repeated.
    async fn move_back(&mut self, portion: &Portion<R::Event>) -> Result<(), Trouble> {
        let mark = self.records.mark.max(position_of(self.at.as_ref()));
        let mut writes = portion.writes.iter().filter(|write| !unparks(write)).cloned().collect::<Vec<_>>();
        writes.push(Records::mark_at(mark));
        self.records.write(portion.to, 0, &writes).await?;
        (self.records.mark, self.at) = (mark, portion.to);
        Ok(())
    }

    /// Moves the checkpoint and the mark back to where effects are to be repeated.
    async fn repeat(&mut self, after: Position, begun: Begun) -> Result<Begun, Trouble> {
        let position = after.min(position_of(self.at.as_ref()));
        let mark = self.records.mark.min(after);
        let to = checkpoint_at(&self.store, position).await.map_err(|error| Trouble::of(error.into()))?;
        let number = |key: &str| key.strip_prefix(PARKED).and_then(|digits| digits.parse::<u64>().ok());
        let met_again = |(key, _): &&(String, bytes::Bytes)| number(key).is_none_or(|number| number > after.get());
        let mut writes: Vec<_> =
            begun.parked.iter().filter(met_again).map(|(key, _)| Write::now(key.clone(), None)).collect();
        writes.push(Records::mark_at(mark));
        self.finished.clear();
        self.records.write_finished(to, 0, writes, &self.finished).await?;
        self.records.read().await
    }
}

impl<R: Reacting> Work for Reactions<R> {
    type Event = R::Event;

    fn stop_by(&mut self, stop: StopSignal) {
        self.stop = Some(stop);
    }

    fn key(&self, event: &Recorded<R::Event>) -> Option<String> {
        self.reacting.key(event)
    }

    fn passes_over(&self, position: Position) -> bool {
        position <= self.records.mark
    }

    async fn begin(&mut self, term: Option<u64>) -> Result<Begun, Trouble> {
        let mut begun = self.records.begin(term).await?;
        let found = begun.record.and_then(|record| record.checkpoint());
        if found != self.at {
            // Another owner moved it: what this one has finished says nothing any more.
            self.finished.clear();
            self.attempts.clear();
        }
        self.at = found;
        self.finished.extend(self.records.finished());
        if let Some(after) = self.repeat_after {
            begun = self.repeat(after, begun).await?;
            self.at = begun.record.and_then(|record| record.checkpoint());
            self.repeat_after = None;
        }
        self.reacting.begin().await.map_err(Trouble::of)?;
        Ok(begun)
    }

    async fn apply(&mut self, portion: Portion<R::Event>) -> Result<(), Trouble> {
        let (from, to) = (position_of(self.at.as_ref()), position_of(portion.to.as_ref()));
        if portion.clear || to < from {
            return self.move_back(&portion).await;
        }
        let events = portion.events.get(portion.range.clone()).unwrap_or_default();
        let last = events.last().map(Recorded::time);
        let retry = portion.to == portion.from && !events.is_empty();
        let finished = vec![false; events.len()];
        let mut progress = Progress { portion: &portion, retry, finished, written: 0 };
        let mut failed = self.react(&mut progress).await?;
        let done = progress.in_a_row();
        if done == progress.finished.len() {
            self.time = last.unwrap_or(self.time);
            return self.write(&mut progress, portion.to, done, Position::new(u64::MAX)).await;
        }
        self.move_behind_finished(&mut progress).await?;
        let (checkpoint, index) = (self.at, portion.range.start + done);
        match (failed.remove(&index), portion.events.get(index)) {
            (Some(error), Some(event)) => Err(Trouble::Event { position: event.position(), checkpoint, error }),
            _ => Err(Trouble::Stopped { checkpoint }),
        }
    }

    async fn settle(&mut self) -> Result<(), RunError> {
        if self.finished != *self.records.finished() {
            // At worst these effects are repeated, under the same keys.
            let written = self.records.write_finished(self.at, 0, Vec::new(), &self.finished).await;
            if let Err(trouble) = written {
                debug!(?trouble, "what is finished behind the checkpoint was not written");
            }
        }
        Ok(())
    }

    async fn due(&mut self) {
        self.reacting.due().await;
    }

    fn overdue(&self) -> Option<Timestamp> {
        self.reacting.next_due().filter(|due| *due < self.time).map(|_| self.time)
    }

    async fn fire(&mut self, until: Timestamp) -> Result<(), Trouble> {
        self.reacting.fire(until, self.stop.as_ref()).await
    }
}

/// Whether a portion only moves the checkpoint. Then no event is unparked: a parked event has not had its effect, and it
/// is passed over if it is met again.
fn moves_only<E>(portion: &Portion<E>) -> bool {
    portion.range.is_empty() && !portion.writes.iter().any(|write| write.key.starts_with(DROPPED))
}

fn unparks(write: &Write) -> bool {
    write.value.is_none() && write.key.starts_with(PARKED)
}

/// Why an attempt failed.
enum Attempt {
    Event(RunError),
    Store(RunError),
}

async fn attempted<R: Reacting>(
    reacting: &R,
    event: &Recorded<R::Event>,
    effect: &Effect,
    timer: &Timer,
    timeout: Option<Duration>,
) -> Result<(), Attempt> {
    let position = event.position();
    let reaction = panics::catch_async(async { reacting.react(event, effect).await });
    let outcome = tokio::select! {
        biased;
        outcome = reaction => Some(outcome),
        () = timer.at(timeout.and_then(|timeout| Instant::now().checked_add(timeout))) => None,
    };
    let error = match (outcome, timeout) {
        (Some(Ok(Ok(()))), _) => return Ok(()),
        (Some(Ok(Err(Refusal::Store(error)))), _) => return Err(Attempt::Store(error)),
        (Some(Ok(Err(Refusal::Event(source)))), _) => ReactionError::Failed { position, source },
        (Some(Err(message)), _) => ReactionError::Panicked { position, message },
        (None, after) => ReactionError::TimedOut { position, after: after.unwrap_or_default() },
    };
    Err(Attempt::Event(error.into()))
}

/// Events by key: at most one of each key is under way.
#[derive(Debug, Default)]
struct Lanes {
    /// The events of each key that wait for the one before them.
    waiting: HashMap<Arc<str>, VecDeque<usize>>,
    /// The first event of each key that is not under way.
    ready: BTreeMap<usize, Arc<str>>,
    under_way: HashMap<usize, Arc<str>>,
}

impl Lanes {
    fn add(&mut self, key: String, index: usize) {
        if let Some(waiting) = self.waiting.get_mut(key.as_str()) {
            waiting.push_back(index);
        } else {
            let key: Arc<str> = key.into();
            self.waiting.insert(Arc::clone(&key), VecDeque::new());
            self.ready.insert(index, key);
        }
    }

    /// The next event to start with.
    fn start(&mut self) -> Option<usize> {
        let (index, key) = self.ready.pop_first()?;
        self.under_way.insert(index, key);
        Some(index)
    }

    /// An event is finished; the next one of its key may start.
    fn finish(&mut self, index: usize) {
        let Some(key) = self.under_way.remove(&index) else { return };
        let next = self.waiting.get_mut(&key).and_then(VecDeque::pop_front);
        if let Some(next) = next {
            self.ready.insert(next, key);
        }
    }
}
