//! What engine authors need and users do not.
//!
//! An engine implements [`Engine`] over a database. The rules of the contract that need no database are written once,
//! here and on top of the trait: an engine fills in [`Facts`] and [`judge`] decides, a [`Notifier`] wakes watchers. The
//! suite of `es-conformance` has one test for each promise, and a guide, "Write an engine in a day".

mod bounded_map;
mod deferred;
mod group;
mod inbox;
mod queue;
mod room;

// The contract, and its requests and results.
pub use crate::log::{
    Direction, Engine, ListStreams, Load, Loaded, Mark, PAGE_BYTES, PAGE_EVENTS, PAGE_SCAN, Page, Read, StreamHead,
    StreamInfo, StreamState,
};
// The judge.
pub use crate::log::{
    Facts, KnownEvent, Plan, PlannedEvent, PlannedStream, Questions, StreamFacts, StreamQuestion, Verdict, judge,
    judge_as_unknown,
};
// Events, as they are stored and filtered.
pub use crate::log::{Clause, EventHeader, checksum};
// Waking watchers.
pub use crate::log::Notifier;
// A writer's queue, and groups of writes that are committed together.
pub use deferred::{Answer, Deferred, WriteError};
pub use group::{Committer, Group, GroupError};
pub use inbox::{Inbox, Next};
pub use queue::{Queue, Ticket};
pub use room::{Permit, Queued, Refused};
// A cache.
pub use bounded_map::BoundedMap;
