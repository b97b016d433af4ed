//! The lowest layer: the log.
//!
//! Plain data, the [`Engine`] contract, the in-memory engine, and what all engines share on top of it: the stream
//! handle, paged reads, watches.

mod append;
mod cell;
mod checksum;
mod commit_hook;
mod engine;
mod error;
mod event;
mod expected_version;
mod extensions;
mod filter;
mod head;
mod id;
pub(crate) mod inspect;
mod json;
mod judge;
mod like;
mod limits;
mod memory;
mod metadata;
mod name;
mod notifier;
pub(crate) mod observer;
mod one_or_many;
mod page_check;
mod pages;
mod position;
mod query;
mod read;
mod reader;
mod scalar;
mod snapshot;
mod store;
mod stream;
mod tag;
mod time;
mod watch;

pub use append::{
    Append, Appended, CommandRecord, Fingerprint, KeyedCommand, MAX_CELLS, MAX_CONDITIONS, Outcome, StreamAppended,
    StreamWrite, WhenFull,
};
pub use cell::{Cell, CellFacts, CellWrite, ListCells};
pub use checksum::checksum;
pub use commit_hook::{CommitHook, CommitHooks, Committing, HookError, Hooked};
pub use engine::Engine;
pub use error::{AppendError, BoxError, CellError, Conflict, ErrorKind, InvalidAppend, SnapshotError, StoreError};
pub use event::{CandidateEvent, EventType, IntoCandidates, StoredEvent};
pub use expected_version::ExpectedVersion;
pub use filter::{Clause, EventHeader, Field, Filter};
pub use head::{StreamHead, StreamState};
pub use id::{EventId, EventIdKind, StoreId};
pub use judge::{
    Facts, KnownEvent, Plan, PlannedCell, PlannedEvent, PlannedStream, Questions, StreamFacts, StreamQuestion, Verdict,
    judge, judge_as_unknown,
};
pub use limits::Limits;
pub use memory::MemoryStore;
pub use metadata::{InvalidMetadata, Metadata};
pub(crate) use name::check_name;
pub use name::{CellKey, CommandKey, InvalidName, MAX_NAME_BYTES, ProjectionName, StreamId};
pub use notifier::Notifier;
pub use position::{Place, Position, Version};
pub use query::{AppendCondition, Criterion, InvalidQuery, MAX_CRITERIA, MAX_CRITERION_TYPES, Query};
pub use read::{
    Direction, ListStreams, Load, Loaded, Mark, PAGE_BYTES, PAGE_EVENTS, PAGE_SCAN, Page, Read, StreamInfo,
};
pub use reader::{AsOf, Reader, Reading};
pub use scalar::{Path, Scalar};
pub use snapshot::Snapshot;
pub use store::Store;
pub use stream::{Stream, StreamMetrics};
pub use tag::{MAX_TAGS, Tag, Tags};
pub use time::{Clock, SystemClock, Timestamp, Turned};
pub(crate) use watch::NotAwaited;
pub(crate) use watch::Stretch;
pub use watch::{Watch, WatchBuilder};
