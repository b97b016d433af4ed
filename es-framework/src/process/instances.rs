//! The instances of a process, one step at a time.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use super::actions::Actions;
use super::command::{Issue, Repositories, Sent};
use super::error::ProcessError;
use super::manager::{Correlation, ProcessManager, Timeout};
use super::rejection::Rejected;
use super::schedule::{Schedule, Scheduled};
use super::step::{Cause, Step, StepRecord, identity_of, key_base, key_text};
use crate::domain::{Envelope, Provenance, Recorded, read_back};
use crate::engine::BoundedMap;
use crate::log::{
    Append, AppendError, Appended, CandidateEvent, CommandKey, Conflict, EventId, ExpectedVersion, Position, Store,
    StoredEvent, StreamId, Timestamp, Version,
};

/// How often a step is tried again because another owner was faster.
const TRIES: u32 = 10;
/// The minimum number of instances of which it is known that their newest step is finished.
const FINISHED: usize = 10_000;

/// The instances of a process.
///
/// A step is written before its commands are executed, and it is finished when they are. Two rules keep commands from
/// being lost or sent twice:
///
/// 1. What is executed is only what a written step says. Whoever finds an unfinished step finishes it, and executes the
///    same commands under the same keys.
/// 2. No step is written on top of one that is not finished.
#[derive(Debug)]
pub(super) struct Instances<P> {
    store: Store,
    pub(super) repositories: Repositories,
    schedule: Schedule,
    /// The newest step of instances that this owner has finished.
    finished: Mutex<BoundedMap<StreamId, Version>>,
    /// When the first of the timeouts is due that were set since this was looked at.
    earliest_set: Mutex<Option<Timestamp>>,
    of: PhantomData<fn() -> P>,
}

/// What a step is about.
pub(super) enum Input<'e, E> {
    Event(&'e Recorded<E>),
    Timeout(&'e Scheduled),
    Rejected(Rejected, Timestamp),
}

/// A step that was written, and its commands.
type Taken<P> = (Step<P>, Vec<Box<dyn Issue>>);

impl<P: ProcessManager> Instances<P> {
    pub(super) fn new(store: Store, schedule: Schedule) -> Self {
        Self {
            repositories: Repositories::new(store.clone()),
            store,
            schedule,
            finished: Mutex::new(BoundedMap::new(FINISHED)),
            earliest_set: Mutex::new(None),
            of: PhantomData,
        }
    }

    /// Handles an event: at most one step, and its commands.
    pub(super) async fn handle(&self, event: &Recorded<P::Event>) -> Result<(), ProcessError> {
        let (id, starts) = match P::correlate(event) {
            Correlation::Ignore => return Ok(()),
            Correlation::Start(id) => (id, true),
            Correlation::Proceed(id) => (id, false),
        };
        let stream = stream_of::<P>(&id)?;
        let mut tries = 0;
        while tries < TRIES {
            let newest = self.newest(&stream).await?;
            let is_handled = |step: &Step<P>| event.position().get() == step.record.event;
            match &newest {
                None if !starts => return Ok(()),
                Some(step) if event.position().get() < step.record.event => return Ok(()),
                Some(step) if step.record.completed && !is_handled(step) => return Ok(()),
                _ => {}
            }
            let newest = match newest {
                None => None,
                Some(step) => match self.finish(step, None).await? {
                    Some(step) if is_handled(&step) => return Ok(()),
                    Some(step) if step.record.completed => return Ok(()),
                    Some(step) => Some(step),
                    None => {
                        tries += 1;
                        continue;
                    }
                },
            };
            // As if the process had been running all the time: first the timeouts that were due before the event.
            let overdue = newest.as_ref().and_then(|step| step.overdue_at(event.time()));
            let input = overdue.as_ref().map_or(Input::Event(event), Input::Timeout);
            match self.take(&stream, newest, input).await? {
                Some((step, commands)) => match self.finish(step, Some(commands)).await? {
                    Some(step) if is_handled(&step) => return Ok(()),
                    Some(_) => {}
                    None => tries += 1,
                },
                None => tries += 1,
            }
        }
        Err(ProcessError::Contended { stream })
    }

    /// Handles a timeout that is due, unless it was cancelled.
    pub(super) async fn time_out(&self, scheduled: &Scheduled) -> Result<(), ProcessError> {
        for _ in 0..TRIES {
            let Some(step) = self.newest(&scheduled.stream).await? else { return Ok(()) };
            let Some(step) = self.finish(step, None).await? else { continue };
            let open = step.record.timeouts.get(&scheduled.name);
            if open.is_none_or(|open| open.set != scheduled.set) {
                return Ok(());
            }
            if let Some((step, commands)) = self.take(&scheduled.stream, Some(step), Input::Timeout(scheduled)).await?
                && self.finish(step, Some(commands)).await?.is_some()
            {
                return Ok(());
            }
        }
        Err(ProcessError::Contended { stream: scheduled.stream.clone() })
    }

    /// When the first of the timeouts is due that were set since this was called.
    pub(super) fn earliest_set(&self) -> Option<Timestamp> {
        self.earliest_set.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The newest step of an instance.
    pub(super) async fn newest(&self, stream: &StreamId) -> Result<Option<Step<P>>, ProcessError> {
        let newest = self.store.stream(stream.clone()).read().backward().limit(1).collect().await?;
        newest.into_iter().next().map(Step::decode).transpose()
    }

    /// Executes the commands of the newest step. Returns the step that is the newest then, which is another one if a
    /// rejection was handled; [`None`] if another owner has taken a step.
    async fn finish(
        &self,
        mut step: Step<P>,
        mut commands: Option<Vec<Box<dyn Issue>>>,
    ) -> Result<Option<Step<P>>, ProcessError> {
        loop {
            let stream = step.stored.stream.clone();
            if step.record.commands == 0 || self.is_finished(&stream, step.version()) {
                return Ok(Some(step));
            }
            let again = match commands.take() {
                Some(commands) => commands,
                None => self.decide_again(&step).await?,
            };
            let Some(rejected) = self.execute(&step, again).await? else {
                let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
                finished.insert(stream, step.version());
                return Ok(Some(step));
            };
            let time = step.stored.time;
            match self.take(&stream, Some(step), Input::Rejected(rejected, time)).await? {
                Some((next, issued)) => (step, commands) = (next, Some(issued)),
                None => return Ok(None),
            }
        }
    }

    fn is_finished(&self, stream: &StreamId, version: Version) -> bool {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.get(stream).is_some_and(|known| *known == version)
    }

    /// Executes commands in order, up to the first whose rejection is to be handled.
    async fn execute(&self, step: &Step<P>, commands: Vec<Box<dyn Issue>>) -> Result<Option<Rejected>, ProcessError> {
        let base = key_base(step.stored.stream.as_str(), &step.record.cause);
        for (n, command) in commands.into_iter().enumerate() {
            let (name, key) = (command.name().to_owned(), CommandKey::new(key_text(&base, n))?);
            let (stream, _) = command.identity()?;
            match command.send(&self.repositories, key.clone(), step.provenance()).await? {
                Sent::Done => {}
                Sent::Rejected(reason) => return Ok(Some(Rejected { command: name, stream, key, reason })),
            }
        }
        Ok(None)
    }

    /// Finds out what the commands of a step were that was written and not finished, by deciding again.
    async fn decide_again(&self, step: &Step<P>) -> Result<Vec<Box<dyn Issue>>, ProcessError> {
        let (stream, version) = (&step.stored.stream, step.version());
        let before = self.store.stream(stream.clone()).read().before(version).backward().limit(1).collect().await?;
        let before = before.into_iter().next().map(Step::<P>::decode).transpose()?;
        let (_, actions) = match &step.record.cause {
            Cause::Event { position } => {
                let event = self.event_at(stream, Position::new(*position)).await?;
                decide(stream, before, &Input::Event(&event))
            }
            Cause::Timeout { name, due, set } => {
                let scheduled = Scheduled { stream: stream.clone(), name: name.clone(), due: *due, set: *set };
                decide(stream, before, &Input::Timeout(&scheduled))
            }
            Cause::Rejected(rejected) => {
                let time = before.as_ref().map_or(step.stored.time, |before| before.stored.time);
                decide(stream, before, &Input::Rejected(rejected.clone(), time))
            }
        };
        let identity = actions.commands.iter().map(|command| command.identity()).collect::<Result<Vec<_>, _>>()?;
        if identity_of(&identity) == step.record.fingerprint {
            Ok(actions.commands)
        } else {
            Err(ProcessError::NotRepeatable { stream: stream.clone(), version })
        }
    }

    async fn event_at(&self, stream: &StreamId, position: Position) -> Result<Recorded<P::Event>, ProcessError> {
        let before = Position::new(position.get().saturating_sub(1));
        let found = self.store.all().read().after(before).before(position.next()).limit(1).collect().await?;
        match found.into_iter().next() {
            Some(event) => Ok(Recorded::decode(event)?),
            None => Err(ProcessError::CauseGone { stream: stream.clone(), position }),
        }
    }

    /// Decides about an input and writes the step; [`None`] if another owner has written one. The newest step must be
    /// finished.
    async fn take(
        &self,
        stream: &StreamId,
        newest: Option<Step<P>>,
        input: Input<'_, P::Event>,
    ) -> Result<Option<Taken<P>>, ProcessError> {
        let expected = newest.as_ref().map_or(ExpectedVersion::NoStream, |step| step.version().into());
        let version = newest.as_ref().map_or(Version::ZERO, Step::version).next();
        let (event, cause, provenance) = match &input {
            Input::Event(event) => {
                let position = event.position().get();
                (position, Cause::Event { position }, Provenance::caused_by(event.envelope()))
            }
            other => {
                let Some(step) = &newest else { return Ok(None) };
                let cause = match other {
                    Input::Rejected(rejected, _) => Cause::Rejected(rejected.clone()),
                    Input::Timeout(Scheduled { name, due, set, .. }) => {
                        Cause::Timeout { name: name.clone(), due: *due, set: *set }
                    }
                    Input::Event(_) => return Ok(None),
                };
                (step.record.event, cause, Provenance::caused_by(Envelope::of(&step.stored)))
            }
        };
        let cancelled = newest.as_ref().map(|step| step.record.timeouts.clone()).unwrap_or_default();
        let (state, actions) = decide(stream, newest, &input);
        if let Some(reason) = actions.failed {
            return Err(ProcessError::Failed { stream: stream.clone(), reason });
        }
        let Actions { commands, timeouts, completed, .. } = actions;
        let identity = commands.iter().map(|command| command.identity()).collect::<Result<Vec<_>, _>>()?;
        let record = StepRecord {
            cause,
            event,
            commands: u32::try_from(commands.len()).unwrap_or(u32::MAX),
            fingerprint: identity_of(&identity),
            timeouts,
            completed,
        };
        let candidate = state.encode()?.with_metadata(record.to_metadata(provenance.actor(P::NAME))?);
        drop(read_back::<P>(self.store.id(), stream, &candidate).map_err(ProcessError::Unreadable)?);
        let mut append = Append::to(stream.clone(), expected, candidate.clone());
        for (name, open) in record.timeouts.iter().filter(|(_, open)| open.set == version.get()) {
            let (key, value) = self.schedule.cell(stream, name, *open)?;
            append = append.set_cell(key, 0, Some(value.into()));
            // Even if the step is not written: looking once too often does no harm.
            let mut earliest = self.earliest_set.lock().unwrap_or_else(PoisonError::into_inner);
            *earliest = [*earliest, Some(Timestamp::from_micros(open.due))].into_iter().flatten().min();
        }
        let fired = if let Input::Timeout(scheduled) = &input { Some(scheduled.name.as_str()) } else { None };
        for (name, open) in cancelled {
            // The cell of a timeout that is handled stays until the step is finished.
            if record.timeouts.get(&name) != Some(&open) && fired != Some(name.as_str()) {
                append = append.set_cell(self.schedule.cell(stream, &name, open)?.0, 1, None);
            }
        }
        match self.append(append).await? {
            Some(appended) => {
                let id = EventId::derived(self.store.id(), appended.position);
                let stored = written(stream, version, id, &appended, &candidate);
                Ok(Some((Step { state, record, stored }, commands)))
            }
            None => Ok(None),
        }
    }

    /// Appends a step; [`None`] if another owner has written one.
    async fn append(&self, mut append: Append) -> Result<Option<Appended>, ProcessError> {
        let again = append.clone();
        match self.store.append(append).await {
            Ok(appended) => Ok(Some(appended)),
            Err(AppendError::Conflict { conflicts }) => {
                if conflicts.iter().any(|conflict| !matches!(conflict, Conflict::Cell { .. })) {
                    return Ok(None);
                }
                // Somebody removed a timeout from the schedule by hand. What is left there is removed when it is due.
                append = again;
                append.cells.retain(|cell| cell.value.is_some());
                match self.store.append(append).await {
                    Ok(appended) => Ok(Some(appended)),
                    Err(AppendError::Conflict { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The step's event, as it will be read.
fn written(
    stream: &StreamId,
    version: Version,
    id: EventId,
    appended: &Appended,
    candidate: &CandidateEvent,
) -> StoredEvent {
    let (event_type, payload) = (Arc::clone(candidate.event_type()), candidate.payload().clone());
    let (metadata, tags) = (candidate.metadata().cloned(), candidate.tags().clone());
    let (position, time) = (appended.position, appended.time);
    // The checksum is not looked at.
    StoredEvent::from_stored(stream.clone(), version, position, time, id, event_type, payload, metadata, tags, 0)
}

/// Calls the process. The same for the same input.
fn decide<P: ProcessManager>(stream: &StreamId, newest: Option<Step<P>>, input: &Input<'_, P::Event>) -> (P, Actions) {
    let instance = stream.as_str().get(P::NAME.len() + 1..).unwrap_or_default();
    let (version, mut timeouts, completed) = match &newest {
        Some(step) => (step.version().next().get(), step.record.timeouts.clone(), step.record.completed),
        None => (1, BTreeMap::default(), false),
    };
    let mut state = newest.map(|step| step.state).unwrap_or_default();
    let time = match input {
        Input::Event(event) => event.time(),
        Input::Timeout(scheduled) => {
            timeouts.remove(&scheduled.name);
            scheduled.due()
        }
        Input::Rejected(_, time) => *time,
    };
    let mut actions = Actions::new(instance, time, version, timeouts, completed);
    match input {
        Input::Event(event) => state.handle(event, &mut actions),
        Input::Timeout(scheduled) => {
            let timeout = Timeout { name: scheduled.name.clone(), due: scheduled.due() };
            state.timed_out(&timeout, &mut actions);
        }
        Input::Rejected(rejected, _) => state.rejected(rejected, &mut actions),
    }
    actions.close();
    (state, actions)
}

/// The stream of an instance.
pub(super) fn stream_of<P: ProcessManager>(id: &str) -> Result<StreamId, ProcessError> {
    if id.is_empty() {
        return Err(crate::log::InvalidName::Empty { what: "process instance" }.into());
    }
    Ok(StreamId::new(format!("{}-{id}", P::NAME))?)
}
