//! Reactors as consumers: events of different keys at the same time, and a checkpoint behind what is finished.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::{Future, pending};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint_cell::CheckpointCell;
use super::effect::{Effect, EffectKey};
use super::in_flight::InFlight;
use crate::consumer::{Begun, Checkpoint, Events, Portion, ReactionError, RunError, Timer, Trouble, Work};
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

    /// Does what was due at this time, some of it at least. What fails is reported and tried again later.
    fn fire(&self, until: Timestamp) -> impl Future<Output = Result<(), Trouble>> + Send {
        let _: Timestamp = until;
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
    pub(super) store: Store,
    name: ProjectionName,
    reacting: Arc<R>,
    in_flight: NonZeroUsize,
    timeout: Option<Duration>,
    timer: Timer,
    checkpoint: CheckpointCell,
    /// The last checkpoint that was written or read.
    at: Option<Checkpoint>,
    /// The time of the last event that was processed.
    time: Timestamp,
    /// Events behind the checkpoint that are finished: they are not tried again with those before them.
    finished: BTreeSet<Position>,
    /// How often events that failed were tried.
    attempts: HashMap<Position, NonZeroU32>,
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
            checkpoint: CheckpointCell::new(store.clone(), name.clone())?,
            store,
            name,
            reacting: Arc::new(reacting),
            in_flight,
            timeout,
            timer: Timer::default(),
            at: None,
            time: Timestamp::from_micros(i64::MIN),
            finished: BTreeSet::new(),
            attempts: HashMap::new(),
        })
    }

    async fn move_checkpoint(&mut self, to: Checkpoint, events: usize) -> Result<(), Trouble> {
        self.checkpoint.move_to(to, events as u64).await?;
        self.at = Some(to);
        self.finished = self.finished.split_off(&to.position.next());
        self.attempts.retain(|position, _| *position > to.position);
        Ok(())
    }

    /// Has the effects of some events, as many at the same time as allowed. Returns how many of them in a row are
    /// finished, and why the next one is not.
    async fn react(&mut self, portion: &Portion<R::Event>) -> Result<(usize, Option<RunError>), Trouble> {
        let (events, range) = (Arc::clone(&portion.events), portion.range.clone());
        let reacting = Arc::clone(&self.reacting);
        let mut lanes = Lanes::default();
        let mut failed = BTreeMap::new();
        let mut outage = None;
        for (index, event) in events.iter().enumerate().take(range.end).skip(range.start) {
            if self.finished.contains(&event.position()) {
                continue;
            }
            match panics::catch(|| reacting.key(event)) {
                Ok(None) => drop(self.finished.insert(event.position())),
                Ok(Some(key)) => lanes.add(key, index),
                // Its key is not known, so whatever follows it may belong to it.
                Err(message) => {
                    let error = ReactionError::Panicked { position: event.position(), message };
                    failed.insert(index, RunError::from(error));
                    break;
                }
            }
        }
        let mut flying = InFlight::new();
        let (mut moved, mut since) = (0, Instant::now());
        loop {
            let stopping = portion.stop.is_set() || outage.is_some();
            while !stopping && flying.len() < self.in_flight.get() {
                let Some(index) = lanes.start() else { break };
                let Some(event) = events.get(index) else { continue };
                let (name, store) = (&self.name, self.store.id());
                let tried = self.attempts.get(&event.position());
                let attempt = tried.map_or(NonZeroU32::MIN, |tried| tried.saturating_add(1));
                let effect = Effect { key: EffectKey::new(name, store, event.position()), attempt };
                let (reacting, timer, timeout) = (Arc::clone(&reacting), self.timer.clone(), self.timeout);
                flying
                    .push(async move { (index, attempt, attempted(&*reacting, event, effect, &timer, timeout).await) });
            }
            let Some((index, attempt, outcome)) = flying.next().await else { break };
            let Some(position) = events.get(index).map(Recorded::position) else { continue };
            match outcome {
                Ok(()) => {
                    self.finished.insert(position);
                    lanes.finish(index);
                }
                Err(Attempt::Event(error)) => {
                    self.attempts.insert(position, attempt);
                    failed.insert(index, error);
                }
                Err(Attempt::Store(error)) => outage = Some(error),
            }
            if since.elapsed() >= UNWRITTEN && flying.len() > 0 {
                let done = self.finished_in_a_row(&events, range.start..range.end);
                if done > moved {
                    self.move_behind(&events, range.start, done, moved).await?;
                    moved = done;
                }
                since = Instant::now();
            }
        }
        drop(flying);
        let done = self.finished_in_a_row(&events, range.clone());
        match outage {
            Some(error) => {
                if done > moved {
                    self.move_behind(&events, range.start, done, moved).await?;
                }
                Err(Trouble::of(error))
            }
            None => Ok((done, failed.remove(&(range.start + done)))),
        }
    }

    fn finished_in_a_row(&self, events: &Events<R::Event>, range: std::ops::Range<usize>) -> usize {
        let events = events.get(range).unwrap_or_default();
        let done = |event: &&Recorded<R::Event>| {
            let at = self.at.map_or(Position::ZERO, |at| at.position);
            event.position() <= at || self.finished.contains(&event.position())
        };
        events.iter().take_while(done).count()
    }

    /// Moves the checkpoint behind the first `done` events, of which it has passed `moved`.
    async fn move_behind(
        &mut self,
        events: &Events<R::Event>,
        start: usize,
        done: usize,
        moved: usize,
    ) -> Result<(), Trouble> {
        let last = events.get(start..start + done).and_then(<[_]>::last);
        let Some(to) = last.map(|event| Checkpoint::new(self.store.id(), event.mark())) else { return Ok(()) };
        self.move_checkpoint(to, done - moved).await
    }
}

impl<R: Reacting> Work for Reactions<R> {
    type Event = R::Event;

    async fn begin(&mut self) -> Result<Begun, Trouble> {
        let record = self.checkpoint.read().await?;
        let found = record.checkpoint();
        if found != self.at {
            // Another owner moved it: what this one has finished says nothing any more.
            self.finished.clear();
            self.attempts.clear();
        }
        self.at = found;
        self.reacting.begin().await.map_err(Trouble::of)?;
        Ok(Begun { record })
    }

    async fn apply(&mut self, portion: Portion<R::Event>) -> Result<(), Trouble> {
        let last = portion.events.get(portion.range.clone()).and_then(<[_]>::last).map(Recorded::time);
        let (done, error) = self.react(&portion).await?;
        if done == portion.range.len() {
            let before = self.at.map_or(Position::ZERO, |at| at.position);
            let written = |event: &&Recorded<R::Event>| event.position() <= before;
            let events = portion.events.get(portion.range.clone()).unwrap_or_default();
            let events = events.len() - events.iter().take_while(written).count();
            self.time = last.unwrap_or(self.time);
            return self.move_checkpoint(portion.to, events).await;
        }
        let before = self.at.map_or(Position::ZERO, |at| at.position);
        let start = portion.range.start;
        let moved = portion.events.get(portion.range.clone()).unwrap_or_default();
        let moved = moved.iter().take_while(|event| event.position() <= before).count();
        if done > moved {
            self.move_behind(&portion.events, start, done, moved).await?;
        }
        let checkpoint = self.at;
        match (error, portion.events.get(start + done)) {
            (Some(error), Some(event)) => Err(Trouble::Event { position: event.position(), checkpoint, error }),
            _ => Err(Trouble::Stopped { checkpoint }),
        }
    }

    async fn settle(&mut self) -> Result<(), RunError> {
        Ok(())
    }

    async fn due(&mut self) {
        self.reacting.due().await;
    }

    fn overdue(&self) -> Option<Timestamp> {
        self.reacting.next_due().filter(|due| *due < self.time).map(|_| self.time)
    }

    async fn fire(&mut self, until: Timestamp) -> Result<(), Trouble> {
        self.reacting.fire(until).await
    }
}

/// Why an attempt failed.
enum Attempt {
    Event(RunError),
    Store(RunError),
}

async fn attempted<R: Reacting>(
    reacting: &R,
    event: &Recorded<R::Event>,
    effect: Effect,
    timer: &Timer,
    timeout: Option<Duration>,
) -> Result<(), Attempt> {
    let position = event.position();
    let reaction = panics::catch_async(async { reacting.react(event, &effect).await });
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
