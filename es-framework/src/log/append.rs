//! What an append requests and what it returns.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::cell::CellWrite;
use super::error::{AppendError, InvalidAppend};
use super::event::{CandidateEvent, IntoCandidates};
use super::expected_version::ExpectedVersion;
use super::limits::Limits;
use super::name::{CellKey, CommandKey, StreamId};
use super::position::{Position, Version};
use super::query::{AppendCondition, Query};
use super::tag::MAX_TAGS;
use super::time::Timestamp;

/// The maximum number of conditions of one append.
pub const MAX_CONDITIONS: usize = 64;
/// The maximum number of cells that one append sets.
pub const MAX_CELLS: usize = 256;

/// The part of an append that concerns one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamWrite {
    /// The stream.
    pub stream: StreamId,
    /// What the caller expects of it.
    pub expected: ExpectedVersion,
    /// The events to write, in order; none to check the expectation only.
    pub events: Vec<CandidateEvent>,
}

/// A command that an append carries out under a key, so that carrying it out twice is detected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedCommand {
    /// The key, unique in the store.
    pub key: CommandKey,
    /// What kind of command it is, for people and tools; kept in the record, never compared.
    pub name: Option<Arc<str>>,
    /// Identifies the content of the command; the same key with another fingerprint is refused.
    pub fingerprint: Fingerprint,
}

impl KeyedCommand {
    /// Creates a command from its key and fingerprint, without a name.
    pub fn new(key: CommandKey, fingerprint: Fingerprint) -> Self {
        Self { key, name: None, fingerprint }
    }

    /// Sets the name of the command.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// 128 bits that stand for a longer text: a command, or the shape of a state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Computes the fingerprint of some bytes: SipHash-1-3 with 128 bits and a zero key.
    pub fn of(bytes: &[u8]) -> Self {
        Self(siphasher::sip128::SipHasher13::new().hash(bytes).as_u128())
    }

    /// Creates a fingerprint from 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The fingerprint as 16 bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What to do when the queue of waiting writes is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// Wait for a place, in the order in which writes arrive. The append is written once there is one, whether its
    /// future is polled or not, unless the future is dropped before.
    #[default]
    Wait,
    /// Return [`AppendError::Overloaded`] at once.
    Fail,
}

/// One atomic write to one or more streams.
///
/// It may depend on what other streams hold, without writing to them: on their versions ([`Append::check`]), and on
/// there being no event that matches a query ([`Append::unless`]).
///
/// ```
/// use es_framework::{Append, CandidateEvent, ExpectedVersion, StreamId};
///
/// let append = Append::to(
///     StreamId::new("account-alice")?,
///     ExpectedVersion::Any,
///     CandidateEvent::new("account.withdrawn", "500")?,
/// )
/// .and(StreamId::new("account-bob")?, ExpectedVersion::StreamExists, CandidateEvent::new("account.deposited", "500")?)
/// .check(StreamId::new("bank")?, ExpectedVersion::StreamExists);
/// assert_eq!(append.streams.len(), 3);
/// # Ok::<(), es_framework::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
#[non_exhaustive]
pub struct Append {
    /// The streams, each at most once.
    pub streams: Vec<StreamWrite>,
    /// The conditions, each of which must hold.
    pub conditions: Vec<AppendCondition>,
    /// The cells to set, each at most once.
    pub cells: Vec<CellWrite>,
    /// The command it carries out, if that is to be recorded.
    pub command: Option<KeyedCommand>,
    /// What to do when the queue of waiting writes is full.
    pub when_full: WhenFull,
}

impl Append {
    /// Writes events to a stream.
    pub fn to(stream: StreamId, expected: ExpectedVersion, events: impl IntoCandidates) -> Self {
        Self::default().and(stream, expected, events)
    }

    /// Also writes events to another stream, all or nothing.
    pub fn and(mut self, stream: StreamId, expected: ExpectedVersion, events: impl IntoCandidates) -> Self {
        self.streams.push(StreamWrite { stream, expected, events: events.into_candidates() });
        self
    }

    /// Also checks another stream, without writing to it.
    pub fn check(self, stream: StreamId, expected: ExpectedVersion) -> Self {
        self.and(stream, expected, Vec::new())
    }

    /// Also requires that no event that matches the query was written after this position; usually the log's head when
    /// the caller read what it decided by. It is judged in the transaction that writes the events, so nothing can come
    /// in between. Without streams and events, the append only checks.
    ///
    /// ```
    /// use es_framework::{
    ///     Append, AppendError, CandidateEvent, Criterion, ExpectedVersion, Filter, MemoryStore, Position, Query,
    ///     StreamId, Tag,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryStore::new();
    /// // A user name is free as long as no event has its tag.
    /// let name = Tag::of("username", "ann")?;
    /// let taken = Query::from(Criterion::tags([&name]));
    /// let register = |user: &str| -> Result<Append, Box<dyn std::error::Error>> {
    ///     let registered = CandidateEvent::new("user.registered", "{}")?.with_tags([name.clone()]);
    ///     let append = Append::to(StreamId::new(user)?, ExpectedVersion::NoStream, registered);
    ///     Ok(append.unless(&taken, Position::ZERO))
    /// };
    /// store.append(register("user-1")?).await?;
    /// let refused = store.append(register("user-2")?).await.unwrap_err();
    /// assert!(matches!(refused, AppendError::Conflict { .. }));
    /// assert_eq!(store.all().read().filter(Filter::new().query(taken)).await?.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn unless(mut self, query: impl Into<Query>, after: Position) -> Self {
        self.conditions.push(AppendCondition::new(query, after));
        self
    }

    /// Also sets a cell (or, with [`None`], removes it), if it is at the `expected` revision, 0 for a cell that does not
    /// exist. Events and cells are written together or not at all; an append may also set cells without writing events.
    ///
    /// A retry whose events or command are known sets no cell again. [`Appended::cells`] has the new revisions.
    ///
    /// ```
    /// use es_framework::{Append, AppendError, CandidateEvent, CellKey, ExpectedVersion, MemoryStore, StreamId};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryStore::new();
    /// let (inbox, seen) = (StreamId::new("inbox")?, CellKey::new("imported/orders.csv")?);
    /// // The lines of a file become events, and the cell says how many of them did.
    /// let import = |line: &'static str, revision: u64| -> Result<Append, Box<dyn std::error::Error>> {
    ///     let imported = CandidateEvent::new("imported", line)?;
    ///     let append = Append::to(inbox.clone(), ExpectedVersion::Any, imported);
    ///     Ok(append.set_cell(seen.clone(), revision, Some("1 line".into())))
    /// };
    /// let appended = store.append(import("first line", 0)?).await?;
    /// assert_eq!(appended.cells, [1]);
    /// // Another importer that knows nothing of the first one.
    /// let refused = store.append(import("first line", 0)?).await.unwrap_err();
    /// assert!(matches!(refused, AppendError::Conflict { .. }));
    /// assert_eq!(store.stream(inbox.clone()).version().await?, 1);
    /// # Ok(()) }
    /// ```
    pub fn set_cell(mut self, key: CellKey, expected: u64, value: Option<Bytes>) -> Self {
        self.cells.push(CellWrite::new(key, expected, value));
        self
    }

    /// Records that this append carries out a command.
    pub fn command(mut self, command: KeyedCommand) -> Self {
        self.command = Some(command);
        self
    }

    /// Returns [`AppendError::Overloaded`] instead of waiting when the queue of waiting writes is full.
    pub fn fail_when_full(mut self) -> Self {
        self.when_full = WhenFull::Fail;
        self
    }

    /// The number of events.
    pub fn event_count(&self) -> usize {
        self.streams.iter().map(|write| write.events.len()).sum()
    }

    /// Whether its events have ids, which identify a retry; all of them or none.
    pub fn has_ids(&self) -> bool {
        self.streams.iter().filter_map(|write| write.events.first()).any(|event| event.id().is_some())
    }

    /// The bytes that count against [`Limits::append_bytes`] and against the queue: those of the events and the cells.
    pub fn bytes(&self) -> usize {
        let events: usize = self.streams.iter().flat_map(|write| &write.events).map(CandidateEvent::bytes).sum();
        events + self.cells.iter().map(CellWrite::bytes).sum::<usize>()
    }

    /// The memory that the append takes while it waits, for queues that are bounded in bytes: [`Self::bytes`] and the
    /// conditions, plus 128 bytes for each event, stream and cell, because there are events without any bytes.
    pub fn cost(&self) -> usize {
        let conditions: usize = self.conditions.iter().map(|condition| 64 + condition.query.cost()).sum();
        self.bytes() + conditions + 128 * (self.event_count() + self.streams.len() + self.cells.len())
    }

    /// Rejects what no state of the store could make valid; engines call it before they queue the append.
    ///
    /// # Errors
    ///
    /// [`InvalidAppend`], as an [`AppendError`].
    pub fn validate(&self, limits: &Limits) -> Result<(), AppendError> {
        let mut seen = HashSet::with_capacity(if self.streams.len() > 1 { self.streams.len() } else { 0 });
        let mut with_id = 0;
        let mut bytes = 0;
        for StreamWrite { stream, events, .. } in &self.streams {
            if stream.is_reserved() {
                return Err(InvalidAppend::ReservedStream { stream: stream.clone() }.into());
            }
            if self.streams.len() > 1 && !seen.insert(stream) {
                return Err(InvalidAppend::StreamTwice { stream: stream.clone() }.into());
            }
            for event in events {
                let payload = event.payload().len();
                if payload > limits.payload_bytes {
                    let limit = limits.payload_bytes;
                    return Err(InvalidAppend::PayloadTooLarge { bytes: payload, limit }.into());
                }
                let metadata = event.metadata().map_or(0, |metadata| metadata.as_str().len());
                if metadata > limits.metadata_bytes {
                    let limit = limits.metadata_bytes;
                    return Err(InvalidAppend::MetadataTooLarge { bytes: metadata, limit }.into());
                }
                check_tags(event)?;
                if let Some(id) = event.id() {
                    if id.is_derived() {
                        return Err(InvalidAppend::DerivedId { id: id.clone() }.into());
                    }
                    with_id += 1;
                }
                bytes += event.bytes();
            }
        }
        if self.conditions.len() > MAX_CONDITIONS {
            let conditions = self.conditions.len();
            return Err(InvalidAppend::TooManyConditions { conditions, limit: MAX_CONDITIONS }.into());
        }
        for condition in &self.conditions {
            condition.query.validate().map_err(InvalidAppend::from)?;
        }
        self.check_cells()?;
        bytes += self.cells.iter().map(CellWrite::bytes).sum::<usize>();
        let events = self.event_count();
        if events > limits.append_events {
            return Err(InvalidAppend::TooManyEvents { events, limit: limits.append_events }.into());
        }
        if bytes > limits.append_bytes {
            return Err(InvalidAppend::TooManyBytes { bytes, limit: limits.append_bytes }.into());
        }
        if with_id != 0 && with_id != events {
            return Err(InvalidAppend::MixedIds { with: with_id, without: events - with_id }.into());
        }
        Ok(())
    }
}

impl Append {
    /// Checks the number of cells, and that each is set once.
    fn check_cells(&self) -> Result<(), InvalidAppend> {
        let cells = self.cells.len();
        if cells > MAX_CELLS {
            return Err(InvalidAppend::TooManyCells { cells, limit: MAX_CELLS });
        }
        for (n, CellWrite { key, .. }) in self.cells.iter().enumerate() {
            if self.cells.iter().take(n).any(|before| before.key == *key) {
                return Err(InvalidAppend::CellTwice { key: key.clone() });
            }
        }
        Ok(())
    }
}

/// Checks the number of tags, and that each is there once.
fn check_tags(event: &CandidateEvent) -> Result<(), InvalidAppend> {
    let tags = event.tags().as_slice();
    if tags.len() > MAX_TAGS {
        return Err(InvalidAppend::TooManyTags { tags: tags.len(), limit: MAX_TAGS });
    }
    for (n, tag) in tags.iter().enumerate() {
        // They are few, so comparing each with those before it is faster than a set.
        if tags.iter().take(n).any(|before| before == tag) {
            return Err(InvalidAppend::TagTwice { tag: tag.clone() });
        }
    }
    Ok(())
}

/// Whether an append was written now or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Events were written, or there were none to write.
    Written,
    /// Nothing was written: all events, or the command, were known. The result is that of the first write.
    AlreadyWritten,
}

/// What an append did to one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamAppended {
    /// The stream.
    pub stream: StreamId,
    /// The version of the first event; if no event was written or known, the stream's version.
    pub first: Version,
    /// The version of the last event, or the stream's version.
    pub last: Version,
    /// The number of events this append wrote (for [`Outcome::AlreadyWritten`], the number the first write had).
    pub written: usize,
    /// The number of events that were known before and skipped.
    pub known: usize,
}

impl StreamAppended {
    /// Creates a result; engines call it when they read a recorded command.
    pub fn new(stream: StreamId, first: Version, last: Version, written: usize, known: usize) -> Self {
        Self { stream, first, last, written, known }
    }
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// Whether it was written now or before.
    pub outcome: Outcome,
    /// What it did to each stream, in the order of the request.
    pub streams: Vec<StreamAppended>,
    /// The position of the last event; if no event was written or known, the head of the log. A projection that has
    /// reached it has seen everything this append saw.
    pub position: Position,
    /// The time stored with the events.
    pub time: Timestamp,
    /// The new revisions of the cells it set, in the order of the request; empty if nothing was written because
    /// everything was known.
    pub cells: Vec<u64>,
    /// How far the clock was behind the log; zero unless a clock was set back.
    pub clock_behind: Duration,
}

impl Appended {
    /// Creates a result.
    pub fn new(outcome: Outcome, streams: Vec<StreamAppended>, position: Position, time: Timestamp) -> Self {
        Self { outcome, streams, position, time, cells: Vec::new(), clock_behind: Duration::ZERO }
    }

    /// The version of the first stream after the append; [`Version::ZERO`] for an append without streams.
    pub fn version(&self) -> Version {
        self.streams.first().map_or(Version::ZERO, |stream| stream.last)
    }

    /// Whether nothing was written because everything was known.
    pub fn was_known(&self) -> bool {
        self.outcome == Outcome::AlreadyWritten
    }
}

/// The record of a command that was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandRecord {
    /// Its key and fingerprint.
    pub command: KeyedCommand,
    /// The result of the append that carried it out, without the revisions of its cells.
    pub appended: Appended,
}

impl CommandRecord {
    /// Creates a record.
    pub fn new(command: KeyedCommand, mut appended: Appended) -> Self {
        appended.cells = Vec::new();
        Self { command, appended }
    }
}
