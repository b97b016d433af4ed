//! What the writer knows without asking the server.

use std::sync::Arc;

use es_framework::engine::{BoundedMap, TagHeads};
use es_framework::{EventType, Position, StreamHead, StreamId, Timestamp};

/// Where a stream ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    /// The stream's number; 0 if it has none yet.
    pub(super) number: i64,
    pub(super) stream: StreamHead,
}

/// The end of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) position: Position,
    pub(super) time: Timestamp,
    pub(super) generation: i64,
    /// The highest numbers of streams and types.
    pub(super) last_stream: i64,
    pub(super) last_type: i32,
}

/// What the writer knows of the log as of [`Self::end`]. It is used to judge, and holds if the log still ends there
/// when the group is written.
#[derive(Debug)]
pub(super) struct Memory {
    /// [`None`] if nothing is known.
    pub(super) end: Option<End>,
    pub(super) heads: BoundedMap<StreamId, Head>,
    /// Numbers never come to mean something else, so these hold whatever others write.
    pub(super) types: BoundedMap<Arc<EventType>, i32>,
    pub(super) tags: TagHeads,
}

impl Default for Memory {
    fn default() -> Self {
        Self { end: None, heads: BoundedMap::new(65_536), types: BoundedMap::new(4_096), tags: TagHeads::new(65_536) }
    }
}

impl Memory {
    pub(super) fn forget(&mut self) {
        self.end = None;
        self.heads.clear();
        self.types.clear();
    }
}
