//! What becomes of an append: one judge for all engines, called inside the write transaction and nowhere else.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::append::{Append, Appended, CommandRecord, Outcome, StreamAppended, StreamWrite};
use super::error::{AppendError, Conflict, InvalidAppend, StoreError};
use super::event::{CandidateEvent, EventType};
use super::head::StreamHead;
use super::id::EventId;
use super::name::{CommandKey, StreamId};
use super::position::{Position, Version};
use super::time::Timestamp;

/// What the judge asks the log; answered from within the write transaction.
pub trait LogView {
    /// The last position and time of the log.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the log cannot be read.
    fn head(&mut self) -> Result<(Position, Timestamp), StoreError>;

    /// The head of a stream.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the log cannot be read.
    fn stream_head(&mut self, stream: &StreamId) -> Result<StreamHead, StoreError>;

    /// The event of a stream that has this id.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the log cannot be read.
    fn event(&mut self, stream: &StreamId, id: &EventId) -> Result<Option<KnownEvent>, StoreError>;

    /// The command that was carried out under this key.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the log cannot be read.
    fn command(&mut self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError>;
}

/// An event that was found by its id.
#[derive(Debug, Clone)]
pub struct KnownEvent {
    /// Its version.
    pub version: Version,
    /// Its position.
    pub position: Position,
    /// Its time.
    pub time: Timestamp,
    /// Its type and payload; [`None`] if it was removed and only its place is left.
    pub content: Option<(Arc<EventType>, Bytes)>,
}

impl KnownEvent {
    fn may_be(&self, candidate: &CandidateEvent) -> bool {
        self.content.as_ref().is_none_or(|(event_type, payload)| {
            event_type.same_content(candidate.event_type()) && payload == candidate.payload()
        })
    }
}

/// What the judge decided about an append that it let through.
#[derive(Debug)]
pub enum Verdict {
    /// All is known: nothing is written, but a command that is new to the store is remembered with this answer.
    Known {
        /// The answer.
        appended: Appended,
        /// Whether the append carries a command that the store does not remember yet.
        remember: bool,
    },
    /// These events are to be written.
    Write(Plan),
}

/// Which events of an append are written, and as which versions.
#[derive(Debug)]
pub struct Plan {
    streams: Vec<PlannedStream>,
}

/// The part of a plan that concerns one stream.
#[derive(Debug)]
pub struct PlannedStream {
    /// The version before the append.
    pub before: Version,
    /// The events to write, as indices into the stream's events; [`None`] for all of them.
    pub chosen: Option<Vec<usize>>,
    /// How many events are known and left alone.
    known: usize,
    /// How many events are written.
    pub count: usize,
}

impl Plan {
    /// One part for each stream of the append, in its order.
    pub fn streams(&self) -> &[PlannedStream] {
        &self.streams
    }

    /// The number of events to write.
    pub fn event_count(&self) -> usize {
        self.streams.iter().map(|stream| stream.count).sum()
    }

    /// The events to write, each with its stream and version, in the order of their positions.
    pub fn events<'a>(
        &'a self,
        append: &'a Append,
    ) -> impl Iterator<Item = (&'a StreamWrite, Version, &'a CandidateEvent)> {
        append.streams.iter().zip(&self.streams).flat_map(|(write, planned)| {
            planned.events(write).enumerate().map(move |(i, event)| (write, planned.before.plus(i as u64 + 1), event))
        })
    }

    /// The answer, once the last position and the time are known.
    pub fn appended(&self, append: &Append, last: Position, time: Timestamp) -> Appended {
        let streams = append
            .streams
            .iter()
            .zip(&self.streams)
            .map(|(write, planned)| StreamAppended {
                stream: write.stream.clone(),
                first: if planned.count == 0 { planned.before } else { planned.before.next() },
                last: planned.before.plus(planned.count as u64),
                written: planned.count,
                known: planned.known,
            })
            .collect();
        Appended::new(Outcome::Written, streams, last, time)
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

/// Judges an append: first the command key, then the ids, then the expectations.
///
/// Ids come before expectations so that a caller can always retry: a retry of a write that succeeded finds the stream
/// further on than it expects.
///
/// # Errors
///
/// [`AppendError::CommandKeyReused`], [`AppendError::IdReused`], [`AppendError::PartlyKnown`],
/// [`AppendError::Conflict`], [`InvalidAppend::IdTwice`], and whatever reading the log answers.
pub fn judge(append: &Append, log: &mut impl LogView) -> Result<Verdict, AppendError> {
    if let Some(command) = &append.command
        && let Some(record) = log.command(&command.key)?
    {
        if record.command.fingerprint != command.fingerprint {
            return Err(AppendError::CommandKeyReused { key: command.key.clone() });
        }
        let appended = Appended { outcome: Outcome::AlreadyWritten, ..record.appended };
        return Ok(Verdict::Known { appended, remember: false });
    }
    let found = find_known(append, log)?;
    let known: usize = found.iter().map(|stream| stream.known.len()).sum();
    let new: usize = found.iter().map(|stream| stream.new.len()).sum();
    if known > 0 && new == 0 {
        return Ok(Verdict::Known {
            appended: already_written(append, &found, log)?,
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
    plan(append, &found, log).map(Verdict::Write)
}

/// Judges an append as if none of its ids were known; [`None`] if it could not be written even then.
///
/// For engines whose unique index finds a known id when the event is written: they write by this plan, and judge again by
/// [`judge`] if the index refuses. Where it does not refuse, both plans are the same.
///
/// # Errors
///
/// [`StoreError`] if the log cannot be read.
pub fn judge_as_unknown(append: &Append, log: &mut impl LogView) -> Result<Option<Plan>, StoreError> {
    if append.command.is_some() {
        return Ok(None);
    }
    match plan(append, &[], log) {
        Ok(plan) => Ok(Some(plan)),
        Err(AppendError::Store(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Holds the expectations against the log.
fn plan(append: &Append, found: &[Found], log: &mut impl LogView) -> Result<Plan, AppendError> {
    let mut conflicts = Vec::new();
    let mut streams = Vec::with_capacity(append.streams.len());
    for (i, write) in append.streams.iter().enumerate() {
        let actual = log.stream_head(&write.stream)?.version;
        if !write.expected.holds(actual) {
            conflicts.push(Conflict { stream: write.stream.clone(), expected: write.expected, actual });
        }
        let (chosen, known, count) = match found.get(i) {
            Some(found) if found.new.len() < write.events.len() => {
                (Some(found.new.clone()), found.known.len(), found.new.len())
            }
            _ => (None, 0, write.events.len()),
        };
        streams.push(PlannedStream { before: actual, chosen, known, count });
    }
    if !conflicts.is_empty() {
        return Err(AppendError::Conflict { conflicts });
    }
    Ok(Plan { streams })
}

/// The events of one stream of an append, told apart by their ids.
struct Found {
    known: Vec<KnownEvent>,
    /// Indices of the events that are new, each id once.
    new: Vec<usize>,
}

/// Looks the ids up; empty for an append without ids.
fn find_known(append: &Append, log: &mut impl LogView) -> Result<Vec<Found>, AppendError> {
    if !append.has_ids() {
        return Ok(Vec::new());
    }
    let mut found = Vec::with_capacity(append.streams.len());
    for StreamWrite { stream, events, .. } in &append.streams {
        let fresh = events.is_empty() || !log.stream_head(stream)?.exists();
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
            match if fresh { None } else { log.event(stream, id)? } {
                Some(event_known) if event_known.may_be(event) => known.push(event_known),
                Some(KnownEvent { version, .. }) => {
                    return Err(AppendError::IdReused { stream: stream.clone(), id: id.clone(), version });
                }
                None => new.push(i),
            }
        }
        found.push(Found { known, new });
    }
    Ok(found)
}

/// The answer of the first write, put together from the events that are known.
fn already_written(append: &Append, found: &[Found], log: &mut impl LogView) -> Result<Appended, AppendError> {
    let mut streams = Vec::with_capacity(append.streams.len());
    let mut last: Option<&KnownEvent> = None;
    for (write, found) in append.streams.iter().zip(found) {
        let versions = || found.known.iter().map(|event| event.version);
        let (first, end) = if let (Some(first), Some(end)) = (versions().min(), versions().max()) {
            (first, end)
        } else {
            let version = log.stream_head(&write.stream)?.version;
            (version, version)
        };
        let known = found.known.len();
        streams.push(StreamAppended { stream: write.stream.clone(), first, last: end, written: known, known });
        last = found.known.iter().chain(last).max_by_key(|event| event.position);
    }
    let (position, time) = match last {
        Some(event) => (event.position, event.time),
        None => log.head()?,
    };
    Ok(Appended::new(Outcome::AlreadyWritten, streams, position, time))
}
