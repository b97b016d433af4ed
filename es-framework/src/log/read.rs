//! What an engine is asked to read, one page at a time.

use super::error::StoreError;
use super::event::StoredEvent;
use super::filter::Filter;
use super::head::{StreamHead, StreamState};
use super::name::{ProjectionName, StreamId};
use super::position::{Position, Version};
use super::snapshot::Snapshot;

/// The events of one page, by default.
pub const PAGE_EVENTS: usize = 1_000;
/// The payload and metadata bytes of one page, by default; a page holds at least one event, however large.
pub const PAGE_BYTES: usize = 4 << 20;
/// The rows that one page looks at, however few of them match.
pub const PAGE_SCAN: usize = 10_000;

/// The order of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// From the oldest to the newest.
    #[default]
    Forward,
    /// From the newest to the oldest.
    Backward,
}

/// One page to be read of a stream or of `@all`.
///
/// Places are versions in a stream and positions in `@all`; both bounds are exclusive.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Read {
    /// The stream, or `@all`.
    pub stream: StreamId,
    /// The order.
    pub direction: Direction,
    /// Only events above this place; 0 for all.
    pub after: u64,
    /// Only events below this place.
    pub before: Option<u64>,
    /// Only events that pass.
    pub filter: Filter,
    /// At most so many events, 0 to ask for [`Page::head`] only; [`PAGE_EVENTS`] by default.
    pub events: usize,
    /// At most so many payload and metadata bytes, but at least one event; [`PAGE_BYTES`] by default.
    pub bytes: usize,
    /// Whether the page is asked for before it is needed: an engine may serve others first. Not by default.
    pub ahead: bool,
}

impl Read {
    /// Asks for the first page of a stream or of `@all`, forward.
    pub fn new(stream: StreamId) -> Self {
        Self {
            stream,
            direction: Direction::Forward,
            after: 0,
            before: None,
            filter: Filter::new(),
            events: PAGE_EVENTS,
            bytes: PAGE_BYTES,
            ahead: false,
        }
    }

    /// Whether `place` lies between the bounds.
    pub fn covers(&self, place: u64) -> bool {
        place > self.after && self.before.is_none_or(|before| place < before)
    }
}

/// One page of a read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Page {
    /// The events that passed the filter, in the order of the read.
    pub events: Vec<StoredEvent>,
    /// The place up to which everything was looked at: go on after it (or before it, backward).
    pub scanned: u64,
    /// Whether the read is through: nothing that was in the log when this page was read lies beyond it.
    pub end: bool,
    /// The stream's version, or the position of the log's head, when this page was read.
    pub head: u64,
    /// For a stream: where it ended and began when this page was read; its version is [`Self::head`]. [`None`] for `@all`.
    pub stream: Option<StreamHead>,
    /// For `@all`, forward: the last event at or below [`Self::scanned`], whether it passed the filter or not.
    pub mark: Option<Mark>,
}

impl Page {
    /// Begins a page of `@all`, whose newest event is at `head`.
    pub fn of_all(head: Position) -> Self {
        Self { head: head.get(), ..Self::default() }
    }

    /// Begins a page of a stream with this head.
    pub fn of_stream(head: StreamHead) -> Self {
        Self { head: head.version.get(), stream: Some(head), ..Self::default() }
    }

    /// Fills a page with what `read` asks for: `events` are those between its bounds, all of them, in the order of the read.
    ///
    /// For engines that have their events at hand. It takes no more of them than it looks at; [`Self::mark`] is left to the
    /// engine.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the first event of the page does not fit its checksum. Before a later one that does not the page
    /// ends.
    pub fn fill<'e>(
        mut self,
        read: &Read,
        events: impl IntoIterator<Item = &'e StoredEvent>,
    ) -> Result<Self, StoreError> {
        let forward = read.direction == Direction::Forward;
        let low = read.after.min(self.head);
        let high = read.before.map_or(self.head, |before| before.saturating_sub(1).min(self.head)).max(low);
        if read.events == 0 {
            // Asked for the head only.
            self.end = low == high;
            self.scanned = if forward { read.after } else { high + 1 };
            return Ok(self);
        }
        self.end = true;
        self.scanned = if forward { high.max(read.after) } else { low + 1 };
        let mut bytes = 0;
        let mut last = None;
        for (looked_at, event) in events.into_iter().enumerate() {
            let wanted = read.filter.matches(&event.header());
            let damaged = wanted && event.computed_checksum() != event.checksum;
            bytes += if wanted { event.bytes() } else { 0 };
            let full = !self.events.is_empty() && (self.events.len() >= read.events || bytes > read.bytes);
            if let Some(last) = last
                && (looked_at == PAGE_SCAN || wanted && full || damaged)
            {
                (self.end, self.scanned) = (false, last);
                break;
            }
            if damaged {
                let reason = "the checksum does not fit".to_owned();
                return Err(StoreError::Corrupt { position: Some(event.position), reason });
            }
            if wanted {
                self.events.push(event.clone());
            }
            last = Some(if read.stream.is_all() { event.position.get() } else { event.version.get() });
        }
        Ok(self)
    }
}

/// A position and the checksum of the event there, by which a consumer recognises its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The position of an event.
    pub position: Position,
    /// The checksum of that event.
    pub checksum: u32,
}

/// A snapshot and the events after it, to be loaded in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// The stream.
    pub stream: StreamId,
    /// The snapshot's name; [`None`] to load events only.
    pub snapshot: Option<ProjectionName>,
    /// Nothing above this version, neither snapshot nor events.
    pub until: Option<Version>,
    /// At most so many events on the page, 0 to load the snapshot only; [`PAGE_EVENTS`] by default.
    pub events: usize,
}

impl Load {
    /// Asks for the newest snapshot of this name and the events after it.
    pub fn new(stream: StreamId, snapshot: Option<ProjectionName>) -> Self {
        Self { stream, snapshot, until: None, events: PAGE_EVENTS }
    }
}

/// What [`Load`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Loaded {
    /// The snapshot, unless there is none at or below the version asked for.
    pub snapshot: Option<Snapshot>,
    /// The first page of the events after the snapshot (or of all events), forward; more pages follow unless it says
    /// [`Page::end`].
    pub page: Page,
}

impl Loaded {
    /// The head of the stream when it was loaded; [`None`] for `@all`, and for a load of the snapshot only.
    pub fn head(&self) -> Option<StreamHead> {
        self.page.stream
    }
}

/// A page of the list of streams.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListStreams {
    /// Only streams of this category.
    pub category: Option<String>,
    /// Only streams that come after this one.
    pub after: Option<StreamId>,
    /// At most so many; 1,000 by default.
    pub limit: usize,
}

impl Default for ListStreams {
    fn default() -> Self {
        Self { category: None, after: None, limit: 1_000 }
    }
}

impl ListStreams {
    /// Asks for the first page of all streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only streams of this category.
    #[must_use]
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.category = Some(category.into());
        self
    }

    /// Only streams that come after this one, the last of the page before.
    #[must_use]
    pub fn after(mut self, stream: impl Into<StreamId>) -> Self {
        self.after = Some(stream.into());
        self
    }

    /// At most so many.
    #[must_use]
    pub fn limit(mut self, streams: usize) -> Self {
        self.limit = streams;
        self
    }
}

/// A stream and its head.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// The stream.
    pub stream: StreamId,
    /// Its version.
    pub version: Version,
    /// Its events at and below this version were removed; see [`StreamHead::floor`].
    pub floor: Version,
    /// Whether it can be written.
    pub state: StreamState,
}

impl StreamInfo {
    /// Creates the entry of a stream with this head.
    pub fn new(stream: StreamId, head: impl Into<StreamHead>) -> Self {
        let StreamHead { version, floor, state } = head.into();
        Self { stream, version, floor, state }
    }

    /// Its head.
    pub fn head(&self) -> StreamHead {
        StreamHead { version: self.version, floor: self.floor, state: self.state }
    }
}
