//! Decides what becomes of an append: one judge for all engines.
//!
//! Inside its write transaction, an engine looks up in the log what [`Questions`] asks for. The answers are [`Facts`],
//! and [`judge`] decides from these alone.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::append::{Append, Appended, CommandRecord, Outcome, StreamAppended, StreamWrite};
use super::cell::{CellFacts, CellWrite};
use super::error::{AppendError, Conflict, InvalidAppend, StoreError};
use super::event::{CandidateEvent, EventType, StoredEvent};
use super::head::{StreamHead, StreamState};
use super::id::{EventId, StoreId};
use super::name::{CellKey, CommandKey, StreamId};
use super::one_or_many::OneOrMany;
use super::position::{Position, Version};
use super::query::AppendCondition;
use super::time::Timestamp;

/// What must be known about the log to judge an append, besides the position and time of its end.
#[derive(Debug, Clone, Copy)]
pub struct Questions<'a> {
    append: &'a Append,
}

/// What must be known about one stream: its head, and which of its events have one of these ids.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct StreamQuestion<'a> {
    /// The stream.
    pub stream: &'a StreamId,
    events: &'a [CandidateEvent],
}

impl<'a> Questions<'a> {
    /// The questions about an append.
    pub fn of(append: &'a Append) -> Self {
        Self { append }
    }

    /// The command to look up. If it is known, nothing else has to be looked up.
    pub fn command(self) -> Option<&'a CommandKey> {
        self.append.command.as_ref().map(|command| &command.key)
    }

    /// One question for each stream, in the order in which [`Facts`] hold the answers.
    pub fn streams(self) -> impl ExactSizeIterator<Item = StreamQuestion<'a>> {
        self.append.streams.iter().map(|StreamWrite { stream, events, .. }| StreamQuestion { stream, events })
    }

    /// The conditions, for each of which to look up the first event after its position that matches its query, in the
    /// order in which [`Facts`] hold the answers. Events that were written earlier in the same transaction count; those
    /// whose content was removed match nothing.
    pub fn conditions(self) -> &'a [AppendCondition] {
        &self.append.conditions
    }

    /// The cells to look up, in the order in which [`Facts`] hold the answers.
    pub fn cells(self) -> impl ExactSizeIterator<Item = &'a CellKey> {
        self.append.cells.iter().map(|cell| &cell.key)
    }
}

impl<'a> StreamQuestion<'a> {
    /// The ids to look up in the stream; an id may come twice. In a stream that was never written, none is known.
    pub fn ids(self) -> impl Iterator<Item = &'a EventId> {
        self.events.iter().filter_map(CandidateEvent::id)
    }
}

/// The facts about the log, as of one moment inside the write transaction.
///
/// ```
/// use es_framework::engine::{Facts, StreamFacts, StreamHead, Verdict, judge};
/// use es_framework::{Append, AppendError, CandidateEvent, ExpectedVersion, Position, StreamId, Timestamp, Version};
///
/// let event = CandidateEvent::new("deposited", "500")?;
/// let append = Append::to(StreamId::new("account-alice")?, ExpectedVersion::Exact(Version::new(3)), event);
///
/// let mut facts = Facts::new(Position::new(70), Timestamp::from_micros(1_000_000));
/// facts.push(StreamHead::at(Version::new(3)));
/// let Ok(Verdict::Write(plan)) = judge(&append, &facts) else { panic!("it is at version 3") };
/// assert_eq!(plan.events(&append).next().unwrap().position, 71);
///
/// let mut facts = Facts::new(Position::new(71), Timestamp::from_micros(1_000_000));
/// facts.push(StreamHead::at(Version::new(4)));
/// assert!(matches!(judge(&append, &facts), Err(AppendError::Conflict { .. })));
/// # Ok::<(), es_framework::InvalidName>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Facts {
    /// The position of the newest event ever written.
    pub head: Position,
    /// The time of the newest event ever written; [`Timestamp::from_micros`] of [`i64::MIN`] in an empty log.
    pub time: Timestamp,
    /// The record of the requested command, if it was executed before.
    pub command: Option<CommandRecord>,
    streams: OneOrMany<StreamFacts>,
    conditions: Vec<Option<Position>>,
    cells: Vec<CellFacts>,
}

/// The facts about one stream.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StreamFacts {
    /// Its head.
    pub head: StreamHead,
    /// Its events that have one of the requested ids.
    pub known: Vec<KnownEvent>,
}

impl Facts {
    /// Creates the facts about a log that ends here; what is known about commands and streams is added later.
    pub fn new(head: Position, time: Timestamp) -> Self {
        Self { head, time, command: None, streams: OneOrMany::default(), conditions: Vec::new(), cells: Vec::new() }
    }

    /// Adds the answer to the next of [`Questions::streams`].
    pub fn push(&mut self, stream: impl Into<StreamFacts>) {
        self.streams.push(stream.into());
    }

    /// The answers, in the order of [`Questions::streams`].
    pub fn streams(&self) -> &[StreamFacts] {
        self.streams.as_slice()
    }

    /// The answers, for an engine that looks up ids after the heads.
    pub fn streams_mut(&mut self) -> &mut [StreamFacts] {
        self.streams.as_mut_slice()
    }

    /// Adds the answer to the next of [`Questions::conditions`]: the position of the first event that makes it fail, or
    /// [`None`] if it holds.
    pub fn push_condition(&mut self, first_match: Option<Position>) {
        self.conditions.push(first_match);
    }

    /// The answers, in the order of [`Questions::conditions`].
    pub fn conditions(&self) -> &[Option<Position>] {
        &self.conditions
    }

    /// Adds the answer to the next of [`Questions::cells`].
    pub fn push_cell(&mut self, cell: CellFacts) {
        self.cells.push(cell);
    }

    /// The answers, in the order of [`Questions::cells`].
    pub fn cells(&self) -> &[CellFacts] {
        &self.cells
    }

    /// Checks that every stream, every cell and every condition of the append has an answer that can be true.
    fn answer(&self, append: &Append) -> Result<(), StoreError> {
        let defect = |what: String| Err(StoreError::Internal { source: what.into() });
        let (asked, answered) = (append.streams.len(), self.streams().len());
        if asked != answered {
            return defect(format!("it gave the facts about {answered} streams for an append to {asked}"));
        }
        let (asked, answered) = (append.conditions.len(), self.conditions.len());
        if asked != answered {
            return defect(format!("it gave the facts about {answered} conditions for an append with {asked}"));
        }
        let (asked, answered) = (append.cells.len(), self.cells.len());
        if asked != answered {
            return defect(format!("it gave the facts about {answered} cells for an append that sets {asked}"));
        }
        for (AppendCondition { after, .. }, found) in append.conditions.iter().zip(&self.conditions) {
            if found.is_some_and(|found| found <= *after || found > self.head) {
                return defect(format!("it found an event after position {after} that is not there: {found:?}"));
            }
        }
        Ok(())
    }
}

impl StreamFacts {
    /// Creates the facts about a stream that has this head and these events with one of the requested ids.
    pub fn new(head: StreamHead, known: Vec<KnownEvent>) -> Self {
        Self { head, known }
    }
}

impl From<StreamHead> for StreamFacts {
    fn from(head: StreamHead) -> Self {
        Self { head, known: Vec::new() }
    }
}

/// An event that was found by its id.
#[derive(Debug, Clone)]
pub struct KnownEvent {
    /// Its id.
    pub id: EventId,
    /// Its version.
    pub version: Version,
    /// Its position.
    pub position: Position,
    /// Its time.
    pub time: Timestamp,
    /// Its type and payload; [`None`] if they were removed and only its place is left.
    pub content: Option<(Arc<EventType>, Bytes)>,
}

impl KnownEvent {
    fn may_be(&self, candidate: &CandidateEvent) -> bool {
        self.content.as_ref().is_none_or(|(event_type, payload)| {
            event_type.same_content(candidate.event_type()) && payload == candidate.payload()
        })
    }
}

/// What the judge decided about an append that it accepted.
#[derive(Debug)]
pub enum Verdict {
    /// Everything is known: nothing is written, but a command that is new to the store is recorded with this result.
    Known {
        /// The result.
        appended: Appended,
        /// Whether the append carries a command that the store has not recorded yet.
        remember: bool,
    },
    /// These events are to be written.
    Write(Plan),
}

/// Which events of an append are written, and where.
#[derive(Debug)]
pub struct Plan {
    /// The position and time of the log's end before the append.
    head: Position,
    time: Timestamp,
    streams: OneOrMany<PlannedStream>,
    /// The new revisions of the cells.
    cells: Vec<u64>,
}

/// The part of a plan for one stream.
#[derive(Debug)]
pub struct PlannedStream {
    /// The version before the append.
    pub before: Version,
    /// The events to write, as indices into the stream's events; [`None`] for all of them.
    pub chosen: Option<Vec<usize>>,
    /// The number of events that are known and skipped.
    known: usize,
    /// The number of events to write.
    pub count: usize,
}

/// One event to write.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PlannedEvent<'a> {
    /// The stream to write it to.
    pub stream: &'a StreamId,
    /// The version it gets.
    pub version: Version,
    /// The position it gets.
    pub position: Position,
    /// What to write.
    pub event: &'a CandidateEvent,
}

/// One cell to set.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PlannedCell<'a> {
    /// The cell.
    pub key: &'a CellKey,
    /// The revision it gets.
    pub revision: u64,
    /// The value it gets; [`None`] if it is removed.
    pub value: Option<&'a Bytes>,
}

impl PlannedEvent<'_> {
    /// The event as it will be stored and read back.
    pub fn stored(&self, store: StoreId, time: Timestamp) -> StoredEvent {
        StoredEvent::new(store, self.stream.clone(), self.version, self.position, time, self.event)
    }
}

impl Plan {
    /// One part for each stream of the append, in its order.
    pub fn streams(&self) -> &[PlannedStream] {
        self.streams.as_slice()
    }

    /// The number of events to write.
    pub fn event_count(&self) -> usize {
        self.streams().iter().map(|stream| stream.count).sum()
    }

    /// The events to write, in the order of their positions.
    pub fn events<'a>(&'a self, append: &'a Append) -> impl Iterator<Item = PlannedEvent<'a>> {
        let mut position = self.head;
        let of_streams = append.streams.iter().zip(self.streams());
        let events = of_streams.flat_map(|(write, planned)| {
            planned.events(write).zip(1..).map(move |(event, i)| (&write.stream, planned.before.plus(i), event))
        });
        events.map(move |(stream, version, event)| {
            position = position.next();
            PlannedEvent { stream, version, position, event }
        })
    }

    /// The cells to set.
    pub fn cells<'a>(&'a self, append: &'a Append) -> impl Iterator<Item = PlannedCell<'a>> {
        let cells = append.cells.iter().zip(&self.cells);
        cells.map(|(CellWrite { key, value, .. }, revision)| PlannedCell {
            key,
            revision: *revision,
            value: value.as_ref(),
        })
    }

    /// What the append returns once the plan is written, given the time on the store's clock.
    ///
    /// [`Appended::time`] is the time to store with the events: `now`, or the log's last time if the clock is behind.
    pub fn appended(&self, append: &Append, now: Timestamp) -> Appended {
        let streams = append
            .streams
            .iter()
            .zip(self.streams())
            .map(|(write, planned)| StreamAppended {
                stream: write.stream.clone(),
                first: if planned.count == 0 { planned.before } else { planned.before.next() },
                last: planned.before.plus(planned.count as u64),
                written: planned.count,
                known: planned.known,
            })
            .collect();
        let last = self.head.plus(self.event_count() as u64);
        let mut appended = Appended::new(Outcome::Written, streams, last, now.max(self.time));
        appended.clock_behind = self.time.since(now);
        appended.cells.clone_from(&self.cells);
        appended
    }
}

impl PlannedStream {
    /// The events to write of `write`, in order.
    pub fn events<'a>(&'a self, write: &'a StreamWrite) -> impl Iterator<Item = &'a CandidateEvent> {
        let all = if self.chosen.is_none() { write.events.as_slice() } else { &[] };
        let chosen = self.chosen.iter().flatten().filter_map(|i| write.events.get(*i));
        all.iter().chain(chosen)
    }
}

/// Judges an append by the facts: first the command key, then the ids, then the expectations, conditions and cells together.
///
/// Ids come before expectations and conditions so that a caller can always retry: the retry of a write that succeeded
/// finds the stream further on than it expects, and its own events may match its conditions.
///
/// # Errors
///
/// [`AppendError::CommandKeyReused`], [`AppendError::IdReused`], [`AppendError::PartlyKnown`],
/// [`AppendError::Tombstoned`], [`AppendError::Conflict`], [`InvalidAppend::IdTwice`]; [`StoreError::Internal`] if an
/// answer is missing.
pub fn judge(append: &Append, facts: &Facts) -> Result<Verdict, AppendError> {
    if let Some(command) = &append.command
        && let Some(record) = &facts.command
    {
        if record.command.fingerprint != command.fingerprint {
            return Err(AppendError::CommandKeyReused { key: command.key.clone() });
        }
        let appended = Appended { outcome: Outcome::AlreadyWritten, cells: Vec::new(), ..record.appended.clone() };
        return Ok(Verdict::Known { appended, remember: false });
    }
    facts.answer(append)?;
    let found = find_known(append, facts)?;
    let known: usize = found.iter().map(|stream| stream.known.len()).sum();
    let new: usize = found.iter().map(|stream| stream.new.len()).sum();
    if known > 0 && new == 0 {
        return Ok(Verdict::Known {
            appended: already_written(append, &found, facts),
            remember: append.command.is_some(),
        });
    }
    if known > 0 {
        let mut written = append.streams.iter().filter(|write| !write.events.is_empty());
        let tolerated = match (written.next(), written.next()) {
            (Some(only), None) => only.expected.tolerates_known_events(),
            _ => false,
        };
        if !tolerated {
            return Err(AppendError::PartlyKnown { known, new });
        }
    }
    plan(append, &found, facts).map(Verdict::Write)
}

/// Judges an append as if none of its ids were known, without having looked them up; [`None`] if it could not be
/// written even then.
///
/// For engines with a unique index that detects a known id when the event is written. They write by this plan; if there
/// is none, or the index rejects an event, they look up the ids and [`judge`] again. If it does not, both plans are the
/// same.
pub fn judge_as_unknown(append: &Append, facts: &Facts) -> Option<Plan> {
    if append.command.is_some() || facts.answer(append).is_err() {
        return None;
    }
    plan(append, &[], facts).ok()
}

/// Checks the expectations, the conditions and the cells.
fn plan(append: &Append, found: &[Found<'_>], facts: &Facts) -> Result<Plan, AppendError> {
    let mut conflicts = Vec::new();
    let mut streams = OneOrMany::default();
    for (i, (write, StreamFacts { head, .. })) in append.streams.iter().zip(facts.streams()).enumerate() {
        if head.state != StreamState::Active && !write.events.is_empty() {
            return Err(AppendError::Tombstoned { stream: write.stream.clone() });
        }
        let actual = head.version;
        if !write.expected.holds(actual) {
            conflicts.push(Conflict::stream(write.stream.clone(), write.expected, actual));
        }
        let (chosen, known, count) = match found.get(i) {
            Some(found) if found.new.len() < write.events.len() => {
                (Some(found.new.clone()), found.known.len(), found.new.len())
            }
            _ => (None, 0, write.events.len()),
        };
        streams.push(PlannedStream { before: actual, chosen, known, count });
    }
    for (condition, found) in append.conditions.iter().zip(facts.conditions()) {
        if let Some(position) = found {
            conflicts.push(Conflict::condition(condition.clone(), *position));
        }
    }
    let mut cells = Vec::with_capacity(append.cells.len());
    for (CellWrite { key, expected, .. }, facts) in append.cells.iter().zip(facts.cells()) {
        if facts.revision() != *expected {
            conflicts.push(Conflict::cell(key.clone(), *expected, facts.revision()));
        }
        cells.push(facts.next());
    }
    if !conflicts.is_empty() {
        return Err(AppendError::Conflict { conflicts });
    }
    Ok(Plan { head: facts.head, time: facts.time, streams, cells })
}

/// The events of one stream of an append, separated by their ids.
struct Found<'a> {
    known: Vec<&'a KnownEvent>,
    /// Indices of the events that are new, each id once.
    new: Vec<usize>,
}

/// Separates known events from new ones; empty for an append without ids.
fn find_known<'a>(append: &Append, facts: &'a Facts) -> Result<Vec<Found<'a>>, AppendError> {
    if !append.has_ids() {
        return Ok(Vec::new());
    }
    let mut found = Vec::with_capacity(append.streams.len());
    for (StreamWrite { stream, events, .. }, facts) in append.streams.iter().zip(facts.streams()) {
        let by_id: HashMap<&EventId, &KnownEvent> = facts.known.iter().map(|event| (&event.id, event)).collect();
        let mut known = Vec::new();
        let mut new = Vec::with_capacity(events.len());
        let mut first_with: HashMap<&EventId, &CandidateEvent> = HashMap::with_capacity(events.len());
        for (i, event) in events.iter().enumerate() {
            let Some(id) = event.id() else { continue };
            if let Some(first) = first_with.insert(id, event) {
                if !first.event_type().same_content(event.event_type()) || first.payload() != event.payload() {
                    return Err(InvalidAppend::IdTwice { stream: stream.clone(), id: id.clone() }.into());
                }
                continue;
            }
            match by_id.get(id) {
                Some(event_known) if event_known.may_be(event) => known.push(*event_known),
                Some(KnownEvent { version, .. }) => {
                    return Err(AppendError::IdReused { stream: stream.clone(), id: id.clone(), version: *version });
                }
                None => new.push(i),
            }
        }
        found.push(Found { known, new });
    }
    Ok(found)
}

/// The result of the first write, reconstructed from the events that are known.
fn already_written(append: &Append, found: &[Found<'_>], facts: &Facts) -> Appended {
    let mut streams = Vec::with_capacity(append.streams.len());
    let mut last: Option<&KnownEvent> = None;
    for ((write, found), facts) in append.streams.iter().zip(found).zip(facts.streams()) {
        let versions = || found.known.iter().map(|event| event.version);
        let (first, end) = if let (Some(first), Some(end)) = (versions().min(), versions().max()) {
            (first, end)
        } else {
            (facts.head.version, facts.head.version)
        };
        let known = found.known.len();
        streams.push(StreamAppended { stream: write.stream.clone(), first, last: end, written: known, known });
        last = found.known.iter().copied().chain(last).max_by_key(|event| event.position);
    }
    let (position, time) = last.map_or((facts.head, facts.time), |event| (event.position, event.time));
    Appended::new(Outcome::AlreadyWritten, streams, position, time)
}
