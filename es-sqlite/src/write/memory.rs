//! What the writer knows without querying the database.

use std::sync::Arc;

use es_framework::engine::{BoundedMap, CommitHooks, Hooked};
use es_framework::{Clock, Criterion, EventType, Position, StoreId, StoredEvent, StreamHead, StreamId, Tag, Timestamp};

use crate::tables::interned::Names;
use crate::tables::postings::TermEnd;
use crate::write::insert_buffer::Pending;

/// Where a stream ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    /// The stream's number; 0 if it has none yet.
    pub(crate) number: i64,
    pub(crate) stream: StreamHead,
}

/// Where the events with a tag end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TagHead {
    /// The tag's number; 0 if it has none yet.
    pub(crate) number: i64,
    pub(crate) end: TermEnd,
}

/// Where a criterion was searched for, and no event met it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unmatched {
    /// No event above this position, ...
    pub(crate) after: Position,
    /// ... and up to this one.
    pub(crate) upto: Position,
}

/// What the writer knows without querying the database. All of it is the state inside the running transaction, and is
/// discarded when a transaction is rolled back.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) store: StoreId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) head: Option<(Position, Timestamp)>,
    pub(crate) heads: BoundedMap<StreamId, Head>,
    pub(crate) last_stream: Option<i64>,
    pub(crate) tags: BoundedMap<Tag, TagHead>,
    pub(crate) last_tag: Option<i64>,
    /// The last posting of each type, and the type and block of the last event.
    pub(crate) type_ends: BoundedMap<i64, TermEnd>,
    pub(crate) last_block: Option<(i64, u64)>,
    pub(crate) unmatched: BoundedMap<Criterion, Unmatched>,
    pub(crate) types: BoundedMap<Arc<EventType>, i64>,
    pub(crate) last_type: Option<(Arc<EventType>, i64)>,
    pub(crate) names: Names,
    /// Whether there are watchers, for whom written events are kept for the notifier.
    pub(crate) watched: bool,
    pub(crate) written: Vec<StoredEvent>,
    pub(crate) pending: Pending,
    /// What else runs inside the transactions of appends.
    pub(crate) hooks: Arc<CommitHooks>,
    /// The hooks that the running transaction has called.
    pub(crate) hooked: Hooked,
    /// The number of further appends with ids that are looked up before they are written.
    pub(crate) careful: u32,
    /// Whether an id turned out to be known only when it was written.
    pub(crate) collided: bool,
    /// Whether all ids are looked up, because one of the group was known.
    pub(crate) look_up: bool,
}

impl Memory {
    pub(crate) fn new(store: StoreId, clock: Arc<dyn Clock>, hooks: Arc<CommitHooks>) -> Self {
        Self {
            store,
            clock,
            head: None,
            heads: BoundedMap::new(65_536),
            last_stream: None,
            tags: BoundedMap::new(65_536),
            last_tag: None,
            type_ends: BoundedMap::new(4_096),
            last_block: None,
            unmatched: BoundedMap::new(256),
            types: BoundedMap::new(4_096),
            last_type: None,
            names: Names::default(),
            watched: false,
            written: Vec::new(),
            pending: Pending::default(),
            hooks,
            hooked: Hooked::default(),
            careful: 0,
            collided: false,
            look_up: false,
        }
    }

    /// Discards everything, after the transaction was rolled back.
    pub(crate) fn forget(&mut self) {
        self.forget_since(0);
        self.hooked = Hooked::default();
    }

    /// Discards what may have changed, after an append was rolled back in a transaction that goes on; of the events
    /// written, the first `kept` are still there.
    pub(crate) fn forget_since(&mut self, kept: usize) {
        self.head = None;
        self.heads.clear();
        self.last_stream = None;
        self.tags.clear();
        self.last_tag = None;
        self.type_ends.clear();
        self.last_block = None;
        self.unmatched.clear();
        self.types.clear();
        self.last_type = None;
        self.names.clear();
        self.written.truncate(kept);
        self.pending.clear();
    }
}
