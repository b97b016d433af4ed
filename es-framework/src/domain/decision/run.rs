//! Making one decision: recall or load, decide, append, confirm, retry.
//!
//! States are taken from memory where they are there, and memory is never trusted:
//!
//! 1. All states must be as of one position of the log, the one of the newest event in any of them. A state that is not
//!    known to be current there is extended to it, by reading the events in between.
//! 2. The append carries what was read as expectations and conditions, so it is only written if all of it is still
//!    current.
//! 3. A decision that writes nothing is final if everything was read since it began; else an empty append with the same
//!    expectations and conditions must confirm it.
//! 4. After a conflict, the states that it names take over what others left in memory, or read the events after them.
//!
//! As for [commands](super::super::decide), code that does not await runs in one go, and each call to the engine is a
//! job that makes progress even if this decision is not polled.

use super::super::fold::{FoldPanic, caught};
use super::super::repository::LoadError;
use super::super::turns::{Job, Next, Turn};
use super::builder::{Decided, DecisionError};
use super::current::Source;
use super::events::{Entry, Events};
use super::lanes::AnyRan;
use super::memory::Memory;
use super::over::Over;
use super::part::{AnyPart, Refused};
use super::{Decide, DecideContext};
use crate::log::{
    Append, AppendError, Appended, CandidateEvent, Conflict, EventId, ExpectedVersion, KeyedCommand, Metadata,
    Position, Store, StoreId, StoredEvent, StreamId, Timestamp, Version,
};

/// The outcome of a call to the engine, with the states if they are still needed.
enum Ran<P> {
    Loaded(P, Result<(), LoadError>),
    /// The decision was written.
    Written(P, Appended),
    /// The decision was made before.
    Known(Appended),
    /// It was not made before, and its states were current.
    Confirmed,
    /// Its states were not current.
    Conflict(P, Vec<Conflict>),
    /// The store failed.
    Failed(Failed),
    /// It was written, but its events cannot be applied.
    Unfoldable(Appended, FoldPanic),
}

enum Failed {
    Load(LoadError),
    Append(AppendError),
}

type NextOf<D> = Next<DecisionError<<D as Decide>::Error>, (), AnyRan>;
type Parts<D> = <<D as Decide>::Over as Over>::Parts;

/// A decision that is being made.
pub(super) struct Run<'a, D: Decide> {
    store: &'a Store,
    decision: &'a D,
    pub(super) key: Option<KeyedCommand>,
    pub(super) metadata: Option<Metadata>,
    /// What the caller expects of streams, whether they are read or not.
    pub(super) expected: Vec<(StreamId, ExpectedVersion)>,
    tries: u32,
    /// [`None`] while a job has them.
    parts: Option<Parts<D>>,
    tried: u32,
    /// The error to return once it is confirmed.
    verdict: Option<DecisionError<D::Error>>,
}

impl<'a, D: Decide> Run<'a, D> {
    pub(super) fn new(store: &'a Store, decision: &'a D, tries: u32) -> Result<Self, LoadError> {
        let parts = D::Over::parts(decision.over(), Some(store))?;
        let (key, metadata, expected) = (None, None, Vec::new());
        Ok(Self { store, decision, key, metadata, expected, tries, parts: Some(parts), tried: 0, verdict: None })
    }

    pub(super) async fn run(mut self) -> Result<Decided, DecisionError<D::Error>> {
        let memory = self.store.extension::<Memory>();
        let mut place = self.parts.as_mut().and_then(|parts| {
            let all = each::<D::Over>(parts);
            memory.lanes.join_busy(all.iter().map(|part| part.source()))
        });
        loop {
            let turn = match &place {
                Some(place) => place.turns().take(|()| self.step()).await,
                None => match self.step() {
                    Next::Done(error) => Turn::Done(error),
                    Next::Run(job) => Turn::Ran(job.await.1),
                },
            };
            let ran = match turn {
                Turn::Done(error) => return Err(error),
                Turn::Ran(ran) => {
                    *ran.downcast::<Ran<Parts<D>>>().expect("a decision is given what its own job returned")
                }
            };
            match ran {
                Ran::Loaded(parts, loaded) => {
                    loaded?;
                    self.parts = Some(parts);
                }
                Ran::Written(mut parts, appended) => {
                    drop(place);
                    let due = each::<D::Over>(&mut parts).iter().filter_map(|part| part.settle()).collect::<Vec<_>>();
                    for save in due {
                        save.await;
                    }
                    return Ok(Decided::new(appended));
                }
                Ran::Known(appended) => return Ok(Decided::new(appended)),
                Ran::Confirmed => return Err(self.verdict.take().expect("only a verdict is confirmed")),
                Ran::Conflict(mut parts, conflicts) => {
                    let lost_by = mark_stale(each::<D::Over>(&mut parts), &conflicts);
                    // If it is about nothing that was read, it is about what the caller expects of another stream.
                    let Some(source) = lost_by.filter(|_| self.tried < self.tries) else {
                        return Err(DecisionError::Conflict { tries: self.tried, conflicts });
                    };
                    place = Some(memory.lanes.join(&source));
                    self.parts = Some(parts);
                }
                Ran::Failed(Failed::Load(error)) => return Err(error.into()),
                Ran::Failed(Failed::Append(error)) => return Err(DecisionError::Append(error)),
                Ran::Unfoldable(appended, source) => {
                    return Err(DecisionError::WrittenUnfoldable { position: appended.position, source });
                }
            }
        }
    }

    /// Goes as far as it can without waiting.
    fn step(&mut self) -> NextOf<D> {
        let mut parts = self.parts.take().expect("no job has the states between two steps");
        let mut all = each::<D::Over>(&mut parts);
        for part in &mut all {
            part.recall();
        }
        let at = common_position(&all);
        if all.iter().any(|part| part.needs_reading() || part.current_at() < at) {
            return Next::Run(job(async move {
                let loaded = load(each::<D::Over>(&mut parts)).await;
                Ran::Loaded(parts, loaded)
            }));
        }
        if let Some(unexpected) = self.unexpected(&mut all) {
            if all.iter().any(|part| part.needs_reading()) {
                self.parts = Some(parts);
                return self.step();
            }
            self.tried += 1;
            let verdict = DecisionError::Conflict { tries: self.tried, conflicts: vec![unexpected] };
            return self.unless_known(parts, verdict);
        }
        self.tried += 1;
        let context = DecideContext::new(self.store.now(), at);
        match self.decision.decide(D::Over::states(&parts), &context) {
            // The rejection may only be due to an earlier execution of this command. If so, its first outcome is
            // returned.
            Err(rejection) => self.unless_known(parts, DecisionError::Rejected(rejection)),
            Ok(events) => self.write(parts, events, at),
        }
    }

    /// The first stream that was read and is not as the caller expects. If it was not read since the decision began, it
    /// is to be read again first.
    fn unexpected(&self, all: &mut [&mut dyn AnyPart]) -> Option<Conflict> {
        self.expected.iter().find_map(|(stream, expected)| {
            let part = all.iter_mut().find(|part| matches!(part.source(), Source::Stream(read) if read == stream))?;
            let actual = part.version();
            if expected.holds(actual) {
                return None;
            }
            if !part.is_fresh() {
                part.mark_stale();
            }
            Some(Conflict::stream(stream.clone(), *expected, actual))
        })
    }

    /// Writes the events. Those that cannot be read back or applied are never written.
    fn write(&mut self, mut parts: Parts<D>, events: Events, at: Position) -> NextOf<D> {
        if let Some(error) = events.error {
            return Next::Done(error.into());
        }
        let mut all = each::<D::Over>(&mut parts);
        let mut writes = Writes::of(events.entries, self.metadata.as_ref());
        let mut stored = match writes.read_back(&all, self.store, at) {
            Err(Refused::Decode(error)) => return Next::Done(DecisionError::Unreadable(error)),
            Err(Refused::Panicked(panic)) => return Next::Done(DecisionError::Unfoldable(panic)),
            Ok(stored) => stored,
        };
        for part in &mut all {
            match part.prepare(&stored) {
                Ok(()) => {}
                Err(Refused::Decode(error)) => return Next::Done(DecisionError::Unreadable(error)),
                Err(Refused::Panicked(panic)) => return Next::Done(DecisionError::Unfoldable(panic)),
            }
        }
        let mut append = self.expecting(writes.into_append(&all));
        append.command.clone_from(&self.key);
        let store = self.store.clone();
        Next::Run(job(async move {
            let appended = match store.append(append).await {
                Ok(appended) if appended.was_known() => return Ran::Known(appended),
                Ok(appended) => appended,
                Err(AppendError::Conflict { conflicts }) => return Ran::Conflict(parts, conflicts),
                Err(error) => return Ran::Failed(Failed::Append(error)),
            };
            correct(&mut stored, store.id(), &appended);
            let mut failed = None;
            for part in each::<D::Over>(&mut parts) {
                match part.commit(&stored, appended.position) {
                    Ok(()) => part.remember(),
                    Err(panic) => failed = Some(panic),
                }
            }
            match failed {
                None => Ran::Written(parts, appended),
                Some(panic) => Ran::Unfoldable(appended, panic),
            }
        }))
    }

    /// Fails with `verdict`, provided that the decision was not made before and its states were current.
    fn unless_known(&mut self, mut parts: Parts<D>, verdict: DecisionError<D::Error>) -> NextOf<D> {
        let all = each::<D::Over>(&mut parts);
        let is_fresh = all.iter().all(|part| part.is_fresh());
        if is_fresh && self.key.is_none() {
            return Next::Done(verdict);
        }
        self.verdict = Some(verdict);
        let check = self.expecting(Writes::default().into_append(&all));
        let (store, key) = (self.store.clone(), self.key.clone());
        Next::Run(job(async move {
            if let Some(command) = key {
                match store.command(&command.key).await {
                    Err(error) => return Ran::Failed(Failed::Load(error.into())),
                    Ok(Some(record)) if record.command.fingerprint != command.fingerprint => {
                        return Ran::Failed(Failed::Append(AppendError::CommandKeyReused { key: command.key }));
                    }
                    Ok(Some(record)) => return Ran::Known(known(record.appended)),
                    Ok(None) => {}
                }
            }
            if is_fresh {
                return Ran::Confirmed;
            }
            match store.append(check).await {
                Ok(_) => Ran::Confirmed,
                Err(AppendError::Conflict { conflicts }) => Ran::Conflict(parts, conflicts),
                Err(error) => Ran::Failed(Failed::Append(error)),
            }
        }))
    }
}

impl<D: Decide> Run<'_, D> {
    /// Adds what the caller expects of streams that were not read.
    fn expecting(&self, mut append: Append) -> Append {
        for (stream, expected) in &self.expected {
            match append.streams.iter_mut().find(|write| write.stream == *stream) {
                // A stream that was read is at the expected version, which is a narrower expectation.
                Some(write) if write.expected == ExpectedVersion::Any => write.expected = *expected,
                Some(_) => {}
                None => append = append.check(stream.clone(), *expected),
            }
        }
        append
    }
}

/// What a record says about a command that was executed before.
fn known(appended: Appended) -> Appended {
    Appended { outcome: crate::log::Outcome::AlreadyWritten, ..appended }
}

fn each<O: Over>(parts: &mut O::Parts) -> Vec<&mut dyn AnyPart> {
    let mut all = Vec::new();
    O::each(parts, &mut all);
    all
}

fn job<P: Send + 'static>(work: impl Future<Output = Ran<P>> + Send + 'static) -> Job<(), AnyRan> {
    Box::pin(async move {
        let ran: AnyRan = Box::new(work.await);
        ((), ran)
    })
}

/// The position of the newest event in any of the states.
fn common_position(all: &[&mut dyn AnyPart]) -> Position {
    all.iter().map(|part| part.changed_at()).max().unwrap_or(Position::ZERO)
}

/// Reads what is missing, so that all states are as of one position.
async fn load(mut all: Vec<&mut dyn AnyPart>) -> Result<(), LoadError> {
    for part in all.iter_mut().filter(|part| part.needs_reading()) {
        part.refresh().await?;
    }
    let at = common_position(&all);
    // This changes no state beyond that position, so it stays the common one.
    for part in all.iter_mut().filter(|part| part.current_at() < at) {
        part.extend(at).await?;
    }
    for part in &all {
        part.remember();
    }
    Ok(())
}

/// Marks the states that a conflict is about, and returns the source of the first.
fn mark_stale(all: Vec<&mut dyn AnyPart>, conflicts: &[Conflict]) -> Option<Source> {
    let is_about = |source: &Source| {
        conflicts.iter().any(|conflict| match (conflict, source) {
            (Conflict::Stream { stream, .. }, Source::Stream(read)) => stream == read,
            (Conflict::Condition { query, .. }, Source::Query(read)) => query == read,
            _ => false,
        })
    };
    let mut first = None;
    for part in all {
        if is_about(part.source()) {
            part.mark_stale();
            first.get_or_insert_with(|| part.source().clone());
        }
    }
    first
}

/// The events of a decision, by stream.
#[derive(Default)]
struct Writes {
    streams: Vec<(StreamId, Vec<Entry>)>,
}

impl Writes {
    fn of(entries: Vec<Entry>, metadata: Option<&Metadata>) -> Self {
        let mut streams: Vec<(StreamId, Vec<Entry>)> = Vec::new();
        for mut entry in entries {
            if let Some(metadata) = metadata {
                entry.candidate = entry.candidate.with_metadata(metadata.clone());
            }
            match streams.iter_mut().find(|(stream, _)| *stream == entry.stream) {
                Some((_, entries)) => entries.push(entry),
                None => streams.push((entry.stream.clone(), vec![entry])),
            }
        }
        Self { streams }
    }

    /// The events as they will be read back, in the order in which they are written. Their positions and their time are
    /// not known yet, nor are the versions of those in streams that were not read: they hold guesses.
    fn read_back(
        &mut self,
        all: &[&mut dyn AnyPart],
        store: &Store,
        at: Position,
    ) -> Result<Vec<StoredEvent>, Refused> {
        let now = all.iter().map(|part| part.time()).fold(store.now(), Timestamp::max);
        let mut events = Vec::new();
        for (stream, entries) in &self.streams {
            let mut version = version_of(all, stream).unwrap_or(Version::ZERO);
            for Entry { candidate, read_back, .. } in entries {
                version = version.next();
                let mut stored = stored(store.id(), stream, version, now, candidate);
                caught(|| read_back(&stored))
                    .map_err(|message| Refused::Panicked(FoldPanic::new("decoding", &stored, message)))?
                    .map_err(Refused::Decode)?;
                stored.position = at.plus(events.len() as u64 + 1);
                stored.id = EventId::derived(store.id(), stored.position);
                events.push(stored);
            }
        }
        Ok(events)
    }

    /// One append, under the condition that everything that was read is current.
    fn into_append(self, all: &[&mut dyn AnyPart]) -> Append {
        let mut append = Append::default();
        for (stream, entries) in self.streams {
            // The conditions guard a stream that was not read.
            let expected = version_of(all, &stream).map_or(ExpectedVersion::Any, ExpectedVersion::Exact);
            let events: Vec<_> = entries.into_iter().map(|entry| entry.candidate).collect();
            append = append.and(stream, expected, events);
        }
        for part in all {
            match part.source() {
                Source::Stream(stream) if append.streams.iter().any(|write| write.stream == *stream) => {}
                Source::Stream(stream) => {
                    append = append.check(stream.clone(), ExpectedVersion::Exact(part.version()));
                }
                Source::Query(query) if append.conditions.iter().any(|condition| condition.query == *query) => {}
                Source::Query(query) => append = append.unless(query, part.current_at()),
            }
        }
        append
    }
}

/// The version at which a stream was read, if it was.
fn version_of(all: &[&mut dyn AnyPart], stream: &StreamId) -> Option<Version> {
    let read = all.iter().find(|part| matches!(part.source(), Source::Stream(read) if read == stream))?;
    Some(read.version())
}

fn stored(
    store: StoreId,
    stream: &StreamId,
    version: Version,
    now: Timestamp,
    candidate: &CandidateEvent,
) -> StoredEvent {
    // An event that cannot be decoded is not reported under a position that belongs to another event.
    StoredEvent::new(store, stream.clone(), version, Position::ZERO, now, candidate)
}

/// Corrects the events once they are written. The positions of an append are contiguous and end at `appended.position`.
fn correct(events: &mut [StoredEvent], store: StoreId, appended: &Appended) {
    let before = appended.position.get().saturating_sub(events.len() as u64);
    let mut positions = (before + 1..).map(Position::new);
    let mut events = events.iter_mut();
    for stream in &appended.streams {
        let mut version = stream.first;
        for (stored, position) in events.by_ref().take(stream.written).zip(positions.by_ref()) {
            (stored.version, stored.position, stored.time) = (version, position, appended.time);
            stored.id = EventId::derived(store, position);
            stored.checksum = stored.computed_checksum();
            version = version.next();
        }
    }
}
