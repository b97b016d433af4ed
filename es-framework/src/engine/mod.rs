//! What engine authors need and users do not.
//!
//! An engine implements [`Engine`] over a database. The rules of the contract that need no database are written once,
//! here and on top of the trait: an engine fills in [`Facts`] and [`judge`] decides, a [`Notifier`] wakes watchers. The
//! suite of `es-conformance` has one test for each promise, and a guide, "Write an engine in a day".
//!
//! # Conditions
//!
//! For each of [`Questions::conditions`], an engine looks up the first event after a position that matches a query, in
//! the transaction that writes. Several appends may be written in one transaction: each is judged against everything
//! that was written before it, by earlier transactions and earlier in this one, tags included. Where the first match may
//! be:
//!
//! 1. Nowhere, as [`TagHeads`] knows without a query for nearly every condition on recent reads.
//! 2. In the index over tags and types, which holds what the transaction has inserted so far.
//! 3. Among the events that the engine has accepted and not yet inserted, if it collects them:
//!    [`AppendCondition::first_match`].
//!
//! The smallest position of 2 and 3 is the answer; as what is collected comes later, the index is asked first.

mod bounded_map;
mod deferred;
mod group;
mod inbox;
mod queue;
mod room;
mod tag_heads;

// The contract, and its requests and results.
pub use crate::log::{
    Direction, Engine, ListStreams, Load, Loaded, Mark, PAGE_BYTES, PAGE_EVENTS, PAGE_SCAN, Page, Read, StreamHead,
    StreamInfo, StreamState,
};
// The judge.
pub use crate::log::{
    CellFacts, Facts, KnownEvent, Plan, PlannedCell, PlannedEvent, PlannedStream, Questions, StreamFacts,
    StreamQuestion, Verdict, judge, judge_as_unknown,
};
// Events, as they are stored and filtered.
pub use crate::log::{Clause, EventHeader, checksum};
// Tags and conditions.
pub use crate::log::{AppendCondition, Criterion, Query, Tag, Tags};
// Code that runs inside the transactions of appends.
pub use crate::log::{CommitHook, CommitHooks, Committing, HookError, Hooked};
// Waking watchers.
pub use crate::log::Notifier;
// A writer's queue, and groups of writes that are committed together.
pub use deferred::{Answer, Deferred, WriteError};
pub use group::{Committer, Group, GroupError};
pub use inbox::{Inbox, Next};
pub use queue::{Queue, Ticket};
pub use room::{Permit, Queued, Refused};
// A cache, and a memory that answers most conditions.
pub use bounded_map::BoundedMap;
pub use tag_heads::TagHeads;
