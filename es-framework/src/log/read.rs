//! What an engine is requested to read, one page at a time.

use super::error::StoreError;
use super::event::StoredEvent;
use super::filter::Filter;
use super::head::{StreamHead, StreamState};
use super::name::{ProjectionName, StreamId};
use super::position::{Position, Version};
use super::snapshot::Snapshot;

/// The maximum number of events of one page, by default.
pub const PAGE_EVENTS: usize = 1_000;
/// The maximum payload and metadata bytes of one page, by default; a page holds at least one event, however large.
pub const PAGE_BYTES: usize = 4 << 20;
/// The maximum number of rows that one page examines, however few of them match.
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

/// A request for one page of a stream or of `@all`.
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
    /// Only events that pass this filter.
    pub filter: Filter,
    /// The maximum number of events, [`PAGE_EVENTS`] by default; 0 requests [`Page::head`] only.
    pub events: usize,
    /// The maximum payload and metadata bytes, but at least one event; [`PAGE_BYTES`] by default.
    pub bytes: usize,
    /// Whether the page is requested before it is needed, so that an engine may serve others first; `false` by default.
    pub ahead: bool,
    /// Whether only the number of events is requested: an engine may then leave them out and set [`Page::counted`]
    /// instead, without reading payloads; `false` by default. An engine that ignores it returns the events.
    pub count: bool,
}

impl Read {
    /// Requests the first page of a stream or of `@all`, forward.
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
            count: false,
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
    /// The number of events that passed the filter and were left out, because only their number was requested.
    pub counted: u64,
    /// The place up to which everything was examined: continue after it (or before it, backward).
    pub scanned: u64,
    /// Whether the read is complete: nothing that was in the log when this page was read lies beyond it.
    pub end: bool,
    /// The stream's version, or the position of the log's head, when this page was read.
    pub head: u64,
    /// For a stream: its head when this page was read, with [`Self::head`] as its version. [`None`] for `@all`.
    pub stream: Option<StreamHead>,
    /// For `@all`, forward: the last event at or below [`Self::scanned`], whether it passed the filter or not.
    pub mark: Option<Mark>,
}

impl Page {
    /// Creates an empty page of `@all`, whose newest event is at `head`.
    pub fn of_all(head: Position) -> Self {
        Self { head: head.get(), ..Self::default() }
    }

    /// Creates an empty page of a stream with this head.
    pub fn of_stream(head: StreamHead) -> Self {
        Self { head: head.version.get(), stream: Some(head), ..Self::default() }
    }

    /// Fills a page as `read` requests: `events` are all events between its bounds, in the order of the read. Those that
    /// an index has shown not to pass the filter may be left out.
    ///
    /// For engines that have their events at hand. It consumes only the events that it examines; [`Self::mark`] is left
    /// to the engine.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the first event of the page does not match its checksum. If a later one does not, the
    /// page ends before it.
    pub fn fill<'e>(
        mut self,
        read: &Read,
        events: impl IntoIterator<Item = &'e StoredEvent>,
    ) -> Result<Self, StoreError> {
        let forward = read.direction == Direction::Forward;
        let low = read.after.min(self.head);
        let high = read.before.map_or(self.head, |before| before.saturating_sub(1).min(self.head)).max(low);
        if read.events == 0 {
            // Only the head is requested.
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
            let damaged = wanted && !read.count && event.computed_checksum() != event.checksum;
            bytes += if wanted && !read.count { event.bytes() } else { 0 };
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
            if wanted && read.count {
                self.counted += 1;
            } else if wanted {
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

/// A request to load a snapshot and the events after it in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// The stream.
    pub stream: StreamId,
    /// The snapshot's name; [`None`] to load events only.
    pub snapshot: Option<ProjectionName>,
    /// Loads nothing above this version, neither snapshot nor events.
    pub until: Option<Version>,
    /// The maximum number of events on the page, [`PAGE_EVENTS`] by default; 0 loads the snapshot only.
    pub events: usize,
}

impl Load {
    /// Requests the newest snapshot of this name and the events after it.
    pub fn new(stream: StreamId, snapshot: Option<ProjectionName>) -> Self {
        Self { stream, snapshot, until: None, events: PAGE_EVENTS }
    }
}

/// The result of a [`Load`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Loaded {
    /// The snapshot, unless there is none at or below the requested version.
    pub snapshot: Option<Snapshot>,
    /// The first page of the events after the snapshot (or of all events), forward; more pages follow unless
    /// [`Page::end`] is set.
    pub page: Page,
}

impl Loaded {
    /// The head of the stream when it was loaded; [`None`] for `@all`, and for a load of the snapshot only.
    pub fn head(&self) -> Option<StreamHead> {
        self.page.stream
    }
}

/// A request for a page of the list of streams.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListStreams {
    /// Only streams of this category.
    pub category: Option<String>,
    /// Only streams that come after this one.
    pub after: Option<StreamId>,
    /// The maximum number of streams; 1,000 by default.
    pub limit: usize,
}

impl Default for ListStreams {
    fn default() -> Self {
        Self { category: None, after: None, limit: 1_000 }
    }
}

impl ListStreams {
    /// Requests the first page of all streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only streams of this category.
    #[must_use]
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.category = Some(category.into());
        self
    }

    /// Only streams that come after this one, the last of the previous page.
    #[must_use]
    pub fn after(mut self, stream: impl Into<StreamId>) -> Self {
        self.after = Some(stream.into());
        self
    }

    /// Sets the maximum number of streams.
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
