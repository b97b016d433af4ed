//! Executing one command: load, decide, append, confirm, retry.
//!
//! Code that does not await runs in one go, while the command has its [turn](super::turns). Each call to the engine is
//! a job that makes progress even if this command is not polled.

use std::sync::Arc;

use super::aggregate::{Aggregate, Apply, Context, State};
use super::cache::{Base, Memory, Slot};
use super::event::{EncodeError, Event};
use super::execute::{ExecuteError, Receipt};
use super::fold::{FoldPanic, ReadBackError, Unwritten};
use super::repository::{Inner, LoadError};
use super::turns::{Job, Next, Turn};
use crate::log::{
    Append, AppendError, Appended, CandidateEvent, Conflict, ExpectedVersion, KeyedCommand, Metadata, StreamId, Version,
};

/// The outcome of a call to the engine.
pub(super) enum Ran<A> {
    /// The state in memory was the newest at the time of the call.
    Loaded(Result<Version, LoadError>),
    /// The command was executed. Carries the state if it is due to be saved.
    Written(Receipt<A>, Option<Base<A>>),
    /// The command was executed before.
    Known(Known<A>),
    /// The command has not been executed before, and the state was the newest.
    Confirmed,
    /// The state was not the newest; decide again.
    Conflict(Conflict),
    /// The append failed.
    Failed(AppendError),
    /// The command was executed, but its events cannot be applied.
    Unfoldable(Appended, FoldPanic),
}

/// A command that was executed before.
pub(super) struct Known<A> {
    appended: Appended,
    /// The state it led to, if it is in memory.
    state: Option<Arc<A>>,
    /// The version of the newest known snapshot.
    snapshot_at: u64,
}

impl<A> Known<A> {
    fn new(appended: Appended, base: &Base<A>) -> Self {
        let state = (appended.version() == base.version).then(|| Arc::clone(&base.state));
        Self { appended, state, snapshot_at: base.snapshot_at.load(std::sync::atomic::Ordering::Acquire) }
    }
}

type JobOf<A> = Job<Memory<A>, Ran<A>>;
type NextOf<A, E> = Next<ExecuteError<E>, Memory<A>, Ran<A>>;

/// Runs the handler of the command.
pub(super) type Decide<'a, A, E> =
    dyn Fn(&A, &Context<'_, A>) -> Result<Vec<<A as State>::Event>, E> + Send + Sync + 'a;

/// Events as they will be written, and as they will be read back.
type Prepared<E> = (Vec<CandidateEvent>, Unwritten<E>);

/// A command that is being executed.
pub(super) struct Decision<'a, A: Aggregate + Apply, E: std::error::Error + 'static> {
    pub(super) inner: &'a Arc<Inner<A>>,
    pub(super) stream: &'a StreamId,
    pub(super) id: &'a A::Id,
    pub(super) decide: &'a Decide<'a, A, E>,
    pub(super) key: Option<KeyedCommand>,
    pub(super) metadata: Option<Metadata>,
    pub(super) expected: ExpectedVersion,
    progress: Progress<E>,
    /// What an observer is told about it.
    pub(super) seen: Seen,
}

/// What has happened to a command, for whoever observes the store.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) conflicts: u32,
    pub(super) cached: Option<bool>,
}

/// How far a command has got.
struct Progress<E: std::error::Error + 'static> {
    /// How many times it was decided.
    tries: u32,
    /// The version that was loaded for this command. A state at least this new was current at some time after the
    /// command began, so a decision made from it is final.
    loaded: Option<Version>,
    /// The error to return once it is confirmed.
    verdict: Option<ExecuteError<E>>,
}

impl<'a, A, E> Decision<'a, A, E>
where
    A: Aggregate + Apply,
    E: std::error::Error + Send + Sync + 'static,
{
    pub(super) fn new(
        inner: &'a Arc<Inner<A>>,
        stream: &'a StreamId,
        id: &'a A::Id,
        decide: &'a Decide<'a, A, E>,
    ) -> Self {
        let progress = Progress { tries: 0, loaded: None, verdict: None };
        let expected = ExpectedVersion::Any;
        Self { inner, stream, id, decide, key: None, metadata: None, expected, progress, seen: Seen::default() }
    }

    pub(super) async fn execute(&mut self) -> Result<Receipt<A>, ExecuteError<E>> {
        let inner = self.inner;
        let slot = inner.slot(self.stream);
        loop {
            match slot.turns.take(|memory| self.decide(memory)).await {
                Turn::Done(error) => return Err(error),
                Turn::Ran(Ran::Loaded(loaded)) => self.progress.loaded = Some(loaded?),
                Turn::Ran(Ran::Written(receipt, due)) => {
                    if let Some(base) = due {
                        inner.save_due(self.stream, base).await;
                    }
                    return Ok(receipt);
                }
                Turn::Ran(Ran::Known(known)) => return self.first_outcome(&slot, known).await,
                Turn::Ran(Ran::Confirmed) => {
                    return Err(self.progress.verdict.take().expect("only a verdict is confirmed"));
                }
                Turn::Ran(Ran::Conflict(conflict)) => {
                    let tries = self.progress.tries;
                    if tries >= inner.settings.tries {
                        return Err(ExecuteError::Conflict { tries, conflict });
                    }
                    inner.count_conflict();
                    self.seen.conflicts += 1;
                }
                Turn::Ran(Ran::Failed(error)) => return Err(ExecuteError::Append(error)),
                Turn::Ran(Ran::Unfoldable(appended, source)) => {
                    let (version, position) = (appended.version(), appended.position);
                    return Err(ExecuteError::WrittenUnfoldable { version, position, source });
                }
            }
        }
    }

    fn decide(&mut self, memory: &mut Memory<A>) -> NextOf<A, E> {
        if self.seen.cached.is_none() {
            self.inner.count_cache(memory.base.is_some());
            self.seen.cached = Some(memory.base.is_some());
        }
        let base = match &memory.base {
            Some(base) if !memory.is_stale => base,
            _ => return Next::Run(self.load(memory)),
        };
        let is_fresh = self.progress.loaded.is_some_and(|loaded| base.version >= loaded);
        if !self.expected.holds(base.version) {
            if !is_fresh {
                return Next::Run(self.load(memory));
            }
            self.progress.tries += 1;
            let conflict = Conflict::stream(self.stream.clone(), self.expected, base.version);
            let verdict = ExecuteError::Conflict { tries: self.progress.tries, conflict };
            return self.unless_known(memory, verdict, is_fresh);
        }
        self.progress.tries += 1;
        let now = self.inner.store.now();
        match (self.decide)(&base.state, &Context::new(self.id, base.version, now)) {
            // The rejection may only be due to an earlier execution of this command. If so, its first outcome is
            // returned.
            Err(rejection) => self.unless_known(memory, ExecuteError::Rejected(rejection), is_fresh),
            Ok(events) => match self.prepare(base, &events) {
                Err(error) => Next::Done(error),
                Ok((candidates, events)) => Next::Run(self.write(memory, candidates, events)),
            },
        }
    }

    /// Encodes the events, and checks that they can be read back and applied. Events that cannot are never written.
    fn prepare(&self, base: &Base<A>, events: &[A::Event]) -> Result<Prepared<A::Event>, ExecuteError<E>> {
        let candidates = events
            .iter()
            .map(|event| Ok(event.encode()?.with_metadata(self.metadata.clone())))
            .collect::<Result<Vec<_>, EncodeError>>()?;
        let store = &self.inner.store;
        // The events to apply are the ones that will be read back later.
        let events = Unwritten::read_back(base, self.stream, store.id(), store.now(), &candidates);
        let events = events.map_err(|error| match error {
            ReadBackError::Decode(error) => ExecuteError::Unreadable(error),
            ReadBackError::Panicked(panic) => ExecuteError::Unfoldable(panic),
        })?;
        events.try_on(base).map_err(ExecuteError::Unfoldable)?;
        Ok((candidates, events))
    }

    /// Brings the state in memory up to date.
    fn load(&self, memory: &mut Memory<A>) -> JobOf<A> {
        let (inner, stream) = (Arc::clone(self.inner), self.stream.clone());
        let base = std::mem::take(memory).base;
        Box::pin(async move {
            let loaded = match base {
                None => inner.load(&stream, None).await,
                Some(mut base) => inner.refresh(&stream, &mut base).await.map(|()| base),
            };
            match loaded {
                Ok(base) => {
                    let version = base.version;
                    (Memory { base: Some(base), is_stale: false }, Ran::Loaded(Ok(version)))
                }
                Err(error) => (Memory::default(), Ran::Loaded(Err(error))),
            }
        })
    }

    /// Writes the events of the command.
    fn write(&self, memory: &mut Memory<A>, candidates: Vec<CandidateEvent>, events: Unwritten<A::Event>) -> JobOf<A> {
        let (inner, stream, key) = (Arc::clone(self.inner), self.stream.clone(), self.key.clone());
        let mut base = taken(memory);
        Box::pin(async move {
            let appended = match append(&inner, &stream, &base, candidates.clone(), key).await {
                Ok(appended) => appended,
                Err(ran) => return (Memory { base: Some(base), is_stale: true }, ran),
            };
            if appended.was_known() {
                let known = Known::new(appended, &base);
                return (Memory { base: Some(base), is_stale: false }, Ran::Known(known));
            }
            if let Err(panic) = base.apply_written(events, &appended, &candidates) {
                return (Memory::default(), Ran::Unfoldable(appended, panic));
            }
            let receipt = Receipt {
                state: Arc::clone(&base.state),
                version: base.version,
                position: appended.position,
                time: appended.time,
                events: candidates.len(),
                was_known: false,
            };
            let due = inner.is_due(&stream, &base).then(|| base.clone());
            (Memory { base: Some(base), is_stale: false }, Ran::Written(receipt, due))
        })
    }

    /// Fails with `verdict`, provided that the command was not executed before and was decided from the newest state.
    fn unless_known(&mut self, memory: &mut Memory<A>, verdict: ExecuteError<E>, is_fresh: bool) -> NextOf<A, E> {
        if is_fresh && self.key.is_none() {
            return Next::Done(verdict);
        }
        self.progress.verdict = Some(verdict);
        let (inner, stream, key) = (Arc::clone(self.inner), self.stream.clone(), self.key.clone());
        let base = taken(memory);
        Next::Run(Box::pin(async move {
            let mut is_stale = false;
            let ran = match executed_before(&inner, key).await {
                Err(ran) => ran,
                Ok(Some(appended)) => Ran::Known(Known::new(appended, &base)),
                Ok(None) if is_fresh => Ran::Confirmed,
                Ok(None) => match append(&inner, &stream, &base, Vec::new(), None).await {
                    Ok(_) => Ran::Confirmed,
                    Err(ran) => {
                        is_stale = true;
                        ran
                    }
                },
            };
            (Memory { base: Some(base), is_stale }, ran)
        }))
    }

    async fn first_outcome(&self, slot: &Slot<A>, known: Known<A>) -> Result<Receipt<A>, ExecuteError<E>> {
        let Known { appended, state, snapshot_at } = known;
        let state = match state {
            Some(state) => state,
            None => self.inner.load_past(slot, self.stream, appended.version(), snapshot_at).await?,
        };
        Ok(Receipt {
            state,
            version: appended.version(),
            position: appended.position,
            time: appended.time,
            events: appended.streams.first().map_or(0, |stream| stream.written),
            was_known: true,
        })
    }
}

fn taken<A>(memory: &mut Memory<A>) -> Base<A> {
    std::mem::take(memory).base.expect("a decision is made from a state")
}

async fn append<A: Aggregate + Apply>(
    inner: &Inner<A>,
    stream: &StreamId,
    base: &Base<A>,
    events: Vec<CandidateEvent>,
    key: Option<KeyedCommand>,
) -> Result<Appended, Ran<A>> {
    let mut append = Append::to(stream.clone(), ExpectedVersion::Exact(base.version), events);
    append.command = key;
    match inner.store.append(append).await {
        Ok(appended) => Ok(appended),
        Err(AppendError::Conflict { mut conflicts }) if conflicts.len() == 1 => Err(Ran::Conflict(conflicts.remove(0))),
        Err(error) => Err(Ran::Failed(error)),
    }
}

/// The first outcome of a command, if its key is known.
async fn executed_before<A: Aggregate + Apply>(
    inner: &Inner<A>,
    key: Option<KeyedCommand>,
) -> Result<Option<Appended>, Ran<A>> {
    let Some(command) = key else { return Ok(None) };
    match inner.store.command(&command.key).await {
        Err(error) => Err(Ran::Loaded(Err(error.into()))),
        Ok(Some(record)) if record.command.fingerprint != command.fingerprint => {
            Err(Ran::Failed(AppendError::CommandKeyReused { key: command.key }))
        }
        Ok(record) => Ok(record.map(|record| record.appended)),
    }
}
